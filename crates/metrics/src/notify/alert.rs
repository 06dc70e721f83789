//! An alert, and what is known of it between two reports.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;

pub type TimestampMs = i64;

/// One alert as a rule reports it, over and over while it fires.
///
/// Silence of the source is taken for the end: an alert that is not reported again within the resolve timeout counts
/// as resolved. Therefore whoever evaluates rules keeps reporting the last known alerts of a rule whose evaluation
/// *failed*; otherwise a broken metrics source would resolve everything that fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its identity.
    pub labels: Labels,
    pub annotations: Labels,
    pub starts_at_ms: TimestampMs,
    /// When it ended, or when it ends unless it is reported again. `None` while it fires: the resolve timeout counts.
    pub ends_at_ms: Option<TimestampMs>,
    /// Where it can be looked at; may be empty.
    pub generator_url: String,
}

/// The hash under which Prometheus and Alertmanager know these labels: 64-bit FNV-1a over names and values, each
/// followed by 0xff (`model.LabelSet.Fingerprint` of prometheus/common).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    #[must_use]
    pub fn of(labels: &Labels) -> Self {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let mut hash = OFFSET;
        let mut add = |text: &str| {
            for byte in text.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
            }
        };
        for (name, value) in labels.iter() {
            add(name);
            add(value);
        }
        Self(hash)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// When an alert is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "at_ms")]
pub(super) enum End {
    /// Its source said so.
    Said(TimestampMs),
    /// Unless it is reported again.
    Timeout(TimestampMs),
}

impl End {
    pub(super) fn at_ms(self) -> TimestampMs {
        match self {
            Self::Said(at_ms) | Self::Timeout(at_ms) => at_ms,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
    pub(super) starts_at_ms: TimestampMs,
    pub(super) end: End,
    pub(super) generator_url: String,
}

impl Known {
    pub(super) fn new(alert: Alert, now_ms: TimestampMs, resolve_timeout_ms: TimestampMs) -> Self {
        let Alert { labels, annotations, starts_at_ms, ends_at_ms, generator_url } = alert;
        let end = ends_at_ms.map_or(End::Timeout(now_ms.saturating_add(resolve_timeout_ms)), End::Said);
        Self { labels, annotations, starts_at_ms, end, generator_url }
    }

    pub(super) fn is_resolved(&self, now_ms: TimestampMs) -> bool {
        self.end.at_ms() <= now_ms
    }

    /// The later report counts; one that overlaps the earlier is the same episode and keeps its start.
    pub(super) fn merge(&mut self, later: Self) {
        let same_episode = later.starts_at_ms < self.end.at_ms() && later.end.at_ms() >= self.starts_at_ms;
        let starts_at_ms =
            if same_episode { self.starts_at_ms.min(later.starts_at_ms) } else { later.starts_at_ms };
        *self = Self { starts_at_ms, ..later };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(starts_at_ms: TimestampMs, ends_at_ms: Option<TimestampMs>, now_ms: TimestampMs) -> Known {
        let labels = Labels::new([("alertname", "A")]);
        let annotations = Labels::default();
        let alert = Alert { labels, annotations, starts_at_ms, ends_at_ms, generator_url: String::new() };
        Known::new(alert, now_ms, 100)
    }

    #[test]
    fn the_fingerprint_is_the_one_of_prometheus() {
        // FNV-1a's offset basis, which is what Prometheus answers for no labels.
        assert_eq!(Fingerprint::of(&Labels::default()).to_string(), "cbf29ce484222325");
        // The order of writing is no difference.
        let one = Fingerprint::of(&Labels::new([("a", "1"), ("b", "2")]));
        assert_eq!(one, Fingerprint::of(&Labels::new([("b", "2"), ("a", "1")])));
        // A value that looks like two pairs is another alert.
        assert_ne!(one, Fingerprint::of(&Labels::new([("a", "1b2")])));
    }

    #[test]
    fn an_episode_keeps_its_start_and_the_next_has_its_own() {
        let mut alert = known(10, None, 50);
        alert.merge(known(40, None, 60));
        assert_eq!((alert.starts_at_ms, alert.end), (10, End::Timeout(160)));
        alert.merge(known(10, Some(70), 70));
        assert!(alert.is_resolved(70) && !alert.is_resolved(69));
        alert.merge(known(90, None, 95));
        assert_eq!((alert.starts_at_ms, alert.is_resolved(95)), (90, false));
    }

    #[test]
    fn absurd_times_do_not_overflow() {
        let mut alert = known(TimestampMs::MIN, None, TimestampMs::MAX);
        alert.merge(known(TimestampMs::MAX, Some(TimestampMs::MIN), TimestampMs::MIN));
        assert!(alert.is_resolved(TimestampMs::MIN));
    }
}
