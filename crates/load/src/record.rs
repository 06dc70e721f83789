use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use crate::report::{ActReport, KindReport, Report, Spread, Tally, Verdict, VersionSeen};
use crate::{Cause, Failure, FailureClass, Kind};

/// Enough to see every pattern; a run that fails throughout must not fill the memory.
const FAILURES_MAX: usize = 1000;

/// An act holds three histograms, some 30 KiB each on loopback: about 100 MB at the bound.
const ACTS_MAX: usize = 1000;

/// More versions than a rollout can have at once; guards against a header that is different
/// in every answer. Those beyond are counted together.
const VERSIONS_MAX: usize = 64;
const VERSION_CHARS_MAX: usize = 100;
const OTHER_VERSIONS: &str = "(others)";

/// Longer than any sensible timeout; keeps a histogram below 100 KiB.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// A later start no longer stands for the planned one. Far above scheduling noise on a busy
/// machine, far below what a saturated client shows.
const ON_TIME: Duration = Duration::from_millis(100);

/// Of a tenth of a second or more each; those within the last request that is still under way are among them.
const STANDSTILLS_MAX: usize = 1000;

/// Of the response head of a failed request.
const RESPONSE_HEAD_BYTES_MAX: usize = 4096;

/// All that is counted during a run.
#[derive(Debug)]
pub(crate) struct Record {
    started: Instant,
    started_unix_ms: u64,
    rate_per_s: f64,
    acts: Vec<Act>,
    marks_ignored: u64,
    /// Planning ended; later marks change nothing.
    ended: Option<Instant>,
    failures: Vec<Failure>,
    failures_dropped: u64,
    last_failure: Option<Failure>,
    pub(crate) connections_opened: u64,
    pub(crate) idle_closed: u64,
    pub(crate) refused: u64,
    /// Oldest first.
    standstills: VecDeque<(Instant, Instant)>,
    stood_still: Duration,
}

#[derive(Debug)]
struct Act {
    name: String,
    started: Instant,
    counts: Counts,
    versions: Vec<VersionSeen>,
}

#[derive(Debug, Clone)]
struct Counts {
    kinds: [KindReport; Kind::ALL.len()],
    failed_by: BTreeMap<FailureClass, u64>,
    on_time: u64,
    latency: Histogram<u32>,
    service: Histogram<u32>,
    start_lag: Histogram<u32>,
}

/// A planned request, as the record knows it.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) at: Instant,
}

/// Which version's head arrived when.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) version: &'a str,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
}

