//! The rules of an objective.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::levels::{Level, Severity, levels};
use super::{SloError, SloGoal, SloSpec, WINDOW_MAX, WINDOW_MIN};
use crate::labels::Labels;
use crate::promql::{self, Type, quote};
use crate::rules::emit::Yaml;
use crate::rules::{RuleFile, show_duration};

/// How often pages are looked for.
const FAST: &str = "30s";
/// How often the kept rates are recorded: as long as the range they look at, so that their samples lie side by side.
pub(super) const STEP: Duration = Duration::from_secs(300);
/// Up to here, ratios come from the raw series, so that a page does not wait for the kept ones.
const RAW_MAX: Duration = Duration::from_secs(6 * 3600);

pub(super) const ERRORS: &str = "slo:sli_error:rate5m";
pub(super) const TOTAL: &str = "slo:sli_total:rate5m";

/// Whether the store has to keep this series as long as the longest window of an objective.
#[must_use]
pub fn keeps(labels: &Labels) -> bool {
    matches!(labels.name(), ERRORS | TOTAL)
}

/// The rules of all objectives, as a rule file that Prometheus reads.
///
/// # Errors
/// The first objective that cannot be one, or what is too large about their rules.
pub fn rule_file(name: &str, specs: &[SloSpec]) -> Result<RuleFile, SloError> {
    let mut known = BTreeSet::new();
    let mut groups = Vec::new();
    for spec in specs {
        check(spec)?;
        if !known.insert((&spec.environment, &spec.name)) {
            return Err(SloError::Twice { slo: spec.name.clone(), environment: spec.environment.clone() });
        }
        groups.extend([fast(spec), slow(spec)]);
    }
    let text = Yaml::map([("groups", Yaml::List(groups))]).document();
    RuleFile::parse(name, &text).map_err(|error| SloError::Rules { error })
}

fn check(spec: &SloSpec) -> Result<(), SloError> {
    let slo = || spec.name.clone();
    let objective = spec.objective;
    if !(objective > 0.0 && objective < 1.0) {
        return Err(SloError::Objective { slo: slo(), objective });
    }
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&spec.window) {
        return Err(SloError::Window { slo: slo(), window: spec.window });
    }
    match &spec.goal {
        SloGoal::Availability { .. } => Ok(()),
        SloGoal::Latency { within_s, .. } if *within_s > 0.0 && within_s.is_finite() => Ok(()),
        SloGoal::Latency { within_s, .. } => Err(SloError::Within { slo: slo(), within_s: *within_s }),
        SloGoal::Query { good, total } => {
            for (which, query) in [("good events", good), ("all events", total)] {
                if !query.contains("$window") {
                    return Err(SloError::NoWindow { slo: slo(), which });
                }
                let parsed = promql::parse(&query.replace("$window", "5m"))
                    .map_err(|error| SloError::Query { slo: slo(), which, error })?;
                if parsed.ty() != Type::InstantVector {
                    return Err(SloError::Type { slo: slo(), which, given: parsed.ty().to_string() });
                }
            }
            Ok(())
        }
    }
}

/// Errors and all events, a second, over `window`, of the raw series.
fn rates(spec: &SloSpec, window: &str) -> (String, String) {
    let of = |service: &str| format!("environment={},service={}", quote(&spec.environment), quote(service));
    match &spec.goal {
        SloGoal::Availability { service } => {
            let of = of(service);
            let total = format!("sum(rate(http_requests_total{{{of}}}[{window}]))");
            let failed = format!("sum(rate(http_requests_total{{{of},code=~\"5xx|none\"}}[{window}]))");
            // A service that never failed has no series of failures.
            (format!("({failed} or 0 * {total})"), total)
        }
        SloGoal::Latency { service, within_s } => {
            let of = of(service);
            let total = format!("sum(rate(http_request_duration_seconds_count{{{of}}}[{window}]))");
            let bound = bound(*within_s);
            let fast = format!("sum(rate(http_request_duration_seconds_bucket{{{of},{bound}}}[{window}]))");
            // Without `or`: a bound that the histogram does not have gives nothing, instead of everything failed.
            (format!("clamp_min({total} - {fast}, 0)"), total)
        }
        SloGoal::Query { good, total } => {
            // On lines of their own, so that a comment at the end of a query ends there.
            let total = format!("sum(\n{}\n)", total.replace("$window", window));
            let good = format!("sum(\n{}\n)", good.replace("$window", window));
            (format!("clamp_min({total} - ({good} or 0 * {total}), 0)"), total)
        }
    }
}

