//! Snapshots of the state at one record, so that a start need not replay the whole log.
//!
//! A snapshot is a convenience: the log is the truth. One that is torn, of another format or of another log is left
//! out and said, and the caller replays from the start. They are files and not rows, because the log is never
//! rewritten while they are, megabytes at a time, and would drag the write-ahead log along.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::database::{DatabaseError, io_error};
use crate::digest::Digest;
use crate::durable;
use crate::log::{Head, LogReader};

/// Kept for each format: the newest, and one more in case the newest is damaged.
pub const SNAPSHOTS_KEPT: usize = 2;

/// A state of a hundred megabytes is a hundred thousand times the usual; larger is a bug, and would be read whole.
pub const SNAPSHOT_BYTES_MAX: u64 = 256 << 20;

const MAGIC: &[u8; 16] = b"fairway snapshot";
const HEADER_BYTES: usize = 16 + 4 + 8 + 32 + 32;

#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error("a snapshot of {bytes} bytes is more than {SNAPSHOT_BYTES_MAX}")]
    TooLarge { bytes: u64 },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// A state as it was right after record `head.seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub head: Head,
    pub state: Vec<u8>,
}

/// The newest usable snapshot, and what was passed over on the way to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latest {
    pub snapshot: Option<Snapshot>,
    pub ignored: Vec<Ignored>,
}

/// A snapshot that was not used. Worth a line in the server's log, no more: replay gives the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    pub path: PathBuf,
    pub why: WhyIgnored,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WhyIgnored {
    #[error("it cannot be read: {detail}")]
    Unreadable { detail: String },
    #[error("it is torn or damaged")]
    Damaged,
    #[error("it is of record {seq}, which this log does not have")]
    AheadOfLog { seq: u64 },
    #[error("it was made from another log: record {seq} differs")]
    OtherLog { seq: u64 },
}

/// The snapshots of one state directory.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
}

