//! What a rollout is judged by, as text: a block of lines for a terminal and `status`, one line for a log.

use fairway_api::{About, ArmStatus, EvidenceStatus, GateKind, GateStatus, RolloutStatus, Unit};

use crate::ago;
use crate::duration;
use crate::output::{Colours, Paint, Table, cut, fold, printable, width};

/// Names of services in the table of both versions; a longer one would push the figures off the screen.
const SERVICE_SHOWN_MAX: usize = 20;

/// `  passing  `: below it the rest of a gate is indented.
const GATE_INDENT: usize = 11;

/// Where a block stands, and how it may look.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub environment: &'a str,
    pub now_ms: u64,
    pub columns: usize,
    pub colours: Colours,
}

/// All of it, for below the one line that says phase, step and what is waited for. Empty while nothing is judged.
#[must_use]
pub fn block(rollout: &RolloutStatus, frame: &Frame<'_>) -> Vec<String> {
    let mut lines = paused(rollout, frame);
    let Some(evidence) = &rollout.evidence else { return lines };
    lines.extend(fold("  traffic  ", &traffic(rollout, evidence, frame.now_ms), frame.columns));
    if evidence.mirror > 0 {
        let text = format!("{} gets a copy of {} % of the requests", rollout.to, evidence.mirror);
        lines.extend(fold("  mirror   ", &[text], frame.columns));
    }
    if let Some(name) = &evidence.experiment {
        lines.push(format!("  A/B test {}", printable(name)));
    }
    // A service that nobody asked has no figures.
    let is_asked = |arm: &&ArmStatus| {
        evidence.arms.iter().any(|other| other.service == arm.service && other.requests > 0)
    };
    let asked: Vec<&ArmStatus> = evidence.arms.iter().filter(is_asked).collect();
    if !asked.is_empty() {
        lines.extend(arms(&asked, &rollout.to, frame));
    }
    // The worst first: a low terminal shows the beginning.
    let (quiet, gates): (Vec<_>, Vec<_>) = evidence.gates.iter().partition(|one| is_quiet(one));
    let (skipped, mut gates): (Vec<_>, Vec<_>) = gates.into_iter().partition(|one| one.verdict == "skipped");
    gates.sort_by_key(|one| urgency(&one.verdict));
    for one in gates {
        let word = frame.colours.paint(paint(&one.verdict), &format!("{:<7}", one.verdict));
        lines.extend(fold(&format!("  {word}  "), &gate(one, frame.now_ms), frame.columns));
    }
    for (why, names) in by_reason(&skipped) {
        let word = frame.colours.paint(Paint::Dim, "skipped");
        lines.extend(fold(&format!("  {word}  "), &[names.join(", "), why], frame.columns));
    }
    if !quiet.is_empty() {
        let word = frame.colours.paint(Paint::Dim, "quiet");
        let names: Vec<String> = quiet.iter().map(|one| printable(&one.name)).collect();
        lines.extend(fold(&format!("  {word}    "), &names, frame.columns));
    }
    lines
}

/// Names by the reason that they share.
fn by_reason(gates: &[&GateStatus]) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for one in gates {
        let why = printable(one.reason.as_deref().unwrap_or_default());
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(printable(&one.name)),
            None => groups.push((why, vec![printable(&one.name)])),
        }
    }
    groups
}

/// A trigger of which nobody has to hear: it asks for nothing, and nothing is near to setting it off.
fn is_quiet(one: &GateStatus) -> bool {
    let is_near =
        one.reason.as_deref().is_some_and(|why| why.starts_with("crossed") || why.starts_with("both"));
    one.kind == GateKind::Trigger && one.verdict != "failing" && !is_near
}

fn urgency(verdict: &str) -> u8 {
    match verdict {
        "failing" => 0,
        "no data" => 1,
        "waiting" => 2,
        _ => 3,
    }
}

/// What could not be judged, where that is why the rollout waits for a person.
#[must_use]
pub fn unjudged(rollout: &RolloutStatus) -> Option<&str> {
    let by = rollout.paused_by.as_deref()?;
    let why = rollout.waiting.strip_prefix("paused by ")?.strip_prefix(by)?.strip_prefix(": ")?;
    // A person who pauses gives no reason; the engine does, and says what to do.
    why.split_once("; `fairway promote`").map(|(why, _)| why)
}

/// What could not be judged, and the three ways on.
#[must_use]
pub fn paused(rollout: &RolloutStatus, frame: &Frame<'_>) -> Vec<String> {
    let Some(why) = unjudged(rollout) else { return Vec::new() };
    let word = frame.colours.paint(Paint::Warn, "paused");
    let mut lines = fold(&format!("  {word}   "), &[printable(why)], frame.columns);
    let back = match &rollout.from {
        Some(from) => format!("turn back to {from}"),
        None => "give it up".to_owned(),
    };
    let ways = [
        ("promote", "go on without it".to_owned()),
        ("resume", "look again, for another hold".to_owned()),
        ("abort", back),
    ];
    let mut table = Table::indented(GATE_INDENT);
    for (verb, what) in ways {
        let command = format!("fairway {verb} -e {}", frame.environment);
        table.row([frame.colours.paint(Paint::Bold, &command), what]);
    }
    lines.extend(table.render().lines().map(str::to_owned));
    lines
}

