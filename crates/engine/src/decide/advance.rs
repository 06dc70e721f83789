//! The rollout's way through its phases. One call takes at most one step; `settle` calls until nothing follows.

use std::time::Duration;

use super::judge::Shown;
use super::{Clock, Decider};
use crate::environment::Environment;
use crate::event::Fact;
use crate::id::{JobNumber, ReleaseNumber, ServiceName};
use crate::instance::{Failure, InstanceState};
use crate::job::{JobEnd, JobKind};
use crate::refusal::Refusal;
use crate::rollout::{AbortCause, Check, Pace, Phase, Rollout, RolloutKind, RolloutOutcome, StepState};
use crate::time::Timestamp;

impl Environment {
    /// When the active rollout has something to do by the clock alone.
    pub(crate) fn rollout_deadline(&self) -> Option<Timestamp> {
        let rollout = self.rollout.as_ref()?;
        let is_aborting = matches!(rollout.phase, Phase::Aborting { .. });
        match rollout.pace {
            Pace::Paused { .. } if !is_aborting => return None,
            Pace::Paused { .. } | Pace::Running => {}
        }
        match rollout.phase {
            Phase::Shifting { state: StepState::Holding { until }, .. } | Phase::Baking { until } => Some(
                self.trial.as_ref().and_then(|trial| trial.held.as_ref()).map_or(until, |held| held.until),
            ),
            // An abort may end at its deadline only once the proxy has let go of the bad version.
            Phase::Aborting { .. } => rollout.deadline.filter(|_| self.routes_are_settled()),
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { state: StepState::Raising | StepState::AwaitingPromotion, .. }
            | Phase::Committing => rollout.deadline,
        }
    }

    /// The route table asked for is the one that the proxy serves.
    fn routes_are_in_force(&self) -> bool {
        self.routes.is_applied() && *self.routes.table == self.desired_table()
    }

    /// In force, or refused: nothing that the proxy could still do about it.
    fn routes_are_settled(&self) -> bool {
        (self.routes.is_applied() || self.routes.refused.is_some())
            && *self.routes.table == self.desired_table()
    }

    pub(crate) fn is_release_satisfied(&self, release: ReleaseNumber) -> bool {
        self.release(release)
            .is_none_or(|r| r.spec.services.keys().all(|service| self.is_satisfied(release, service)))
    }

    /// May traffic move? For a deploy everything must be ready. A rollback waits only for what takes requests, and for
    /// data: workers are not kept warm, and visitors must not wait for them.
    pub(crate) fn can_take_traffic(&self, rollout: &Rollout) -> bool {
        match rollout.kind {
            RolloutKind::Deploy => self.is_release_satisfied(rollout.to),
            RolloutKind::Rollback => self.release(rollout.to).is_none_or(|release| {
                let needed = release
                    .spec
                    .services
                    .iter()
                    .filter(|(_, spec)| spec.takes_requests() || spec.is_backing());
                needed.map(|(service, _)| service).all(|service| self.is_satisfied(rollout.to, service))
            }),
        }
    }
}

