//! Which tests speak now, and what each of them finds.

use super::sequential;
use super::{ArmCount, BadEvent, Bound, Finding, GateId, Reason, TestCounts, Verdict};
use crate::environment::Environment;
use crate::evidence::{Evidence, Gate, Number, Sequential, Trigger};
use crate::id::ServiceName;
use crate::observation::ArmCounters;
use crate::rollout::{Phase, Rollout, RolloutKind, StepState};
use crate::strategy::Strategy;
use crate::time::Timestamp;
use crate::trial::{Arms, Trial};

/// Stable fails when this share of its answers does, ...
const UNHEALTHY_RATE: f64 = 0.05;
/// ... in at least this many requests: one error in a handful is no outage.
const UNHEALTHY_REQUESTS_MIN: u64 = 20;
/// While stable fails, the new version still is the worse one when its rate is this many times stable's. What breaks
/// both (their database) breaks them alike; a stable that always fails a little must not shield a new version that
/// always fails.
const PLAINLY_WORSE: f64 = 4.0;

/// Requests of stable that say what its p99 is: of a hundred, one is slower.
pub(crate) const BASELINE_REQUESTS_MIN: u64 = 100;

/// What the gates look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    /// A step whose traffic has arrived; with its weight.
    Step {
        weight: u32,
    },
    Bake,
}

/// Whether a comparison with stable says anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Footing {
    Sound,
    /// Stable fails, the new version does not.
    StableFails {
        stable: f64,
    },
    BothFail {
        new: f64,
        stable: f64,
    },
}

impl Environment {
    /// Is evidence gathered about this rollout now? A rollback brings back what has served before.
    pub(crate) fn is_judged(&self, rollout: &Rollout) -> bool {
        let is_watched = match rollout.phase {
            Phase::Shifting { .. } | Phase::Baking { .. } => true,
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => false,
        };
        is_watched && rollout.kind == RolloutKind::Deploy
    }

    /// The step or bake that gates look at; none while traffic is still on its way.
    pub(crate) fn period(&self, rollout: &Rollout) -> Option<Period> {
        if !self.is_judged(rollout) {
            return None;
        }
        match rollout.phase {
            Phase::Shifting { state: StepState::Holding { .. } | StepState::AwaitingPromotion, .. } => {
                Some(Period::Step { weight: rollout.weight() })
            }
            Phase::Baking { .. } => Some(Period::Bake),
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { state: StepState::Raising, .. }
            | Phase::Committing
            | Phase::Aborting { .. } => None,
        }
    }

    pub(crate) fn evidence_of(&self, rollout: &Rollout) -> Option<&Evidence> {
        self.release(rollout.to).map(|release| &release.spec.deploy.evidence)
    }

    /// Does a step of this weight have to show anything before it may end?
    pub(crate) fn has_to_show(&self, rollout: &Rollout, weight: u32) -> bool {
        let Some(evidence) = self.evidence_of(rollout) else { return false };
        let compares = evidence.sequential.is_some() && self.compares(rollout);
        weight > 0 && weight < 100 && (compares || !evidence.gates.is_empty())
    }

    /// Does some service answer in both versions, side by side?
    fn compares(&self, rollout: &Rollout) -> bool {
        self.compared_services(rollout).next().is_some()
    }

