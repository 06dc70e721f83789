//! The store itself, and how it comes back.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::block::Block;
use super::disk::Disk;
use super::error::StoreError;
use super::files::{self, LOG_DIR};
use super::head::Index;
use super::intern::Interner;
use super::log::Log;
use super::options::Options;
use super::recover;
use crate::sample::TimestampMs;

/// Samples in a directory. Share it by reference or `Arc`: any number of threads may ask while one adds.
#[derive(Debug)]
pub struct Store {
    pub(super) options: Options,
    pub(super) disk: Disk,
    pub(super) dir: PathBuf,
    /// Tells this store from others of the process.
    pub(super) token: u64,
    /// Locks are taken in this order where several are: maintaining, syncing, writer, index, a series.
    /// What is older is in blocks. The writer's bound may be higher: while a block is being written, or could not be.
    pub(super) maintaining: Mutex<TimestampMs>,
    pub(super) syncing: Mutex<()>,
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    pub(super) interner: Mutex<Interner>,
    /// In the order of their time. Replaced as a whole, so that a query has one list.
    blocks: RwLock<Arc<Vec<Arc<Block>>>>,
    /// The newest sample of all.
    pub(super) max_ms: AtomicI64,
    _lock: File,
}

/// What belongs to whoever adds.
#[derive(Debug)]
pub(super) struct Writer {
    pub next_id: u64,
    /// Older samples are refused.
    pub min_valid_ms: TimestampMs,
    pub log: Log,
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
    pub fn open(dir: &Path, options: Options) -> Result<Opened, StoreError> {
        Self::open_on(Disk::default(), dir, options)
    }

    pub(super) fn open_on(disk: Disk, dir: &Path, options: Options) -> Result<Opened, StoreError> {
        options.check()?;
        let log_dir = dir.join(LOG_DIR);
        disk.create_dir(&log_dir)?;
        let lock = files::lock(dir)?;
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let mut recovered = Recovered::default();
        let mut interner = Interner::default();
        let blocks = recover::blocks(&disk, dir, &mut interner, &mut recovered)?;
        let closed_ms = blocks.iter().map(|block| block.meta.to_ms).max();
        let head = recover::log(
            &disk,
            &log_dir,
            (token, options.block_ms),
            closed_ms.unwrap_or(TimestampMs::MIN),
            &mut interner,
            &mut recovered,
        )?;
        let max_ms = blocks.iter().map(|block| block.meta.max_ms).max().unwrap_or(TimestampMs::MIN);
        let log = Log::begin(&disk, &log_dir, head.next_segment)?;
        disk.sync_dir(dir)?;
        let store = Self {
            options,
            disk,
            dir: dir.to_owned(),
            token,
            maintaining: Mutex::new(head.min_valid_ms),
            syncing: Mutex::default(),
            writer: Mutex::new(Writer { next_id: head.next_id, min_valid_ms: head.min_valid_ms, log }),
            index: RwLock::new(head.index),
            interner: Mutex::new(interner),
            blocks: RwLock::new(Arc::new(blocks)),
            max_ms: AtomicI64::new(max_ms.max(head.max_ms)),
            _lock: lock,
        };
        Ok(Opened { store, recovered })
    }

    /// Makes all samples that were appended before safe against the end of the process and of the machine. Others may
    /// append meanwhile.
    ///
    /// # Errors
    /// When they cannot be written. They stay in memory, and the next call tries again with all of them.
    pub fn sync(&self) -> Result<(), StoreError> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ticket) = self.writer().log.prepare_sync()? else { return Ok(()) };
        let outcome = ticket.output.sync();
        self.writer().log.finish_sync(&ticket, outcome)
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

    pub(super) fn blocks(&self) -> Arc<Vec<Arc<Block>>> {
        Arc::clone(&self.blocks.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Only `maintain` does.
    pub(super) fn set_blocks(&self, mut blocks: Vec<Arc<Block>>) {
        blocks.sort_by_key(|block| block.meta.from_ms);
        *self.blocks.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(blocks);
    }
}
