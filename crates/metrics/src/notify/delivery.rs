//! A message that is to be sent, and how that went.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::{Fingerprint, Known, TimestampMs};
use crate::labels::Labels;

/// No channel shows more, and a webhook's receiver has a limit as well.
pub const ALERTS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(pub u64);

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "d{}", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Firing,
    Resolved,
}

impl Status {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// Why a channel hears of a group now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// For the first time.
    New,
    /// Alerts came, or some of them ended.
    Changed,
    /// Nothing is left of what was told.
    Resolved,
    /// Nothing is new; the repeat interval is over.
    Repeat,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldAlert {
    pub fingerprint: Fingerprint,
    pub status: Status,
    pub labels: Labels,
    pub annotations: Labels,
    pub starts_at_ms: TimestampMs,
    /// `None` while it fires.
    pub ends_at_ms: Option<TimestampMs>,
    pub generator_url: String,
}

impl ToldAlert {
    pub(super) fn of(fingerprint: Fingerprint, known: &Known, now_ms: TimestampMs) -> Self {
        let resolved = known.is_resolved(now_ms);
        Self {
            fingerprint,
            status: if resolved { Status::Resolved } else { Status::Firing },
            labels: known.labels.clone(),
            annotations: known.annotations.clone(),
            starts_at_ms: known.starts_at_ms,
            ends_at_ms: resolved.then(|| known.end.at_ms()),
            generator_url: known.generator_url.clone(),
        }
    }
}

/// One message for one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub id: DeliveryId,
    pub channel: String,
    /// The same for every message about this group, also after a restart: what a channel merges by.
    pub group_key: String,
    pub group_labels: Labels,
    /// What all alerts agree in.
    pub common_labels: Labels,
    pub common_annotations: Labels,
    /// Firing as long as one of the alerts is.
    pub status: Status,
    pub reason: Reason,
    /// Firing ones first; oldest first. At most [`ALERTS_MAX`].
    pub alerts: Vec<ToldAlert>,
    /// How many more there are.
    pub truncated: usize,
    /// 1 for the first.
    pub attempt: u32,
}

impl Delivery {
    pub fn firing(&self) -> impl Iterator<Item = &ToldAlert> {
        self.alerts.iter().filter(|alert| alert.status == Status::Firing)
    }

    pub fn resolved(&self) -> impl Iterator<Item = &ToldAlert> {
        self.alerts.iter().filter(|alert| alert.status == Status::Resolved)
    }
}

/// Pairs that all of `sets` have.
pub(super) fn common<'a>(mut sets: impl Iterator<Item = &'a Labels>) -> Labels {
    let mut common = sets.next().cloned().unwrap_or_default();
    for set in sets {
        if common.is_empty() {
            break;
        }
        let before = common.clone();
        common = common.filter(|name| set.get(name) == before.get(name));
    }
    common
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The channel took it.
    Sent,
    /// It did not, and may later.
    Failed {
        why: String,
        /// Nobody knows whether the channel took it: the answer was lost. It is sent again, and what it said will be
        /// told as resolved in any case.
        perhaps_sent: bool,
        /// When the channel asked to be left alone for a while.
        retry_after: Option<Duration>,
    },
    /// It never will, as it is: a wrong key, an address that is gone. Tried again rarely, and at once after a new
    /// configuration.
    Refused { why: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_is_what_all_agree_in() {
        let one = Labels::new([("a", "1"), ("b", "2"), ("c", "3")]);
        let two = Labels::new([("a", "1"), ("b", "x")]);
        assert_eq!(common([&one, &two].into_iter()), Labels::new([("a", "1")]));
        assert_eq!(common([&one].into_iter()), one);
        assert_eq!(common([].into_iter()), Labels::default());
    }
}