/// Whole bounds are written `1` by some and `1.0` by others.
fn bound(seconds: f64) -> String {
    if seconds.fract() == 0.0 { format!("le=~\"{seconds}(\\\\.0)?\"") } else { format!("le=\"{seconds}\"") }
}

pub(super) fn selector(spec: &SloSpec) -> String {
    format!("{{environment={},slo={}}}", quote(&spec.environment), quote(&spec.name))
}

fn labels(spec: &SloSpec) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::from([("environment", spec.environment.clone()), ("slo", spec.name.clone())]);
    match &spec.goal {
        SloGoal::Availability { service } | SloGoal::Latency { service, .. } => {
            labels.insert("service", service.clone());
        }
        SloGoal::Query { .. } => {}
    }
    labels
}

fn record(spec: &SloSpec, name: &str, expr: &str) -> Yaml {
    let labels = Yaml::map(labels(spec).into_iter().map(|(name, value)| (name, Yaml::text(value))));
    Yaml::map([("record", Yaml::text(name)), ("expr", Yaml::text(expr)), ("labels", labels)])
}

pub(super) fn ratio_name(window: Duration) -> String {
    format!("slo:sli_error:ratio_rate{}", show_duration(window))
}

/// All windows over which a ratio is recorded.
fn windows(spec: &SloSpec) -> BTreeSet<Duration> {
    let mut windows: BTreeSet<Duration> =
        levels(spec).iter().flat_map(|level| [level.long, level.short]).collect();
    windows.extend([STEP, Duration::from_secs(3600), RAW_MAX, spec.window]);
    windows
}

fn group(spec: &SloSpec, suffix: &str, interval: &str, rules: Vec<Yaml>) -> Yaml {
    Yaml::map([
        ("name", Yaml::text(format!("slo {} {}{suffix}", spec.environment, spec.name))),
        ("interval", Yaml::text(interval)),
        ("rules", Yaml::List(rules)),
    ])
}

fn fast(spec: &SloSpec) -> Yaml {
    let mut rules = Vec::new();
    for window in windows(spec).into_iter().filter(|window| *window <= RAW_MAX) {
        let (errors, total) = rates(spec, &show_duration(window));
        rules.push(record(spec, &ratio_name(window), &format!("{errors}\n/\n({total} > 0)")));
    }
    rules.extend(alert(spec, Severity::Page));
    group(spec, "", FAST, rules)
}

fn slow(spec: &SloSpec) -> Yaml {
    let of = selector(spec);
    let (errors, total) = rates(spec, "5m");
    let mut rules = vec![
        record(spec, ERRORS, &errors),
        record(spec, TOTAL, &total),
        record(spec, "slo:objective:ratio", &format!("vector({})", spec.objective)),
    ];
    for window in windows(spec).into_iter().filter(|window| *window > RAW_MAX) {
        let range = show_duration(window);
        let sum = |name: &str| format!("sum_over_time({name}{of}[{range}])");
        rules.push(record(spec, &ratio_name(window), &format!("{}\n/\n({} > 0)", sum(ERRORS), sum(TOTAL))));
    }
    let spent = format!("{}{of} / (1 - {})", ratio_name(spec.window), spec.objective);
    rules.push(record(spec, "slo:error_budget_remaining:ratio", &format!("1 - {spent}")));
    rules.extend(alert(spec, Severity::Ticket));
    rules.push(spent_alert(spec));
    group(spec, " budget", &show_duration(STEP), rules)
}

