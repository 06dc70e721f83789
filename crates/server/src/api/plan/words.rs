//! Steps, gates, triggers and autoscaling of a release in words.

use std::time::Duration;

use fairway_engine::evidence::{
    Autoscale, Check, Gate, NoData, Number, ScaleMetric, ScaleSource, Sequential, Trigger,
};
use fairway_engine::strategy::{Match, Step};
use fairway_metrics::rules::show_duration;

/// Longer ones are looked up in the file.
const QUERY_SHOWN_MAX: usize = 80;

#[must_use]
pub fn step(step: &Step) -> String {
    let mut words = vec![match step.weight {
        0 => "no public requests".to_owned(),
        weight => format!("{weight} % of the requests"),
    }];
    if step.mirror > 0 {
        words.push(format!("a copy of {} %, whose answers nobody sees", step.mirror));
    }
    words.extend(step.experiment.as_ref().map(|name| format!("experiment {name}")));
    if !step.hold.is_zero() {
        words.push(format!("for {}", show_duration(step.hold)));
    }
    if step.approve {
        words.push("then somebody promotes".to_owned());
    }
    words.join(", ")
}

#[must_use]
pub fn testers(one: &Match) -> String {
    match one {
        Match::Header { name, value } => format!("requests with the header {name}: {value}"),
        Match::Cookie { name, value } => format!("requests with the cookie {name}={value}"),
    }
}

#[must_use]
pub fn sequential(test: &Sequential) -> String {
    let least = match test.min_requests {
        0 => String::new(),
        least => format!("; a step has to see {least} requests"),
    };
    format!(
        "turned back when errors or slow answers come to it {} times as often as to stable (false alarms: {} of \
         rollouts at most){least}",
        test.margin,
        percent(test.alpha)
    )
}

#[must_use]
pub fn gate(gate: &Gate) -> String {
    let name = match &gate.check {
        Check::ErrorRate => "error rate".to_owned(),
        Check::Latency { percentile } => format!("p{percentile}"),
        Check::Query { promql } => cut(promql),
        Check::Command { job } => format!("{} succeeds", cut(&job.command.join(" "))),
        Check::Webhook { url } => format!("{} answers 2xx", cut(url)),
    };
    let unit = |value: Number| match &gate.check {
        Check::ErrorRate => percent(value),
        Check::Latency { .. } => format!("{value} s"),
        Check::Query { .. } | Check::Command { .. } | Check::Webhook { .. } => value.to_string(),
    };
    let mut bounds = Vec::new();
    bounds.extend(gate.bounds.max.map(|max| format!("at most {}", unit(max))));
    bounds.extend(gate.bounds.min.map(|min| format!("at least {}", unit(min))));
    bounds.extend(gate.bounds.max_vs_stable.map(|ratio| format!("at most {ratio} times stable's")));
    let mut text = name;
    if !bounds.is_empty() {
        text = format!("{text} {}", bounds.join(", "));
    }
    if gate.min_requests > 0 {
        text = format!("{text}, from {} requests on", gate.min_requests);
    }
    if !gate.lasts.is_zero() {
        text = format!("{text}, turned back when crossed for {}", show_duration(gate.lasts));
    }
    let without = match gate.no_data {
        NoData::Pause => "pauses",
        NoData::Pass => "passes",
        NoData::Fail => "is turned back",
    };
    format!("{text}; without data it {without}")
}

#[must_use]
pub fn trigger(trigger: &Trigger) -> String {
    match trigger {
        Trigger::ErrorRate { above, lasts } => {
            format!("turned back when its error rate is above {}{}", percent(*above), lasting(*lasts))
        }
        Trigger::Latency { percentile, above, lasts } => {
            format!(
                "turned back when its p{percentile} is above {}{}",
                show_duration(*above),
                lasting(*lasts)
            )
        }
        Trigger::CriticalAlert => "turned back when a critical alert fires".to_owned(),
    }
}

fn lasting(time: Duration) -> String {
    if time.is_zero() { String::new() } else { format!(" for {}", show_duration(time)) }
}

/// `1 copy`, `3 copies`
#[must_use]
pub fn copies(count: u32) -> String {
    if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") }
}

