//! `retry`: the last rollout, if it did not complete, from the start.

use super::Decider;
use crate::refusal::Refusal;
use crate::rollout::{RolloutKind, RolloutOutcome};

impl Decider {
    pub(super) fn retry(&mut self) -> Result<(), Refusal> {
        if let Some(active) = &self.env.rollout {
            return Err(Refusal::NothingToRetry { last: Some(active.number) });
        }
        let Some(last) = self.env.history.back().cloned() else {
            return Err(Refusal::NothingToRetry { last: None });
        };
        if last.outcome == RolloutOutcome::Completed {
            return Err(Refusal::NothingToRetry { last: Some(last.number) });
        }
        let Some(release) = self.env.release(last.to) else {
            return Err(Refusal::UnknownRelease {
                release: last.to,
                known: self.env.releases.keys().copied().collect(),
            });
        };
        self.refuse_contracted(last.to)?;
        let strategy = release.spec.deploy.strategy.clone();
        let approvals = match last.kind {
            RolloutKind::Deploy => release.spec.deploy.approvers,
            RolloutKind::Rollback => 0,
        };
        let by = self.actor().to_owned();
        self.plan(last.kind, last.to, strategy, approvals, by, Some(format!("retry of {}", last.number)))
    }
}
