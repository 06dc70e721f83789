//! What the sequential test is worth: how soon it finds what is worse, and how often it turns back what is not. The real
//! engine decides over readings as the server sends them; only the requests are drawn.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::evidence::{Evidence, Number, Sequential};
use fairway_engine::id::{EnvironmentKey, EnvironmentName, ProjectName, ReleaseNumber, ServiceName};
use fairway_engine::release::ReleaseSpec;
use fairway_engine::strategy::{Step, Strategy};
use fairway_engine::time::Timestamp;
use fairway_engine::{
    AbortCause, ArmCounters, Command, Decision, Effect, GateId, Input, Observation, Outcome, Phase, State,
    decide,
};

use crate::rng::Rng;
use crate::spec;

const STABLE: ReleaseNumber = ReleaseNumber(1);
const NEW: ReleaseNumber = ReleaseNumber(2);

/// Requests a second, of both versions together.
const RATE: u64 = 200;

/// The server sends a reading with every bad answer of the new version, but not more than so many a second ...
const READINGS_MS_MIN: u64 = 100;
/// ... and one after this long without.
const READINGS_MS_MAX: u64 = 5_000;

/// Stable had answered this many requests before the rollout: what is slow is known.
const HISTORY: u64 = 10_000;

/// How the two versions answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Versions {
    /// Percent of the traffic that the new version gets.
    pub weight: u32,
    pub stable_errors: f64,
    pub new_errors: f64,
    /// Share of answers over stable's p99.
    pub stable_slow: f64,
    pub new_slow: f64,
}

impl Versions {
    /// Alike, at this weight.
    #[must_use]
    pub fn equal(weight: u32, errors: f64, slow: f64) -> Self {
        Self { weight, stable_errors: errors, new_errors: errors, stable_slow: slow, new_slow: slow }
    }
}

/// How soon a worse version was turned back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub rollouts: u64,
    /// Requests that the new version had answered by then.
    pub median: u64,
    pub p90: u64,
    /// Not within the requests that were given.
    pub missed: u64,
}

/// How often a version was turned back that was no worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FalseAlarms {
    pub rollouts: u64,
    pub requests_each: u64,
    pub turned_back: u64,
}

/// A canary in its first step, held for as long as anybody likes.
struct Rollout {
    state: State,
    key: EnvironmentKey,
    service: ServiceName,
    now_ms: u64,
    arms: BTreeMap<ReleaseNumber, ArmCounters>,
}

fn release(weight: u32) -> ReleaseSpec {
    let mut spec = spec::plain();
    spec.deploy.strategy = Strategy::Canary {
        steps: vec![Step {
            weight,
            hold: Duration::from_secs(1_000_000),
            approve: false,
            mirror: 0,
            experiment: None,
        }],
        matches: Vec::new(),
        sticky: false,
    };
    spec.deploy.evidence = Evidence {
        sequential: Some(Sequential { margin: Number(1.25), alpha: Number(0.01), min_requests: 100 }),
        gates: Vec::new(),
        triggers: Vec::new(),
    };
    spec
}

impl Rollout {
    /// # Panics
    /// When the engine refuses the plainest of deploys.
    fn begin(weight: u32) -> Self {
        let key = EnvironmentKey {
            project: ProjectName::new("shop").expect("a valid name"),
            environment: EnvironmentName::new("staging").expect("a valid name"),
        };
        let mut rollout = Self {
            state: State::default(),
            key,
            service: spec::service_name("web"),
            now_ms: 1_800_000_000_000,
            arms: BTreeMap::new(),
        };
        for _ in [STABLE, NEW] {
            let spec = Box::new(release(weight));
            let command = Command::Deploy { spec, reason: None, if_release: None, wait: false };
            let environment = rollout.key.clone();
            rollout.give(Input::Command { environment, by: "ann".to_owned(), command });
        }
        rollout.arms.insert(STABLE, answered(HISTORY, 0, HISTORY / 100));
        rollout.observe();
        rollout
    }

