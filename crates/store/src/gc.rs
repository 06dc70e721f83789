//! What can go: first a plan that people can read, then its execution. Nothing that a retained release needs, and
//! nothing young, is ever in it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fairway_engine::id::TreeDigest;
use thiserror::Error;

use crate::blobs::{BlobError, failed};
use crate::digest::Digest;
use crate::durable::{self, TEMPORARY_PREFIX};
use crate::tree::{ASIDE_PREFIX, ManifestError, Trees, remove_tree};

/// Between the capture of a tree and the record that names it lies a deploy with its approvals and queue. A day is
/// longer than any, and short enough that a failed series of deploys does not fill the disk.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// What must stay: the trees of all retained releases, and blobs that are needed for themselves.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    pub trees: BTreeSet<TreeDigest>,
    pub blobs: BTreeSet<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Blob(Digest),
    /// A built tree; its blobs are counted apart, so it can be built again while they are there.
    BuiltTree(Digest),
    /// A tree that was found changed and replaced.
    ReplacedTree(String),
    /// A file or directory that a crash left unfinished.
    Unfinished(String),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Blob(digest) => write!(f, "blob {digest}"),
            What::BuiltTree(digest) => write!(f, "tree {digest}"),
            What::ReplacedTree(name) => write!(f, "replaced tree {name}"),
            What::Unfinished(name) => write!(f, "unfinished {name}"),
        }
    }
}

/// One thing that can go, why, and how much room it gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub what: What,
    pub path: PathBuf,
    pub why: &'static str,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub remove: Vec<Removal>,
}

impl Plan {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.remove.iter().map(|removal| removal.bytes).sum()
    }
}

/// What `apply` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub removed: Vec<Removal>,
    /// In the plan, but needed, used or gone by now.
    pub kept: Vec<Removal>,
}

#[derive(Debug, Error)]
pub enum GcError {
    /// Without its manifest nobody knows what a retained release needs, so nothing at all may be removed.
    #[error("nothing is removed, because what retained tree {tree} needs is not known: {source}")]
    RootUnreadable { tree: TreeDigest, source: ManifestError },
    #[error(transparent)]
    System(#[from] BlobError),
}

impl Trees {
    /// What can go, as seen at `now`: unreachable from `roots` and untouched for `grace` (usually [`GRACE`]).
    ///
    /// # Errors
    /// When the manifest of a retained tree cannot be read, or a directory.
    pub fn gc(&self, roots: &Roots, grace: Duration, now: SystemTime) -> Result<Plan, GcError> {
        let needed = self.needed(roots)?;
        let mut plan = Plan::default();
        self.plan_trees(roots, grace, now, &mut plan)?;
        self.plan_blobs(&needed, grace, now, &mut plan)?;
        Ok(plan)
    }

    /// Removes what is in `plan` and could still be planned now, with the roots of now. What became needed, or was
    /// touched by a capture, since the plan was shown stays.
    ///
    /// # Errors
    /// As for [`Trees::gc`], or when something cannot be removed; what was removed before stays removed.
    pub fn apply(
        &self,
        plan: &Plan,
        roots: &Roots,
        grace: Duration,
        now: SystemTime,
    ) -> Result<Applied, GcError> {
        // No capture is between "that blob is there already" and its commit while this is held.
        let _lock = self.blobs().lock(true)?;
        let still: BTreeSet<What> =
            self.gc(roots, grace, now)?.remove.into_iter().map(|removal| removal.what).collect();
        let mut applied = Applied::default();
        for removal in &plan.remove {
            if !still.contains(&removal.what) {
                applied.kept.push(removal.clone());
                continue;
            }
            let path = &removal.path;
            let removed = match &removal.what {
                What::Blob(_) => fs::remove_file(path),
                What::BuiltTree(_) => {
                    // Renamed first: a crash in the middle must not leave half a tree under its name.
                    let doomed = durable::temporary_name(&self.trees_dir(), "tree");
                    fs::rename(path, &doomed).and_then(|()| remove_tree(&doomed))
                }
                What::ReplacedTree(_) | What::Unfinished(_) => remove_any(path),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", path)(error).into());
                }
                Ok(()) | Err(_) => applied.removed.push(removal.clone()),
            }
        }
        Ok(applied)
    }

