//! What a release has to show before it gets more traffic, and what undoes it.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::LATENCY_BOUNDS_MS;
use fairway_engine::evidence::{Bounds, NoData, Number, Sequential, Trigger};

use crate::code;
use crate::deploy::StrategyKind;
use crate::diagnostic::Diagnostic;
use crate::job::{self, Job, Surroundings};
use crate::keys;
use crate::monitoring;
use crate::reader::{Amount, Reader};
use crate::suggest::{listed, nearest};
use crate::tree::Value;
use crate::value::duration;

/// A step that nobody used shows nothing. Twenty answers are enough to see a release that fails everything, and are
/// there within a hold of five minutes at one request per second and 7 %; more would keep a quiet service waiting
/// for somebody to promote it.
const MIN_REQUESTS_DEFAULT: u64 = 20;

/// What the query of a gate says where the version belongs.
const VERSION: &str = "$version";

/// Evidence as declared, before artifacts and secrets are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// What holds when the strategy is canary; none when it was switched off.
    pub sequential: Option<Sequential>,
    pub gates: Vec<Gate>,
    pub triggers: Vec<Trigger>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// What people call it; unique.
    pub name: String,
    pub check: GateCheck,
    pub bounds: Bounds,
    /// How long a bound must be crossed.
    pub lasts: Duration,
    pub min_requests: u64,
    pub no_data: NoData,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GateCheck {
    ErrorRate,
    Latency { percentile: u32 },
    Query { promql: String },
    Command { job: Box<Job> },
    Webhook { url: String },
}

impl Evidence {
    /// The sequential test compares two sides; only a canary has them.
    #[must_use]
    pub fn sequential(&self, strategy: StrategyKind) -> Option<Sequential> {
        match strategy {
            StrategyKind::Canary => self.sequential.clone(),
            StrategyKind::Rolling | StrategyKind::BlueGreen => None,
        }
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.gates.iter().filter_map(|gate| match &gate.check {
            GateCheck::Command { job } => Some(&**job),
            GateCheck::ErrorRate
            | GateCheck::Latency { .. }
            | GateCheck::Query { .. }
            | GateCheck::Webhook { .. } => None,
        })
    }
}

pub(crate) fn read(root: &Reader<'_>, strategy: StrategyKind, around: &Surroundings<'_>) -> Evidence {
    // `deploy::read` has read the same table; what is missing in it was told there.
    let reader = root.table("deploy", &keys::DEPLOY);
    Evidence {
        sequential: sequential(&reader, strategy),
        gates: gates(&reader, around),
        triggers: triggers(&reader),
    }
}

/// True and false where a table may stand as well.
fn switch(reader: &Reader<'_>, key: &str) -> Option<bool> {
    match reader.node(key)?.value {
        Value::Bool(_) => reader.get(key),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float { .. }
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => None,
    }
}

fn sequential(deploy: &Reader<'_>, strategy: StrategyKind) -> Option<Sequential> {
    if switch(deploy, "sequential") == Some(false) {
        return None;
    }
    let reader = deploy.table("sequential", &keys::SEQUENTIAL);
    let least = || if reader.cx.is_dev() { 0 } else { MIN_REQUESTS_DEFAULT };
    if strategy != StrategyKind::Canary && !deploy.has("sequential") {
        // For `deploy --strategy canary`. It is not in effect, so it is not among the settings.
        return Some(Sequential {
            margin: Number(reader.default_of("margin")),
            alpha: Number(reader.default_of("alpha")),
            min_requests: least(),
        });
    }
    Some(Sequential {
        margin: Number(reader.fixed("margin")),
        alpha: Number(reader.fixed("alpha")),
        min_requests: reader.get_or("min_requests", least, u64::to_string),
    })
}

fn gates(deploy: &Reader<'_>, around: &Surroundings<'_>) -> Vec<Gate> {
    let list = deploy.list_of_tables("gates", &keys::GATE).unwrap_or_default();
    let mut gates: Vec<Gate> = list.iter().filter_map(|reader| gate(reader, around)).collect();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for gate in &mut gates {
        let count = seen.entry(gate.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            gate.name = format!("{} #{count}", gate.name);
        }
    }
    gates
}

