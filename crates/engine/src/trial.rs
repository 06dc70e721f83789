//! What the proxy and the gates' sources have said since a rollout began: counts only. What they mean is reckoned when
//! something is decided (`verdict`), never when a log is replayed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ReleaseNumber, ServiceName};
use crate::observation::{ArmCounters, LATENCY_BOUNDS_MS, Observation, Reading};
use crate::time::Timestamp;
use crate::verdict::{Finding, Footing, GateId, Reason, Verdict, slower_than};

/// How far apart kept readings are, and how many there are: together they reach back further than the longest default
/// trigger (2 min), at a size that every decision can afford to copy.
const KEEP_EVERY: Duration = Duration::from_secs(5);
const KEPT_MAX: usize = 32;

/// What "now" is for a rate: long enough for a number of requests, short enough to end with what caused it.
const RECENT: Duration = Duration::from_secs(30);

/// Requests that wait before their silence is counted at all: one slow page is no silence.
const SILENT_WAITING_MIN: u64 = 6;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trial {
    /// Which life of the proxy counted last.
    pub source: Option<u64>,
    /// When the last reading came.
    pub looked_at: Option<Timestamp>,
    /// Whether public traffic was ever sent to the new version.
    pub is_shifted: bool,
    /// Critical alerts that fired already when it first was: they are not its doing. Names and no times, as clocks jump.
    pub excused: BTreeSet<String>,
    /// When the step or bake began that gates look at.
    pub since: Option<Timestamp>,
    /// Percent that the sequential test reckons with now.
    pub weight: u32,
    pub arms: BTreeMap<ServiceName, Arms>,
    /// Totals at earlier readings, oldest first.
    pub kept: VecDeque<Arc<Kept>>,
    pub asked: BTreeMap<u32, Asked>,
    pub verdicts: Vec<Recorded>,
    /// The step or bake goes on past its time, for want of evidence.
    pub held: Option<Held>,
    /// Gates that had no data and pass without, until the step is over.
    pub waived: Vec<GateId>,
    /// Gates that had no data when a person said to go on: nobody is asked about them again in this rollout.
    pub decided: BTreeSet<GateId>,
    /// What a person was asked about last.
    pub handed_over: Option<GateId>,
}

/// The two versions of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arms {
    pub new: Arm,
    pub stable: Arm,
    /// Stable's p99 when the rollout began, as a bound of the histogram.
    pub slow_above_ms: Option<u64>,
    /// What the sequential test counts, weight by weight.
    pub segments: Vec<Segment>,
    /// The new version gives no answers, though some are waited for.
    pub silence: Option<Silence>,
}

/// How long nothing has been answered. Every request that was in flight when it began still is, or its client gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// The first reading that had no answer more than the one before, and requests that waited.
    pub since: Timestamp,
    /// Requests that waited, at every reading at least so many.
    pub waiting: u64,
    /// What stable has answered meanwhile.
    pub answered: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// As the proxy said last.
    pub raw: ArmCounters,
    /// Counted since the rollout began.
    pub total: ArmCounters,
    /// `total` when the step or bake began.
    pub base: ArmCounters,
}

/// Bad events at one weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Percent.
    pub weight: u32,
    pub new: SegmentCount,
    pub stable: SegmentCount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentCount {
    pub requests: u64,
    pub errors: u64,
    pub bursts: u64,
    /// Requests since it was known what is slow.
    pub timed: u64,
    pub slow: u64,
    /// Attempts without a connection.
    #[serde(default)]
    pub unreached: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub at: Timestamp,
    /// New and stable.
    pub totals: BTreeMap<ServiceName, (ArmCounters, ArmCounters)>,
}

/// What a gate's source said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub at: Timestamp,
    pub reading: Reading,
    /// Since when it has had nothing to say.
    pub gone_since: Option<Timestamp>,
}

/// The last verdict that was put on the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub gate: GateId,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub until: Timestamp,
    pub finding: Finding,
}

/// Why comparisons stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suspended {
    StableFails,
    BothFail,
}

