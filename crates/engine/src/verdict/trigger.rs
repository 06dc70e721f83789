//! What undoes a release while it is shifted and while it bakes: bounds on the last half minute, crossed for some
//! time, and critical alerts.

use std::time::Duration;

use super::judge::{Footing, crossed};
use super::threshold::measure;
use super::{Bound, Finding, GateId, Reason, Verdict};
use crate::environment::Environment;
use crate::evidence::{Check, Number, Trigger};
use crate::rollout::Rollout;
use crate::trial::Trial;

/// Requests of the window below which a share says nothing: one error in three is no 33 %.
const REQUESTS_MIN: u64 = 10;

pub(super) fn find(
    env: &Environment,
    rollout: &Rollout,
    trial: &Trial,
    index: u32,
    trigger: &Trigger,
) -> Finding {
    let finding = Finding {
        gate: GateId::Trigger { index },
        name: name(trigger),
        verdict: Verdict::Waiting { reason: Reason::NotMeasuredYet },
        service: None,
        value: None,
        bound: None,
        stable: None,
        samples: 0,
        needed: REQUESTS_MIN,
        counts: None,
        detectable_ratio: None,
        next_look: None,
    };
    match trigger {
        Trigger::ErrorRate { above, lasts } => {
            counted(env, rollout, trial, &Check::ErrorRate, *above, *lasts, finding)
        }
        Trigger::Latency { percentile, above, lasts } => {
            let check = Check::Latency { percentile: *percentile };
            counted(env, rollout, trial, &check, Number(above.as_secs_f64()), *lasts, finding)
        }
        Trigger::CriticalAlert => alert(env, trial, finding),
    }
}

fn name(trigger: &Trigger) -> String {
    match trigger {
        Trigger::ErrorRate { lasts, .. } => format!("error_rate for {} s", lasts.as_secs()),
        Trigger::Latency { percentile, lasts, .. } => format!("p{percentile} for {} s", lasts.as_secs()),
        Trigger::CriticalAlert => "critical alert".to_owned(),
    }
}

fn counted(
    env: &Environment,
    rollout: &Rollout,
    trial: &Trial,
    check: &Check,
    above: Number,
    lasts: Duration,
    mut finding: Finding,
) -> Finding {
    finding.bound = Some(Bound::Max { limit: above });
    let Some(at) = trial.looked_at else { return finding };
    let mut worst = None;
    let mut seen = 0;
    let mut elsewhere = None;
    for service in trial.arms.keys() {
        let (new, _) = trial.recent(service, |new, _| new.requests >= REQUESTS_MIN);
        seen = seen.max(new.requests);
        let Some(value) = measure(check, &new).filter(|_| new.requests >= REQUESTS_MIN) else { continue };
        if let (Footing::BothFail { new, stable }, true) =
            (env.footing(rollout, trial, service), value > above)
        {
            let (new, stable) = (Number(new), Number(stable));
            elsewhere = Some(Reason::BothFailing { service: service.clone(), new, stable });
            continue;
        }
        if worst.is_none_or(|worst| value > worst) {
            worst = Some(value);
            finding.service = Some(service.clone());
            finding.value = Some(value);
            finding.samples = new.requests;
        }
    }
    finding.verdict = match (worst, elsewhere) {
        (Some(value), _) if value > above => crossed(trial, &finding.gate, at, lasts),
        (_, Some(reason)) => Verdict::Waiting { reason },
        (Some(_), None) => Verdict::Passing,
        (None, None) => {
            finding.samples = seen;
            Verdict::Waiting { reason: Reason::TooFewRequests { have: seen, need: REQUESTS_MIN } }
        }
    };
    finding
}

/// One that began to fire before the new version had any traffic is not its doing: a broken stable must not block the
/// fix.
fn alert(env: &Environment, trial: &Trial, mut finding: Finding) -> Finding {
    finding.needed = 0;
    let fires = env.alerts.iter().find(|(alert, _)| !trial.excused.contains(*alert));
    match fires {
        Some((alert, firing)) => {
            finding.name = format!("critical alert {alert}: {}", firing.why);
            finding.verdict = Verdict::Failing;
        }
        None => finding.verdict = Verdict::Passing,
    }
    finding
}
