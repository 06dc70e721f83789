//! The world around the engine: a clock that jumps, a server that crashes, drivers that are late, and people.

mod drivers;
mod watching;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fairway_engine::id::{
    EnvironmentKey, EnvironmentName, Generation, InstanceId, JobNumber, ProjectName, ReleaseNumber,
    ServiceName,
};
use fairway_engine::time::Timestamp;
use fairway_engine::{
    Command, Decision, Effect, Environment, Event, Fact, Input, JobEnd, Outcome, Phase, Refusal,
    RolloutOutcome, RouteTable, State, decide, next_deadline, outstanding,
};

use crate::check::{Checker, Violation};
use crate::machine::{Machine, Proc, Run, Turn, failure};
use crate::proxy::{Proxy, Taken, instances};
use crate::rng::Rng;
use crate::spec::Quality;
use crate::traffic::Traffic;
use crate::{operator, trace};

/// Some day in 2027.
const START_MS: u64 = 1_800_000_000_000;

/// Events that a failing seed shows.
const SHOWN_MAX: usize = 30;

/// After the faults stop: everything ends within this, deadlines, holds, waits after failures and warm times included.
const HEALING_MS_MAX: u64 = 7 * 24 * 3_600_000;
const HEALING_STEPS_MAX: u32 = 60_000;

/// What is about to happen.
#[derive(Clone, Debug)]
enum Next {
    Deliver(Outcome),
    Effect(Effect),
    Process(InstanceId, Turn),
    Job(JobNumber, JobEnd),
    Table(Generation, Arc<RouteTable>),
    ProxyDies,
    ProxyReturns,
    Drained(InstanceId),
    Restart,
    Person,
    Mishap,
    Resync,
    Visitors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing goes wrong that a release does not bring itself.
    Calm,
    Stormy,
}

#[derive(Debug)]
pub struct World {
    pub rng: Rng,
    pub key: EnvironmentKey,
    /// True time; the server's clock is this plus `skew_ms`.
    now_ms: u64,
    skew_ms: i64,
    queue: BTreeMap<(u64, u64), Next>,
    queued: u64,
    pub state: State,
    pub log: Vec<Event>,
    is_server_up: bool,
    pub machine: Machine,
    pub proxy: Proxy,
    pub traffic: Traffic,
    /// When the load was last looked at.
    sized_ms: u64,
    healing_from_ms: u64,
    weather: Weather,
    healing: bool,
    /// People act, at random moments.
    has_people: bool,
    /// They deploy canaries, and then wait for what the evidence says.
    pub is_patient: bool,
    checker: Option<Checker>,
    pub hash: trace::Hash,
    pub shown: VecDeque<String>,
    pub verbose: bool,
    pub steps: u64,
    /// Of these, visitors coming.
    pub visits: u64,
    /// A step that seems to be none: the last deadline at which a tick changed nothing.
    pub decisions: u64,
    /// Instances that somebody was told to stop.
    stopped: BTreeSet<InstanceId>,
}

impl World {
    #[must_use]
    pub fn new(seed: u64, weather: Weather, has_people: bool, is_checked: bool) -> Self {
        let key = EnvironmentKey {
            project: ProjectName::new("shop").expect("a valid name"),
            environment: EnvironmentName::new("staging").expect("a valid name"),
        };
        let mut world = Self {
            rng: Rng::new(seed),
            key,
            now_ms: START_MS,
            skew_ms: 0,
            queue: BTreeMap::new(),
            queued: 0,
            state: State::default(),
            log: Vec::new(),
            is_server_up: true,
            machine: Machine::default(),
            proxy: Proxy::default(),
            traffic: Traffic::new(START_MS),
            sized_ms: START_MS,
            healing_from_ms: 0,
            weather,
            healing: false,
            has_people,
            is_patient: false,
            checker: is_checked.then(Checker::default),
            hash: trace::Hash::default(),
            shown: VecDeque::new(),
            verbose: false,
            steps: 0,
            visits: 0,
            decisions: 0,
            stopped: BTreeSet::new(),
        };
        if has_people {
            world.after(1, Next::Person);
        }
        if weather == Weather::Stormy {
            world.after(5_000, Next::Mishap);
            world.after(60_000, Next::Resync);
            world.after(1_000, Next::Visitors);
        }
        world
    }

