//! What lies in the directory, by name.
//!
//! ```text
//! lock                      held while a process has the store open
//! log/0000000007            a segment of the log
//! log/checkpoint-0000000006 what was in memory when segment 7 began
//! block-FROM_TO/            a block: milliseconds, TO not included
//! damaged-block-FROM_TO/    a block that cannot be read; goes when its time is over
//! tmp-*, log/tmp-*          being written
//! removed-*                 being removed
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::error::StoreError;

pub(super) const LOG_DIR: &str = "log";
pub(super) const TMP: &str = "tmp-";
pub(super) const REMOVED: &str = "removed-";
pub(super) const DAMAGED: &str = "damaged-";
pub(super) const CHECKPOINT: &str = "checkpoint-";

/// Takes the directory for this process, until the file is closed, by whatever ends the process.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(StoreError::io(&path, "open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only to tell a person; the lock itself is what counts.
            let _ = (&file).take(16).read_to_string(&mut text);
            return Err(StoreError::Locked { path: dir.to_owned(), holder: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::io(&path, "lock")(error)),
    }
    // Without room the name of the holder is missing, and nothing else.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The names in a directory, sorted.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let list = || -> std::io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = list().map_err(StoreError::io(dir, "read"))?;
    names.sort();
    Ok(names)
}

/// What the files of a directory take, without those further down. Files that go meanwhile count nothing.
pub(super) fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// The number in the name of a segment or checkpoint.
pub(super) fn number(name: &str) -> Option<u64> {
    (name.len() == 10 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok())?
}

/// Removes a directory such that one which is half removed is known as that.
pub(super) fn remove_block(disk: &Disk, dir: &Path) -> Result<(), StoreError> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let aside = dir.with_file_name(format!("{REMOVED}{name}"));
    disk.rename(dir, &aside)?;
    disk.remove_dir(&aside)
}

/// Moves a block that cannot be read out of the way, and gives its new place.
pub(super) fn set_aside(disk: &Disk, dir: &Path) -> Result<PathBuf, StoreError> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let aside = dir.with_file_name(format!("{DAMAGED}{name}"));
    if aside.exists() {
        // The same hours went bad twice: the log held them the first time.
        remove_block(disk, &aside)?;
    }
    disk.rename(dir, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_a_directory_and_the_other_hears_who() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        match lock(dir.path()) {
            Err(StoreError::Locked { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn a_segment_has_ten_digits() {
        assert_eq!(number("0000000012"), Some(12));
        for other in ["12", "000000001x", "+000000012", "checkpoint-0000000012"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
