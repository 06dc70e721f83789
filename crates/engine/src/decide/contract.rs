//! Contract migrations: after commit and a delay, when nothing older can need the old schema any more.

use super::Decider;
use crate::environment::Environment;
use crate::event::Fact;
use crate::job::{Job, JobEnd, JobKind, JobState};
use crate::refusal::Refusal;
use crate::time::Timestamp;

impl Environment {
    /// When the next contraction may run; none while a rollout is under way, as it may go back.
    pub(crate) fn contract_deadline(&self) -> Option<Timestamp> {
        if self.rollout.is_some() || self.contract_attempt().is_some() {
            return None;
        }
        self.contract_due.as_ref().map(|due| due.due)
    }

    /// The job that contracts for the release that is due, whatever became of it. One that failed waits for a person
    /// (`fairway migrate contract`): running it again blindly could make things worse.
    fn contract_attempt(&self) -> Option<&Job> {
        let due = self.contract_due.as_ref()?;
        self.jobs.values().rev().find(|job| job.kind == JobKind::Contract && job.release == due.release)
    }
}

impl Decider {
    pub(super) fn contraction(&mut self) -> Result<(), Refusal> {
        if self.env.contract_deadline().is_some_and(|due| due <= self.now) {
            let Some(due) = self.env.contract_due.clone() else { return Ok(()) };
            // The warm release is older than the contraction: it could not serve after it.
            self.cool()?;
            self.run_job(JobKind::Contract, due.release, super::SELF.to_owned())?;
        }
        Ok(())
    }

    /// A contraction that succeeded closes the way back.
    pub(super) fn contracted(&mut self, job: &Job, end: &JobEnd) -> Result<(), Refusal> {
        match (&job.kind, end) {
            (JobKind::Contract, JobEnd::Succeeded) => {
                self.follow(Fact::SchemaContracted { release: job.release })
            }
            (
                JobKind::Contract
                | JobKind::Expand
                | JobKind::Smoke
                | JobKind::Verify
                | JobKind::Seed
                | JobKind::OneOff { .. },
                JobEnd::Succeeded | JobEnd::Failed { .. } | JobEnd::Lost { .. },
            ) => Ok(()),
        }
    }

    /// Lets go of the warm release.
    pub(super) fn cool(&mut self) -> Result<(), Refusal> {
        match self.env.warm.as_ref().map(|warm| warm.release) {
            Some(release) => self.follow(Fact::Cooled { release }),
            None => Ok(()),
        }
    }

    pub(super) fn job_is_over(job: &Job) -> Option<&JobEnd> {
        match &job.state {
            JobState::Running { .. } => None,
            JobState::Ended { end, .. } => Some(end),
        }
    }
}
