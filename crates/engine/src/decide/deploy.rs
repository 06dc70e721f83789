//! `deploy`: a new release and the rollout that brings it in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Decider;
use crate::event::Fact;
use crate::id::{ReleaseNumber, ServiceName};
use crate::refusal::Refusal;
use crate::release::{Release, ReleaseSpec};
use crate::rollout::{Pace, Phase, Rollout, RolloutKind, RolloutOutcome};
use crate::strategy::Strategy;

/// Deploys that may wait behind a rollout. Each holds a whole release; a longer queue is a stuck pipeline.
const QUEUE_MAX: usize = 8;

/// Canary steps of one rollout: a step a minute for most of an hour. Steps that change nothing are passed within one
/// decision, whose rounds are bounded.
const STEPS_MAX: usize = 50;

impl Decider {
    pub(super) fn deploy(
        &mut self,
        spec: &ReleaseSpec,
        reason: Option<String>,
        if_release: Option<ReleaseNumber>,
        wait: bool,
    ) -> Result<(), Refusal> {
        check(spec)?;
        if let Some(planned) = if_release
            && self.env.stable != Some(planned)
        {
            return Err(Refusal::StalePlan { planned, actual: self.env.stable });
        }
        if self.env.rollout.is_some() && wait {
            self.refuse_changed_data(spec)?;
            if self.env.queue.len() >= QUEUE_MAX {
                return Err(Refusal::QueueFull { environment: self.env.key.clone(), count: QUEUE_MAX });
            }
            return self.emit(Fact::DeployQueued { spec: Arc::new(spec.clone()), reason });
        }
        self.refuse_changed_data(spec)?;
        self.supersede()?;
        self.clear_queue()?;
        let by = self.actor().to_owned();
        self.bring_in(spec.clone(), by, reason)
    }

    /// Ends the active rollout in favour of the one that is about to be planned. What it had started loses its traffic
    /// in the same decision, as no phase asks for it any more.
    pub(super) fn supersede(&mut self) -> Result<(), Refusal> {
        let Some(active) = self.env.rollout.clone() else { return Ok(()) };
        if active.from.is_none() && active.has_shifted() && self.env.is_release_satisfied(active.to) {
            // A first deploy that serves has nothing to go back to but an outage: it is what is stable from now on.
            let is_aborting = matches!(active.phase, Phase::Aborting { .. });
            if !is_aborting {
                if active.phase != Phase::Committing {
                    self.enter(Phase::Committing)?;
                }
                return self.commit(&active);
            }
        }
        let (rollout, by) = (active.number, self.env.last_rollout.next());
        self.cancel_rollout_job();
        self.emit(Fact::RolloutEnded {
            rollout,
            outcome: RolloutOutcome::Superseded { by },
            warm_until: None,
        })
    }

    /// What waits was asked for before: it must not undo what comes now.
    pub(super) fn clear_queue(&mut self) -> Result<(), Refusal> {
        while !self.env.queue.is_empty() {
            self.emit(Fact::DeployDequeued)?;
        }
        Ok(())
    }

    /// One name is one thing: a backing service keeps its copy and its data across releases, so a release in which
    /// the same name is something else could never start.
    fn refuse_changed_data(&self, spec: &ReleaseSpec) -> Result<(), Refusal> {
        let retained = self.env.releases.values().flat_map(|release| &release.spec.services);
        for (name, before) in retained {
            if spec.services.get(name).is_some_and(|after| after.is_backing() != before.is_backing()) {
                let (was, is) =
                    if before.is_backing() { ("held", "holds none") } else { ("held no", "does") };
                let why =
                    format!("{name} {was} data in a release that is kept, and {is} in this one: rename it");
                return Err(Refusal::InvalidRelease { why });
            }
        }
        Ok(())
    }

    /// Records a new release and plans its rollout.
    pub(super) fn bring_in(
        &mut self,
        spec: ReleaseSpec,
        by: String,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let number = self.env.last_release.next();
        let strategy = spec.deploy.strategy.clone();
        let approvals_needed = spec.deploy.approvers;
        let release = Arc::new(Release { number, created_at: self.now, created_by: by.clone(), spec });
        self.emit_as(by.clone(), Fact::ReleaseCreated { release })?;
        self.plan(RolloutKind::Deploy, number, strategy, approvals_needed, by, reason)
    }

    pub(super) fn plan(
        &mut self,
        kind: RolloutKind,
        to: ReleaseNumber,
        strategy: Strategy,
        approvals_needed: u32,
        by: String,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let rollout = Rollout {
            number: self.env.last_rollout.next(),
            kind,
            to,
            from: self.env.stable,
            strategy,
            requested_by: by.clone(),
            requested_at: self.now,
            reason,
            approvals_needed,
            approvals: BTreeMap::new(),
            phase: Phase::Planned,
            phase_since: self.now,
            deadline: None,
            pace: Pace::Running,
            switched_at: None,
        };
        self.emit_as(by, Fact::RolloutPlanned { rollout: Box::new(rollout) })
    }
}

/// What no release may be, whoever made it: the configuration is checked with spans long before, this is the last line.
fn check(spec: &ReleaseSpec) -> Result<(), Refusal> {
    let invalid = |why: String| Err(Refusal::InvalidRelease { why });
    if spec.services.is_empty() {
        return invalid("it has no services".into());
    }
    for (name, service) in &spec.services {
        if service.replicas > super::REPLICAS_MAX {
            return Err(Refusal::TooManyReplicas { replicas: service.replicas, max: super::REPLICAS_MAX });
        }
        let after_code = |after: &&ServiceName| spec.services.get(*after).is_some_and(|s| !s.is_backing());
        if let Some(code) = service.after.iter().find(after_code)
            && service.is_backing()
        {
            return invalid(format!(
                "{name} holds data and cannot start after {code}, which changes with releases"
            ));
        }
        if let Some(unknown) = service.after.iter().find(|after| !spec.services.contains_key(*after)) {
            return invalid(format!("{name} starts after {unknown}, which it does not have"));
        }
    }
    if let Strategy::Canary { steps, .. } = &spec.deploy.strategy {
        if steps.len() > STEPS_MAX {
            return invalid(format!("its canary has more than {STEPS_MAX} steps"));
        }
        if let Some(step) = steps.iter().find(|step| step.weight > 100) {
            return invalid(format!("a canary step of {} percent is more than all", step.weight));
        }
    }
    super::settings::check(spec).or_else(invalid)?;
    if let Some(name) = in_cycle(spec) {
        return invalid(format!("{name} would start after itself"));
    }
    Ok(())
}

/// A service that waits for itself, found by taking away whatever can start until nothing more can.
fn in_cycle(spec: &ReleaseSpec) -> Option<ServiceName> {
    let mut left: BTreeSet<&ServiceName> = spec.services.keys().collect();
    loop {
        let can_start: Vec<&ServiceName> = left
            .iter()
            .copied()
            .filter(|name| spec.services[*name].after.iter().all(|after| !left.contains(after)))
            .collect();
        if can_start.is_empty() {
            return left.first().map(|name| (*name).clone());
        }
        for name in can_start {
            left.remove(name);
        }
    }
}