impl Record {
    pub(crate) fn new(rate_per_s: f64, started: Instant) -> Record {
        Record {
            started,
            started_unix_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX)),
            rate_per_s,
            acts: vec![Act::new("start".to_owned(), started)],
            marks_ignored: 0,
            ended: None,
            failures: Vec::new(),
            failures_dropped: 0,
            last_failure: None,
            connections_opened: 0,
            idle_closed: 0,
            refused: 0,
            standstills: VecDeque::new(),
            stood_still: Duration::ZERO,
        }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn mark(&mut self, name: &str, now: Instant) {
        if self.acts.len() == ACTS_MAX || self.ended.is_some() {
            self.marks_ignored += 1;
            return;
        }
        self.acts.push(Act::new(name.to_owned(), now));
    }

    pub(crate) fn end_planning(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    /// The client's thread wanted to run at `due`, and did at `now`. A service cannot do that to it; a machine that is
    /// busy with other things does it to the service as well.
    pub(crate) fn woke(&mut self, due: Instant, now: Instant) {
        let late = now.saturating_duration_since(due);
        if late <= ON_TIME {
            return;
        }
        self.stood_still += late;
        if self.standstills.len() == STANDSTILLS_MAX {
            self.standstills.pop_front();
        }
        self.standstills.push_back((due, now));
    }

    fn stood_still_within(&self, from: Instant, to: Instant) -> Duration {
        let overlap =
            |(begin, end): &(Instant, Instant)| (*end).min(to).saturating_duration_since((*begin).max(from));
        self.standstills.iter().map(overlap).sum()
    }

    pub(crate) fn planned(&mut self, planned: &Planned) {
        self.act_at(planned.at).counts.kinds[planned.kind.index()].planned += 1;
    }

    pub(crate) fn began(&mut self, planned: &Planned, began: Instant) {
        let lag = began.saturating_duration_since(planned.at);
        let counts = &mut self.act_at(planned.at).counts;
        counts.on_time += u64::from(lag <= ON_TIME);
        put(&mut counts.start_lag, lag);
    }

    pub(crate) fn answered(&mut self, planned: &Planned, answer: &Answer<'_>) {
        let (sent_us, answered_us) = (self.offset_us(answer.sent), self.offset_us(answer.answered));
        self.act_at(planned.at).answered(answer.version, sent_us, answered_us);
    }

    pub(crate) fn completed(&mut self, planned: &Planned, began: Instant, finished: Instant) {
        let counts = &mut self.act_at(planned.at).counts;
        counts.kinds[planned.kind.index()].completed += 1;
        put(&mut counts.latency, finished.saturating_duration_since(planned.at));
        put(&mut counts.service, finished.saturating_duration_since(began));
    }

    /// `began`: when it was taken up, or given up unsent.
    pub(crate) fn failed(
        &mut self,
        planned: &Planned,
        began: Instant,
        cause: Cause,
        raw_head: &[u8],
        at: Instant,
    ) {
        let (planned_us, failed_us) = (self.offset_us(planned.at), self.offset_us(at));
        let stood_still_us = micros(self.stood_still_within(planned.at, at));
        let act = self.act_at(planned.at);
        let kind = &mut act.counts.kinds[planned.kind.index()];
        kind.failed += 1;
        *kind.failed_by.entry(cause.class()).or_default() += 1;
        *act.counts.failed_by.entry(cause.class()).or_default() += 1;
        let kept_head = &raw_head[..raw_head.len().min(RESPONSE_HEAD_BYTES_MAX)];
        let failure = Failure {
            act: act.name.clone(),
            kind: planned.kind,
            path: planned.path.clone(),
            id: planned.id.clone(),
            cause,
            planned_us,
            late_us: micros(began.saturating_duration_since(planned.at)),
            stood_still_us,
            failed_us,
            response_head: (!kept_head.is_empty()).then(|| String::from_utf8_lossy(kept_head).into_owned()),
        };
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(failure.clone());
        } else {
            self.failures_dropped += 1;
        }
        self.last_failure = Some(failure);
    }

    pub(crate) fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// Name and versions of the act that is running.
    pub(crate) fn current_act(&self) -> (&str, &[VersionSeen]) {
        self.acts.last().map_or(("", &[]), |act| (&act.name, &act.versions))
    }

    pub(crate) fn total(&self, now: Instant) -> Tally {
        self.total_counts().tally(self.rate_per_s, self.span(now))
    }

    pub(crate) fn report(&self, now: Instant) -> Report {
        let ends = self.acts.iter().skip(1).map(|act| act.started).chain([self.ended.unwrap_or(now)]);
        let acts = self.acts.iter().zip(ends).map(|(act, end)| ActReport {
            name: act.name.clone(),
            started_us: self.offset_us(act.started),
            lasted_us: micros(end.saturating_duration_since(act.started)),
            tally: act.counts.tally(self.rate_per_s, end.saturating_duration_since(act.started)),
            versions: act.versions.clone(),
        });
        let total_counts = self.total_counts();
        let total = total_counts.tally(self.rate_per_s, self.span(now));
        Report {
            verdict: Verdict::of(&total, total_counts.on_time, self.marks_ignored),
            started_unix_ms: self.started_unix_ms,
            lasted_us: micros(self.span(now)),
            total,
            acts: acts.collect(),
            connections_opened: self.connections_opened,
            idle_closed: self.idle_closed,
            refused: self.refused,
            stood_still_us: micros(self.stood_still),
            failures: self.failures.clone(),
            failures_dropped: self.failures_dropped,
            marks_ignored: self.marks_ignored,
        }
    }

    fn span(&self, now: Instant) -> Duration {
        self.ended.unwrap_or(now).saturating_duration_since(self.started)
    }

    fn total_counts(&self) -> Counts {
        let mut total = Counts::new();
        for act in &self.acts {
            total.add(&act.counts);
        }
        total
    }

    fn act_at(&mut self, at: Instant) -> &mut Act {
        let place = self.acts.partition_point(|act| act.started <= at).saturating_sub(1);
        &mut self.acts[place]
    }

    fn offset_us(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.started))
    }
}

