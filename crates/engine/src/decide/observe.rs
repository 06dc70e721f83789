//! Readings: the proxy's counters, the answers of gates' sources, alerts. What does not concern the rollout under way is
//! ignored, so that the record holds evidence and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Decider;
use crate::event::Fact;
use crate::evidence::Number;
use crate::id::{RolloutNumber, ServiceName};
use crate::observation::{Observation, Reading};
use crate::refusal::Refusal;
use crate::time::Timestamp;
use crate::verdict::{BASELINE_REQUESTS_MIN, quantile_bound_ms};

/// A reading in which nothing is new goes on the record only after this: it says that time has passed, no more.
const SAME_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Critical alerts that are known to fire at once. More than these say nothing more.
const ALERTS_MAX: usize = 100;

/// What is slow for stable, as a share of its answers.
const SLOW_SHARE: f64 = 0.99;

/// Words of a source on the record, at most. A page of HTML is no reason.
const WHY_LEN_MAX: usize = 300;

impl Decider {
    pub(super) fn observe(&mut self, observation: &Observation) -> Result<(), Refusal> {
        let Some(rollout) = self.env.rollout.clone().filter(|rollout| self.env.is_judged(rollout)) else {
            self.ignore("no rollout is judged now");
            return Ok(());
        };
        let Some(trial) = &self.env.trial else { return Ok(()) };
        let releases = [Some(rollout.to), rollout.from];
        let mut services = BTreeMap::new();
        for (service, arms) in &observation.services {
            if !self.env.takes(rollout.to, service) {
                continue;
            }
            let own = arms.iter().filter(|(release, _)| releases.contains(&Some(**release)));
            let own: BTreeMap<_, _> = own.map(|(release, counted)| (*release, counted.bounded())).collect();
            services.insert(service.clone(), own);
        }
        let is_known = trial.source == Some(observation.source)
            && services.iter().all(|(service, read)| {
                let nothing = crate::trial::Arms::default();
                let known = trial.arms.get(service).unwrap_or(&nothing);
                read.get(&rollout.to).is_none_or(|read| *read == known.new.raw)
                    && rollout
                        .from
                        .and_then(|from| read.get(&from))
                        .is_none_or(|read| *read == known.stable.raw)
            });
        let is_soon =
            trial.looked_at.is_some_and(|at| at <= self.now && self.now.since(at) < SAME_AGAIN_AFTER);
        if is_known && is_soon {
            self.ignore("the reading says nothing new");
            return Ok(());
        }
        self.emit(Fact::Observed { observation: Observation { source: observation.source, services } })?;
        self.freeze_baselines()
    }

    /// What counts as slow is settled once, before the new version could have a say in it.
    fn freeze_baselines(&mut self) -> Result<(), Refusal> {
        let Some(trial) = &self.env.trial else { return Ok(()) };
        let due: Vec<(ServiceName, u64, u64)> = trial
            .arms
            .iter()
            .filter(|(_, arms)| {
                arms.slow_above_ms.is_none() && arms.stable.raw.requests >= BASELINE_REQUESTS_MIN
            })
            .filter_map(|(service, arms)| {
                let counted = &arms.stable.raw;
                Some((service.clone(), quantile_bound_ms(SLOW_SHARE, &counted.latency)?, counted.requests))
            })
            .collect();
        for (service, slow_above_ms, requests) in due {
            self.follow(Fact::BaselineFrozen { service, slow_above_ms, requests })?;
        }
        Ok(())
    }

    pub(super) fn measured(
        &mut self,
        rollout: RolloutNumber,
        gate: u32,
        due: Timestamp,
        reading: &Reading,
    ) -> Result<(), Refusal> {
        let is_same = self.env.rollout.as_ref().is_some_and(|active| active.number == rollout);
        if !is_same || !self.env.gates_due().iter().any(|open| open.gate == gate && open.due == due) {
            self.ignore(format!("gate {gate} of rollout {rollout} is not asked that now"));
            return Ok(());
        }
        self.emit(Fact::Measured { gate, reading: finite(reading) })
    }

    pub(super) fn alert(
        &mut self,
        alert: &str,
        critical: bool,
        firing: bool,
        why: &str,
    ) -> Result<(), Refusal> {
        let is_known = self.env.alerts.contains_key(alert);
        // One that was critical when it began also ends, whatever it is by then.
        if (firing && !critical) || firing == is_known {
            self.ignore(format!("alert {alert} changes nothing"));
            return Ok(());
        }
        if firing && self.env.alerts.len() >= ALERTS_MAX {
            self.ignore(format!("{ALERTS_MAX} critical alerts fire already"));
            return Ok(());
        }
        self.emit(Fact::AlertChanged { alert: cut(alert), firing, why: cut(why) })
    }
}

/// What cannot be compared is no value; what is beyond all bounds stays beyond them.
fn finite(reading: &Reading) -> Reading {
    let number = |number: Number| (!number.0.is_nan()).then(|| Number(number.0.clamp(f64::MIN, f64::MAX)));
    match reading {
        Reading::Value { value, stable } => match number(*value) {
            Some(value) => Reading::Value { value, stable: stable.and_then(number) },
            None => Reading::None { why: "the value is not a number".to_owned() },
        },
        Reading::None { why } => Reading::None { why: cut(why) },
    }
}

fn cut(text: &str) -> String {
    text.chars().take(WHY_LEN_MAX).collect()
}
