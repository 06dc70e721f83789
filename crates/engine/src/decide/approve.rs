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
        if rollout.phase != Phase::Planned || self.env.is_approved() {
            return Err(Refusal::NoApprovalNeeded { rollout: rollout.number });
        }
        // E-mail addresses: nobody becomes somebody else by another letter case. Whoever made the release stays its
        // author when another retries its rollout.
        let wrote_it = self.env.release(rollout.to).is_some_and(|release| {
            let authors = release.spec.source.authors.iter().chain([&release.created_by]);
            authors.into_iter().any(|author| author.eq_ignore_ascii_case(by))
        });
        if rollout.requested_by.eq_ignore_ascii_case(by) || wrote_it {
            return Err(Refusal::OwnApproval { by: by.to_owned(), rollout: rollout.number });
        }
        if rollout.approvals.keys().any(|other| other.eq_ignore_ascii_case(by)) {
            return Err(Refusal::ApprovedAlready { by: by.to_owned(), rollout: rollout.number });
        }
        self.emit(Fact::Approved)
    }

    pub(super) fn reject(&mut self, reason: Option<String>) -> Result<(), Refusal> {
        let by = self.actor().to_owned();
        self.abort_by_person(AbortCause::Rejected { by, reason })
    }
}