    /// Services that both versions have, by what takes requests.
    pub(crate) fn compared_services<'a>(
        &'a self,
        rollout: &'a Rollout,
    ) -> impl Iterator<Item = &'a ServiceName> {
        let services = self.release(rollout.to).into_iter().flat_map(|release| release.spec.services.keys());
        services.filter(move |service| {
            self.takes(rollout.to, service)
                && rollout.from.is_some_and(|from| self.takes(from, service))
                && match rollout.strategy {
                    Strategy::Canary { .. } => true,
                    Strategy::Rolling { .. } | Strategy::BlueGreen { .. } => false,
                }
        })
    }

    /// Every test with what it says now.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let (Some(rollout), Some(trial)) = (&self.rollout, &self.trial) else { return Vec::new() };
        let Some(evidence) = self.evidence_of(rollout).filter(|_| self.is_judged(rollout)) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        if let Some(settings) = &evidence.sequential {
            let services: Vec<&ServiceName> = self.compared_services(rollout).collect();
            for service in &services {
                for event in [BadEvent::Error, BadEvent::Slow] {
                    findings.push(self.sequential(rollout, trial, settings, service, event, services.len()));
                }
                // What hardly ever happens is shown where it happens.
                let was_unreached = trial.arms.get(*service).is_some_and(Arms::was_unreached);
                if was_unreached {
                    let event = BadEvent::Unreached;
                    findings.push(self.sequential(rollout, trial, settings, service, event, services.len()));
                }
                findings.extend(self.silence(rollout, trial, service));
            }
        }
        if let Some(period) = self.period(rollout) {
            for (index, gate) in (0u32..).zip(&evidence.gates) {
                findings.push(self.gate(rollout, trial, period, index, gate));
            }
        }
        // From the first public request on, whatever the strategy.
        if rollout.has_shifted() {
            for (index, trigger) in (0u32..).zip(&evidence.triggers) {
                findings.push(self.trigger(rollout, trial, index, trigger));
            }
        }
        findings
    }

    fn sequential(
        &self,
        rollout: &Rollout,
        trial: &Trial,
        settings: &Sequential,
        service: &ServiceName,
        event: BadEvent,
        services: usize,
    ) -> Finding {
        let empty = Arms::default();
        let arms = trial.arms.get(service).unwrap_or(&empty);
        let outcome =
            sequential::test(arms, event, settings.margin.0, settings.alpha.0, services, arms.all_failed());
        // The step asks for requests of the new version as a whole: services that are asked for rarely do not hold it up.
        let have = trial.arms.values().fold(0u64, |sum, arms| {
            sum.saturating_add(arms.new.total.requests.saturating_sub(arms.new.base.requests))
        });
        let need = settings.min_requests;
        let period = self.period(rollout);
        let frozen = arms.slow_above_ms;
        let footing = self.footing(rollout, trial, service);
        let verdict = match (footing, event, period) {
            (Footing::BothFail { new, stable }, ..) => {
                let (new, stable) = (Number(new), Number(stable));
                Verdict::Waiting { reason: Reason::BothFailing { service: service.clone(), new, stable } }
            }
            (Footing::StableFails { stable }, ..) => {
                let stable = Number(stable);
                // What the new version still has to show is that it answers at all.
                if have < need && matches!(period, Some(Period::Step { weight: 1..=99 })) {
                    Verdict::Waiting { reason: Reason::TooFewRequests { have, need } }
                } else {
                    Verdict::Skipped { reason: Reason::StableUnhealthy { service: service.clone(), stable } }
                }
            }
            // What was counted around the outage is about to be forgotten.
            _ if trial.comes_out_of_outage(service, footing) => {
                Verdict::Waiting { reason: Reason::TooFewRequests { have: 0, need } }
            }
            (_, _, Some(Period::Bake | Period::Step { weight: 100.. })) => {
                Verdict::Skipped { reason: Reason::NoBaseline }
            }
            (_, _, Some(Period::Step { weight: 0 })) => Verdict::Skipped { reason: Reason::NoTraffic },
            _ if outcome.rejects() => Verdict::Failing,
            (_, BadEvent::Slow, _) if frozen.is_none() => {
                let have = arms.stable.raw.requests;
                Verdict::Skipped { reason: Reason::TooLittleBaseline { have, need: BASELINE_REQUESTS_MIN } }
            }
            (_, _, None) => Verdict::Waiting { reason: Reason::NotMeasuredYet },
            (_, _, Some(Period::Step { .. })) if have < need => {
                Verdict::Waiting { reason: Reason::TooFewRequests { have, need } }
            }
            (_, _, Some(Period::Step { .. })) if arms.new.in_period().requests == 0 => {
                Verdict::Skipped { reason: Reason::Unasked }
            }
            (_, _, Some(Period::Step { .. })) => Verdict::Passing,
        };
        let gate = GateId::Sequential { service: service.clone(), event };
        let verdict = trial.without(&gate, verdict);
        let (new, stable) = arms.counted(event);
        Finding {
            gate,
            name: format!("{} of {service}", event.name()),
            verdict,
            service: Some(service.clone()),
            value: Some(Number(outcome.e)),
            bound: Some(Bound::Evidence { limit: Number(outcome.threshold) }),
            stable: None,
            samples: have,
            needed: need,
            counts: Some(TestCounts {
                event,
                new,
                stable,
                weight: trial.weight,
                share: Number(outcome.share),
                q0: Number(outcome.q0),
                slow_above_ms: frozen.filter(|_| event == BadEvent::Slow),
            }),
            detectable_ratio: None,
            next_look: None,
        }
    }

    /// Adds what takes a search, for whoever reads it.
    pub(crate) fn with_detectable(&self, mut finding: Finding) -> Finding {
        let (GateId::Sequential { service, event }, Some(trial), Some(bound)) =
            (&finding.gate, &self.trial, finding.bound.and_then(|bound| bound.limit()))
        else {
            return finding;
        };
        match event {
            BadEvent::Error | BadEvent::Slow => {}
            // These are found or not.
            BadEvent::Unreached | BadEvent::Silence => return finding,
        }
        let margin = self
            .rollout
            .as_ref()
            .and_then(|rollout| self.evidence_of(rollout))
            .and_then(|evidence| evidence.sequential.as_ref())
            .map_or(1.0, |settings| settings.margin.0);
        finding.detectable_ratio = trial
            .arms
            .get(service)
            .and_then(|arms| sequential::detectable_ratio(arms, *event, margin, bound.0))
            .map(Number);
        finding
    }

    /// How the two sides of `service` fare just now.
    pub(crate) fn footing(&self, rollout: &Rollout, trial: &Trial, service: &ServiceName) -> Footing {
        let is_beside = matches!(rollout.phase, Phase::Shifting { .. })
            && rollout.from.is_some_and(|from| self.takes(from, service));
        let Some(arms) = trial.arms.get(service).filter(|_| is_beside) else { return Footing::Sound };
        let (new, stable) = trial.recent(service, |_, stable| stable.requests >= UNHEALTHY_REQUESTS_MIN);
        let (Some(stable_rate), true) =
            (stable.error_rate().map(|rate| rate.0), stable.requests >= UNHEALTHY_REQUESTS_MIN)
        else {
            return Footing::Sound;
        };
        if stable_rate < UNHEALTHY_RATE {
            return Footing::Sound;
        }
        // Few requests come to the new version: where the last half minute has none, the step as a whole tells.
        let new = if new.requests == 0 { arms.new.in_period() } else { new };
        match new.error_rate().map(|rate| rate.0) {
            Some(new) if new >= UNHEALTHY_RATE && new >= stable_rate * PLAINLY_WORSE => Footing::Sound,
            Some(new) if new >= UNHEALTHY_RATE => Footing::BothFail { new, stable: stable_rate },
            Some(_) | None => Footing::StableFails { stable: stable_rate },
        }
    }

    fn gate(&self, rollout: &Rollout, trial: &Trial, period: Period, index: u32, gate: &Gate) -> Finding {
        let mut finding = self.gate_finding(rollout, trial, period, index, gate);
        finding.verdict = trial.without(&finding.gate, finding.verdict);
        finding
    }

    fn trigger(&self, rollout: &Rollout, trial: &Trial, index: u32, trigger: &Trigger) -> Finding {
        super::trigger::find(self, rollout, trial, index, trigger)
    }
}

