//! What status, watch and the UI show of the evidence: one truth for all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::judge::Period;
use super::{Finding, quantile_seconds};
use crate::environment::Environment;
use crate::evidence::{Check, Number};
use crate::id::{ReleaseNumber, ServiceName};
use crate::observation::ArmCounters;
use crate::rollout::{Phase, Rollout};
use crate::time::Timestamp;

/// How often the sources of gates are asked. A query is cheap and its answer moves a rollout; a command or a webhook is
/// somebody's program.
const QUERY_EVERY: Duration = Duration::from_secs(5);
const PROGRAM_EVERY: Duration = Duration::from_secs(15);

/// A gate whose source wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateDue<'a> {
    /// To be given back with the answer.
    pub gate: u32,
    pub name: &'a str,
    pub check: &'a Check,
    /// Wants `max_vs_stable`, so the answer should say the same of stable.
    pub compares: bool,
    pub due: Timestamp,
}

/// One side of a service in the present step or bake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmReport {
    pub release: ReleaseNumber,
    pub requests: u64,
    pub errors: u64,
    /// 0 to 1; none without requests.
    pub error_rate: Option<Number>,
    /// Seconds.
    pub p50: Option<Number>,
    pub p95: Option<Number>,
    pub p99: Option<Number>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceView {
    /// Of the ladder, from 0; none in the bake and with strategies without one.
    pub step: Option<u32>,
    pub steps: u32,
    /// Percent that the new version is set to get.
    pub weight: u32,
    /// Share (0 to 1) of the requests that it got in this step, over the services that both versions have.
    pub share: Option<Number>,
    /// When the hold or the bake is over, or what it is prolonged to for want of evidence.
    pub until: Option<Timestamp>,
    pub mirror: u32,
    pub experiment: Option<String>,
    /// When the proxy's counters were last read.
    pub looked_at: Option<Timestamp>,
    pub gates: Vec<Finding>,
    /// New and stable, per service.
    pub arms: BTreeMap<ServiceName, Vec<ArmReport>>,
}

impl ArmReport {
    #[must_use]
    pub(crate) fn of(release: ReleaseNumber, counted: &ArmCounters) -> Self {
        Self {
            release,
            requests: counted.requests,
            errors: counted.errors,
            error_rate: counted.error_rate(),
            p50: quantile_seconds(0.50, &counted.latency),
            p95: quantile_seconds(0.95, &counted.latency),
            p99: quantile_seconds(0.99, &counted.latency),
        }
    }
}

impl Environment {
    /// How the evidence of the active rollout stands; none where none is gathered.
    #[must_use]
    pub fn evidence(&self) -> Option<EvidenceView> {
        let rollout = self.rollout.as_ref().filter(|rollout| self.is_judged(rollout))?;
        let trial = self.trial.as_ref()?;
        let step = match rollout.phase {
            Phase::Shifting { step, .. } if !rollout.is_rolling() => Some(step),
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => None,
        };
        let rung = step.and_then(|step| rollout.rung(step));
        let arms = self.arm_reports(rollout);
        let (new, all) = arms.values().filter(|sides| sides.len() == 2).fold((0, 0), |(new, all), sides| {
            (new + sides[0].requests, all + sides[0].requests + sides[1].requests)
        });
        let gates = self.findings().into_iter().map(|finding| self.with_detectable(finding)).collect();
        Some(EvidenceView {
            step,
            steps: rollout.rungs(),
            weight: rollout.weight(),
            share: (all > 0).then(|| Number(new as f64 / all as f64)),
            until: trial.held.as_ref().map(|held| held.until).or_else(|| rollout.phase.until()),
            mirror: rung.as_ref().map_or(0, |rung| rung.mirror),
            experiment: rung.and_then(|rung| rung.experiment),
            looked_at: trial.looked_at,
            gates,
            arms,
        })
    }

    /// New and stable since the step or bake began, per service.
    pub(crate) fn arm_reports(&self, rollout: &Rollout) -> BTreeMap<ServiceName, Vec<ArmReport>> {
        let Some(trial) = &self.trial else { return BTreeMap::new() };
        let of_service = |(service, arms): (&ServiceName, &crate::trial::Arms)| {
            let mut sides = vec![ArmReport::of(rollout.to, &arms.new.in_period())];
            sides.extend(
                rollout
                    .from
                    .filter(|from| self.takes(*from, service))
                    .map(|from| ArmReport::of(from, &arms.stable.in_period())),
            );
            (service.clone(), sides)
        };
        trial.arms.iter().map(of_service).collect()
    }

    /// Gates of the running step or bake whose source the server asks, each with the time from which on it is due.
    #[must_use]
    pub fn gates_due(&self) -> Vec<GateDue<'_>> {
        let (Some(rollout), Some(trial)) = (&self.rollout, &self.trial) else { return Vec::new() };
        match self.period(rollout) {
            Some(Period::Step { .. } | Period::Bake) => {}
            None => return Vec::new(),
        }
        let Some(release) = self.release(rollout.to) else { return Vec::new() };
        let gates = (0u32..).zip(&release.spec.deploy.evidence.gates);
        gates
            .filter_map(|(index, gate)| {
                let every = ask_every(&gate.check)?;
                let asked = trial.asked.get(&index).map(|asked| asked.at + every);
                Some(GateDue {
                    gate: index,
                    name: &gate.name,
                    check: &gate.check,
                    compares: gate.bounds.max_vs_stable.is_some(),
                    due: asked.or(trial.since).unwrap_or(rollout.phase_since),
                })
            })
            .collect()
    }
}

/// None for what is reckoned from the proxy's counters.
pub(super) fn ask_every(check: &Check) -> Option<Duration> {
    match check {
        Check::ErrorRate | Check::Latency { .. } => None,
        Check::Query { .. } => Some(QUERY_EVERY),
        Check::Command { .. } | Check::Webhook { .. } => Some(PROGRAM_EVERY),
    }
}