fn gate(reader: &Reader<'_>, around: &Surroundings<'_>) -> Option<Gate> {
    const BOUNDS: [&str; 3] = ["max", "min", "max_vs_stable"];
    // Every key is read whatever is wrong with the others, so that one run tells everything.
    let chosen = reader.one_of(&["metric", "query", "command", "webhook"]);
    let check = match chosen {
        Some("metric") => reader.get::<String>("metric").and_then(|name| metric(reader, &name)),
        Some("query") => reader.get("query").map(|promql| GateCheck::Query { promql }),
        Some("command") => {
            job::judge(reader, "command", around).map(|job| GateCheck::Command { job: Box::new(job) })
        }
        Some("webhook") => monitoring::public_url(reader, "webhook").map(|url| GateCheck::Webhook { url }),
        Some(_) | None => {
            reader.lacks("metric and no query", "add metric = \"error_rate\"");
            None
        }
    };
    let bounded = matches!(chosen, Some("metric" | "query") | None);
    if let Some(chosen) = chosen.filter(|_| !bounded) {
        reader.refuse_beside(chosen, &BOUNDS, "for a gate that only passes or fails");
    } else if !BOUNDS.iter().any(|key| reader.has(key)) {
        reader.lacks("bound", "add max, min or max_vs_stable");
    }
    let bounds = Bounds {
        max: bound(reader, "max", check.as_ref()),
        min: bound(reader, "min", check.as_ref()),
        max_vs_stable: reader.get("max_vs_stable").map(Number),
    };
    if bounds.max.zip(bounds.min).is_some_and(|(max, min)| max < min) {
        let message = format!("{} is under min: nothing could pass", reader.path_of("max"));
        refuse(reader, code::CONFLICT, message, "min is the smaller of the two", "max");
    }
    if let Some(GateCheck::Query { promql }) = &check
        && bounds.max_vs_stable.is_some()
        && !promql.contains(VERSION)
    {
        let message = format!(
            "{} compares with stable, and the query does not say which version it is about",
            reader.path_of("max_vs_stable")
        );
        let hint = "write version=\"$version\" into the query's selectors; it is asked once for each version";
        refuse(reader, code::CONFLICT, message, hint, "max_vs_stable");
    }
    let no_data = match reader.fixed::<String>("no_data").as_str() {
        "pass" => NoData::Pass,
        "fail" => NoData::Fail,
        _ => NoData::Pause,
    };
    let (lasts, min_requests) = (reader.fixed("for"), reader.fixed("min_requests"));
    let check = check?;
    Some(Gate { name: name_of(&check), check, bounds, lasts, min_requests, no_data })
}

/// What people call a gate, short enough for one column.
fn name_of(check: &GateCheck) -> String {
    const NAME_LEN_MAX: usize = 40;
    let name = match check {
        GateCheck::ErrorRate => "error_rate".to_owned(),
        GateCheck::Latency { percentile } => format!("p{percentile}"),
        GateCheck::Query { promql } => promql.split_whitespace().collect::<Vec<_>>().join(" "),
        GateCheck::Command { job } => job.command.join(" "),
        GateCheck::Webhook { url } => url.split_once("://").map_or("", |(_, rest)| rest).to_owned(),
    };
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if name.chars().count() <= NAME_LEN_MAX {
        return name;
    }
    format!("{}…", name.chars().take(NAME_LEN_MAX - 1).collect::<String>())
}

fn metric(reader: &Reader<'_>, name: &str) -> Option<GateCheck> {
    const KNOWN: [&str; 5] = ["error_rate", "p50", "p90", "p95", "p99"];
    /// What other tools call them.
    const OTHER: [(&str, &str); 10] = [
        ("errors", "error_rate"),
        ("error_ratio", "error_rate"),
        ("error-percentage", "error_rate"),
        ("failure_rate", "error_rate"),
        ("5xx", "error_rate"),
        ("success_rate", "error_rate"),
        ("latency", "p95"),
        ("response_time", "p95"),
        ("duration", "p95"),
        ("request-duration", "p95"),
    ];
    if name == "error_rate" {
        return Some(GateCheck::ErrorRate);
    }
    let digits = name.strip_prefix('p').filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
    if let Some(digits) = digits {
        if let Some(percentile @ 1..=99) = digits.parse::<u32>().ok().filter(|_| !digits.starts_with('0')) {
            return Some(GateCheck::Latency { percentile });
        }
        let shown: String = name.chars().take(40).collect();
        let message = format!("{shown:?} is no percentile: p1 to p99, whole");
        refuse(reader, code::BAD_VALUE, message, "for example p99", "metric");
        return None;
    }
    let other = OTHER.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours);
    let hint = match other.or_else(|| nearest(name, KNOWN)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("the metrics are {}; anything else is a query", listed(KNOWN)),
    };
    let shown: String = name.chars().take(40).collect();
    refuse(reader, code::BAD_VALUE, format!("there is no metric {shown:?}"), &hint, "metric");
    None
}

