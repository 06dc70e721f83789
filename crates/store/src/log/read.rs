//! Reading the log. Every record that leaves is first checked against the hash of the one before it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, params};

use super::record::{Head, Record};
use crate::database::{self, Damage, DatabaseError, OpenError, classify};
use crate::digest::Digest;

/// Records fetched ahead: enough that the cost of a query vanishes, few enough that a slow consumer holds little.
const PAGE_RECORDS: usize = 256;

/// A page ends early at this size, so that large payloads do not multiply with its number of records.
const PAGE_BYTES: usize = 1 << 20;

/// One screen of history at most; a client that wants more asks for the next page.
pub const ENVIRONMENT_PAGE_MAX: usize = 1000;

const COLUMNS: &str = "e.seq, e.at_ms, e.environment, e.actor, e.kind, e.payload, e.hash";

/// A read-only view of the log, one a thread.
#[derive(Debug)]
pub struct LogReader {
    conn: Connection,
    path: PathBuf,
}

impl LogReader {
    /// # Errors
    /// When the file is not there, damaged, foreign, or of another schema.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self::new(database::open_read_only(path)?, path))
    }

    pub(super) fn new(conn: Connection, path: &Path) -> Self {
        Self { conn, path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }

    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// How far the log goes.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn head(&self) -> Result<Head, DatabaseError> {
        head_of(&self.conn).map_err(classify(&self.path, "reading the head"))
    }

    /// One record, checked against the one before it.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn record(&self, seq: u64) -> Result<Option<Record>, DatabaseError> {
        self.read_from(seq).next().transpose()
    }

    /// All records from `seq` on, oldest first, a page at a time in memory. Ends at the newest, which may have been
    /// appended meanwhile. After an error it yields nothing more.
    pub fn read_from(&self, seq: u64) -> Records<'_> {
        Records { reader: self, page: VecDeque::new(), place: Place::Before(seq.max(1)) }
    }

    /// The newest records of one environment below `before`, newest first, at most [`ENVIRONMENT_PAGE_MAX`].
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn read_environment(
        &self,
        environment: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Record>, DatabaseError> {
        let fail = classify(&self.path, "reading the history");
        let before = before.map_or(i64::MAX, |seq| i64::try_from(seq).unwrap_or(i64::MAX));
        let limit = limit.min(ENVIRONMENT_PAGE_MAX) as i64;
        let mut statement = self
            .conn
            .prepare(&format!(
                "SELECT {COLUMNS}, p.hash FROM events e LEFT JOIN events p ON p.seq = e.seq - 1
                 WHERE e.environment = ?1 AND e.seq < ?2 ORDER BY e.seq DESC LIMIT ?3"
            ))
            .map_err(&fail)?;
        let mut rows = statement.query(params![environment, before, limit]).map_err(&fail)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next().map_err(&fail)? {
            let record = record_of(row).map_err(&fail)?;
            let before = match (record.seq, row.get::<_, Option<[u8; 32]>>(7).map_err(&fail)?) {
                (1, _) => Head::EMPTY,
                (seq, Some(hash)) => Head { seq: seq - 1, hash: Digest(hash) },
                (seq, None) => return Err(self.damage(seq - 1, "it is missing")),
            };
            // The row is looked up through an index, which may be what is damaged.
            if record.environment.as_deref() != Some(environment) {
                return Err(self.damage(record.seq, "the index of environments does not agree with it"));
            }
            self.check(before, &record)?;
            records.push(record);
        }
        Ok(records)
    }

    /// The hash of record `seq`; zeros for 0, none past the end.
    pub(crate) fn hash_at(&self, seq: u64) -> Result<Option<Digest>, DatabaseError> {
        if seq == 0 {
            return Ok(Some(Head::EMPTY.hash));
        }
        let fail = classify(&self.path, "reading a hash");
        let Ok(seq) = i64::try_from(seq) else { return Ok(None) };
        let mut statement = self.conn.prepare("SELECT hash FROM events WHERE seq = ?1").map_err(&fail)?;
        let mut rows = statement.query([seq]).map_err(&fail)?;
        match rows.next().map_err(&fail)? {
            Some(row) => Ok(Some(Digest(row.get(0).map_err(&fail)?))),
            None => Ok(None),
        }
    }

    /// Whether the last record is the one that `head` tells of.
    pub(super) fn check_head(&self, head: Head) -> Result<(), DatabaseError> {
        let last: Option<i64> = self
            .conn
            .query_row("SELECT max(seq) FROM events", [], |row| row.get(0))
            .map_err(classify(&self.path, "reading the head"))?;
        let last = last.unwrap_or(0);
        if last < head.seq as i64 {
            return Err(self.damage(last as u64 + 1, "it is missing, and so is all after it"));
        }
        if last > head.seq as i64 || self.hash_at(head.seq)? != Some(head.hash) {
            return Err(self.damage(head.seq, "it is not the last one that was recorded"));
        }
        Ok(())
    }

    fn check(&self, before: Head, record: &Record) -> Result<(), DatabaseError> {
        if before.is_followed_by(record) {
            return Ok(());
        }
        Err(self.damage(record.seq, "its hash does not fit its content and the record before it"))
    }

    pub(super) fn damage(&self, seq: u64, what: &str) -> DatabaseError {
        DatabaseError::Damaged(Damage { path: self.path.clone(), seq: Some(seq), what: what.to_owned() })
    }
}