impl Verdict {
    fn suspends(&self) -> Option<(&ServiceName, Suspended)> {
        match self.reason()? {
            Reason::StableUnhealthy { service, .. } => Some((service, Suspended::StableFails)),
            Reason::BothFailing { service, .. } => Some((service, Suspended::BothFail)),
            Reason::TooFewRequests { .. }
            | Reason::NotMeasuredYet
            | Reason::Crossed { .. }
            | Reason::SourceGone { .. }
            | Reason::NoTraffic
            | Reason::NoBaseline
            | Reason::TooLittleBaseline { .. }
            | Reason::Unasked
            | Reason::Waived
            | Reason::Decided => None,
        }
    }
}

impl Trial {
    /// Takes in a reading. `is_new_to_traffic`: no rollout to `to` was there before, so its counters began at 0.
    pub(crate) fn observe(
        &mut self,
        at: Timestamp,
        observation: &Observation,
        (to, from): (ReleaseNumber, Option<ReleaseNumber>),
        is_new_to_traffic: impl FnOnce() -> bool,
    ) {
        let is_first = self.source.is_none();
        // Readings are most of a log: the rest of them do without the search.
        let is_head_start = is_first && !is_new_to_traffic();
        let is_same_life = self.source == Some(observation.source);
        self.source = Some(observation.source);
        for (service, read) in &observation.services {
            let suspended = self.suspended(service);
            let weight = self.weight;
            if !self.arms.contains_key(service) {
                self.arms.insert(service.clone(), Arms::default());
            }
            let Some(arms) = self.arms.get_mut(service) else { continue };
            let nothing = ArmCounters::default();
            let new = read.get(&to).unwrap_or(&nothing);
            let stable = from.and_then(|from| read.get(&from)).unwrap_or(&nothing);
            // What stable had counted before the rollout is no part of it.
            let new = arms.new.read(new, is_same_life, is_head_start);
            let stable = arms.stable.read(stable, is_same_life, is_first);
            arms.listen(at, is_same_life, &new, &stable);
            match suspended {
                // The first reading has the new version's requests and not those that stable answered meanwhile:
                // a comparison of the two would be lopsided.
                None if is_first => {}
                None => arms.count(weight, &new, &stable),
                // The fault is elsewhere: what happens meanwhile is held against nobody.
                Some(Suspended::BothFail) => {
                    arms.new.base.add(&new);
                    arms.stable.base.add(&stable);
                }
                Some(Suspended::StableFails) => {}
            }
        }
        self.keep(at);
        self.looked_at = Some(at);
    }

    fn keep(&mut self, at: Timestamp) {
        if self.kept.back().is_some_and(|last| last.at > at) {
            // The clock stepped back: what lies in its future would stay in every window until it comes round again.
            self.kept.clear();
        }
        if self.kept.back().is_some_and(|last| at.since(last.at) < KEEP_EVERY) {
            return;
        }
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        let totals = self
            .arms
            .iter()
            .map(|(service, arms)| (service.clone(), (arms.new.total.clone(), arms.stable.total.clone())));
        self.kept.push_back(Arc::new(Kept { at, totals: totals.collect() }));
    }

    /// What both sides counted in the last half minute, or further back until it is enough.
    pub(crate) fn recent(
        &self,
        service: &ServiceName,
        is_enough: impl Fn(&ArmCounters, &ArmCounters) -> bool,
    ) -> (ArmCounters, ArmCounters) {
        let (Some(arms), Some(now)) = (self.arms.get(service), self.looked_at) else {
            return Default::default();
        };
        let mut counted = Default::default();
        for kept in self.kept.iter().rev() {
            let nothing = Default::default();
            let (new, stable) = kept.totals.get(service).unwrap_or(&nothing);
            counted = (arms.new.total.minus(new), arms.stable.total.minus(stable));
            if now.since(kept.at) >= RECENT && is_enough(&counted.0, &counted.1) {
                break;
            }
        }
        counted
    }

    /// Did both versions of `service` fail until just now?
    pub(crate) fn comes_out_of_outage(&self, service: &ServiceName, now: Footing) -> bool {
        let is_over = match now {
            Footing::BothFail { .. } => false,
            Footing::Sound | Footing::StableFails { .. } => true,
        };
        is_over && self.suspended(service) == Some(Suspended::BothFail)
    }

    /// Do comparisons of `service` stand still, according to the record?
    fn suspended(&self, service: &ServiceName) -> Option<Suspended> {
        let said = self.verdicts.iter().filter_map(|recorded| recorded.verdict.suspends());
        said.filter(|(about, _)| *about == service).map(|(_, suspended)| suspended).max()
    }

