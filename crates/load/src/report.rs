use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{Failure, FailureClass, Kind};

/// What a run found. Offsets (`…_us`) count from the start of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub verdict: Verdict,
    pub started_unix_ms: u64,
    pub lasted_us: u64,
    pub total: Tally,
    pub acts: Vec<ActReport>,
    pub connections_opened: u64,
    /// Pooled connections that the server had closed while they were idle. No request was
    /// lost with them; a close that met a request is a failure instead.
    pub idle_closed: u64,
    /// Requests of HTTP/2 that the server said it had not processed, and that were sent once more for it (RFC 9113,
    /// section 8.7): the goodbye crossed them on the way. What came of the second sending is counted as everything else.
    pub refused: u64,
    /// For how long, all in all, the client's own thread did not run when it was due.
    pub stood_still_us: u64,
    /// The first 1,000.
    pub failures: Vec<Failure>,
    /// Failures beyond those kept; they are counted everywhere else.
    pub failures_dropped: u64,
    /// Marks beyond the bound on acts; what followed them was counted in the last act.
    pub marks_ignored: u64,
}

/// Passed: every request was answered below 400, and the planned rate was really offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub passed: bool,
    /// Why not, one sentence each.
    pub reasons: Vec<String>,
}

/// A stretch of the run between two marks. A request belongs to the act in which it was
/// planned to start, whenever it ended.
#[derive(Debug, Clone, Serialize)]
pub struct ActReport {
    pub name: String,
    pub started_us: u64,
    pub lasted_us: u64,
    #[serde(flatten)]
    pub tally: Tally,
    /// Which versions answered, in the order of their first answer.
    pub versions: Vec<VersionSeen>,
}

impl ActReport {
    /// From the start of the act until `to` had all the traffic: until the last request was
    /// sent that another version answered, or `to`'s first one if no other answered. The
    /// resolution is the distance between two requests. `None` if `to` never answered.
    pub fn switched_after(&self, to: &str) -> Option<Duration> {
        let first_of_to = self.versions.iter().find(|seen| seen.version == to)?.first_sent_us;
        let last_of_others =
            self.versions.iter().filter(|seen| seen.version != to).map(|seen| seen.last_sent_us).max();
        let at = last_of_others.unwrap_or(first_of_to);
        Some(Duration::from_micros(at.saturating_sub(self.started_us)))
    }
}