/// Records in order, oldest first.
#[derive(Debug)]
pub struct Records<'a> {
    reader: &'a LogReader,
    page: VecDeque<Record>,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// The first record is still to be fetched, and the hash before it.
    Before(u64),
    After(Head),
    Ended,
}

impl Records<'_> {
    fn fetch(&mut self, after: Head) -> Result<(), DatabaseError> {
        let fail = classify(&self.reader.path, "reading the log");
        let head = self.reader.head()?;
        let mut statement = self
            .reader
            .conn
            .prepare(&format!("SELECT {COLUMNS} FROM events e WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2"))
            .map_err(&fail)?;
        let mut rows = statement.query(params![after.seq as i64, PAGE_RECORDS as i64]).map_err(&fail)?;
        let mut bytes = 0;
        while bytes < PAGE_BYTES
            && let Some(row) = rows.next().map_err(&fail)?
        {
            let record = record_of(row).map_err(&fail)?;
            bytes += record.payload.len();
            self.page.push_back(record);
        }
        if self.page.is_empty() && after.seq < head.seq {
            return Err(self.reader.damage(after.seq + 1, "it is missing, and so is all after it"));
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Record>, DatabaseError> {
        let after = match self.place {
            Place::Before(seq) => match self.reader.hash_at(seq - 1)? {
                Some(hash) => Head { seq: seq - 1, hash },
                None if self.reader.head()?.seq >= seq - 1 => {
                    return Err(self.reader.damage(seq - 1, "it is missing"));
                }
                None => return Ok(None),
            },
            Place::After(head) => head,
            Place::Ended => return Ok(None),
        };
        if self.page.is_empty() {
            self.fetch(after)?;
        }
        let Some(record) = self.page.pop_front() else { return Ok(None) };
        if record.seq != after.seq + 1 {
            return Err(self.reader.damage(after.seq + 1, "it is missing"));
        }
        self.reader.check(after, &record)?;
        self.place = Place::After(Head { seq: record.seq, hash: record.hash });
        Ok(Some(record))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, DatabaseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.place = Place::Ended;
        }
        next
    }
}

pub(super) fn head_of(conn: &Connection) -> rusqlite::Result<Head> {
    conn.query_row("SELECT seq, hash FROM head", [], |row| {
        Ok(Head { seq: unsigned(row, 0)?, hash: Digest(row.get(1)?) })
    })
    .map_err(|error| {
        // The one row of the table is made with it and refused to be deleted.
        if error == rusqlite::Error::QueryReturnedNoRows {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return rusqlite::Error::SqliteFailure(
                corrupt,
                Some("the head of the log is missing".to_owned()),
            );
        }
        error
    })
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        seq: unsigned(row, 0)?,
        at_ms: unsigned(row, 1)?,
        environment: row.get(2)?,
        actor: row.get(3)?,
        kind: row.get(4)?,
        payload: row.get(5)?,
        hash: Digest(row.get(6)?),
    })
}
