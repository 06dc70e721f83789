//! `cargo xtask bench`

mod evidence;
mod figure;
mod hostile;
mod idle;
mod loss;
mod metrics;
mod probe;
mod proxy;
mod switch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::fault::{Context, Done, Fault};
use crate::{setup, shell, workspace};
use figure::Figure;

/// Measure what Fairway promises, each figure beside its goal
///
/// Builds everything optimised. Each figure is the median of several runs; a machine that does other work at the same
/// time measures that as well. Exits with 0 when every goal is met.
///
/// The metrics are held against a real Prometheus in the same run, on the same samples over the same connections. The
/// program is fetched from Debian when `FAIRWAY_PROMETHEUS` names none; where it cannot be had, those figures say that
/// they are not compared, and miss no goal.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only these parts, instead of all
    #[arg(value_name = "PART", value_enum)]
    parts: Vec<Part>,
    /// The same
    #[arg(long, value_name = "PART", num_args = 1.., value_enum)]
    only: Vec<Part>,
    /// How often each switch, and each load of the proxies, is measured
    #[arg(long, default_value_t = 9, value_name = "N")]
    rounds: usize,
    /// Of the proxies only a few loads, a few times: for a first look while something is changed
    #[arg(long)]
    quick: bool,
    /// Of the attacks only those whose names have this in them
    #[arg(long, value_name = "TEXT")]
    attack: Option<String>,
    /// Let the proxies write access logs
    #[arg(long)]
    access_log: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// This binary, instead of one built from this tree
    #[arg(long, value_name = "PATH")]
    fairway: Option<PathBuf>,
    /// Hold the proxy against this other build of it as well
    #[arg(long, value_name = "PATH")]
    beside: Option<PathBuf>,
    /// Hold metrics in this directory and answer over HTTP: the other half of a comparison
    #[arg(long, value_name = "DIR", hide = true)]
    hold: Option<PathBuf>,
    /// Pass bytes on from here to there: what the proxies are held against
    #[arg(long, value_name = "ADDRESS", num_args = 2, hide = true)]
    relay: Vec<SocketAddr>,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Replay of a log, simulated rollouts
    Engine,
    /// Releasing, rolling back, starting, under load
    Switch,
    /// What Fairway takes while nothing happens
    Idle,
    /// Ingest, room on disk, queries, rules and memory, beside Prometheus
    Metrics,
    /// What every kind of client loses through 100 rollouts, 20 scales, 10 upgrades and 10 kills: nothing
    Loss,
    /// How soon the sequential test finds a bad version, and how often it is wrong
    Evidence,
    /// Requests per second of processor time, latency and memory, beside nginx, HAProxy and Caddy
    Proxy,
    /// What a good client notices of slow, idle, endless and malformed ones, and what they cost in memory
    Hostile,
}

impl Part {
    /// Whole processes are started: the binary and the example's programs are needed.
    fn needs_fairway(self) -> bool {
        matches!(self, Part::Switch | Part::Idle | Part::Loss | Part::Proxy | Part::Hostile)
    }

    /// The programs of the examples too.
    fn needs_examples(self) -> bool {
        matches!(self, Part::Switch | Part::Idle)
    }
}

pub fn run(arguments: &Arguments) -> Done {
    if let Some(directory) = &arguments.hold {
        return metrics::hold(directory);
    }
    if !arguments.relay.is_empty() {
        return proxy::relay::run(&arguments.relay);
    }
    let mut parts = [&arguments.parts[..], &arguments.only].concat();
    if parts.is_empty() {
        parts = Part::value_variants().to_vec();
    }
    let needs_fairway = parts.iter().any(|part| part.needs_fairway());
    if parts.iter().any(|part| part.needs_examples()) {
        setup::ensure(&[setup::NODE, setup::PYTHON])?;
    }
    if cfg!(debug_assertions) {
        return again_optimised(arguments);
    }
    let fairway = match (&arguments.fairway, needs_fairway) {
        (_, false) => PathBuf::new(),
        (Some(binary), true) => workspace::binary(binary.clone())?,
        (None, true) => workspace::build_release()?,
    };
    let mut figures = Vec::new();
    for part in parts {
        figures.extend(measure(part, &fairway, arguments)?);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figure::json(&figures)).context("the figures")?);
    } else {
        print!("{}", figure::table(&figures));
    }
    let missed = figures.iter().filter(|figure| figure.is_missed()).count();
    if missed == 0 { Ok(()) } else { Err(Fault::new(format!("{missed} goals are not met"))) }
}

/// The engine, the metrics and the load generator are measured, or measure, in this very process.
fn again_optimised(arguments: &Arguments) -> Done {
    let mut again = workspace::cargo();
    again.args(["run", "--quiet", "--release", "--package", "xtask", "--", "bench"]);
    again.arg(format!("--rounds={}", arguments.rounds));
    for part in arguments.parts.iter().chain(&arguments.only) {
        let name = part.to_possible_value().context("a part has a name")?;
        again.arg(format!("--only={}", name.get_name()));
    }
    for (is_set, option) in
        [(arguments.json, "--json"), (arguments.quick, "--quick"), (arguments.access_log, "--access-log")]
    {
        if is_set {
            again.arg(option);
        }
    }
    if let Some(attack) = &arguments.attack {
        again.arg(format!("--attack={attack}"));
    }
    for (option, program) in [("--fairway", &arguments.fairway), ("--beside", &arguments.beside)] {
        if let Some(program) = program {
            again.arg(option).arg(workspace::binary(program.clone())?);
        }
    }
    shell::run(&mut again)
}

fn measure(part: Part, fairway: &Path, arguments: &Arguments) -> Done<Vec<Figure>> {
    let rounds = arguments.rounds.max(1);
    match part {
        Part::Engine => Ok(engine()),
        Part::Switch => switch::measure(fairway, rounds),
        Part::Idle => idle::measure(fairway),
        Part::Loss => {
            let (figures, table) = loss::measure(fairway)?;
            show(&table, arguments);
            Ok(figures)
        }
        Part::Metrics => metrics::measure(),
        Part::Hostile => hostile::measure(fairway, arguments.quick, arguments.attack.as_deref()),
        Part::Evidence => Ok(evidence::measure()),
        Part::Proxy => {
            let (quick, access_log) = (arguments.quick, arguments.access_log);
            let rounds = if quick { rounds.min(3) } else { rounds };
            let (figures, tables) = proxy::measure(
                fairway,
                arguments.beside.as_deref(),
                proxy::Terms { rounds, quick, access_log },
            )?;
            show(&tables, arguments);
            Ok(figures)
        }
    }
}

/// What is not among the figures, out of the way of those who read JSON.
fn show(tables: &str, arguments: &Arguments) {
    match arguments.json {
        true => eprintln!("{tables}"),
        false => println!("{tables}"),
    }
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
