//! What the clients of a voyage saw, and what of it must not be.

use std::collections::BTreeMap;
use std::fmt;

use fairway_load::{FailureClass, Kind, KindReport, Report, StreamReport, StreamTally, Tally};

use super::harbour::Orders;

/// With fewer acts of a kind it is chance whether the rarest kind of request falls into one.
const ACTS_FOR_PROOF: usize = 5;

/// Columns of failures. What is in none of them is counted as "other".
pub const COLUMNS: [(&str, &[FailureClass]); 4] = [
    ("connect", &[FailureClass::Connect]),
    ("reset", &[FailureClass::Reset, FailureClass::Closed]),
    ("truncated", &[FailureClass::Truncated, FailureClass::Malformed]),
    ("5xx", &[FailureClass::ServerError]),
];

/// The clients that came one way.
#[derive(Debug)]
pub struct Side {
    /// What their orders' ids begin with.
    pub name: &'static str,
    pub report: Report,
    pub streams: StreamReport,
}

impl Side {
    fn total(&self) -> &Tally {
        &self.report.total
    }

    fn tallies(&self) -> [(&'static str, &StreamTally); 3] {
        let StreamReport { websockets, events, calls, .. } = &self.streams;
        [("WebSocket", websockets), ("event stream", events), ("call", calls)]
    }
}

#[derive(Debug)]
pub struct Seen {
    pub sides: Vec<Side>,
    pub orders: Orders,
}

impl Seen {
    fn sum(&self, of: impl Fn(&Side) -> u64) -> u64 {
        self.sides.iter().map(of).sum()
    }

    pub fn failed_in_all(&self) -> u64 {
        self.sum(|side| side.total().failed)
    }

    /// Failed requests of some classes.
    pub fn failed(&self, classes: &[FailureClass]) -> u64 {
        self.sum(|side| among(&side.total().failed_by, classes))
    }

    pub fn doubled(&self) -> u64 {
        self.orders.doubled.values().sum()
    }

    /// Orders that were acknowledged and did not arrive.
    pub fn lost(&self) -> u64 {
        self.sum(|side| side.total().kinds.iter().map(|kind| self.lost_of(side.name, kind)).sum())
    }

    fn lost_of(&self, side: &str, kind: &KindReport) -> u64 {
        let stored = self.orders.stored.get(&key(side, kind.kind)).copied().unwrap_or(0);
        if kind.kind.is_post() { kind.completed.saturating_sub(stored) } else { 0 }
    }

    pub fn broken(&self) -> u64 {
        self.sum(|side| side.streams.broken())
    }

    /// Streams that ended in order before anything could have ended them but a fault.
    pub fn early(&self) -> u64 {
        self.sum(|side| side.streams.early())
    }

