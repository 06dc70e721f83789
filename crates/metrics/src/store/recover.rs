//! What a directory holds, read at the start.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{Block, meta};
use super::disk::Disk;
use super::error::StoreError;
use super::files::{self, CHECKPOINT, REMOVED, TMP, number};
use super::head::{Index, MemSeries, Taken};
use super::intern::Interner;
use super::log::frames::{FILE_HEADER, Found, Frames};
use super::log::record::{self, Record};
use super::log::segment_path;
use super::open::{Damage, Recovered};
use crate::sample::{Sample, TimestampMs};

/// Blocks in the order of their time.
pub(super) fn blocks(
    disk: &Disk,
    dir: &Path,
    interner: &mut Interner,
    recovered: &mut Recovered,
) -> Result<Vec<Arc<Block>>, StoreError> {
    let mut blocks = Vec::new();
    for name in files::names(dir)? {
        let path = dir.join(&name);
        if name.starts_with(TMP) || name.starts_with(REMOVED) {
            disk.remove_dir(&path)?;
            recovered.leftovers_removed += 1;
        }
        if meta::parse_name(&name).is_none() {
            continue;
        }
        match Block::open(&path, interner) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error) => recovered.damages.push(set_aside(disk, &path, error)?),
        }
    }
    let replaced: HashSet<String> =
        blocks.iter().flat_map(|block| block.meta.sources.iter().cloned()).collect();
    let (gone, mut kept): (Vec<_>, Vec<_>) =
        blocks.into_iter().partition(|block| replaced.contains(&block.name()));
    for block in gone {
        files::remove_block(disk, &block.dir)?;
        recovered.leftovers_removed += 1;
    }
    kept.sort_by_key(|block| block.meta.from_ms);
    recovered.blocks = kept.len();
    Ok(kept)
}

/// A block that is not whole is moved away; any other failure stops the start, because the block may be fine.
fn set_aside(disk: &Disk, path: &Path, error: StoreError) -> Result<Damage, StoreError> {
    let (file, offset, what) = match error {
        StoreError::Damaged { path, offset, what } => (path, offset, what),
        StoreError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            (path, 0, "it is not there".to_owned())
        }
        other @ (StoreError::Io { .. }
        | StoreError::DiskFull { .. }
        | StoreError::Locked { .. }
        | StoreError::Newer { .. }
        | StoreError::Option { .. }) => return Err(other),
    };
    let bytes = files::bytes_in(path);
    let aside = files::set_aside(disk, path)?;
    let file = aside.join(file.file_name().unwrap_or_default());
    Ok(Damage { file, offset, bytes, what: format!("{what}; the block was set aside") })
}

/// What the log brings back.
#[derive(Debug)]
pub(super) struct Head {
    pub index: Index,
    pub next_id: u64,
    pub min_valid_ms: TimestampMs,
    pub max_ms: TimestampMs,
    pub next_segment: u64,
}

#[derive(Debug)]
struct Reader<'a> {
    head: Head,
    /// By the number that the log calls them; two numbers may be one series.
    by_id: HashMap<u64, Arc<MemSeries>>,
    token: u64,
    block_ms: i64,
    interner: &'a mut Interner,
    recovered: &'a mut Recovered,
}

/// Reads the log. What is older than `min_valid_ms` is in blocks already.
pub(super) fn log(
    disk: &Disk,
    dir: &Path,
    (token, block_ms): (u64, i64),
    min_valid_ms: TimestampMs,
    interner: &mut Interner,
    recovered: &mut Recovered,
) -> Result<Head, StoreError> {
    let mut segments = Vec::new();
    let mut checkpoints = Vec::new();
    for name in files::names(dir)? {
        if name.starts_with(TMP) {
            disk.remove_file(&dir.join(name))?;
            recovered.leftovers_removed += 1;
        } else if let Some(number) = number(&name) {
            segments.push(number);
        } else if let Some(number) = name.strip_prefix(CHECKPOINT).and_then(number) {
            checkpoints.push(number);
        }
    }
    let checkpoint = checkpoints.pop();
    let covered = |number: &u64| checkpoint.is_some_and(|checkpoint| *number <= checkpoint);
    for path in checkpoints.iter().map(|number| checkpoint_path(dir, *number)) {
        disk.remove_file(&path)?;
    }
    for path in segments.iter().filter(|number| covered(number)).map(|number| segment_path(dir, *number)) {
        disk.remove_file(&path)?;
    }
    segments.retain(|number| !covered(number));
    let newest = segments.last().copied().max(checkpoint);
    let head = Head {
        index: Index::default(),
        next_id: 0,
        min_valid_ms,
        max_ms: TimestampMs::MIN,
        next_segment: newest.map_or(1, |newest| newest + 1),
    };
    let mut reader = Reader { head, by_id: HashMap::new(), token, block_ms, interner, recovered };
    if let Some(number) = checkpoint {
        let path = checkpoint_path(dir, number);
        if let Some(tail) = reader.file(&path)? {
            reader.recovered.damages.push(tail);
        }
    }
    for number in &segments {
        let path = segment_path(dir, *number);
        let Some(tail) = reader.file(&path)? else { continue };
        if Some(number) == segments.last() {
            disk.cut(&path, tail.offset)?;
            reader.recovered.torn = Some(tail);
        } else {
            reader.recovered.damages.push(tail);
        }
    }
    for path in segments.iter().map(|number| segment_path(dir, *number)) {
        // Begun, and nothing came: at every start there would be one more.
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= FILE_HEADER.len() as u64) {
            disk.remove_file(&path)?;
        }
    }
    reader.recovered.series = reader.head.index.len();
    Ok(reader.head)
}

