//! How much there is.

use std::sync::atomic::Ordering;

use super::files::{self, LOG_DIR};
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

/// What a series takes in memory besides its samples: names, index, locks. Measured by a test of [`super::bench`].
pub(super) const SERIES_BYTES: u64 = 1_100;

impl Store {
    #[must_use]
    pub fn stats(&self) -> Stats {
        let all = self.index().all_series();
        let mut stats = Stats { head_series: all.len(), ..Stats::default() };
        for series in all {
            let (samples, bytes) = series.size();
            stats.head_samples += samples;
            stats.head_bytes += bytes + SERIES_BYTES;
            if let Some(min_ms) = series.min_ms() {
                stats.min_ms = Some(stats.min_ms.map_or(min_ms, |known| known.min(min_ms)));
            }
        }
        for block in self.blocks().iter() {
            stats.blocks += 1;
            stats.block_series += block.meta.series;
            stats.block_samples += block.meta.samples;
            stats.block_bytes += block.bytes;
            stats.min_ms = Some(stats.min_ms.map_or(block.meta.min_ms, |known| known.min(block.meta.min_ms)));
        }
        stats.log_bytes = files::bytes_in(&self.dir.join(LOG_DIR));
        stats.max_ms = stats.min_ms.map(|_| self.max_ms.load(Ordering::Relaxed));
        stats
    }
}
