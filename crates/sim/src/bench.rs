//! How fast the engine is.

use std::time::Duration;

use fairway_engine::{Command, Event, State};

use crate::spec;
use crate::world::{Weather, World};

/// What replaying a log took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    pub events: usize,
    /// Through [`State::apply`] alone.
    pub apply: Duration,
    /// From stored lines to state.
    pub decode_and_apply: Duration,
}

/// What simulated rollouts took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollouts {
    pub rollouts: u64,
    pub decisions: u64,
    pub events: u64,
    pub took: Duration,
}

/// A log of at least `events` events of an environment that is deployed to without end, in calm weather.
fn record(events: usize) -> Vec<Event> {
    let mut world = World::new(1, Weather::Calm, false, false);
    while world.log.len() < events && deploy(&mut world) {}
    world.log.truncate(events);
    world.log
}

/// One deploy, to its end.
fn deploy(world: &mut World) -> bool {
    let spec = Box::new(spec::random(&mut world.rng, false));
    let command = Command::Deploy { spec, reason: None, if_release: None, wait: false };
    let accepted = world.command(("ann@example.com".to_owned(), command));
    if !matches!(accepted, Ok(None)) {
        return false;
    }
    while world.environment().is_some_and(|environment| environment.rollout.is_some()) {
        let promotes = matches!(
            world.environment().and_then(|environment| environment.waiting()),
            Some(fairway_engine::Waiting::Promotion)
        );
        let moved = if promotes {
            world.command(("ann@example.com".to_owned(), Command::Promote { full: false })).is_ok()
        } else {
            world.step() == Ok(true)
        };
        if !moved {
            return false;
        }
    }
    true
}

/// Replays a log of `n_events` events.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that measures")]
pub fn replay(n_events: usize) -> Replay {
    // A log that long takes longer to make than to replay: a shorter one is replayed as often as it takes, each time
    // into a state of its own.
    let log = record(n_events.min(100_000));
    let rounds = n_events.div_ceil(log.len().max(1));
    let started = std::time::Instant::now();
    for _ in 0..rounds {
        let mut state = State::default();
        for event in &log {
            if state.apply(event).is_err() {
                break;
            }
        }
        std::hint::black_box(&state);
    }
    let apply = started.elapsed();

    let lines: Vec<Vec<u8>> = log.iter().filter_map(|event| serde_json::to_vec(event).ok()).collect();
    let started = std::time::Instant::now();
    for _ in 0..rounds {
        let mut state = State::default();
        for line in &lines {
            let Ok(event) = serde_json::from_slice::<Event>(line) else { break };
            if state.apply(&event).is_err() {
                break;
            }
        }
        std::hint::black_box(&state);
    }
    Replay { events: rounds * log.len(), apply, decode_and_apply: started.elapsed() }
}

/// Brings in `n` releases one after the other.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that measures")]
pub fn rollouts(n: u64) -> Rollouts {
    let started = std::time::Instant::now();
    let mut world = World::new(2, Weather::Calm, false, false);
    let (mut done, mut events) = (0, 0);
    while done < n && deploy(&mut world) {
        done += 1;
        if world.log.len() > 200_000 {
            events += world.log.len() as u64;
            world.log.clear();
        }
    }
    Rollouts {
        rollouts: done,
        decisions: world.decisions,
        events: events + world.log.len() as u64,
        took: started.elapsed(),
    }
}
