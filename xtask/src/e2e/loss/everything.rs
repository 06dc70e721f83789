//! Every kind of client at once, at a fixed rate, while everything is done to Fairway that people do to it: deploys,
//! rollbacks, scales, upgrades of server and proxy, upgrades to programs that are broken, and `kill -9` of the server.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairway_load::{
    Body, FailureClass, Kind, Plan, Report, Running, Share, StreamPlan, StreamReport, StreamTally, Streams,
    start_streams,
};

use super::harbour::{DRAIN_S, Harbour};
use crate::e2e::dice::Dice;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Show};

const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Most of a rollout of the harbour lies within this time of the command.
const KILL_WITHIN_MS: u64 = 800;

/// Streams begin before they are counted as begun, and deadlines are looked at 20 times a second.
const EARLY_MS: u64 = 200;

/// A stream may hold on to an instance for nine tenths of its drain.
const STREAM_DRAIN_MS: u64 = DRAIN_S * 900;

/// What is done, how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Voyage {
    /// Deploys and rollbacks.
    pub rollouts: u32,
    pub scales: u32,
    pub upgrades: u32,
    /// Upgrades whose new proxy ends before it is ready.
    pub broken_upgrades: u32,
    /// `kill -9` of the server, within a rollout.
    pub kills: u32,
    /// Requests a second.
    pub rate: f64,
}

impl Voyage {
    pub fn short() -> Voyage {
        Voyage { rollouts: 4, scales: 2, upgrades: 2, broken_upgrades: 3, kills: 1, rate: 100.0 }
    }

