//! Gates with a bound: on the proxy's counters of a step or bake, or on what a source elsewhere says.

use std::time::Duration;

use super::judge::{Footing, Period, crossed};
use super::view::ask_every;
use super::{Bound, Finding, GateId, Reason, Verdict, quantile_seconds};
use crate::environment::Environment;
use crate::evidence::{Bounds, Check, Gate, NoData, Number};
use crate::id::ServiceName;
use crate::observation::{ArmCounters, Reading};
use crate::rollout::Rollout;
use crate::trial::{Asked, Trial};

/// A source that has had nothing to say for this long has no data. One answer that is lost in between is not that.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// One measure against the bounds of a gate.
struct Held {
    is_crossed: bool,
    /// The bound that is crossed, or the first one that was asked.
    bound: Option<Bound>,
    /// A bound was left out, as stable is no measure now.
    skipped: Option<Reason>,
}

fn hold(bounds: &Bounds, value: Number, stable: Result<Number, Reason>) -> Held {
    let mut asked = Vec::new();
    if let Some(limit) = bounds.max {
        asked.push((value > limit, Bound::Max { limit }));
    }
    if let Some(limit) = bounds.min {
        asked.push((value < limit, Bound::Min { limit }));
    }
    let mut skipped = None;
    if let Some(limit) = bounds.max_vs_stable {
        match stable {
            Ok(stable) => asked.push((value.0 > limit.0 * stable.0, Bound::MaxVsStable { limit })),
            Err(reason) => skipped = Some(reason),
        }
    }
    let crossed = asked.iter().find(|(is_crossed, _)| *is_crossed);
    Held { is_crossed: crossed.is_some(), bound: crossed.or(asked.first()).map(|(_, bound)| *bound), skipped }
}

impl Environment {
    pub(super) fn gate_finding(
        &self,
        rollout: &Rollout,
        trial: &Trial,
        period: Period,
        index: u32,
        gate: &Gate,
    ) -> Finding {
        let finding = Finding {
            gate: GateId::Gate { index },
            name: gate.name.clone(),
            verdict: Verdict::Waiting { reason: Reason::NotMeasuredYet },
            service: None,
            value: None,
            bound: gate.bounds.first(),
            stable: None,
            samples: 0,
            needed: gate.min_requests,
            counts: None,
            detectable_ratio: None,
            next_look: None,
        };
        match ask_every(&gate.check) {
            None => self.counted_gate(rollout, trial, period, gate, finding),
            Some(every) => self.asked_gate(rollout, trial, gate, every, finding),
        }
    }

    /// On the proxy's counters: the worst of the services that have enough requests.
    fn counted_gate(
        &self,
        rollout: &Rollout,
        trial: &Trial,
        period: Period,
        gate: &Gate,
        mut finding: Finding,
    ) -> Finding {
        match period {
            Period::Step { weight: 0 } => {
                finding.verdict = Verdict::Skipped { reason: Reason::NoTraffic };
                return finding;
            }
            Period::Step { .. } | Period::Bake => {}
        }
        let Some(at) = trial.looked_at else { return finding };
        let need = gate.min_requests.max(1);
        finding.needed = need;
        let mut worst: Option<(bool, Number)> = None;
        let mut elsewhere = None;
        for (service, arms) in &trial.arms {
            let new = arms.new.in_period();
            let footing = self.footing(rollout, trial, service);
            // The counts of an outage are about to be forgotten: they say nothing about either version.
            let forgets = trial.comes_out_of_outage(service, footing);
            if new.requests < need || forgets {
                let new = if forgets { ArmCounters::default() } else { new };
                finding.samples =
                    if worst.is_none() { finding.samples.max(new.requests) } else { finding.samples };
                continue;
            }
            let Some(value) = measure(&gate.check, &new) else { continue };
            let stable =
                self.stable_measure(rollout, period, gate, service, footing, &arms.stable.in_period(), need);
            let shown = stable.as_ref().ok().copied();
            let held = hold(&gate.bounds, value, stable);
            if let (Footing::BothFail { new, stable }, true) = (footing, held.is_crossed) {
                let (new, stable) = (Number(new), Number(stable));
                elsewhere = Some(Reason::BothFailing { service: service.clone(), new, stable });
            }
            let rank = (held.is_crossed, value);
            if worst.is_none_or(|worst| rank > worst) {
                worst = Some(rank);
                finding.service = Some(service.clone());
                finding.value = Some(value);
                finding.stable = shown;
                finding.samples = new.requests;
                finding.bound = held.bound.or(finding.bound);
                finding.verdict = match held.skipped {
                    // It was the only bound.
                    Some(reason) if held.bound.is_none() => Verdict::Skipped { reason },
                    Some(_) | None => Verdict::Passing,
                };
            }
        }
        match (worst, elsewhere) {
            (None, _) => {
                let reason = Reason::TooFewRequests { have: finding.samples, need };
                finding.verdict = Verdict::Waiting { reason };
            }
            (Some((true, _)), Some(reason)) => finding.verdict = Verdict::Waiting { reason },
            (Some((true, _)), None) => finding.verdict = crossed(trial, &finding.gate, at, gate.lasts),
            (Some((false, _)), _) => {}
        }
        finding
    }

