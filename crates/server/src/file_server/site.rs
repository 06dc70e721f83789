//! What a site consists of: every file that may be served, with the digest of its content. A name that is not in here
//! is not on the site, whatever lies on the disk.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fairway_engine::service::StaticServing;
use fairway_store::{Kind, Manifest};
use serde::{Deserialize, Serialize};

use super::hashed::Hashed;
use super::path::is_hidden;

const VERSION: u32 = 1;

/// The store's own limit for a tree, at two hundred bytes a file.
const DOCUMENT_BYTES_MAX: u64 = 100 << 20;

/// As many as the store takes in a tree.
const FILES_MAX: usize = fairway_store::tree::ENTRIES_MAX;
const DEPTH_MAX: usize = fairway_store::tree::DEPTH_MAX;

/// Linux follows forty; a site that needs more than a few has a loop.
const LINKS_MAX: usize = 16;

/// Hex digits of a digest that are kept: 128 bits are enough for two contents never to be taken for one.
const TAG_CHARS: usize = 32;

/// A site as it is written down for the process that serves it, and for those that serve other releases of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    version: u32,
    /// The directory that holds the files.
    pub(crate) root: PathBuf,
    pub(crate) spa: bool,
    pub(crate) serving: StaticServing,
    files: BTreeMap<String, Content>,
    /// Symlinks that stay within the site, and where they lead.
    links: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    tag: String,
    bytes: u64,
}

impl Document {
    /// The files of `dir` (empty = all) in a tree that lies at `tree`.
    ///
    /// # Errors
    /// When there is no such directory in the tree.
    pub(crate) fn of_manifest(
        manifest: &Manifest,
        tree: &Path,
        dir: &str,
        spa: bool,
        serving: StaticServing,
    ) -> Result<Self, String> {
        let links: BTreeMap<String, String> = manifest
            .entries()
            .iter()
            .filter_map(|(path, kind)| match kind {
                Kind::Symlink { target } => Some((path.as_str().to_owned(), lead(path.as_str(), target)?)),
                Kind::File { .. } | Kind::Directory => None,
            })
            .collect();
        let missing = || format!("there is no directory {dir:?} among the files of the release");
        let dir = follow(&links, dir).ok_or_else(missing)?.into_owned();
        let within = |path: &str| below(path, &dir).filter(|path| !is_hidden(path)).map(str::to_owned);
        let mut files = BTreeMap::new();
        let mut is_there = dir.is_empty();
        for (path, kind) in manifest.entries() {
            is_there |= path.as_str() == dir && matches!(kind, Kind::Directory);
            let Some(path) = within(path.as_str()) else { continue };
            if let Kind::File { digest, bytes, .. } = kind {
                files.insert(path, Content { tag: digest.to_hex()[..TAG_CHARS].to_owned(), bytes: *bytes });
            }
        }
        if !is_there {
            return Err(missing());
        }
        let links = links.iter().filter_map(|(from, to)| Some((within(from)?, within(to)?))).collect();
        Ok(Self { version: VERSION, root: tree.join(&dir), spa, serving, files, links })
    }

    /// The files of a directory that no tree is known of. Reads all of them.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub(crate) fn of_directory(root: &Path, spa: bool) -> io::Result<Self> {
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        let mut directories = vec![(root.to_owned(), String::new(), 0)];
        while let Some((directory, prefix, depth)) = directories.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                // What has no UTF-8 name has no URL that would name it.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                if is_hidden(&path) {
                    continue;
                }
                if files.len() >= FILES_MAX || depth >= DEPTH_MAX {
                    return Err(io::Error::other(format!("{} has too many files or levels", root.display())));
                }
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    directories.push((entry.path(), path, depth + 1));
                } else if kind.is_symlink() {
                    let target = fs::read_link(entry.path())?;
                    if let Some(target) = target.to_str().and_then(|target| lead(&path, target)) {
                        links.insert(path, target);
                    }
                } else if kind.is_file() {
                    let (tag, bytes) = digest(&entry.path())?;
                    files.insert(path, Content { tag, bytes });
                }
            }
        }
        let serving = StaticServing::default();
        Ok(Self { version: VERSION, root: root.to_owned(), spa, serving, files, links })
    }

    /// # Errors
    /// When it cannot be read, or is not one.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let document: Self = parse(path)?;
        if document.version != VERSION {
            let why = format!("its version is {}, {VERSION} is known", document.version);
            return Err(not_a_site(path, &why));
        }
        Ok(document)
    }

    /// The directory alone, without keeping the rest.
    ///
    /// # Errors
    /// As for [`Document::read`].
    pub(crate) fn root_of(path: &Path) -> io::Result<PathBuf> {
        #[derive(Deserialize)]
        struct Root {
            root: PathBuf,
        }
        parse::<Root>(path).map(|document| document.root)
    }

    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(io::Error::from)
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(not_a_site(path, "it is too large"));
    }
    serde_json::from_slice(&bytes).map_err(|error| not_a_site(path, &error.to_string()))
}

fn not_a_site(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a site: {why}", path.display()))
}

fn digest(path: &Path) -> io::Result<(String, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs::File::open(path)?;
    let bytes = io::copy(&mut file, &mut hasher)?;
    Ok((hasher.finalize().to_hex()[..TAG_CHARS].to_owned(), bytes))
}

/// Where a symlink at `path` leads, from the same root; none when out of it.
fn lead(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// `path` as seen from the directory `dir`.
fn below<'a>(path: &'a str, dir: &str) -> Option<&'a str> {
    if dir.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(dir)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// The path without a symlink in it; none for a loop.
