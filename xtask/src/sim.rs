//! `cargo xtask sim`

use fairway_sim::Options;

use crate::checks::Count;
use crate::fault::{Done, Fault};
use crate::{shell, workspace};

/// So many stories take as long without optimisation as it takes to build with it.
const UNOPTIMISED_MAX: u64 = 300;

/// Run the real engine in a simulated world: faults, crashes, operators at bad moments
///
/// One seed is one story of some thirty deploys: copies that start slowly or crash, lost and doubled outcomes, a server
/// that dies after any event, clocks that jump, people who abort, promote and deploy in between. Every step is checked
/// against the invariants of ARCHITECTURE.md. A seed that breaks one prints how to repeat it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many stories
    #[arg(long, default_value_t = 1000, value_name = "N")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
    /// This one alone
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Show each step
    #[arg(long, short)]
    verbose: bool,
}

pub fn run(arguments: &Arguments) -> Done {
    if cfg!(debug_assertions) && arguments.seed.is_none() && arguments.seeds > UNOPTIMISED_MAX {
        let mut again = workspace::cargo();
        again.args(["run", "--quiet", "--release", "--package", "xtask", "--", "sim"]);
        again.arg(format!("--seeds={}", arguments.seeds)).arg(format!("--from={}", arguments.from));
        if arguments.verbose {
            again.arg("--verbose");
        }
        return shell::run(&mut again);
    }
    let end = arguments.from.saturating_add(arguments.seeds);
    let report = fairway_sim::run(Options {
        seeds: arguments.from..end,
        only_seed: arguments.seed,
        verbose: arguments.verbose,
        ..Options::default()
    });
    println!("{report}");
    if report.is_ok() { Ok(()) } else { Err(Fault::new("an invariant does not hold: see above")) }
}

/// As many stories as a person waits for in a test; each counts.
pub fn short() -> Count {
    let report = fairway_sim::run(Options { seeds: 0..200, ..Options::default() });
    println!("{report}");
    let failed = report.failures.len() as u64;
    Count { passed: report.stories - failed, failed }
}