impl Act {
    fn new(name: String, started: Instant) -> Act {
        Act { name, started, counts: Counts::new(), versions: Vec::new() }
    }

    fn answered(&mut self, version: &str, sent_us: u64, answered_us: u64) {
        let known = self.versions.iter().position(|seen| seen.version == version);
        let full = self.versions.len() > VERSIONS_MAX;
        let place = known.or_else(|| full.then_some(VERSIONS_MAX)).unwrap_or_else(|| {
            let last_place = self.versions.len() == VERSIONS_MAX;
            self.versions.push(VersionSeen {
                version: if last_place { OTHER_VERSIONS.to_owned() } else { version.to_owned() },
                answers: 0,
                first_sent_us: sent_us,
                last_sent_us: sent_us,
                first_answered_us: answered_us,
                last_answered_us: answered_us,
            });
            self.versions.len() - 1
        });
        let seen = &mut self.versions[place];
        seen.answers += 1;
        seen.first_sent_us = seen.first_sent_us.min(sent_us);
        seen.last_sent_us = seen.last_sent_us.max(sent_us);
        seen.first_answered_us = seen.first_answered_us.min(answered_us);
        seen.last_answered_us = seen.last_answered_us.max(answered_us);
    }
}

impl Counts {
    fn new() -> Counts {
        let histogram = || {
            let mut histogram = Histogram::new(3).expect("3 is a precision that the histogram supports");
            histogram.auto(true);
            histogram
        };
        Counts {
            kinds: Kind::ALL.map(KindReport::new),
            failed_by: BTreeMap::new(),
            on_time: 0,
            latency: histogram(),
            service: histogram(),
            start_lag: histogram(),
        }
    }

    fn add(&mut self, other: &Counts) {
        for (kind, of_other) in self.kinds.iter_mut().zip(&other.kinds) {
            kind.planned += of_other.planned;
            kind.completed += of_other.completed;
            kind.failed += of_other.failed;
            add_classes(&mut kind.failed_by, &of_other.failed_by);
        }
        add_classes(&mut self.failed_by, &other.failed_by);
        self.on_time += other.on_time;
        for (into, from) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.start_lag, &other.start_lag),
        ] {
            into.add(from).expect("both histograms resize, so every value fits");
        }
    }

    fn tally(&self, rate_per_s: f64, span: Duration) -> Tally {
        let sum = |of: fn(&KindReport) -> u64| self.kinds.iter().map(of).sum::<u64>();
        let planned = sum(|kind| kind.planned);
        // The schedule itself is exact; only the share of it that was kept can fall short.
        let share = if planned == 0 { 0.0 } else { self.on_time as f64 / planned as f64 };
        let offered = if span.is_zero() { 0.0 } else { rate_per_s };
        Tally {
            planned,
            completed: sum(|kind| kind.completed),
            failed: sum(|kind| kind.failed),
            failed_by: self.failed_by.clone(),
            target_per_s: rate_per_s,
            achieved_per_s: offered * share,
            latency: Spread::of(&self.latency),
            service: Spread::of(&self.service),
            start_lag: Spread::of(&self.start_lag),
            kinds: self.kinds.iter().filter(|kind| kind.planned > 0).cloned().collect(),
        }
    }
}

fn add_classes(into: &mut BTreeMap<FailureClass, u64>, from: &BTreeMap<FailureClass, u64>) {
    for (class, count) in from {
        *into.entry(*class).or_default() += count;
    }
}

fn put(histogram: &mut Histogram<u32>, duration: Duration) {
    histogram
        .record(micros(duration.min(DURATION_MAX)))
        .expect("the histogram grows, and its memory is bounded by DURATION_MAX");
}

