//! Files that are either wholly there or not there at all, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Start of the names of unfinished files; whoever finds an old one may delete it.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";

static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// A name in `dir` that no other writer uses: the process id keeps processes apart, the counter threads, and the
/// random part two processes of the same id in different pid namespaces.
pub(crate) fn temporary_name(dir: &Path) -> PathBuf {
    let count = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let random = getrandom::u32().unwrap_or(0);
    dir.join(format!("{TEMPORARY_PREFIX}{}-{count}-{random:08x}", std::process::id()))
}

pub(crate) fn create_temporary(dir: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let path = temporary_name(dir);
    let file = OpenOptions::new().write(true).read(true).create_new(true).mode(mode).open(&path)?;
    Ok((path, file))
}

/// Makes a rename or an unlink in `dir` survive a power cut.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces `path` by `bytes`: write beside it, fsync, rename, fsync the directory. The old content stays until
/// the new one is durable.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (temporary, mut file) = create_temporary(dir, mode)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_directory(dir));
    if written.is_err() {
        // Already renamed or never completed; either way nothing needs the temporary name.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Bytes free to this user on the filesystem that holds `path` or, when it is not there, its nearest ancestor.
pub(crate) fn available_bytes(path: &Path) -> Option<u64> {
    path.ancestors()
        .find_map(|ancestor| rustix::fs::statvfs(ancestor).ok())
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Out of blocks, or out of this user's share of them.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_replacement_leaves_the_old_file_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace_file(&path, b"old", 0o600).unwrap();
        let blocked = dir.path().join("directory");
        fs::create_dir_all(blocked.join("child")).unwrap();
        assert!(replace_file(&blocked, b"new", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