impl Decider {
    pub(super) fn advance(&mut self) -> Result<(), Refusal> {
        let Some(rollout) = self.env.rollout.clone() else {
            self.offer_again()?;
            return self.next_in_queue();
        };
        let is_aborting = matches!(rollout.phase, Phase::Aborting { .. });
        if !is_aborting && let Some(service) = self.readiness_lost(&rollout) {
            return self.abort(AbortCause::ReadinessLost { service });
        }
        // What fails is turned back whether time stands still or not.
        if !is_aborting && self.judge(&rollout)? {
            return Ok(());
        }
        match rollout.pace {
            Pace::Paused { .. } if !is_aborting => return Ok(()),
            Pace::Paused { .. } | Pace::Running => {}
        }
        if self.is_blind(&rollout)? {
            return Ok(());
        }
        match &rollout.phase {
            Phase::Aborting { cause, shifted } => self.advance_abort(&rollout, cause, *shifted),
            Phase::Planned => self.advance_planned(&rollout),
            Phase::Migrating { job } => match self.job_end(*job) {
                None => self.watch_deadline(&rollout),
                Some(JobEnd::Succeeded) => self.enter(Phase::Starting),
                Some(end @ (JobEnd::Failed { .. } | JobEnd::Lost { .. })) => self.abort_for_job(*job, end),
            },
            Phase::Starting => {
                if self.env.can_take_traffic(&rollout) {
                    self.verify_or_shift(&rollout, None)
                } else {
                    self.watch_deadline(&rollout)
                }
            }
            Phase::Verifying { job, check } => match self.job_end(*job) {
                None => self.watch_deadline(&rollout),
                Some(JobEnd::Succeeded) => self.verify_or_shift(&rollout, Some(*check)),
                Some(end @ (JobEnd::Failed { .. } | JobEnd::Lost { .. })) => self.abort_for_job(*job, end),
            },
            Phase::Shifting { step, state } if !rollout.is_rolling() => {
                self.advance_step(&rollout, *step, state)
            }
            Phase::Shifting { .. } => self.advance_rolling(&rollout),
            Phase::Baking { until } if *until <= self.now => match self.is_shown(&rollout)? {
                Shown::Enough => self.enter(Phase::Committing),
                Shown::NotYet => Ok(()),
            },
            Phase::Baking { .. } => Ok(()),
            Phase::Committing => {
                if self.env.routes_are_in_force() && self.env.is_release_satisfied(rollout.to) {
                    self.commit(&rollout)?;
                    self.trim_releases()
                } else {
                    self.watch_deadline(&rollout)
                }
            }
        }
    }

    /// Enters a phase, with the release's own bound on how long it may take.
    pub(super) fn enter(&mut self, phase: Phase) -> Result<(), Refusal> {
        let bound = self
            .env
            .rollout
            .as_ref()
            .and_then(|rollout| self.env.release(rollout.to))
            .map(|release| release.spec.deploy.phase_deadline);
        let deadline = match &phase {
            // These wait for a clock of their own or for a person.
            Phase::Baking { .. }
            | Phase::Planned
            | Phase::Shifting { state: StepState::Holding { .. } | StepState::AwaitingPromotion, .. } => None,
            Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { state: StepState::Raising, .. }
            | Phase::Committing
            | Phase::Aborting { .. } => bound.map(|bound| self.now + bound),
        };
        self.report_experiment(&phase)?;
        self.emit(Fact::PhaseEntered { phase, deadline })
    }

    /// What an A/B step has found, when it is left.
    pub(super) fn report_experiment(&mut self, next: &Phase) -> Result<(), Refusal> {
        let Some(rollout) = &self.env.rollout else { return Ok(()) };
        let step = match (&rollout.phase, next) {
            (
                Phase::Shifting { step, state: StepState::Holding { .. } | StepState::AwaitingPromotion },
                _,
            ) if !matches!(next, Phase::Shifting { step: same, .. } if same == step) => *step,
            (
                Phase::Planned
                | Phase::Migrating { .. }
                | Phase::Starting
                | Phase::Verifying { .. }
                | Phase::Shifting { .. }
                | Phase::Baking { .. }
                | Phase::Committing
                | Phase::Aborting { .. },
                _,
            ) => return Ok(()),
        };
        let Some(experiment) = rollout.rung(step).and_then(|rung| rung.experiment) else { return Ok(()) };
        let arms = self.env.arm_reports(rollout);
        self.follow(Fact::ExperimentReported { experiment, step, arms })
    }

    fn advance_planned(&mut self, rollout: &Rollout) -> Result<(), Refusal> {
        if !self.env.is_approved() {
            return Ok(());
        }
        let Some(release) = self.env.release(rollout.to) else { return Ok(()) };
        let migrates = rollout.kind == RolloutKind::Deploy && release.spec.jobs.expand.is_some();
        let own = self.job_of(rollout, &JobKind::Expand);
        let is_blocked = migrates && own.is_none() && self.env.running_migration().is_some();
        if is_blocked || self.env.missing_data(rollout.to).is_some() {
            if rollout.deadline.is_some() {
                return self.watch_deadline(rollout);
            }
            // Approved, but not able to begin: from here on it is no longer people who are waited for.
            let deadline = Some(self.now + release.spec.deploy.phase_deadline);
            return self.follow(Fact::PhaseEntered { phase: Phase::Planned, deadline });
        }
        match rollout.kind {
            RolloutKind::Deploy if migrates => {
                let job = self.run_once(rollout, JobKind::Expand)?;
                self.enter(Phase::Migrating { job })
            }
            RolloutKind::Deploy | RolloutKind::Rollback => self.enter(Phase::Starting),
        }
    }

