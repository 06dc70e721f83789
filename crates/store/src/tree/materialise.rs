//! A tree becomes a directory again, which an app can run in.
//!
//! `trees/<digest>/files` is the tree, `trees/<digest>/record` how each entry looked when it was known to be right.
//! The two are built together and renamed together.
//!
//! Files are reflinks or copies and never hard links: a hard link shares its bytes with the blob, and an app that
//! writes into its own tree (as root the read-only mode does not stop it) would damage every release that has the
//! file, past and future.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairway_engine::id::TreeDigest;
use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::stamp::Stamp;
use super::{Kind, Manifest, ManifestError, TreePath, Trees, cache};
use crate::blobs::{BlobError, failed, hash_through};
use crate::digest::Digest;
use crate::durable;

/// A damaged tree is not deleted where it stands: an instance may still run in it.
pub(crate) const ASIDE_PREFIX: &str = ".aside-";

/// Two ticks of the slowest kernel clock (100 Hz). The state directory is on a local disk with fine timestamps.
const CLOCK_TICK: Duration = Duration::from_millis(20);

#[derive(Debug, Error)]
pub enum MaterialiseError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{path} of tree {tree}: {source}")]
    Blob { tree: Digest, path: TreePath, source: BlobError },
    #[error(transparent)]
    System(#[from] BlobError),
}

/// A directory that holds exactly what was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Materialised {
    pub path: PathBuf,
    pub how: How,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    Built,
    Reused,
    /// It was there but no longer what was captured; a whole one took its place, and the other lies at `aside` for
    /// the instances that may still run in it.
    Rebuilt {
        why: String,
        aside: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct TreeRecord {
    /// Within one boot the page cache is coherent. After another boot, which may have followed a power cut, nothing
    /// here was fsynced and every byte is checked once.
    boot_id: String,
    taken_ns: i64,
    top: Stamp,
    entries: BTreeMap<TreePath, Stamp>,
}

impl Trees {
    /// The directory of `tree`, which is read-only and the same for all instances of it. A later start uses what an
    /// earlier one built, after a look at each entry; where that look finds a difference, the tree is built anew
    /// beside it and takes its place.
    ///
    /// # Errors
    /// When a blob is missing or damaged, or the disk is full.
    pub fn materialise(&self, tree: &TreeDigest) -> Result<Materialised, MaterialiseError> {
        let manifest = self.manifest(tree)?;
        let digest = Digest::try_from(tree).map_err(ManifestError::from)?;
        let home = self.trees_dir().join(digest.to_hex());
        let path = home.join("files");
        match self.check(&home, &manifest) {
            Ok(()) => return Ok(Materialised { path, how: How::Reused }),
            Err(Unusable::Absent | Unusable::Differs(_)) => {}
        }
        let built = Unfinished { path: durable::temporary_name(&self.trees_dir(), "tree") };
        self.build(&built.path, digest, &manifest)?;
        let how = self.install(built, &home, &manifest)?;
        Ok(Materialised { path, how })
    }

    /// Puts a whole tree in its place, unless somebody else did meanwhile.
    fn install(&self, built: Unfinished, home: &Path, manifest: &Manifest) -> Result<How, MaterialiseError> {
        let trees_dir = self.trees_dir();
        let lock_path = trees_dir.join(".lock");
        let _lock = durable::lock(&lock_path, true).map_err(failed("lock", &lock_path))?;
        let why = match self.check(home, manifest) {
            Ok(()) => return Ok(How::Reused),
            Err(Unusable::Absent) => {
                fs::rename(&built.path, home).map_err(failed("rename", &built.path))?;
                built.finished();
                return Ok(How::Built);
            }
            Err(Unusable::Differs(why)) => why,
        };
        let name = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = durable::unique_name(&trees_dir, ASIDE_PREFIX, &name);
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(cwd, &built.path, cwd, home, RenameFlags::EXCHANGE) {
            Ok(()) => fs::rename(&built.path, &aside).map_err(failed("rename", &built.path))?,
            // A filesystem without the exchange: for a moment there is no tree, which a start sees as "build it".
            Err(_) => {
                fs::rename(home, &aside).map_err(failed("rename", home))?;
                fs::rename(&built.path, home).map_err(failed("rename", &built.path))?;
            }
        }
        built.finished();
        // Its time until `gc` may take it starts now.
        let _ = File::open(&aside).and_then(|dir| dir.set_modified(SystemTime::now()));
        Ok(How::Rebuilt { why, aside: aside.join("files") })
    }

    fn build(&self, home: &Path, tree: Digest, manifest: &Manifest) -> Result<(), MaterialiseError> {
        let files = home.join("files");
        let make_dir =
            |path: &Path| fs::DirBuilder::new().mode(0o755).create(path).map_err(failed("create", path));
        make_dir(home)?;
        make_dir(&files)?;
        let mut reflink = Reflink::Untried;
        for (path, kind) in manifest.entries() {
            let full = files.join(path.as_str());
            match kind {
                Kind::Directory => make_dir(&full)?,
                Kind::Symlink { target } => symlink(target, &full).map_err(failed("create", &full))?,
                Kind::File { digest, executable, .. } => {
                    self.build_file(&full, *digest, *executable, &mut reflink)
                        .map_err(|source| MaterialiseError::Blob { tree, path: path.clone(), source })?;
                }
            }
        }
        // The umask had its say at creation; and a directory is closed only when all is in it.
        let directories = manifest.entries().iter().rev().filter(|(_, kind)| matches!(kind, Kind::Directory));
        for full in directories.map(|(path, _)| files.join(path.as_str())).chain([files.clone()]) {
            fs::set_permissions(&full, fs::Permissions::from_mode(0o555))
                .map_err(failed("protect", &full))?;
        }
        fs::set_permissions(home, fs::Permissions::from_mode(0o755)).map_err(failed("protect", home))?;
        write_record(home, manifest)?;
        Ok(())
    }

    fn build_file(
        &self,
        full: &Path,
        digest: Digest,
        executable: bool,
        reflink: &mut Reflink,
    ) -> Result<(), BlobError> {
        let mode = if executable { 0o555 } else { 0o444 };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(full)
            .map_err(failed("create", full))?;
        if reflink.share(self, digest, &file)? {
            // A clone carries over whatever the blob holds by now.
            file.rewind().map_err(failed("read", full))?;
            let (found, _) = hash_through(&mut file, &mut io::sink(), full, full)?;
            if found != digest {
                return Err(BlobError::Damaged { path: self.blobs.path(digest), found });
            }
        } else {
            self.blobs.copy_to(digest, &mut file)?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("protect", full))
    }

    /// Compares what is there with what was recorded of it: one `lstat` an entry. Bytes are read only where the
    /// stamps cannot speak for them.
    fn check(&self, home: &Path, manifest: &Manifest) -> Result<(), Unusable> {
        let record_path = home.join("record");
        let Some(record) = cache::load::<TreeRecord>(&record_path) else {
            return Err(if home.exists() {
                Unusable::Differs("its record is missing or damaged".to_owned())
            } else {
                Unusable::Absent
            });
        };
        let same_boot = boot_id().is_some_and(|boot_id| boot_id == record.boot_id);
        let trusted_before_ns = record.taken_ns.saturating_sub(CLOCK_TICK.as_nanos() as i64);
        let files = home.join("files");
        let differs = |path: &str, why: &str| Unusable::Differs(format!("{path}: {why}"));
        if record.entries.len() != manifest.entries().len() {
            return Err(differs("the record", "it is of another tree"));
        }
        let mut refresh = !same_boot;
        let top = look(&files).map_err(|why| differs("the top directory", &why))?;
        if top != record.top {
            return Err(differs("the top directory", "it was changed"));
        }
        for (path, kind) in manifest.entries() {
            let full = files.join(path.as_str());
            let stamp = look(&full).map_err(|why| differs(path.as_str(), &why))?;
            if record.entries.get(path) != Some(&stamp) {
                return Err(differs(path.as_str(), "it was changed"));
            }
            if same_boot && stamp.is_older_than(trusted_before_ns) {
                continue;
            }
            refresh = true;
            if !content_is(&full, kind) {
                return Err(differs(path.as_str(), "its content was changed"));
            }
        }
        if refresh {
            // Only spares the next start the reading.
            let _ = write_record(home, manifest);
        } else {
            // Its age is the time since it was last used.
            let _ = File::open(&record_path).and_then(|file| file.set_modified(SystemTime::now()));
        }
        Ok(())
    }
}

enum Unusable {
    Absent,
    Differs(String),
}

/// Whether the filesystem shares blocks between files; asked once for each tree.
enum Reflink {
    Untried,
    Works,
    Unsupported,
}

impl Reflink {
    fn share(&mut self, trees: &Trees, digest: Digest, to: &File) -> Result<bool, BlobError> {
        if matches!(self, Reflink::Unsupported) {
            return Ok(false);
        }
        let (_, blob) = trees.blobs.open_file(digest)?;
        let shared = rustix::fs::ioctl_ficlone(to, &blob).is_ok();
        if matches!(self, Reflink::Untried) {
            *self = if shared { Reflink::Works } else { Reflink::Unsupported };
        }
        Ok(shared)
    }
}

/// A directory in the making; removed unless it was finished.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn finished(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What stays is found by `gc`.
        let _ = remove_tree(&self.path);
    }
}