/// A version header's value as it is shown.
pub(crate) fn version_label(value: &str) -> &str {
    value.char_indices().nth(VERSION_CHARS_MAX).map_or(value, |(end, _)| &value[..end])
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(at: Instant) -> Planned {
        Planned { kind: Kind::FreshGet, path: "/".into(), id: "x-1".into(), at }
    }

    #[test]
    fn a_request_belongs_to_the_act_in_which_it_was_planned() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut record = Record::new(1.0, start);
        record.planned(&planned(at(5)));
        record.mark("second", at(10));
        record.planned(&planned(at(10)));
        record.completed(&planned(at(5)), at(5), at(30));
        record.failed(&planned(at(10)), at(40), Cause::NotSent, b"", at(40));
        let report = record.report(at(50));
        let counted: Vec<_> = report
            .acts
            .iter()
            .map(|act| (act.name.as_str(), act.tally.completed, act.tally.failed, act.lasted_us))
            .collect();
        assert_eq!(counted, [("start", 1, 0, 10_000), ("second", 0, 1, 40_000)]);
        assert_eq!(report.total.latency.max_us, 25_007, "25 ms, to three digits");
    }

    #[test]
    fn failures_are_bounded_but_all_counted() {
        let start = Instant::now();
        let mut record = Record::new(1.0, start);
        for _ in 0..FAILURES_MAX + 7 {
            record.planned(&planned(start));
            record.failed(&planned(start), start, Cause::NotSent, &[b'a'; 9000], start);
        }
        let report = record.report(start);
        assert_eq!(report.failures.len(), FAILURES_MAX);
        assert_eq!(report.failures_dropped, 7);
        assert_eq!(report.total.failed, FAILURES_MAX as u64 + 7);
        assert_eq!(report.failures[0].response_head.as_ref().map(String::len), Some(RESPONSE_HEAD_BYTES_MAX));
    }

    #[test]
    fn a_failure_says_for_how_long_the_client_stood_still() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut record = Record::new(1.0, start);
        for (due, now) in [(0, 500), (900, 1000), (1100, 1600), (5000, 7000)] {
            record.woke(at(due), at(now));
        }
        for (from, to) in [(200, 1200), (0, 6000), (2000, 4000)] {
            record.planned(&planned(at(from)));
            record.failed(&planned(at(from)), at(from), Cause::NotSent, b"", at(to));
        }
        let report = record.report(at(8000));
        let stood: Vec<u64> = report.failures.iter().map(|failure| failure.stood_still_us / 1000).collect();
        assert_eq!(stood, [400, 2000, 0], "a tenth of a second late is none");
        assert_eq!(report.stood_still_us, 3_000_000);
        let idle: Vec<bool> = report.failures.iter().map(Failure::is_of_this_machine).collect();
        assert_eq!(idle, [false, true, false]);
    }

    #[test]
    fn acts_are_bounded_and_the_verdict_says_so() {
        let start = Instant::now();
        let mut record = Record::new(1.0, start);
        for _ in 0..ACTS_MAX + 1 {
            record.mark("again", start);
        }
        let report = record.report(start);
        assert_eq!((report.acts.len(), report.marks_ignored), (ACTS_MAX, 2));
        assert!(report.verdict.reasons.iter().any(|reason| reason.starts_with("2 marks")));
    }

    #[test]
    fn versions_are_bounded() {
        let mut act = Act::new("a".into(), Instant::now());
        for n in 0..VERSIONS_MAX as u64 + 10 {
            act.answered(&format!("v{n}"), n, n);
        }
        assert_eq!(act.versions.len(), VERSIONS_MAX + 1);
        assert_eq!(act.versions[VERSIONS_MAX].version, OTHER_VERSIONS);
        assert_eq!(act.versions[VERSIONS_MAX].answers, 10);
    }

    #[test]
    fn answers_that_arrive_out_of_order_keep_first_and_last() {
        let mut act = Act::new("a".into(), Instant::now());
        act.answered("v1", 50, 60);
        act.answered("v1", 10, 90);
        let seen = &act.versions[0];
        assert_eq!((seen.first_sent_us, seen.last_sent_us), (10, 50));
        assert_eq!((seen.first_answered_us, seen.last_answered_us), (60, 90));
    }

    #[test]
    fn long_version_labels_are_cut_between_characters() {
        assert_eq!(version_label("v1"), "v1");
        assert_eq!(version_label(&"ü".repeat(150)).chars().count(), VERSION_CHARS_MAX);
    }
}
