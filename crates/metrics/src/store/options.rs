//! What whoever opens a store decides.

use super::error::StoreError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A block is removed when all of it is older than the newest sample by this much.
    pub retention_ms: i64,
    /// The oldest blocks are removed while log and blocks together are larger.
    pub retention_bytes: Option<u64>,
    /// The time that one block covers before blocks are merged. At least a minute.
    pub block_ms: i64,
    /// The most series in memory at one time. One costs 1.1 kB and its samples, see [`crate::store`].
    pub series_max: usize,
}

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

impl Default for Options {
    fn default() -> Self {
        Self {
            // One day more than the month that service level objectives look back.
            retention_ms: 31 * DAY_MS,
            retention_bytes: None,
            // As Prometheus: long enough to pack well, short enough that a head fits into memory.
            block_ms: 120 * MINUTE_MS,
            series_max: 1_000_000,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let refuse = |name, value, why| Err(StoreError::Option { name, value, why });
        if !(MINUTE_MS..=DAY_MS).contains(&self.block_ms) {
            return refuse("block_ms", self.block_ms, "a block covers a minute to a day");
        }
        if self.retention_ms < self.block_ms {
            return refuse("retention_ms", self.retention_ms, "it is shorter than one block");
        }
        if self.series_max == 0 {
            return refuse("series_max", 0, "nothing could be stored");
        }
        Ok(())
    }
}
