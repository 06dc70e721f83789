//! The scenario that `promtool test rules` passes, run through our own evaluation.

use std::collections::BTreeSet;

use super::super::yaml::{self, Node, Value};
use super::*;
use crate::promql::{self, parse_selector};

const SCENARIO: &str = include_str!("../../../tests/rules/scenario.yml");
const LIFECYCLE: &str = include_str!("../../../tests/rules/lifecycle.yml");
const BUILT_IN: &str = crate::builtin::ALERTS;

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn text<'a>(node: &'a Node, key: &str) -> &'a str {
    match get(node, key).map(|node| &node.value) {
        Some(Value::Text(text)) => text,
        other => panic!("{key}: {other:?}"),
    }
}

fn items<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    match get(node, key).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn pairs(node: &Node, key: &str) -> Vec<(String, String)> {
    let Some(Value::Map(entries)) = get(node, key).map(|node| &node.value) else { return Vec::new() };
    entries
        .iter()
        .map(|entry| (entry.key.clone(), text(get(node, key).unwrap(), &entry.key).to_owned()))
        .collect()
}

fn ms(length: &str) -> i64 {
    parse_duration(length).unwrap().as_millis() as i64
}

/// `name{a="b"}` as labels.
fn labels(selector: &str) -> Labels {
    let matchers = parse_selector(selector).unwrap();
    Labels::new(matchers.into_iter().map(|matcher| {
        let crate::select::Test::Equal(value) = matcher.test else { panic!("{selector}") };
        (matcher.label, value)
    }))
}

/// `0+3x2` is 0 3 6; `5x2` is 5 5 5; `_x2` is two gaps; `stale` is the marker.
fn values(text: &str) -> Vec<Option<f64>> {
    let mut values = Vec::new();
    for word in text.split_whitespace() {
        let (begin, times) =
            word.split_once('x').map_or((word, 0), |(begin, times)| (begin, times.parse().unwrap()));
        match begin {
            "_" => values.extend(std::iter::repeat_n(None, times.max(1))),
            "stale" => values.push(Some(crate::sample::stale())),
            _ => {
                let (begin, step) = begin
                    .split_once('+')
                    .map_or((begin, 0.0), |(begin, step)| (begin, step.parse().unwrap()));
                let begin: f64 = begin.parse().unwrap();
                values.extend((0..=times).map(|n| Some(begin + step * n as f64)));
            }
        }
    }
    values
}

/// Labels and annotations of what fires.
fn firing(groups: &[Group], name: &str) -> BTreeSet<String> {
    let alerts =
        groups.iter().flat_map(Group::alerts).filter(|alert| alert.is_firing() && alert.name() == name);
    alerts.map(|alert| format!("{} {:?}", alert.labels, alert.annotations)).collect()
}

fn run(test: &Node, interval_ms: i64) {
    let store = Memory::default();
    let every = ms(text(test, "interval"));
    for series in items(test, "input_series") {
        let labels = labels(text(series, "series"));
        for (index, value) in values(text(series, "values")).into_iter().enumerate() {
            if let Some(value) = value {
                store.add(labels.clone(), index as i64 * every, value);
            }
        }
    }
    let mut groups: Vec<Group> = [BUILT_IN, LIFECYCLE].into_iter().flat_map(super::groups).collect();
    let checks = items(test, "alert_rule_test");
    let queries = items(test, "promql_expr_test");
    let last = checks.iter().chain(queries).map(|check| ms(text(check, "eval_time"))).max().unwrap();
    let mut checked = 0;
    for at_ms in (0..=last).step_by(interval_ms as usize) {
        for group in &mut groups {
            let evaluation = store.evaluate(group, at_ms);
            assert_eq!(evaluation.failures, [], "at {at_ms}");
        }
        for check in checks.iter().filter(|check| ms(text(check, "eval_time")) == at_ms) {
            let name = text(check, "alertname");
            let expect: BTreeSet<String> = items(check, "exp_alerts")
                .iter()
                .map(|alert| {
                    let labels = Labels::new(pairs(alert, "exp_labels")).with(ALERT_NAME, name);
                    format!(
                        "{labels} {:?}",
                        pairs(alert, "exp_annotations").into_iter().collect::<BTreeMap<_, _>>()
                    )
                })
                .collect();
            assert_eq!(firing(&groups, name), expect, "{name} at {}", text(check, "eval_time"));
            checked += 1;
        }
    }
    assert_eq!(checked, checks.len());
    for check in queries {
        let at_ms = ms(text(check, "eval_time"));
        let query = promql::parse(text(check, "expr")).unwrap();
        let engine = Engine::default();
        let found = Local::new(&store, &engine).instant(&query, at_ms).unwrap();
        let found: BTreeSet<String> =
            found.iter().map(|found| format!("{} {}", found.labels, found.value)).collect();
        let expect = items(check, "exp_samples")
            .iter()
            .map(|sample| format!("{} {}", labels(text(sample, "labels")), text(sample, "value")));
        assert_eq!(found, expect.collect(), "{} at {at_ms}", query.text());
    }
}

#[test]
fn alerts_fire_as_they_do_in_prometheus() {
    let document = yaml::read(SCENARIO).unwrap();
    let interval_ms = ms(text(&document, "evaluation_interval"));
    let tests = items(&document, "tests");
    assert_eq!(tests.len(), 3);
    for test in tests {
        run(test, interval_ms);
    }
}

#[test]
fn promtool_agrees_with_the_scenario() {
    let Some(program) = std::env::var_os("FAIRWAY_PROMTOOL") else {
        eprintln!("SKIPPED: FAIRWAY_PROMTOOL does not name promtool");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("scenario.yml", SCENARIO), ("lifecycle.yml", LIFECYCLE), ("rules.yml", BUILT_IN)] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let run = std::process::Command::new(program)
        .args(["test", "rules", "scenario.yml"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
}
