//! The schema as numbered steps. A step is never edited once released: files out there have it behind them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{APPLICATION_ID, Damage, DatabaseError, OpenError, classify, io_error};
use crate::durable;

/// One forward change. Its number is its place in the list, counted from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

pub(crate) const STEPS: &[Step] = &[
    Step { name: "event log", sql: include_str!("01_event_log.sql") },
    Step { name: "secrets", sql: include_str!("02_secrets.sql") },
];

/// The schema that this Fairway reads and writes.
pub const SCHEMA_VERSION: u32 = STEPS.len() as u32;

pub(super) enum Found {
    Empty,
    Ours { version: u32 },
}

pub(super) fn bring_up_to_date(
    conn: &mut Connection,
    path: &Path,
    steps: &[Step],
    found: Found,
) -> Result<(), OpenError> {
    let latest = latest(steps);
    let from = match found {
        Found::Ours { version } if version == latest => return Ok(()),
        Found::Ours { version } => {
            keep_copy(conn, path, version)?;
            version
        }
        Found::Empty => 0,
    };
    migrate(conn, path, steps).map_err(|source| OpenError::Migration {
        path: path.to_owned(),
        from,
        to: latest,
        source: Box::new(source),
    })
}

pub(super) fn refuse_unless_current(conn: &Connection, path: &Path, steps: &[Step]) -> Result<(), OpenError> {
    let latest = latest(steps);
    match inspect(conn, path, steps)? {
        Found::Ours { version } if version == latest => Ok(()),
        Found::Ours { version } => {
            Err(damaged(path, format!("schema {version} has not been brought up to {latest}")))
        }
        Found::Empty => Err(damaged(path, "it is empty".to_owned())),
    }
}

fn damaged(path: &Path, what: String) -> OpenError {
    DatabaseError::Damaged(Damage { path: path.to_owned(), seq: None, what }).into()
}

fn latest(steps: &[Step]) -> u32 {
    u32::try_from(steps.len()).expect("the list of steps is written by hand")
}

pub(super) fn inspect(conn: &Connection, path: &Path, steps: &[Step]) -> Result<Found, OpenError> {
    let latest = latest(steps);
    let fail = classify(path, "reading the header");
    // One transaction, or the answers may come from before and after somebody else's change.
    let tx = conn.unchecked_transaction().map_err(&fail)?;
    let pragma = |name| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(&fail);
    let application_id = pragma("application_id")?;
    let version = pragma("user_version")?;
    let objects: i64 =
        tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(&fail)?;
    tx.finish().map_err(&fail)?;
    if application_id == 0 && version == 0 && objects == 0 {
        return Ok(Found::Empty);
    }
    if application_id != i64::from(APPLICATION_ID) {
        return Err(OpenError::Foreign { path: path.to_owned(), application_id: application_id as i32 });
    }
    match u32::try_from(version) {
        Ok(found) if found > latest => {
            let written_by = written_by(conn).unwrap_or_else(|| "of unknown version".to_owned());
            Err(OpenError::Newer { path: path.to_owned(), found, supported: latest, written_by })
        }
        Ok(version) if version > 0 => Ok(Found::Ours { version }),
        Ok(_) | Err(_) => Err(damaged(path, format!("its schema version reads {version}"))),
    }
}

/// Asked of files of the future too, whose schema is unknown: any failure is "unknown", not an error.
fn written_by(conn: &Connection) -> Option<String> {
    conn.query_row("SELECT value FROM meta WHERE key = 'fairway_version'", [], |row| row.get(0))
        .optional()
        .ok()
        .flatten()
}

fn migrate(conn: &mut Connection, path: &Path, steps: &[Step]) -> Result<(), DatabaseError> {
    let fail = classify(path, "changing the schema");
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&fail)?;
    // Read again under the write lock: another process may have been here between the look and the lock.
    let done: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&fail)?;
    for step in steps.iter().skip(done as usize) {
        tx.execute_batch(step.sql).map_err(classify(path, step.name))?;
    }
    tx.execute(
        "INSERT INTO meta (key, value) VALUES ('fairway_version', ?1)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [env!("CARGO_PKG_VERSION")],
    )
    .map_err(&fail)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(&fail)?;
    tx.pragma_update(None, "user_version", latest(steps)).map_err(&fail)?;
    tx.commit().map_err(&fail)
}

