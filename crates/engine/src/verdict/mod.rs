//! What a rollout is judged by, and what was found. The arithmetic is pure and runs when something is decided; what it
//! found is a fact, so that a log replayed by a later version says what it said then.

mod judge;
mod quantile;
pub mod sequential;
mod silence;
mod threshold;
mod trigger;
mod view;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::evidence::Number;
use crate::id::ServiceName;
use crate::time::{Timestamp, duration_ms};

pub(crate) use judge::{BASELINE_REQUESTS_MIN, Footing};
pub use quantile::quantile_seconds;
pub(crate) use quantile::{quantile_bound_ms, slower_than};
pub use view::{ArmReport, EvidenceView, GateDue};

/// Which test speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GateId {
    /// The sequential count test of one service and one kind of bad event.
    Sequential { service: ServiceName, event: BadEvent },
    /// One of the release's gates, by its place in the list.
    Gate { index: u32 },
    /// One of the release's triggers, by its place in the list.
    Trigger { index: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadEvent {
    Error,
    /// Slower than the frozen p99 of stable.
    Slow,
    /// An attempt that got no connection to the version.
    Unreached,
    /// No answer at all, to requests that wait. A plain rule and no likelihood; see `silence.rs`.
    Silence,
}

impl BadEvent {
    /// What the test is called, for a service.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BadEvent::Error => "errors",
            BadEvent::Slow => "slow answers",
            BadEvent::Unreached => "failed connections",
            BadEvent::Silence => "silence",
        }
    }
}

/// What a test says now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Verdict {
    Passing,
    /// Turns the rollout back.
    Failing,
    /// Cannot say yet; a step does not end before it can.
    Waiting {
        reason: Reason,
    },
    /// Its source has had nothing to say for some time.
    NoData {
        reason: Reason,
    },
    /// Does not apply now.
    Skipped {
        reason: Reason,
    },
}

impl Verdict {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Passing => "passing",
            Verdict::Failing => "failing",
            Verdict::Waiting { .. } => "waiting",
            Verdict::NoData { .. } => "no data",
            Verdict::Skipped { .. } => "skipped",
        }
    }

    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Verdict::Passing | Verdict::Failing => None,
            Verdict::Waiting { reason } | Verdict::NoData { reason } | Verdict::Skipped { reason } => {
                Some(reason)
            }
        }
    }

    /// Has it nothing to go by? That a fault is elsewhere, or that a bound is crossed, is something.
    #[must_use]
    pub(crate) fn lacks_data(&self) -> bool {
        match self {
            Verdict::Passing | Verdict::Failing | Verdict::Skipped { .. } => false,
            Verdict::NoData { .. } => true,
            Verdict::Waiting { reason } => match reason {
                Reason::Crossed { .. } | Reason::BothFailing { .. } => false,
                Reason::TooFewRequests { .. }
                | Reason::NotMeasuredYet
                | Reason::SourceGone { .. }
                | Reason::NoTraffic
                | Reason::NoBaseline
                | Reason::TooLittleBaseline { .. }
                | Reason::StableUnhealthy { .. }
                | Reason::Unasked
                | Reason::Waived
                | Reason::Decided => true,
            },
        }
    }

    /// Is it worth a line in the record, after the last one? Counts that grow are not, nor is that a test begins anew
    /// with a step.
    #[must_use]
    pub(crate) fn is_news_after(&self, before: Option<&Verdict>) -> bool {
        let kind = |verdict: &Verdict| {
            (std::mem::discriminant(verdict), verdict.reason().map(std::mem::discriminant))
        };
        match before {
            None => self.is_loud(),
            Some(Verdict::Passing) => self.is_loud() && *self != Verdict::Passing,
            Some(before) => kind(self) != kind(before),
        }
    }

    fn is_loud(&self) -> bool {
        match self.reason() {
            None => true,
            Some(
                Reason::TooFewRequests { .. }
                | Reason::NotMeasuredYet
                | Reason::NoTraffic
                | Reason::NoBaseline
                | Reason::TooLittleBaseline { .. }
                | Reason::Unasked
                | Reason::Waived
                | Reason::Decided,
            ) => false,
            Some(
                Reason::Crossed { .. }
                | Reason::SourceGone { .. }
                | Reason::StableUnhealthy { .. }
                | Reason::BothFailing { .. },
            ) => true,
        }
    }
}

