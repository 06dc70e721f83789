//! `approve` and `reject`: somebody else's word before the rollout starts.

use super::Decider;
use crate::event::Fact;
use crate::refusal::Refusal;
use crate::rollout::{AbortCause, Phase};

impl Decider {
    pub(super) fn approve(&mut self) -> Result<(), Refusal> {
        let Some(rollout) = &self.env.rollout else {
            return Err(Refusal::NoRollout { environment: self.env.key.clone() });
        };
        let by = self.actor();
        if rollout.phase != Phase::Planned || rollout.approvals_needed == 0 {
            return Err(Refusal::NoApprovalNeeded { rollout: rollout.number });
        }
        let wrote_it = self
            .env
            .release(rollout.to)
            .is_some_and(|r| r.spec.source.authors.iter().any(|author| author == by));
        if rollout.requested_by == by || wrote_it {
            return Err(Refusal::OwnApproval { by: by.to_owned(), rollout: rollout.number });
        }
        if rollout.approvals.contains_key(by) {
            return Err(Refusal::ApprovedAlready { by: by.to_owned(), rollout: rollout.number });
        }
        self.emit(Fact::Approved)
    }

    pub(super) fn reject(&mut self, reason: Option<String>) -> Result<(), Refusal> {
        let by = self.actor().to_owned();
        self.abort_by_person(AbortCause::Rejected { by, reason })
    }
}
