//! Which names hold a hash of their content, and may therefore be kept for ever.
//!
//! Bundlers write `index-DiwrgTda.js` (Vite, Rollup: eight of base64url), `app-DTEB7SFX.js` (esbuild: eight of
//! base32), `main.3f2a9c1b.css` (webpack, Parcel: eight or more hex digits). People write `chart-bootstrap4.css` and
//! `photo-20240115.jpg`, and a browser that keeps one of those for a year cannot be told otherwise. One name alone often
//! does not say which of the two it is; its neighbours do, because a bundler hashes every script and style that it
//! writes into a directory, and people hardly ever name all of theirs so.

use std::collections::BTreeMap;

/// Shorter ones are chosen by nobody, and words of this length with a digit are common.
const HASH_CHARS_MIN: usize = 8;
/// SHA-256 in hex.
const HASH_CHARS_MAX: usize = 64;

/// What a name says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    Plain,
    /// As a bundler or a person could have named it.
    Plausible,
    /// Hardly a word with a number.
    Likely,
    Certain,
}

/// What the scripts and styles of a directory say of its other names.
#[derive(Clone, Copy, Debug)]
struct Directory {
    scripts_are_hashed: bool,
    likeliest: Look,
}

/// All directories of a site.
#[derive(Debug, Default)]
pub(super) struct Hashed {
    directories: BTreeMap<Box<str>, Directory>,
}

impl Hashed {
    pub(super) fn new<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let mut directories: BTreeMap<Box<str>, Directory> = BTreeMap::new();
        for path in paths {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            let name = bare(name);
            if !is_script_or_style(name) {
                continue;
            }
            let look = look(name);
            let known = directories
                .entry(directory.into())
                .or_insert(Directory { scripts_are_hashed: true, likeliest: Look::Plain });
            known.scripts_are_hashed &= look >= Look::Plausible;
            known.likeliest = known.likeliest.max(look);
        }
        Self { directories }
    }

    /// Whether the content of this path never changes.
    pub(super) fn is_hashed(&self, path: &str) -> bool {
        // SvelteKit and Next.js write nothing else there, and names without a hash are below a build's own directory.
        if path.starts_with("_app/immutable/") || path.starts_with("_next/static/") {
            return true;
        }
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = bare(name);
        if is_page(name) {
            return false;
        }
        match look(name) {
            Look::Plain => false,
            Look::Certain => true,
            Look::Plausible | Look::Likely => self.directories.get(directory).is_some_and(|known| {
                known.scripts_are_hashed && (known.likeliest >= Look::Likely || is_of_a_bundler(directory))
            }),
        }
    }
}

/// Could the name hold a hash? A name that is asked for and not there has no neighbours.
pub(super) fn may_be_hashed(path: &str) -> bool {
    let name = bare(path.rsplit('/').next().unwrap_or_default());
    let is_immutable = path.starts_with("_app/immutable/") || path.starts_with("_next/static/");
    !is_page(name) && (is_immutable || look(name) >= Look::Plausible)
}

/// Vite, Astro and Nuxt write their output there.
fn is_of_a_bundler(directory: &str) -> bool {
    matches!(directory.rsplit('/').next(), Some("assets" | "_astro" | "_nuxt"))
}

/// Without what is appended to a whole name: `app.js.map` and `app.js.br` say what `app.js` says.
fn bare(name: &str) -> &str {
    let name = [".br", ".gz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    name.strip_suffix(".map").unwrap_or(name)
}

fn is_script_or_style(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| matches!(end, "js" | "mjs" | "css"))
}

fn is_page(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| matches!(end, "html" | "htm" | "xhtml"))
}

fn look(name: &str) -> Look {
    let Some((stem, _)) = name.rsplit_once('.') else { return Look::Plain };
    // `main.3f2a9c1b.chunk.js`: any part behind the first dot, or what follows a hyphen.
    let parts = stem.split('.').enumerate();
    parts.map(|(index, part)| part_look(part, index > 0)).max().unwrap_or(Look::Plain)
}

fn part_look(part: &str, may_be_whole: bool) -> Look {
    let tail = match part.rsplit_once('-') {
        Some((_, tail)) => tail,
        None if may_be_whole => part,
        None => "",
    };
    let of_tail = token_look(tail);
    if of_tail > Look::Plain {
        return of_tail;
    }
    // A hash of base64url may hold a hyphen; then its length is all there is to find its begin.
    let Some(start) = part.len().checked_sub(HASH_CHARS_MIN + 1) else { return Look::Plain };
    let bytes = part.as_bytes();
    let eight = &bytes[start + 1..];
    let has = |test: fn(&u8) -> bool| eight.iter().any(test);
    let is_of_its_letters = eight.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    if bytes[start] == b'-' && is_of_its_letters && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
    {
        Look::Plausible
    } else {
        Look::Plain
    }
}

