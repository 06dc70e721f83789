//! The last snapshot on disk: written beside, synced, renamed, directory synced; never in place.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::snapshot::Snapshot;

const NAME: &str = "snapshot.json";

pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// Returns once `snapshot` survives a power cut.
pub(crate) fn save(state_dir: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let temporary = state_dir.join("snapshot.json.new");
    let written = write_synced(&temporary, snapshot).and_then(|()| fs::rename(&temporary, path(state_dir)));
    if let Err(error) = written {
        // A half-written file only takes space; the next save truncates it.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(state_dir)?.sync_all()
}

fn write_synced(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&serde_json::to_vec(snapshot)?)?;
    file.sync_all()
}

/// What was loaded at start.
#[derive(Debug)]
pub(crate) enum Loaded {
    Snapshot(Box<Snapshot>),
    /// There never was one.
    Nothing,
    /// The file cannot be served from; it was kept under the other name.
    Unusable {
        problem: String,
        kept: PathBuf,
    },
}

pub(crate) fn load(state_dir: &Path) -> io::Result<Loaded> {
    let problem = match read(state_dir)? {
        Read::Snapshot(snapshot) => return Ok(Loaded::Snapshot(snapshot)),
        Read::Nothing => return Ok(Loaded::Nothing),
        Read::Unusable { problem } => problem,
    };
    let kept = state_dir.join("snapshot.json.unusable");
    fs::rename(path(state_dir), &kept)?;
    Ok(Loaded::Unusable { problem, kept })
}

/// For a successor: the file is still its predecessor's, so it stays as it is whatever is in it.
///
/// # Errors
/// When it cannot be read, or is nothing that this version can serve.
pub(crate) fn peek(state_dir: &Path) -> io::Result<Loaded> {
    match read(state_dir)? {
        Read::Snapshot(snapshot) => Ok(Loaded::Snapshot(snapshot)),
        Read::Nothing => Ok(Loaded::Nothing),
        Read::Unusable { problem } => {
            let problem = format!("this version cannot serve the saved snapshot: {problem}");
            Err(io::Error::new(io::ErrorKind::InvalidData, problem))
        }
    }
}

enum Read {
    Snapshot(Box<Snapshot>),
    Nothing,
    Unusable { problem: String },
}

fn read(state_dir: &Path) -> io::Result<Read> {
    let bytes = match fs::read(path(state_dir)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Nothing),
        Err(error) => return Err(error),
    };
    let problem = match serde_json::from_slice::<Snapshot>(&bytes) {
        Err(error) => error.to_string(),
        Ok(snapshot) => match snapshot.validate() {
            Ok(()) => return Ok(Read::Snapshot(Box::new(snapshot))),
            Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        },
    };
    Ok(Read::Unusable { problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()).unwrap(), Loaded::Nothing));
        let snapshot = Snapshot { generation: 7, ..Snapshot::default() };
        save(dir.path(), &snapshot).unwrap();
        let loaded = load(dir.path()).unwrap();
        let Loaded::Snapshot(loaded) = loaded else { panic!("not loaded") };
        assert_eq!(*loaded, snapshot);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left lying about");
    }

    #[test]
    fn a_failed_save_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &Snapshot { generation: 1, ..Snapshot::default() }).unwrap();
        // Stands in for a full disk: the temporary file cannot be created.
        fs::create_dir(dir.path().join("snapshot.json.new")).unwrap();
        save(dir.path(), &Snapshot { generation: 2, ..Snapshot::default() }).unwrap_err();
        let loaded = load(dir.path()).unwrap();
        let Loaded::Snapshot(loaded) = loaded else { panic!("not loaded") };
        assert_eq!(loaded.generation, 1);
    }

    #[test]
    fn garbage_is_set_aside_and_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), b"{\"generation\":").unwrap();
        let loaded = load(dir.path()).unwrap();
        let Loaded::Unusable { kept, .. } = loaded else { panic!("loaded") };
        assert_eq!(fs::read(kept).unwrap(), b"{\"generation\":");
        assert!(matches!(load(dir.path()).unwrap(), Loaded::Nothing));
    }

    #[test]
    fn a_successor_leaves_what_it_cannot_read_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let of_another_version = br#"{"generation":"seven"}"#;
        fs::write(path(dir.path()), of_another_version).unwrap();
        assert_eq!(peek(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(path(dir.path())).unwrap(), of_another_version);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
