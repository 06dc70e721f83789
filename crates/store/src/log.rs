//! The event log: the state, the history and the audit trail. Append-only, gap-free, each record chained to the one
//! before it by its hash.

mod read;
mod record;
mod verify;
mod witness;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior, ffi, params};
use thiserror::Error;

pub use read::{ENVIRONMENT_PAGE_MAX, LogReader, Records};
pub use record::{Head, InvalidRecord, NewRecord, PAYLOAD_BYTES_MAX, Record};
pub use verify::Verified;
pub(crate) use witness::Witness;

use crate::database::{self, DatabaseError, OpenError, classify, classify_write};

/// Records in one append. A decision of the engine makes a handful of events; a thousand decisions may be grouped.
/// Beyond that the transaction would hold the write lock, and its memory, for longer than a request may wait.
pub const BATCH_RECORDS_MAX: usize = 10_000;

/// What one record costs on disk beside its payload (row, index entry, share of a page), for the words of "disk full".
const RECORD_OVERHEAD_BYTES: u64 = 256;

/// Why nothing was appended. In every case but `NotDurable` the log is exactly as it was.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Somebody else appended first, or the caller's state is stale: read on from `next_seq` and decide again.
    #[error("the log goes on at record {next_seq}, not at {expected_next_seq}")]
    Conflict { expected_next_seq: u64, next_seq: u64 },
    #[error("record {index} of the batch: {source}")]
    Invalid { index: usize, source: InvalidRecord },
    #[error("{records} records at once; at most {BATCH_RECORDS_MAX} are appended together")]
    BatchTooLarge { records: usize },
    /// The disk refused to confirm. The records may or may not be there after a restart, and a repeated fsync would
    /// claim success for pages that the kernel already dropped (the "fsyncgate" of PostgreSQL, 2018). So every later
    /// append is refused as well, until the log is opened again and read.
    #[error(
        "the disk did not confirm a write to {}: {detail}\nhint: check the disk (dmesg), then restart the server; \
         it reads back what is really there", path.display()
    )]
    NotDurable { path: PathBuf, detail: String },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The one writer of a log. Reads go through it as well, or through a [`LogReader`] on another thread.
#[derive(Debug)]
pub struct Log {
    reader: LogReader,
    witness: Witness,
    unconfirmed: Option<String>,
}

