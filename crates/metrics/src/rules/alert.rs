//! One alert: an element that an alert rule's query gives, over time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::labels::{Labels, NAME};
use crate::sample::{Sample, TimestampMs};

use super::evaluate::Recorded;

/// How long an alert that ended is kept, so that whoever tells people can say so again. Prometheus' value.
pub const RESOLVED_KEPT_MS: i64 = 15 * 60_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alert {
    /// With `alertname`; the name of the alert among those of its rule.
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    /// Of the query when it last gave this element.
    pub value: f64,
    /// Since when the query has given it without a gap: what `for` counts from.
    pub active_at_ms: TimestampMs,
    pub state: AlertState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum AlertState {
    /// `for` has not passed yet.
    Pending,
    Firing {
        since_ms: TimestampMs,
        /// Since when the query no longer gives it; `keep_firing_for` counts from here.
        gone_since_ms: Option<TimestampMs>,
    },
    Resolved {
        since_ms: TimestampMs,
        at_ms: TimestampMs,
    },
}

/// Something happened to an alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transition {
    pub rule: String,
    pub alert: Alert,
    pub change: Change,
    pub at_ms: TimestampMs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Pending,
    Firing,
    Resolved,
    /// Was pending, and the query stopped giving it before `for` had passed.
    Dropped,
}

impl Alert {
    /// Pending or firing.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, AlertState::Pending | AlertState::Firing { .. })
    }

    #[must_use]
    pub fn is_firing(&self) -> bool {
        matches!(self.state, AlertState::Firing { .. })
    }

    /// The word for the state in `ALERTS` and in the HTTP API.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state {
            AlertState::Pending => "pending",
            AlertState::Firing { .. } => "firing",
            AlertState::Resolved { .. } => "inactive",
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get(ALERT_NAME).unwrap_or_default()
    }

    /// `ALERTS` and `ALERTS_FOR_STATE`.
    pub(super) fn samples(&self, at_ms: TimestampMs) -> [Recorded; 2] {
        let labels = self.labels.with("alertstate", self.state_name()).with(NAME, ALERTS);
        // Whole seconds, as Prometheus writes them.
        let since = self.active_at_ms.div_euclid(1000) as f64;
        [
            Recorded { labels, sample: Sample { at_ms, value: 1.0 } },
            Recorded {
                labels: self.labels.with(NAME, ALERTS_FOR_STATE),
                sample: Sample { at_ms, value: since },
            },
        ]
    }
}

pub const ALERT_NAME: &str = "alertname";
pub const ALERTS: &str = "ALERTS";
pub const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
