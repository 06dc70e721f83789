//! What the demo counted, as a table for people or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use fairway_load::{ActReport, Failure, Report};
use serde_json::json;

use crate::fault::{Context, Done, Fault};

#[derive(Debug)]
pub struct Act {
    pub name: String,
    /// The version that answers afterwards, where the act changes it.
    pub to: Option<&'static str>,
    /// From the command line to its end, watching and draining included.
    pub took: Duration,
    /// Orders that arrived more than once.
    pub doubled: u64,
    /// The load was on.
    pub loaded: bool,
    /// A version that fails requests by itself, as its authors made it.
    pub bad: Option<&'static str>,
}

#[derive(Debug)]
pub struct Counted {
    pub load: Report,
    /// Asked of the shop itself.
    pub doubled: u64,
    pub stored: u64,
}

impl Counted {
    /// Orders that the shop said it has taken.
    fn acknowledged(&self) -> u64 {
        self.load.total.kinds.iter().filter(|kind| kind.kind.is_post()).map(|kind| kind.completed).sum()
    }

    fn act(&self, name: &str) -> Option<&ActReport> {
        self.load.acts.iter().find(|act| act.name == name)
    }

    /// Requests of an act that its bad version answered, and answered badly: they were not lost on the way.
    fn by_version(&self, act: &Act) -> u64 {
        let Some(bad) = act.bad else { return 0 };
        let own =
            |failure: &&Failure| failure.act == act.name && failure.header("x-shop-version") == Some(bad);
        self.load.failures.iter().filter(own).count() as u64
    }

    /// Requests that failed otherwise than by a bad version's own answer.
    fn failed(&self, acts: &[Act]) -> u64 {
        self.load.total.failed - acts.iter().map(|act| self.by_version(act)).sum::<u64>()
    }
}

/// How long both versions answered: from the first request that the new one answered to the last of another one.
fn both(act: &ActReport, to: &str) -> Option<Duration> {
    let first_new = act.versions.iter().find(|seen| seen.version == to)?.first_sent_us;
    let last_old =
        act.versions.iter().filter(|seen| seen.version != to).map(|seen| seen.last_sent_us).max()?;
    Some(Duration::from_micros(last_old.saturating_sub(first_new)))
}

pub fn table(acts: &[Act], counted: &Counted) -> String {
    let mut text = String::new();
    let mut row = |name: &str, cells: [String; 6]| {
        let [took, switched, both, requests, failed, twice] = cells;
        let line =
            format!("{name:<44} {took:>8} {switched:>13} {both:>11} {requests:>9} {failed:>7} {twice:>6}");
        // Nothing fails to write into a string.
        let _ = writeln!(text, "{}", line.trim_end());
    };
    let heads = ["took", "all switched", "both serve", "requests", "failed", "twice"].map(str::to_owned);
    row("\nact", heads);
    for act in acts {
        let load = counted.act(&act.name);
        let switched = load.zip(act.to).and_then(|(load, to)| load.switched_after(to));
        let both = load.zip(act.to).and_then(|(load, to)| both(load, to));
        let number = |of: &dyn Fn(&ActReport) -> u64| load.map_or(String::new(), |load| of(load).to_string());
        let failed = |load: &ActReport| load.tally.failed - counted.by_version(act);
        let cells = [
            seconds(act.took),
            switched.map_or(String::new(), seconds),
            both.map_or(String::new(), seconds),
            number(&|load| load.tally.planned),
            number(&failed),
            if act.loaded { act.doubled.to_string() } else { String::new() },
        ];
        row(&act.name, cells);
    }
    let total = &counted.load.total;
    let sum = [
        seconds(acts.iter().map(|act| act.took).sum()),
        String::new(),
        String::new(),
        total.planned.to_string(),
        counted.failed(acts).to_string(),
        counted.doubled.to_string(),
    ];
    row("all", sum);
    let latency = total.latency;
    let ms = |us: u64| us as f64 / 1000.0;
    let _ = writeln!(
        text,
        "\nlatency p50 {:.1} ms, p99 {:.1} ms, slowest {:.0} ms · {} orders acknowledged, {} stored",
        ms(latency.p50_us),
        ms(latency.p99_us),
        ms(latency.max_us),
        counted.acknowledged(),
        counted.stored
    );
    for act in acts {
        if let (Some(bad), by_version @ 1..) = (act.bad, counted.by_version(act)) {
            let _ = writeln!(
                text,
                "{bad} answered {by_version} requests with its own fault before it was called off"
            );
        }
    }
    let versions: Vec<&str> = acts.iter().filter_map(|act| act.bad).collect();
    let lost = |failure: &&Failure| {
        !failure.header("x-shop-version").is_some_and(|version| versions.contains(&version))
    };
    for failure in counted.load.failures.iter().filter(lost).take(20) {
        let _ = writeln!(text, "failed: {failure}");
    }
    text
}

pub fn json(acts: &[Act], counted: &Counted) -> Done<String> {
    let failed = counted.failed(acts);
    let acts: Vec<_> = acts
        .iter()
        .map(|act| {
            let load = counted.act(&act.name);
            let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
            json!({
                "name": act.name,
                "took_ms": ms(act.took),
                "all_switched_ms": load.zip(act.to).and_then(|(load, to)| load.switched_after(to)).map(ms),
                "both_serve_ms": load.zip(act.to).and_then(|(load, to)| both(load, to)).map(ms),
                "requests": load.map(|load| load.tally.planned),
                "failed": load.map(|load| load.tally.failed - counted.by_version(act)),
                "failed_by_version": act.bad.map(|_| counted.by_version(act)),
                "twice": act.loaded.then_some(act.doubled),
            })
        })
        .collect();
    let all = json!({
        "acts": acts,
        "failed": failed,
        "twice": counted.doubled,
        "acknowledged": counted.acknowledged(),
        "stored": counted.stored,
        "load": counted.load,
    });
    serde_json::to_string_pretty(&all).context("the report")
}

/// Fails when a request failed, arrived twice, or was forgotten. A machine too busy to offer the whole load makes the
/// proof weaker and is told; it is not a fault of what was tested.
pub fn verdict(acts: &[Act], counted: &Counted) -> Done {
    let mut wrong = Vec::new();
    let total = &counted.load.total;
    let failed = counted.failed(acts);
    if failed > 0 {
        wrong.push(format!("{failed} requests failed"));
    }
    if total.achieved_per_s < total.target_per_s / 2.0 {
        wrong.push("not even half of the load could be offered: nothing is proved".to_owned());
    }
    if counted.doubled > 0 {
        wrong.push(format!("{} orders arrived more than once", counted.doubled));
    }
    if counted.stored < counted.acknowledged() {
        let lost = counted.acknowledged() - counted.stored;
        wrong.push(format!("{lost} orders were acknowledged and are not stored"));
    }
    for reason in counted.load.verdict.reasons.iter().filter(|_| total.failed == 0) {
        eprintln!("note: {reason}");
    }
    if wrong.is_empty() { Ok(()) } else { Err(Fault::new(wrong.join("; "))) }
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
