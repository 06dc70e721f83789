//! Jobs: asked for by a person, or by a phase.

use super::Decider;
use crate::effect::Effect;
use crate::event::Fact;
use crate::id::{JobNumber, ReleaseNumber};
use crate::job::{Job, JobKind, JobState};
use crate::refusal::Refusal;
use crate::release::ReleaseJobs;

impl Decider {
    pub(super) fn run_job_command(&mut self, kind: &JobKind) -> Result<(), Refusal> {
        let Some(release) = self.env.stable.or(self.env.resting) else {
            return Err(Refusal::NothingDeployed { environment: self.env.key.clone() });
        };
        if *kind == JobKind::Seed && self.env.key.environment.as_str() == "production" {
            return Err(Refusal::SeedInProduction);
        }
        let jobs = self.env.release(release).map(|release| release.spec.jobs.clone()).unwrap_or_default();
        if !has(&jobs, kind) {
            return Err(Refusal::NoSuchJob { kind: kind.name() });
        }
        if let JobKind::OneOff { service: Some(service), .. } = kind {
            self.known_service(service)?;
        } else if let Some(running) = self.running(kind) {
            return Err(Refusal::JobRunning { kind: kind.name(), job: running.to_string() });
        }
        let by = self.actor().to_owned();
        self.run_job(kind.clone(), release, by).map(|_| ())
    }

    pub(super) fn run_job(
        &mut self,
        kind: JobKind,
        release: ReleaseNumber,
        requested_by: String,
    ) -> Result<JobNumber, Refusal> {
        let number = self.env.last_job.next();
        let state = JobState::Running { since: self.now };
        self.emit(Fact::JobPlanned { job: Job { number, release, kind, requested_by, state } })?;
        self.release_effect(Effect::RunJob { environment: self.env.key.clone(), job: number });
        Ok(number)
    }

    /// Migrations of one kind never run beside each other; one-off commands may.
    fn running(&self, kind: &JobKind) -> Option<JobNumber> {
        let is_running = |job: &&Job| match job.state {
            JobState::Running { .. } => true,
            JobState::Ended { .. } => false,
        };
        match kind {
            JobKind::OneOff { .. } => None,
            JobKind::Expand | JobKind::Contract | JobKind::Smoke | JobKind::Verify | JobKind::Seed => {
                self.env.jobs.values().filter(is_running).find(|job| job.kind == *kind).map(|job| job.number)
            }
        }
    }
}

fn has(jobs: &ReleaseJobs, kind: &JobKind) -> bool {
    match kind {
        JobKind::Expand => jobs.expand.is_some(),
        JobKind::Contract => jobs.contract.is_some(),
        JobKind::Smoke => jobs.smoke.is_some(),
        JobKind::Verify => jobs.verify.is_some(),
        JobKind::Seed => jobs.seed.is_some(),
        JobKind::OneOff { .. } => true,
    }
}