/// `2 to 8 copies by its load (cpu 70 %)`
#[must_use]
pub fn autoscale(settings: &Autoscale) -> String {
    let by: Vec<String> = settings.metrics.iter().map(scale_metric).collect();
    format!("{} to {} copies by its load ({})", settings.min, settings.max, by.join(", "))
}

fn scale_metric(metric: &ScaleMetric) -> String {
    let target = metric.target;
    match &metric.source {
        ScaleSource::Cpu => format!("CPU {target} %"),
        ScaleSource::Memory => format!("memory {target} %"),
        ScaleSource::Requests => format!("{target} requests/s a copy"),
        ScaleSource::Latency { percentile } => format!("p{percentile} {target} s"),
        ScaleSource::Query { promql } => format!("{} at {target}", cut(promql)),
    }
}

fn percent(share: Number) -> String {
    // Floating point makes 0.07 × 100 a little more than 7.
    format!("{} %", (share.0 * 100_000.0).round() / 1000.0)
}

fn cut(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= QUERY_SHOWN_MAX {
        return text;
    }
    format!("{}…", text.chars().take(QUERY_SHOWN_MAX - 1).collect::<String>())
}

#[cfg(test)]
mod tests {
    use fairway_engine::evidence::{Bounds, ScaleBehaviour, ScaleSelect};

    use super::*;

    #[test]
    fn steps_say_weight_copies_experiment_hold_and_who_goes_on() {
        let mut one =
            Step { weight: 5, hold: Duration::from_secs(300), approve: false, mirror: 0, experiment: None };
        assert_eq!(step(&one), "5 % of the requests, for 5m");
        one = Step { weight: 0, mirror: 20, experiment: Some("gifts".into()), approve: true, ..one };
        assert_eq!(
            step(&one),
            "no public requests, a copy of 20 %, whose answers nobody sees, experiment gifts, for 5m, then somebody \
             promotes"
        );
    }

    #[test]
    fn gates_and_triggers_say_bound_time_and_what_holds_without_data() {
        let mut one = Gate {
            name: "error_rate".into(),
            check: Check::ErrorRate,
            bounds: Bounds { max: Some(Number(0.07)), min: None, max_vs_stable: Some(Number(1.3)) },
            lasts: Duration::from_secs(90),
            min_requests: 200,
            no_data: NoData::Fail,
        };
        assert_eq!(
            gate(&one),
            "error rate at most 7 %, at most 1.3 times stable's, from 200 requests on, turned back when crossed for \
             1m30s; without data it is turned back"
        );
        one.check = Check::Query { promql: "sum(\n  queue_length)".into() };
        one.bounds = Bounds { max: Some(Number(100.0)), ..Bounds::default() };
        one.lasts = Duration::ZERO;
        assert_eq!(
            gate(&one),
            "sum( queue_length) at most 100, from 200 requests on; without data it is turned back"
        );
        let slow = Trigger::Latency {
            percentile: 95,
            above: Duration::from_millis(2500),
            lasts: Duration::from_secs(60),
        };
        assert_eq!(trigger(&slow), "turned back when its p95 is above 2s500ms for 1m");
        let test = Sequential { margin: Number(1.25), alpha: Number(0.01), min_requests: 20 };
        assert_eq!(
            sequential(&test),
            "turned back when errors or slow answers come to it 1.25 times as often as to stable (false alarms: 1 % of \
             rollouts at most); a step has to see 20 requests"
        );
    }

    #[test]
    fn autoscaling_says_its_bounds_and_what_it_follows() {
        let behaviour =
            ScaleBehaviour { stabilisation: Duration::ZERO, policies: Vec::new(), select: ScaleSelect::Max };
        let settings = Autoscale {
            min: 2,
            max: 8,
            metrics: vec![
                ScaleMetric { source: ScaleSource::Cpu, target: Number(70.0) },
                ScaleMetric { source: ScaleSource::Requests, target: Number(50.0) },
            ],
            tolerance: Number(0.1),
            up: behaviour.clone(),
            down: behaviour,
        };
        assert_eq!(autoscale(&settings), "2 to 8 copies by its load (CPU 70 %, 50 requests/s a copy)");
    }
}