impl Log {
    /// Opens the log in the database at `path`, and makes one where there is none.
    ///
    /// # Errors
    /// When the file is damaged, foreign, written by a newer Fairway, or shorter than what was acknowledged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let conn = database::open(path)?;
        let reader = LogReader::new(conn, path);
        let witness = Witness::beside(path);
        let head = reader.head()?;
        if let Some(acknowledged) = witness.read() {
            let kept = match reader.hash_at(acknowledged.seq)? {
                Some(hash) => hash == acknowledged.hash,
                None => false,
            };
            if !kept && head.seq >= acknowledged.seq {
                let what = "it is not the one that was acknowledged";
                return Err(reader.damage(acknowledged.seq, what).into());
            }
            if !kept {
                return Err(OpenError::LostTail {
                    path: path.to_owned(),
                    witness: witness.path().to_owned(),
                    found: head.seq,
                    acknowledged: acknowledged.seq,
                });
            }
        }
        reader.check_head(head)?;
        Ok(Self { reader, witness, unconfirmed: None })
    }

    /// Appends all of `records`, or none. Durable when it returns: fsynced, and the numbers are theirs for good.
    ///
    /// `expected_next_seq` is the number the caller believes comes next, so that a decision made on stale state is
    /// never recorded. Hand over many records at once where many are waiting: they share one fsync.
    ///
    /// # Errors
    /// See [`AppendError`]. The log stays readable after each of them, and after `DiskFull` a later append works as
    /// soon as there is room.
    pub fn append(&mut self, expected_next_seq: u64, records: &[NewRecord]) -> Result<Vec<u64>, AppendError> {
        if let Some(detail) = &self.unconfirmed {
            return Err(AppendError::NotDurable {
                path: self.reader.path().to_owned(),
                detail: detail.clone(),
            });
        }
        if records.len() > BATCH_RECORDS_MAX {
            return Err(AppendError::BatchTooLarge { records: records.len() });
        }
        for (index, record) in records.iter().enumerate() {
            record.check().map_err(|source| AppendError::Invalid { index, source })?;
        }
        let path = self.reader.path().to_owned();
        let written = write(self.reader.connection_mut(), &path, expected_next_seq, records);
        if let Err(AppendError::NotDurable { detail, .. }) = &written {
            self.unconfirmed = Some(detail.clone());
        }
        let head = written?;
        if !records.is_empty() {
            self.witness.write(head);
        }
        Ok((expected_next_seq..expected_next_seq + records.len() as u64).collect())
    }

    /// A second connection, for reading on another thread while this one appends.
    ///
    /// # Errors
    /// When the file cannot be opened a second time.
    pub fn reader(&self) -> Result<LogReader, OpenError> {
        LogReader::open(self.reader.path())
    }

    /// See [`LogReader::head`].
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn head(&self) -> Result<Head, DatabaseError> {
        self.reader.head()
    }

    /// See [`LogReader::record`].
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn record(&self, seq: u64) -> Result<Option<Record>, DatabaseError> {
        self.reader.record(seq)
    }

    /// See [`LogReader::read_from`].
    pub fn read_from(&self, seq: u64) -> Records<'_> {
        self.reader.read_from(seq)
    }

    /// See [`LogReader::read_environment`].
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn read_environment(
        &self,
        environment: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Record>, DatabaseError> {
        self.reader.read_environment(environment, before, limit)
    }

    /// See [`LogReader::verify`].
    ///
    /// # Errors
    /// `Damaged` names the first record that cannot be trusted.
    pub fn verify(&self) -> Result<Verified, DatabaseError> {
        self.reader.verify()
    }
}

fn write(
    conn: &mut Connection,
    path: &Path,
    expected_next_seq: u64,
    records: &[NewRecord],
) -> Result<Head, AppendError> {
    let needed_bytes =
        records.iter().map(|record| record.payload.len() as u64 + RECORD_OVERHEAD_BYTES).sum::<u64>();
    let fail = |source| append_error(path, needed_bytes, source);
    // Immediate: the head that is compared below cannot move before the commit.
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
    let mut head = read::head_of(&tx).map_err(classify(path, "reading the head"))?;
    if head.seq + 1 != expected_next_seq {
        return Err(AppendError::Conflict { expected_next_seq, next_seq: head.seq + 1 });
    }
    {
        let mut insert = tx
            .prepare(
                "INSERT INTO events (seq, at_ms, environment, actor, kind, payload, hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .map_err(fail)?;
        for record in records {
            head = head.followed_by(record);
            let NewRecord { at_ms, environment, actor, kind, payload } = record;
            insert
                .execute(params![
                    head.seq as i64,
                    *at_ms as i64,
                    environment,
                    actor,
                    kind,
                    payload,
                    head.hash.0.as_slice()
                ])
                .map_err(fail)?;
        }
    }
    tx.execute("UPDATE head SET seq = ?1, hash = ?2", params![head.seq as i64, head.hash.0.as_slice()])
        .map_err(fail)?;
    tx.commit().map_err(fail)?;
    Ok(head)
}

fn append_error(path: &Path, needed_bytes: u64, source: rusqlite::Error) -> AppendError {
    if let rusqlite::Error::SqliteFailure(code, message) = &source
        && matches!(code.extended_code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    {
        let detail = message.clone().unwrap_or_else(|| code.to_string());
        return AppendError::NotDurable { path: path.to_owned(), detail };
    }
    AppendError::Database(classify_write(path, "appending", needed_bytes, source))
}

#[cfg(test)]
mod tests;
