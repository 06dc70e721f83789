//! Decisions: one verb, one file. Every decision works on a copy of one environment, so that what is refused has
//! changed nothing.

use std::time::Duration;

use crate::effect::Effect;
use crate::environment::Environment;
use crate::event::{Event, Fact};
use crate::id::{EnvironmentKey, InstanceId};
use crate::input::{Command, Input};
use crate::instance::InstanceState;
use crate::job::Job;
use crate::refusal::Refusal;
use crate::rollout::Phase;
use crate::state::State;
use crate::time::Timestamp;

mod abort;
mod advance;
mod approve;
mod certificate;
mod contract;
mod converge;
mod deploy;
mod down;
mod job;
mod judge;
mod maintenance;
mod observe;
mod outcome;
mod pause;
mod promote;
mod purge;
mod restart;
mod retry;
mod rollback;
mod scale;
mod settings;
mod size;
mod timers;
mod upgrade;

pub use scale::REPLICAS_MAX;

/// The actor of what follows by itself.
pub const SELF: &str = "fairway";

/// A single input settles in a handful of rounds (one per phase passed); more is a defect, not work.
const ROUNDS_MAX: u32 = 64;

/// After the stop timeout the shim kills the group; this much later an instance that still has not ended is shown as
/// beyond control.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(30);

/// Readiness is timed by the shim, which knows the cause; the engine's own deadline is the backstop for a shim that
/// does not answer.
pub(crate) const READY_BACKSTOP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// To be made durable, in this order.
    pub events: Vec<Event>,
    /// To be released only after that.
    pub effects: Vec<Effect>,
    /// Why an outcome changed nothing (late, doubled, or of something that is gone).
    pub ignored: Option<String>,
}

/// Decides what follows from one input. Pure: the same state, time and input give the same decision.
///
/// # Errors
/// A typed refusal; nothing has changed then.
pub fn decide(state: &State, now: Timestamp, input: &Input) -> Result<Decision, Refusal> {
    match input {
        Input::Command { environment, by, command } => {
            let mut decider = Decider::open(state, environment, now, by);
            if state.environments.contains_key(environment) {
                decider.command(command)?;
            } else {
                match command {
                    Command::Deploy { .. } => decider.emit(Fact::EnvironmentCreated)?,
                    Command::Promote { .. }
                    | Command::Pause
                    | Command::Resume
                    | Command::Abort { .. }
                    | Command::Retry
                    | Command::Rollback { .. }
                    | Command::Approve
                    | Command::Reject { .. }
                    | Command::Scale { .. }
                    | Command::Autoscale { .. }
                    | Command::Restart { .. }
                    | Command::RunJob { .. }
                    | Command::MaintenanceOn { .. }
                    | Command::MaintenanceOff
                    | Command::Purge { .. }
                    | Command::RetryCertificate { .. }
                    | Command::Down => {
                        return Err(Refusal::UnknownEnvironment { environment: environment.clone() });
                    }
                }
                decider.command(command)?;
            }
            decider.settle()
        }
        Input::Outcome { environment, outcome } => {
            heard(state, environment, now, |decider| decider.outcome(outcome))
        }
        Input::Observed { environment, observation } => {
            heard(state, environment, now, |decider| decider.observe(observation))
        }
        Input::Measured { environment, rollout, gate, due, reading } => {
            heard(state, environment, now, |decider| decider.measured(*rollout, *gate, *due, reading))
        }
        Input::Alert { environment, alert, critical, firing, why } => {
            heard(state, environment, now, |decider| decider.alert(alert, *critical, *firing, why))
        }
        Input::Sized { environment, service, reading } => {
            heard(state, environment, now, |decider| decider.size(service, reading))
        }
        Input::Certificate { environment, names, source, step } => {
            certificate::tell(state, now, environment, names, source, step)
        }
        Input::Upgrade { upgrade, step } => upgrade::tell(state, now, upgrade, step),
        Input::Tick => {
            // Every environment, due or not: a server that starts finishes this way whatever its predecessor had begun.
            let mut all = Decision::default();
            let mut refused = None;
            for key in state.environments.keys() {
                match Decider::open(state, key, now, SELF).settle() {
                    Ok(decision) => {
                        all.events.extend(decision.events);
                        all.effects.extend(decision.effects);
                    }
                    // A defect in one environment must not stop the clock of the others.
                    Err(refusal) => refused = Some(refusal),
                }
            }
            match refused {
                Some(refusal) if all.events.is_empty() => Err(refusal),
                Some(_) | None => Ok(all),
            }
        }
    }
}

