//! What evidence and scaling cannot be asked for. The configuration is checked with spans long before; this is the last
//! line, and what keeps the arithmetic behind it total.

use super::REPLICAS_MAX;
use crate::evidence::{Autoscale, Bounds, Check, Evidence, Number, Trigger};
use crate::release::ReleaseSpec;
use crate::strategy::Strategy;

/// Gates, or triggers, of one release. Each is looked at with every reading, up to ten times a second.
const GATES_MAX: usize = 20;
/// Metrics and policies of one service.
const SCALE_LIST_MAX: usize = 20;

/// # Errors
/// What is wrong, in words.
pub(super) fn check(spec: &ReleaseSpec) -> Result<(), String> {
    if let Strategy::Canary { steps, .. } = &spec.deploy.strategy
        && let Some(step) = steps.iter().find(|step| step.mirror > 100)
    {
        return Err(format!("a canary step that mirrors {} percent mirrors more than all", step.mirror));
    }
    check_evidence(&spec.deploy.evidence)?;
    for (service, settings) in &spec.services {
        if let Some(autoscale) = &settings.autoscale {
            check_autoscale(autoscale).map_err(|why| format!("the scaling of {service}: {why}"))?;
        }
    }
    Ok(())
}

fn check_evidence(evidence: &Evidence) -> Result<(), String> {
    if evidence.gates.len() > GATES_MAX || evidence.triggers.len() > GATES_MAX {
        return Err(format!("it has more than {GATES_MAX} gates or triggers"));
    }
    if let Some(sequential) = &evidence.sequential {
        let (margin, alpha) = (sequential.margin.0, sequential.alpha.0);
        if !(1.0..=1_000.0).contains(&margin) {
            return Err(format!("a margin of {margin} is not between 1 and 1000"));
        }
        if !(alpha > 0.0 && alpha < 1.0) {
            return Err(format!("an alpha of {alpha} is not between 0 and 1"));
        }
    }
    for gate in &evidence.gates {
        let Bounds { max, min, max_vs_stable } = &gate.bounds;
        if [max, min, max_vs_stable].into_iter().flatten().any(|bound| !bound.0.is_finite()) {
            return Err(format!("gate {} has a bound that is no number", gate.name));
        }
        percentile(match &gate.check {
            Check::Latency { percentile } => Some(*percentile),
            Check::ErrorRate | Check::Query { .. } | Check::Command { .. } | Check::Webhook { .. } => None,
        })?;
    }
    for trigger in &evidence.triggers {
        match trigger {
            Trigger::ErrorRate { above, .. } if !above.0.is_finite() => {
                return Err("a trigger's bound is no number".to_owned());
            }
            Trigger::Latency { percentile: asked, .. } => percentile(Some(*asked))?,
            Trigger::ErrorRate { .. } | Trigger::CriticalAlert => {}
        }
    }
    Ok(())
}

fn percentile(asked: Option<u32>) -> Result<(), String> {
    match asked {
        Some(percentile) if percentile > 100 => Err(format!("there is no p{percentile}")),
        Some(_) | None => Ok(()),
    }
}

fn check_autoscale(autoscale: &Autoscale) -> Result<(), String> {
    let Autoscale { min, max, metrics, tolerance, up, down } = autoscale;
    if *min == 0 || min > max || *max > REPLICAS_MAX {
        return Err(format!("{min} to {max} copies are not within 1 to {REPLICAS_MAX}"));
    }
    let lists = [metrics.len(), up.policies.len(), down.policies.len()];
    if lists.into_iter().any(|len| len > SCALE_LIST_MAX) {
        return Err(format!("it has more than {SCALE_LIST_MAX} metrics or policies"));
    }
    let is_target = |target: Number| target.0.is_finite() && target.0 > 0.0;
    if let Some(metric) = metrics.iter().find(|metric| !is_target(metric.target)) {
        return Err(format!("a target of {} cannot be reached", metric.target));
    }
    if !(0.0..10.0).contains(&tolerance.0) {
        return Err(format!("a tolerance of {tolerance} is none"));
    }
    Ok(())
}
