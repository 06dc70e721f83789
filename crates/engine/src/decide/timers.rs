//! What the clock alone brings about.

use super::{Clock, Decider, STOP_GRACE};
use crate::event::Fact;
use crate::id::InstanceId;
use crate::instance::{Failure, Instance, InstanceState};
use crate::refusal::Refusal;
use crate::rollout::AbortCause;

impl Decider {
    pub(super) fn timers(&mut self) -> Result<(), Refusal> {
        match self.clock {
            Clock::Holds => return Ok(()),
            Clock::Runs => {}
        }
        let due: Vec<(InstanceId, InstanceState)> = self
            .env
            .instances
            .values()
            .filter(|i| match &i.state {
                InstanceState::Starting { deadline } | InstanceState::Stopping { deadline, .. } => {
                    *deadline <= self.now
                }
                // An instance that the proxy may still send requests to is never stopped, however late it is.
                InstanceState::Draining { deadline, cut, .. } => {
                    self.env.routes.applied >= *cut && *deadline <= self.now
                }
                InstanceState::Ready { .. } | InstanceState::Suspect { .. } | InstanceState::Down { .. } => {
                    false
                }
            })
            .map(|i| (i.id.clone(), i.state.clone()))
            .collect();
        for (instance, state) in due {
            match state {
                InstanceState::Starting { .. } => {
                    let waited = self
                        .env
                        .instances
                        .get(&instance)
                        .map(|known| self.now.since(known.planned_at).as_secs())
                        .unwrap_or_default();
                    let cause = format!("not ready after {waited} s");
                    self.give_up(&instance, Failure { cause, last_lines: Vec::new() })?;
                }
                InstanceState::Stopping { .. } => {
                    self.unverifiable(
                        &instance,
                        "it was told to stop, and killed, and has not reported its end",
                    )?;
                }
                InstanceState::Draining { .. } => self.begin_stop(&instance)?,
                InstanceState::Ready { .. } | InstanceState::Suspect { .. } | InstanceState::Down { .. } => {}
            }
        }
        if let Some((instance, failure)) = self.not_recovered() {
            self.abort(AbortCause::InstanceFailed { instance, failure })?;
        }
        self.free_scales()?;
        if self.env.warm.as_ref().is_some_and(|warm| warm.until <= self.now) {
            self.cool()?;
        }
        Ok(())
    }

    /// A copy that the rollout has waited for long enough. It may be asked by who looks at the new version before others
    /// do, so it goes as all of them go when a rollout turns back.
    fn not_recovered(&self) -> Option<(InstanceId, Failure)> {
        let late = |i: &&Instance| self.env.recovery_deadline(i).is_some_and(|deadline| deadline <= self.now);
        let instance = self.env.instances.values().find(late)?;
        let (InstanceState::Suspect { since, why } | InstanceState::Down { since, why }) = &instance.state
        else {
            return None;
        };
        let cause = format!("ready once, and not any more for {} s: {why}", self.now.since(*since).as_secs());
        Some((instance.id.clone(), Failure { cause, last_lines: Vec::new() }))
    }

    /// Tells an instance that has no requests left to stop.
    pub(super) fn begin_stop(&mut self, instance: &InstanceId) -> Result<(), Refusal> {
        let timeout = self
            .env
            .service(instance.release, &instance.service)
            .map_or(STOP_GRACE, |spec| spec.stop.timeout);
        let deadline = self.now + timeout + STOP_GRACE;
        self.follow(Fact::InstanceStopping { instance: instance.clone(), deadline })?;
        self.stop(instance);
        Ok(())
    }
}