/// What a driver or a source said. It may come late, twice, or for an environment that is gone.
fn heard(
    state: &State,
    environment: &EnvironmentKey,
    now: Timestamp,
    take: impl FnOnce(&mut Decider) -> Result<(), Refusal>,
) -> Result<Decision, Refusal> {
    if !state.environments.contains_key(environment) {
        let ignored = Some(format!("environment {environment} is unknown"));
        return Ok(Decision { ignored, ..Decision::default() });
    }
    let mut decider = Decider::open(state, environment, now, SELF);
    // What one driver says must not fail another copy for being late: after a start the others may only not have been
    // heard yet. Deadlines are for the tick, which the server gives once everybody has reported.
    decider.clock = Clock::Holds;
    take(&mut decider)?;
    decider.settle()
}

/// When the next `Tick` has something to do.
#[must_use]
pub fn next_deadline(state: &State) -> Option<Timestamp> {
    state.environments.values().filter_map(deadline_of).min()
}

fn deadline_of(environment: &Environment) -> Option<Timestamp> {
    let instances = environment.instances.values().filter_map(|i| match &i.state {
        InstanceState::Starting { deadline } | InstanceState::Stopping { deadline, .. } => Some(*deadline),
        // Before the proxy has let go of it, the clock has no say.
        InstanceState::Draining { deadline, cut, .. } => {
            (environment.routes.applied >= *cut).then_some(*deadline)
        }
        InstanceState::Suspect { .. } | InstanceState::Down { .. } => environment.recovery_deadline(i),
        InstanceState::Ready { .. } => None,
    });
    instances
        .chain(environment.replacement_deadline())
        .chain(environment.offer_deadline())
        .chain(environment.warm.as_ref().map(|warm| warm.until))
        .chain(environment.contract_deadline())
        .chain(environment.autoscalers.values().filter_map(|scaler| scaler.pin.map(|pin| pin.until)))
        .chain(environment.rollout_deadline())
        .min()
}

/// Effects that are under way according to the record: what a server hands to its drivers again when it starts.
/// Doing them twice is the same as once.
#[must_use]
pub fn outstanding(state: &State) -> Vec<Effect> {
    let mut effects = Vec::new();
    for (key, environment) in &state.environments {
        for instance in environment.instances.values() {
            match instance.state {
                InstanceState::Starting { .. } => effects
                    .push(Effect::StartInstance { environment: key.clone(), instance: instance.id.clone() }),
                InstanceState::Stopping { .. } => effects
                    .push(Effect::StopInstance { environment: key.clone(), instance: instance.id.clone() }),
                InstanceState::Ready { .. }
                | InstanceState::Suspect { .. }
                | InstanceState::Down { .. }
                | InstanceState::Draining { .. } => {}
            }
        }
        for job in environment.jobs.values().filter(|job| job.is_running()) {
            let (key, number) = (key.clone(), job.number);
            effects.push(if is_awaited(environment, job) {
                Effect::RunJob { environment: key, job: number }
            } else {
                Effect::CancelJob { environment: key, job: number }
            });
        }
        if environment.routes.generation.0 > 0 {
            effects.push(Effect::ApplyRoutes {
                environment: key.clone(),
                generation: environment.routes.generation,
            });
        }
    }
    effects
}

/// Is the job still asked for? One of a rollout is as long as that rollout is under way and has not turned back.
fn is_awaited(environment: &Environment, job: &Job) -> bool {
    let Some(asked_by) = job.rollout else { return true };
    environment
        .rollout
        .as_ref()
        .is_some_and(|rollout| rollout.number == asked_by && !matches!(rollout.phase, Phase::Aborting { .. }))
}