pub(super) fn checkpoint_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{CHECKPOINT}{number:010}"))
}

impl Reader<'_> {
    /// Reads a file, and gives the bytes at its end that are no frame.
    fn file(&mut self, path: &Path) -> Result<Option<Damage>, StoreError> {
        let file = File::open(path).map_err(StoreError::io(path, "open"))?;
        let mut frames = Frames::new(&file, path)?;
        let mut found = match frames.header()? {
            None => frames.next()?,
            instead => instead,
        };
        loop {
            match found {
                Some(Found::Content { offset, bytes }) => {
                    if record::read(&bytes, |record| self.take(record)).is_none() {
                        self.damage(path, offset, bytes.len() as u64, "records of a kind that is not known");
                    }
                }
                Some(Found::Hole { offset, bytes }) => {
                    self.damage(path, offset, bytes, "bytes that are not as written; what follows is whole");
                }
                Some(Found::Tail { offset, bytes }) if bytes > 0 => {
                    let what = "the end is not as written".to_owned();
                    return Ok(Some(Damage { file: path.to_owned(), offset, bytes, what }));
                }
                Some(Found::Tail { .. }) => {}
                None => return Ok(None),
            }
            found = frames.next()?;
        }
    }

    fn damage(&mut self, path: &Path, offset: u64, bytes: u64, what: &str) {
        self.recovered.damages.push(Damage { file: path.to_owned(), offset, bytes, what: what.to_owned() });
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Series { id, labels } => {
                let series = match self.head.index.get(&labels) {
                    Some(known) => Arc::clone(known),
                    None => {
                        let made = Arc::new(MemSeries::new(self.token, id, self.interner.labels(&labels)));
                        self.head.index.insert(Arc::clone(&made));
                        made
                    }
                };
                self.by_id.insert(id, series);
                self.head.next_id = self.head.next_id.max(id.saturating_add(1));
            }
            Record::Sample { id, at_ms, bits } => {
                if at_ms < self.head.min_valid_ms {
                    return;
                }
                let Some(series) = self.series_of(id) else { return };
                let sample = Sample { at_ms, value: f64::from_bits(bits) };
                if series.push(sample, self.block_ms) == Taken::Added {
                    self.head.max_ms = self.head.max_ms.max(at_ms);
                    self.recovered.samples += 1;
                }
            }
            Record::Chunk { id, chunk, last } => {
                if chunk.max_ms < self.head.min_valid_ms {
                    return;
                }
                let Some(series) = self.series_of(id) else { return };
                self.head.max_ms = self.head.max_ms.max(chunk.max_ms);
                self.recovered.samples += u64::from(chunk.count);
                series.restore(chunk, last);
            }
            Record::Checkpoint { min_valid_ms, next_id } => {
                self.head.min_valid_ms = self.head.min_valid_ms.max(min_valid_ms);
                self.head.next_id = self.head.next_id.max(next_id);
            }
        }
    }

    /// Only for what is in no block: a series that left memory may be gone while old samples of it are not.
    fn series_of(&mut self, id: u64) -> Option<Arc<MemSeries>> {
        let series = self.by_id.get(&id).map(Arc::clone);
        if series.is_none() {
            self.recovered.samples_without_series += 1;
        }
        series
    }
}