/// Why a test cannot say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Reason {
    TooFewRequests {
        have: u64,
        need: u64,
    },
    NotMeasuredYet,
    /// The bound is crossed, but not for long enough.
    Crossed {
        since: Timestamp,
        #[serde(with = "duration_ms")]
        lasts: Duration,
    },
    SourceGone {
        since: Timestamp,
        why: String,
    },
    /// The step sends no public requests to the new version.
    NoTraffic,
    /// Nothing serves beside the new version that it could be compared with.
    NoBaseline,
    /// Stable has answered too few requests to say what is slow.
    TooLittleBaseline {
        have: u64,
        need: u64,
    },
    /// Stable itself fails: a comparison with it says nothing.
    StableUnhealthy {
        service: ServiceName,
        stable: Number,
    },
    /// Stable and the new version fail alike: the fault is elsewhere.
    BothFailing {
        service: ServiceName,
        new: Number,
        stable: Number,
    },
    /// Nobody asks this service in this step. The traffic of the others decides.
    Unasked,
    /// It had no data, and the release says that it then passes.
    Waived,
    /// It had no data, and a person has decided to go on without.
    Decided,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::TooFewRequests { have, need } => write!(f, "{have} of {need} requests"),
            Reason::NotMeasuredYet => write!(f, "not measured yet"),
            Reason::Crossed { lasts, .. } => write!(f, "crossed, not yet for {} s", lasts.as_secs()),
            Reason::SourceGone { why, .. } => write!(f, "no data: {why}"),
            Reason::NoTraffic => write!(f, "the step sends no public requests to the new version"),
            Reason::NoBaseline => write!(f, "nothing serves beside the new version to compare with"),
            Reason::TooLittleBaseline { have, need } => {
                write!(f, "stable has answered {have} of the {need} requests that say what is slow")
            }
            Reason::StableUnhealthy { service, stable } => {
                write!(f, "stable fails {} of {service} itself", percent(*stable))
            }
            Reason::BothFailing { service, new, stable } => write!(
                f,
                "both versions of {service} fail ({} new, {} stable): the fault is elsewhere",
                percent(*new),
                percent(*stable)
            ),
            Reason::Unasked => write!(f, "no traffic"),
            Reason::Waived => write!(f, "without data it passes, as the release says"),
            Reason::Decided => write!(f, "without data it passes, as a person has decided"),
        }
    }
}

/// What a value was held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Bound {
    Max {
        limit: Number,
    },
    Min {
        limit: Number,
    },
    /// Largest ratio to stable's value.
    MaxVsStable {
        limit: Number,
    },
    /// The E-value at which the sequential test rejects.
    Evidence {
        limit: Number,
    },
    /// Exit status 0, or an answer of class 2xx.
    Success,
}

impl Bound {
    #[must_use]
    pub fn limit(&self) -> Option<Number> {
        match self {
            Bound::Max { limit }
            | Bound::Min { limit }
            | Bound::MaxVsStable { limit }
            | Bound::Evidence { limit } => Some(*limit),
            Bound::Success => None,
        }
    }
}

/// A test with its numbers: what status shows, and what the record keeps of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub gate: GateId,
    /// What people call it.
    pub name: String,
    pub verdict: Verdict,
    /// The service that decided the verdict, where it is about one.
    pub service: Option<ServiceName>,
    /// Share (0 to 1), seconds, E-value, or what the source said.
    pub value: Option<Number>,
    pub bound: Option<Bound>,
    /// The same measure of stable.
    pub stable: Option<Number>,
    /// Requests that the value rests on.
    pub samples: u64,
    pub needed: u64,
    pub counts: Option<TestCounts>,
    /// The smallest ratio of the new version's rate to stable's that the counts so far could have shown; none while
    /// not even total failure could.
    pub detectable_ratio: Option<Number>,
    pub next_look: Option<Timestamp>,
}