    /// Everything that is asked for is done at once.
    fn give(&mut self, input: Input) {
        let mut todo = vec![input];
        while let Some(input) = todo.pop() {
            self.now_ms += 1;
            let Ok(Decision { events, effects, .. }) = decide(&self.state, Timestamp(self.now_ms), &input)
            else {
                panic!("{input:?} was refused");
            };
            for event in &events {
                self.state.apply(event).expect("what was decided can be applied");
            }
            for effect in effects {
                let say = |outcome| Input::Outcome { environment: self.key.clone(), outcome };
                match effect {
                    Effect::StartInstance { instance, .. } => {
                        let address = Some(format!("127.0.0.1:{}", 20_000 + instance.ordinal).into());
                        todo.push(say(Outcome::InstanceReady { instance: instance.clone() }));
                        todo.push(say(Outcome::InstanceStarted { instance, address }));
                    }
                    Effect::StopInstance { instance, .. } => {
                        todo.push(say(Outcome::InstanceStopped { instance, exit: "exit code 0".to_owned() }));
                    }
                    Effect::ApplyRoutes { generation, .. } => {
                        todo.insert(0, say(Outcome::RoutesApplied { generation }));
                    }
                    Effect::RunJob { .. } | Effect::CancelJob { .. } => {}
                }
            }
        }
    }

    fn count(&mut self, release: ReleaseNumber, requests: u64, errors: u64, slow: u64) {
        let arm = self.arms.entry(release).or_default();
        let more = answered(requests, errors, slow);
        arm.requests += more.requests;
        arm.errors += more.errors;
        arm.error_bursts += more.error_bursts;
        arm.latency.resize(more.latency.len(), 0);
        for (sum, by) in arm.latency.iter_mut().zip(more.latency) {
            *sum += by;
        }
    }

    /// One reading. True when it turned the rollout back.
    fn observe(&mut self) -> bool {
        let observation =
            Observation { source: 1, services: [(self.service.clone(), self.arms.clone())].into() };
        let environment = self.key.clone();
        self.give(Input::Observed { environment, observation });
        self.is_turned_back()
    }

    fn is_turned_back(&self) -> bool {
        let environment = self.state.environments.get(&self.key);
        let Some(rollout) = environment.and_then(|environment| environment.rollout.as_ref()) else {
            return true;
        };
        match &rollout.phase {
            Phase::Aborting { cause: AbortCause::Evidence { finding }, .. } => {
                matches!(finding.gate, GateId::Sequential { .. })
            }
            Phase::Aborting { .. }
            | Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing => false,
        }
    }

    fn new_requests(&self) -> u64 {
        self.arms.get(&NEW).map_or(0, |arm| arm.requests)
    }
}

/// Under 10 ms, or (slow) under 500.
fn answered(requests: u64, errors: u64, slow: u64) -> ArmCounters {
    let mut latency = vec![0; 8];
    latency[1] = requests - slow;
    latency[7] = slow;
    ArmCounters { requests, errors, error_bursts: errors, latency, ..ArmCounters::default() }
}

/// Requests one by one, and a reading when the server would send one. Gives the requests that the new version had
/// answered when it was turned back.
fn run(base: &Rollout, rng: &mut Rng, versions: Versions, requests: u64) -> Option<u64> {
    let mut rollout = Rollout {
        state: base.state.clone(),
        key: base.key.clone(),
        service: base.service.clone(),
        now_ms: base.now_ms,
        arms: base.arms.clone(),
    };
    let weight = f64::from(versions.weight) / 100.0;
    // Up to the next moment at which something can be sent, in which the counts are drawn at once.
    let batch = RATE * READINGS_MS_MIN / 1_000;
    let (mut done, mut quiet_ms) = (0, 0);
    while done < requests {
        let now = batch.min(requests - done);
        done += now;
        let new = rng.binomial(now, weight);
        let (errors, slow) = (rng.binomial(new, versions.new_errors), rng.binomial(new, versions.new_slow));
        rollout.count(NEW, new, errors, slow);
        let stable = now - new;
        let stable_errors = rng.binomial(stable, versions.stable_errors);
        let stable_slow = rng.binomial(stable, versions.stable_slow);
        rollout.count(STABLE, stable, stable_errors, stable_slow);
        rollout.now_ms += READINGS_MS_MIN;
        quiet_ms += READINGS_MS_MIN;
        if errors > 0 || quiet_ms >= READINGS_MS_MAX {
            quiet_ms = 0;
            if rollout.observe() {
                return Some(rollout.new_requests());
            }
        }
    }
    None
}

