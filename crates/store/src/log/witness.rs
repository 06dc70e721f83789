//! A second place that knows how far the log goes.
//!
//! SQLite drops, without a word, everything behind a damaged frame of its write-ahead log, and all of it when the
//! `-wal` file was deleted. The database is then sound, and shorter than what was acknowledged. So after each commit
//! the head is written here as well, without an fsync: after a crash of the process it is exact, after a power cut
//! it may be older, which only means that less is checked. It is never ahead of what was durable.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record::Head;
use crate::digest::Digest;

#[derive(Debug)]
pub(crate) struct Witness {
    path: PathBuf,
    file: Option<File>,
}

impl Witness {
    pub(crate) fn beside(database: &Path) -> Self {
        let name = database.file_name().unwrap_or_default().to_string_lossy();
        Self { path: database.with_file_name(format!("{name}.head")), file: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was last acknowledged; none when there is no file or a power cut tore it.
    pub(crate) fn read(&self) -> Option<Head> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let line = text.lines().next()?;
        let (body, check) = line.rsplit_once(' ')?;
        if Digest::of(body.as_bytes()).to_hex() != check {
            return None;
        }
        let mut words = body.split(' ');
        let seq = words.next()?.parse().ok()?;
        let hash = words.next()?.parse().ok()?;
        Some(Head { seq, hash })
    }

    /// Best effort: the records are durable already, and a caller told otherwise would do its work twice.
    pub(crate) fn write(&mut self, head: Head) {
        let body = format!("{:020} {}", head.seq, head.hash);
        let line = format!("{body} {}\n", Digest::of(body.as_bytes()));
        if self.file.is_none() {
            self.file =
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path).ok();
        }
        if let Some(file) = &self.file
            && file.write_all_at(line.as_bytes(), 0).is_err()
        {
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_witness_claims_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut witness = Witness::beside(&dir.path().join("fairway.db"));
        assert_eq!(witness.read(), None);
        let head = Head { seq: 12, hash: Digest::of(b"x") };
        witness.write(head);
        assert_eq!(witness.read(), Some(head));
        let text = std::fs::read_to_string(witness.path()).unwrap();
        for cut in [0, 10, 40, text.len() - 2] {
            std::fs::write(witness.path(), &text[..cut]).unwrap();
            assert_eq!(witness.read(), None, "cut at {cut}");
        }
    }
}
