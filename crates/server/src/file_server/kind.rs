//! What a file is, by the end of its name.

/// The content type, with a charset where it is text: everything that tools write today is UTF-8, and without one
/// browsers guess.
pub(super) fn content_type(path: &str) -> String {
    let kind = match ending(path) {
        // Bundlers' source maps and the formats that are newer than the table.
        Some("map" | "webapp") => return "application/json".to_owned(),
        Some("jxl") => return "image/jxl".to_owned(),
        Some("js" | "mjs" | "cjs") => return "text/javascript; charset=utf-8".to_owned(),
        Some(_) => mime_guess::from_path(path).first_or_octet_stream(),
        None => return "application/octet-stream".to_owned(),
    };
    if kind.type_() == "text" { format!("{kind}; charset=utf-8") } else { kind.to_string() }
}

/// The page itself, and what must be of the same release as the page because only the two together work.
pub(super) fn belongs_to_a_page(path: &str) -> bool {
    matches!(
        ending(path),
        Some(
            "html" | "htm" | "xhtml" | "js" | "mjs" | "cjs" | "css" | "map" | "json" | "wasm" | "webmanifest"
        )
    )
}

/// What a page loads by itself: one that is missing is never answered with a page.
pub(super) fn is_part_of_a_page(path: &str) -> bool {
    let Some(ending) = ending(path) else { return false };
    let is_code = belongs_to_a_page(path) && !matches!(ending, "html" | "htm" | "xhtml");
    is_code
        || matches!(
            ending,
            "avif"
                | "bmp"
                | "eot"
                | "gif"
                | "ico"
                | "jpeg"
                | "jpg"
                | "mp3"
                | "mp4"
                | "ogg"
                | "otf"
                | "png"
                | "svg"
                | "ttf"
                | "vtt"
                | "webm"
                | "webp"
                | "woff"
                | "woff2"
        )
}

/// Whether a `.br`, `.zst` or `.gz` beside it is this file, packed: beside an `app.tar` lies another download.
pub(super) fn may_be_packed(path: &str) -> bool {
    belongs_to_a_page(path)
        || matches!(
            ending(path),
            Some(
                "svg" | "xml" | "txt" | "md" | "csv" | "rss" | "atom" | "ico" | "ttf" | "otf" | "eot" | "pdf"
            )
        )
}

/// Behind the last dot of the last part, in the case that it is written in; none for `README` and `.env`.
pub(super) fn ending(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').filter(|(stem, end)| !stem.is_empty() && !end.is_empty()).map(|(_, end)| end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_a_charset_and_nothing_else_has() {
        let cases = [
            ("index.html", "text/html; charset=utf-8"),
            ("assets/app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.css", "text/css; charset=utf-8"),
            ("robots.txt", "text/plain; charset=utf-8"),
            ("data.json", "application/json"),
            ("app.js.map", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("logo.svg", "image/svg+xml"),
            ("photo.JPG", "image/jpeg"),
            ("photo.avif", "image/avif"),
            ("inter.woff2", "font/woff2"),
            ("main.wasm", "application/wasm"),
            ("setup.exe.unknown", "application/octet-stream"),
            ("README", "application/octet-stream"),
        ];
        for (path, expected) in cases {
            assert_eq!(content_type(path), expected, "{path}");
        }
    }

    #[test]
    fn the_ending_is_of_the_last_part() {
        let cases = [
            ("a.b/c", None),
            (".env", None),
            ("a.", None),
            ("a.b", Some("b")),
            ("", None),
            ("x/.a.b", Some("b")),
        ];
        for (path, expected) in cases {
            assert_eq!(ending(path), expected, "{path:?}");
        }
    }
}
