//! `rollback`: to any retained release, without a rebuild and without steps, but not without readiness.

use super::Decider;
use crate::id::ReleaseNumber;
use crate::job::JobKind;
use crate::refusal::Refusal;
use crate::rollout::{Phase, RolloutKind};

impl Decider {
    pub(super) fn rollback(
        &mut self,
        to: Option<ReleaseNumber>,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        if let Some(rollout) = &self.env.rollout {
            let is_named = |release: Option<ReleaseNumber>| to.is_none() || to == release;
            // Said twice, or by two people: the second must not turn the first around.
            if rollout.kind == RolloutKind::Rollback
                && !matches!(rollout.phase, Phase::Aborting { .. })
                && is_named(Some(rollout.to))
            {
                return Err(Refusal::RolloutUnderWay { rollout: rollout.number, to: rollout.to });
            }
            // With a deploy under way, going back means going back to what is stable: that is an abort.
            if rollout.from.is_some() && is_named(self.env.stable) {
                self.clear_queue()?;
                return self.abort_command(reason.or_else(|| Some("rollback".to_owned())));
            }
        }
        let target = match to {
            Some(target) => target,
            None => self
                .env
                .rollback_target()
                .ok_or_else(|| Refusal::NoEarlierRelease { known: self.env.rollback_targets() })?,
        };
        if self.env.stable == Some(target) {
            return Err(Refusal::AlreadyServing { release: target });
        }
        let Some(release) = self.env.release(target) else {
            return Err(Refusal::UnknownRelease { release: target, known: self.env.rollback_targets() });
        };
        // It skips migrations, checks and approvals: only what has been through them may come back this way.
        if !self.env.served.contains(&target) {
            return Err(Refusal::NeverServed { release: target });
        }
        let strategy = release.spec.deploy.strategy.clone();
        self.refuse_contracted(target)?;
        self.supersede()?;
        self.clear_queue()?;
        let by = self.actor().to_owned();
        self.plan(RolloutKind::Rollback, target, strategy, 0, by, reason)
    }

    /// A release older than a contraction would meet a schema that it does not know.
    pub(super) fn refuse_contracted(&self, target: ReleaseNumber) -> Result<(), Refusal> {
        if let Some(contracted_by) = self.env.contracted_by.filter(|contracted_by| *contracted_by > target) {
            return Err(Refusal::SchemaContracted { release: target, contracted_by });
        }
        match self.env.running_migration() {
            Some(job) if job.kind == JobKind::Contract && job.release > target => {
                Err(Refusal::JobRunning { kind: job.kind.name(), job: job.number.to_string() })
            }
            Some(_) | None => Ok(()),
        }
    }
}