fn follow<'a>(links: &BTreeMap<String, String>, path: &'a str) -> Option<Cow<'a, str>> {
    let mut path = Cow::Borrowed(path);
    if links.is_empty() {
        return Some(path);
    }
    for _ in 0..LINKS_MAX {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let found = ends.map(|end| (&path[..end], &path[end..])).find_map(|(prefix, rest)| {
            let target = links.get(prefix)?;
            // To the root itself: what remains begins with the slash that it does not need.
            let rest = if target.is_empty() { rest.trim_start_matches('/') } else { rest };
            Some(format!("{target}{rest}"))
        });
        match found {
            None => return Some(path),
            Some(next) => path = Cow::Owned(next),
        }
    }
    None
}

/// A site, ready to be asked.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) root: PathBuf,
    pub(super) spa: bool,
    pub(super) serving: StaticServing,
    files: HashMap<Box<str>, File>,
    links: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// With its quotation marks: a strong validator, equal for equal bytes in every release.
    pub(super) etag: Box<str>,
    pub(super) bytes: u64,
    /// Its name says its content.
    pub(super) hashed: bool,
}

impl Site {
    pub(super) fn new(document: Document) -> Self {
        let Document { version: _, root, spa, serving, files, links } = document;
        let hashed = Hashed::new(files.keys().map(String::as_str));
        let file = |(path, Content { tag, bytes }): (String, Content)| {
            let hashed = hashed.is_hashed(&path);
            (path.into_boxed_str(), File { etag: format!("\"{tag}\"").into(), bytes, hashed })
        };
        let files = files.into_iter().map(file).collect();
        Self { root, spa, serving, files, links }
    }

    /// What of the site may be served in the place of another release's.
    pub(super) fn hashed_only(mut self) -> Self {
        self.files.retain(|_, file| file.hashed);
        self.files.shrink_to_fit();
        self.links.clear();
        self
    }

    /// The path without symlinks.
    pub(super) fn follow<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        follow(&self.links, path)
    }

    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "content").unwrap();
    }

    fn tree() -> (tempfile::TempDir, Manifest, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let source = home.path().join("source");
        for path in ["out/index.html", "out/v2/app.js", "out/.env", "out/a/.git/config", "secret.txt"] {
            write(&source, path);
        }
        write(&source, "out/.well-known/security.txt");
        let link = |path: &str, target: &str| symlink(target, source.join(path)).unwrap();
        link("out/current", "v2");
        link("out/start.html", "./index.html");
        link("out/env.txt", ".env");
        link("out/up.txt", "../secret.txt");
        link("out/etc", "/etc");
        link("out/far", "../../../etc");
        link("out/loop", "loop");
        link("out/a/top", "..");
        link("public", "out");
        let trees = fairway_store::Trees::open(&home.path().join("state")).unwrap();
        let captured = trees.capture(&source, &fairway_store::Exclude::default()).unwrap();
        let path = trees.materialise(&captured.digest).unwrap().path;
        (home, captured.manifest, path)
    }

    #[test]
    fn a_site_has_its_files_and_links_and_nothing_hidden_or_outside() {
        let (_home, manifest, tree) = tree();
        for dir in ["out", "public"] {
            let rules = StaticServing::default();
            let document = Document::of_manifest(&manifest, &tree, dir, true, rules).unwrap();
            assert_eq!(document.root, tree.join("out"));
            let files: Vec<&str> = document.files.keys().map(String::as_str).collect();
            assert_eq!(files, [".well-known/security.txt", "index.html", "v2/app.js"]);
            let site = Site::new(document);
            let found =
                |path: &str| site.follow(path).filter(|path| site.get(path).is_some()).map(Cow::into_owned);
            assert_eq!(found("current/app.js").unwrap(), "v2/app.js");
            assert_eq!(found("start.html").unwrap(), "index.html");
            assert_eq!(found("a/top/index.html").unwrap(), "index.html");
            for gone in ["env.txt", "up.txt", "etc/passwd", "far/passwd", "loop", "loop/x", "a", ""] {
                assert_eq!(found(gone), None, "{gone}");
            }
        }
        let of = |dir| Document::of_manifest(&manifest, &tree, dir, true, StaticServing::default());
        assert!(of("nowhere").is_err() && of("secret.txt").is_err());
    }

    #[test]
    fn a_directory_without_a_tree_gives_the_same_site() {
        let (_home, manifest, tree) = tree();
        let of_tree = Document::of_manifest(&manifest, &tree, "out", true, StaticServing::default()).unwrap();
        let of_directory = Document::of_directory(&tree.join("out"), true).unwrap();
        assert_eq!(of_tree.files, of_directory.files);
        let (a, b) = (Site::new(of_tree), Site::new(of_directory));
        for path in ["current/app.js", "start.html", "env.txt", "up.txt", "far/passwd"] {
            let found = |site: &Site| site.follow(path).and_then(|path| site.get(&path).cloned());
            assert_eq!(found(&a), found(&b), "{path}");
        }
    }

    #[test]
    fn a_document_reads_back_what_it_wrote_and_garbage_is_refused() {
        let (home, manifest, tree) = tree();
        let document =
            Document::of_manifest(&manifest, &tree, "out", false, StaticServing::default()).unwrap();
        let path = home.path().join("site");
        let bytes = document.encode().unwrap();
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Document::read(&path).unwrap(), document);
        for bad in [&b""[..], b"{}", b"\xff", &bytes[..bytes.len() / 2], &vec![b'['; 100_000]] {
            fs::write(&path, bad).unwrap();
            assert!(Document::read(&path).is_err());
        }
        let next = String::from_utf8(bytes).unwrap().replacen("\"version\":1", "\"version\":2", 1);
        fs::write(&path, next).unwrap();
        assert!(Document::read(&path).unwrap_err().to_string().contains("version"));
    }
}
