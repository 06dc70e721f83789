//! State is what the events add up to. `apply` is the only thing that changes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::autoscale::{Autoscaler, Pin};
use crate::certificate::{self, CertificateChange, CertificateGain, CertificateTrouble};
use crate::environment::{
    ContractDue, ENDED_MAX, Environment, FiringAlert, HISTORY_MAX, JOBS_MAX, Power, Queued, Replacement,
    UPGRADES_MAX, Warm,
};
use crate::event::{Event, Fact};
use crate::id::{EnvironmentKey, ServiceName};
use crate::instance::{EndedInstance, Instance, InstanceState};
use crate::job::{Job, JobKind, JobState};
use crate::purge::{self, CachePurge, HookPurge, PurgeAbout, PurgeAccount, PurgeDue, Purged};
use crate::rollout::{Pace, Phase, Rollout, RolloutKind, RolloutOutcome, RolloutSummary, StepState};
use crate::service::ServiceSpec;
use crate::time::Timestamp;
use crate::trial::{Held, Trial};
use crate::upgrade::{UpgradeOver, UpgradeUnderWay};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    #[serde(with = "by_key")]
    pub environments: BTreeMap<EnvironmentKey, Environment>,
}

/// JSON wants string keys, and an environment knows its own key: stored as a list.
mod by_key {
    use super::{BTreeMap, Environment, EnvironmentKey};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        map: &BTreeMap<EnvironmentKey, Environment>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.values())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<EnvironmentKey, Environment>, D::Error> {
        let list = Vec::<Environment>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|environment| (environment.key.clone(), environment)).collect())
    }
}

/// An event that cannot have happened in this state: the log is damaged or the engine has a defect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fact} is not possible in {environment}: {why}")]
pub struct IllegalTransition {
    pub environment: EnvironmentKey,
    pub fact: &'static str,
    pub why: String,
}

impl State {
    /// # Errors
    /// When the event is not legal in this state; the state is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalTransition> {
        let illegal = |why: &str| IllegalTransition {
            environment: event.environment.clone(),
            fact: event.fact.name(),
            why: why.to_owned(),
        };
        if let Fact::EnvironmentCreated = event.fact {
            if self.environments.contains_key(&event.environment) {
                return Err(illegal("it exists"));
            }
            self.environments.insert(event.environment.clone(), Environment::new(event.environment.clone()));
            return Ok(());
        }
        self.environments
            .get_mut(&event.environment)
            .ok_or_else(|| illegal("it does not exist"))?
            .apply(event)
    }
}

