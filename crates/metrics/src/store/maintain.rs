//! What is done about once a minute: blocks are cut from memory and merged, the log is shortened, old blocks go.
//!
//! Each step leaves the directory such that a start finds every sample once, wherever it was stopped:
//! a block counts from its rename on, and from then on the log's samples of that time are skipped; a checkpoint counts
//! from its rename on, and the segments that it covers are skipped; a merged block names its sources, and those are
//! skipped; what is removed is renamed first.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::block::Block;
use super::block::meta::{block_name, parse_name};
use super::block::write::{BlockWriter, Piece};
use super::chunk::{Chunk, pack};
use super::disk::Buffered;
use super::error::StoreError;
use super::files::{self, CHECKPOINT, DAMAGED, LOG_DIR, TMP};
use super::gather::add_chunk;
use super::head::MemSeries;
use super::log::frames::{FILE_HEADER, put_frame};
use super::log::{FRAME_BYTES, record, segment_path};
use super::open::Store;
use super::recover::checkpoint_path;
use crate::sample::TimestampMs;

/// What [`Store::maintain`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// From memory.
    pub blocks_cut: usize,
    /// Into larger ones.
    pub blocks_merged: usize,
    /// Because of their age, or for room.
    pub blocks_removed: usize,
    /// Left memory: all their samples are in blocks, and nobody holds a reference.
    pub series_dropped: usize,
    pub checkpointed: bool,
}

/// A checkpoint is made, although no block was cut, when segments take more than this, and more than the checkpoint
/// before: so the work stays in proportion to what came in.
const LOG_BYTES_MAX: u64 = 256 << 20;

impl Store {
    /// Writes what is complete into a block, merges blocks, removes old ones. To be called about once a minute; others
    /// may append and ask meanwhile. `now_ms` may be wrong: nothing is closed or removed that is not old by the newest
    /// sample, too.
    ///
    /// # Errors
    /// The first of the steps that failed; the others were carried out. The next call tries again.
    pub fn maintain(&self, now_ms: TimestampMs) -> Result<Maintained, StoreError> {
        let mut cut_ms = self.maintaining.lock().unwrap_or_else(PoisonError::into_inner);
        let horizon_ms = now_ms.min(self.max_ms.load(Ordering::Relaxed));
        let mut done = Maintained::default();
        let cut = self.cut_all(horizon_ms, &mut cut_ms, &mut done);
        done.series_dropped = self.drop_series(*cut_ms);
        let log = self.shorten_log(*cut_ms, &mut done);
        let merged = self.merge_all(*cut_ms, &mut done);
        let removed = self.remove_old(horizon_ms, &mut done);
        cut.and(log).and(merged).and(removed).map(|()| done)
    }

    fn cut_all(
        &self,
        horizon_ms: TimestampMs,
        cut_ms: &mut TimestampMs,
        done: &mut Maintained,
    ) -> Result<(), StoreError> {
        let block_ms = self.options.block_ms;
        loop {
            let series = self.index().all_series();
            let Some(earliest) = series.iter().filter_map(|series| series.min_ms()).min() else {
                return Ok(());
            };
            // A chunk may begin before that if blocks had another length when it was made.
            let period = earliest.max(*cut_ms).div_euclid(block_ms);
            let from_ms = period.saturating_mul(block_ms).max(*cut_ms);
            let to_ms = period.saturating_add(1).saturating_mul(block_ms);
            // Half a block more, so that samples which come late find their time open.
            if horizon_ms < to_ms.saturating_add(block_ms / 2) {
                return Ok(());
            }
            self.close(to_ms);
            if self.cut(series, from_ms, to_ms)? {
                done.blocks_cut += 1;
            }
            *cut_ms = to_ms;
            for series in self.index().all_series() {
                series.drop_before(to_ms);
            }
        }
    }

    /// Nothing older is taken from now on.
    fn close(&self, to_ms: TimestampMs) {
        let mut writer = self.writer();
        writer.min_valid_ms = writer.min_valid_ms.max(to_ms);
    }

