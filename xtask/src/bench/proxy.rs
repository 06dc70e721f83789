//! The fair run: Fairway's proxy beside nginx, HAProxy and Caddy, all at once and in turns.
//!
//! Each proxy has one worker on a core for itself; origin and clients are on another one. Connections to the origin
//! stay open everywhere. Fairway runs as its server runs it, with everything on that is on by default: figures, request
//! ids, trace context, health checks. First come requests per second of the proxy's processor time, which say what a
//! core carries whatever else the machine does; then latencies at a rate that all can carry; then memory.
//!
//! With them runs a relay that looks at nothing, which shows what of all this is the kernel's.

pub(super) mod cores;
pub(super) mod relay;
pub(super) mod side;
pub(super) mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::figure::{Figure, median};
use crate::fault::{Done, Fault};
use crate::setup::peers::edge::{self, Edge};
use side::{Kind, Memory, Side};
use world::{Body, Counted, Window, World};

/// What of the run is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub rounds: usize,
    /// Few cells, for a short look; goals are not held against it.
    pub quick: bool,
    pub access_log: bool,
}

/// Requests per second of processor time under one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    body: Body,
    connections: usize,
}

const CELLS: [Cell; 6] = [
    Cell { body: Body::Small, connections: 1 },
    Cell { body: Body::Small, connections: 32 },
    Cell { body: Body::Small, connections: 256 },
    Cell { body: Body::Large, connections: 1 },
    Cell { body: Body::Large, connections: 32 },
    Cell { body: Body::Large, connections: 256 },
];

/// Connections open, pools fill, buffers grow; then so much processor time that the kernel's clock, which counts
/// hundredths of a second, is exact to two in a hundred, and the median of the rounds to much less.
const WINDOW: Window =
    Window { warm: Duration::from_millis(100), processor_min: 0.5, wall_max: Duration::from_millis(2_500) };

/// One rate that every proxy can carry.
#[derive(Debug, Clone, Copy)]
struct Pace {
    body: Body,
    rate_per_s: f64,
    /// Whether Caddy can: its knee is far below the others'.
    with_caddy: bool,
}

const PACES: [Pace; 3] = [
    Pace { body: Body::Small, rate_per_s: 4_000.0, with_caddy: true },
    Pace { body: Body::Small, rate_per_s: 12_000.0, with_caddy: false },
    Pace { body: Body::Large, rate_per_s: 3_000.0, with_caddy: true },
];
const PACED_CONNECTIONS: usize = 64;
const PACED_TIMES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1_700)];
const PACED_ROUNDS: usize = 5;

const IDLE_CONNECTIONS: usize = 10_000;
/// Buffers that are given back late have been.
const IDLE_REST: Duration = Duration::from_secs(2);

/// What is wanted, by what it is held against.
fn goal(edge: Edge, body: Body) -> f64 {
    match (edge, body) {
        (Edge::Caddy, Body::Small | Body::Large) => 4.0,
        (Edge::Nginx | Edge::Haproxy, Body::Small) => 1.3,
        (Edge::Nginx | Edge::Haproxy, Body::Large) => 1.1,
    }
}

/// Figures, and the tables of all cells.
pub fn measure(fairway: &Path, beside: Option<&Path>, terms: Terms) -> Done<(Vec<Figure>, String)> {
    cores::check()?;
    let _first = cores::go_first();
    raise_descriptor_limit();
    let unpacked = edge::unpack();
    let mut kinds = vec![Kind::Fairway(fairway.to_owned())];
    kinds.extend(beside.map(|other| Kind::Other(other.to_owned())));
    kinds.push(Kind::Relay);
    let mut figures = Vec::new();
    for edge in Edge::ALL {
        match edge.find(&unpacked) {
            Ok(program) => kinds.push(Kind::Peer(program)),
            Err(fault) => {
                eprint!("note: nothing is compared with {}: {fault}", edge.name());
                figures.push(Figure::not_compared(
                    format!("proxy: requests per CPU second, {}", edge.name()),
                    "it cannot be had",
                ));
            }
        }
    }
    let world = World::start()?;
    let mut text = String::new();
    {
        let start = |kind, body| Side::start(kind, world.origin(), terms.access_log, body);
        let both = |kind| Ok(Both { small: start(kind, Body::Small)?, large: start(kind, Body::Large)? });
        let sides = kinds.iter().map(both).collect::<Done<Vec<_>>>()?;
        let counted = count(&world, &kinds, &sides, terms)?;
        text.push_str(&counted_table(&kinds, &counted, terms));
        figures.extend(goals(&kinds, &counted));
        if !terms.quick {
            text.push_str(&latencies(&world, &kinds, &sides)?);
        }
    }
    if !terms.quick {
        text.push_str(&memories(&world, &kinds, terms)?);
    }
    Ok((figures, text))
}