impl Environment {
    /// The one total match over facts.
    ///
    /// # Errors
    /// When the fact is not legal in this state; the environment is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalTransition> {
        let at = event.at;
        let illegal = |why: String| IllegalTransition {
            environment: event.environment.clone(),
            fact: event.fact.name(),
            why,
        };
        match &event.fact {
            Fact::EnvironmentCreated => Err(illegal("it exists".into())),

            Fact::ReleaseCreated { release } => {
                if release.number <= self.last_release {
                    return Err(illegal(format!("{} is not new", release.number)));
                }
                self.last_release = release.number;
                self.releases.insert(release.number, Arc::clone(release));
                Ok(())
            }
            Fact::ReleaseDropped { release, .. } => {
                if self.needed_releases().contains(release) {
                    return Err(illegal(format!("{release} is in use")));
                }
                self.releases.remove(release).ok_or_else(|| illegal(format!("no {release}")))?;
                self.served.remove(release);
                self.left.remove(release);
                // The chain of predecessors closes over the gap, and so never outgrows the releases.
                let before = self.predecessors.remove(release);
                match before {
                    Some(before) => {
                        for target in self.predecessors.values_mut().filter(|target| *target == release) {
                            *target = before;
                        }
                    }
                    None => self.predecessors.retain(|_, target| target != release),
                }
                Ok(())
            }

            Fact::RolloutPlanned { rollout } => {
                if let Some(active) = &self.rollout {
                    return Err(illegal(format!("{} is under way", active.number)));
                }
                if rollout.number <= self.last_rollout {
                    return Err(illegal(format!("{} is not new", rollout.number)));
                }
                if !self.releases.contains_key(&rollout.to) {
                    return Err(illegal(format!("no {}", rollout.to)));
                }
                self.last_rollout = rollout.number;
                self.power = Power::Up;
                self.rollout = Some((**rollout).clone());
                self.trial = Some(Trial::default());
                Ok(())
            }
            Fact::Approved => {
                let rollout = self.active(&illegal)?;
                rollout.approvals.insert(event.actor.clone(), at);
                Ok(())
            }
            Fact::PhaseEntered { phase, deadline } => {
                let rollout = self.active(&illegal)?;
                if !can_follow(&rollout.phase, phase) {
                    return Err(illegal(format!("{} after {}", phase.name(), rollout.phase.name())));
                }
                let before = rollout.phase.clone();
                rollout.phase = phase.clone();
                rollout.phase_since = at;
                rollout.deadline = *deadline;
                self.follow_phase(at, &before);
                Ok(())
            }
            Fact::Switched => {
                let rollout = self.active(&illegal)?;
                rollout.switched_at = Some(at);
                Ok(())
            }
            Fact::Paused => {
                let rollout = self.active(&illegal)?;
                match rollout.pace {
                    Pace::Running => {
                        rollout.pace = Pace::Paused { by: event.actor.clone(), since: at, why: None };
                    }
                    Pace::Paused { .. } => return Err(illegal("it is paused".into())),
                }
                Ok(())
            }
            Fact::Resumed { paused_for } => {
                let rollout = self.active(&illegal)?;
                match rollout.pace {
                    Pace::Paused { .. } => rollout.pace = Pace::Running,
                    Pace::Running => return Err(illegal("it is not paused".into())),
                }
                rollout.deadline = rollout.deadline.map(|deadline| deadline + *paused_for);
                if let Some(trial) = &mut self.trial {
                    trial.look_again(at);
                }
                let rollout = self.active(&illegal)?;
                match &mut rollout.phase {
                    Phase::Shifting { state: StepState::Holding { until }, .. } | Phase::Baking { until } => {
                        *until = *until + *paused_for;
                    }
                    Phase::Planned
                    | Phase::Migrating { .. }
                    | Phase::Starting
                    | Phase::Verifying { .. }
                    | Phase::Shifting { state: StepState::Raising | StepState::AwaitingPromotion, .. }
                    | Phase::Committing
                    | Phase::Aborting { .. } => {}
                }
                Ok(())
            }
            Fact::RolloutEnded { rollout, outcome, warm_until } => {
                let active = self.active(&illegal)?;
                if active.number != *rollout {
                    return Err(illegal(format!("{rollout} is not the active one")));
                }
                if *outcome == RolloutOutcome::Completed && active.phase != Phase::Committing {
                    return Err(illegal(format!("completed while {}", active.phase.name())));
                }
                self.end_rollout(at, outcome.clone(), *warm_until);
                Ok(())
            }
            Fact::Cooled { release } => match &self.warm {
                Some(warm) if warm.release == *release => {
                    self.warm = None;
                    // Should stable have nothing left, its copies still answer until it has.
                    if self.instances.keys().any(|id| id.release == *release) {
                        self.leaving.insert(*release, u32::MAX);
                    }
                    Ok(())
                }
                Some(_) | None => Err(illegal(format!("{release} is not warm"))),
            },
            Fact::Observed { observation } => self.observe(at, observation, &illegal),
            Fact::Measured { gate, reading } => {
                self.trial(&illegal)?.measure(at, *gate, reading);
                Ok(())
            }
            Fact::BaselineFrozen { service, slow_above_ms, .. } => {
                let trial = self.trial(&illegal)?;
                trial.arms.entry(service.clone()).or_default().slow_above_ms = Some(*slow_above_ms);
                Ok(())
            }
            Fact::GateChanged { finding } => {
                self.trial(&illegal)?.record(finding);
                Ok(())
            }
            Fact::StepHeld { until, finding } => {
                self.trial(&illegal)?.held = Some(Held { until: *until, finding: (**finding).clone() });
                Ok(())
            }
            Fact::GateWaived { gate, for_rollout, .. } => {
                let trial = self.trial(&illegal)?;
                if *for_rollout {
                    trial.decided.insert(gate.clone());
                } else {
                    trial.waived.push(gate.clone());
                }
                Ok(())
            }
            Fact::PausedOnEvidence { finding } => {
                let rollout = self.active(&illegal)?;
                match rollout.pace {
                    Pace::Running => {
                        let why = Some(finding.brief());
                        rollout.pace = Pace::Paused { by: event.actor.clone(), since: at, why };
                    }
                    Pace::Paused { .. } => return Err(illegal("it is paused".into())),
                }
                let trial = self.trial(&illegal)?;
                trial.record(finding);
                trial.handed_over = Some(finding.gate.clone());
                Ok(())
            }
            Fact::ExperimentReported { .. } => self.active(&illegal).map(|_| ()),
            Fact::AlertChanged { alert, firing: true, why } => {
                let firing = FiringAlert { since: at, why: why.clone() };
                self.alerts.entry(alert.clone()).or_insert(firing);
                Ok(())
            }
            Fact::AlertChanged { alert, firing: false, .. } => {
                self.alerts.remove(alert).ok_or_else(|| illegal(format!("{alert} does not fire")))?;
                if let Some(trial) = &mut self.trial {
                    trial.excused.remove(alert);
                }
                Ok(())
            }
            Fact::DeployQueued { spec, reason } => {
                self.queue.push_back(Queued {
                    spec: Arc::clone(spec),
                    by: event.actor.clone(),
                    at,
                    reason: reason.clone(),
                });
                Ok(())
            }
            Fact::DeployDequeued => {
                self.queue.pop_front().map(|_| ()).ok_or_else(|| illegal("the queue is empty".into()))
            }

            Fact::InstancePlanned { instance, epoch, deadline } => {
                let last = self.ordinals.get(&instance.service).copied().unwrap_or(0);
                if instance.ordinal <= last {
                    return Err(illegal(format!("{instance} is not new")));
                }
                if self.service(instance.release, &instance.service).is_none() {
                    return Err(illegal(format!("{} has no {}", instance.release, instance.service)));
                }
                self.ordinals.insert(instance.service.clone(), instance.ordinal);
                self.instances.insert(
                    instance.clone(),
                    Instance {
                        id: instance.clone(),
                        epoch: *epoch,
                        planned_at: at,
                        address: None,
                        last_routed: None,
                        crashes: 0,
                        state: InstanceState::Starting { deadline: *deadline },
                    },
                );
                Ok(())
            }
            Fact::InstanceStarted { instance, address } => {
                let found =
                    self.instances.get_mut(instance).ok_or_else(|| illegal(format!("no {instance}")))?;
                if !found.is_live() {
                    return Err(illegal(format!("{instance} is {}", found.state.name())));
                }
                found.address.clone_from(address);
                Ok(())
            }
            Fact::InstanceReady { instance } => self.turn(instance, &illegal, |i| match &i.state {
                InstanceState::Starting { .. }
                | InstanceState::Suspect { .. }
                | InstanceState::Down { .. } => Some(InstanceState::Ready { since: at }),
                InstanceState::Ready { .. }
                | InstanceState::Draining { .. }
                | InstanceState::Stopping { .. } => None,
            }),
            Fact::InstanceSuspect { instance, why } => self.turn(instance, &illegal, |i| match &i.state {
                InstanceState::Ready { .. } => Some(InstanceState::Suspect { since: at, why: why.clone() }),
                InstanceState::Starting { .. }
                | InstanceState::Suspect { .. }
                | InstanceState::Down { .. }
                | InstanceState::Draining { .. }
                | InstanceState::Stopping { .. } => None,
            }),
            Fact::InstanceDown { instance, why } => self.turn(instance, &illegal, |i| {
                i.crashes = i.crashes.saturating_add(1);
                match &i.state {
                    // Still within its time to become ready: the deadline stays.
                    InstanceState::Starting { deadline } => {
                        Some(InstanceState::Starting { deadline: *deadline })
                    }
                    InstanceState::Ready { .. }
                    | InstanceState::Suspect { .. }
                    | InstanceState::Down { .. } => Some(InstanceState::Down { since: at, why: why.clone() }),
                    InstanceState::Draining { .. } | InstanceState::Stopping { .. } => None,
                }
            }),
            Fact::InstanceDraining { instance, deadline, cut } => {
                self.turn(instance, &illegal, |i| match &i.state {
                    InstanceState::Starting { .. }
                    | InstanceState::Ready { .. }
                    | InstanceState::Suspect { .. }
                    | InstanceState::Down { .. } => {
                        Some(InstanceState::Draining { since: at, deadline: *deadline, cut: *cut })
                    }
                    InstanceState::Draining { .. } | InstanceState::Stopping { .. } => None,
                })
            }
            Fact::InstanceStopping { instance, deadline } => {
                self.turn(instance, &illegal, |i| match &i.state {
                    InstanceState::Starting { .. }
                    | InstanceState::Ready { .. }
                    | InstanceState::Suspect { .. }
                    | InstanceState::Down { .. }
                    | InstanceState::Draining { .. } => {
                        Some(InstanceState::Stopping { since: at, deadline: *deadline })
                    }
                    InstanceState::Stopping { .. } => None,
                })
            }
            Fact::InstanceEnded { instance, how } => {
                let gone =
                    self.instances.remove(instance).ok_or_else(|| illegal(format!("no {instance}")))?;
                if !self.instances.keys().any(|id| id.release == instance.release) {
                    self.leaving.remove(&instance.release);
                }
                // It worked: what comes after is a new failure, not one more. A hold that only a person lifts stays.
                if gone.is_ready() && self.replacements.get(&instance.service).is_some_and(|r| !r.is_held()) {
                    self.replacements.remove(&instance.service);
                }
                push_bounded(
                    &mut self.ended,
                    Arc::new(EndedInstance { id: instance.clone(), at, how: how.clone() }),
                    ENDED_MAX,
                );
                Ok(())
            }
            Fact::ReplacementDelayed { service, failures, not_before } => {
                self.replacements
                    .insert(service.clone(), Replacement { failures: *failures, not_before: *not_before });
                Ok(())
            }

            Fact::RoutesSet { generation, table } => {
                if *generation <= self.routes.generation {
                    return Err(illegal(format!("{generation} is not new")));
                }
                self.routes.generation = *generation;
                self.routes.table = Arc::clone(table);
                for service in table.services.values() {
                    for id in service.versions.values().flat_map(|version| version.instances.keys()) {
                        if let Some(instance) = self.instances.get_mut(id) {
                            instance.last_routed = Some(*generation);
                        }
                    }
                }
                self.routes.refused = None;
                self.routes.refused_at = None;
                self.follow_weight();
                Ok(())
            }
            Fact::RoutesApplied { generation } => {
                if *generation > self.routes.generation || *generation <= self.routes.applied {
                    return Err(illegal(format!("{generation} is not awaited")));
                }
                // Draining begins when the proxy sends no more requests, however long it took to say so.
                for instance in self.instances.values_mut() {
                    if let InstanceState::Draining { since, deadline, cut } = &mut instance.state
                        && *cut > self.routes.applied
                        && *cut <= *generation
                    {
                        *deadline = at + deadline.since(*since);
                        *since = at;
                    }
                }
                self.routes.applied = *generation;
                self.routes.refusals = 0;
                if self.routes.is_applied() {
                    self.routes.refused = None;
                    self.routes.refused_at = None;
                }
                Ok(())
            }
            Fact::RoutesRefused { generation, why } => {
                if *generation != self.routes.generation {
                    return Err(illegal(format!("{generation} is not the current one")));
                }
                self.routes.refused = Some(why.clone());
                self.routes.refused_at = Some(at);
                self.routes.refusals = self.routes.refusals.saturating_add(1);
                Ok(())
            }

            Fact::JobPlanned { job } => {
                if job.number <= self.last_job {
                    return Err(illegal(format!("{} is not new", job.number)));
                }
                self.last_job = job.number;
                self.jobs.insert(job.number, job.clone());
                self.trim_jobs();
                Ok(())
            }
            Fact::JobEnded { job, end } => {
                if self.running_job(*job).is_none() {
                    return Err(illegal(format!("{job} is not running")));
                }
                if let Some(job) = self.jobs.get_mut(job) {
                    job.state = JobState::Ended { at, end: end.clone() };
                }
                Ok(())
            }
            Fact::ContractScheduled { release, due } => {
                self.contract_due = Some(ContractDue { release: *release, due: *due });
                Ok(())
            }
            Fact::ContractCancelled { release, .. } => match &self.contract_due {
                Some(due) if due.release == *release => {
                    self.contract_due = None;
                    Ok(())
                }
                Some(_) | None => Err(illegal(format!("no contraction of {release} is due"))),
            },
            Fact::SchemaContracted { release } => {
                self.contracted_by = Some(self.contracted_by.map_or(*release, |before| before.max(*release)));
                if self.contract_due.as_ref().is_some_and(|due| due.release <= *release) {
                    self.contract_due = None;
                }
                Ok(())
            }

            Fact::Scaled { service, replicas, until: None } => {
                self.scale.insert(service.clone(), *replicas);
                Ok(())
            }
            Fact::Scaled { service, replicas, until: Some(until) } => {
                let pin = Some(Pin { replicas: *replicas, until: *until });
                self.autoscalers.entry(service.clone()).or_default().pin = pin;
                Ok(())
            }
            Fact::ScaleFreed { service } => match self.autoscalers.get_mut(service) {
                Some(Autoscaler { pin, decided, .. }) if pin.is_some() => {
                    // From the number that is there: the load goes on from what it finds.
                    *decided = pin.take().map(|pin| pin.replicas);
                    Ok(())
                }
                Some(_) | None => match self.scale.remove(service) {
                    Some(_) => Ok(()),
                    None => Err(illegal(format!("{service} was not scaled by hand"))),
                },
            },
            Fact::ScaleAdvised { service, replicas } => {
                self.autoscalers.entry(service.clone()).or_default().advise(at, *replicas);
                Ok(())
            }
            Fact::AutoScaled { service, from, to, .. } => {
                self.autoscalers.entry(service.clone()).or_default().change(at, *from, *to);
                Ok(())
            }
            Fact::RestartRequested { service } => {
                *self.epochs.entry(service.clone()).or_insert(0) += 1;
                self.replacements.remove(service);
                Ok(())
            }
            Fact::RestartAbandoned { service, .. } => {
                let epoch = self.epochs.get(service).copied().unwrap_or(0);
                for instance in
                    self.instances.values_mut().filter(|i| i.id.service == *service && i.is_live())
                {
                    instance.epoch = epoch;
                }
                Ok(())
            }
            Fact::MaintenanceOn { message } => {
                self.maintenance = Some(message.clone());
                Ok(())
            }
            Fact::MaintenanceOff => {
                self.maintenance.take().map(|_| ()).ok_or_else(|| illegal("it is off".into()))
            }
            Fact::PurgeAsked { purge, .. } if *purge <= self.last_purge => {
                Err(illegal(format!("purge {purge} is not new")))
            }
            Fact::PurgeAsked { purge, service, paths, paths_more } => {
                self.last_purge = *purge;
                let (service, paths, paths_more) = (service.clone(), paths.clone(), *paths_more);
                let about = PurgeAbout::Asked { purge: *purge, service, paths, paths_more };
                let (by, cache, hook) = (event.actor.clone(), CachePurge::UnderWay, HookPurge::None);
                purge::keep(&mut self.purges, PurgeAccount { at, by, about, cache, hook });
                Ok(())
            }
            Fact::CachePurged { purge, answers, failure } => {
                let asked = self.purges.iter_mut().find(|one| one.awaits_cache(*purge));
                let asked = asked.ok_or_else(|| illegal(format!("purge {purge} is not under way")))?;
                asked.cache = match failure.clone() {
                    None => CachePurge::Done { at, answers: *answers },
                    Some(why) => CachePurge::Failed { at, why },
                };
                Ok(())
            }
            Fact::PurgeDue { release, purge, rollout } => {
                let due = PurgeDue { release: *release, since: at, by: event.actor.clone() };
                let about = self.purge_about(&due.by, *purge, *rollout);
                purge::hook_due(&mut self.purges, &due, about);
                self.purge = Some(due);
                Ok(())
            }
            Fact::Purged { release, attempts, failure } => {
                self.purge = None;
                let (release, attempts, failure) = (*release, *attempts, failure.clone());
                let purged = Purged { at, release, attempts, failure };
                purge::hook_asked(&mut self.purges, &purged);
                self.purged = Some(purged);
                Ok(())
            }
            Fact::TakenDown => {
                self.power = Power::Down { by: event.actor.clone(), at };
                self.warm = None;
                self.leaving.clear();
                self.resting = self.stable.take().or(self.resting);
                self.stable_since = None;
                Ok(())
            }

            Fact::CertificateObtained { names, source, how, until, digest, failing_since, asked_by } => {
                let known = self.certificates.entry(certificate::key_of(names)).or_default();
                (known.digest, known.until) = (Some(digest.clone()), Some(*until));
                (known.trouble, known.asked_by) = (None, None);
                let (source, until, failing_since) = (source.clone(), *until, *failing_since);
                let what = CertificateChange::Obtained { source, how: *how, until, failing_since };
                if *how != CertificateGain::Kept || failing_since.is_some() || asked_by.is_some() {
                    self.tell_of_certificate(at, names, what, asked_by.clone());
                }
                Ok(())
            }
            Fact::CertificateFailed { names, source, code, why, until, since, asked_by, .. } => {
                let known = self.certificates.entry(certificate::key_of(names)).or_default();
                known.trouble = Some(CertificateTrouble { since: *since, code: code.clone() });
                known.told.insert(code.clone(), at);
                (known.until, known.asked_by) = (*until, None);
                let (source, code, why) = (source.clone(), code.clone(), why.clone());
                let what = CertificateChange::Failed { source, code, why, until: *until };
                self.tell_of_certificate(at, names, what, asked_by.clone());
                Ok(())
            }
            Fact::CertificateRetried { names } => {
                let by = Some(event.actor.clone());
                self.certificates.entry(certificate::key_of(names)).or_default().asked_by.clone_from(&by);
                self.tell_of_certificate(at, names, CertificateChange::Retried, by);
                Ok(())
            }
            Fact::CertificateLetGo { names } => {
                let known = self.certificates.remove(&certificate::key_of(names));
                known.map(drop).ok_or_else(|| illegal("nothing is known of it".into()))
            }

            Fact::UpgradeBegun { upgrade, .. } => match &self.upgrade {
                Some(UpgradeUnderWay { upgrade, .. }) => Err(illegal(format!("{} is under way", upgrade.id))),
                None => {
                    self.upgrade = Some(UpgradeUnderWay { upgrade: upgrade.clone(), since: at });
                    Ok(())
                }
            },
            Fact::ProxyHandedOver { upgrade, .. } if self.upgrades(upgrade) => Ok(()),
            Fact::UpgradeEnded { upgrade, end } if self.upgrades(&upgrade.id) => {
                self.upgrade = None;
                let over = UpgradeOver { upgrade: upgrade.clone(), at, end: end.clone() };
                push_bounded(&mut self.upgrades, over, UPGRADES_MAX);
                Ok(())
            }
            Fact::ProxyHandedOver { .. } | Fact::UpgradeEnded { .. } => {
                Err(illegal("it is not under way".into()))
            }
        }
    }

    /// Whether this is the upgrade of the server that is under way.
    pub(crate) fn upgrades(&self, id: &str) -> bool {
        self.upgrade.as_ref().is_some_and(|under_way| under_way.upgrade.id == id)
    }

    pub(crate) fn active(
        &mut self,
        illegal: &impl Fn(String) -> IllegalTransition,
    ) -> Result<&mut Rollout, IllegalTransition> {
        self.rollout.as_mut().ok_or_else(|| illegal("no rollout is under way".into()))
    }

    fn turn(
        &mut self,
        id: &crate::id::InstanceId,
        illegal: &impl Fn(String) -> IllegalTransition,
        next: impl FnOnce(&mut Instance) -> Option<InstanceState>,
    ) -> Result<(), IllegalTransition> {
        let instance = self.instances.get_mut(id).ok_or_else(|| illegal(format!("no {id}")))?;
        let before = instance.state.name();
        let crashes = instance.crashes;
        match next(instance) {
            Some(state) => {
                instance.state = state;
                Ok(())
            }
            None => {
                instance.crashes = crashes;
                Err(illegal(format!("{id} is {before}")))
            }
        }
    }

    fn end_rollout(&mut self, at: Timestamp, outcome: RolloutOutcome, warm_until: Option<Timestamp>) {
        let Some(rollout) = self.rollout.take() else { return };
        self.trial = None;
        if outcome == RolloutOutcome::Completed {
            let before = self.stable.replace(rollout.to);
            let replaced = before.or(self.resting.take());
            self.served.insert(rollout.to);
            self.left.remove(&rollout.to);
            self.leaving.remove(&rollout.to);
            // Going forward by name leaves nothing behind that was bad.
            if let (RolloutKind::Rollback, Some(before)) = (rollout.kind, before)
                && before > rollout.to
            {
                self.left.insert(before);
            }
            // Copies of the release before that were beyond control do not hold up those of this one for ever.
            let data = self.releases.get(&rollout.to).map(Arc::clone);
            let is_backing = |service: &ServiceName| {
                data.as_ref().and_then(|r| r.spec.services.get(service)).is_some_and(ServiceSpec::is_backing)
            };
            self.replacements.retain(|service, replacement| !replacement.is_held() || is_backing(service));
            self.stable_since = Some(at);
            self.warm = match (before, warm_until) {
                (Some(release), Some(until)) if release != rollout.to => Some(Warm { release, until }),
                (Some(_) | None, Some(_) | None) => None,
            };
            // Only ever to a lower number: this is what keeps `rollback_target` from going round in circles.
            if let Some(before) = replaced.filter(|before| *before < rollout.to) {
                self.predecessors.entry(rollout.to).or_insert(before);
            }
        } else if rollout.has_shifted() {
            if rollout.is_rolling() {
                // What stood in while copies were exchanged one by one is as much part of the capacity as they are.
                for may_miss in self.leaving.values_mut() {
                    *may_miss = (*may_miss).min(rollout.may_miss());
                }
            }
            let is_warm = self.warm.as_ref().is_some_and(|warm| warm.release == rollout.to);
            let has_copies = self.instances.keys().any(|id| id.release == rollout.to);
            if self.stable.is_some() && !is_warm && has_copies {
                self.leaving.insert(rollout.to, rollout.may_miss());
            }
        }
        push_bounded(
            &mut self.history,
            Arc::new(RolloutSummary {
                number: rollout.number,
                kind: rollout.kind,
                to: rollout.to,
                from: rollout.from,
                strategy: rollout.strategy.name().to_owned(),
                requested_by: rollout.requested_by,
                requested_at: rollout.requested_at,
                reason: rollout.reason,
                switched_at: rollout.switched_at,
                ended_at: at,
                outcome,
            }),
            HISTORY_MAX,
        );
    }

    fn trim_jobs(&mut self) {
        while self.jobs.len() > JOBS_MAX {
            // Kept whatever their age: the job that the rollout is about to hear of, and the contraction that failed,
            // which must not be forgotten and tried again.
            let awaited = self.rollout.as_ref().map(|rollout| rollout.number);
            let due = self.contract_due.as_ref().map(|due| due.release);
            let spare = |job: &&Job| {
                let is_attempt = job.kind == JobKind::Contract && Some(job.release) == due;
                let is_awaited = job.rollout.is_some() && job.rollout == awaited;
                !job.is_running() && !is_attempt && !is_awaited
            };
            let Some(oldest) = self.jobs.values().find(spare).map(|job| job.number) else { return };
            self.jobs.remove(&oldest);
        }
    }
}

/// The order of phases. Aborting follows anything and nothing follows aborting: abort outranks promote.
fn can_follow(before: &Phase, after: &Phase) -> bool {
    match (before, after) {
        (Phase::Aborting { .. }, _) => false,
        (_, Phase::Aborting { .. }) => true,
        (Phase::Planned, Phase::Planned | Phase::Migrating { .. } | Phase::Starting)
        | (Phase::Migrating { .. }, Phase::Starting)
        | (Phase::Starting, Phase::Verifying { .. } | Phase::Shifting { .. })
        | (Phase::Verifying { .. }, Phase::Verifying { .. } | Phase::Shifting { .. })
        | (Phase::Baking { .. }, Phase::Committing) => true,
        (Phase::Shifting { .. }, Phase::Baking { .. } | Phase::Committing) => true,
        (Phase::Shifting { step: from, .. }, Phase::Shifting { step: to, .. }) => to >= from,
        (
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing,
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing,
        ) => false,
    }
}

fn push_bounded<T>(queue: &mut std::collections::VecDeque<T>, item: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}