    /// Writes what the head has in a time that is closed. Says whether there was something.
    fn cut(
        &self,
        mut series: Vec<Arc<MemSeries>>,
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<bool, StoreError> {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        self.write_block(from_ms, to_ms, Vec::new(), |writer| {
            for series in &series {
                let chunks = cut_chunks(series, from_ms, to_ms - 1)?;
                if !chunks.is_empty() {
                    writer.add(&series.labels, chunks.iter().map(|chunk| piece(chunk)))?;
                }
            }
            Ok(())
        })
    }

    /// Writes a block under another name, renames it, and puts it in the place of its sources. Says whether there was
    /// anything to write.
    pub(super) fn write_block(
        &self,
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        sources: Vec<String>,
        fill: impl FnOnce(&mut BlockWriter) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let name = block_name(from_ms, to_ms);
        let tmp = self.dir.join(format!("{TMP}{name}"));
        let written = self.fill_block(&tmp, from_ms, to_ms, sources.clone(), fill);
        if !matches!(written, Ok(true)) {
            // What cannot be removed now is removed at the next start.
            let _ = self.disk.remove_dir(&tmp);
            return written;
        }
        let dir = self.dir.join(&name);
        if dir.exists() {
            // Renamed before, and then the call failed: nobody reads it.
            files::remove_block(&self.disk, &dir)?;
        }
        self.disk.rename(&tmp, &dir)?;
        self.disk.sync_dir(&self.dir)?;
        let block = Block::open(&dir, &mut self.interner.lock().unwrap_or_else(PoisonError::into_inner))?;
        let known = self.blocks();
        let others = known.iter().filter(|block| !sources.contains(&block.name())).map(Arc::clone);
        self.set_blocks(others.chain([Arc::new(block)]).collect());
        Ok(true)
    }

    fn fill_block(
        &self,
        tmp: &Path,
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        sources: Vec<String>,
        fill: impl FnOnce(&mut BlockWriter) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let mut writer = BlockWriter::create(&self.disk, tmp, from_ms, to_ms, sources)?;
        fill(&mut writer)?;
        if writer.is_empty() {
            return Ok(false);
        }
        writer.finish().map(|_| true)
    }

    /// Series whose samples are all in blocks.
    fn drop_series(&self, cut_ms: TimestampMs) -> usize {
        let writer = self.writer();
        let all = self.index().all_series();
        let empty: Vec<_> = all.into_iter().filter(|series| series.drop_before(cut_ms)).collect();
        if empty.is_empty() {
            return 0;
        }
        let dropped = self.index_mut().remove_unused(empty);
        drop(writer);
        if dropped > 0 {
            self.interner.lock().unwrap_or_else(PoisonError::into_inner).purge();
        }
        dropped
    }

    fn shorten_log(&self, cut_ms: TimestampMs, done: &mut Maintained) -> Result<(), StoreError> {
        let dir = self.dir.join(LOG_DIR);
        let checkpoints = files::names(&dir)?.into_iter().filter(|name| name.starts_with(CHECKPOINT));
        let kept: u64 = checkpoints
            .filter_map(|name| dir.join(name).metadata().ok())
            .map(|metadata| metadata.len())
            .sum();
        let segments = files::bytes_in(&dir).saturating_sub(kept);
        if done.blocks_cut == 0 && segments < LOG_BYTES_MAX.max(kept) {
            return Ok(());
        }
        self.checkpoint(&dir, cut_ms)?;
        done.checkpointed = true;
        Ok(())
    }

    /// Writes what is in memory, and removes the segments that held it.
    fn checkpoint(&self, dir: &Path, cut_ms: TimestampMs) -> Result<(), StoreError> {
        let (ended, first, series) = {
            let _no_sync = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut writer = self.writer();
            let ended = writer.log.next_segment()?;
            (ended, record::checkpoint(cut_ms, writer.next_id), self.index().all_series())
        };
        let tmp = dir.join(format!("{TMP}{CHECKPOINT}{ended:010}"));
        if let Err(error) = self.write_checkpoint(&tmp, &first, &series) {
            let _ = self.disk.remove_file(&tmp);
            return Err(error);
        }
        self.disk.rename(&tmp, &checkpoint_path(dir, ended))?;
        self.disk.sync_dir(dir)?;
        for name in files::names(dir)? {
            let checkpoint = name.strip_prefix(CHECKPOINT).and_then(files::number);
            if let Some(number) = files::number(&name).filter(|number| *number <= ended) {
                self.disk.remove_file(&segment_path(dir, number))?;
            } else if checkpoint.is_some_and(|number| number < ended) {
                self.disk.remove_file(&dir.join(name))?;
            }
        }
        Ok(())
    }

    fn write_checkpoint(
        &self,
        path: &Path,
        first: &[u8],
        series: &[Arc<MemSeries>],
    ) -> Result<(), StoreError> {
        let mut out = Buffered::new(self.disk.create(path)?);
        out.write(&FILE_HEADER)?;
        let mut frame = Vec::new();
        let mut put = |content: &mut Vec<u8>| {
            frame.clear();
            put_frame(&mut frame, content);
            content.clear();
            out.write(&frame)
        };
        put(&mut first.to_vec())?;
        let (mut names, mut chunks) = (Vec::new(), Vec::new());
        for series in series {
            record::put_series(&mut names, series.id, &series.labels);
            let (list, last) = series.state();
            for (chunk, last) in list.iter().zip(last.into_iter().cycle()) {
                record::put_chunk(&mut chunks, series.id, chunk, last);
            }
            if names.len() + chunks.len() >= FRAME_BYTES {
                // A series comes before its chunks.
                put(&mut names)?;
                put(&mut chunks)?;
            }
        }
        put(&mut names)?;
        put(&mut chunks)?;
        out.finish().map(|_| ())
    }

    fn remove_old(&self, horizon_ms: TimestampMs, done: &mut Maintained) -> Result<(), StoreError> {
        let oldest_ms = horizon_ms.saturating_sub(self.options.retention_ms);
        let mut damaged = self.damaged()?;
        let mut blocks: Vec<Arc<Block>> = self.blocks().to_vec();
        let mut removed: Vec<PathBuf> = Vec::new();
        removed.extend(damaged.extract_if(.., |(_, to_ms, _)| *to_ms <= oldest_ms).map(|(dir, ..)| dir));
        let old = blocks.extract_if(.., |block| block.meta.to_ms <= oldest_ms);
        removed.extend(old.map(|block| block.dir.clone()));
        if let Some(bytes_max) = self.options.retention_bytes {
            let mut bytes = files::bytes_in(&self.dir.join(LOG_DIR));
            bytes += blocks.iter().map(|block| block.bytes).sum::<u64>();
            bytes += damaged.iter().map(|(.., bytes)| bytes).sum::<u64>();
            // What nobody can read goes first; then by age.
            let mut first = damaged.into_iter().map(|(dir, _, bytes)| (dir, bytes));
            while bytes > bytes_max {
                let (dir, freed) = match first.next() {
                    Some(damaged) => damaged,
                    None if blocks.is_empty() => break,
                    None => {
                        let block = blocks.remove(0);
                        (block.dir.clone(), block.bytes)
                    }
                };
                bytes = bytes.saturating_sub(freed);
                removed.push(dir);
            }
        }
        if removed.is_empty() {
            return Ok(());
        }
        // Queries that have them open read on.
        self.set_blocks(blocks);
        done.blocks_removed = removed.len();
        let outcomes: Vec<_> = removed.iter().map(|dir| files::remove_block(&self.disk, dir)).collect();
        outcomes.into_iter().collect()
    }

    /// Blocks that were set aside: place, end of their time, bytes.
    fn damaged(&self) -> Result<Vec<(PathBuf, TimestampMs, u64)>, StoreError> {
        let named = |name: String| {
            let (_, to_ms) = parse_name(name.strip_prefix(DAMAGED)?)?;
            let dir = self.dir.join(&name);
            let bytes = files::bytes_in(&dir);
            Some((dir, to_ms, bytes))
        };
        Ok(files::names(&self.dir)?.into_iter().filter_map(named).collect())
    }
}

pub(super) fn piece(chunk: &Chunk) -> Piece<'_> {
    Piece { min_ms: chunk.min_ms, max_ms: chunk.max_ms, count: chunk.count, bytes: &chunk.bytes }
}

/// The chunks of a series, cut to the range.
fn cut_chunks(
    series: &MemSeries,
    from_ms: TimestampMs,
    to_ms: TimestampMs,
) -> Result<Vec<Arc<Chunk>>, StoreError> {
    let mut chunks = Vec::new();
    for chunk in series.chunks(from_ms, to_ms) {
        if chunk.min_ms >= from_ms && chunk.max_ms <= to_ms {
            chunks.push(chunk);
            continue;
        }
        let mut samples = Vec::new();
        add_chunk(&mut samples, &chunk.bytes, chunk.count, from_ms, to_ms)
            .map_err(|_| StoreError::damaged(Path::new("memory"), 0, "a chunk is not as written"))?;
        chunks.extend(pack(&samples).into_iter().map(Arc::new));
    }
    Ok(chunks)
}
