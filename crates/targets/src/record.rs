//! Small files that are either the old or the new text, whatever happens in between.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Space held back so that the last words of an instance fit on a disk that others have filled: one state with its
/// last lines, and the directory block.
const RESERVE_BYTES: usize = 256 << 10;

const RESERVE_FILE: &str = "reserve";

/// A larger record is not one of ours.
const RECORD_BYTES_MAX: u64 = 4 << 20;

/// Writes a temporary file, syncs it, renames it over `name` and syncs the directory.
///
/// # Errors
/// What the file system says; `name` then still holds the old text.
pub(crate) fn write(dir: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    match write_text(dir, name, &text) {
        Err(error) if is_full(&error) && fs::remove_file(dir.join(RESERVE_FILE)).is_ok() => {
            write_text(dir, name, &text)
        }
        result => result,
    }
}

fn write_text(dir: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    match written.and_then(|()| fs::rename(&temporary, dir.join(name))) {
        Ok(()) => File::open(dir)?.sync_all(),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Holds the space back. It is not an error when there is none: then there is nothing to hold.
pub(crate) fn reserve(dir: &Path) {
    // Real bytes, not a hole: some file systems promise nothing for `fallocate`.
    if fs::write(dir.join(RESERVE_FILE), vec![0x20; RESERVE_BYTES]).is_err() {
        let _ = fs::remove_file(dir.join(RESERVE_FILE));
    }
}

pub(crate) fn release_reserve(dir: &Path) {
    let _ = fs::remove_file(dir.join(RESERVE_FILE));
}

/// None when there is no such file.
///
/// # Errors
/// When it cannot be read or is not what it should be.
pub(crate) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    let path: PathBuf = dir.join(name);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > RECORD_BYTES_MAX => {
            Err(io::Error::other(format!("{name} is too large to be a record")))
        }
        Ok(_) => Ok(Some(serde_json::from_slice(&fs::read(&path)?)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read::<u32>(dir.path(), "n").unwrap(), None);
        write(dir.path(), "n", &7).unwrap();
        write(dir.path(), "n", &8).unwrap();
        assert_eq!(read::<u32>(dir.path(), "n").unwrap(), Some(8));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join("n"), "{").unwrap();
        assert!(read::<u32>(dir.path(), "n").is_err());
    }
}
