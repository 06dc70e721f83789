//! How a file looked when its content was known: cheap to compare, and different after any ordinary write.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// The change time is what a program cannot set: it catches an edit that restored size and modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    mode: u32,
    bytes: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            bytes: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Git's "racily clean": a write within the same tick of the filesystem's clock as the last change would leave
    /// the stamp as it is. Only a stamp that is older than the moment at which it was taken, by more than a tick,
    /// stands for the content that was read after that moment.
    pub(super) fn is_older_than(&self, moment_ns: i64) -> bool {
        self.modified_ns < moment_ns && self.changed_ns < moment_ns
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn an_edit_that_restores_size_and_time_changes_the_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "one").unwrap();
        let before = fs::metadata(&path).unwrap();
        // Until the filesystem's clock has moved on, which it does every few milliseconds.
        loop {
            fs::write(&path, "two").unwrap();
            fs::File::open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
            let after = fs::metadata(&path).unwrap();
            if (after.ctime(), after.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
                assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
                assert_ne!(Stamp::of(&before), Stamp::of(&after));
                break;
            }
        }
    }
}
