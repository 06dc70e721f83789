//! Who is told what, and how often.

use std::time::Duration;

use super::alert::TimestampMs;
use super::inhibit::InhibitRule;
use super::matching::{Match, accepts_all, written};
use crate::labels::Labels;

/// Shorter intervals would wake the caller more often than rules are evaluated.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A hundred years: longer is a typing error, and sums with it must not overflow.
const INTERVAL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Shorter than a scrape and an evaluation together, and every alert would flap.
pub const RESOLVE_TIMEOUT_MIN: Duration = Duration::from_secs(10);

/// Alertmanager's.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The first that accepts an alert takes it. An alert that none accepts is listed, inhibits others, and is told
    /// to nobody.
    pub routes: Vec<Route>,
    pub inhibit: Vec<InhibitRule>,
    /// How long an alert without an end of its own counts as firing after its last report.
    pub resolve_timeout: Duration,
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            inhibit: Vec::new(),
            resolve_timeout: RESOLVE_TIMEOUT,
            limits: Limits::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// All of them; a route without any takes what is left.
    pub matches: Vec<Match>,
    pub channels: Vec<String>,
    pub group_by: Vec<String>,
    /// From the first alert of a group to its first message.
    pub group_wait: Duration,
    /// Between two looks at a group. At least [`INTERVAL_MIN`].
    pub group_interval: Duration,
    /// After this time without news a message is sent again, at the next look.
    pub repeat: Duration,
}

impl Default for Route {
    /// Alertmanager's intervals.
    fn default() -> Self {
        Self {
            matches: Vec::new(),
            channels: Vec::new(),
            group_by: Vec::new(),
            group_wait: Duration::from_secs(30),
            group_interval: Duration::from_secs(300),
            repeat: Duration::from_secs(4 * 3600),
        }
    }
}

/// What is kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub alerts: usize,
    /// Alerts of further groups are told together, one group a route.
    pub groups: usize,
    pub silences: usize,
}

impl Default for Limits {
    /// About 20 MB of labels at worst; a machine that fires more has one problem, not twenty thousand.
    fn default() -> Self {
        Self { alerts: 20_000, groups: 10_000, silences: 1_000 }
    }
}

pub(super) fn to_ms(duration: Duration) -> TimestampMs {
    TimestampMs::try_from(duration.min(INTERVAL_MAX).as_millis()).unwrap_or(TimestampMs::MAX)
}

impl Config {
    pub(super) fn route_of(&self, labels: &Labels) -> Option<usize> {
        self.routes.iter().position(|route| accepts_all(&route.matches, labels))
    }

    pub(super) fn resolve_timeout_ms(&self) -> TimestampMs {
        to_ms(self.resolve_timeout.max(RESOLVE_TIMEOUT_MIN))
    }

    pub(super) fn has_channel(&self, channel: &str) -> bool {
        self.routes.iter().any(|route| route.tells(channel))
    }
}

impl Route {
    pub(super) fn tells(&self, channel: &str) -> bool {
        self.channels.iter().any(|known| known == channel)
    }

    pub(super) fn group_wait_ms(&self) -> TimestampMs {
        to_ms(self.group_wait)
    }

    pub(super) fn group_interval_ms(&self) -> TimestampMs {
        to_ms(self.group_interval.max(INTERVAL_MIN))
    }

    pub(super) fn repeat_ms(&self) -> TimestampMs {
        to_ms(self.repeat.max(INTERVAL_MIN))
    }

    pub(super) fn group_labels(&self, labels: &Labels) -> Labels {
        labels.filter(|name| self.group_by.iter().any(|wanted| wanted == name))
    }

    /// By what it says and not by its place: a new route above leaves the memory of this one alone.
    pub(super) fn group_key(&self, group_labels: &Labels) -> String {
        let pairs: Vec<String> =
            group_labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{{}}/{}:{{{}}}", written(&self.matches), pairs.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::matching::MatchOp;
    use super::*;

    #[test]
    fn a_group_is_named_as_alertmanager_names_it() {
        let route = Route {
            matches: vec![Match::new("severity", MatchOp::Equal, "critical").unwrap()],
            group_by: vec!["service".to_owned(), "alertname".to_owned(), "missing".to_owned()],
            ..Route::default()
        };
        let labels = Labels::new([("alertname", "Down"), ("service", "a\"b"), ("other", "x")]);
        let key = route.group_key(&route.group_labels(&labels));
        assert_eq!(key, r#"{}/{severity="critical"}:{alertname="Down", service="a\"b"}"#);
    }

    #[test]
    fn absurd_intervals_are_bounded() {
        let route = Route {
            group_wait: Duration::MAX,
            group_interval: Duration::ZERO,
            repeat: Duration::ZERO,
            ..Route::default()
        };
        assert!(route.group_wait_ms() < TimestampMs::MAX / 1000);
        assert_eq!((route.group_interval_ms(), route.repeat_ms()), (1000, 1000));
    }
}