/// All levels of one severity in one alert, so that one fire is one page.
fn alert(spec: &SloSpec, severity: Severity) -> Option<Yaml> {
    let levels: Vec<Level> = levels(spec).into_iter().filter(|level| level.severity == severity).collect();
    if levels.is_empty() {
        return None;
    }
    let of = selector(spec);
    let mut expr = String::new();
    for (index, level) in levels.iter().enumerate() {
        // Four digits are more than anyone's budget is known to.
        let factor = (level.factor * 1e4).round() / 1e4;
        let burns =
            |window: Duration| format!("{}{of} > {factor} * (1 - {})", ratio_name(window), spec.objective);
        let or = if index > 0 { "\nor\n" } else { "" };
        let _ = write!(expr, "{or}(\n  {}\nand\n  {}\n)", burns(level.long), burns(level.short));
    }
    let (name, word, urgency) = match severity {
        Severity::Page => {
            ("ErrorBudgetBurnsFast", "critical", "fast: at this pace it is gone in days or hours")
        }
        Severity::Ticket => ("ErrorBudgetBurnsSlowly", "warning", "faster than it grows back"),
    };
    Some(alert_rule(
        spec,
        name,
        &expr,
        word,
        [
            format!("{} burns its error budget {urgency}", escaped(&spec.name)),
            format!(
                "{{{{ $value | humanizePercentage }}}} of the events of {} in {} are bad; {}% are allowed over {}.",
                escaped(&spec.name),
                escaped(&spec.environment),
                percent(1.0 - spec.objective),
                show_duration(spec.window),
            ),
            "See what fails. If it began with a release, go back: fairway rollback".to_owned(),
        ],
    ))
}

fn spent_alert(spec: &SloSpec) -> Yaml {
    let of = selector(spec);
    let history = format!("count_over_time({TOTAL}{of}[{}])", show_duration(spec.window));
    // A tenth of the window: on its first day, a single bad minute spends all that was earned so far.
    let enough = spec.window.as_secs() / STEP.as_secs() / 10;
    alert_rule(
        spec,
        "ErrorBudgetSpent",
        &format!("slo:error_budget_remaining:ratio{of} <= 0\nand\n{history} >= {enough}"),
        "warning",
        [
            format!("The error budget of {} is spent", escaped(&spec.name)),
            format!(
                "Over {}, {} in {} missed its objective of {}%.",
                show_duration(spec.window),
                escaped(&spec.name),
                escaped(&spec.environment),
                percent(spec.objective),
            ),
            "Ship what makes it reliable before what makes it larger.".to_owned(),
        ],
    )
}

fn alert_rule(
    spec: &SloSpec,
    name: &str,
    expr: &str,
    severity: &str,
    [summary, description, next]: [String; 3],
) -> Yaml {
    let short = spec.environment.rsplit('/').next().unwrap_or_default();
    let command = format!("fairway slo {} -e {}", escaped(&spec.name), escaped(short));
    let annotations =
        [("summary", summary), ("description", description), ("command", command), ("next", next)];
    let mut labels = labels(spec);
    labels.insert("severity", severity.to_owned());
    Yaml::map([
        ("alert", Yaml::text(name)),
        ("expr", Yaml::text(expr)),
        ("labels", Yaml::map(labels.into_iter().map(|(name, value)| (name, Yaml::text(escaped(&value)))))),
        ("annotations", Yaml::map(annotations.into_iter().map(|(name, text)| (name, Yaml::text(text))))),
    ])
}

/// Names stand for themselves in templates too.
fn escaped(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

fn percent(ratio: f64) -> f64 {
    // Six digits: 99.9999 % is the last anyone promises, and 1 - 0.999 has a tail.
    (ratio * 1e8).round() / 1e6
}