fn bound(reader: &Reader<'_>, key: &str, check: Option<&GateCheck>) -> Option<Number> {
    let amount = reader.get::<Amount>(key)?;
    let is_time = matches!(amount, Amount::Time(_));
    match check {
        Some(GateCheck::Latency { .. }) => {
            return latency_of(reader, key, amount).map(|time| Number(time.as_secs_f64()));
        }
        Some(GateCheck::ErrorRate) if is_time || !(0.0..=1.0).contains(&amount.seconds()) => {
            let message = format!("{} is a share, from 0 to 1", reader.path_of(key));
            refuse(reader, code::OUT_OF_RANGE, message, "5 % is 0.05", key);
            return None;
        }
        Some(
            GateCheck::ErrorRate
            | GateCheck::Query { .. }
            | GateCheck::Command { .. }
            | GateCheck::Webhook { .. },
        )
        | None => {}
    }
    Some(Number(amount.seconds()))
}

/// A response time to compare with what was measured, or none when the measuring ends before it.
pub(crate) fn latency(reader: &Reader<'_>, key: &str) -> Option<Duration> {
    latency_of(reader, key, reader.get(key)?)
}

fn latency_of(reader: &Reader<'_>, key: &str, amount: Amount) -> Option<Duration> {
    let ends = Duration::from_millis(LATENCY_BOUNDS_MS[LATENCY_BOUNDS_MS.len() - 1]);
    let seconds = amount.seconds();
    if seconds > 0.0 && seconds < ends.as_secs_f64() {
        return Some(Duration::from_secs_f64(seconds));
    }
    let message = format!(
        "{} must be over 0s and under {}, where the measuring of response times ends",
        reader.path_of(key),
        duration::show(ends)
    );
    let hint = "a number is in seconds; half a second is 0.5 or \"500ms\"";
    refuse(reader, code::OUT_OF_RANGE, message, hint, key);
    None
}

fn triggers(deploy: &Reader<'_>) -> Vec<Trigger> {
    const PERCENTILES: [(&str, u32); 4] = [("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)];
    let all = switch(deploy, "triggers");
    if all == Some(false) {
        return Vec::new();
    }
    let reader = deploy.table("triggers", &keys::TRIGGERS);
    // A developer tries things out, and nobody is hurt.
    let default = all == Some(true) || !reader.cx.is_dev();
    let is_on = |key: &str, default: bool| {
        // A table says what, and so also that.
        switch(&reader, key).unwrap_or(default || reader.has(key))
    };
    let mut triggers = Vec::new();
    if is_on("error_rate", default) {
        let table = reader.table("error_rate", &keys::ERROR_TRIGGER);
        triggers.push(Trigger::ErrorRate { above: Number(table.fixed("above")), lasts: table.fixed("for") });
    }
    for (key, percentile) in PERCENTILES {
        if is_on(key, default && percentile == 95) {
            let table = reader.table(key, &keys::LATENCY_TRIGGER);
            let lasts = table.fixed("for");
            if let Some(above) = latency(&table, "above") {
                triggers.push(Trigger::Latency { percentile, above, lasts });
            }
        }
    }
    if reader.get_or("critical_alert", || default, bool::to_string) {
        triggers.push(Trigger::CriticalAlert);
    }
    triggers
}

fn refuse(reader: &Reader<'_>, code: &'static str, message: String, hint: &str, key: &str) {
    reader.cx.push_at(Diagnostic::error(code, message).hint(hint), reader.value_at(key));
}
