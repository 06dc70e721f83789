//! `rollback`: to any retained release, without a rebuild and without steps, but not without readiness.

use super::Decider;
use crate::event::Fact;
use crate::id::ReleaseNumber;
use crate::refusal::Refusal;
use crate::rollout::RolloutKind;

impl Decider {
    pub(super) fn rollback(
        &mut self,
        to: Option<ReleaseNumber>,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        // With a rollout under way, going back means going back to what is stable: that is an abort.
        if self.env.rollout.as_ref().is_some_and(|rollout| rollout.from.is_some())
            && (to.is_none() || to == self.env.stable)
        {
            return self.abort_command(reason.or_else(|| Some("rollback".to_owned())));
        }
        let target = match to {
            Some(target) => target,
            None => self.env.rollback_target().ok_or(Refusal::NoEarlierRelease)?,
        };
        if self.env.stable == Some(target) {
            return Err(Refusal::AlreadyServing { release: target });
        }
        let Some(release) = self.env.release(target) else {
            let known = self.env.releases.keys().copied().filter(|r| Some(*r) != self.env.stable).collect();
            return Err(Refusal::UnknownRelease { release: target, known });
        };
        let strategy = release.spec.deploy.strategy.clone();
        self.refuse_contracted(target)?;
        self.supersede()?;
        if let Some(due) = &self.env.contract_due
            && due.release > target
        {
            let (release, why) = (due.release, format!("rolled back to {target}"));
            self.emit(Fact::ContractCancelled { release, why })?;
        }
        let by = self.actor().to_owned();
        self.plan(RolloutKind::Rollback, target, strategy, 0, by, reason)
    }

    /// A release older than a contraction would meet a schema that it does not know.
    pub(super) fn refuse_contracted(&self, target: ReleaseNumber) -> Result<(), Refusal> {
        match self.env.contracted_by {
            Some(contracted_by) if contracted_by > target => {
                Err(Refusal::SchemaContracted { release: target, contracted_by })
            }
            Some(_) | None => Ok(()),
        }
    }
}