    pub fn long() -> Voyage {
        Voyage { rollouts: 100, scales: 20, upgrades: 5, broken_upgrades: 5, kills: 10, rate: 200.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Rollout,
    Scale,
    Upgrade,
    BrokenUpgrade(u32),
    Kill,
}

/// What the clients saw.
#[derive(Debug)]
pub struct Seen {
    pub report: Report,
    pub streams: StreamReport,
    pub stored: u64,
    pub doubled: Vec<String>,
}

impl Seen {
    /// Failed requests of one class.
    pub fn failed(&self, class: FailureClass) -> u64 {
        self.report.total.failed_by.get(&class).copied().unwrap_or(0)
    }

    /// Orders that were acknowledged and did not arrive.
    pub fn lost(&self) -> u64 {
        let kinds = self.report.total.kinds.iter().filter(|kind| kind.kind.is_post());
        kinds.map(|kind| kind.completed).sum::<u64>().saturating_sub(self.stored)
    }

    /// Kinds of stream of which one ended before anything could have ended it but a fault.
    pub fn early(&self) -> u64 {
        let earliest_us = (STREAM_DRAIN_MS - EARLY_MS) * 1000;
        let is_early = |shortest: Option<u64>| shortest.is_some_and(|shortest| shortest < earliest_us);
        self.tallies()
            .map(|(_, tally)| tally.shortest_us)
            .into_iter()
            .map(|shortest| u64::from(is_early(shortest)))
            .sum()
    }

    fn tallies(&self) -> [(&'static str, &StreamTally); 3] {
        let StreamReport { websockets, events, calls, .. } = &self.streams;
        [("WebSocket", websockets), ("event stream", events), ("call", calls)]
    }

    /// What must not be, one sentence each.
    pub fn findings(&self) -> Vec<String> {
        let total = &self.report.total;
        let mut findings = Vec::new();
        if total.failed > 0 {
            findings.push(format!(
                "{} of {} requests failed: {:?}",
                total.failed, total.planned, total.failed_by
            ));
            findings.extend(self.report.failures.iter().take(10).map(ToString::to_string));
        }
        if total.achieved_per_s < total.target_per_s / 2.0 {
            findings.push("not even half of the load could be offered: nothing is proved".to_owned());
        }
        if self.streams.broken() > 0 {
            findings.push(format!("{} streams broke", self.streams.broken()));
            findings.extend(self.streams.breaks.iter().take(10).map(ToString::to_string));
        }
        for (name, tally) in self.tallies() {
            if tally.messages == 0 || tally.ended == 0 {
                findings.push(format!("no {name} was ended by a drain: nothing is proved"));
            }
        }
        if self.early() > 0 {
            let shortest = self.tallies().map(|(_, tally)| tally.shortest_us);
            findings
                .push(format!("a stream ended before its {STREAM_DRAIN_MS} ms were over: {shortest:?} µs"));
        }
        if !self.doubled.is_empty() {
            let some: Vec<&String> = self.doubled.iter().take(5).collect();
            findings.push(format!("{} orders arrived more than once: {some:?}", self.doubled.len()));
        }
        if self.lost() > 0 {
            findings.push(format!("{} orders were acknowledged and did not arrive", self.lost()));
        }
        findings
    }

    pub fn line(&self) -> String {
        let total = &self.report.total;
        let StreamReport { websockets, events, calls, .. } = &self.streams;
        format!(
            "{} requests, {} failed, {} doubled, {} crossed a goodbye and were sent again unprocessed, p99 {:.1} ms, \
             slowest {:.0} ms; {} WebSockets, {} event streams and {} calls, {}, {} and {} ended by drains, {} broke, {} \
             calls crossed a goodbye",
            total.planned,
            total.failed,
            self.doubled.len(),
            self.report.refused,
            total.latency.p99_us as f64 / 1000.0,
            total.latency.max_us as f64 / 1000.0,
            websockets.opened,
            events.opened,
            calls.opened,
            websockets.ended,
            events.ended,
            calls.ended,
            self.streams.broken(),
            calls.refused
        )
    }
}

/// Does all of it in an order that the seed gives. Ends at the first failure, with what was seen until then.
pub fn sail(home: &mut Home, fairway: &Path, voyage: &Voyage, seed: u64) -> Done<Seen> {
    let mut dice = Dice::new(seed);
    let harbour = Harbour::write(home.path().join("harbour"))?;
    let broken = broken_programs(home.path(), fairway)?;
    home.start_server()?;
    for version in ["1", "2"] {
        harbour.check_out(version)?;
        home.must(harbour.directory(), &["deploy", "-e", "dev"])?;
    }
    let (load, streams) = clients(&harbour, voyage)?;
    let mut captain = Captain {
        home,
        harbour: &harbour,
        fairway,
        broken,
        dice: &mut dice,
        versions: 2,
        can_roll_back: true,
        copies: 2,
    };
    let mut acts = plan(voyage);
    let mut number = 0;
    let sailed = loop {
        if acts.is_empty() {
            break Ok(());
        }
        let place = usize::try_from(captain.dice.below(acts.len() as u64)).unwrap_or(0);
        let act = acts.swap_remove(place);
        number += 1;
        load.mark(&format!("{number}: {act:?}"));
        if let Err(fault) = captain.perform(act) {
            break Err(Fault::new(format!("act {number}, {act:?}: {fault}")));
        }
        let so_far = (load.snapshot().failed, streams.snapshot().broken());
        if so_far != (0, 0) {
            break Ok(());
        }
    };
    if sailed.is_ok() {
        // The drains of the last act end streams too.
        std::thread::sleep(Duration::from_secs(DRAIN_S) + Duration::from_millis(500));
    }
    let (report, streams) = (load.stop(), streams.stop());
    sailed?;
    let (stored, doubled) = harbour.orders()?;
    Ok(Seen { report, streams, stored, doubled })
}

fn clients(harbour: &Harbour, voyage: &Voyage) -> Done<(Running, Streams)> {
    let mut plan = Plan::new(harbour.address());
    plan.rate_per_s = voyage.rate;
    plan.mix = vec![
        Share::new(Kind::KeepAliveGet, 4, "/"),
        Share::new(Kind::FreshGet, 4, "/"),
        Share { kind: Kind::KeepAlivePost, weight: 4, paths: vec!["/orders".into(), "/calls/orders".into()] },
        Share::new(Kind::FreshPost, 4, "/orders"),
        Share::new(Kind::SlowPost, 1, "/orders"),
        Share { kind: Kind::H2Get, weight: 4, paths: vec!["/".into(), "/calls".into()] },
        Share { kind: Kind::H2Post, weight: 4, paths: vec!["/orders".into(), "/calls/orders".into()] },
    ];
    // One line of the ledger, long enough to come in ten pieces.
    plan.body = Body::from_fn(|id| format!("{id}.{}", "o".repeat(40)).into_bytes());
    let load = fairway_load::start(plan).context("the load")?;
    let mut streams = StreamPlan::new(harbour.address(), "/echo", "/events");
    (streams.calls, streams.call_path) = (4, "/calls/echo".to_owned());
    let streams = start_streams(streams).context("the streams")?;
    Ok((load, streams))
}

fn plan(voyage: &Voyage) -> Vec<Act> {
    let Voyage { rollouts, scales, upgrades, broken_upgrades, kills, .. } = *voyage;
    let mut acts = Vec::new();
    acts.extend((0..rollouts.saturating_sub(kills)).map(|_| Act::Rollout));
    acts.extend((0..scales).map(|_| Act::Scale));
    acts.extend((0..upgrades).map(|_| Act::Upgrade));
    acts.extend((0..broken_upgrades).map(Act::BrokenUpgrade));
    acts.extend((0..kills).map(|_| Act::Kill));
    acts
}

/// Programs that are Fairway in every role but the proxy's: one ends at once, one is killed, and one ends when it has
/// the sockets.
fn broken_programs(directory: &Path, fairway: &Path) -> Done<Vec<PathBuf>> {
    const TAKES_THE_SOCKETS: &str = r#"exec python3 -I -c '
import socket, sys
wire = socket.socket(socket.AF_UNIX)
wire.connect(sys.argv[3] + "/upgrade.sock")
line = b""
while not line.endswith(b"\n"):
    line += wire.recv(1)
socket.recv_fds(wire, 1, 1)
sys.exit("it has the sockets, and ends")' "$@""#;
    let ways = ["exit 1", "kill -9 $$", TAKES_THE_SOCKETS];
    let mut programs = Vec::new();
    for (number, way) in ways.into_iter().enumerate() {
        let path = directory.join(format!("broken-{number}"));
        let text =
            format!("#!/bin/sh\nif [ \"$1\" = proxy ]; then\n{way}\nfi\nexec {} \"$@\"\n", fairway.display());
        std::fs::write(&path, text).context("a broken program")?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).context("a broken program")?;
        programs.push(path);
    }
    Ok(programs)
}

struct Captain<'a> {
    home: &'a mut Home,
    harbour: &'a Harbour,
    fairway: &'a Path,
    broken: Vec<PathBuf>,
    dice: &'a mut Dice,
    versions: u64,
    /// A second rollback in a row would go further back, until there is nothing further.
    can_roll_back: bool,
    copies: u64,
}

impl Captain<'_> {
    fn perform(&mut self, act: Act) -> Done {
        match act {
            Act::Rollout => {
                if self.can_roll_back && self.dice.below(4) == 0 {
                    self.can_roll_back = false;
                    return self.must(&["rollback", "-e", "dev"]);
                }
                let version = self.next_version()?;
                let strategy = *self.dice.pick(&["rolling", "blue-green"]).context("there are strategies")?;
                self.must(&["deploy", "-e", "dev", "--strategy", strategy])?;
                self.serves(&version)
            }
            Act::Scale => {
                self.copies = self.copies % 3 + 1;
                self.must(&["scale", "web", &self.copies.to_string(), "-e", "dev"])
            }
            Act::Upgrade => {
                let version = match self.dice.below(2) {
                    0 => None,
                    _ => Some(self.next_version()?),
                };
                if version.is_some() {
                    self.must(&["deploy", "-e", "dev", "--detach"])?;
                }
                let program = self.fairway.display().to_string();
                self.must(&["server", "upgrade", "--binary", &program])?;
                self.settle()?;
                version.map_or(Ok(()), |version| self.serves(&version))
            }
            Act::BrokenUpgrade(number) => {
                let program = &self.broken[number as usize % self.broken.len()];
                let words = ["server", "upgrade", "--binary", &program.display().to_string()];
                let ran = self.home.run(self.harbour.directory(), &words)?.expect(1)?;
                match ran.stderr.contains("did not take over") && ran.stderr.contains("nothing was changed") {
                    true => Ok(()),
                    false => Err(Fault::new(format!("it does not say what is so:\n{}", ran.stderr))),
                }
            }
            Act::Kill => {
                let version = self.next_version()?;
                self.must(&["deploy", "-e", "dev", "--detach"])?;
                std::thread::sleep(Duration::from_millis(self.dice.below(KILL_WITHIN_MS)));
                self.home.kill_server()?;
                std::thread::sleep(Duration::from_millis(self.dice.below(300)));
                self.home.start_server()?;
                self.settle()?;
                self.serves(&version)
            }
        }
    }