    /// The next check after `done`, or traffic.
    fn verify_or_shift(&mut self, rollout: &Rollout, done: Option<Check>) -> Result<(), Refusal> {
        let jobs = self.env.release(rollout.to).map(|release| release.spec.jobs.clone()).unwrap_or_default();
        let next = match (rollout.kind, done) {
            // It passed its checks when it was deployed; at 3 a.m. nobody waits for them again.
            (RolloutKind::Rollback, _) | (RolloutKind::Deploy, Some(Check::Verify)) => None,
            (RolloutKind::Deploy, None) if jobs.smoke.is_some() => Some((Check::Smoke, JobKind::Smoke)),
            (RolloutKind::Deploy, None | Some(Check::Smoke)) => {
                jobs.verify.is_some().then_some((Check::Verify, JobKind::Verify))
            }
        };
        match next {
            Some((check, kind)) => {
                let job = self.run_once(rollout, kind)?;
                self.enter(Phase::Verifying { job, check })
            }
            None => self.enter_step(0),
        }
    }

    /// A rollout runs each of its jobs once, whatever happened between asking for it and entering its phase.
    fn run_once(&mut self, rollout: &Rollout, kind: JobKind) -> Result<JobNumber, Refusal> {
        match self.job_of(rollout, &kind) {
            Some(job) => Ok(job),
            None => self.run_job(kind, rollout.to, rollout.requested_by.clone(), Some(rollout.number)),
        }
    }

    fn job_of(&self, rollout: &Rollout, kind: &JobKind) -> Option<JobNumber> {
        let jobs = self.env.jobs.values();
        jobs.filter(|job| job.rollout == Some(rollout.number) && job.kind == *kind)
            .map(|job| job.number)
            .next()
    }

    pub(super) fn enter_step(&mut self, step: u32) -> Result<(), Refusal> {
        self.enter(Phase::Shifting { step, state: StepState::Raising })
    }

    fn advance_step(&mut self, rollout: &Rollout, step: u32, state: &StepState) -> Result<(), Refusal> {
        let rung = rollout.rung(step);
        let (hold, approve) = rung.as_ref().map_or((Duration::ZERO, false), |rung| (rung.hold, rung.approve));
        let has_to_show = rung.is_some_and(|rung| self.env.has_to_show(rollout, rung.weight));
        match state {
            StepState::Raising => {
                if !self.env.can_take_traffic(rollout) || !self.env.routes_are_in_force() {
                    return self.watch_deadline(rollout);
                }
                self.note_switch(rollout)?;
                if !self.env.is_release_satisfied(rollout.to) {
                    return self.watch_deadline(rollout);
                }
                if hold.is_zero() && !approve && !has_to_show {
                    return self.leave_step(step);
                }
                let until = self.now + hold;
                self.enter(Phase::Shifting { step, state: StepState::Holding { until } })
            }
            StepState::Holding { until } if *until > self.now => Ok(()),
            StepState::Holding { .. } => match self.is_shown(rollout)? {
                Shown::NotYet => Ok(()),
                Shown::Enough if approve => {
                    self.enter(Phase::Shifting { step, state: StepState::AwaitingPromotion })
                }
                Shown::Enough => self.leave_step(step),
            },
            StepState::AwaitingPromotion => Ok(()),
        }
    }

    /// To the next step, or to the bake after the last.
    pub(super) fn leave_step(&mut self, step: u32) -> Result<(), Refusal> {
        let Some(rollout) = self.env.rollout.clone() else { return Ok(()) };
        if step + 1 < rollout.rungs() {
            return self.enter_step(step + 1);
        }
        self.bake_or_commit(&rollout)
    }

    fn advance_rolling(&mut self, rollout: &Rollout) -> Result<(), Refusal> {
        let Some(from) = rollout.from else { return self.enter_step(0) };
        let old_is_gone = self.env.services().iter().all(|service| {
            // What the new release does not have is served until the end and drained after it.
            let rolls = self.env.is_like_for_like(from, rollout.to, service);
            let is_backing = self.env.service(from, service).is_some_and(|spec| spec.is_backing());
            !rolls || is_backing || self.env.giving_way(rollout.to, from, service).next().is_none()
        });
        if !old_is_gone || !self.env.is_release_satisfied(rollout.to) || !self.env.routes_are_in_force() {
            return self.watch_deadline(rollout);
        }
        self.note_switch(rollout)?;
        self.bake_or_commit(rollout)
    }

