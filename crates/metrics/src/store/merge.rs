//! Blocks become larger ones: fewer to look into, and less written twice.

use std::collections::VecDeque;
use std::sync::Arc;

use super::block::{Block, Entry};
use super::chunk::{Chunk, Garbled, SAMPLES_MAX, pack};
use super::error::StoreError;
use super::files;
use super::gather::add_chunk;
use super::maintain::{Maintained, piece};
use super::open::Store;
use crate::labels::Labels;
use crate::sample::TimestampMs;

/// As many blocks become one, at most; three of those one again.
const FACTOR: i64 = 3;

/// No block covers more of the retention than a tenth: removing the oldest one would take too much at once.
const RETENTION_PART: i64 = 10;

/// The first group of blocks to be merged: all that lie in one aligned span of time, which is over.
fn plan(
    blocks: &[Arc<Block>],
    block_ms: i64,
    retention_ms: i64,
    cut_ms: TimestampMs,
) -> Option<Vec<Arc<Block>>> {
    let mut span_ms = block_ms.checked_mul(FACTOR)?;
    while span_ms <= retention_ms / RETENTION_PART {
        let span = |block: &Arc<Block>| {
            let number = block.meta.from_ms.div_euclid(span_ms);
            let end_ms = number.checked_add(1)?.checked_mul(span_ms)?;
            (block.meta.to_ms <= end_ms && end_ms <= cut_ms).then_some(number)
        };
        let group =
            blocks.chunk_by(|a, b| span(a).is_some() && span(a) == span(b)).find(|group| group.len() > 1);
        if let Some(group) = group {
            return Some(group.to_vec());
        }
        span_ms = span_ms.checked_mul(FACTOR)?;
    }
    None
}

impl Store {
    pub(super) fn merge_all(&self, cut_ms: TimestampMs, done: &mut Maintained) -> Result<(), StoreError> {
        loop {
            let blocks = self.blocks();
            let group = plan(&blocks, self.options.block_ms, self.options.retention_ms, cut_ms);
            let Some(group) = group else { return Ok(()) };
            self.merge(&group)?;
            done.blocks_merged += group.len();
        }
    }

    fn merge(&self, group: &[Arc<Block>]) -> Result<(), StoreError> {
        let from_ms = group.iter().map(|block| block.meta.from_ms).min().unwrap_or_default();
        let to_ms = group.iter().map(|block| block.meta.to_ms).max().unwrap_or_default();
        let sources = group.iter().map(|block| block.name()).collect();
        self.write_block(from_ms, to_ms, sources, |writer| {
            let mut cursors: Vec<Cursor<'_>> = group.iter().map(|block| Cursor::new(block)).collect();
            while let Some((labels, chunks)) = next_series(&mut cursors)? {
                let chunks = repack(chunks).map_err(|_| {
                    StoreError::damaged(&self.dir, 0, format!("a chunk of {labels} is not as written"))
                })?;
                writer.add(&labels, chunks.iter().map(piece))?;
            }
            Ok(())
        })?;
        let outcomes: Vec<_> =
            group.iter().map(|block| files::remove_block(&self.disk, &block.dir)).collect();
        outcomes.into_iter().collect()
    }
}

/// Goes through the series of a block.
struct Cursor<'a> {
    block: &'a Block,
    next: u32,
    read: VecDeque<Entry>,
}

/// So many series are read at once.
const SERIES_AT_ONCE: u32 = 64;

impl<'a> Cursor<'a> {
    fn new(block: &'a Block) -> Self {
        Self { block, next: 0, read: VecDeque::new() }
    }

    fn peek(&mut self) -> Result<Option<&Labels>, StoreError> {
        let count = self.block.series_count() as u32;
        if self.read.is_empty() && self.next < count {
            let end = (self.next + SERIES_AT_ONCE).min(count);
            let ordinals: Vec<u32> = (self.next..end).collect();
            let read = &mut self.read;
            self.block.entries(&ordinals, |entry| {
                read.push_back(entry);
                Ok::<(), StoreError>(())
            })?;
            self.next = end;
        }
        Ok(self.read.front().map(|entry| &entry.labels))
    }
}

/// The series that comes first by its labels, with the chunks of all blocks, in the order of the blocks.
fn next_series(cursors: &mut [Cursor<'_>]) -> Result<Option<(Labels, Vec<Chunk>)>, StoreError> {
    let mut first: Option<Labels> = None;
    for cursor in &mut *cursors {
        if let Some(labels) = cursor.peek()?
            && first.as_ref().is_none_or(|first| labels < first)
        {
            first = Some(labels.clone());
        }
    }
    let Some(first) = first else { return Ok(None) };
    let mut chunks = Vec::new();
    for cursor in cursors {
        if cursor.peek()? != Some(&first) {
            continue;
        }
        let Some(entry) = cursor.read.pop_front() else { continue };
        cursor.block.read_chunks(&entry.chunks, |place, bytes| {
            let (min_ms, max_ms, count) = (place.min_ms, place.max_ms, place.count);
            chunks.push(Chunk { min_ms, max_ms, count, bytes: bytes.into() });
            Ok::<(), StoreError>(())
        })?;
    }
    Ok(Some((first, chunks)))
}

/// Puts small neighbours into one chunk, and chunks that overlap into order.
fn repack(chunks: Vec<Chunk>) -> Result<Vec<Chunk>, Garbled> {
    let unpack = |chunks: &[Chunk]| {
        let mut samples = Vec::new();
        for chunk in chunks {
            add_chunk(&mut samples, &chunk.bytes, chunk.count, TimestampMs::MIN, TimestampMs::MAX)?;
        }
        Ok::<_, Garbled>(pack(&samples))
    };
    if chunks.windows(2).any(|pair| pair[1].min_ms <= pair[0].max_ms) {
        return unpack(&chunks);
    }
    let mut packed = Vec::with_capacity(chunks.len());
    let mut small: Vec<Chunk> = Vec::new();
    let mut count = 0;
    for chunk in chunks {
        if count + chunk.count > SAMPLES_MAX {
            flush(&mut small, &mut packed, unpack)?;
            count = 0;
        }
        count += chunk.count;
        small.push(chunk);
    }
    flush(&mut small, &mut packed, unpack)?;
    Ok(packed)
}

fn flush(
    small: &mut Vec<Chunk>,
    packed: &mut Vec<Chunk>,
    unpack: impl Fn(&[Chunk]) -> Result<Vec<Chunk>, Garbled>,
) -> Result<(), Garbled> {
    if small.len() < 2 {
        packed.append(small);
    } else {
        packed.extend(unpack(small)?);
        small.clear();
    }
    Ok(())
}