    fn next_version(&mut self) -> Done<String> {
        self.versions += 1;
        self.can_roll_back = true;
        let version = self.versions.to_string();
        self.harbour.check_out(&version)?;
        Ok(version)
    }

    fn must(&self, words: &[&str]) -> Done {
        self.home.must(self.harbour.directory(), words).map(drop)
    }

    fn serves(&self, version: &str) -> Done {
        let now = self.harbour.version()?;
        if now == version { Ok(()) } else { Err(Fault::new(format!("{now} serves, {version} should"))) }
    }

    fn settle(&self) -> Done {
        let until = Instant::now() + SETTLE_MAX;
        loop {
            if let Ok(status) = self.home.ask(self.harbour.directory(), &["status", "-e", "dev"])
                && status["environments"][0]["rollout"].is_null()
            {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Fault::new("the rollout does not end"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// As a check of `e2e`.
pub fn check(fairway: &Path, voyage: &Voyage, seed: u64) -> Done<Vec<String>> {
    let mut home = Home::new(fairway, Show::Nothing)?;
    let findings = match sail(&mut home, fairway, voyage, seed) {
        Ok(seen) => {
            println!("        {}", seen.line());
            seen.findings()
        }
        Err(fault) => vec![fault.to_string()],
    };
    if !findings.is_empty() {
        home.keep();
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_asked_for_is_done() {
        let acts = plan(&Voyage::long());
        let count = |wanted: fn(&Act) -> bool| acts.iter().filter(|act| wanted(act)).count();
        assert_eq!(count(|act| matches!(act, Act::Rollout | Act::Kill)), 100);
        assert_eq!(count(|act| matches!(act, Act::Scale)), 20);
        assert_eq!(count(|act| matches!(act, Act::Upgrade | Act::BrokenUpgrade(_))), 10);
        assert_eq!(count(|act| matches!(act, Act::Kill)), 10);
    }
}
