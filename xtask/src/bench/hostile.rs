//! What a good client notices while others do their worst, and what it costs the proxy in memory.
//!
//! Proxy, origin and good client run as in the fair run (`bench proxy`): one core for the proxy, one for all others,
//! requests at a fixed rate, latencies counted from when each was due. Each attack is measured against a quiet time just
//! before it, so that what else the machine does is in both.
//!
//! Attackers are other machines: their work is done behind that of the proxy, on its core, and what they ask for comes
//! from a service of their own. So what the good client notices is what the proxy does for them, and in its place.

mod attack;
mod bytes;
mod origin;
mod running;

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use serde_json::{Value, json};

use super::figure::{Figure, median, percentile};
use super::proxy::side::{Kind, Side};
use super::proxy::world::{Body, World};
use super::proxy::{cores, raise_descriptor_limit};
use crate::fault::{Context, Done};
use crate::home::free_address;
use attack::{ALL, Attack, Door, Manner};
use running::Running;

/// Far below what a core carries: a good client is to be served, not the proxy saturated.
const RATE_PER_S: f64 = 500.0;
const CONNECTIONS: usize = 16;
/// A thousand requests, of which ten are slower than the figure.
const TIMES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];
const ROUNDS: usize = 3;

/// As the issue has it: an attack may cost a good client as much again.
const RATIO_MAX: f64 = 2.0;
/// Below this a ratio says more about the machine than about the proxy: a tick of its scheduler.
const QUIET_P99_MIN: Duration = Duration::from_millis(1);

/// From when an attack has begun to when it is measured.
const SETTLES_IN: Duration = Duration::from_millis(500);
const OPENS_IN_MAX: Duration = Duration::from_secs(20);

/// When an attack is over its connections are gone by then: those to instances after 4 s, those that linger after 2.
const GONE_IN_MAX: Duration = Duration::from_secs(10);
/// What may be there afterwards and was not before: connections to instances for as many requests as were under way.
const LEFT_MAX: usize = 32;

/// The work of other machines goes behind everything else, on the core of the proxy, which has time left.
fn yield_to_others() {
    // To go behind is always allowed.
    let _ = setpriority_process(None, 10);
    // On one core there is nothing to compare, and whoever compares has looked.
    let _ = cores::pin(cores::Part::Proxy);
}

/// What one attack came to.
struct Outcome {
    /// In milliseconds, of each round.
    quiet: Vec<f64>,
    attacked: Vec<f64>,
    /// In bytes.
    before: u64,
    highest: u64,
    after: u64,
    kernel: u64,
    opened: u64,
    proven: bool,
    /// Descriptors that are open afterwards and were not before.
    left: usize,
    gone_in: Duration,
}

/// One after the other: a quiet time, then the attack.
pub fn measure(fairway: &Path, quick: bool, only: Option<&str>) -> Done<Vec<Figure>> {
    raise_descriptor_limit();
    let _first = cores::go_first();
    let world = World::start()?;
    let mut figures = Vec::new();
    for attack in ALL.iter().filter(|attack| only.is_none_or(|only| attack.name.contains(only))) {
        let outcome = suffer(attack, fairway, &world, if quick { 1 } else { ROUNDS }).context(attack.name)?;
        figures.extend(figures_of(attack, &outcome));
    }
    Ok(figures)
}

