//! The store itself, and how it comes back.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::error::StoreError;
use super::head::Index;
use super::intern::Interner;
use super::options::Options;
use crate::sample::TimestampMs;

/// Samples in a directory. Share it by reference or `Arc`: any number of threads may ask while one adds.
#[derive(Debug)]
pub struct Store {
    pub(super) options: Options,
    /// Tells this store from others of the process.
    pub(super) token: u64,
    /// Taken in this order where several are: writer, index, a series.
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    pub(super) interner: Mutex<Interner>,
    /// The newest sample of all.
    pub(super) max_ms: AtomicI64,
}

/// What belongs to whoever adds.
#[derive(Debug)]
pub(super) struct Writer {
    pub next_id: u64,
    pub min_valid_ms: TimestampMs,
}

/// A store, and what was found when it was opened.
#[derive(Debug)]
pub struct Opened {
    pub store: Store,
    pub recovered: Recovered,
}

/// What was there, and what was not right about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Blocks that are readable.
    pub blocks: usize,
    /// Series and samples that came back into memory.
    pub series: usize,
    pub samples: u64,
    /// The end of the log that was being written when the process or the machine stopped. It was never synced.
    pub torn: Option<Damage>,
    /// Synced data that cannot be read any more. Everything else was kept.
    pub damages: Vec<Damage>,
    /// Samples whose series was in a damaged part.
    pub samples_without_series: u64,
    /// Directories and files that an interrupted `maintain` left behind; they were removed.
    pub leftovers_removed: usize,
}

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    pub offset: u64,
    /// How many bytes are lost, as far as that is known.
    pub bytes: u64,
    pub what: String,
}

static TOKENS: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// Opens the directory, made when there is none, and reads the log.
    ///
    /// # Errors
    /// When another process has it open, or it cannot be read or written. Damage alone is no error: it is reported, and
    /// what is whole is used.
    pub fn open(_dir: &Path, options: Options) -> Result<Opened, StoreError> {
        options.check()?;
        let store = Self {
            options,
            token: TOKENS.fetch_add(1, Ordering::Relaxed),
            writer: Mutex::new(Writer { next_id: 0, min_valid_ms: TimestampMs::MIN }),
            index: RwLock::default(),
            interner: Mutex::default(),
            max_ms: AtomicI64::new(TimestampMs::MIN),
        };
        Ok(Opened { store, recovered: Recovered::default() })
    }

    // A panic while one of these is held leaves nothing half done that a later call would trip over: chunks and index
    // are changed by calls that do not panic, and so poison says nothing.
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}
