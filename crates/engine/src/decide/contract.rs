//! Contract migrations: after commit and a delay, when nothing older can need the old schema any more.

use super::Decider;
use crate::environment::{Environment, Power};
use crate::event::Fact;
use crate::id::ReleaseNumber;
use crate::job::{Job, JobEnd, JobKind, JobState};
use crate::refusal::Refusal;
use crate::time::Timestamp;

impl Environment {
    /// When the next contraction may run; none while a rollout is under way, as it may go back, nor while the data
    /// is down or another migration runs.
    pub(crate) fn contract_deadline(&self) -> Option<Timestamp> {
        let is_down = matches!(self.power, Power::Down { .. });
        let is_busy = self.rollout.is_some() || self.running_migration().is_some();
        // The way back is closed only when what serves is whole.
        let is_whole = self.stable.is_some_and(|stable| self.is_release_satisfied(stable));
        if is_down || is_busy || !is_whole || self.contract_attempt().is_some() {
            return None;
        }
        let due = self.contract_due.as_ref()?;
        let is_cooled = self.warm.as_ref().is_none_or(|warm| warm.release >= due.release);
        (!is_cooled || !self.runs_older_code(due.release)).then_some(due.due)
    }

    fn runs_older_code(&self, release: ReleaseNumber) -> bool {
        self.instances.keys().any(|id| {
            id.release < release
                && self.service(id.release, &id.service).is_some_and(|spec| !spec.is_backing())
        })
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
        self.note_contractions()?;
        if self.env.contract_deadline().is_some_and(|due| due <= self.now) {
            let Some(due) = self.env.contract_due.clone() else { return Ok(()) };
            self.cool_before(due.release)?;
            if self.env.runs_older_code(due.release) {
                // Told to go by now; their last requests end on the schema that they know.
                return Ok(());
            }
            self.run_job(JobKind::Contract, due.release, super::SELF.to_owned(), None)?;
        }
        Ok(())
    }

    /// A contraction that succeeded closes the way back.
    fn note_contractions(&mut self) -> Result<(), Refusal> {
        let done = self.env.jobs.values().filter(|job| {
            job.kind == JobKind::Contract && Self::job_is_over(job) == Some(&JobEnd::Succeeded)
        });
        match done.map(|job| job.release).max() {
            Some(release) if self.env.contracted_by.is_none_or(|before| before < release) => {
                self.follow(Fact::SchemaContracted { release })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A warm release that is older than the contraction could not serve after it.
    pub(super) fn cool_before(&mut self, contracting: ReleaseNumber) -> Result<(), Refusal> {
        match &self.env.warm {
            Some(warm) if warm.release < contracting => self.cool(),
            Some(_) | None => Ok(()),
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
