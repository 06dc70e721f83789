//! The file with the key-encryption key: `secrets.key`, mode 0600, made at first use.
//!
//! A line a key, the one in use first: `fairway-key 1 <id> <64 hex digits>`. There are two only while a rotation is
//! under way. The id is a hash of the key, so a damaged line is told from a wrong key.

use std::borrow::Cow;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::durable;

/// Name of the key file inside the state directory.
pub const KEY_FILE: &str = "secrets.key";

/// A rotation that was cut short leaves one more key each time; a hundred are a thousand times what ever happens.
const KEY_FILE_BYTES_MAX: u64 = 16 << 10;

const LINE_START: &str = "fairway-key 1 ";

#[derive(Debug, Error)]
pub enum KeyFileError {
    #[error(
        "others may read {} (mode {mode:04o}), which opens all secrets\nhint: `chmod 600 {}`, and rotate the keys and \
         the secrets if somebody may have", path.display(), path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} belongs to user {owner}, not to the one who runs this\nhint: chown it", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error(
        "{} is not there, but {locked} secret versions are locked with it\nhint: put it back from where it is kept \
         safe; without it they cannot be read and must be set again", path.display()
    )]
    Lost { path: PathBuf, locked: u64 },
    #[error("line {line} of {} is not a key\nhint: put the file back from where it is kept safe", path.display())]
    Damaged { path: PathBuf, line: usize },
    #[error("no room left for {}: {available_bytes} bytes available", path.display())]
    DiskFull { path: PathBuf, available_bytes: u64 },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the system gives no random numbers: {detail}")]
    Random { detail: String },
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], KeyFileError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyFileError::Random { detail: error.to_string() })?;
    Ok(bytes)
}

/// A key and its name. The bytes are overwritten when dropped and never shown.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) bytes: Zeroizing<[u8; 32]>,
}

impl Key {
    pub(super) fn random() -> Result<Self, KeyFileError> {
        Ok(Self::of(Zeroizing::new(random()?)))
    }

    fn of(bytes: Zeroizing<[u8; 32]>) -> Self {
        let hash = blake3::derive_key("fairway secrets.key id 1", &*bytes);
        let id = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { id, bytes }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} ***)", self.id)
    }
}

/// The keys of a file; never none.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub(super) fn of(key: Key) -> Self {
        Self(vec![key])
    }

    /// The one that locks.
    pub(super) fn first(&self) -> &Key {
        &self.0[0]
    }

    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    pub(super) fn put_first(&mut self, key: Key) {
        self.0.insert(0, key);
    }

    pub(super) fn keep_first(&mut self) {
        self.0.truncate(1);
    }
}

#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, action: &'static str, source: io::Error) -> KeyFileError {
        let path = self.path.clone();
        if durable::is_disk_full(&source) {
            let available_bytes = durable::available_bytes(&path).unwrap_or(0);
            return KeyFileError::DiskFull { path, available_bytes };
        }
        KeyFileError::Io { action, path, source }
    }

    /// For as long as a row that the first key wraps is being written. On a file beside it, because the key file
    /// itself is replaced by a rename.
    pub(super) fn lock_shared(&self) -> Result<File, KeyFileError> {
        self.lock(false)
    }

    /// For making a key, and for a rotation from beginning to end.
    pub(super) fn lock_exclusive(&self) -> Result<File, KeyFileError> {
        self.lock(true)
    }

    fn name(&self) -> Cow<'_, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }

    fn lock(&self, exclusive: bool) -> Result<File, KeyFileError> {
        let path = self.path.with_file_name(format!("{}.lock", self.name()));
        durable::lock(&path, exclusive).map_err(|error| self.failed("lock", error))
    }

    /// None when there is no file.
    pub(super) fn load(&self) -> Result<Option<Keys>, KeyFileError> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("open", error)),
        };
        let metadata = file.metadata().map_err(|error| self.failed("read", error))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed { path: self.path.clone(), mode });
        }
        let owner = metadata.uid();
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            return Err(KeyFileError::Owner { path: self.path.clone(), owner });
        }
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize));
        file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                return KeyFileError::Damaged { path: self.path.clone(), line: 1 };
            }
            self.failed("read", error)
        })?;
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let damaged = || KeyFileError::Damaged { path: self.path.clone(), line: index + 1 };
            keys.push(parse(line).ok_or_else(damaged)?);
        }
        if keys.is_empty() {
            return Err(KeyFileError::Damaged { path: self.path.clone(), line: 1 });
        }
        Ok(Some(Keys(keys)))
    }

    /// Under the exclusive lock.
    pub(super) fn store(&self, keys: &Keys) -> Result<(), KeyFileError> {
        // What a crash left holds keys.
        if let Some(dir) = self.path.parent() {
            durable::sweep(dir, &self.name());
        }
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize));
        for key in &keys.0 {
            text.push_str(LINE_START);
            text.push_str(&key.id);
            text.push(' ');
            for byte in key.bytes.iter() {
                text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
                text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
            }
            text.push('\n');
        }
        durable::replace_file(&self.path, text.as_bytes(), 0o600).map_err(|error| self.failed("write", error))
    }
}

fn parse(line: &str) -> Option<Key> {
    let (id, hex) = line.strip_prefix(LINE_START)?.split_once(' ')?;
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    let key = Key::of(bytes);
    (key.id == id).then_some(key)
}