/// Removes a tree whose directories may be read-only.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        match fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn look(path: &Path) -> Result<Stamp, String> {
    fs::symlink_metadata(path).map(|metadata| Stamp::of(&metadata)).map_err(|error| error.to_string())
}

fn content_is(full: &Path, kind: &Kind) -> bool {
    let Ok(metadata) = fs::symlink_metadata(full) else { return false };
    match kind {
        // What is in it is in the manifest too, and what is not would have changed its stamp.
        Kind::Directory => metadata.is_dir(),
        Kind::Symlink { target } => fs::read_link(full).is_ok_and(|found| found == Path::new(target)),
        Kind::File { digest, bytes, executable } => {
            let mode = if *executable { 0o555 } else { 0o444 };
            metadata.is_file()
                && metadata.len() == *bytes
                && metadata.permissions().mode() & 0o777 == mode
                && File::open(full).is_ok_and(|mut file| {
                    hash_through(&mut file, &mut io::sink(), full, full)
                        .is_ok_and(|(found, _)| found == *digest)
                })
        }
    }
}

fn write_record(home: &Path, manifest: &Manifest) -> Result<(), BlobError> {
    let files = home.join("files");
    let stamp = |path: &Path| {
        fs::symlink_metadata(path).map(|metadata| Stamp::of(&metadata)).map_err(failed("read", path))
    };
    let mut entries = BTreeMap::new();
    for path in manifest.entries().keys() {
        entries.insert(path.clone(), stamp(&files.join(path.as_str()))?);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let record = TreeRecord {
        boot_id: boot_id().unwrap_or_default(),
        taken_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        top: stamp(&files)?,
        entries,
    };
    let path = home.join("record");
    cache::save(&path, &record).map_err(failed("write", &path))
}

fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}
