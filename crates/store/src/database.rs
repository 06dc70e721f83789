//! The SQLite file: how it is opened, and what its failures mean to people.

mod schema;

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use thiserror::Error;

pub use schema::SCHEMA_VERSION;
pub(crate) use schema::{STEPS, Step, expected_objects, objects};

use crate::durable;
use crate::log::Witness;

/// Name of the database inside the state directory.
pub const DATABASE_FILE: &str = "fairway.db";

/// "FWAY": tells our file from any other SQLite database, for us and for `file(1)`.
pub const APPLICATION_ID: i32 = 0x4657_4159;

/// How long a statement waits for another connection. One server writes, in short transactions; whoever holds the
/// file for five seconds is a stranger (a backup tool, a shell) and the caller must hear about it.
pub const BUSY_WAIT: Duration = Duration::from_secs(5);

/// The WAL is cut back to this after a checkpoint, so that one large burst does not occupy the disk for good.
const WAL_BYTES_KEPT: u32 = 16 << 20;

/// With less than this much room, a failed write is reported as a full disk even where SQLite only says "I/O error"
/// (it does so when the shared-memory file cannot grow).
const ROOM_BYTES_MIN: u64 = 256 << 10;

/// The state file is damaged: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is damaged{}: {what}\nhint: {}", path.display(), At(*seq), damage_hint(path))]
pub struct Damage {
    pub path: PathBuf,
    /// The first record that cannot be trusted, when the damage lies in one.
    pub seq: Option<u64>,
    pub what: String,
}

struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seq) => write!(f, " at record {seq}"),
            None => Ok(()),
        }
    }
}

fn damage_hint(path: &Path) -> String {
    let dir = path.parent().unwrap_or(Path::new(".")).display();
    format!(
        "nothing was changed. Keep a copy of {dir} as it is, then restore {DATABASE_FILE} from the newest backup; a \
         copy made before a schema change lies beside it as {DATABASE_FILE}.before-*. Running services and the proxy \
         go on without it"
    )
}

/// Why the database refused a statement.
#[derive(Debug, Error)]
pub enum DatabaseError {
    #[error(
        "no room left for {}: {needed_bytes} bytes needed, {available_bytes} available\nhint: free some space; \
         nothing acknowledged is lost, and writing goes on as soon as there is room", path.display()
    )]
    DiskFull { path: PathBuf, needed_bytes: u64, available_bytes: u64 },
    #[error(transparent)]
    Damaged(Damage),
    #[error(
        "another program has locked {} for more than {} s\nhint: find it with `fuser {}`", path.display(),
        BUSY_WAIT.as_secs(), path.display()
    )]
    Busy { path: PathBuf },
    #[error("cannot read or write {}: {detail}", path.display())]
    Io { path: PathBuf, detail: String },
    #[error("{action} in {}: {source}", path.display())]
    Sqlite { path: PathBuf, action: &'static str, source: rusqlite::Error },
}

/// Why a state file cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "{} was written by a newer Fairway: its schema is {found} (Fairway {written_by}), this is Fairway \
         {} with schema {supported}\nhint: start that version or a later one", path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer { path: PathBuf, found: u32, supported: u32, written_by: String },
    #[error("{} is a SQLite database, but not one of Fairway (application id {application_id:#010x})", path.display())]
    Foreign { path: PathBuf, application_id: i32 },
    #[error("changing {} from schema {from} to {to}: {source}\nhint: it is as it was", path.display())]
    Migration { path: PathBuf, from: u32, to: u32, source: Box<DatabaseError> },
    #[error(
        "{} ends at record {found}, but record {acknowledged} had been acknowledged: its write-ahead log was removed \
         or damaged, or an older copy was put in place\nhint: put {DATABASE_FILE}-wal back, or restore a newer copy. \
         To accept the loss of the records after {found}, remove {}", path.display(), witness.display()
    )]
    LostTail { path: PathBuf, witness: PathBuf, found: u64, acknowledged: u64 },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Opens the file for writing, creates it when there is none, and brings its schema up to date.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    open_with(path, STEPS)
}

pub(crate) fn open_with(path: &Path, steps: &[Step]) -> Result<Connection, OpenError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lock = path.with_file_name(format!("{name}.lock"));
    // One at a time: SQLite's own locks do not cover the change to WAL, nor the copy before a schema change together
    // with the change.
    let _lock = durable::lock(&lock, true).map_err(|error| io_error(&lock, &error))?;
    refuse_vanished(path)?;
    create_private(path).map_err(|error| io_error(path, &error))?;
    let mut conn = connect(path)?;
    // Looked at before the first pragma that writes: a stranger's or a newer file stays as it is.
    let found = schema::inspect(&conn, path, steps)?;
    configure(&conn, path)?;
    schema::bring_up_to_date(&mut conn, path, steps, found)?;
    Ok(conn)
}

/// Opens an up-to-date file for reading only.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    let conn = connect(path)?;
    schema::refuse_unless_current(&conn, path, STEPS)?;
    configure(&conn, path)?;
    // The connection itself is writable because a reader of a WAL file takes part in its shared memory.
    conn.pragma_update(None, "query_only", true).map_err(classify(path, "opening"))?;
    Ok(conn)
}

