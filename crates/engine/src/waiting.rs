//! What a rollout waits for, in words that CLI, API and UI show unchanged.

use std::fmt;

use crate::environment::Environment;
use crate::id::{Generation, JobNumber, ServiceName};
use crate::rollout::{Pace, Phase, Rollout, StepState};
use crate::time::Timestamp;
use crate::verdict::Reason;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    Paused {
        by: String,
        since: Timestamp,
        /// What could not be judged, where that is the cause.
        why: Option<String>,
    },
    Approvals {
        needed: u32,
        given: u32,
    },
    Job {
        job: JobNumber,
        kind: &'static str,
    },
    Ready {
        service: ServiceName,
        ready: u32,
        wanted: u32,
    },
    Proxy {
        generation: Generation,
        applied: Generation,
    },
    Hold {
        until: Timestamp,
    },
    Promotion,
    /// The time of the step or bake is over; this gate has not seen enough.
    Evidence {
        until: Timestamp,
        gate: String,
        reason: Reason,
    },
    Bake {
        until: Timestamp,
    },
    /// Nothing: the next decision is due now.
    Nothing,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Paused { by, why: None, .. } => write!(f, "paused by {by}; `fairway resume` goes on"),
            Waiting::Paused { by, why: Some(why), .. } => write!(
                f,
                "paused by {by}: {why}; `fairway promote` goes on, `fairway resume` looks again, `fairway abort` \
                 turns back"
            ),
            Waiting::Approvals { needed, given } => {
                write!(f, "{given} of {needed} approvals; `fairway approve`")
            }
            Waiting::Job { job, kind } => write!(f, "{kind} ({job}) to end"),
            Waiting::Ready { service, ready, wanted } => write!(f, "{service}: {ready} of {wanted} ready"),
            Waiting::Proxy { generation, applied } => {
                write!(f, "the proxy to serve route table {generation} (it serves {applied})")
            }
            Waiting::Hold { .. } => write!(f, "the hold of this step to pass"),
            Waiting::Promotion => write!(f, "somebody to promote; `fairway promote`"),
            Waiting::Evidence { gate, reason, .. } => write!(f, "evidence: {gate}: {reason}"),
            Waiting::Bake { .. } => write!(f, "the bake to pass"),
            Waiting::Nothing => write!(f, "nothing"),
        }
    }
}

impl Waiting {
    /// The moment at which the waiting ends by itself, if it does.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Waiting::Hold { until } | Waiting::Bake { until } | Waiting::Evidence { until, .. } => {
                Some(*until)
            }
            Waiting::Paused { .. }
            | Waiting::Approvals { .. }
            | Waiting::Job { .. }
            | Waiting::Ready { .. }
            | Waiting::Proxy { .. }
            | Waiting::Promotion
            | Waiting::Nothing => None,
        }
    }
}

impl Environment {
    /// What the active rollout waits for.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        let rollout = self.rollout.as_ref()?;
        if let (Pace::Paused { by, since, why }, false) =
            (&rollout.pace, matches!(rollout.phase, Phase::Aborting { .. }))
        {
            return Some(Waiting::Paused { by: by.clone(), since: *since, why: why.clone() });
        }
        if let Some(held) = self.trial.as_ref().and_then(|trial| trial.held.as_ref()) {
            let reason = held.finding.verdict.reason().cloned().unwrap_or(Reason::NotMeasuredYet);
            return Some(Waiting::Evidence { until: held.until, gate: held.finding.name.clone(), reason });
        }
        Some(match &rollout.phase {
            Phase::Planned if !self.is_approved() => Waiting::Approvals {
                needed: rollout.approvals_needed,
                given: u32::try_from(rollout.approvals.len()).unwrap_or(u32::MAX),
            },
            Phase::Planned => match (self.missing_data(rollout.to), self.running_migration()) {
                (Some(service), _) => Waiting::Ready { service: service.clone(), ready: 0, wanted: 1 },
                (None, Some(job)) => Waiting::Job { job: job.number, kind: job.kind.name() },
                (None, None) => Waiting::Nothing,
            },
            Phase::Migrating { job } | Phase::Verifying { job, .. } => {
                Waiting::Job { job: *job, kind: self.jobs.get(job).map_or("job", |job| job.kind.name()) }
            }
            Phase::Starting => self.waiting_for_capacity(rollout),
            Phase::Shifting { state: StepState::Raising, .. } => self.waiting_for_capacity(rollout),
            Phase::Shifting { state: StepState::Holding { until }, .. } => Waiting::Hold { until: *until },
            Phase::Shifting { state: StepState::AwaitingPromotion, .. } => Waiting::Promotion,
            Phase::Baking { until } => Waiting::Bake { until: *until },
            Phase::Committing | Phase::Aborting { .. } => self.waiting_for_capacity(rollout),
        })
    }

    fn waiting_for_capacity(&self, rollout: &Rollout) -> Waiting {
        let target = match rollout.phase {
            Phase::Aborting { .. } => rollout.from,
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing => Some(rollout.to),
        };
        if let Some(release) = target.and_then(|target| self.release(target)) {
            for (service, spec) in &release.spec.services {
                let wanted = self.wanted(service, release.number);
                let ready = if spec.is_backing() {
                    self.backing_ready(service)
                } else {
                    self.ready_count(release.number, service)
                };
                if ready < wanted {
                    return Waiting::Ready { service: service.clone(), ready, wanted };
                }
            }
        }
        if self.routes.is_applied() {
            Waiting::Nothing
        } else {
            Waiting::Proxy { generation: self.routes.generation, applied: self.routes.applied }
        }
    }
}
