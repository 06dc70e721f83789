//! Whether a channel can be relied upon.

use serde::{Deserialize, Serialize};

use super::alert::TimestampMs;

/// A cause is one line on a status page.
const WHY_CHARS_MAX: usize = 500;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Standing {
    /// Nothing was sent yet.
    #[default]
    Untried,
    Working {
        last_ms: TimestampMs,
    },
    Failing {
        /// The first failure since it worked.
        since_ms: TimestampMs,
        last_ms: TimestampMs,
        /// When it took a message, if ever.
        worked_ms: Option<TimestampMs>,
        /// In a row.
        failures: u32,
        why: String,
        /// Waiting will not help: it said that it does not want this.
        refused: bool,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelHealth {
    pub standing: Standing,
    /// Since the memory began.
    pub sent: u64,
    pub failed: u64,
}

impl ChannelHealth {
    pub(super) fn worked(&mut self, now_ms: TimestampMs) {
        self.sent = self.sent.saturating_add(1);
        self.standing = Standing::Working { last_ms: now_ms };
    }

    pub(super) fn failed(&mut self, now_ms: TimestampMs, why: &str, refused: bool) {
        self.failed = self.failed.saturating_add(1);
        let (since_ms, worked_ms, failures) = match &self.standing {
            Standing::Untried => (now_ms, None, 0),
            Standing::Working { last_ms } => (now_ms, Some(*last_ms), 0),
            Standing::Failing { since_ms, worked_ms, failures, .. } => (*since_ms, *worked_ms, *failures),
        };
        let why = why.chars().take(WHY_CHARS_MAX).collect();
        let failures = failures.saturating_add(1);
        self.standing = Standing::Failing { since_ms, last_ms: now_ms, worked_ms, failures, why, refused };
    }

    #[must_use]
    pub fn is_failing(&self) -> bool {
        match self.standing {
            Standing::Untried | Standing::Working { .. } => false,
            Standing::Failing { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_failures_remembers_when_it_began_and_what_worked_before() {
        let mut health = ChannelHealth::default();
        health.worked(10);
        health.failed(20, "connection refused", false);
        health.failed(30, &"é".repeat(1000), true);
        let expected = Standing::Failing {
            since_ms: 20,
            last_ms: 30,
            worked_ms: Some(10),
            failures: 2,
            why: "é".repeat(WHY_CHARS_MAX),
            refused: true,
        };
        assert_eq!((health.standing.clone(), health.sent, health.failed), (expected, 1, 2));
        assert!(health.is_failing());
        health.worked(40);
        assert_eq!(health.standing, Standing::Working { last_ms: 40 });
    }
}
