//! What a release runs, to the byte: a directory as a sorted list of entries, and its digest.
//!
//! A manifest is itself a blob, and the digest of a tree is the digest of that blob: whoever has the digest can fetch
//! and verify all the rest.

mod cache;
mod capture;
mod materialise;
mod stamp;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fairway_engine::id::TreeDigest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use capture::{CaptureError, Captured, Exclude};
pub(crate) use materialise::{ASIDE_PREFIX, remove_tree};
pub use materialise::{How, MaterialiseError, Materialised};

use crate::blobs::{BlobError, Blobs, failed};
use crate::digest::{Digest, InvalidDigest};

/// The largest real ones are `node_modules` with some 200,000 entries; beyond twice that somebody captured a home
/// directory by mistake.
pub const ENTRIES_MAX: usize = 500_000;

/// Linux refuses paths from 4096 bytes on; half of it is left for the directory that the tree will be built in.
pub const PATH_BYTES_MAX: usize = 2048;

/// A limit of all common filesystems.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// Far more than any project; bounds the walk against a directory that contains itself through a bind mount.
pub const DEPTH_MAX: usize = 128;

/// `ENTRIES_MAX` lines of ordinary length.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// A limit of Linux for what a symlink may hold.
const SYMLINK_BYTES_MAX: usize = 4095;

const FIRST_LINE: &str = "fairway-tree 1";

/// A path inside a tree: relative, with `/`, without `.`, `..` and empty parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(String);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path:?} cannot be a path of a tree: {why}")]
pub struct InvalidPath {
    pub path: String,
    pub why: &'static str,
}

impl TreePath {
    /// # Errors
    /// When the path could lead out of the tree, or would not fit into a filesystem.
    pub fn new(path: &str) -> Result<Self, InvalidPath> {
        let fail = |why| Err(InvalidPath { path: path.chars().take(200).collect(), why });
        if path.is_empty() {
            return fail("it is empty");
        }
        if path.len() > PATH_BYTES_MAX {
            return fail("it has more than 2048 bytes");
        }
        if path.starts_with('/') {
            return fail("it is absolute");
        }
        if path.contains('\0') {
            return fail("it holds a NUL byte");
        }
        for (depth, part) in path.split('/').enumerate() {
            match part {
                "" => return fail("it has an empty part"),
                "." | ".." => return fail("it has a part '.' or '..'"),
                part if part.len() > COMPONENT_BYTES_MAX => return fail("a part has more than 255 bytes"),
                _ if depth >= DEPTH_MAX => return fail("it is more than 128 levels deep"),
                _ => {}
            }
        }
        Ok(Self(path.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }
}

impl TryFrom<String> for TreePath {
    type Error = InvalidPath;

    fn try_from(path: String) -> Result<Self, InvalidPath> {
        Self::new(&path)
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> String {
        path.0
    }
}

impl std::borrow::Borrow<str> for TreePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is at a path. Owner, times and all other bits of the mode are not part of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    File { digest: Digest, bytes: u64, executable: bool },
    Symlink { target: String },
    Directory,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidManifest {
    #[error("it does not start with {FIRST_LINE:?}")]
    FirstLine,
    #[error("line {line}: {why}")]
    Line { line: usize, why: String },
    /// Also what keeps a file from being written through a symlink to outside of the tree.
    #[error("{path}: what it lies in is not a directory of this tree")]
    NoParent { path: TreePath },
    #[error("{path}: a symlink cannot hold {target:?}")]
    Symlink { path: TreePath, target: String },
    #[error("it has {entries} entries, more than {ENTRIES_MAX}")]
    TooMany { entries: usize },
    #[error("it is not written in the one way that gives its digest")]
    NotCanonical,
}

/// The entries of a tree, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: BTreeMap<TreePath, Kind>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: TreePath,
    is: Kind,
}

impl Manifest {
    /// # Errors
    /// When an entry lies in something that is not a directory of the tree, or there are too many.
    pub fn new(entries: BTreeMap<TreePath, Kind>) -> Result<Self, InvalidManifest> {
        if entries.len() > ENTRIES_MAX {
            return Err(InvalidManifest::TooMany { entries: entries.len() });
        }
        for (path, kind) in &entries {
            let has_parent =
                path.parent().is_none_or(|parent| matches!(entries.get(parent), Some(Kind::Directory)));
            if !has_parent {
                return Err(InvalidManifest::NoParent { path: path.clone() });
            }
            if let Kind::Symlink { target } = kind
                && (target.is_empty() || target.len() > SYMLINK_BYTES_MAX || target.contains('\0'))
            {
                let target = target.chars().take(200).collect();
                return Err(InvalidManifest::Symlink { path: path.clone(), target });
            }
        }
        Ok(Self { entries })
    }

    #[must_use]
    pub fn entries(&self) -> &BTreeMap<TreePath, Kind> {
        &self.entries
    }

    /// The blobs that the tree needs, beside its own manifest.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        self.entries.values().filter_map(|kind| match kind {
            Kind::File { digest, .. } => Some(*digest),
            Kind::Symlink { .. } | Kind::Directory => None,
        })
    }

    /// One line of JSON an entry, in the order of the paths' bytes: to be read by people and hashed by machines.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{FIRST_LINE}\n").into_bytes();
        for (path, is) in &self.entries {
            let line = Line { path: path.clone(), is: is.clone() };
            serde_json::to_writer(&mut bytes, &line)
                .expect("strings and numbers are JSON, and a Vec takes them");
            bytes.push(b'\n');
        }
        bytes
    }

    /// # Errors
    /// When the bytes are not exactly what [`Manifest::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| InvalidManifest::Line { line: 0, why: error.to_string() })?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(InvalidManifest::FirstLine);
        }
        let mut entries = BTreeMap::new();
        for (index, line) in lines.enumerate() {
            if index >= ENTRIES_MAX {
                return Err(InvalidManifest::TooMany { entries: index + 1 });
            }
            let Line { path, is } = serde_json::from_str(line)
                .map_err(|error| InvalidManifest::Line { line: index + 2, why: error.to_string() })?;
            entries.insert(path, is);
        }
        let manifest = Self::new(entries)?;
        if manifest.encode() == bytes { Ok(manifest) } else { Err(InvalidManifest::NotCanonical) }
    }

    #[must_use]
    pub fn digest(&self) -> TreeDigest {
        Digest::of(&self.encode()).into()
    }
}