    /// A step or bake begins: what gates look at starts from here.
    pub(crate) fn begin(&mut self, at: Timestamp, weight: u32) {
        self.since = Some(at);
        self.weight = weight;
        self.asked.clear();
        self.held = None;
        self.waived.clear();
        // Triggers do not care for steps, and what stands still goes on standing still.
        self.verdicts.retain(|recorded| {
            matches!(recorded.gate, GateId::Trigger { .. }) || recorded.verdict.suspends().is_some()
        });
        for arms in self.arms.values_mut() {
            arms.new.base = arms.new.total.clone();
            arms.stable.base = arms.stable.total.clone();
        }
    }

    pub(crate) fn record(&mut self, finding: &Finding) {
        let recorded = self.recorded(&finding.gate).cloned();
        let before = recorded.as_ref().and_then(Verdict::suspends);
        let after = finding.verdict.suspends().map(|(_, suspended)| suspended);
        if let (None, Some((service, _))) = (before, finding.verdict.suspends())
            && let Some(arms) = self.arms.get_mut(service)
        {
            // What stable failed before that was noticed would count for the new version for the rest of the rollout:
            // the comparison begins anew. Each such outage may spend alpha once more; they are rare enough for that.
            arms.segments.clear();
        }
        if let (Some((service, Suspended::BothFail)), None | Some(Suspended::StableFails)) = (before, after)
            && let Some(arms) = self.arms.get_mut(service)
        {
            // What was counted around the outage is held against nobody, and has to be shown anew.
            arms.new.base = arms.new.total.clone();
            arms.stable.base = arms.stable.total.clone();
        }
        self.verdicts.retain(|recorded| recorded.gate != finding.gate);
        self.verdicts.push(Recorded { gate: finding.gate.clone(), verdict: finding.verdict.clone() });
    }

    pub(crate) fn measure(&mut self, at: Timestamp, gate: u32, reading: &Reading) {
        let before = self.asked.get(&gate).and_then(|asked| asked.gone_since);
        let gone_since = match reading {
            Reading::Value { .. } => None,
            Reading::None { .. } => Some(before.filter(|since| *since <= at).unwrap_or(at)),
        };
        self.asked.insert(gate, Asked { at, reading: reading.clone(), gone_since });
    }

    /// A person said "look again": what was missing is waited for anew.
    pub(crate) fn look_again(&mut self, at: Timestamp) {
        self.held = None;
        for asked in self.asked.values_mut() {
            asked.gone_since = asked.gone_since.map(|_| at);
        }
    }
}

impl Arms {
    fn count(&mut self, weight: u32, new: &ArmCounters, stable: &ArmCounters) {
        if self.segments.last().is_none_or(|last| last.weight != weight) {
            // A rung that saw nothing leaves no segment: their number is bounded by the steps of the ladder.
            if self.segments.last().is_some_and(Segment::is_empty) {
                self.segments.pop();
            }
            self.segments.push(Segment { weight, ..Segment::default() });
        }
        let slow_above_ms = self.slow_above_ms;
        if let Some(segment) = self.segments.last_mut() {
            segment.new.add(new, slow_above_ms);
            segment.stable.add(stable, slow_above_ms);
        }
    }
}

impl Arms {
    /// Does the new version still give answers? From sums and one reading of what waits it follows without a clock per
    /// request: where no answer was counted between two readings, what was in flight at the first has waited all the time.
    fn listen(&mut self, at: Timestamp, is_same_life: bool, new: &ArmCounters, stable: &ArmCounters) {
        let waiting = self.new.raw.in_flight;
        // A clock that stepped back makes nobody wait longer than he has.
        let before = self.silence.take().filter(|before| is_same_life && before.since <= at);
        if new.requests > 0 || waiting < SILENT_WAITING_MIN {
            return;
        }
        self.silence = Some(match before {
            None => Silence { since: at, waiting, answered: 0 },
            Some(before) => Silence {
                since: before.since,
                waiting: before.waiting.min(waiting),
                answered: before.answered.saturating_add(stable.requests),
            },
        });
    }
}