/// Every client and every idle connection to the origin is a descriptor here.
pub(super) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Below its hard limit a process may always raise the soft one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// A proxy twice, prepared for either size.
#[derive(Debug)]
struct Both {
    small: Side,
    large: Side,
}

impl Both {
    fn of(&self, body: Body) -> &Side {
        match body {
            Body::Small => &self.small,
            Body::Large => &self.large,
        }
    }
}

/// By cell and side, what each round counted.
type Rounds = Vec<(Cell, Vec<Vec<Counted>>)>;

fn count(world: &World, kinds: &[Kind], sides: &[Both], terms: Terms) -> Done<Rounds> {
    let cells = CELLS.into_iter().filter(|cell| !terms.quick || *cell != CELLS[3] && *cell != CELLS[5]);
    let mut rounds: Rounds = cells.map(|cell| (cell, vec![Vec::new(); sides.len()])).collect();
    for round in 0..terms.rounds {
        for (cell, counted) in &mut rounds {
            for turn in 0..sides.len() {
                // Everyone comes first in turn: what one leaves behind meets all.
                let which = (turn + round) % sides.len();
                let Cell { body, connections } = *cell;
                let side = sides[which].of(body);
                let (proxy, processor) = (side.address, side.processor());
                let run = world.run(move |inner| inner.closed(proxy, body, connections, WINDOW, processor));
                counted[which].push(run.map_err(|fault| fault.of(&kinds[which].name()))?);
            }
        }
        eprintln!("round {} of {}", round + 1, terms.rounds);
    }
    Ok(rounds)
}

fn per_processor_second(counted: &Counted) -> f64 {
    counted.requests as f64 / counted.processor.max(0.01)
}

/// Of each round by itself: what disturbs a round disturbs all of it.
fn ratio(own: &[Counted], other: &[Counted]) -> f64 {
    median(
        own.iter()
            .zip(other)
            .map(|(own, other)| per_processor_second(own) / per_processor_second(other))
            .collect(),
    )
}

fn counted_table(kinds: &[Kind], rounds: &Rounds, terms: Terms) -> String {
    let logs = if terms.access_log { "on" } else { "off" };
    let mut text = format!(
        "requests per second of the proxy's processor time: median of {} rounds; ratio: Fairway's to it, median of the \
         rounds' ratios; access logs {logs}\n{:<8}{:>6}{:>10}{:>6}",
        terms.rounds, "body", "conns", "Fairway", "busy"
    );
    for kind in &kinds[1..] {
        text.push_str(&format!("{:>18}{:>7}", kind.name(), "ratio"));
    }
    text.push('\n');
    for (cell, sides) in rounds {
        let of = |side: &[Counted]| median(side.iter().map(per_processor_second).collect());
        let busy =
            median(sides[0].iter().map(|one| one.processor / one.wall.as_secs_f64() * 100.0).collect());
        let (body, connections) = (cell.body.name(), cell.connections);
        text.push_str(&format!("{body:<8}{connections:>6}{:>10.0}{busy:>5.0}%", of(&sides[0])));
        for side in &sides[1..] {
            text.push_str(&format!("{:>18.0}{:>7.2}", of(side), ratio(&sides[0], side)));
        }
        text.push('\n');
    }
    text
}

