//! Every kind of client at once, at a fixed rate, while everything is done to Fairway that people do to it: deploys,
//! rollbacks, scales, upgrades of server and proxy, upgrades to programs that are broken, and `kill -9` of the server.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairway_load::{Body, Kind, Plan, Running, Share, StreamPlan, Streams, Tls, Until, start_streams};

use super::harbour::{DRAIN_S, Harbour};
use super::seen::{Seen, Side};
use crate::e2e::dice::Dice;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Show};

const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Most of a rollout of the harbour lies within this time of the command.
const KILL_WITHIN_MS: u64 = 800;

/// Streams begin before they are counted as begun, and deadlines are looked at 20 times a second.
const EARLY_MS: u64 = 200;

/// Enough to see a pattern.
const LOST_MAX: u64 = 100;

const STRATEGIES: [&str; 3] = ["rolling", "blue-green", "canary"];

/// A stream may hold on to an instance for its drain, less a second in which the proxy ends it in order.
const STREAM_DRAIN_MS: u64 = (DRAIN_S - 1) * 1000;

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
    /// Requests a second, half of them over TLS.
    pub rate: f64,
}

impl Voyage {
    pub fn short() -> Voyage {
        Voyage { rollouts: 5, scales: 2, upgrades: 2, broken_upgrades: 3, kills: 1, rate: 100.0 }
    }

    pub fn long() -> Voyage {
        Voyage { rollouts: 100, scales: 20, upgrades: 5, broken_upgrades: 5, kills: 10, rate: 200.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Rolling,
    BlueGreen,
    Canary,
    Rollback,
}

impl Way {
    /// `None`: it is none of a deploy's.
    fn strategy(self) -> Option<&'static str> {
        match self {
            Way::Rolling => Some("rolling"),
            Way::BlueGreen => Some("blue-green"),
            Way::Canary => Some("canary"),
            Way::Rollback => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Rollout(Way),
    Scale,
    Upgrade,
    BrokenUpgrade(u32),
    Kill,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Act::Rollout(way) => way.strategy().unwrap_or("rollback"),
            Act::Scale => "scale",
            Act::Upgrade => "upgrade",
            Act::BrokenUpgrade(_) => "broken upgrade",
            Act::Kill => "kill",
        }
    }
}

/// Does all of it in an order that the seed gives. Ends early when more is lost than is needed to see why.
pub fn sail(home: &mut Home, fairway: &Path, voyage: &Voyage, seed: u64) -> Done<Seen> {
    let mut dice = Dice::new(seed);
    let harbour = Harbour::write(home.path().join("harbour"))?;
    let broken = broken_programs(home.path(), fairway)?;
    home.start_server()?;
    for version in ["1", "2"] {
        harbour.check_out(version)?;
        home.must(harbour.directory(), &["deploy", "-e", "dev"])?;
    }
    let crews = crews(&harbour, voyage)?;
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
        let act = captain.draw(&mut acts);
        number += 1;
        let name = act.name();
        crews.iter().for_each(|crew| crew.load.mark(&format!("{number}: {name}")));
        if let Err(fault) = captain.perform(act) {
            break Err(Fault::new(format!("act {number}, {act:?}: {fault}")));
        }
        if crews.iter().map(Crew::lost).sum::<u64>() > LOST_MAX {
            break Ok(());
        }
    };
    if sailed.is_ok() {
        // The drains of the last act end streams too.
        crews.iter().for_each(|crew| crew.load.mark("the end"));
        std::thread::sleep(Duration::from_secs(DRAIN_S) + Duration::from_millis(500));
    }
    let sides = crews.into_iter().map(Crew::leave).collect();
    let seen = Seen { sides, orders: harbour.orders()? };
    sailed.map(|()| seen)
}

/// Clients that come one way.
struct Crew {
    name: &'static str,
    load: Running,
    streams: Streams,
}