    #[must_use]
    pub fn clock(&self) -> Timestamp {
        Timestamp(self.now_ms.saturating_add_signed(self.skew_ms))
    }

    #[must_use]
    pub fn environment(&self) -> Option<&Environment> {
        self.state.environments.get(&self.key)
    }

    fn is_stormy(&self) -> bool {
        self.weather == Weather::Stormy && !self.healing
    }

    fn after(&mut self, ms: u64, next: Next) {
        self.queued += 1;
        self.queue.insert((self.now_ms + ms, self.queued), next);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.checker.is_none() && !self.verbose {
            return;
        }
        let line = format!("{:>9} {}", self.now_ms - START_MS, line());
        if self.verbose {
            println!("{line}");
        }
        if self.shown.len() >= SHOWN_MAX {
            self.shown.pop_front();
        }
        self.shown.push_back(line);
    }

    /// One thing happens: the next in the queue, or the server's own deadline.
    ///
    /// # Errors
    /// The invariant that no longer holds.
    pub fn step(&mut self) -> Result<bool, Violation> {
        self.steps += 1;
        let due = self.is_server_up.then(|| next_deadline(&self.state)).flatten();
        let due_ms = due.map(|due| {
            i64::try_from(due.0).unwrap_or(i64::MAX).saturating_sub(self.skew_ms).max(0).unsigned_abs()
        });
        let queued_ms = self.queue.keys().next().map(|(at, _)| *at);
        match (due_ms, queued_ms) {
            (None, None) => return Ok(false),
            (Some(due), queued) if queued.is_none_or(|queued| due <= queued) => {
                self.now_ms = self.now_ms.max(due);
                self.tick()?;
            }
            (_, Some(at)) => {
                self.now_ms = self.now_ms.max(at);
                if let Some((_, next)) = self.queue.pop_first() {
                    self.happen(next)?;
                }
            }
            (Some(_), None) => return Ok(false),
        }
        self.look()?;
        Ok(true)
    }