fn goals(kinds: &[Kind], rounds: &Rounds) -> Vec<Figure> {
    let mut figures = Vec::new();
    for body in [Body::Small, Body::Large] {
        for (which, kind) in kinds.iter().enumerate() {
            let Some(edge) = kind.edge() else { continue };
            let cells = rounds.iter().filter(|(cell, _)| cell.body == body);
            let ratios = |of: usize| {
                let cells = cells.clone();
                cells.map(move |(cell, sides)| (cell.connections, ratio(&sides[of], &sides[which])))
            };
            let least = ratios(0).map(|(_, ratio)| ratio).fold(f64::INFINITY, f64::min);
            let shown = |of| {
                let shown = ratios(of).map(|(connections, ratio)| format!("{ratio:.2} with {connections}"));
                shown.collect::<Vec<_>>().join(", ")
            };
            let mut detail = format!("connections: {}", shown(0));
            if let Some(relay) = kinds.iter().position(|kind| matches!(kind, Kind::Relay)) {
                // What no proxy with four system calls a request gets beyond.
                detail.push_str(&format!("; a bare relay: {}", shown(relay)));
            }
            let what = format!("proxy: requests per CPU second, {}, to {}", body.name(), kind.name());
            figures.push(Figure::at_least(what, least, "x", goal(edge, body)).detail(detail));
        }
    }
    figures
}

fn latencies(world: &World, kinds: &[Kind], sides: &[Both]) -> Done<String> {
    let mut text = format!(
        "\nlatency in µs at a fixed rate over {PACED_CONNECTIONS} connections, counted from when each request was due: \
         p50 / p99, medians of {PACED_ROUNDS} runs\n{:<8}{:>8}",
        "body", "rate/s"
    );
    for kind in kinds {
        text.push_str(&format!("{:>20}", kind.name()));
    }
    text.push('\n');
    for pace in PACES {
        let mut found = vec![[Vec::new(), Vec::new()]; sides.len()];
        for _ in 0..PACED_ROUNDS {
            for (which, side) in sides.iter().enumerate() {
                if kinds[which].edge() == Some(Edge::Caddy) && !pace.with_caddy {
                    continue;
                }
                let mut latencies = paced(world, side.of(pace.body).address, pace)
                    .map_err(|fault| fault.of(&kinds[which].name()))?;
                latencies.sort();
                for (share, found) in [0.5, 0.99].into_iter().zip(&mut found[which]) {
                    let at = ((latencies.len() as f64 * share) as usize).min(latencies.len() - 1);
                    found.push(latencies[at].as_secs_f64() * 1e6);
                }
            }
        }
        text.push_str(&format!("{:<8}{:>8.0}", pace.body.name(), pace.rate_per_s));
        for [p50, p99] in found {
            match p50.is_empty() {
                true => text.push_str(&format!("{:>20}", "–")),
                false => {
                    text.push_str(&format!("{:>20}", format!("{:.0} / {:.0}", median(p50), median(p99))))
                }
            }
        }
        text.push('\n');
    }
    Ok(text)
}

fn paced(world: &World, proxy: SocketAddr, pace: Pace) -> Done<Vec<Duration>> {
    let latencies = world
        .run(move |inner| inner.open(proxy, pace.body, PACED_CONNECTIONS, pace.rate_per_s, PACED_TIMES))?;
    if latencies.is_empty() { Err(Fault::new("nothing was asked")) } else { Ok(latencies) }
}

/// Each started anew: what it took for the load before it may keep.
fn memories(world: &World, kinds: &[Kind], terms: Terms) -> Done<String> {
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let mut text = format!(
        "\nmemory in MiB with {IDLE_CONNECTIONS} connections that had an answer each and wait: resident, proportional; \
         and without any\n"
    );
    // The relay keeps a connection to the origin for each; what that takes is no comparison.
    for kind in kinds.iter().filter(|kind| !matches!(kind, Kind::Relay)) {
        let side = Side::start(kind, world.origin(), terms.access_log, Body::Small)?;
        let proxy = side.address;
        std::thread::sleep(IDLE_REST);
        let before = side.memory()?;
        world
            .run(move |inner| inner.connect(proxy, Body::Small, IDLE_CONNECTIONS))
            .map_err(|fault| fault.of(&kind.name()))?;
        std::thread::sleep(IDLE_REST);
        let Memory { resident, proportional } = side.memory()?;
        let per_connection =
            (proportional.saturating_sub(before.proportional)) as f64 / IDLE_CONNECTIONS as f64;
        text.push_str(&format!(
            "{:<18}{:>8.1}{:>8.1}  ({:.1}, {:.1} without; {:.1} KiB a connection)\n",
            kind.name(),
            mib(resident),
            mib(proportional),
            mib(before.resident),
            mib(before.proportional),
            per_connection / 1024.0
        ));
        world.run(|inner| {
            inner.disconnect();
            Ok(())
        })?;
    }
    Ok(text)
}
