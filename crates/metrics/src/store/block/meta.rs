//! What a block says about itself, and its name.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::error::StoreError;
use crate::sample::TimestampMs;

pub(in super::super) const VERSION: u32 = 1;

/// `meta.json` of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Meta {
    pub version: u32,
    /// The time that it covers: from, and before.
    pub from_ms: TimestampMs,
    pub to_ms: TimestampMs,
    /// Of its oldest and newest sample.
    pub min_ms: TimestampMs,
    pub max_ms: TimestampMs,
    pub series: u64,
    pub chunks: u64,
    pub samples: u64,
    /// The blocks that it was made of. If they are still there, they are not needed.
    pub sources: Vec<String>,
}

const PREFIX: &str = "block-";

/// Sorts by nothing in particular; says when, for people.
pub(in super::super) fn block_name(from_ms: TimestampMs, to_ms: TimestampMs) -> String {
    format!("{PREFIX}{from_ms}_{to_ms}")
}

/// The time that a block of this name covers; `None` for other names.
pub(in super::super) fn parse_name(name: &str) -> Option<(TimestampMs, TimestampMs)> {
    let (from, to) = name.strip_prefix(PREFIX)?.split_once('_')?;
    let range = (from.parse().ok()?, to.parse().ok()?);
    (block_name(range.0, range.1) == name).then_some(range)
}

impl Meta {
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let text = std::fs::read(path).map_err(StoreError::io(path, "read"))?;
        let meta: Self =
            serde_json::from_slice(&text).map_err(|error| StoreError::damaged(path, 0, error.to_string()))?;
        if meta.version > VERSION {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                version: meta.version,
                supported: VERSION,
            });
        }
        if meta.from_ms > meta.min_ms || meta.min_ms > meta.max_ms || meta.max_ms >= meta.to_ms {
            return Err(StoreError::damaged(path, 0, "its times are not in order"));
        }
        Ok(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_time_a_block_covers() {
        for range in [(0, 7_200_000), (-7_200_000, 0), (i64::MIN, i64::MAX)] {
            assert_eq!(parse_name(&block_name(range.0, range.1)), Some(range));
        }
        for other in ["block-1", "block-a_b", "tmp-block-0_1", "block-0_1x", "block-00_1", "log"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
