//! What must survive a restart, in files that are either wholly there or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Durable when it returns.
///
/// # Errors
/// When the disk does not take it; what was there before is there still.
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

/// `None` when nothing was written yet.
///
/// # Errors
/// When it cannot be read, or is not what was written.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop").join("dev.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &1_u32).unwrap();
        // A directory in the place of the unfinished file.
        fs::create_dir(path.with_extension("new")).unwrap();
        write(&path, &2_u32).unwrap_err();
        assert_eq!(read::<u32>(&path).unwrap(), Some(1));
        fs::write(&path, b"{").unwrap();
        assert!(read::<u32>(&path).is_err(), "half a file is no memory");
    }
}