/// One request after the other, with a reading after each bad answer: how many the new version answered before it was
/// turned back.
#[must_use]
pub fn found(seed: u64, versions: Versions, rollouts: u64, requests: u64) -> Found {
    let base = Rollout::begin(versions.weight);
    let mut rng = Rng::new(seed);
    let mut counts: Vec<u64> = Vec::new();
    for _ in 0..rollouts {
        let mut rollout = Rollout {
            state: base.state.clone(),
            key: base.key.clone(),
            service: base.service.clone(),
            now_ms: base.now_ms,
            arms: base.arms.clone(),
        };
        for _ in 0..requests {
            let is_new = rng.unit() * 100.0 < f64::from(versions.weight);
            let (release, errors, slow) = if is_new {
                (NEW, versions.new_errors, versions.new_slow)
            } else {
                (STABLE, versions.stable_errors, versions.stable_slow)
            };
            let (error, slow) = (u64::from(rng.unit() < errors), u64::from(rng.unit() < slow));
            rollout.count(release, 1, error, slow);
            rollout.now_ms += 1_000 / RATE;
            if is_new && error + slow > 0 && rollout.observe() {
                counts.push(rollout.new_requests());
                break;
            }
        }
    }
    counts.sort_unstable();
    let missed = rollouts - counts.len() as u64;
    // Those that were missed count as longer than all that were found.
    let at = |share: u64| {
        let index = usize::try_from(rollouts * share / 100).unwrap_or(usize::MAX);
        counts.get(index).copied().unwrap_or(u64::MAX)
    };
    Found { rollouts, median: at(50), p90: at(90), missed }
}

/// Rollouts of versions that are alike.
#[must_use]
pub fn false_alarms(seed: u64, versions: Versions, rollouts: u64, requests_each: u64) -> FalseAlarms {
    let base = Rollout::begin(versions.weight);
    let mut rng = Rng::new(seed);
    let turned_back =
        (0..rollouts).filter(|_| run(&base, &mut rng, versions, requests_each).is_some()).count() as u64;
    FalseAlarms { rollouts, requests_each, turned_back }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_failure_at_ten_percent_is_found_within_five_requests() {
        let versions = Versions { new_errors: 1.0, ..Versions::equal(10, 0.001, 0.005) };
        let found = found(1, versions, 200, 2_000);
        assert!(found.median <= 5 && found.missed == 0, "{found:?}");
    }

    #[test]
    fn one_error_in_ten_is_found_within_fifty_requests() {
        let versions = Versions { new_errors: 0.1, ..Versions::equal(10, 0.001, 0.005) };
        let found = found(2, versions, 200, 20_000);
        assert!(found.median <= 50 && found.missed == 0, "{found:?}");
    }

    #[test]
    fn what_is_as_good_is_left_alone() {
        for (seed, errors) in [(3, 0.001), (4, 0.02)] {
            let alarms = false_alarms(seed, Versions::equal(10, errors, 0.008), 30, 20_000);
            assert_eq!(alarms.turned_back, 0, "{alarms:?}");
        }
    }

    /// The figures of the bench, at full length: `cargo test --release -p fairway-sim -- --ignored --nocapture figures`.
    #[test]
    #[ignore = "takes a minute in a release build; the bench runs it"]
    fn the_figures() {
        let total = found(1, Versions { new_errors: 1.0, ..Versions::equal(10, 0.001, 0.005) }, 2_000, 2_000);
        let tenth =
            found(2, Versions { new_errors: 0.1, ..Versions::equal(10, 0.001, 0.005) }, 2_000, 50_000);
        println!("total failure: {total:?}; 0.1 % to 10 %: {tenth:?}");
        assert!(total.median <= 5 && tenth.median <= 50);
        for (seed, weight, errors) in [(3, 10, 0.001), (4, 10, 0.01), (5, 5, 0.03), (6, 50, 0.01)] {
            let rollouts = if seed == 3 { 1_000 } else { 250 };
            let alarms = false_alarms(seed, Versions::equal(weight, errors, 0.008), rollouts, 200_000);
            println!("{weight} %, {errors}: {alarms:?}");
            assert!(alarms.turned_back * 100 < alarms.rollouts, "{alarms:?}");
        }
    }
}