    fn note_switch(&mut self, rollout: &Rollout) -> Result<(), Refusal> {
        let full = rollout.is_rolling() || rollout.weight() >= 100;
        if full && rollout.switched_at.is_none() { self.emit(Fact::Switched) } else { Ok(()) }
    }

    fn bake_or_commit(&mut self, rollout: &Rollout) -> Result<(), Refusal> {
        let bake = match rollout.kind {
            // What comes back has served before; the bake is for what has not.
            RolloutKind::Rollback => Duration::ZERO,
            RolloutKind::Deploy => {
                self.env.release(rollout.to).map_or(Duration::ZERO, |release| release.spec.deploy.bake)
            }
        };
        if bake.is_zero() {
            return self.enter(Phase::Committing);
        }
        let until = self.now + bake;
        self.enter(Phase::Baking { until })
    }

    pub(super) fn commit(&mut self, rollout: &Rollout) -> Result<(), Refusal> {
        let Some(release) = self.env.release(rollout.to) else { return Ok(()) };
        let settings = release.spec.deploy.clone();
        let contract = release.spec.jobs.contract.as_ref().map(|_| release.spec.jobs.contract_after);
        let switched = rollout.switched_at.unwrap_or(self.now);
        // A release that was rolled away from is not kept: nobody goes back to it by accident.
        let keeps_warm = rollout.kind == RolloutKind::Deploy && !rollout.is_rolling();
        let warm_until = Some(switched + settings.keep_warm)
            .filter(|until| keeps_warm && rollout.from.is_some() && *until > self.now);
        self.reschedule_contraction(rollout, contract)?;
        self.follow(Fact::RolloutEnded {
            rollout: rollout.number,
            outcome: RolloutOutcome::Completed,
            warm_until,
        })?;
        self.purge_after(rollout.number, None)
    }

    /// What has come in decides which contraction is due. On the record before the end of the rollout, so that no
    /// crash lies between them.
    fn reschedule_contraction(&mut self, rollout: &Rollout, after: Option<Duration>) -> Result<(), Refusal> {
        let due = self.env.contract_due.as_ref().map(|due| due.release);
        match (rollout.kind, after, due) {
            (RolloutKind::Rollback, _, Some(release)) if release > rollout.to => {
                let why = format!("rolled back to {}", rollout.to);
                self.follow(Fact::ContractCancelled { release, why })
            }
            (RolloutKind::Deploy, Some(after), due) => {
                if let Some(release) = due.filter(|release| *release != rollout.to) {
                    let why = format!("that of {} takes its place", rollout.to);
                    self.follow(Fact::ContractCancelled { release, why })?;
                }
                self.follow(Fact::ContractScheduled { release: rollout.to, due: self.now + after })
            }
            (RolloutKind::Rollback | RolloutKind::Deploy, _, _) => Ok(()),
        }
    }

    /// Drops the releases beyond the number to be retained, those that never served before those that did; never one
    /// that anything still needs.
    fn trim_releases(&mut self) -> Result<(), Refusal> {
        let serving = self.env.stable.and_then(|stable| self.env.release(stable));
        let Some(retain) = serving.map(|release| release.spec.deploy.retain) else { return Ok(()) };
        let mut needed = self.env.needed_releases();
        needed.extend(self.env.rollback_target());
        let mut spare: Vec<ReleaseNumber> =
            self.env.releases.keys().copied().filter(|release| !needed.contains(release)).collect();
        spare.sort_by_key(|release| std::cmp::Reverse((self.env.served.contains(release), *release)));
        let kept = (retain as usize).saturating_sub(usize::from(self.env.rollback_target().is_some()));
        for release in spare.into_iter().skip(kept) {
            let why = format!("only {retain} releases besides the serving one are kept");
            self.follow(Fact::ReleaseDropped { release, why })?;
        }
        Ok(())
    }