impl Crew {
    fn board(name: &'static str, harbour: &Harbour, tls: Option<Tls>, rate_per_s: f64) -> Done<Crew> {
        let address = if tls.is_some() { harbour.secure() } else { harbour.address() };
        let mut plan = Plan::new(address);
        (plan.tls, plan.rate_per_s) = (tls.clone(), rate_per_s);
        plan.id_prefix = name.to_owned();
        plan.mix = vec![
            Share::new(Kind::KeepAliveGet, 4, "/"),
            Share::new(Kind::FreshGet, 4, "/"),
            Share {
                kind: Kind::KeepAlivePost,
                weight: 4,
                paths: vec!["/orders".into(), "/calls/orders".into()],
            },
            Share::new(Kind::FreshPost, 4, "/orders"),
            Share::new(Kind::SlowPost, 2, "/orders"),
            Share { kind: Kind::H2Get, weight: 4, paths: vec!["/".into(), "/calls".into()] },
            Share { kind: Kind::H2Post, weight: 4, paths: vec!["/orders".into(), "/calls/orders".into()] },
            Share {
                kind: Kind::H2SlowPost,
                weight: 2,
                paths: vec!["/orders".into(), "/calls/orders".into()],
            },
        ];
        // One line of the ledger, long enough to come in ten pieces.
        plan.body = Body::from_fn(|id| format!("{id}.{}", "o".repeat(40)).into_bytes());
        let mut streams = StreamPlan::new(address, "/echo", "/events");
        streams.tls = tls;
        (streams.calls, streams.call_path) = (4, "/calls/echo".to_owned());
        streams.lasts_min = Duration::from_millis(STREAM_DRAIN_MS - EARLY_MS);
        let load = fairway_load::start(plan).context("the load")?;
        let streams = start_streams(streams).context("the streams")?;
        Ok(Crew { name, load, streams })
    }

    fn lost(&self) -> u64 {
        self.load.snapshot().failed + self.streams.snapshot().broken()
    }

    fn leave(self) -> Side {
        Side { name: self.name, report: self.load.stop(), streams: self.streams.stop() }
    }
}

fn crews(harbour: &Harbour, voyage: &Voyage) -> Done<Vec<Crew>> {
    let tls = Tls::new("localhost").context("the name")?;
    await_tls(harbour, &tls)?;
    let rate = voyage.rate / 2.0;
    Ok(vec![Crew::board("plain", harbour, None, rate)?, Crew::board("tls", harbour, Some(tls), rate)?])
}

/// The certificate is made once the first release serves.
fn await_tls(harbour: &Harbour, tls: &Tls) -> Done {
    let until = Instant::now() + SETTLE_MAX;
    loop {
        let mut plan = Plan::new(harbour.secure());
        plan.tls = Some(tls.clone());
        plan.mix = vec![Share::new(Kind::FreshGet, 1, "/")];
        plan.until = Until::Elapsed(Duration::from_millis(10));
        let report = fairway_load::start(plan).context("the load")?.wait();
        let Some(failure) = report.failures.first() else { return Ok(()) };
        if Instant::now() > until {
            return Err(Fault::new(format!("TLS is never spoken: {failure}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn plan(voyage: &Voyage) -> Vec<Act> {
    let Voyage { rollouts, scales, upgrades, broken_upgrades, kills, .. } = *voyage;
    let mut acts = Vec::new();
    let ways = [Way::Rolling, Way::Canary, Way::Rollback, Way::BlueGreen];
    acts.extend(ways.into_iter().cycle().map(Act::Rollout).take(rollouts.saturating_sub(kills) as usize));
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
    /// The next act. Rollbacks wait for a deploy that they can undo, and become one when there is none left.
    fn draw(&mut self, acts: &mut Vec<Act>) -> Act {
        let is_possible = |act: &Act| self.can_roll_back || *act != Act::Rollout(Way::Rollback);
        let possible: Vec<usize> = (0..acts.len()).filter(|place| is_possible(&acts[*place])).collect();
        match self.dice.pick(&possible) {
            Some(place) => acts.swap_remove(*place),
            None => {
                acts.pop();
                Act::Rollout(Way::BlueGreen)
            }
        }
    }

    fn perform(&mut self, act: Act) -> Done {
        match act {
            Act::Rollout(way) => {
                let Some(strategy) = way.strategy() else {
                    self.can_roll_back = false;
                    return self.must(&["rollback", "-e", "dev"]);
                };
                let version = self.next_version()?;
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
                let strategy = *self.dice.pick(&STRATEGIES).context("there are strategies")?;
                self.must(&["deploy", "-e", "dev", "--strategy", strategy, "--detach"])?;
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
            let findings = seen.findings();
            if !findings.is_empty() {
                println!("{}", seen.table());
            }
            findings
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
        assert_eq!(count(|act| matches!(act, Act::Rollout(_) | Act::Kill)), 100);
        assert_eq!(count(|act| matches!(act, Act::Scale)), 20);
        assert_eq!(count(|act| matches!(act, Act::Upgrade | Act::BrokenUpgrade(_))), 10);
        assert_eq!(count(|act| matches!(act, Act::BrokenUpgrade(_))), 5);
        assert_eq!(count(|act| matches!(act, Act::Kill)), 10);
        for way in [Way::Rolling, Way::BlueGreen, Way::Canary, Way::Rollback] {
            assert!(acts.iter().filter(|act| **act == Act::Rollout(way)).count() >= 22, "{way:?}");
        }
    }
}