    fn tick(&mut self) -> Result<(), Violation> {
        self.input(&Input::Tick)?;
        if self.is_server_up
            && let Some(due) = next_deadline(&self.state)
            && due <= self.clock()
        {
            return Err(Violation::new(
                "a deadline that is due is dealt with",
                format!("{due} is past at {}, and a tick did nothing about it", self.clock()),
            ));
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Violation> {
        // A table may still lead to what was told to stop only if the engine was told otherwise before.
        if self.checker.is_some() && !self.proxy.is_down {
            let served = instances(&self.proxy.serves.1);
            if let Some(id) = self.stopped.iter().find(|id| served.contains(*id)) {
                return Err(Violation::new(
                    "what the proxy sends requests to is not told to stop",
                    format!("{id} is in {} and was told to stop", self.proxy.serves.0),
                ));
            }
        }
        Ok(())
    }

    /// Gives one input to the engine, makes its decision durable and releases its effects, unless the server dies in
    /// between.
    ///
    /// # Errors
    /// The invariant that no longer holds.
    pub fn input(&mut self, input: &Input) -> Result<Option<Refusal>, Violation> {
        if !self.is_server_up {
            return Ok(None);
        }
        self.decisions += 1;
        let decision = match decide(&self.state, self.clock(), input) {
            Ok(decision) => decision,
            Err(refusal) => {
                let is_defect = match refusal {
                    Refusal::Illegal(_) | Refusal::Unsettled { .. } => true,
                    _ => !matches!(input, Input::Command { .. }),
                };
                if is_defect {
                    return Err(Violation::new("the engine decides", format!("{input:?}: {refusal}")));
                }
                self.note(|| format!("  refused: {refusal}"));
                return Ok(Some(refusal));
            }
        };
        let crash = if self.is_stormy() && !decision.events.is_empty() && self.rng.per_mille(15) {
            Some(self.rng.index(4))
        } else {
            None
        };
        match crash {
            None => {
                self.make_durable(&decision, decision.events.len(), input)?;
                for effect in decision.effects {
                    self.release(effect);
                }
            }
            Some(0) => self.crash("before its decision was durable"),
            Some(1) => {
                let kept = self.rng.index(decision.events.len() + 1);
                self.make_durable(&decision, kept, input)?;
                self.crash("with a part of its decision durable");
            }
            Some(_) => {
                self.make_durable(&decision, decision.events.len(), input)?;
                let done = self.rng.index(decision.effects.len() + 1);
                for effect in decision.effects.into_iter().take(done) {
                    self.release(effect);
                }
                self.crash("with a part of its effects released");
            }
        }
        Ok(None)
    }

    fn make_durable(&mut self, decision: &Decision, kept: usize, input: &Input) -> Result<(), Violation> {
        if decision.events.is_empty() {
            return Ok(());
        }
        let before = self.checker.is_some().then(|| self.state.clone());
        for event in &decision.events[..kept] {
            self.hash.add(event);
            self.note(|| trace::line(event));
            if let Err(illegal) = self.state.apply(event) {
                return Err(Violation::new("what was decided can be applied", illegal.to_string()));
            }
            self.log.push(event.clone());
        }
        if let (Some(checker), Some(before)) = (&mut self.checker, before) {
            let is_whole = kept == decision.events.len();
            checker.check(&before, &self.state, &self.key, &decision.events[..kept], input, is_whole)?;
        }
        Ok(())
    }

    fn crash(&mut self, when: &str) {
        self.note(|| format!("== the server dies {when}"));
        self.is_server_up = false;
        let away_ms =
            if self.rng.percent(80) { self.rng.between(50, 5_000) } else { self.rng.between(5_000, 200_000) };
        self.after(away_ms, Next::Restart);
    }

    /// Starts the server from what is on the record and nothing else.
    ///
    /// # Errors
    /// The invariant that no longer holds.
    pub fn restart(&mut self) -> Result<(), Violation> {
        self.note(|| "== the server starts".to_owned());
        self.state = replayed(&self.log, &self.state)?;
        self.is_server_up = true;
        self.resync()?;
        for effect in outstanding(&self.state) {
            self.is_still_asked_for(&effect)?;
            self.release(effect);
        }
        self.tick()
    }

    /// A job of a rollout that is over must not run after all because the server was away when it ended.
    fn is_still_asked_for(&self, effect: &Effect) -> Result<(), Violation> {
        let (Effect::RunJob { job, .. }, Some(environment)) = (effect, self.environment()) else {
            return Ok(());
        };
        let asked_by = environment.jobs.get(job).and_then(|job| job.rollout);
        let active = environment.rollout.as_ref().filter(|r| !matches!(r.phase, Phase::Aborting { .. }));
        if asked_by.is_none() || asked_by == active.map(|rollout| rollout.number) {
            return Ok(());
        }
        Err(Violation::new("no job runs for a rollout that is over", job.to_string()))
    }

    /// Drivers look at what there is and say it again.
    fn resync(&mut self) -> Result<(), Violation> {
        let Some(environment) = self.environment() else { return Ok(()) };
        let known: Vec<InstanceId> = environment.instances.keys().cloned().collect();
        for id in known {
            if self.is_stormy() && self.rng.per_mille(10) && self.machine.is_running(&id) {
                let why = "start time does not match".to_owned();
                self.deliver(Outcome::InstanceUnverifiable { instance: id, why })?;
                continue;
            }
            for outcome in self.machine.report(&id) {
                self.deliver(outcome)?;
            }
        }
        let ended: Vec<(JobNumber, JobEnd)> = self
            .machine
            .jobs
            .iter()
            .filter_map(|(job, run)| match run {
                Run::Ended(end) => Some((*job, end.clone())),
                Run::Running => None,
            })
            .collect();
        for (job, end) in ended {
            if self.environment().is_some_and(|environment| environment.running_job(job).is_some()) {
                self.deliver(Outcome::JobEnded { job, end })?;
            }
        }
        self.offer_table();
        Ok(())
    }

    fn deliver(&mut self, outcome: Outcome) -> Result<(), Violation> {
        if !self.is_server_up {
            return Ok(());
        }
        self.note(|| format!("  {outcome:?}"));
        let environment = self.key.clone();
        self.input(&Input::Outcome { environment, outcome }).map(|_| ())
    }

    /// Says something to the server: sometimes late, twice or not at all.
    fn say(&mut self, outcome: Outcome) {
        if !self.is_stormy() {
            return self.after(1, Next::Deliver(outcome));
        }
        if self.rng.percent(2) {
            return;
        }
        if self.rng.percent(4) {
            let late_ms = self.rng.between(1, 20_000);
            self.after(late_ms, Next::Deliver(outcome.clone()));
        }
        let delay_ms =
            if self.rng.percent(8) { self.rng.between(20, 8_000) } else { self.rng.between(0, 20) };
        self.after(delay_ms, Next::Deliver(outcome));
    }

    fn release(&mut self, effect: Effect) {
        if self.checker.is_some()
            && let Effect::StopInstance { instance, .. } = &effect
        {
            self.stopped.insert(instance.clone());
        }
        let delay_ms = if self.is_stormy() && self.rng.percent(5) {
            self.rng.between(10, 5_000)
        } else {
            self.rng.between(0, 3)
        };
        self.after(delay_ms, Next::Effect(effect));
    }

    fn offer_table(&mut self) {
        let Some(environment) = self.environment() else { return };
        let routes = &environment.routes;
        let (generation, table) = (routes.generation, Arc::clone(&routes.table));
        if generation.0 > 0 {
            self.after(1, Next::Table(generation, table));
        }
    }

    fn happen(&mut self, next: Next) -> Result<(), Violation> {
        match next {
            Next::Deliver(outcome) => self.deliver(outcome)?,
            Next::Effect(effect) => self.carry_out(effect),
            Next::Process(id, turn) => self.turn(&id, turn),
            Next::Job(job, end) => {
                if self.machine.jobs.get(&job) == Some(&Run::Running) {
                    self.machine.jobs.insert(job, Run::Ended(end.clone()));
                    self.say(Outcome::JobEnded { job, end });
                }
            }
            Next::Table(generation, table) => self.table_arrives(generation, table),
            Next::ProxyDies => {
                if !self.proxy.is_down {
                    self.proxy.is_down = true;
                    self.traffic.restart();
                    let away_ms = self.rng.between(10, 3_000);
                    self.after(away_ms, Next::ProxyReturns);
                }
            }
            Next::Visitors => {
                self.visits += 1;
                self.visitors()?;
            }
            Next::ProxyReturns => {
                self.proxy.come_back();
                self.note(|| "== the proxy comes back".to_owned());
                self.offer_table();
            }
            Next::Drained(instance) => {
                if !instances(&self.proxy.serves.1).contains(&instance) {
                    self.say(Outcome::InstanceDrained { instance });
                }
            }
            Next::Restart => {
                if !self.is_server_up {
                    self.restart()?;
                }
            }
            Next::Person => {
                if self.has_people && !self.healing {
                    let command = operator::choose(self);
                    self.command(command)?;
                    let pause_ms = if self.is_patient {
                        self.rng.between(60_000, 600_000)
                    } else if self.rng.percent(30) {
                        self.rng.between(1, 500)
                    } else {
                        self.rng.between(500, 60_000)
                    };
                    self.after(pause_ms, Next::Person);
                }
            }
            Next::Mishap => {
                if self.is_stormy() {
                    self.mishap();
                    if self.rng.percent(60) {
                        self.turn_of_fortune()?;
                    }
                    let pause_ms = self.rng.between(1_000, 120_000);
                    self.after(pause_ms, Next::Mishap);
                }
            }
            Next::Resync => {
                if self.is_stormy() {
                    if self.is_server_up {
                        self.resync()?;
                    }
                    self.after(60_000, Next::Resync);
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// The invariant that no longer holds.
    pub fn command(&mut self, (by, command): (String, Command)) -> Result<Option<Refusal>, Violation> {
        self.note(|| format!("> {by}: {}", trace::command(&command)));
        let environment = self.key.clone();
        self.input(&Input::Command { environment, by, command })
    }

    /// The faults stop; everything must come to rest, or wait for a person who is named.
    ///
    /// # Errors
    /// What does not.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.note(|| "== the faults stop".to_owned());
        self.healing = true;
        self.healing_from_ms = self.now_ms;
        self.traffic.is_outage = false;
        self.traffic.are_metrics_down = false;
        self.proxy.come_back();
        self.is_server_up = true;
        self.restart()?;
        let (from_ms, mut steps) = (self.now_ms, 0);
        while self.step()? {
            steps += 1;
            if self.now_ms - from_ms > HEALING_MS_MAX || steps > HEALING_STEPS_MAX {
                return Err(Violation::new(
                    "the environment comes to rest",
                    format!("after {steps} steps and {} s it is still busy", (self.now_ms - from_ms) / 1000),
                ));
            }
            // What was lost before the faults stopped is said again, as drivers do.
            if self.queue.is_empty() && steps % 50 == 49 {
                self.resync()?;
            }
        }
        self.resync()?;
        while self.step()? {}
        self.rests()
    }

    fn rests(&mut self) -> Result<(), Violation> {
        let replayed = replayed(&self.log, &self.state)?;
        let Some(environment) = replayed.environments.get(&self.key) else { return Ok(()) };
        let settled = Checker::rests(environment, &self.proxy.serves);
        settled?;
        for input in [
            Input::Tick,
            Input::Outcome {
                environment: self.key.clone(),
                outcome: Outcome::RoutesApplied { generation: Generation(0) },
            },
        ] {
            let again = decide(&self.state, self.clock(), &input);
            if again.as_ref().map_or(true, |decision| !decision.events.is_empty()) {
                return Err(Violation::new("planning again changes nothing", format!("{again:?}")));
            }
        }
        // What runs is what the record says, no more and no less.
        for id in self.machine.procs.keys().filter(|id| self.machine.is_running(id)) {
            let is_known = environment.instances.contains_key(id);
            let is_given_up = environment.ended.iter().any(|ended| ended.id == *id);
            if !is_known && !is_given_up && !self.was_unverifiable(id) {
                return Err(Violation::new("nothing runs that is not on the record", id.to_string()));
            }
        }
        Ok(())
    }

    fn was_unverifiable(&self, id: &InstanceId) -> bool {
        self.log.iter().any(|event| match &event.fact {
            fairway_engine::Fact::InstanceEnded { instance, how } => {
                instance == id && matches!(how, fairway_engine::InstanceEnd::Unverifiable { .. })
            }
            _ => false,
        })
    }

    /// Services of the serving release, for somebody who looks for one.
    #[must_use]
    pub fn known_services(&self) -> Vec<ServiceName> {
        let Some(environment) = self.environment() else { return Vec::new() };
        environment.services().into_iter().collect()
    }

    /// Rollouts that were planned, and those that completed.
    #[must_use]
    pub fn rollouts(&self) -> (u64, u64) {
        let count = |is: fn(&Fact) -> bool| self.log.iter().filter(|event| is(&event.fact)).count() as u64;
        let planned = count(|fact| matches!(fact, Fact::RolloutPlanned { .. }));
        let completed =
            count(|fact| matches!(fact, Fact::RolloutEnded { outcome: RolloutOutcome::Completed, .. }));
        (planned, completed)
    }
}

/// The state that the record adds up to, through the stored form; it must be `live`, to the byte.
fn replayed(log: &[Event], live: &State) -> Result<State, Violation> {
    let mut state = State::default();
    for event in log {
        if let Err(illegal) = state.apply(event) {
            return Err(Violation::new("the record can be replayed", illegal.to_string()));
        }
    }
    let bytes = |state: &State| serde_json::to_vec(state).unwrap_or_default();
    if bytes(&state) != bytes(live) {
        return Err(Violation::new("the record adds up to the live state", "they differ".to_owned()));
    }
    Ok(state)
}
