//! `promote`: on to the next step now; `--full`: to all traffic.

use super::Decider;
use crate::event::Fact;
use crate::refusal::Refusal;
use crate::rollout::{Pace, Phase, StepState};

impl Decider {
    pub(super) fn promote(&mut self, full: bool) -> Result<(), Refusal> {
        let Some(rollout) = self.env.rollout.clone() else {
            return Err(Refusal::NoRollout { environment: self.env.key.clone() });
        };
        // What waits for a person because it could not be judged goes on when a person says so.
        if let (Pace::Paused { since, why: Some(_), .. }, true) = (&rollout.pace, rollout.is_paused()) {
            self.go_on_without()?;
            self.emit(Fact::Resumed { paused_for: self.now.since(*since) })?;
        } else if rollout.is_paused() {
            return Err(Refusal::NothingToPromote {
                rollout: rollout.number,
                phase: "paused (`fairway resume` goes on)",
            });
        }
        match &rollout.phase {
            Phase::Shifting { step, state } if !rollout.is_rolling() => {
                let last = rollout.rungs().saturating_sub(1);
                match state {
                    // The last step ends when its traffic has arrived, whoever is in a hurry.
                    StepState::Raising if !full || *step >= last => Err(Refusal::NothingToPromote {
                        rollout: rollout.number,
                        phase: "still raising this step's weight",
                    }),
                    StepState::Raising | StepState::Holding { .. } | StepState::AwaitingPromotion => {
                        if full && *step < last { self.enter_step(last) } else { self.leave_step(*step) }
                    }
                }
            }
            Phase::Baking { .. } => self.enter(Phase::Committing),
            Phase::Aborting { cause, .. } => {
                Err(Refusal::Aborting { rollout: rollout.number, cause: cause.to_string() })
            }
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Committing => {
                Err(Refusal::NothingToPromote { rollout: rollout.number, phase: rollout.phase.name() })
            }
        }
    }
}
