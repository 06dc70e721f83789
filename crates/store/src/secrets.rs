//! Secrets at rest, under envelope encryption.
//!
//! Each version of a secret has a data key of its own (XChaCha20-Poly1305), and the data key is wrapped by the
//! key-encryption key, which lies in a file of its own. To change the outer key only the small wrapped keys are
//! written again. The associated data of both layers is the place of the secret (environment, name, version), so a
//! row that was moved to another place does not open.
//!
//! The rows live in the database of the event log: a release names secret versions, so the version must be as
//! durable, and be in the same backup, as the event that names it. The key file is not in that backup; a copy of the
//! database alone tells no value.
//!
//! What this does not do: values pass through memory that the system may swap out, and whoever may read the key file
//! may read them all.

mod cipher;
mod key_file;
mod rotate;
mod value;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use thiserror::Error;
use zeroize::Zeroizing;

pub use key_file::{KEY_FILE, KeyFileError};
pub use value::{SecretValue, VALUE_BYTES_MAX};

use crate::database::{self, DatabaseError, OpenError, classify, classify_write};
use cipher::Place;
use key_file::{Key, KeyFile, Keys};

/// As long as the longest name of an environment variable that is still readable.
pub const NAME_BYTES_MAX: usize = 128;

#[derive(Debug, Error)]
pub enum SecretError {
    #[error(
        "{name:?} cannot be the name of a secret\nhint: 1 to {NAME_BYTES_MAX} letters, digits, '_', '-' and '.', not \
         starting with a digit, '-' or '.'"
    )]
    Name { name: String },
    #[error("{environment:?} cannot be the environment of a secret")]
    Environment { environment: String },
    #[error("the value of {name} has {bytes} bytes; 1 to {VALUE_BYTES_MAX} are allowed")]
    Length { name: String, bytes: usize },
    #[error(
        "there is no secret {name} in {environment}\nhint: `fairway secret list` shows those that there are"
    )]
    Unknown { environment: String, name: String },
    #[error("secret {name} of {environment} has no version {version}; the newest is {newest}")]
    UnknownVersion { environment: String, name: String, version: u32, newest: u32 },
    #[error("version {version} of secret {name} of {environment} says that it was unset")]
    Unset { environment: String, name: String, version: u32 },
    #[error("the value of version {version} of secret {name} of {environment} was destroyed")]
    Purged { environment: String, name: String, version: u32 },
    #[error(
        "version {version} of secret {name} of {environment} does not open: its row was changed\nhint: restore the \
         database from a backup, or set the secret again"
    )]
    Damaged { environment: String, name: String, version: u32 },
    #[error(
        "version {version} of secret {name} of {environment} is locked with key {key_id}, which is not in {}\n\
         hint: put that key file back; a rotation leaves only the new key", key_file.display()
    )]
    KeyUnknown { environment: String, name: String, version: u32, key_id: String, key_file: PathBuf },
    #[error("secret {name} of {environment} has used all its version numbers")]
    VersionsUsedUp { environment: String, name: String },
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// One secret of an environment, without any value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEntry {
    pub name: String,
    /// Oldest first; never empty.
    pub versions: Vec<SecretVersion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretVersion {
    pub version: u32,
    pub state: SecretState,
    pub created_at_ms: u64,
    /// When it should be replaced.
    pub due_at_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretState {
    Kept,
    /// From this version on the environment has no such secret. Earlier ones stay for the releases that name them.
    Unset,
    /// Destroyed for good.
    Purged,
}

/// The secrets of one state directory. The key file is read at each use and forgotten after it.
#[derive(Debug)]
pub struct Secrets {
    conn: Connection,
    path: PathBuf,
    key_file: KeyFile,
}

impl Secrets {
    /// # Errors
    /// When the database cannot be opened; the key file is looked at when it is first needed.
    pub fn open(database: &Path, key_file: &Path) -> Result<Self, SecretError> {
        let conn = database::open(database)?;
        // Destroyed wrapped keys must not stay readable in free pages.
        conn.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))
            .map_err(classify(database, "opening"))?;
        Ok(Self { conn, path: database.to_owned(), key_file: KeyFile::at(key_file) })
    }

    /// Adds a version and returns its number; durable when it returns.
    ///
    /// # Errors
    /// When name, environment or value are out of bounds, the key file is not safe, or the disk is full.
    pub fn set(
        &mut self,
        environment: &str,
        name: &str,
        value: &SecretValue,
        now_ms: u64,
        due_at_ms: Option<u64>,
    ) -> Result<u32, SecretError> {
        check(environment, name)?;
        let bytes = value.expose().len();
        if bytes == 0 || bytes > VALUE_BYTES_MAX {
            return Err(SecretError::Length { name: name.to_owned(), bytes });
        }
        // Makes the key file at the first use; the key itself is read again under the lock.
        self.keys()?;
        self.add(environment, name, now_ms, due_at_ms, Some(value))
    }

    /// Says, as a version of its own, that the environment has no such secret any more. Earlier versions stay for the
    /// releases that name them; [`Secrets::purge`] destroys them.
    ///
    /// # Errors
    /// When there is no such secret, or the disk is full.
    pub fn unset(&mut self, environment: &str, name: &str, now_ms: u64) -> Result<u32, SecretError> {
        check(environment, name)?;
        match self.newest(environment, name)? {
            None => Err(SecretError::Unknown { environment: environment.to_owned(), name: name.to_owned() }),
            Some((version, SecretState::Unset)) => Ok(version),
            Some((_, SecretState::Kept | SecretState::Purged)) => {
                self.add(environment, name, now_ms, None, None)
            }
        }
    }

    /// The value of one version.
    ///
    /// # Errors
    /// When there is none, its row was changed or moved, or the key file does not have its key.
    pub fn get(&self, environment: &str, name: &str, version: u32) -> Result<SecretValue, SecretError> {
        check(environment, name)?;
        let fail = classify(&self.path, "reading a secret");
        let row = self
            .conn
            .query_row(
                "SELECT state, key_id, wrapped_key, ciphertext FROM secrets
                 WHERE environment = ?1 AND name = ?2 AND version = ?3",
                params![environment, name, version],
                |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .optional()
            .map_err(&fail)?;
        let (environment, name) = (environment.to_owned(), name.to_owned());
        let Some((state, key_id, wrapped, ciphertext)) = row else {
            return Err(match self.newest(&environment, &name)? {
                None => SecretError::Unknown { environment, name },
                Some((newest, _)) => SecretError::UnknownVersion { environment, name, version, newest },
            });
        };
        let place = Place { environment: &environment, name: &name, version };
        match (state.as_str(), key_id, wrapped, ciphertext) {
            ("unset", ..) => Err(SecretError::Unset { environment, name, version }),
            ("purged", ..) => Err(SecretError::Purged { environment, name, version }),
            ("kept", Some(key_id), Some(wrapped), Some(ciphertext)) => {
                let sealed = Sealed { key_id, wrapped, ciphertext };
                let keys = self.keys()?;
                let data_key = self.unwrap(&keys, place, &sealed)?;
                match cipher::open(&data_key, place, cipher::Layer::Value, &sealed.ciphertext) {
                    Some(value) => Ok(SecretValue::from_zeroizing(value)),
                    None => Err(damaged(place)),
                }
            }
            _ => Err(damaged(place)),
        }
    }

    /// The version that a new release would use; none when there is no such secret, or it was unset.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn latest(&self, environment: &str, name: &str) -> Result<Option<u32>, SecretError> {
        check(environment, name)?;
        Ok(match self.newest(environment, name)? {
            Some((version, SecretState::Kept)) => Some(version),
            Some((_, SecretState::Unset | SecretState::Purged)) | None => None,
        })
    }

    /// All secrets of an environment by name, also those that were unset.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self, environment: &str) -> Result<Vec<SecretEntry>, SecretError> {
        let fail = classify(&self.path, "listing secrets");
        let mut statement = self
            .conn
            .prepare(
                "SELECT name, version, state, created_at_ms, due_at_ms FROM secrets
                 WHERE environment = ?1 ORDER BY name, version",
            )
            .map_err(&fail)?;
        let mut rows = statement.query([environment]).map_err(&fail)?;
        let mut entries: Vec<SecretEntry> = Vec::new();
        while let Some(row) = rows.next().map_err(&fail)? {
            let name: String = row.get(0).map_err(&fail)?;
            let read = || -> rusqlite::Result<SecretVersion> {
                Ok(SecretVersion {
                    version: row.get(1)?,
                    state: state_of(&row.get::<_, String>(2)?)?,
                    created_at_ms: row.get::<_, i64>(3)?.max(0) as u64,
                    due_at_ms: row.get::<_, Option<i64>>(4)?.map(|due| due.max(0) as u64),
                })
            };
            let version = read().map_err(&fail)?;
            match entries.last_mut() {
                Some(entry) if entry.name == name => entry.versions.push(version),
                Some(_) | None => entries.push(SecretEntry { name, versions: vec![version] }),
            }
        }
        Ok(entries)
    }

    /// Destroys the values of all versions of a secret but those in `keep` (those that a retained release names, and
    /// the newest when it is in use). Returns how many.
    ///
    /// # Errors
    /// When the disk is full or refuses.
    pub fn purge(
        &mut self,
        environment: &str,
        name: &str,
        keep: &BTreeSet<u32>,
    ) -> Result<usize, SecretError> {
        check(environment, name)?;
        let fail = classify(&self.path, "destroying a secret");
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&fail)?;
        let versions: Vec<u32> = tx
            .prepare("SELECT version FROM secrets WHERE environment = ?1 AND name = ?2 AND state = 'kept'")
            .and_then(|mut statement| {
                statement.query_map([environment, name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
            })
            .map_err(&fail)?;
        let doomed: Vec<u32> = versions.into_iter().filter(|version| !keep.contains(version)).collect();
        for version in &doomed {
            tx.execute(
                "UPDATE secrets SET state = 'purged', key_id = NULL, wrapped_key = NULL, ciphertext = NULL
                 WHERE environment = ?1 AND name = ?2 AND version = ?3",
                params![environment, name, version],
            )
            .map_err(&fail)?;
        }
        tx.commit().map_err(&fail)?;
        self.forget_in_wal();
        Ok(doomed.len())
    }

    fn unwrap(
        &self,
        keys: &Keys,
        place: Place<'_>,
        sealed: &Sealed,
    ) -> Result<Zeroizing<[u8; 32]>, SecretError> {
        let Some(key) = keys.find(&sealed.key_id) else {
            return Err(SecretError::KeyUnknown {
                environment: place.environment.to_owned(),
                name: place.name.to_owned(),
                version: place.version,
                key_id: sealed.key_id.clone(),
                key_file: self.key_file.path().to_owned(),
            });
        };
        cipher::open(&key.bytes, place, cipher::Layer::Key, &sealed.wrapped)
            .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new))
            .ok_or_else(|| damaged(place))
    }

    fn add(
        &mut self,
        environment: &str,
        name: &str,
        now_ms: u64,
        due_at_ms: Option<u64>,
        value: Option<&SecretValue>,
    ) -> Result<u32, SecretError> {
        // Shared until the row is durable, see `rotate_kek`.
        let _lock = self.key_file.lock_shared()?;
        let keyed = match value {
            Some(value) => {
                let lost = || KeyFileError::Lost { path: self.key_file.path().to_owned(), locked: 0 };
                Some((self.key_file.load()?.ok_or_else(lost)?, value))
            }
            None => None,
        };
        let path = &self.path;
        let needed_bytes = value.map_or(0, |value| value.expose().len() as u64) + 512;
        let fail = |error| classify_write(path, "setting a secret", needed_bytes, error);
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        let newest: Option<u32> = tx
            .query_row(
                "SELECT max(version) FROM secrets WHERE environment = ?1 AND name = ?2",
                [environment, name],
                |row| row.get(0),
            )
            .map_err(fail)?;
        let Some(version) = newest.unwrap_or(0).checked_add(1) else {
            let (environment, name) = (environment.to_owned(), name.to_owned());
            return Err(SecretError::VersionsUsedUp { environment, name });
        };
        let place = Place { environment, name, version };
        let sealed = keyed.map(|(keys, value)| seal(&keys, place, value)).transpose()?;
        let state = if sealed.is_some() { "kept" } else { "unset" };
        let time = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        tx.execute(
            "INSERT INTO secrets
                 (environment, name, version, state, created_at_ms, due_at_ms, key_id, wrapped_key, ciphertext)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                environment,
                name,
                version,
                state,
                time(now_ms),
                due_at_ms.map(time),
                sealed.as_ref().map(|sealed| &sealed.key_id),
                sealed.as_ref().map(|sealed| &sealed.wrapped),
                sealed.as_ref().map(|sealed| &sealed.ciphertext),
            ],
        )
        .map_err(fail)?;
        tx.commit().map_err(fail)?;
        Ok(version)
    }

    fn newest(&self, environment: &str, name: &str) -> Result<Option<(u32, SecretState)>, SecretError> {
        let fail = classify(&self.path, "reading a secret");
        let newest = self
            .conn
            .query_row(
                "SELECT version, state FROM secrets WHERE environment = ?1 AND name = ?2
                 ORDER BY version DESC LIMIT 1",
                [environment, name],
                |row| Ok((row.get(0)?, state_of(&row.get::<_, String>(1)?)?)),
            )
            .optional();
        Ok(newest.map_err(fail)?)
    }

    fn keys(&self) -> Result<Keys, SecretError> {
        {
            let _lock = self.key_file.lock_shared()?;
            if let Some(keys) = self.key_file.load()? {
                return Ok(keys);
            }
        }
        let _lock = self.key_file.lock_exclusive()?;
        match self.key_file.load()? {
            Some(keys) => Ok(keys),
            None => self.make_key_file(),
        }
    }

    /// Only where there is nothing that an earlier key had locked: a new key would hide that the old one is lost.
    fn make_key_file(&self) -> Result<Keys, SecretError> {
        let locked: u64 = self
            .conn
            .query_row("SELECT count(*) FROM secrets WHERE state = 'kept'", [], |row| row.get::<_, u32>(0))
            .map_err(classify(&self.path, "counting secrets"))?
            .into();
        if locked > 0 {
            return Err(KeyFileError::Lost { path: self.key_file.path().to_owned(), locked }.into());
        }
        let keys = Keys::of(Key::random()?);
        self.key_file.store(&keys)?;
        Ok(keys)
    }

    /// What was overwritten still stands in the write-ahead log until it is checkpointed. Best effort: a reader may
    /// hold it open, and then the next checkpoint does it.
    fn forget_in_wal(&self) {
        let _ = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

struct Sealed {
    key_id: String,
    wrapped: Vec<u8>,
    ciphertext: Vec<u8>,
}

fn seal(keys: &Keys, place: Place<'_>, value: &SecretValue) -> Result<Sealed, SecretError> {
    let data_key = Key::random()?;
    Ok(Sealed {
        key_id: keys.first().id.clone(),
        wrapped: cipher::seal(&keys.first().bytes, place, cipher::Layer::Key, &*data_key.bytes)?,
        ciphertext: cipher::seal(&data_key.bytes, place, cipher::Layer::Value, value.expose())?,
    })
}

fn damaged(place: Place<'_>) -> SecretError {
    SecretError::Damaged {
        environment: place.environment.to_owned(),
        name: place.name.to_owned(),
        version: place.version,
    }
}

fn state_of(text: &str) -> rusqlite::Result<SecretState> {
    match text {
        "kept" => Ok(SecretState::Kept),
        "unset" => Ok(SecretState::Unset),
        "purged" => Ok(SecretState::Purged),
        _ => {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            Err(rusqlite::Error::SqliteFailure(corrupt, Some(format!("a secret is in state {text:?}"))))
        }
    }
}

fn check(environment: &str, name: &str) -> Result<(), SecretError> {
    if environment.is_empty() || environment.len() > NAME_BYTES_MAX || environment.contains('\0') {
        return Err(SecretError::Environment { environment: environment.chars().take(200).collect() });
    }
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.starts_with(first) && name.chars().all(rest) && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(SecretError::Name { name: name.chars().take(200).collect() })
}

#[cfg(test)]
mod tests;
