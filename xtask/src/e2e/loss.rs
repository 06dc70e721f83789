//! The promise itself: deploys and rollbacks of the shop under a load that never repeats a request, the control plane
//! killed among them, and nothing lost or done twice.

mod everything;
mod harbour;
mod seen;

use std::path::Path;
use std::time::{Duration, Instant};

use fairway_load::{Body, Kind, Plan, Share};

use super::dice::Dice;
use crate::checks::Count;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Shop, Show, free_address};

pub use everything::{Voyage, sail};
pub use seen::COLUMNS;

const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Most of a rollout of the shop lies within this time of the command.
const KILL_WITHIN_MS: u64 = 1500;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Deploys and rollbacks
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// In how many of them the control plane is killed
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Requests a second
    #[arg(long, default_value_t = 200.0, value_name = "N")]
    rate: f64,
    /// Only the part with every kind of client, upgrades and scales, on a service made for it
    #[arg(long)]
    everything: bool,
    /// Repeat the same choices
    #[arg(long)]
    seed: Option<u64>,
}

impl Arguments {
    pub fn short() -> Arguments {
        Arguments { rounds: 6, kills: 2, rate: 100.0, everything: false, seed: None }
    }
}

pub fn run(fairway: &Path, arguments: &Arguments) -> Count {
    let seed = arguments.seed.unwrap_or_else(crate::home::now_ms);
    let Arguments { rounds, kills, rate, .. } = arguments;
    let name =
        format!("{rounds} deploys and rollbacks, {kills} kills, {rate} requests a second (--seed {seed})");
    let mut count = Count::default();
    let Voyage { rollouts, scales, upgrades, broken_upgrades, kills: voyage_kills, .. } = Voyage::short();
    let of_everything = format!(
        "{rollouts} rollouts, {scales} scales, {upgrades} upgrades and {broken_upgrades} broken ones, {voyage_kills} \
         kills, every kind of client (--everything --seed {seed})"
    );
    count.check(&of_everything, || everything::check(fairway, &Voyage::short(), seed));
    if arguments.everything {
        return count;
    }
    count.check(&name, || {
        let mut home = Home::new(fairway, Show::Nothing)?;
        let findings =
            rounds_under_load(&mut home, arguments, seed).unwrap_or_else(|fault| vec![fault.to_string()]);
        if !findings.is_empty() {
            home.keep();
        }
        Ok(findings)
    });
    count
}

fn rounds_under_load(home: &mut Home, arguments: &Arguments, seed: u64) -> Done<Vec<String>> {
    let mut dice = Dice::new(seed);
    let shop = Shop::new(home.path().join("shop"), free_address()?, "0s");
    home.start_server()?;
    shop.check_out("v1")?;
    home.must(shop.directory(), &["deploy", "-e", "demo"])?;
    // v2 brings the schema that v2 and v3 share; between those two one can go back and forth for ever.
    shop.check_out("v2")?;
    home.must(shop.directory(), &["deploy", "-e", "demo"])?;

    let mut plan = Plan::new(shop.address());
    plan.rate_per_s = arguments.rate;
    plan.mix = vec![
        Share { kind: Kind::KeepAliveGet, weight: 1, paths: vec!["/".into(), "/api/products".into()] },
        Share { kind: Kind::FreshGet, weight: 1, paths: vec!["/".into(), "/api/products".into()] },
        Share::new(Kind::KeepAlivePost, 1, "/api/orders"),
        Share::new(Kind::FreshPost, 1, "/api/orders"),
    ];
    plan.body =
        Body::from_fn(|id| format!(r#"{{"id":"{id}","product":"rope-10m","quantity":1}}"#).into_bytes());
    let load = fairway_load::start(plan).context("the load")?;

    let mut serving = "v2";
    let mut can_roll_back = false;
    let mut kills_left = arguments.kills;
    for round in 1..=arguments.rounds {
        let rounds_left = arguments.rounds - round + 1;
        let with_kill = dice.below(u64::from(rounds_left)) < u64::from(kills_left);
        let other = if serving == "v2" { "v3" } else { "v2" };
        // A second rollback in a row would go further back, to what v2 replaced.
        let line: &[&str] = match dice.below(3) {
            0 if can_roll_back => &["rollback", "-e", "demo"],
            1 => &["deploy", "-e", "demo", "--strategy", "rolling"],
            _ => &["deploy", "-e", "demo", "--strategy", "blue-green"],
        };
        load.mark(&format!("round {round}: {}{}", line.join(" "), if with_kill { ", killed" } else { "" }));
        can_roll_back = line[0] == "deploy";
        if can_roll_back {
            shop.check_out(other)?;
        }
        if with_kill {
            kills_left -= 1;
            home.must(shop.directory(), &[line, &["--detach"]].concat())?;
            std::thread::sleep(Duration::from_millis(dice.below(KILL_WITHIN_MS)));
            home.kill_server()?;
            std::thread::sleep(Duration::from_millis(dice.below(500)));
            home.start_server()?;
            settle(home, &shop)?;
        } else {
            home.must(shop.directory(), line)?;
        }
        let now = shop.version()?;
        if now != other {
            return Err(Fault::new(format!(
                "round {round}: {now} serves after {}, {other} should",
                line.join(" ")
            )));
        }
        serving = other;
        let so_far = load.snapshot();
        if so_far.failed > 0 {
            let report = load.stop();
            let failures = report.failures.iter().map(ToString::to_string).collect::<Vec<_>>();
            let first = format!("round {round}: {} requests failed", report.total.failed);
            return Ok([vec![first], seen::of_this_machine(&report).into_iter().collect(), failures].concat());
        }
    }
    let report = load.stop();
    let mut findings = Vec::new();
    if report.total.failed > 0 {
        findings.push(format!("{} requests failed", report.total.failed));
        findings.extend(seen::of_this_machine(&report));
        findings.extend(report.failures.iter().map(ToString::to_string));
    }
    if report.total.achieved_per_s < report.total.target_per_s / 2.0 {
        findings.push("not even half of the load could be offered: nothing is proved".to_owned());
    }
    let (doubled, stored) = (shop.doubled()?, shop.stored()?);
    let acknowledged: u64 =
        report.total.kinds.iter().filter(|kind| kind.kind.is_post()).map(|kind| kind.completed).sum();
    if doubled > 0 {
        findings.push(format!("{doubled} orders arrived more than once"));
    }
    if stored < acknowledged {
        findings.push(format!("{acknowledged} orders were acknowledged and {stored} are stored"));
    }
    println!(
        "        {} requests, {} failed, {doubled} doubled; p99 {:.1} ms, slowest {:.0} ms",
        report.total.planned,
        report.total.failed,
        report.total.latency.p99_us as f64 / 1000.0,
        report.total.latency.max_us as f64 / 1000.0
    );
    Ok(findings)
}

fn settle(home: &Home, shop: &Shop) -> Done {
    let started = Instant::now();
    loop {
        if let Ok(status) = home.ask(shop.directory(), &["status", "-e", "demo"])
            && status["environments"][0]["rollout"].is_null()
        {
            return Ok(());
        }
        if started.elapsed() > SETTLE_MAX {
            return Err(Fault::new("the rollout does not end after the restart"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
