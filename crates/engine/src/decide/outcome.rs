//! What drivers report. Everything here may come late, twice, or never.

use super::Decider;
use crate::environment::Replacement;
use crate::event::Fact;
use crate::id::InstanceId;
use crate::input::Outcome;
use crate::instance::{Failure, InstanceEnd, InstanceState};
use crate::refusal::Refusal;
use crate::rollout::{AbortCause, Phase};
use crate::time::Timestamp;
use std::time::Duration;

/// First wait before a copy that failed outside a rollout is replaced; doubles up to the maximum. The shim has
/// already tried several times by then, so haste would only burn CPU beside the copies that still serve.
const REPLACE_AFTER_MIN: Duration = Duration::from_secs(5);
const REPLACE_AFTER_MAX: Duration = Duration::from_secs(300);

/// A copy that failed this long after the one before it is a new story: it starts with the first wait again.
const FAILURES_FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

impl Decider {
    pub(super) fn outcome(&mut self, outcome: &Outcome) -> Result<(), Refusal> {
        match outcome {
            Outcome::InstanceStarted { instance, address } => match self.env.instances.get(instance) {
                Some(known) if known.is_live() && known.address != *address => {
                    self.emit(Fact::InstanceStarted { instance: instance.clone(), address: address.clone() })
                }
                Some(_) | None => self.stale(instance),
            },
            Outcome::InstanceReady { instance } => match self.state_of(instance) {
                Some(
                    InstanceState::Starting { .. }
                    | InstanceState::Suspect { .. }
                    | InstanceState::Down { .. },
                ) => self.emit(Fact::InstanceReady { instance: instance.clone() }),
                Some(
                    InstanceState::Ready { .. }
                    | InstanceState::Draining { .. }
                    | InstanceState::Stopping { .. },
                )
                | None => self.stale(instance),
            },
            Outcome::InstanceSuspect { instance, why } => match self.state_of(instance) {
                Some(InstanceState::Ready { .. }) => {
                    self.emit(Fact::InstanceSuspect { instance: instance.clone(), why: why.clone() })
                }
                Some(
                    InstanceState::Starting { .. }
                    | InstanceState::Suspect { .. }
                    | InstanceState::Down { .. }
                    | InstanceState::Draining { .. }
                    | InstanceState::Stopping { .. },
                )
                | None => self.stale(instance),
            },
            Outcome::InstanceDown { instance, why } => match self.state_of(instance) {
                Some(
                    InstanceState::Starting { .. }
                    | InstanceState::Ready { .. }
                    | InstanceState::Suspect { .. },
                ) => self.emit(Fact::InstanceDown { instance: instance.clone(), why: why.clone() }),
                Some(
                    InstanceState::Down { .. }
                    | InstanceState::Draining { .. }
                    | InstanceState::Stopping { .. },
                )
                | None => self.stale(instance),
            },
            Outcome::InstanceFailed { instance, failure } => self.gone(instance, failure.clone()),
            Outcome::InstanceStopped { instance, exit } => {
                self.gone(instance, Failure { cause: format!("it ended: {exit}"), last_lines: Vec::new() })
            }
            Outcome::InstanceUnverifiable { instance, why } => {
                let known = self.env.instances.contains_key(instance);
                if !known {
                    return self.stale(instance);
                }
                self.unverifiable(instance, why)
            }
            Outcome::InstanceDrained { instance } => match self.state_of(instance) {
                Some(InstanceState::Draining { cut, .. }) if self.env.routes.applied >= cut => {
                    self.begin_stop(instance)
                }
                Some(
                    InstanceState::Starting { .. }
                    | InstanceState::Ready { .. }
                    | InstanceState::Suspect { .. }
                    | InstanceState::Down { .. }
                    | InstanceState::Draining { .. }
                    | InstanceState::Stopping { .. },
                )
                | None => self.stale(instance),
            },
            Outcome::RoutesApplied { generation } => {
                if *generation > self.env.routes.applied && *generation <= self.env.routes.generation {
                    self.emit(Fact::RoutesApplied { generation: *generation })
                } else {
                    self.ignore(format!("{generation} is not awaited"));
                    Ok(())
                }
            }
            Outcome::RoutesRefused { generation, why } => {
                if *generation != self.env.routes.generation || self.env.routes.refused.as_ref() == Some(why)
                {
                    self.ignore(format!("{generation} is not the current one, or its refusal is known"));
                    return Ok(());
                }
                self.emit(Fact::RoutesRefused { generation: *generation, why: why.clone() })?;
                self.abort(AbortCause::RoutesRefused { generation: *generation, why: why.clone() })
            }
            Outcome::CachePurged { purge, answers, failure } => {
                self.cache_purged(*purge, *answers, failure.as_ref())
            }
            Outcome::Purged { since, attempts, failure } => self.purged(*since, *attempts, failure.as_ref()),
            Outcome::JobEnded { job, end } => {
                if self.env.running_job(*job).is_none() {
                    self.ignore(format!("{job} is not running"));
                    return Ok(());
                }
                self.emit(Fact::JobEnded { job: *job, end: end.clone() })
            }
        }
    }