fn traffic(rollout: &RolloutStatus, evidence: &EvidenceStatus, now_ms: u64) -> Vec<String> {
    let set = format!("{} % set", rollout.weight);
    let came = match evidence.share {
        Some(share) => format!("{} came", percent(share)),
        None => "no request came yet".to_owned(),
    };
    let mut pieces = vec![format!("{set}, {came}")];
    pieces.push(match evidence.looked_ms {
        Some(at) => format!("counted {}", ago::ago(at, now_ms)),
        None => "not counted yet".to_owned(),
    });
    pieces
}

/// `errors of api · new 3 of 812, stable 2 of 855 · …`
fn gate(one: &GateStatus, now_ms: u64) -> Vec<String> {
    let name = printable(&one.name);
    let mut pieces = vec![match one.service.as_deref().filter(|service| !name.contains(service)) {
        Some(service) => format!("{name} of {service}"),
        None => name,
    }];
    // The verdict has said that there is no data.
    pieces.extend(one.reason.as_deref().map(|why| printable(why.strip_prefix("no data: ").unwrap_or(why))));
    if let (Some(counts), About::Silence) = (&one.counts, one.about) {
        pieces.push(format!("{} wait, stable answered {}", counts.new_requests, counts.stable_requests));
    } else if let Some(counts) = &one.counts {
        let slow = counts.slow_above_ms.map(|ms| format!(" over {ms} ms")).unwrap_or_default();
        pieces.push(format!(
            "new {} of {}{slow}, stable {} of {}",
            counts.new_bad, counts.new_requests, counts.stable_bad, counts.stable_requests
        ));
    }
    pieces.extend(value(one));
    // Where too few requests are the reason it says how many are wanted.
    let is_counted = one.reason.as_deref().is_some_and(|reason| reason.contains(" requests"));
    if one.needed > 0 && !is_counted {
        pieces.push(format!("requests {}/{}", one.samples, one.needed));
    }
    // The others are found or not.
    let is_of_a_rate = matches!(one.about, About::Errors | About::Slowness);
    if one.kind == GateKind::Count && is_of_a_rate {
        pieces.push(could_see(one));
    }
    if let Some(at) = one.next_look_ms {
        pieces.push(match at.saturating_sub(now_ms) {
            0 => "looks now".to_owned(),
            _ => format!("looks in {}", duration::show_ms(now_ms, at)),
        });
    }
    pieces
}

/// The smallest regression that would have been seen: "nothing was found" says no more than this.
fn could_see(one: &GateStatus) -> String {
    match one.detectable_ratio {
        Some(ratio) if ratio >= 10.0 => format!("could see: {ratio:.0}× stable's"),
        Some(ratio) => format!("could see: {ratio:.1}× stable's"),
        None => "could see: nothing yet".to_owned(),
    }
}

fn value(one: &GateStatus) -> Option<String> {
    let value = one.value.map(|value| measure(value, one.unit));
    let limit = |limit: f64| measure(limit, one.unit);
    let bound = match (one.bound.as_deref(), one.threshold) {
        (Some("max"), Some(most)) => Some(format!("at most {}", limit(most))),
        (Some("min"), Some(least)) => Some(format!("at least {}", limit(least))),
        (Some("max_vs_stable"), Some(ratio)) => {
            let stable = one.stable.map(|stable| format!(" {}", limit(stable))).unwrap_or_default();
            Some(format!("at most {}× stable's{stable}", short(ratio)))
        }
        (Some("evidence"), Some(limit)) => Some(format!("turned back at {}", short(limit))),
        (Some("success"), _) | (None, _) | (Some(_), _) => None,
    };
    match (value, bound) {
        (Some(value), _) if one.bound.as_deref() == Some("success") => Some(format!("status {value}")),
        (Some(value), Some(bound)) => Some(format!("{value}, {bound}")),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => None,
    }
}

fn measure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Share => percent(value),
        Unit::Seconds => seconds(value),
        Unit::Evidence => format!("evidence {}", short(value)),
        Unit::Plain => short(value),
    }
}

fn arms(arms: &[&ArmStatus], new: &str, frame: &Frame<'_>) -> Vec<String> {
    let whole = arms_table(arms, new, frame.colours, true);
    let fits = whole.iter().all(|line| width(line) <= frame.columns);
    if fits { whole } else { arms_table(arms, new, frame.colours, false) }
}