fn suffer(attack: &Attack, fairway: &Path, world: &World, rounds: usize) -> Done<Outcome> {
    // Each with a proxy of its own: what one attack left behind is not counted for the next.
    let home = tempfile::tempdir().context("a directory")?;
    let (tls, origin) = (free_address()?, origin::start()?);
    let certificate = certificate(home.path())?;
    let side = Side::start_with(
        &Kind::Fairway(fairway.to_owned()),
        world.origin(),
        false,
        Body::Small,
        |snapshot| {
            let tls = json!({ "name": "tls", "addr": tls, "tls": { "certificates": [certificate] } });
            append(&mut snapshot["listeners"], [tls]);
            snapshot["services"]["bench/production/attacked"] = json!({
                "versions": { "r1": { "weight": 100, "instances": [{ "id": "attacked-1", "addr": origin }] } },
            });
            let route = |listener, path, service: &str| json!({ "listener": listener, "path": path, "service": format!("bench/production/{service}") });
            snapshot["routes"] = json!([
                route("public", "/s", "web"),
                route("public", "/a", "attacked"),
                route("tls", "/", "web"),
            ]);
        },
    )?;
    let proxy = side.address;
    let target = match attack.door {
        Door::Plain => proxy,
        Door::Tls => tls,
    };
    let good = || -> Done<f64> {
        let latencies =
            world.run(move |inner| inner.open(proxy, Body::Small, CONNECTIONS, RATE_PER_S, TIMES))?;
        Ok(percentile(latencies.iter().map(|latency| latency.as_secs_f64() * 1000.0).collect(), 99))
    };
    good()?;
    let (before, descriptors) = (side.memory()?.resident, side.descriptors()?);
    let kernel_before = kernel_bytes()?;
    let mut outcome = Outcome {
        quiet: Vec::new(),
        attacked: Vec::new(),
        before,
        highest: before,
        after: before,
        kernel: 0,
        opened: 0,
        proven: true,
        left: 0,
        gone_in: Duration::ZERO,
    };
    for _ in 0..rounds {
        outcome.quiet.push(good()?);
        let running = Running::start(attack, target);
        let begun = Instant::now();
        let stays = matches!(attack.manner, Manner::Stay { .. });
        while stays && running.opened() < attack.connections as u64 && begun.elapsed() < OPENS_IN_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(SETTLES_IN);
        outcome.attacked.push(good()?);
        outcome.highest = outcome.highest.max(side.memory()?.resident);
        outcome.kernel = outcome.kernel.max(kernel_bytes()?.saturating_sub(kernel_before));
        outcome.opened += running.opened();
        outcome.proven &= running.is_proven();
    }
    let begun = Instant::now();
    loop {
        outcome.left = side.descriptors()?.saturating_sub(descriptors);
        outcome.gone_in = begun.elapsed();
        if outcome.left <= LEFT_MAX || outcome.gone_in > GONE_IN_MAX {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Memory is given back by the next requests.
    good()?;
    outcome.after = side.memory()?.resident;
    Ok(outcome)
}

fn figures_of(attack: &Attack, outcome: &Outcome) -> [Figure; 3] {
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let (name, connections) = (attack.name, attack.connections);
    let is_there = outcome.opened >= connections as u64 && outcome.proven;
    let ratios = outcome
        .quiet
        .iter()
        .zip(&outcome.attacked)
        .map(|(quiet, attacked)| attacked / quiet.max(QUIET_P99_MIN.as_secs_f64() * 1000.0));
    let taken = outcome.highest.saturating_sub(outcome.before);
    [
        Figure::new(format!("hostile: p99 beside {name}"), median(ratios.collect()), "x", RATIO_MAX)
            .detail(format!(
                "{:.2} ms quiet, {:.2} ms during it (a quiet p99 below {} ms counts as that); {} connections",
                median(outcome.quiet.clone()),
                median(outcome.attacked.clone()),
                QUIET_P99_MIN.as_millis(),
                outcome.opened,
            ))
            .valid(is_there),
        Figure::new(
            format!("hostile: memory for {name}"),
            mib(taken),
            "MiB",
            (connections * attack.each_kib) as f64 / 1024.0,
        )
        .detail(format!(
            "{:.1} KiB for each of {connections} connections; {:.1} MiB before, {:.1} MiB when it is over; the \
             kernel's for all sockets, attackers' included: {:.1} MiB",
            taken as f64 / 1024.0 / connections as f64,
            mib(outcome.before),
            mib(outcome.after),
            mib(outcome.kernel),
        ))
        .valid(is_there),
        Figure::new(
            format!("hostile: connections left of {name}"),
            outcome.left as f64,
            "",
            LEFT_MAX as f64,
        )
        .detail(format!("{:.1} s after its end", outcome.gone_in.as_secs_f64())),
    ]
}

fn append(list: &mut Value, more: impl IntoIterator<Item = Value>) {
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

/// For one name, which the handshakes ask for; as a snapshot has it.
fn certificate(home: &Path) -> Done<Value> {
    let made = rcgen::generate_simple_self_signed(vec!["www.example.com".to_owned()]);
    let rcgen::CertifiedKey { cert, signing_key } = made.context("a certificate")?;
    let (chain, key) = (home.join("chain.pem"), home.join("key.pem"));
    std::fs::write(&chain, cert.pem()).context("a certificate")?;
    std::fs::write(&key, signing_key.serialize_pem()).context("a key")?;
    Ok(
        json!({ "names": ["www.example.com"], "chain": chain, "key": key, "digest": "1", "purpose": "serving" }),
    )
}

/// What the kernel holds for all TCP sockets of the machine (`/proc/net/sockstat`, in pages).
fn kernel_bytes() -> Done<u64> {
    let text = std::fs::read_to_string("/proc/net/sockstat").context("the kernel's memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).context("the kernel's memory")?;
    let pages = line.split_whitespace().last().and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.context("the kernel's memory")? * rustix::param::page_size() as u64)
}
