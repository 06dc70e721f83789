//! The real engine in a simulated world: one seed, one story, the same every time. No clock, no thread, no hash map.
//!
//! [`run`] tells the stories of many seeds and checks each step; a story in which something that must hold does not
//! ends with the command that tells it again.

pub mod bench;
#[allow(clippy::wildcard_enum_match_arm, reason = "it looks at the facts that it is about, and at no others")]
mod check;
mod machine;
mod operator;
mod proxy;
mod rng;
mod spec;
pub mod statistics;
#[allow(clippy::wildcard_enum_match_arm, reason = "it looks at the facts that it is about, and at no others")]
mod trace;
mod traffic;
#[allow(clippy::wildcard_enum_match_arm, reason = "it looks at the facts that it is about, and at no others")]
mod world;

use std::fmt;
use std::ops::Range;

pub use check::Violation;
pub use world::Weather;
use world::World;

/// Things that happen in one story before the faults stop: some thirty deploys and as many other commands.
pub const STEPS: u64 = 1_500;

#[derive(Clone, Debug)]
pub struct Options {
    pub seeds: Range<u64>,
    /// This one instead of `seeds`.
    pub only_seed: Option<u64>,
    pub steps: u64,
    /// Print every step.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { seeds: 0..100, only_seed: None, steps: STEPS, verbose: false }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub stories: u64,
    pub steps: u64,
    pub events: u64,
    pub rollouts: u64,
    pub completed: u64,
    /// Canaries that were compared with a stable that answers alike.
    pub compared: u64,
    /// Those of them that the comparison turned back: no more than its alpha allows.
    pub turned_back: u64,
    pub failures: Vec<Failed>,
}

impl Report {
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failed in &self.failures {
            writeln!(f, "{failed}")?;
        }
        write!(
            f,
            "{} seeds, {} steps, {} events, {} rollouts ({} completed), {} of {} equal canaries turned back, {} failed",
            self.stories,
            self.steps,
            self.events,
            self.rollouts,
            self.completed,
            self.turned_back,
            self.compared,
            self.failures.len()
        )
    }
}

/// A story in which something that must hold did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub seed: u64,
    pub step: u64,
    pub violation: Violation,
    pub last: Vec<String>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.last {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {} step {}: broken: {}", self.seed, self.step, self.violation.invariant)?;
        writeln!(f, "  {}", self.violation.detail)?;
        write!(f, "  again: cargo xtask sim --seed {}", self.seed)
    }
}

/// What one seed led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    pub steps: u64,
    pub events: u64,
    pub rollouts: u64,
    pub completed: u64,
    pub compared: u64,
    pub turned_back: u64,
    /// Over the stored form of every event.
    pub hash: u64,
}

/// Tells the story of each seed, with a second telling of every tenth to see that it is the same.
#[must_use]
pub fn run(options: Options) -> Report {
    let seeds = options.only_seed.map_or(options.seeds, |seed| seed..seed.saturating_add(1));
    let mut report = Report::default();
    for seed in seeds {
        report.stories += 1;
        match story(seed, options.steps, options.verbose) {
            Ok(told) => {
                report.steps += told.steps;
                report.events += told.events;
                report.rollouts += told.rollouts;
                report.completed += told.completed;
                report.compared += told.compared;
                report.turned_back += told.turned_back;
                if seed % 10 == 0 && story(seed, options.steps, false).as_ref() != Ok(&told) {
                    let violation =
                        Violation::new("one seed twice gives the same trace", format!("{:x}", told.hash));
                    report.failures.push(Failed { seed, step: told.steps, violation, last: Vec::new() });
                }
            }
            Err(failed) => report.failures.push(*failed),
        }
    }
    // One in a hundred is what the settings allow, and two is what chance explains.
    if report.turned_back > 2 + report.compared / 100 {
        let detail = format!("{} of {} were", report.turned_back, report.compared);
        let violation = Violation::new("what is as good is not turned back", detail);
        report.failures.push(Failed { seed: 0, step: 0, violation, last: Vec::new() });
    }
    report
}

/// The story of one seed: trouble, then healing.
///
/// # Errors
/// What did not hold.
pub fn story(seed: u64, steps: u64, verbose: bool) -> Result<Story, Box<Failed>> {
    let mut world = World::new(seed, Weather::Stormy, true, true);
    // In every third story people are patient enough for a canary to be judged.
    world.is_patient = seed % 3 == 2;
    world.verbose = verbose;
    let told = tell(&mut world, steps).and_then(|()| world.heal());
    match told {
        Ok(()) => {
            let (rollouts, completed) = world.rollouts();
            let (compared, turned_back) = world.compared();
            Ok(Story {
                compared,
                turned_back,
                steps: world.steps,
                events: world.log.len() as u64,
                rollouts,
                completed,
                hash: world.hash.0,
            })
        }
        Err(violation) => Err(Box::new(Failed {
            seed,
            step: world.steps,
            violation,
            last: world.shown.into_iter().collect(),
        })),
    }
}

/// That visitors come is what always happens: it does not count as something that happens.
fn tell(world: &mut World, steps: u64) -> Result<(), Violation> {
    while world.steps - world.visits < steps {
        world.step()?;
    }
    Ok(())
}

/// The record of one seed's story, for whoever wants events as they really come.
#[must_use]
pub fn record(seed: u64, steps: u64) -> Vec<fairway_engine::Event> {
    let mut world = World::new(seed, Weather::Stormy, true, false);
    world.is_patient = seed % 3 == 2;
    while world.steps - world.visits < steps && world.step() == Ok(true) {}
    world.log
}

#[cfg(test)]
mod tests {
    use super::{Options, run, story};

    #[test]
    fn what_must_hold_holds() {
        let report = run(Options { seeds: 0..24, ..Options::default() });
        assert!(report.is_ok(), "{report}");
        assert!(report.completed > 0, "nothing was ever deployed: {report}");
    }

    #[test]
    fn one_seed_twice_gives_the_same_trace_and_two_seeds_do_not() {
        let first = story(7, 400, false);
        assert_eq!(first, story(7, 400, false));
        assert_ne!(first, story(8, 400, false));
    }
}
