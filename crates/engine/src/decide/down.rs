//! `down`: stop everything that the environment runs.

use super::Decider;
use crate::event::Fact;
use crate::refusal::Refusal;
use crate::rollout::RolloutOutcome;

impl Decider {
    pub(super) fn down(&mut self) -> Result<(), Refusal> {
        let by = self.actor().to_owned();
        if let Some(active) = &self.env.rollout {
            let rollout = active.number;
            self.cancel_rollout_job();
            let outcome = RolloutOutcome::TakenDown { by };
            self.emit(Fact::RolloutEnded { rollout, outcome, warm_until: None })?;
        }
        self.clear_queue()?;
        self.emit(Fact::TakenDown)
    }
}