/// Whether deadlines that have passed count in this decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    Runs,
    Holds,
}

/// One decision in the making: a copy of the environment with the facts so far applied.
pub(crate) struct Decider {
    pub(crate) env: Environment,
    pub(crate) now: Timestamp,
    pub(crate) clock: Clock,
    actor: String,
    events: Vec<Event>,
    effects: Vec<Effect>,
    ignored: Option<String>,
}

impl Decider {
    fn open(state: &State, key: &EnvironmentKey, now: Timestamp, actor: &str) -> Self {
        let env = state.environments.get(key).cloned().unwrap_or_else(|| Environment::new(key.clone()));
        let actor = actor.to_owned();
        Self { env, now, clock: Clock::Runs, actor, events: Vec::new(), effects: Vec::new(), ignored: None }
    }

    pub(crate) fn actor(&self) -> &str {
        &self.actor
    }

    /// Puts a fact on the record, as caused by whoever gave the input.
    pub(crate) fn emit(&mut self, fact: Fact) -> Result<(), Refusal> {
        let actor = self.actor.clone();
        self.emit_as(actor, fact)
    }

    /// Puts on the record what follows by itself.
    pub(crate) fn follow(&mut self, fact: Fact) -> Result<(), Refusal> {
        self.emit_as(SELF.to_owned(), fact)
    }

    pub(crate) fn emit_as(&mut self, actor: String, fact: Fact) -> Result<(), Refusal> {
        let event = Event { at: self.now, actor, environment: self.env.key.clone(), fact };
        if event.fact != Fact::EnvironmentCreated {
            self.env.apply(&event)?;
        }
        self.events.push(event);
        Ok(())
    }

    pub(crate) fn ignore(&mut self, why: impl Into<String>) {
        self.ignored = Some(why.into());
    }

    pub(crate) fn release_effect(&mut self, effect: Effect) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    pub(crate) fn start(&mut self, instance: &InstanceId) {
        self.release_effect(Effect::StartInstance {
            environment: self.env.key.clone(),
            instance: instance.clone(),
        });
    }

    pub(crate) fn stop(&mut self, instance: &InstanceId) {
        self.release_effect(Effect::StopInstance {
            environment: self.env.key.clone(),
            instance: instance.clone(),
        });
    }

    fn command(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::Deploy { spec, reason, if_release, wait } => {
                self.deploy(spec, reason.clone(), *if_release, *wait)
            }
            Command::Promote { full } => self.promote(*full),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Abort { reason } => self.abort_command(reason.clone()),
            Command::Retry => self.retry(),
            Command::Rollback { to, reason } => self.rollback(*to, reason.clone()),
            Command::Approve => self.approve(),
            Command::Reject { reason } => self.reject(reason.clone()),
            Command::Scale { service, replicas } => self.scale(service, *replicas),
            Command::Autoscale { service } => self.autoscale(service),
            Command::Restart { service } => self.restart(service.as_ref()),
            Command::RunJob { kind } => self.run_job_command(kind),
            Command::MaintenanceOn { message } => self.maintenance_on(message),
            Command::MaintenanceOff => self.maintenance_off(),
            Command::Purge { service, paths } => self.purge(service.clone(), paths),
            Command::RetryCertificate { names } => self.retry_certificate(names),
            Command::Down => self.down(),
        }
    }

    /// Carries on until nothing more follows.
    fn settle(mut self) -> Result<Decision, Refusal> {
        for _ in 0..ROUNDS_MAX {
            let before = self.events.len();
            self.timers()?;
            self.advance()?;
            self.contraction()?;
            self.converge()?;
            if self.events.len() == before {
                return Ok(Decision { events: self.events, effects: self.effects, ignored: self.ignored });
            }
        }
        Err(Refusal::Unsettled { rounds: ROUNDS_MAX })
    }
}