fn arms_table(arms: &[&ArmStatus], new: &str, colours: Colours, with_median: bool) -> Vec<String> {
    let mut table = Table::indented(2);
    let head: &[&str] = if with_median {
        &["service", "version", "requests", "errors", "p50", "p95", "p99"]
    } else {
        &["service", "version", "requests", "errors", "p95", "p99"]
    };
    table.row(head.iter().map(|head| colours.paint(Paint::Dim, head)));
    let mut last = "";
    for arm in arms {
        let service = if arm.service == last { String::new() } else { cut(&arm.service, SERVICE_SHOWN_MAX) };
        last = &arm.service;
        let side = if arm.release == new { "new" } else { "stable" };
        let errors = match arm.errors {
            0 => "0".to_owned(),
            errors => {
                let share = percent(errors as f64 / arm.requests.max(1) as f64);
                colours.paint(Paint::Bad, &format!("{errors} ({share})"))
            }
        };
        let time = |value: Option<f64>| value.map_or("-".to_owned(), seconds);
        let mut row = vec![service, format!("{side} {}", arm.release), arm.requests.to_string(), errors];
        row.extend(with_median.then(|| time(arm.p50)));
        row.extend([time(arm.p95), time(arm.p99)]);
        table.row(row);
    }
    table.render().lines().map(str::to_owned).collect()
}

/// One line: what a log of a build keeps. None while nothing is judged.
#[must_use]
pub fn line(rollout: &RolloutStatus) -> Option<String> {
    let evidence = rollout.evidence.as_ref()?;
    let mut pieces = vec![match evidence.share {
        Some(share) => format!("evidence: {} % set, {} came", rollout.weight, percent(share)),
        None => format!("evidence: {} % set, no request came yet", rollout.weight),
    }];
    for arm in evidence.arms.iter().filter(|arm| arm.requests > 0) {
        pieces.push(format!("{} {}: {} errors of {}", arm.service, arm.release, arm.errors, arm.requests));
    }
    let gates = || evidence.gates.iter().filter(|one| !is_quiet(one) && one.verdict != "skipped");
    if gates().next().is_some() {
        let passing = gates().filter(|one| one.verdict == "passing").count();
        pieces.push(format!("{passing} of {} pass", gates().count()));
    }
    // Often one reason is that of many.
    let mut open: Vec<(String, Vec<String>)> = Vec::new();
    for one in gates().filter(|one| one.verdict != "passing") {
        let why = match one.reason.as_deref() {
            Some(why) if why.starts_with(&one.verdict) => printable(why),
            Some(why) => format!("{} ({})", one.verdict, printable(why)),
            None => one.verdict.clone(),
        };
        match open.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(printable(&one.name)),
            None => open.push((why, vec![printable(&one.name)])),
        }
    }
    pieces.extend(open.into_iter().map(|(why, names)| format!("{why}: {}", names.join(", "))));
    // The count test that sees least is what a "nothing found" rests on; one of a service that nobody asked sees nothing.
    let is_asked = |one: &&GateStatus| one.counts.as_ref().is_some_and(|counts| counts.new_requests > 0);
    let is_of_a_rate = |one: &&GateStatus| matches!(one.about, About::Errors | About::Slowness);
    let counts = gates().filter(|one| one.verdict == "passing").filter(is_asked).filter(is_of_a_rate);
    if let Some(weakest) = counts.max_by(|a, b| ratio(a).total_cmp(&ratio(b))) {
        pieces.push(could_see(weakest));
    }
    Some(pieces.join(" · "))
}

fn ratio(one: &GateStatus) -> f64 {
    one.detectable_ratio.unwrap_or(f64::INFINITY)
}

/// What makes a line worth printing at once: where it stands and what each gate says, without the counts.
#[must_use]
pub fn stand(rollout: &RolloutStatus) -> Option<String> {
    let evidence = rollout.evidence.as_ref()?;
    let verdicts: Vec<&str> = evidence.gates.iter().map(|one| one.verdict.as_str()).collect();
    Some(format!("{:?} {} {:?} {}", rollout.step, rollout.weight, rollout.paused_by, verdicts.join(" ")))
}

/// The command that shows most about what a release was called off for.
#[must_use]
pub fn look_next(finding: &GateStatus, environment: &str, release: &str) -> String {
    let service = finding.service.as_deref().map(|service| format!("{service} ")).unwrap_or_default();
    let logs = format!("fairway logs {service}-e {environment} --release {release}");
    match finding.about {
        About::Errors => format!("{logs} --grep '(?i)error|panic|exception'"),
        About::Slowness => format!("{logs} --grep '(?i)slow|timeout|timed out'"),
        // What hangs or cannot be reached says last what it was about to do.
        About::Silence | About::Connections | About::Source => logs,
        About::Alert => format!("fairway alert list -e {environment}"),
    }
}

fn paint(verdict: &str) -> Paint {
    match verdict {
        "passing" => Paint::Good,
        "waiting" => Paint::Warn,
        "skipped" => Paint::Dim,
        _ => Paint::Bad,
    }
}

fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value >= 10.0 {
        format!("{value:.0} %")
    } else if value == 0.0 || value >= 0.1 {
        format!("{value:.1} %").replace(".0 %", " %")
    } else {
        format!("{value:.2} %")
    }
}

fn seconds(value: f64) -> String {
    let ms = value * 1000.0;
    if ms < 10.0 {
        format!("{ms:.1}ms")
    } else if ms < 1000.0 {
        format!("{ms:.0}ms")
    } else {
        format!("{value:.2}s")
    }
}

/// Three places: more would be noise.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 {
        format!("{value:.1e}")
    } else if size >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
pub(crate) mod tests;