/// One version's answers within an act, of any status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionSeen {
    pub version: String,
    pub answers: u64,
    /// When the first and last of the requests it answered were sent …
    pub first_sent_us: u64,
    pub last_sent_us: u64,
    /// … and when the first and last of its response heads arrived.
    pub first_answered_us: u64,
    pub last_answered_us: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Tally {
    /// `completed + failed`, once the run is over.
    pub planned: u64,
    pub completed: u64,
    pub failed: u64,
    pub failed_by: BTreeMap<FailureClass, u64>,
    pub target_per_s: f64,
    /// Requests that really started within 100 ms of their planned time, a second.
    pub achieved_per_s: f64,
    /// Completed requests: from the planned start to the last byte.
    pub latency: Spread,
    /// Completed requests: from taking or opening a connection to the last byte.
    pub service: Spread,
    /// Started requests: from the planned to the real start. What is large here is the
    /// client's own delay.
    pub start_lag: Spread,
    pub kinds: Vec<KindReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindReport {
    pub kind: Kind,
    pub planned: u64,
    pub completed: u64,
    pub failed: u64,
    pub failed_by: BTreeMap<FailureClass, u64>,
}

impl KindReport {
    pub(crate) fn new(kind: Kind) -> KindReport {
        KindReport { kind, planned: 0, completed: 0, failed: 0, failed_by: BTreeMap::new() }
    }
}

/// Quantiles to three significant digits; all 0 when nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Spread {
    pub p50_us: u64,
    pub p90_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Spread {
    pub(crate) fn of(histogram: &Histogram<u32>) -> Spread {
        if histogram.is_empty() {
            return Spread::default();
        }
        Spread {
            p50_us: histogram.value_at_quantile(0.50),
            p90_us: histogram.value_at_quantile(0.90),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

/// Below this share of the planned starts the load that was asked for was not offered, and
/// good latencies would be those of a lighter load.
const ON_TIME_SHARE_MIN: f64 = 0.99;

impl Verdict {
    pub(crate) fn of(total: &Tally, on_time: u64, marks_ignored: u64) -> Verdict {
        let mut reasons = Vec::new();
        if total.planned == 0 {
            reasons.push("nothing was sent: the run ended before its first request".to_owned());
        }
        if total.failed > 0 {
            let classes: Vec<String> =
                total.failed_by.iter().map(|(class, count)| format!("{count} {class}")).collect();
            reasons.push(format!(
                "{} of {} requests failed: {}",
                total.failed,
                total.planned,
                classes.join(", ")
            ));
        }
        if (on_time as f64) < total.planned as f64 * ON_TIME_SHARE_MIN {
            reasons.push(format!(
                "achieved {:.1} of {:.1} requests a second: {} started more than 100 ms late or never",
                total.achieved_per_s,
                total.target_per_s,
                total.planned - on_time
            ));
        }
        if marks_ignored > 0 {
            reasons.push(format!("{marks_ignored} marks came after the last act that the report can hold"));
        }
        Verdict { passed: reasons.is_empty(), reasons }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: &str, first_sent_us: u64, last_sent_us: u64) -> VersionSeen {
        VersionSeen {
            version: version.into(),
            answers: 2,
            first_sent_us,
            last_sent_us,
            first_answered_us: first_sent_us + 1,
            last_answered_us: last_sent_us + 1,
        }
    }

    fn tally(planned: u64, failed_by: &[(FailureClass, u64)]) -> Tally {
        let failed = failed_by.iter().map(|(_, count)| count).sum();
        Tally {
            planned,
            completed: planned - failed,
            failed,
            failed_by: failed_by.iter().copied().collect(),
            target_per_s: 100.0,
            achieved_per_s: 97.0,
            latency: Spread::default(),
            service: Spread::default(),
            start_lag: Spread::default(),
            kinds: Vec::new(),
        }
    }

    fn check(versions: Vec<VersionSeen>, expect_us: Option<u64>) {
        let tally = tally(0, &[]);
        let act = ActReport { name: "a".into(), started_us: 1_000, lasted_us: 9_000, tally, versions };
        assert_eq!(act.switched_after("v2"), expect_us.map(Duration::from_micros));
    }

    #[test]
    fn switch_ends_with_the_last_request_that_another_version_answered() {
        check(vec![seen("v1", 1_100, 4_000), seen("v2", 3_000, 9_000)], Some(3_000));
        check(
            vec![seen("v0", 1_050, 5_000), seen("v1", 1_100, 4_000), seen("v2", 3_000, 9_000)],
            Some(4_000),
        );
        check(vec![seen("v2", 1_100, 9_000)], Some(100));
        check(vec![seen("v1", 1_100, 9_000)], None);
    }

    #[test]
    fn verdict_passes_only_when_nothing_failed_and_the_rate_was_offered() {
        let reasons = |tally: &Tally, on_time| Verdict::of(tally, on_time, 0).reasons;
        assert_eq!(reasons(&tally(1000, &[]), 990), [""; 0]);
        assert!(Verdict::of(&tally(1000, &[]), 1000, 0).passed);
        assert_eq!(
            reasons(&tally(1000, &[]), 989),
            ["achieved 97.0 of 100.0 requests a second: 11 started more than 100 ms late or never"]
        );
        assert_eq!(
            reasons(&tally(1000, &[(FailureClass::Reset, 2), (FailureClass::ServerError, 1)]), 1000),
            ["3 of 1000 requests failed: 2 reset, 1 answered 5xx"]
        );
        assert_eq!(reasons(&tally(0, &[]), 0), ["nothing was sent: the run ended before its first request"]);
    }
}