impl Trial {
    pub(crate) fn is_waived(&self, gate: &GateId) -> bool {
        self.waived.contains(gate)
    }

    /// A gate that has nothing to go by is left out where somebody said so: the release until the step is over, a
    /// person for this rollout.
    pub(crate) fn without(&self, gate: &GateId, verdict: Verdict) -> Verdict {
        if !verdict.lacks_data() {
            return verdict;
        }
        if self.is_waived(gate) {
            return Verdict::Skipped { reason: Reason::Waived };
        }
        if self.decided.contains(gate) { Verdict::Skipped { reason: Reason::Decided } } else { verdict }
    }

    /// The verdict that was last put on the record.
    pub(crate) fn recorded(&self, gate: &GateId) -> Option<&Verdict> {
        self.verdicts.iter().find(|recorded| recorded.gate == *gate).map(|recorded| &recorded.verdict)
    }

    /// Since when a bound has been crossed, according to the record.
    pub(crate) fn crossed_since(&self, gate: &GateId) -> Option<Timestamp> {
        match self.recorded(gate)? {
            Verdict::Waiting { reason: Reason::Crossed { since, .. } } => Some(*since),
            Verdict::Passing
            | Verdict::Failing
            | Verdict::Waiting { .. }
            | Verdict::NoData { .. }
            | Verdict::Skipped { .. } => None,
        }
    }
}

/// A bound that is crossed fails when it has been for long enough; `at` is when it was looked at.
pub(super) fn crossed(trial: &Trial, gate: &GateId, at: Timestamp, lasts: std::time::Duration) -> Verdict {
    // Once it has failed it fails for as long as it is crossed: a person who is asked is asked once.
    if trial.recorded(gate) == Some(&Verdict::Failing) {
        return Verdict::Failing;
    }
    // A clock that stepped back does not make it last longer than it has.
    let since = trial.crossed_since(gate).filter(|since| *since <= at).unwrap_or(at);
    if at.since(since) >= lasts {
        Verdict::Failing
    } else {
        Verdict::Waiting { reason: Reason::Crossed { since, lasts } }
    }
}

impl Arms {
    /// Every answer of the new version in this step was bad.
    fn all_failed(&self) -> bool {
        let counted = self.new.in_period();
        counted.requests > 0 && counted.errors >= counted.requests
    }

    /// Some attempt got no connection to the new version, at a weight that compares.
    fn was_unreached(&self) -> bool {
        self.segments.iter().any(|segment| segment.weight < 100 && segment.new.unreached > 0)
    }

    fn counted(&self, event: BadEvent) -> (ArmCount, ArmCount) {
        let mut sums = (ArmCount::default(), ArmCount::default());
        for segment in self.segments.iter().filter(|segment| segment.weight > 0 && segment.weight < 100) {
            for (sum, count) in [(&mut sums.0, &segment.new), (&mut sums.1, &segment.stable)] {
                let (requests, bad, bursts) = match event {
                    BadEvent::Error => (count.requests, count.errors, count.bursts),
                    BadEvent::Slow => (count.timed, count.slow, count.slow),
                    BadEvent::Unreached => (count.requests, count.unreached, count.unreached),
                    BadEvent::Silence => (count.requests, 0, 0),
                };
                sum.requests = sum.requests.saturating_add(requests);
                sum.bad = sum.bad.saturating_add(bad);
                sum.bursts = sum.bursts.saturating_add(bursts);
            }
        }
        sums
    }
}

impl ArmCounters {
    #[must_use]
    pub fn error_rate(&self) -> Option<Number> {
        (self.requests > 0).then(|| Number(self.errors as f64 / self.requests as f64))
    }
}