/// Why the manifest of a tree cannot be had.
#[derive(Debug, Error)]
pub enum ManifestError {
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    #[error("the manifest of tree {digest}: {source}")]
    Blob { digest: Digest, source: BlobError },
    #[error("the manifest of tree {digest}: {source}")]
    Invalid { digest: Digest, source: InvalidManifest },
}

/// The trees of one state directory: captured into its blobs, built from them again.
#[derive(Clone, Debug)]
pub struct Trees {
    state_dir: PathBuf,
    blobs: Blobs,
}

impl Trees {
    /// Uses `blobs/`, `trees/` and `cache/` in the state directory.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, BlobError> {
        // An app is started in its tree from another working directory than ours.
        let state_dir = std::path::absolute(state_dir).map_err(failed("find", state_dir))?;
        let blobs = Blobs::open(&state_dir.join("blobs"))?;
        let trees = Self { state_dir, blobs };
        // An app that runs as its own user must be able to walk to its tree; whether others may is decided by the
        // state directory above.
        for (dir, mode) in [(trees.trees_dir(), 0o755), (trees.cache_dir(), 0o700)] {
            fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).map_err(failed("protect", &dir))?;
        }
        Ok(trees)
    }

    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    pub(crate) fn trees_dir(&self) -> PathBuf {
        self.state_dir.join("trees")
    }

    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.state_dir.join("cache")
    }

    /// # Errors
    /// When the manifest is missing, damaged, or not one.
    pub fn manifest(&self, tree: &TreeDigest) -> Result<Manifest, ManifestError> {
        let digest = Digest::try_from(tree)?;
        let bytes = self
            .blobs
            .read(digest, MANIFEST_BYTES_MAX)
            .map_err(|source| ManifestError::Blob { digest, source })?;
        Manifest::decode(&bytes).map_err(|source| ManifestError::Invalid { digest, source })
    }
}

#[cfg(test)]
pub(crate) mod tests;
