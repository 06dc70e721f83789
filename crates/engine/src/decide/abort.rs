//! `abort`: traffic back to stable at once, whatever the rollout was doing.

use super::Decider;
use crate::effect::Effect;
use crate::event::Fact;
use crate::refusal::Refusal;
use crate::rollout::{AbortCause, Phase};

impl Decider {
    pub(super) fn abort_command(&mut self, reason: Option<String>) -> Result<(), Refusal> {
        let by = self.actor().to_owned();
        self.abort_by_person(AbortCause::Operator { by, reason })
    }

    pub(super) fn abort_by_person(&mut self, cause: AbortCause) -> Result<(), Refusal> {
        let Some(rollout) = &self.env.rollout else {
            return Err(Refusal::NoRollout { environment: self.env.key.clone() });
        };
        if let Phase::Aborting { cause, .. } = &rollout.phase {
            return Err(Refusal::Aborting { rollout: rollout.number, cause: cause.to_string() });
        }
        self.abort(cause)
    }

    /// Aborts the active rollout unless it is aborting already.
    pub(super) fn abort(&mut self, cause: AbortCause) -> Result<(), Refusal> {
        let Some(rollout) = &self.env.rollout else { return Ok(()) };
        if let Phase::Aborting { .. } = rollout.phase {
            return Ok(());
        }
        let shifted = rollout.has_shifted();
        let deadline =
            self.env.release(rollout.to).map(|release| self.now + release.spec.deploy.phase_deadline);
        self.cancel_rollout_job();
        let phase = Phase::Aborting { cause, shifted };
        self.report_experiment(&phase)?;
        self.emit(Fact::PhaseEntered { phase, deadline })
    }

    /// A job of a rollout that is over must not go on. Its outcome is still recorded when it comes.
    pub(super) fn cancel_rollout_job(&mut self) {
        let Some(rollout) = &self.env.rollout else { return };
        let job = match rollout.phase {
            Phase::Migrating { job } | Phase::Verifying { job, .. } => job,
            Phase::Planned
            | Phase::Starting
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => return,
        };
        if self.env.running_job(job).is_some() {
            self.release_effect(Effect::CancelJob { environment: self.env.key.clone(), job });
        }
    }
}
