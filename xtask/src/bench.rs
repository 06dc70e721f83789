//! `cargo xtask bench`

mod figure;
mod idle;
mod probe;
mod switch;

use std::path::{Path, PathBuf};

use crate::fault::{Context, Done, Fault};
use crate::{setup, shell, workspace};
use figure::Figure;

/// Measure what Fairway promises, each figure beside its goal
///
/// Builds everything optimised. Each figure is the median of several runs; a machine that does other work at the same
/// time measures that as well. Exits with 0 when every goal is met.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How often each switch is measured
    #[arg(long, default_value_t = 9, value_name = "N")]
    rounds: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// This binary, instead of one built from this tree
    #[arg(long, value_name = "PATH")]
    fairway: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Done {
    setup::ensure(&[setup::NODE, setup::PYTHON])?;
    if cfg!(debug_assertions) {
        return again_optimised(arguments);
    }
    let fairway = arguments.fairway.clone().map_or_else(workspace::build_release, workspace::binary)?;
    let figures = measure(&fairway, arguments.rounds.max(1))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figure::json(&figures)).context("the figures")?);
    } else {
        print!("{}", figure::table(&figures));
    }
    let missed = figures.iter().filter(|figure| !figure.is_met()).count();
    if missed == 0 { Ok(()) } else { Err(Fault::new(format!("{missed} goals are not met"))) }
}

/// The engine and the load generator are measured, or measure, in this very process.
fn again_optimised(arguments: &Arguments) -> Done {
    let mut again = workspace::cargo();
    again.args(["run", "--quiet", "--release", "--package", "xtask", "--", "bench"]);
    again.arg(format!("--rounds={}", arguments.rounds));
    if arguments.json {
        again.arg("--json");
    }
    if let Some(fairway) = &arguments.fairway {
        again.arg("--fairway").arg(workspace::binary(fairway.clone())?);
    }
    shell::run(&mut again)
}

fn measure(fairway: &Path, rounds: usize) -> Done<Vec<Figure>> {
    let mut figures = engine();
    figures.extend(switch::measure(fairway, rounds)?);
    figures.extend(idle::measure(fairway)?);
    Ok(figures)
}

fn engine() -> Vec<Figure> {
    let replays = [0; 3].map(|_| fairway_sim::bench::replay(1_000_000));
    let replay = figure::median(replays.map(|replay| replay.decode_and_apply.as_secs_f64()).to_vec());
    let apply = figure::median(replays.map(|replay| replay.apply.as_secs_f64()).to_vec());
    let rollouts = fairway_sim::bench::rollouts(10_000);
    vec![
        Figure::new("engine: replay of 1,000,000 events", replay, "s", 2.0)
            .detail(format!("from stored JSON to state; {apply:.2} s of it decide nothing but apply")),
        Figure::new("engine: 10,000 simulated rollouts on one core", rollouts.took.as_secs_f64(), "s", 60.0)
            .detail(format!("{} rollouts, {} decisions", rollouts.rollouts, rollouts.decisions))
            .valid(rollouts.rollouts == 10_000 && replays.iter().all(|replay| replay.events >= 1_000_000)),
    ]
}
