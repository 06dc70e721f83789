//! A full disk: typed errors, nothing acknowledged lost, and on it goes when there is room again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use fairway_store::{
    AppendError, BlobError, CaptureError, DatabaseError, Exclude, Log, LogReader, MaterialiseError,
    NewRecord, Roots, SnapshotError, Snapshots, Trees,
};

/// A small filesystem in memory, gone with the value.
struct SmallDisk {
    mount: tempfile::TempDir,
}

impl SmallDisk {
    /// None, with words, where this user may not mount.
    fn new(bytes: u64) -> Option<Self> {
        let mount = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=700"), "tmpfs"])
            .arg(mount.path())
            .output();
        match status {
            Ok(output) if output.status.success() => Some(Self { mount }),
            Ok(output) => {
                eprintln!("SKIPPED: cannot mount a small disk: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: cannot run mount: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.mount.path()
    }

    /// Takes all room that is left but `bytes`.
    fn fill(&self, leave_bytes: u64) -> PathBuf {
        let path = self.path().join("filler");
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        fs::write(&path, vec![1; free.saturating_sub(leave_bytes) as usize]).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.mount.path()).status();
    }
}

fn record(bytes: usize) -> NewRecord {
    NewRecord {
        at_ms: 1,
        environment: None,
        actor: "ana".into(),
        kind: "Noted".into(),
        payload: vec![b'x'; bytes],
    }
}

#[test]
fn the_log_loses_nothing_and_goes_on() {
    let Some(disk) = SmallDisk::new(4 << 20) else { return };
    let path = disk.path().join("fairway.db");
    let mut log = Log::open(&path).unwrap();
    for round in 0..3u64 {
        let filler = disk.fill(96 << 10);
        let mut next = log.head().unwrap().seq + 1;
        let mut acknowledged = next - 1;
        let full = loop {
            match log.append(next, &[record(1000), record(3000)]) {
                Ok(seqs) => {
                    acknowledged = *seqs.last().unwrap();
                    next = acknowledged + 1;
                }
                Err(error) => break error,
            }
        };
        let AppendError::Database(DatabaseError::DiskFull { needed_bytes, .. }) = &full else {
            panic!("{full:?}")
        };
        assert!(*needed_bytes >= 4000);
        assert!(full.to_string().contains("hint"), "{full}");
        // Still there for reading, through this connection and a new one.
        assert_eq!(log.verify().unwrap().count, acknowledged);
        assert_eq!(log.reader().unwrap().read_from(1).count() as u64, acknowledged);
        assert!(log.append(next, &[record(100_000)]).is_err());
        fs::remove_file(filler).unwrap();
        assert_eq!(log.append(next, &[record(100_000)]).unwrap(), [next], "round {round}");
        assert_eq!(log.verify().unwrap().count, next);
    }
    let head = log.head().unwrap();
    drop(log);
    assert_eq!(Log::open(&path).unwrap().verify().unwrap().head, head);
}

#[test]
fn a_full_disk_at_the_first_start_and_at_a_restart_is_said() {
    let Some(disk) = SmallDisk::new(1 << 20) else { return };
    let path = disk.path().join("fairway.db");
    let filler = disk.fill(0);
    let error = Log::open(&path).unwrap_err().to_string();
    assert!(error.contains("no room left"), "{error}");
    fs::remove_file(&filler).unwrap();
    let mut log = Log::open(&path).unwrap();
    log.append(1, &[record(10)]).unwrap();
    drop(log);
    disk.fill(0);
    // With not one page left, not even the shared memory of a reader can be made.
    match Log::open(&path) {
        Ok(log) => assert_eq!(log.verify().unwrap().count, 1),
        Err(error) => assert!(error.to_string().contains("no room left"), "{error}"),
    }
    fs::remove_file(filler).unwrap();
    assert_eq!(LogReader::open(&path).unwrap().verify().unwrap().count, 1);
}

#[test]
fn blobs_trees_and_snapshots_leave_nothing_half_done() {
    let Some(disk) = SmallDisk::new(4 << 20) else { return };
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("a"), vec![1; 300 << 10]).unwrap();
    let trees = Trees::open(&disk.path().join("state")).unwrap();
    let small = trees.capture(project.path(), &Exclude::default()).unwrap();
    fs::write(project.path().join("b"), vec![2; 600 << 10]).unwrap();
    let filler = disk.fill(400 << 10);
    let error = trees.capture(project.path(), &Exclude::default()).unwrap_err();
    assert!(matches!(error, CaptureError::Blob(BlobError::DiskFull { .. })), "{error}");
    trees.materialise(&small.digest).unwrap();
    let snapshots = Snapshots::open(&disk.path().join("snapshots")).unwrap();
    let log = Log::open(&project.path().join("fairway.db")).unwrap();
    let head = log.head().unwrap();
    snapshots.put(1, head, b"small").unwrap();
    let error = snapshots.put(1, head, &vec![0; 500 << 10]).unwrap_err();
    assert!(matches!(error, SnapshotError::Database(DatabaseError::DiskFull { .. })), "{error}");
    let latest = snapshots.latest(1, &log.reader().unwrap()).unwrap();
    assert_eq!(latest.snapshot.unwrap().state, b"small");
    fs::remove_file(filler).unwrap();
    fs::remove_file(project.path().join("fairway.db")).unwrap();
    let _ = log;
    let large = trees.capture(project.path(), &Exclude { patterns: vec!["fairway.db*".into()] }).unwrap();
    disk.fill(100 << 10);
    let error = trees.materialise(&large.digest).unwrap_err();
    assert!(matches!(error, MaterialiseError::Blob { source: BlobError::DiskFull { .. }, .. }), "{error}");
    // What can go is found and removed without room to write.
    let retained = Roots { trees: [small.digest.clone()].into(), ..Roots::default() };
    let later = SystemTime::now() + Duration::from_secs(2 * 24 * 3600);
    let plan = trees.gc(&retained, Duration::from_secs(24 * 3600), later).unwrap();
    assert!(plan.bytes() >= 600 << 10, "{plan:?}");
    trees.apply(&plan, &retained, Duration::from_secs(24 * 3600), later).unwrap();
    trees.materialise(&small.digest).unwrap();
}