    /// A table that the proxy refused is offered again, under a generation of its own, until it is taken.
    fn offer_again(&mut self) -> Result<(), Refusal> {
        if self.env.offer_deadline().is_none_or(|at| at > self.now) {
            return Ok(());
        }
        let table = self.env.desired_table();
        self.set_table(table)
    }

    fn advance_abort(&mut self, rollout: &Rollout, cause: &AbortCause, shifted: bool) -> Result<(), Refusal> {
        let released = self.env.routes_are_settled();
        let is_back = rollout.from.is_none_or(|from| self.env.is_release_satisfied(from));
        let too_late = rollout.deadline.is_some_and(|deadline| deadline <= self.now);
        if !released || !(is_back || too_late) {
            return Ok(());
        }
        let cause = cause.clone();
        let outcome = if shifted && rollout.from.is_some() {
            RolloutOutcome::RolledBack { cause }
        } else {
            RolloutOutcome::Failed { cause }
        };
        self.follow(Fact::RolloutEnded { rollout: rollout.number, outcome, warm_until: None })?;
        if shifted { self.purge_after(rollout.number, Some(rollout.to)) } else { Ok(()) }
    }

    /// A service of the new version that has copies, all of which were ready once and none is now.
    fn readiness_lost(&self, rollout: &Rollout) -> Option<ServiceName> {
        if !rollout.has_shifted() {
            return None;
        }
        let release = self.env.release(rollout.to)?;
        let lost = |service: &&ServiceName| {
            let was_ready = self.env.live(rollout.to, service).any(|i| match i.state {
                InstanceState::Suspect { .. } | InstanceState::Down { .. } => true,
                InstanceState::Starting { .. }
                | InstanceState::Ready { .. }
                | InstanceState::Draining { .. }
                | InstanceState::Stopping { .. } => false,
            });
            was_ready && self.env.ready_count(rollout.to, service) == 0
        };
        let own = release.spec.services.iter().filter(|(_, spec)| !spec.is_backing());
        own.map(|(service, _)| service).find(lost).cloned()
    }

    fn watch_deadline(&mut self, rollout: &Rollout) -> Result<(), Refusal> {
        match rollout.deadline {
            Some(deadline) if deadline <= self.now && self.clock == Clock::Runs => {
                let waiting = self.env.waiting().map_or_else(String::new, |waiting| waiting.to_string());
                self.abort(AbortCause::DeadlinePassed { phase: rollout.phase.name().to_owned(), waiting })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn job_end(&self, job: JobNumber) -> Option<JobEnd> {
        self.env.jobs.get(&job).and_then(Self::job_is_over).cloned()
    }

    fn abort_for_job(&mut self, job: JobNumber, end: JobEnd) -> Result<(), Refusal> {
        let kind = self.env.jobs.get(&job).map_or("job", |job| job.kind.name()).to_owned();
        let failure = match end {
            JobEnd::Failed { failure } => failure,
            JobEnd::Lost { why } => Failure {
                cause: format!("nobody knows whether it ran to its end: {why}"),
                last_lines: Vec::new(),
            },
            JobEnd::Succeeded => return Ok(()),
        };
        self.abort(AbortCause::JobFailed { job, kind, failure })
    }

    fn next_in_queue(&mut self) -> Result<(), Refusal> {
        let Some(next) = self.env.queue.front().cloned() else { return Ok(()) };
        self.follow(Fact::DeployDequeued)?;
        self.bring_in((*next.spec).clone(), next.by, next.reason)
    }
}

impl Environment {
    /// When a refused table is offered again. While a rollout is there, a refusal ends it instead.
    pub(crate) fn offer_deadline(&self) -> Option<Timestamp> {
        self.routes.refused.as_ref().filter(|_| self.rollout.is_none()).and_then(|_| self.routes.offer_at())
    }

    /// The first backing service of `release` that is not ready.
    pub(crate) fn missing_data(&self, release: ReleaseNumber) -> Option<&ServiceName> {
        let services = &self.release(release)?.spec.services;
        let mut backing = services.iter().filter(|(_, spec)| spec.is_backing()).map(|(service, _)| service);
        backing.find(|service| self.backing_ready(service) == 0)
    }

    pub(crate) fn is_approved(&self) -> bool {
        self.rollout
            .as_ref()
            .is_none_or(|rollout| rollout.approvals.len() >= rollout.approvals_needed as usize)
    }
}