impl Snapshots {
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        fs::create_dir_all(dir).map_err(|error| io_error(dir, &error))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Keeps `state`, which is what the records up to `head` lead to, and removes what is no longer needed of the
    /// same format. `format` is the caller's number for its encoding.
    ///
    /// # Errors
    /// When the disk is full or refuses; earlier snapshots are then still there.
    pub fn put(&self, format: u32, head: Head, state: &[u8]) -> Result<(), SnapshotError> {
        if state.len() as u64 > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge { bytes: state.len() as u64 });
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + state.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&format.to_le_bytes());
        bytes.extend_from_slice(&head.seq.to_le_bytes());
        bytes.extend_from_slice(&head.hash.0);
        bytes.extend_from_slice(&checksum(&bytes, state).0);
        bytes.extend_from_slice(state);
        let path = self.dir.join(file_name(format, head.seq));
        // Only the one server puts snapshots; what a crash left of an earlier one would stay for good.
        durable::sweep(&self.dir, "state");
        durable::replace_file(&path, &bytes, 0o600).map_err(|error| io_error(&path, &error))?;
        for (_, old) in self.list(format)?.into_iter().skip(SNAPSHOTS_KEPT) {
            // An old snapshot that stays does no harm; the next `put` tries again.
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    /// The newest snapshot of `format` that is whole and made from this very log.
    ///
    /// # Errors
    /// When the directory or the log cannot be read. A bad snapshot is not an error.
    pub fn latest(&self, format: u32, log: &LogReader) -> Result<Latest, SnapshotError> {
        let mut latest = Latest::default();
        for (seq, path) in self.list(format)? {
            let why = match read(&path, format, seq) {
                Err(why) => why,
                Ok(snapshot) => match log.hash_at(seq)? {
                    Some(hash) if hash == snapshot.head.hash => {
                        latest.snapshot = Some(snapshot);
                        return Ok(latest);
                    }
                    Some(_) => WhyIgnored::OtherLog { seq },
                    None => WhyIgnored::AheadOfLog { seq },
                },
            };
            latest.ignored.push(Ignored { path, why });
        }
        Ok(latest)
    }

    /// Snapshots of one format, newest first.
    fn list(&self, format: u32) -> Result<Vec<(u64, PathBuf)>, SnapshotError> {
        let fail = |error: io::Error| io_error(&self.dir, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            if let Some(seq) = name.to_str().and_then(|name| parse_name(name, format)) {
                found.push((seq, entry.path()));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }
}

fn file_name(format: u32, seq: u64) -> String {
    format!("state-{format}-{seq}.snapshot")
}

fn parse_name(name: &str, format: u32) -> Option<u64> {
    let (found, seq) = name.strip_prefix("state-")?.strip_suffix(".snapshot")?.split_once('-')?;
    (found.parse() == Ok(format)).then(|| seq.parse().ok()).flatten()
}

fn checksum(header: &[u8], state: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(state);
    Digest(*hasher.finalize().as_bytes())
}

fn read(path: &Path, format: u32, seq: u64) -> Result<Snapshot, WhyIgnored> {
    let unreadable = |error: io::Error| WhyIgnored::Unreadable { detail: error.to_string() };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let bound = SNAPSHOT_BYTES_MAX + HEADER_BYTES as u64;
    file.take(bound + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() < HEADER_BYTES || bytes.len() as u64 > bound {
        return Err(WhyIgnored::Damaged);
    }
    let state = bytes.split_off(HEADER_BYTES);
    let (header, check) = bytes.split_at(HEADER_BYTES - 32);
    if checksum(header, &state).0 != check {
        return Err(WhyIgnored::Damaged);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(&header[28..60]);
    // A whole file under a wrong name is as good as none.
    let named = header.starts_with(MAGIC)
        && header[16..20] == format.to_le_bytes()
        && header[20..28] == seq.to_le_bytes();
    if !named {
        return Err(WhyIgnored::Damaged);
    }
    Ok(Snapshot { head: Head { seq, hash: Digest(hash) }, state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, NewRecord};

    struct World {
        dir: tempfile::TempDir,
        log: Log,
        snapshots: Snapshots,
        heads: Vec<Head>,
    }

    fn world(actor: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&dir.path().join("fairway.db")).unwrap();
        let mut heads = vec![Head::EMPTY];
        for seq in 1..=4 {
            let record = NewRecord {
                at_ms: seq,
                environment: None,
                actor: actor.into(),
                kind: "Noted".into(),
                payload: vec![],
            };
            log.append(seq, &[record]).unwrap();
            heads.push(log.head().unwrap());
        }
        let snapshots = Snapshots::open(&dir.path().join("snapshots")).unwrap();
        World { dir, log, snapshots, heads }
    }

    impl World {
        fn latest(&self, format: u32) -> Latest {
            self.snapshots.latest(format, &self.log.reader().unwrap()).unwrap()
        }

        fn file(&self, seq: u64) -> PathBuf {
            self.dir.path().join("snapshots").join(file_name(1, seq))
        }
    }

    #[test]
    fn the_newest_of_the_asked_format_is_found_and_old_ones_go() {
        let world = world("ana");
        assert_eq!(world.latest(1), Latest::default());
        for seq in 1..=4usize {
            world.snapshots.put(1, world.heads[seq], &[seq as u8]).unwrap();
        }
        world.snapshots.put(2, world.heads[1], b"other format").unwrap();
        let latest = world.latest(1);
        assert_eq!(latest.snapshot, Some(Snapshot { head: world.heads[4], state: vec![4] }));
        assert!(latest.ignored.is_empty());
        assert!(!world.file(2).exists() && world.file(3).exists());
        assert_eq!(world.latest(3).snapshot, None);
        assert_eq!(world.latest(2).snapshot.unwrap().state, b"other format");
    }

    #[test]
    fn every_flipped_byte_and_every_cut_falls_back_to_the_one_before() {
        let world = world("ana");
        world.snapshots.put(1, world.heads[2], b"two").unwrap();
        world.snapshots.put(1, world.heads[4], b"four").unwrap();
        let whole = fs::read(world.file(4)).unwrap();
        let flipped = (0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        });
        let cut = (0..whole.len()).map(|at| whole[..at].to_vec());
        for bytes in flipped.chain(cut) {
            fs::write(world.file(4), bytes).unwrap();
            let latest = world.latest(1);
            assert_eq!(latest.snapshot.unwrap().state, b"two");
            assert_eq!(latest.ignored, [Ignored { path: world.file(4), why: WhyIgnored::Damaged }]);
        }
    }

    #[test]
    fn a_snapshot_of_another_log_is_ignored_and_said() {
        let (ours, theirs) = (world("ana"), world("bob"));
        ours.snapshots.put(1, theirs.heads[3], b"theirs").unwrap();
        ours.snapshots.put(1, Head { seq: 9, hash: ours.heads[4].hash }, b"future").unwrap();
        let latest = ours.latest(1);
        assert_eq!(latest.snapshot, None);
        let why: Vec<_> = latest.ignored.into_iter().map(|ignored| ignored.why).collect();
        assert_eq!(why, [WhyIgnored::AheadOfLog { seq: 9 }, WhyIgnored::OtherLog { seq: 3 }]);
    }
}