    fn needed(&self, roots: &Roots) -> Result<BTreeSet<Digest>, GcError> {
        let mut needed = roots.blobs.clone();
        for tree in &roots.trees {
            let unreadable = |source| GcError::RootUnreadable { tree: tree.clone(), source };
            needed.insert(Digest::try_from(tree).map_err(|error| unreadable(error.into()))?);
            needed.extend(self.manifest(tree).map_err(unreadable)?.blobs());
        }
        Ok(needed)
    }

    fn plan_trees(
        &self,
        roots: &Roots,
        grace: Duration,
        now: SystemTime,
        plan: &mut Plan,
    ) -> Result<(), GcError> {
        let in_use = working_directories();
        let trees_dir = fs::canonicalize(self.trees_dir()).map_err(failed("find", &self.trees_dir()))?;
        for (name, path, metadata) in list(&trees_dir)? {
            // Whatever the log says: an instance that runs or drains there would lose its files.
            if in_use.iter().any(|dir| dir.starts_with(&path)) {
                continue;
            }
            let (what, why) = if let Ok(digest) = name.parse::<Digest>() {
                if roots.trees.contains(&TreeDigest::from(digest)) {
                    continue;
                }
                (What::BuiltTree(digest), "no retained release runs it")
            } else if name.starts_with(ASIDE_PREFIX) {
                (What::ReplacedTree(name), "it was found changed and replaced")
            } else if name.starts_with(TEMPORARY_PREFIX) {
                (What::Unfinished(name), "a crash left it")
            } else {
                continue;
            };
            // The record is touched at each use, and the directory when it is set aside.
            let used = fs::metadata(path.join("record")).map_or(metadata, |record| newer(record, &path));
            if is_old(&used, grace, now) {
                let bytes = size(&path);
                plan.remove.push(Removal { what, path, why, bytes });
            }
        }
        Ok(())
    }

    fn plan_blobs(
        &self,
        needed: &BTreeSet<Digest>,
        grace: Duration,
        now: SystemTime,
        plan: &mut Plan,
    ) -> Result<(), GcError> {
        let cached = list(&self.cache_dir())?;
        for (name, path, metadata) in cached.into_iter().chain(list(self.blobs().root())?) {
            if name.starts_with(TEMPORARY_PREFIX) && is_old(&metadata, grace, now) {
                let bytes = metadata.len();
                plan.remove.push(Removal {
                    what: What::Unfinished(name),
                    path,
                    why: "a crash left it",
                    bytes,
                });
                continue;
            }
            if !metadata.is_dir() {
                continue;
            }
            for (name, path, metadata) in list(&path)? {
                let Ok(digest) = name.parse::<Digest>() else { continue };
                if !needed.contains(&digest) && is_old(&metadata, grace, now) {
                    let bytes = metadata.len();
                    let why = "no retained release has it";
                    plan.remove.push(Removal { what: What::Blob(digest), path, why, bytes });
                }
            }
        }
        Ok(())
    }
}

/// Where the processes of this machine work, as far as this user may see: all of them for root, one's own otherwise,
/// and without root nobody else's is started.
fn working_directories() -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok()).collect()
}

/// Of the record and of the directory it lies in, the one that was touched last.
fn newer(record: Metadata, home: &Path) -> Metadata {
    match fs::metadata(home) {
        Ok(home) if home.modified().ok() > record.modified().ok() => home,
        Ok(_) | Err(_) => record,
    }
}

/// A clock that stepped back makes things young, never old.
fn is_old(metadata: &Metadata, grace: Duration, now: SystemTime) -> bool {
    metadata.modified().is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age >= grace))
}

fn list(dir: &Path) -> Result<Vec<(String, PathBuf, Metadata)>, BlobError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("read", dir))? {
        let entry = entry.map_err(failed("read", dir))?;
        let path = entry.path();
        match (entry.file_name().into_string(), fs::symlink_metadata(&path)) {
            (Ok(name), Ok(metadata)) => found.push((name, path, metadata)),
            (Ok(_), Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("read", &path)(error));
            }
            // Gone meanwhile, or not named by us.
            (Ok(_) | Err(_), _) => {}
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path).map_or(0, |entries| entries.flatten().map(|entry| size(&entry.path())).sum())
}

fn remove_any(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { remove_tree(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests;