/// What the sequential test counted, over the whole rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCounts {
    pub event: BadEvent,
    pub new: ArmCount,
    pub stable: ArmCount,
    /// Percent of the traffic that the new version is set to get.
    pub weight: u32,
    /// Share (0 to 1) that the test reckons with: the set one, or the observed one where that is larger.
    pub share: Number,
    /// Share of the bad events that the margin would explain.
    pub q0: Number,
    /// Answers slower than this count; none for errors.
    pub slow_above_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCount {
    pub requests: u64,
    pub bad: u64,
    /// Bad events of one client within one second counted once.
    pub bursts: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(counts) = &self.counts {
            let (new, stable) = (counts.new, counts.stable);
            let what = match counts.event {
                BadEvent::Error => "errors".to_owned(),
                BadEvent::Slow => format!("answers over {} ms", counts.slow_above_ms.unwrap_or(0)),
                BadEvent::Unreached => "attempts without a connection".to_owned(),
                BadEvent::Silence => String::new(),
            };
            match counts.event {
                BadEvent::Silence => write!(
                    f,
                    ": {} requests wait for the new version and none is answered, while stable answered {}",
                    new.requests, stable.requests
                ),
                BadEvent::Error | BadEvent::Slow | BadEvent::Unreached => write!(
                    f,
                    ": {} {what} in {} requests of the new version, {} in {} of stable, at a share of {}",
                    new.bad,
                    new.requests,
                    stable.bad,
                    stable.requests,
                    percent(counts.share)
                ),
            }?;
        }
        if let Some(value) = self.value {
            write!(f, ": {}", self.unit(value))?;
            match &self.bound {
                Some(Bound::Max { limit }) => write!(f, " (at most {})", self.unit(*limit))?,
                Some(Bound::Min { limit }) => write!(f, " (at least {})", self.unit(*limit))?,
                Some(Bound::MaxVsStable { limit }) => {
                    let stable = self.stable.map_or(String::new(), |stable| self.unit(stable));
                    write!(f, " (at most {} times stable's {stable})", short(*limit))?;
                }
                Some(Bound::Evidence { limit }) => write!(f, " (turned back at {})", short(*limit))?,
                Some(Bound::Success) | None => {}
            }
            if self.samples > 0 && self.counts.is_none() {
                write!(f, " in {} requests", self.samples)?;
            }
        }
        if let Some(reason) = self.verdict.reason() {
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}

impl Finding {
    /// Which test and why, without its numbers.
    #[must_use]
    pub fn brief(&self) -> String {
        match self.verdict.reason() {
            Some(reason) => format!("{}: {reason}", self.name),
            None => self.to_string(),
        }
    }

    fn unit(&self, value: Number) -> String {
        if let GateId::Sequential { event: BadEvent::Silence, .. } = self.gate {
            return format!("{} s", short(value));
        }
        if self.counts.is_some() {
            return format!("evidence {}", short(value));
        }
        if self.name.contains("error_rate") {
            return percent(value);
        }
        let is_time = self.name.contains("p50") || self.name.contains("p95") || self.name.contains("p99");
        if is_time { format!("{} s", short(value)) } else { short(value) }
    }
}

/// Three significant places: more would be noise to whoever reads it.
pub(crate) fn short(value: Number) -> String {
    let value = value.0;
    let size = value.abs();
    if size >= 1e6 {
        format!("{value:.1e}")
    } else if size >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

pub(crate) fn percent(share: Number) -> String {
    let value = share.0 * 100.0;
    if value >= 10.0 || value == value.trunc() { format!("{value:.0} %") } else { format!("{value:.1} %") }
}
