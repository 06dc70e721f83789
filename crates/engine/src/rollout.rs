//! A rollout moves one environment from the release it runs to another.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, InstanceId, JobNumber, ReleaseNumber, RolloutNumber, ServiceName};
use crate::instance::Failure;
use crate::strategy::{Step, Strategy};
use crate::time::Timestamp;
use crate::verdict::Finding;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub number: RolloutNumber,
    pub kind: RolloutKind,
    pub to: ReleaseNumber,
    pub from: Option<ReleaseNumber>,
    pub strategy: Strategy,
    pub requested_by: String,
    pub requested_at: Timestamp,
    pub reason: Option<String>,
    pub approvals_needed: u32,
    /// Who approved, and when.
    pub approvals: BTreeMap<String, Timestamp>,
    pub phase: Phase,
    pub phase_since: Timestamp,
    /// When the phase has taken too long; none where it waits for a clock of its own or for a person.
    pub deadline: Option<Timestamp>,
    pub pace: Pace,
    /// When public traffic first reached `to` in full.
    pub switched_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutKind {
    Deploy,
    /// To a release that served before: no build, no migration, no steps; readiness all the same.
    Rollback,
}

/// Whether time moves the rollout on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Pace {
    Running,
    Paused {
        by: String,
        since: Timestamp,
        /// What could not be judged, where that is the cause. `promote` then goes on all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Phase {
    /// On the record; waits for approvals.
    Planned,
    Migrating {
        job: JobNumber,
    },
    Starting,
    Verifying {
        job: JobNumber,
        check: Check,
    },
    Shifting {
        step: u32,
        state: StepState,
    },
    /// All traffic on the new version; the old one still warm.
    Baking {
        until: Timestamp,
    },
    Committing,
    Aborting {
        cause: AbortCause,
        shifted: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    Smoke,
    Verify,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum StepState {
    /// Capacity and route table are on their way to the step's weight.
    Raising,
    Holding {
        until: Timestamp,
    },
    /// Held long enough; a person says when to go on.
    AwaitingPromotion,
}

impl Phase {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Planned => "planned",
            Phase::Migrating { .. } => "migrating",
            Phase::Starting => "starting",
            Phase::Verifying { .. } => "verifying",
            Phase::Shifting { .. } => "shifting",
            Phase::Baking { .. } => "baking",
            Phase::Committing => "committing",
            Phase::Aborting { .. } => "aborting",
        }
    }

    /// When its own clock ends it, where it has one.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Phase::Shifting { state: StepState::Holding { until }, .. } | Phase::Baking { until } => {
                Some(*until)
            }
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { state: StepState::Raising | StepState::AwaitingPromotion, .. }
            | Phase::Committing
            | Phase::Aborting { .. } => None,
        }
    }

    /// Is it past the checks? Whether public traffic has moved also depends on the step's weight:
    /// [`Rollout::has_shifted`].
    #[must_use]
    pub fn has_shifted(&self) -> bool {
        match self {
            Phase::Planned | Phase::Migrating { .. } | Phase::Starting | Phase::Verifying { .. } => false,
            Phase::Shifting { .. } | Phase::Baking { .. } | Phase::Committing => true,
            Phase::Aborting { shifted, .. } => *shifted,
        }
    }
}

/// What turned a rollout back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum AbortCause {
    Operator {
        by: String,
        reason: Option<String>,
    },
    Rejected {
        by: String,
        reason: Option<String>,
    },
    InstanceFailed {
        instance: InstanceId,
        failure: Failure,
    },
    ReadinessLost {
        service: ServiceName,
    },
    JobFailed {
        job: JobNumber,
        kind: String,
        failure: Failure,
    },
    DeadlinePassed {
        phase: String,
        waiting: String,
    },
    RoutesRefused {
        generation: Generation,
        why: String,
    },
    /// What was measured says no; with its numbers.
    Evidence {
        finding: Box<Finding>,
    },
}

impl std::fmt::Display for AbortCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AbortCause::Operator { by, reason } => {
                write!(f, "aborted by {by}")?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
            }
            AbortCause::Rejected { by, reason } => {
                write!(f, "rejected by {by}")?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
            }
            AbortCause::InstanceFailed { instance, failure } => {
                write!(f, "{instance} failed: {}", failure.cause)
            }
            AbortCause::ReadinessLost { service } => write!(f, "no copy of {service} is ready any more"),
            AbortCause::JobFailed { job, kind, failure } => {
                write!(f, "{kind} ({job}) failed: {}", failure.cause)
            }
            AbortCause::DeadlinePassed { phase, waiting } => {
                write!(f, "{phase} took too long; it was waiting for {waiting}")
            }
            AbortCause::RoutesRefused { why, .. } => write!(f, "the proxy refused the route table: {why}"),
            AbortCause::Evidence { finding } => write!(f, "{finding}"),
        }
    }
}