    /// What must not be, one sentence each.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for side in &self.sides {
            let (name, total) = (side.name, side.total());
            if total.failed > 0 {
                let (failed, planned, by) = (total.failed, total.planned, &total.failed_by);
                findings.push(format!("{name}: {failed} of {planned} requests failed: {by:?}"));
                findings.extend(of_this_machine(&side.report));
                findings.extend(side.report.failures.iter().take(10).map(ToString::to_string));
            }
            if total.achieved_per_s < total.target_per_s / 2.0 {
                findings
                    .push(format!("{name}: not even half of the load could be offered: nothing is proved"));
            }
            if side.streams.broken() + side.streams.early() > 0 {
                let (broken, early) = (side.streams.broken(), side.streams.early());
                findings.push(format!(
                    "{name}: {broken} streams broke, and {early} ended before a drain can have ended them"
                ));
                findings.extend(side.streams.breaks.iter().take(10).map(ToString::to_string));
            }
            for (kind, tally) in side.tallies() {
                if tally.messages == 0 || tally.ended == 0 {
                    findings.push(format!("{name}: no {kind} was ended by a drain: nothing is proved"));
                }
            }
            for (act, share) in shares(&side.report) {
                if share.times >= ACTS_FOR_PROOF && share.fewest == 0 {
                    findings.push(format!(
                        "{name}: a kind of client sent nothing while {act}: nothing is proved"
                    ));
                }
            }
        }
        if self.doubled() > 0 {
            findings.push(format!(
                "{} orders arrived more than once: {:?}",
                self.doubled(),
                self.orders.doubled
            ));
        }
        if self.lost() > 0 {
            findings.push(format!("{} orders were acknowledged and did not arrive", self.lost()));
        }
        findings
    }

    pub fn line(&self) -> String {
        let worst = |of: fn(&Tally) -> u64| {
            self.sides.iter().map(|side| of(side.total())).max().unwrap_or(0) as f64 / 1000.0
        };
        let streams = |of: fn(&StreamTally) -> u64| {
            self.sum(|side| side.tallies().iter().map(|(_, tally)| of(tally)).sum())
        };
        format!(
            "{} requests, {} failed, {} doubled, {} crossed a goodbye and were sent again unprocessed, p99 {:.1} ms, \
             slowest {:.0} ms; {} streams, {} ended by drains, {} early, {} broke, {} calls crossed a goodbye",
            self.sum(|side| side.total().planned),
            self.failed_in_all(),
            self.doubled(),
            self.sum(|side| side.report.refused),
            worst(|total| total.latency.p99_us),
            worst(|total| total.latency.max_us),
            streams(|tally| tally.opened),
            streams(|tally| tally.ended - tally.early),
            self.early(),
            self.broken(),
            streams(|tally| tally.refused)
        )
    }

    /// Every count there is.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.write_table(&mut text).expect("a string takes everything");
        text
    }

    fn write_table(&self, text: &mut impl fmt::Write) -> fmt::Result {
        write!(text, "{:<24}{:>9}", "requests", "sent")?;
        for (name, _) in COLUMNS {
            write!(text, "{name:>11}")?;
        }
        writeln!(text, "{:>11}{:>11}{:>11}", "other", "doubled", "lost")?;
        for side in &self.sides {
            for kind in &side.total().kinds {
                write!(text, "{:<24}{:>9}", key(side.name, kind.kind), kind.planned)?;
                let mut other = kind.failed;
                for (_, classes) in COLUMNS {
                    let count = among(&kind.failed_by, classes);
                    other -= count;
                    write!(text, "{count:>11}")?;
                }
                let doubled = self.orders.doubled.get(&key(side.name, kind.kind)).copied().unwrap_or(0);
                let lost = self.lost_of(side.name, kind);
                writeln!(text, "{other:>11}{doubled:>11}{lost:>11}")?;
            }
        }
        writeln!(
            text,
            "\n{:<24}{:>9}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "streams", "opened", "messages", "by drain", "too early", "broken", "shortest"
        )?;
        for side in &self.sides {
            for (name, tally) in side.tallies() {
                let shortest =
                    tally.shortest_us.map_or("–".to_owned(), |us| format!("{:.2} s", us as f64 / 1e6));
                writeln!(
                    text,
                    "{:<24}{:>9}{:>11}{:>11}{:>11}{:>11}{shortest:>11}",
                    format!("{} {name}", side.name),
                    tally.opened,
                    tally.messages,
                    tally.ended - tally.early,
                    tally.early,
                    tally.broken
                )?;
            }
        }
        writeln!(text, "\n{:<24}{:>9}{:>11}{:>11}{:>11}", "while", "times", "seconds", "requests", "fewest")?;
        for side in &self.sides {
            for (act, share) in shares(&side.report) {
                writeln!(
                    text,
                    "{:<24}{:>9}{:>11.1}{:>11}{:>11}",
                    format!("{} {act}", side.name),
                    share.times,
                    share.lasted_us as f64 / 1e6,
                    share.requests,
                    share.fewest
                )?;
            }
        }
        writeln!(
            text,
            "\n{:<24}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "client", "offered/s", "of", "lag p99", "lag max", "stood still"
        )?;
        for side in &self.sides {
            let total = side.total();
            writeln!(
                text,
                "{:<24}{:>11.1}{:>11.1}{:>8.1} ms{:>8.1} ms{:>9.1} s",
                side.name,
                total.achieved_per_s,
                total.target_per_s,
                total.start_lag.p99_us as f64 / 1000.0,
                total.start_lag.max_us as f64 / 1000.0,
                side.report.stood_still_us as f64 / 1e6
            )?;
        }
        Ok(())
    }
}

/// Failures during which the client itself got no processor, in one sentence.
pub fn of_this_machine(report: &Report) -> Option<String> {
    let failures = report.failures.iter().filter(|failure| failure.is_of_this_machine()).count();
    (failures > 0).then(|| {
        format!(
            "while {failures} of them were under way the client itself stood still for seconds: this machine was busy \
             with other things, and the run proves nothing of Fairway"
        )
    })
}

/// As in the ids of requests, without their number.
pub fn key(side: &str, kind: Kind) -> String {
    format!("{side} {}", kind.name())
}

fn among(failed_by: &BTreeMap<FailureClass, u64>, classes: &[FailureClass]) -> u64 {
    classes.iter().filter_map(|class| failed_by.get(class)).sum()
}

/// What was sent while one kind of act was performed.
#[derive(Debug, Default, PartialEq)]
struct Share {
    times: usize,
    lasted_us: u64,
    requests: u64,
    /// Of the kind of request that was sent least.
    fewest: u64,
}

/// By the part of an act's name behind its number. What came before the first act is none.
fn shares(report: &Report) -> BTreeMap<&str, Share> {
    let mut sent: BTreeMap<&str, (Share, BTreeMap<Kind, u64>)> = BTreeMap::new();
    for act in &report.acts {
        let Some((_, name)) = act.name.split_once(": ") else { continue };
        let (share, kinds) = sent.entry(name).or_default();
        share.times += 1;
        share.lasted_us += act.lasted_us;
        share.requests += act.tally.planned;
        for kind in &act.tally.kinds {
            *kinds.entry(kind.kind).or_default() += kind.planned;
        }
    }
    let fewest = |kinds: &BTreeMap<Kind, u64>| {
        let known = report.total.kinds.iter().map(|kind| kinds.get(&kind.kind).copied().unwrap_or(0));
        known.min().unwrap_or(0)
    };
    sent.into_iter().map(|(name, (share, kinds))| (name, Share { fewest: fewest(&kinds), ..share })).collect()
}