    #[allow(clippy::too_many_arguments, reason = "one gate at one service; each is looked at once")]
    fn stable_measure(
        &self,
        rollout: &Rollout,
        period: Period,
        gate: &Gate,
        service: &ServiceName,
        footing: Footing,
        stable: &ArmCounters,
        need: u64,
    ) -> Result<Number, Reason> {
        let is_beside = rollout.from.is_some_and(|from| self.takes(from, service))
            && matches!(period, Period::Step { weight: 1..=99 });
        match footing {
            Footing::StableFails { stable } | Footing::BothFail { stable, .. } => {
                Err(Reason::StableUnhealthy { service: service.clone(), stable: Number(stable) })
            }
            Footing::Sound if !is_beside => Err(Reason::NoBaseline),
            Footing::Sound if stable.requests < need => {
                Err(Reason::TooLittleBaseline { have: stable.requests, need })
            }
            // None seen is not a rate of none: the next request may fail.
            Footing::Sound => match &gate.check {
                Check::ErrorRate => Ok(Number(stable.errors.max(1) as f64 / stable.requests as f64)),
                Check::Latency { .. }
                | Check::Query { .. }
                | Check::Command { .. }
                | Check::Webhook { .. } => measure(&gate.check, stable).ok_or(Reason::NoBaseline),
            },
        }
    }

    /// On what a source said.
    fn asked_gate(
        &self,
        rollout: &Rollout,
        trial: &Trial,
        gate: &Gate,
        every: Duration,
        mut finding: Finding,
    ) -> Finding {
        let GateId::Gate { index } = finding.gate else { return finding };
        let have =
            trial.arms.values().fold(0u64, |sum, arms| sum.saturating_add(arms.new.in_period().requests));
        finding.samples = have;
        finding.next_look =
            trial.since.map(|since| trial.asked.get(&index).map_or(since, |asked| asked.at + every));
        let Some(asked) = trial.asked.get(&index) else { return finding };
        let (value, stable) = match &asked.reading {
            Reading::None { why } => {
                finding.verdict = gone(asked, why, gate.no_data);
                if finding.verdict == Verdict::Failing {
                    finding.name = format!("{}: no data: {why}", finding.name);
                }
                return finding;
            }
            Reading::Value { value, stable } => (*value, *stable),
        };
        finding.value = Some(value);
        finding.stable = stable;
        let unhealthy =
            self.compared_services(rollout).find_map(|service| match self.footing(rollout, trial, service) {
                Footing::Sound => None,
                Footing::StableFails { stable } | Footing::BothFail { stable, .. } => {
                    Some(Reason::StableUnhealthy { service: service.clone(), stable: Number(stable) })
                }
            });
        let stable = match (unhealthy, stable) {
            (Some(reason), _) => Err(reason),
            (None, Some(stable)) => Ok(stable),
            (None, None) => Err(Reason::NoBaseline),
        };
        let held = hold(&gate.bounds, value, stable);
        let has_failed = match gate.check {
            Check::Command { .. } => value.0 != 0.0,
            Check::Webhook { .. } => !(200.0..300.0).contains(&value.0),
            Check::ErrorRate | Check::Latency { .. } | Check::Query { .. } => false,
        };
        finding.bound = held.bound.or(finding.bound);
        finding.verdict = if has_failed || held.is_crossed {
            crossed(trial, &finding.gate, asked.at, gate.lasts)
        } else if have < gate.min_requests {
            Verdict::Waiting { reason: Reason::TooFewRequests { have, need: gate.min_requests } }
        } else {
            match held.skipped {
                Some(reason) if held.bound.is_none() => Verdict::Skipped { reason },
                Some(_) | None => Verdict::Passing,
            }
        };
        if has_failed {
            finding.bound = Some(Bound::Success);
        }
        finding
    }
}

/// Nothing was said. Once is not for good.
fn gone(asked: &Asked, why: &str, no_data: NoData) -> Verdict {
    let since = asked.gone_since.unwrap_or(asked.at);
    let reason = Reason::SourceGone { since, why: why.to_owned() };
    if asked.at.since(since) < GONE_AFTER {
        return Verdict::Waiting { reason };
    }
    match no_data {
        NoData::Pause => Verdict::NoData { reason },
        NoData::Pass => Verdict::Skipped { reason: Reason::Waived },
        NoData::Fail => Verdict::Failing,
    }
}

/// What a gate measures of one arm; none without requests.
pub(super) fn measure(check: &Check, counted: &ArmCounters) -> Option<Number> {
    match check {
        Check::ErrorRate => counted.error_rate(),
        Check::Latency { percentile } => quantile_seconds(f64::from(*percentile) / 100.0, &counted.latency),
        Check::Query { .. } | Check::Command { .. } | Check::Webhook { .. } => None,
    }
}

impl Bounds {
    pub(super) fn first(&self) -> Option<Bound> {
        self.max
            .map(|limit| Bound::Max { limit })
            .or(self.min.map(|limit| Bound::Min { limit }))
            .or(self.max_vs_stable.map(|limit| Bound::MaxVsStable { limit }))
    }
}
