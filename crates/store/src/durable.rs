//! Files that are either wholly there or not there at all, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Start of the names of unfinished files; whoever finds an old one may delete it.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";

static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// How long to wait for a lock that others hold for milliseconds, or a capture for as long as it reads. Beyond that
/// the holder hangs, and the caller should be told instead of hanging too.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// Longer than a short holder takes, shorter than anybody notices.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// A name in `dir` that no other writer uses: `label` says what it will become; the process id keeps processes apart, the counter threads, and the
/// random part two processes of the same id in different pid namespaces.
pub(crate) fn temporary_name(dir: &Path, label: &str) -> PathBuf {
    unique_name(dir, TEMPORARY_PREFIX, label)
}

pub(crate) fn unique_name(dir: &Path, prefix: &str, label: &str) -> PathBuf {
    let count = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let random = getrandom::u32().unwrap_or(0);
    dir.join(format!("{prefix}{label}-{}-{count}-{random:08x}", std::process::id()))
}

/// Removes what a crash left of earlier attempts at `label`. Only for the one who alone writes it.
pub(crate) fn sweep(dir: &Path, label: &str) {
    let start = format!("{TEMPORARY_PREFIX}{label}-");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&start)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Opens (or makes) the file at `path` and locks it until it is dropped.
pub(crate) fn lock(path: &Path, exclusive: bool) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let operation = match exclusive {
        true => FlockOperation::NonBlockingLockExclusive,
        false => FlockOperation::NonBlockingLockShared,
    };
    let started = Instant::now();
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if started.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_POLL),
            Err(Errno::WOULDBLOCK) => {
                let words = format!("another process holds the lock for more than {} s", LOCK_WAIT.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

pub(crate) fn create_temporary(dir: &Path, label: &str, mode: u32) -> io::Result<(PathBuf, File)> {
    let path = temporary_name(dir, label);
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
    let label = path.file_name().unwrap_or_default().to_string_lossy();
    let (temporary, mut file) = create_temporary(dir, &label, mode)?;
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
