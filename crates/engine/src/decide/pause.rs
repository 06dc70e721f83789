//! `pause` and `resume`: time stops for the rollout. Abort still works.

use super::Decider;
use crate::event::Fact;
use crate::refusal::Refusal;
use crate::rollout::{Pace, Phase};

impl Decider {
    pub(super) fn pause(&mut self) -> Result<(), Refusal> {
        let Some(rollout) = &self.env.rollout else {
            return Err(Refusal::NoRollout { environment: self.env.key.clone() });
        };
        if let Phase::Aborting { cause, .. } = &rollout.phase {
            return Err(Refusal::Aborting { rollout: rollout.number, cause: cause.to_string() });
        }
        match &rollout.pace {
            Pace::Running => self.emit(Fact::Paused),
            Pace::Paused { by, .. } => {
                Err(Refusal::AlreadyPaused { rollout: rollout.number, by: by.clone() })
            }
        }
    }

    pub(super) fn resume(&mut self) -> Result<(), Refusal> {
        let Some(rollout) = &self.env.rollout else {
            return Err(Refusal::NoRollout { environment: self.env.key.clone() });
        };
        match rollout.pace {
            Pace::Paused { since, .. } => self.emit(Fact::Resumed { paused_for: self.now.since(since) }),
            Pace::Running => Err(Refusal::NotPaused { rollout: rollout.number }),
        }
    }
}
