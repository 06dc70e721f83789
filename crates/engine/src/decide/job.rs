//! Jobs: asked for by a person, or by a phase.

use super::Decider;
use crate::effect::Effect;
use crate::event::Fact;
use crate::id::{JobNumber, ReleaseNumber, RolloutNumber};
use crate::job::{Job, JobKind, JobState};
use crate::refusal::Refusal;
use crate::release::ReleaseJobs;

impl Decider {
    pub(super) fn run_job_command(&mut self, kind: &JobKind) -> Result<(), Refusal> {
        let Some(serving) = self.env.stable.or(self.env.resting) else {
            return Err(Refusal::NothingDeployed { environment: self.env.key.clone() });
        };
        // A contraction is that of the release that has one to do, which may be older than the one that serves.
        let due = self.env.contract_due.as_ref().filter(|_| *kind == JobKind::Contract);
        // Smoke checks ask the preview address, which leads to the new version while there is one.
        let candidate = self.env.routes.table.preview.filter(|_| *kind == JobKind::Smoke);
        let release = due.map(|due| due.release).or(candidate).unwrap_or(serving);
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
            return Err(Refusal::JobRunning { kind: running.kind.name(), job: running.number.to_string() });
        }
        if *kind == JobKind::Contract {
            let returning = self.env.rollout.as_ref().filter(|rollout| rollout.to < release);
            if let Some(rollout) = returning {
                return Err(Refusal::RolloutUnderWay { rollout: rollout.number, to: rollout.to });
            }
            self.cool_before(release)?;
        }
        let by = self.actor().to_owned();
        self.run_job(kind.clone(), release, by, None).map(|_| ())
    }

    pub(super) fn run_job(
        &mut self,
        kind: JobKind,
        release: ReleaseNumber,
        requested_by: String,
        rollout: Option<RolloutNumber>,
    ) -> Result<JobNumber, Refusal> {
        let number = self.env.last_job.next();
        let state = JobState::Running { since: self.now };
        let job = Job { number, release, kind, requested_by, rollout, state };
        self.emit(Fact::JobPlanned { job })?;
        self.release_effect(Effect::RunJob { environment: self.env.key.clone(), job: number });
        Ok(number)
    }

    /// Migrations never run beside each other, nor does any other job of the release beside itself; one-off commands
    /// may.
    fn running(&self, kind: &JobKind) -> Option<&Job> {
        match kind {
            JobKind::OneOff { .. } => None,
            JobKind::Expand | JobKind::Contract => self.env.running_migration(),
            JobKind::Smoke | JobKind::Verify | JobKind::Seed => {
                self.env.jobs.values().find(|job| job.is_running() && job.kind == *kind)
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