    fn state_of(&self, instance: &InstanceId) -> Option<InstanceState> {
        self.env.instances.get(instance).map(|known| known.state.clone())
    }

    fn stale(&mut self, instance: &InstanceId) -> Result<(), Refusal> {
        let state = self.env.instances.get(instance).map_or("gone", |known| known.state.name());
        self.ignore(format!("{instance} is {state}"));
        Ok(())
    }

    /// The process is no more. Whether that is a failure depends on whether it was asked to go.
    pub(super) fn gone(&mut self, instance: &InstanceId, failure: Failure) -> Result<(), Refusal> {
        let Some(known) = self.env.instances.get(instance) else { return self.stale(instance) };
        if known.is_live() {
            return self.failed(instance, failure);
        }
        let how = InstanceEnd::Stopped { exit: failure.cause };
        self.emit(Fact::InstanceEnded { instance: instance.clone(), how })
    }

    fn failed(&mut self, instance: &InstanceId, failure: Failure) -> Result<(), Refusal> {
        let is_fresh_of_restart = self.is_fresh_of_restart(instance);
        let how = InstanceEnd::Failed { failure: failure.clone() };
        self.emit(Fact::InstanceEnded { instance: instance.clone(), how })?;
        self.after_failure(instance, failure, is_fresh_of_restart)
    }

    /// Did not become ready in time. It is stopped like any other, so that a server that restarts in between still
    /// knows that it has to go.
    pub(super) fn give_up(&mut self, instance: &InstanceId, failure: Failure) -> Result<(), Refusal> {
        let is_fresh_of_restart = self.is_fresh_of_restart(instance);
        self.begin_stop(instance)?;
        self.after_failure(instance, failure, is_fresh_of_restart)
    }

    fn after_failure(
        &mut self,
        instance: &InstanceId,
        failure: Failure,
        is_fresh_of_restart: bool,
    ) -> Result<(), Refusal> {
        if self.counts_against_rollout(instance) {
            return self.abort(AbortCause::InstanceFailed { instance: instance.clone(), failure });
        }
        if is_fresh_of_restart {
            return self.emit(Fact::RestartAbandoned { service: instance.service.clone(), failure });
        }
        self.delay_replacement(instance, REPLACE_AFTER_MIN)
    }

    /// Is it one of the copies that the active rollout brings in, or data that it waits for?
    fn counts_against_rollout(&self, instance: &InstanceId) -> bool {
        let Some(rollout) = &self.env.rollout else { return false };
        if let Phase::Aborting { .. } = rollout.phase {
            return false;
        }
        let is_backing =
            self.env.service(instance.release, &instance.service).is_some_and(|spec| spec.is_backing());
        // Data is the same for both sides: once traffic moves, its loss says nothing about the new one.
        if is_backing { !rollout.has_shifted() } else { rollout.to == instance.release }
    }

    /// The replacement that a restart started, while copies from before still run.
    fn is_fresh_of_restart(&self, instance: &InstanceId) -> bool {
        let Some(known) = self.env.instances.get(instance) else { return false };
        let has_older =
            self.env.live(instance.release, &instance.service).any(|other| other.epoch < known.epoch);
        known.epoch > 0 && has_older
    }

    fn delay_replacement(&mut self, instance: &InstanceId, first_wait: Duration) -> Result<(), Refusal> {
        let service = instance.service.clone();
        let before = self.env.replacements.get(&service);
        if before.is_some_and(Replacement::is_held) {
            return Ok(());
        }
        let recent = before.filter(|before| self.now.since(before.not_before) < FAILURES_FORGOTTEN_AFTER);
        let failures = recent.map_or(0, |before| before.failures) + 1;
        let wait = if failures == 1 {
            first_wait
        } else {
            REPLACE_AFTER_MIN.saturating_mul(2u32.saturating_pow(failures - 1)).min(REPLACE_AFTER_MAX)
        };
        let not_before = self.now + wait;
        self.emit(Fact::ReplacementDelayed { service, failures, not_before })
    }

    /// What may still run but is not provably ours is neither killed nor, where a second copy could do harm,
    /// replaced: a worker would work twice, a database would have two masters. `fairway restart` says otherwise.
    pub(super) fn unverifiable(&mut self, instance: &InstanceId, why: &str) -> Result<(), Refusal> {
        let was_live = self.env.instances.get(instance).is_some_and(crate::instance::Instance::is_live);
        let how = InstanceEnd::Unverifiable { why: why.to_owned() };
        self.emit(Fact::InstanceEnded { instance: instance.clone(), how })?;
        let is_backing =
            self.env.service(instance.release, &instance.service).is_some_and(|spec| spec.is_backing());
        let shares_requests = self.env.takes(instance.release, &instance.service);
        if is_backing || (was_live && !shares_requests) {
            let not_before = Timestamp(u64::MAX);
            let service = instance.service.clone();
            return self.emit(Fact::ReplacementDelayed { service, failures: 0, not_before });
        }
        // The first replacement comes at once, as requests are waiting for it; more of them wait like any other.
        if was_live { self.delay_replacement(instance, Duration::ZERO) } else { Ok(()) }
    }
}