fn token_look(token: &str) -> Look {
    let bytes = token.as_bytes();
    if !(HASH_CHARS_MIN..=HASH_CHARS_MAX).contains(&bytes.len())
        || !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    {
        return Look::Plain;
    }
    let has = |test: fn(&u8) -> bool| bytes.iter().any(test);
    let (digit, upper, lower) =
        (has(u8::is_ascii_digit), has(u8::is_ascii_uppercase), has(u8::is_ascii_lowercase));
    // From a letter to a digit and back: "cafe2024" and "3dmodels" change once.
    let changes =
        bytes.windows(2).filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit()).count();
    let is_hex = lower && !upper && bytes.iter().all(u8::is_ascii_hexdigit);
    let is_base32 = upper && !lower && bytes.len() == HASH_CHARS_MIN;
    match (digit, upper || lower) {
        (true, true) if changes >= 2 && (is_hex || is_base32) => Look::Certain,
        (true, true) if changes >= 3 => Look::Certain,
        (true, true) if upper && lower || is_hex || is_base32 => Look::Likely,
        (true, _) => Look::Plausible,
        // `index-DiwrgTda.js` or `page-AppShell.js`.
        (false, _) if upper => Look::Plausible,
        (false, _) => Look::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed<'a>(paths: &[&'a str]) -> Vec<&'a str> {
        let site = Hashed::new(paths.iter().copied());
        paths.iter().copied().filter(|path| site.is_hashed(path)).collect()
    }

    #[test]
    fn what_bundlers_write_is_hashed() {
        let sites: [&[&str]; 8] = [
            // Vite, without a digit in either name, and with a hyphen within a hash.
            &["assets/index-DiwrgTda.js", "assets/index-BqXkLmPw.css", "assets/logo-B-xyzTda.svg"],
            // Vite into another directory.
            &["static/index-DiwrgTd4.js", "static/vendor-BqXkLmPw.js", "static/inter-CqXkLm_w.woff2"],
            // esbuild and Angular.
            &["main-DTEB7SFX.js", "chunk-ABCDEFGH.js", "styles-5INURTSO.css"],
            // webpack, create-react-app, Parcel.
            &[
                "static/js/main.3f2a9c1b.js",
                "static/js/787.28cb0dcd.chunk.js",
                "static/media/a.6ce24c58023cc2f8fd88.svg",
            ],
            &["app.3f2a9c1b.css", "app.3f2a9c1b.css.map", "app.3f2a9c1b.css.br"],
            // Next.js and SvelteKit.
            &["_next/static/chunks/main-app-0123456789abcdef.js", "_next/static/x7Gq/_buildManifest.js"],
            &["_app/immutable/entry/start.BFo1k2x3.js", "_app/immutable/nodes/0.DxyzAbCd.js"],
            &["_astro/hoisted.BxyzAbCd.js", "_astro/index.D1yzAbCd.css"],
        ];
        for site in sites {
            assert_eq!(hashed(site), site);
        }
    }

    #[test]
    fn what_people_write_is_not() {
        let site = [
            "app.js",
            "bootstrap.bundle.js",
            "chart-bootstrap4.css",
            "jquery-3.7.1.js",
            "jquery-migrate-3.4.0.min.js",
            "page-AppShell.js",
            "shop-Dashboard.css",
            "README",
            "index.html",
            "report-3f2a9c1b.html",
            "img/photo-20240115.jpg",
            "img/menu-cafe2024.jpg",
            "img/IMG-12345678.png",
            "img/holiday-Barcelona.png",
            "docs/report-Q3numbers.pdf",
            "",
            ".",
            "-",
            "a-.js",
        ];
        assert_eq!(hashed(&site), Vec::<&str>::new());
    }

    #[test]
    fn one_plain_script_is_enough_to_doubt_its_neighbours() {
        assert_eq!(hashed(&["assets/index-DiwrgTda.js", "assets/main.js"]), Vec::<&str>::new());
        // What speaks for itself needs no neighbours.
        assert_eq!(hashed(&["js/app.3f2a9c1b.js", "js/main.js"]), ["js/app.3f2a9c1b.js"]);
    }

    #[test]
    fn letters_of_more_than_one_byte_are_no_hash_and_no_crash() {
        for name in
            ["ääääääääää.js", "a-ääääääää.js", "x-ä1234567.js", "日本語日本語日本語.css", "é-Bbbbbbb.js"]
        {
            assert!(!Hashed::new([name].into_iter()).is_hashed(name), "{name}");
            may_be_hashed(name);
        }
    }
}
