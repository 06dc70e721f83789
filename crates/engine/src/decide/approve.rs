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
            authors.into_iter().any(|author| is_same_person(author, by))
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

/// Commits name their authors by e-mail address, the socket names its callers by user: `ann@example.org` is `ann`.
fn is_same_person(author: &str, by: &str) -> bool {
    let local = author.split('@').next().unwrap_or_default();
    author.eq_ignore_ascii_case(by) || local.eq_ignore_ascii_case(by)
}

#[cfg(test)]
mod tests {
    use super::is_same_person;

    #[test]
    fn an_author_is_recognised_by_the_name_before_the_at_sign() {
        assert!(is_same_person("Ann@example.org", "ann"));
        assert!(is_same_person("ann", "ann"));
        assert!(!is_same_person("anna@example.org", "ann"));
        assert!(!is_same_person("", "ann"));
    }
}