/// A whole copy of the old file before the first statement changes it. `VACUUM INTO` does not fsync, so the copy
/// gets its name only after we did.
fn keep_copy(conn: &Connection, path: &Path, version: u32) -> Result<PathBuf, OpenError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    durable::sweep(dir, &name);
    let temporary = durable::temporary_name(dir, &name);
    // An earlier attempt may have left a copy; the newest state is the one worth keeping under this name.
    let copy = dir.join(format!("{name}.before-schema-{}", version + 1));
    let copied = conn
        .execute("VACUUM INTO ?1", [temporary.to_string_lossy()])
        .map_err(classify(path, "copying before the schema change"))
        .and_then(|_| {
            File::open(&temporary)
                .and_then(|file| {
                    use std::os::unix::fs::PermissionsExt;
                    file.set_permissions(fs::Permissions::from_mode(0o600))?;
                    file.sync_all()
                })
                .and_then(|()| fs::rename(&temporary, &copy))
                .and_then(|()| durable::sync_directory(dir))
                .map_err(|error| io_error(&copy, &error))
        });
    if let Err(error) = copied {
        let _ = fs::remove_file(&temporary);
        return Err(error.into());
    }
    Ok(copy)
}

/// A table, index or trigger: its kind, its name and its text.
pub(crate) type Object = (String, String, Option<String>);

pub(crate) fn objects(conn: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut statement = conn.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// What the schema should read, made by the same steps in memory.
pub(crate) fn expected_objects() -> rusqlite::Result<Vec<Object>> {
    let conn = Connection::open_in_memory()?;
    for step in STEPS {
        conn.execute_batch(step.sql)?;
    }
    objects(&conn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{open, open_with};

    const EXTRA: Step = Step { name: "extra", sql: "CREATE TABLE extra (a INTEGER) STRICT;" };
    const BROKEN: Step =
        Step { name: "broken", sql: "CREATE TABLE half (a INTEGER) STRICT; CREATE nonsense;" };

    fn with(step: Step) -> Vec<Step> {
        STEPS.iter().copied().chain([step]).collect()
    }

    fn tables(conn: &Connection) -> Vec<String> {
        let mut statement =
            conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_newer_schema_is_refused_and_both_versions_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fairway.db");
        let conn = open_with(&path, &with(EXTRA)).unwrap();
        conn.execute("UPDATE meta SET value = '9.9.9'", []).unwrap();
        drop(conn);
        let before = fs::read(&path).unwrap();
        let error = open(&path).unwrap_err().to_string();
        for part in ["9.9.9", env!("CARGO_PKG_VERSION"), "schema is 3", "schema 2", "hint:"] {
            assert!(error.contains(part), "{part:?} is missing in {error}");
        }
        assert_eq!(fs::read(&path).unwrap(), before, "a refused file was changed");
    }

    #[test]
    fn an_older_file_is_copied_then_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fairway.db");
        drop(open(&path).unwrap());
        let conn = open_with(&path, &with(EXTRA)).unwrap();
        assert!(tables(&conn).contains(&"extra".to_owned()));
        let copy = Connection::open(dir.path().join("fairway.db.before-schema-3")).unwrap();
        assert!(!tables(&copy).contains(&"extra".to_owned()));
        let version: u32 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 2);
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fairway.db");
        drop(open(&path).unwrap());
        let error = open_with(&path, &with(BROKEN)).unwrap_err();
        assert!(matches!(error, OpenError::Migration { from: 2, to: 3, .. }), "{error}");
        let conn = open(&path).unwrap();
        assert!(!tables(&conn).contains(&"half".to_owned()));
    }

    #[test]
    fn somebody_elses_database_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fairway.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(open(&path), Err(OpenError::Foreign { application_id: 0, .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fairway.db");
        let _conn = open(&path).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }
}