impl Segment {
    fn is_empty(&self) -> bool {
        let is_empty = |count: &SegmentCount| count.requests == 0 && count.unreached == 0;
        is_empty(&self.new) && is_empty(&self.stable)
    }
}

impl SegmentCount {
    fn add(&mut self, counted: &ArmCounters, slow_above_ms: Option<u64>) {
        let add = |sum: &mut u64, by: u64| *sum = sum.saturating_add(by);
        add(&mut self.requests, counted.requests);
        add(&mut self.errors, counted.errors);
        add(&mut self.bursts, counted.error_bursts);
        add(&mut self.unreached, counted.unreached);
        if let Some(bound) = slow_above_ms {
            add(&mut self.timed, counted.requests);
            add(&mut self.slow, slower_than(bound, &counted.latency));
        }
    }
}

impl Arm {
    /// Takes in absolute counters and gives what is new in them.
    fn read(&mut self, raw: &ArmCounters, is_same_life: bool, is_start: bool) -> ArmCounters {
        // Another life of the proxy counts from 0; so does one whose counters went backwards without saying so.
        let new = match raw.checked_minus(&self.raw) {
            _ if is_start => ArmCounters::default(),
            Some(new) if is_same_life => new,
            Some(_) | None => raw.clone(),
        };
        self.raw.copy_from(raw);
        self.total.add(&new);
        new
    }

    /// Since the step or bake began.
    pub(crate) fn in_period(&self) -> ArmCounters {
        self.total.minus(&self.base)
    }
}

impl ArmCounters {
    /// None where a counter is smaller than it was.
    fn checked_minus(&self, earlier: &ArmCounters) -> Option<ArmCounters> {
        let buckets = self.latency.len().max(earlier.latency.len());
        let bucket = |counters: &ArmCounters, index| counters.latency.get(index).copied().unwrap_or(0);
        // One allocation of the right size: a collected `Option<Vec>` would grow by and by.
        let mut latency = Vec::with_capacity(buckets);
        for index in 0..buckets {
            latency.push(bucket(self, index).checked_sub(bucket(earlier, index))?);
        }
        Some(ArmCounters {
            requests: self.requests.checked_sub(earlier.requests)?,
            errors: self.errors.checked_sub(earlier.errors)?,
            error_bursts: self.error_bursts.checked_sub(earlier.error_bursts)?,
            latency,
            unreached: self.unreached.checked_sub(earlier.unreached)?,
            // Of what is no sum there is no difference.
            in_flight: 0,
        })
    }

    /// A clone into what is there, buckets and all: a replay takes in hundreds of thousands of readings.
    fn copy_from(&mut self, other: &ArmCounters) {
        let ArmCounters { requests, errors, error_bursts, latency, unreached, in_flight } = other;
        self.latency.clone_from(latency);
        (self.requests, self.errors, self.error_bursts) = (*requests, *errors, *error_bursts);
        (self.unreached, self.in_flight) = (*unreached, *in_flight);
    }

    /// Of sums that only grow.
    fn minus(&self, earlier: &ArmCounters) -> ArmCounters {
        self.checked_minus(earlier).unwrap_or_default()
    }

    fn add(&mut self, more: &ArmCounters) {
        self.requests = self.requests.saturating_add(more.requests);
        self.errors = self.errors.saturating_add(more.errors);
        self.error_bursts = self.error_bursts.saturating_add(more.error_bursts);
        self.unreached = self.unreached.saturating_add(more.unreached);
        if self.latency.len() < more.latency.len() {
            self.latency.resize(more.latency.len(), 0);
        }
        for (sum, by) in self.latency.iter_mut().zip(&more.latency) {
            *sum = sum.saturating_add(*by);
        }
    }

    /// Within what a sound source can say: no more buckets than there are, no more errors than requests.
    pub(crate) fn bounded(&self) -> ArmCounters {
        let buckets = LATENCY_BOUNDS_MS.len() + 1;
        let mut latency: Vec<u64> = self.latency.iter().take(buckets).copied().collect();
        while latency.last() == Some(&0) {
            latency.pop();
        }
        ArmCounters {
            requests: self.requests,
            errors: self.errors.min(self.requests),
            error_bursts: self.error_bursts.min(self.errors).min(self.requests),
            latency,
            unreached: self.unreached,
            in_flight: self.in_flight,
        }
    }
}

#[cfg(test)]
mod tests;