/// SQLite takes a missing or empty file for a new one. Where records were acknowledged that would be a silent
/// restart from nothing.
fn refuse_vanished(path: &Path) -> Result<(), OpenError> {
    let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if length > 0 {
        return Ok(());
    }
    if let Some(head) = Witness::beside(path).read().filter(|head| head.seq > 0) {
        let what = format!("it is missing or empty, but record {} had been acknowledged", head.seq);
        return Err(DatabaseError::Damaged(Damage { path: path.to_owned(), seq: Some(1), what }).into());
    }
    let wal = path.with_file_name(format!("{}-wal", path.file_name().unwrap_or_default().to_string_lossy()));
    if std::fs::metadata(&wal).is_ok_and(|metadata| metadata.len() > 0) {
        let what = format!("it is missing or empty, but {} is not", wal.display());
        return Err(DatabaseError::Damaged(Damage { path: path.to_owned(), seq: Some(1), what }).into());
    }
    Ok(())
}

/// SQLite creates files with the umask; actors and payloads are nobody else's business.
fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn connect(path: &Path) -> Result<Connection, DatabaseError> {
    let fail = classify(path, "opening");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(&fail)?;
    conn.busy_timeout(BUSY_WAIT).map_err(&fail)?;
    // Until the file is known to be ours and whole, closing it must not copy the WAL into it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(&fail)?;
    // A damaged page must be an error, never a wrong answer; and a stranger's schema must not run code.
    conn.pragma_update(None, "cell_size_check", true).map_err(&fail)?;
    conn.pragma_update(None, "trusted_schema", false).map_err(&fail)?;
    Ok(conn)
}

fn configure(conn: &Connection, path: &Path) -> Result<(), DatabaseError> {
    let fail = classify(path, "opening");
    let mode: String =
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(&fail)?;
    if mode != "wal" {
        return Err(DatabaseError::Io {
            path: path.to_owned(),
            detail: format!("the filesystem allows only journal mode {mode:?}; a local disk is needed"),
        });
    }
    // FULL: the WAL is fsynced at every commit. NORMAL would acknowledge records that a power cut takes back.
    conn.pragma_update(None, "synchronous", "FULL").map_err(&fail)?;
    conn.pragma_update(None, "foreign_keys", true).map_err(&fail)?;
    // This pragma answers with the value, which `pragma_update` takes for an error.
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(())).map_err(&fail)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(&fail)?;
    Ok(())
}

pub(crate) fn io_error(path: &Path, error: &io::Error) -> DatabaseError {
    if durable::is_disk_full(error) {
        return disk_full(path, 0);
    }
    DatabaseError::Io { path: path.to_owned(), detail: error.to_string() }
}

fn disk_full(path: &Path, needed_bytes: u64) -> DatabaseError {
    let available_bytes = durable::available_bytes(path).unwrap_or(0);
    // SQLite needs at least one page; a caller that does not know the size says 0.
    DatabaseError::DiskFull { path: path.to_owned(), needed_bytes: needed_bytes.max(4096), available_bytes }
}

/// Sorts what SQLite says into what an operator can act on.
pub(crate) fn classify<'a>(
    path: &'a Path,
    action: &'static str,
) -> impl Fn(rusqlite::Error) -> DatabaseError + 'a {
    move |source| classify_write(path, action, 0, source)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enums are those of rusqlite and grow with it")]
pub(crate) fn classify_write(
    path: &Path,
    action: &'static str,
    needed_bytes: u64,
    source: rusqlite::Error,
) -> DatabaseError {
    let damaged = |what: String| DatabaseError::Damaged(Damage { path: path.to_owned(), seq: None, what });
    match source {
        rusqlite::Error::SqliteFailure(code, ref message) => {
            let detail = message.clone().unwrap_or_else(|| code.to_string());
            match code.code {
                ErrorCode::DiskFull => disk_full(path, needed_bytes),
                ErrorCode::DatabaseCorrupt => damaged(detail),
                ErrorCode::NotADatabase => damaged(format!("it is not a SQLite database ({detail})")),
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                    DatabaseError::Busy { path: path.to_owned() }
                }
                ErrorCode::SystemIoFailure => {
                    let room = durable::available_bytes(path).unwrap_or(u64::MAX);
                    if code.extended_code == ffi::SQLITE_IOERR_SHORT_READ {
                        damaged("it is shorter than its own header says".to_owned())
                    } else if room < needed_bytes.max(ROOM_BYTES_MIN) {
                        disk_full(path, needed_bytes)
                    } else {
                        DatabaseError::Io { path: path.to_owned(), detail }
                    }
                }
                ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
                    DatabaseError::Io { path: path.to_owned(), detail }
                }
                // SQLite's own list, which grows with its releases.
                _ => DatabaseError::Sqlite { path: path.to_owned(), action, source },
            }
        }
        // Our tables are STRICT: a value of another type, or text that is not UTF-8, was not written by us.
        rusqlite::Error::InvalidColumnType(_, column, found) => {
            damaged(format!("column {column:?} holds {found}"))
        }
        rusqlite::Error::FromSqlConversionFailure(_, _, why) => damaged(why.to_string()),
        rusqlite::Error::Utf8Error(_, why) => damaged(why.to_string()),
        rusqlite::Error::IntegralValueOutOfRange(column, value) => {
            damaged(format!("column {column} holds {value}"))
        }
        source => DatabaseError::Sqlite { path: path.to_owned(), action, source },
    }
}
