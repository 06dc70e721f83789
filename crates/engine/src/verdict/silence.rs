//! A version that takes requests and gives no answer. Nothing has ended, so that there is nothing to count: the proxy
//! gives up on an instance after a minute, and until then the hanging version would have no error and no slow answer.
//!
//! **Rule.** The new version fails when it has answered nothing for [`SILENT_FOR`], while at least six requests waited for
//! it at every reading, stable answered, and stable does not let as many wait, share by share. That is total failure, and
//! needs no likelihood; what hangs in part shows when it ends.
//!
//! **Why it is no false alarm.** *Streams* (WebSockets, server-sent events) are in flight for as long as they like. A
//! service that has nothing else holds them open in both versions, in proportion to their shares (Little's law; the new
//! version's are younger, and so fewer): that is the comparison with stable. A release that brings its first streams
//! answers other requests meanwhile. *What breaks both versions* lets both of them wait. *A version that starts* may take
//! its time with the first requests, but not while six of them wait for three seconds.
//!
//! **Why it is replayed.** It rests on absolute counters and on what waited at each reading. A reading that is lost makes
//! a silence longer that was one anyway, as the next one says whether anything was answered in between; a doubled one
//! changes nothing. A request is held against the version while it waits, and no more when it has ended: then it is an
//! error or a slow answer, and counts as that. One that its client gave up waits on until the version answers anybody.

use std::time::Duration;

use super::judge::Footing;
use super::{ArmCount, BadEvent, Bound, Finding, GateId, TestCounts, Verdict};
use crate::environment::Environment;
use crate::evidence::Number;
use crate::id::ServiceName;
use crate::rollout::{Phase, Rollout};
use crate::trial::Trial;

/// What the default trigger on latency takes for too slow: 3 s.
const SILENT_FOR: Duration = Duration::from_secs(3);

/// Answers of stable meanwhile. With fewer nobody can say that the new version should have had one.
const ANSWERED_MIN: u64 = 20;

/// The new version lets so many times more wait than its share of what stable lets wait.
const MORE_THAN_STABLE: f64 = 5.0;

impl Environment {
    /// None as long as it answers.
    pub(super) fn silence(&self, rollout: &Rollout, trial: &Trial, service: &ServiceName) -> Option<Finding> {
        let (Phase::Shifting { .. }, Some(at)) = (&rollout.phase, trial.looked_at) else { return None };
        let arms = trial.arms.get(service)?;
        let silence = arms.silence.as_ref()?;
        let lasts = at.since(silence.since);
        let share = f64::from(trial.weight.min(100)) / 100.0;
        let is_compared = share > 0.0 && share < 1.0;
        let like_stable = arms.stable.raw.in_flight as f64 * share / (1.0 - share);
        let is_silent = is_compared
            && lasts >= SILENT_FOR
            && silence.answered >= ANSWERED_MIN
            && silence.waiting as f64 >= MORE_THAN_STABLE * like_stable
            && self.footing(rollout, trial, service) == Footing::Sound;
        is_silent.then(|| Finding {
            gate: GateId::Sequential { service: service.clone(), event: BadEvent::Silence },
            name: format!("{} of {service}", BadEvent::Silence.name()),
            verdict: Verdict::Failing,
            service: Some(service.clone()),
            value: Some(Number(lasts.as_secs_f64())),
            bound: Some(Bound::Max { limit: Number(SILENT_FOR.as_secs_f64()) }),
            stable: None,
            samples: silence.waiting,
            needed: 0,
            counts: Some(TestCounts {
                event: BadEvent::Silence,
                new: ArmCount { requests: silence.waiting, bad: silence.waiting, bursts: silence.waiting },
                stable: ArmCount { requests: silence.answered, bad: 0, bursts: 0 },
                weight: trial.weight,
                share: Number(share),
                q0: Number(share),
                slow_above_ms: None,
            }),
            detectable_ratio: None,
            next_look: None,
        })
    }
}
