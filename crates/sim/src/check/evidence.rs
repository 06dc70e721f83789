//! What must hold of verdicts, and of copies that follow the load. Reckoned by rules of its own, coarser than those of
//! the engine: what it would not miss, the engine must not miss either.

use std::time::Duration;

use fairway_engine::strategy::Strategy;
use fairway_engine::{AbortCause, Environment, Event, Fact, Pace, Phase, Segment, Verdict};

use super::{Checked, Checker, broken};

/// So many errors of the new version are beyond all doubt ...
const ERRORS_PLAIN: u64 = 60;
/// ... where its rate is so many times that of stable ...
const RATIO_PLAIN: f64 = 8.0;
/// ... and it has no more than this share of the requests, so that stable is there to be compared with.
const SHARE_MAX: f64 = 0.6;

/// So long a silence, ...
const SILENT: Duration = Duration::from_secs(10);
/// ... in which stable gave so many answers and let nobody wait, and so many attempts without a connection, of which
/// stable had none, are as plain.
const ANSWERS_PLAIN: u64 = 200;
const UNREACHED_PLAIN: u64 = 60;

impl Checker {
    /// What is much worse is turned back by then, whatever else happens.
    pub(super) fn much_worse(now: &Environment, events: &[Event]) -> Checked {
        if !events.iter().any(|event| matches!(event.fact, Fact::Observed { .. })) {
            return Ok(());
        }
        let (Some(rollout), Some(trial)) = (&now.rollout, &now.trial) else { return Ok(()) };
        let is_tested =
            now.release(rollout.to).is_some_and(|release| release.spec.deploy.evidence.sequential.is_some());
        let is_canary = matches!(rollout.strategy, Strategy::Canary { .. });
        let (Phase::Shifting { .. }, true, true) = (&rollout.phase, is_tested, is_canary) else {
            return Ok(());
        };
        for (service, arms) in &trial.arms {
            let compared = |segment: &&Segment| {
                let (new, stable) = (segment.new.requests as f64, segment.stable.requests as f64);
                segment.weight > 0 && segment.weight <= 60 && new <= SHARE_MAX * (new + stable)
            };
            let mut sum = [0u64; 4];
            for segment in arms.segments.iter().filter(compared) {
                let counted = [
                    segment.new.requests,
                    segment.new.bursts,
                    segment.stable.requests,
                    segment.stable.errors,
                ];
                for (sum, by) in sum.iter_mut().zip(counted) {
                    *sum += by;
                }
            }
            let [new, bursts, stable, errors] = sum.map(|count| count as f64);
            let takes = rollout.from.is_some_and(|from| now.takes(from, service));
            let is_plain = bursts >= ERRORS_PLAIN as f64
                && stable > 0.0
                && bursts / new >= RATIO_PLAIN * ((errors + 1.0) / stable)
                && takes;
            // Comparisons stand still while stable itself fails; what was counted before that may just not have sufficed.
            let stands_still = trial.verdicts.iter().any(|recorded| {
                matches!(
                    recorded.verdict.reason(),
                    Some(
                        fairway_engine::Reason::StableUnhealthy { .. }
                            | fairway_engine::Reason::BothFailing { .. }
                    )
                )
            });
            let is_silent = trial.looked_at.zip(arms.silence).is_some_and(|(at, silence)| {
                at.since(silence.since) >= SILENT
                    && silence.answered >= ANSWERS_PLAIN
                    && silence.waiting > 0
                    && arms.stable.raw.in_flight == 0
            });
            let unreached = arms.segments.iter().filter(compared).fold((0, 0), |(new, stable), segment| {
                (new + segment.new.unreached, stable + segment.stable.unreached)
            });
            // While stable fails what it has answered says little.
            let stable_fails = trial.kept.iter().any(|kept| {
                let before =
                    kept.totals.get(service).map_or((0, 0), |(_, stable)| (stable.requests, stable.errors));
                let (requests, errors) =
                    (arms.stable.total.requests - before.0, arms.stable.total.errors - before.1);
                requests >= 20 && errors * 25 >= requests
            });
            let is_beside = takes && trial.weight > 0 && trial.weight <= 60 && !stable_fails;
            if (is_silent || unreached.0 >= UNREACHED_PLAIN && unreached.1 == 0) && is_beside && !stands_still
            {
                return broken(
                    "what answers nobody is turned back",
                    format!("{service}: silence {:?}, {unreached:?} without a connection", arms.silence),
                );
            }
            if is_plain && !stands_still {
                return broken(
                    "what is much worse is turned back",
                    format!("{service}: {bursts} errors in {new} against {errors} in {stable}"),
                );
            }
        }
        Ok(())
    }

    /// Once a verdict says no, the new version gets no more traffic than it has; in the same decision it turns back, or
    /// waits for a person where there is nothing to go back to.
    pub(super) fn verdicts(then: &Environment, now: &Environment, events: &[Event]) -> Checked {
        let fails = events.iter().any(|event| match &event.fact {
            Fact::GateChanged { finding } => finding.verdict == Verdict::Failing,
            _ => false,
        });
        if let (true, Some(rollout)) = (fails, &now.rollout) {
            let is_paused = matches!(rollout.pace, Pace::Paused { .. });
            let turns_back = matches!(rollout.phase, Phase::Aborting { .. });
            let asks = is_paused && rollout.from.is_none();
            if !(turns_back || asks) {
                return broken("what fails turns back", rollout.phase.name().to_owned());
            }
        }
        let (Some(before), Some(rollout)) = (&then.rollout, &now.rollout) else { return Ok(()) };
        let is_judged = matches!(&rollout.phase, Phase::Aborting { cause: AbortCause::Evidence { .. }, .. });
        if !is_judged || before.number != rollout.number {
            return Ok(());
        }
        for service in now.routes.table.services.keys() {
            let (was, is) =
                (then.routes.table.weight(service, rollout.to), now.routes.table.weight(service, rollout.to));
            let can_go_back = rollout
                .from
                .is_some_and(|from| now.takes(from, service) && now.ready_count(from, service) > 0);
            if is > was && can_go_back && !rollout.is_rolling() {
                return broken("weight never grows after a verdict", format!("{service}: {was} % to {is} %"));
            }
        }
        Ok(())
    }

    /// Copies that follow the load stay within their bounds, and shrink only where nothing could need them.
    pub(super) fn scaling(then: &Environment, events: &[Event]) -> Checked {
        for event in events {
            let Fact::AutoScaled { service, from, to, .. } = &event.fact else { continue };
            let settings = then
                .stable
                .or(then.rollout.as_ref().map(|rollout| rollout.to))
                .and_then(|release| then.service(release, service)?.autoscale.as_ref());
            let Some(settings) = settings else {
                return broken("only what follows the load is scaled by it", service.to_string());
            };
            if *to < settings.min || *to > settings.max {
                return broken("the load's copies stay within bounds", format!("{service}: {to}"));
            }
            if let Some(rollout) = &then.rollout {
                let stands_still = matches!(rollout.pace, Pace::Paused { .. })
                    || matches!(rollout.phase, Phase::Aborting { .. });
                if to < from || stands_still {
                    return broken(
                        "beside a rollout copies only grow, and not in one that stands still",
                        format!("{service}: {from} to {to}"),
                    );
                }
            }
        }
        Ok(())
    }
}