impl AbortCause {
    /// The log lines that explain it, where there are any.
    #[must_use]
    pub fn last_lines(&self) -> &[String] {
        match self {
            AbortCause::InstanceFailed { failure, .. } | AbortCause::JobFailed { failure, .. } => {
                &failure.last_lines
            }
            AbortCause::Operator { .. }
            | AbortCause::Rejected { .. }
            | AbortCause::ReadinessLost { .. }
            | AbortCause::DeadlinePassed { .. }
            | AbortCause::RoutesRefused { .. }
            | AbortCause::Evidence { .. } => &[],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum RolloutOutcome {
    /// Serving and watched.
    Completed,
    /// Traffic had moved and is back on the release before.
    RolledBack {
        cause: AbortCause,
    },
    /// Nothing had shifted, or there was nothing to go back to.
    Failed {
        cause: AbortCause,
    },
    Superseded {
        by: RolloutNumber,
    },
    /// The environment was taken down.
    TakenDown {
        by: String,
    },
}

impl RolloutOutcome {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            RolloutOutcome::Completed => "completed",
            RolloutOutcome::RolledBack { .. } => "rolled back",
            RolloutOutcome::Failed { .. } => "failed",
            RolloutOutcome::Superseded { .. } => "superseded",
            RolloutOutcome::TakenDown { .. } => "taken down",
        }
    }
}

/// A rollout that is over, kept for `history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutSummary {
    pub number: RolloutNumber,
    pub kind: RolloutKind,
    pub to: ReleaseNumber,
    pub from: Option<ReleaseNumber>,
    pub strategy: String,
    pub requested_by: String,
    pub requested_at: Timestamp,
    pub reason: Option<String>,
    pub switched_at: Option<Timestamp>,
    pub ended_at: Timestamp,
    pub outcome: RolloutOutcome,
}

/// One rung of the ladder that a strategy climbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    pub weight: u32,
    pub hold: Duration,
    pub approve: bool,
    /// Percent of public requests of which the new version gets a copy.
    pub mirror: u32,
    pub experiment: Option<String>,
}

impl Rung {
    fn plain(weight: u32, approve: bool) -> Self {
        Self { weight, hold: Duration::ZERO, approve, mirror: 0, experiment: None }
    }
}

impl Rollout {
    /// Weight steps from first to last; the last is always 100. `rolling` has none: it moves by batches.
    #[must_use]
    pub fn ladder(&self) -> Vec<Rung> {
        (0..self.rungs()).filter_map(|index| self.rung(index)).collect()
    }

    /// How many rungs the ladder has.
    #[must_use]
    pub fn rungs(&self) -> u32 {
        match (&self.strategy, self.kind, self.from) {
            // A first deploy has nothing to shift from, and a rollback skips the steps.
            (_, RolloutKind::Rollback, _) | (_, _, None) => 1,
            (Strategy::Rolling { .. }, ..) => 0,
            (Strategy::BlueGreen { approve }, ..) => 1 + u32::from(*approve),
            (Strategy::Canary { steps, .. }, ..) => {
                let ends_full = steps.last().is_some_and(|step| step.weight >= 100);
                u32::try_from(steps.len()).unwrap_or(u32::MAX - 1) + u32::from(!ends_full)
            }
        }
    }

    #[must_use]
    pub fn rung(&self, index: u32) -> Option<Rung> {
        if index >= self.rungs() {
            return None;
        }
        let full = Rung::plain(100, false);
        Some(match (&self.strategy, self.kind, self.from) {
            (_, RolloutKind::Rollback, _) | (_, _, None) | (Strategy::Rolling { .. }, ..) => full,
            (Strategy::BlueGreen { approve: true }, ..) if index == 0 => Rung::plain(0, true),
            (Strategy::BlueGreen { .. }, ..) => full,
            (Strategy::Canary { steps, .. }, ..) => steps.get(index as usize).map_or(
                full,
                |Step { weight, hold, approve, mirror, experiment }| Rung {
                    weight: *weight,
                    hold: *hold,
                    approve: *approve,
                    mirror: *mirror,
                    experiment: experiment.clone(),
                },
            ),
        })
    }

    #[must_use]
    pub fn is_rolling(&self) -> bool {
        self.rungs() == 0
    }

    /// Has public traffic been sent to the new version? A step of weight 0 sends none.
    #[must_use]
    pub fn has_shifted(&self) -> bool {
        match self.phase {
            Phase::Planned | Phase::Migrating { .. } | Phase::Starting | Phase::Verifying { .. } => false,
            Phase::Shifting { step, .. } => {
                self.is_rolling() || (0..=step).filter_map(|step| self.rung(step)).any(|rung| rung.weight > 0)
            }
            Phase::Baking { .. } | Phase::Committing => true,
            Phase::Aborting { shifted, .. } => shifted,
        }
    }

    /// How many copies of stable may be missing before copies of this rollout, once it is over, stand in for them.
    /// Rolling takes stable apart; the other strategies leave it whole, and theirs help only where nothing is left.
    #[must_use]
    pub fn may_miss(&self) -> u32 {
        if self.is_rolling() { self.batch().1 } else { u32::MAX }
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        match (&self.pace, &self.phase) {
            // Abort outranks pause.
            (_, Phase::Aborting { .. }) | (Pace::Running, _) => false,
            (Pace::Paused { .. }, _) => true,
        }
    }

    /// `(max_surge, max_unavailable)` of a rolling rollout.
    #[must_use]
    pub fn batch(&self) -> (u32, u32) {
        match self.strategy {
            // Neither surge nor gap would be a rollout that can never move.
            Strategy::Rolling { max_surge: 0, max_unavailable: 0 } => (1, 0),
            Strategy::Rolling { max_surge, max_unavailable } => (max_surge, max_unavailable),
            Strategy::BlueGreen { .. } | Strategy::Canary { .. } => (1, 0),
        }
    }

    /// Percent of public traffic that the new version is to get now (ladder strategies).
    #[must_use]
    pub fn weight(&self) -> u32 {
        match self.phase {
            Phase::Planned | Phase::Migrating { .. } | Phase::Starting | Phase::Verifying { .. } => 0,
            Phase::Shifting { step, .. } => self.rung(step).map_or(100, |rung| rung.weight),
            Phase::Baking { .. } | Phase::Committing => 100,
            Phase::Aborting { .. } => 0,
        }
    }
}
