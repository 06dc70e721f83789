//! What happens to alerts and recordings when things go wrong.

use super::*;
use crate::labels::NAME;
use crate::sample::is_stale;

const MINUTE: i64 = 60_000;

const HELD: &str = "  - {alert: A, expr: x > 0, for: 5m}\n";

fn x(job: &str) -> Labels {
    Labels::new([(NAME, "x"), ("job", job)])
}

fn changes(evaluation: &Evaluation) -> Vec<Change> {
    evaluation.transitions.iter().map(|transition| transition.change).collect()
}

fn states(group: &Group) -> Vec<&'static str> {
    group.alerts().map(Alert::state_name).collect()
}

#[test]
fn an_evaluation_that_fails_neither_ends_nor_starts_an_alert() {
    let store = Memory::default();
    let mut group = group("  - {alert: A, expr: x > 0, for: 1m}\n  - {record: r, expr: x}\n");
    for minute in 0..=2 {
        store.add(x("a"), minute * MINUTE, 1.0);
        store.evaluate(&mut group, minute * MINUTE);
    }
    assert_eq!(states(&group), ["firing"]);
    store.broken.set(true);
    store.add(x("b"), 3 * MINUTE, 1.0);
    let evaluation = store.evaluate(&mut group, 3 * MINUTE);
    assert_eq!((changes(&evaluation), states(&group)), (vec![], vec!["firing"]));
    assert!(evaluation.samples.is_empty(), "no stale marker says that the series ended");
    assert_eq!(evaluation.failures.len(), 2);
    let bad = Health::Bad { error: "expanding series: the disk is gone".to_owned() };
    assert!(group.rules().iter().all(|rule| rule.health == bad));
    store.broken.set(false);
    store.add(x("a"), 4 * MINUTE, 0.0);
    assert_eq!(changes(&store.evaluate(&mut group, 4 * MINUTE)), [Change::Resolved, Change::Pending]);
    assert_eq!(group.rules()[0].health, Health::Good);
}

#[test]
fn a_rule_over_the_limit_of_its_group_keeps_its_alerts() {
    let store = Memory::default();
    let text = "groups:\n- {name: g, limit: 1, rules: [{alert: A, expr: x > 0}, {record: r, expr: x}]}\n";
    let mut group = groups(text).remove(0);
    store.add(x("a"), 0, 1.0);
    assert_eq!(changes(&store.evaluate(&mut group, 0)), [Change::Firing]);
    store.add(x("b"), MINUTE, 1.0);
    let evaluation = store.evaluate(&mut group, MINUTE);
    let errors: Vec<&str> = evaluation.failures.iter().map(|failure| failure.error.as_str()).collect();
    assert_eq!(errors, ["exceeded limit of 1 with 2 alerts", "exceeded limit of 1 with 2 series"]);
    assert_eq!(states(&group), ["firing"]);
}

#[test]
fn a_restart_restarts_no_timer() {
    let store = Memory::default();
    let mut before = group(HELD);
    for minute in 0..4 {
        store.add(x("a"), minute * MINUTE, 1.0);
        store.evaluate(&mut before, minute * MINUTE);
    }
    // Through the state that was written down.
    let written = serde_json::to_string(&before.state()).unwrap();
    let mut after = group(HELD);
    assert!(after.adopt(serde_json::from_str(&written).unwrap(), 4 * MINUTE).is_empty());
    assert_eq!(after.last_at_ms(), Some(3 * MINUTE));
    // Without one, by what the store remembers.
    let mut remembering = group(HELD);
    remembering.remember(&store, 4 * MINUTE).unwrap();
    for group in [&mut after, &mut remembering] {
        for minute in [4, 5] {
            store.add(x("a"), minute * MINUTE, 1.0);
            store.evaluate(group, minute * MINUTE);
        }
        assert_eq!(states(group), ["firing"], "since minute 0, so at minute 5");
        assert_eq!(group.alerts().next().unwrap().active_at_ms, 0);
    }
}

#[test]
fn after_a_long_silence_a_pending_alert_begins_anew_and_a_firing_one_goes_on() {
    let store = Memory::default();
    let mut group = group("  - {alert: A, expr: x > 0, for: 5m}\n  - {alert: B, expr: x > 0}\n");
    store.add(x("a"), 0, 1.0);
    store.evaluate(&mut group, 0);
    let later = OUTAGE_MAX_MS + MINUTE;
    store.add(x("a"), later, 1.0);
    assert_eq!(changes(&store.evaluate(&mut group, later)), [Change::Pending]);
    assert_eq!(states(&group), ["pending", "firing"]);
}

#[test]
fn alerts_that_ended_are_kept_for_a_while_and_forgotten() {
    let store = Memory::default();
    let mut group = group("  - {alert: A, expr: x > 0}\n");
    store.add(x("a"), 0, 1.0);
    store.evaluate(&mut group, 0);
    store.add(x("a"), MINUTE, 0.0);
    assert_eq!(changes(&store.evaluate(&mut group, MINUTE)), [Change::Resolved]);
    assert!(changes(&store.evaluate(&mut group, 2 * MINUTE)).is_empty(), "told once");
    store.evaluate(&mut group, MINUTE + RESOLVED_KEPT_MS);
    assert_eq!(states(&group), ["inactive"]);
    store.evaluate(&mut group, 2 * MINUTE + RESOLVED_KEPT_MS);
    assert!(states(&group).is_empty());
}

#[test]
fn what_a_rule_no_longer_gives_ends_with_a_stale_marker() {
    let store = Memory::default();
    let mut old = group("  - {record: r, expr: x}\n  - {alert: A, expr: x > 0}\n");
    store.add(x("a"), 0, 1.0);
    assert_eq!(store.evaluate(&mut old, 0).samples.len(), 3);
    store.add(x("a"), MINUTE, crate::sample::stale());
    let gone = store.evaluate(&mut old, MINUTE);
    let stale: Vec<String> = gone
        .samples
        .iter()
        .filter(|sample| is_stale(sample.sample.value))
        .map(|sample| sample.labels.to_string())
        .collect();
    assert_eq!(stale.len(), 3, "{stale:?}");
    assert!(store.evaluate(&mut old, 2 * MINUTE).samples.is_empty(), "told once");

    // A rule that is taken out of its file ends too.
    store.add(x("a"), 3 * MINUTE, 1.0);
    store.evaluate(&mut old, 3 * MINUTE);
    let mut new = group("  - {record: other, expr: x}\n");
    let ended = new.adopt(old.state(), 3 * MINUTE);
    assert_eq!(ended.iter().map(|transition| transition.change).collect::<Vec<_>>(), [Change::Resolved]);
    let samples = store.evaluate(&mut new, 4 * MINUTE).samples;
    assert_eq!(samples.iter().filter(|sample| is_stale(sample.sample.value)).count(), 3);
    let retired = new.retire(5 * MINUTE);
    assert_eq!(retired.samples.len(), 1);
    assert!(retired.transitions.is_empty());
}

#[test]
fn a_recording_that_takes_the_name_of_an_alert_ends_it() {
    let store = Memory::default();
    let mut before = group("  - {alert: A, expr: x > 0}\n");
    store.add(x("a"), 0, 1.0);
    store.evaluate(&mut before, 0);
    let mut after = group("  - {record: A, expr: x}\n");
    assert_eq!(after.adopt(before.state(), MINUTE)[0].change, Change::Resolved);
    assert!(states(&after).is_empty());
}

#[test]
fn no_moment_is_too_far_away() {
    let mut group = group("  - {record: r, expr: x}\n");
    for at_ms in [i64::MIN, i64::MAX, 0] {
        let _ = (group.due(at_ms), group.slot(at_ms), group.next_at_ms());
    }
    let store = Memory::default();
    for at_ms in [i64::MIN / 2, i64::MAX / 2] {
        store.evaluate(&mut group, at_ms);
        let _ = (group.due(0), group.due(i64::MAX), group.next_at_ms());
    }
}

#[test]
fn two_elements_that_become_one_are_an_error() {
    let store = Memory::default();
    for job in ["a", "b"] {
        store.add(x(job), 0, 1.0);
    }
    let mut group = group(
        "  - {record: r, expr: x, labels: {job: same}}\n  - {alert: A, expr: x, labels: {job: same}}\n",
    );
    let errors: Vec<String> =
        store.evaluate(&mut group, 0).failures.into_iter().map(|failure| failure.error).collect();
    assert_eq!(
        errors,
        [
            "vector contains metrics with the same labelset after applying rule labels",
            "vector contains metrics with the same labelset after applying alert labels",
        ]
    );
}

#[test]
fn results_that_are_no_vector_are_an_error_and_scalars_are_one() {
    let store = Memory::default();
    let mut group = group(
        "  - {record: r, expr: '\"abc\"'}\n  - {record: r, expr: 'x[5m]'}\n  - {record: s, expr: '1 + 1'}\n",
    );
    let evaluation = store.evaluate(&mut group, 0);
    assert!(
        evaluation.failures.iter().all(|failure| failure.error == "rule result is not a vector or scalar")
    );
    assert_eq!(evaluation.failures.len(), 2);
    assert_eq!(evaluation.samples[0].labels.to_string(), "s");
}

#[test]
fn templates_can_ask_and_a_mistake_is_shown_and_stops_nothing() {
    let store = Memory::default();
    store.add(x("a"), 0, 3.0);
    let mut group = group(
        "  - alert: A\n    expr: x > 0\n    labels: {n: '{{ with query \"count(x)\" }}{{ . | first | value }}{{ end }}', gone: '{{ $labels.none }}'}\n    annotations: {bad: '{{ .Nope }}', worse: '{{ query \"sum(\" }}'}\n",
    );
    let evaluation = store.evaluate(&mut group, 0);
    let alert = &evaluation.transitions[0].alert;
    assert_eq!(alert.labels.to_string(), r#"{alertname="A", job="a", n="1"}"#);
    assert!(
        alert.annotations["bad"]
            .starts_with("<error expanding template: error executing template __alert_A: ")
    );
    assert!(alert.annotations["worse"].contains("1:5: parse error: unclosed left parenthesis"));
}

#[test]
fn queries_look_back_by_the_offset_of_the_group() {
    let store = Memory::default();
    store.add(x("a"), 0, 1.0);
    store.add(x("a"), MINUTE, 2.0);
    let mut group =
        groups("groups:\n- {name: g, query_offset: 1m, rules: [{record: r, expr: x}]}\n").remove(0);
    let samples = store.evaluate(&mut group, MINUTE).samples;
    assert_eq!((samples[0].sample.at_ms, samples[0].sample.value), (0, 1.0));
}

#[test]
fn moments_that_were_missed_are_counted_and_not_made_up_for() {
    let store = Memory::default();
    let mut group = groups("groups:\n- {name: g, interval: 1m, rules: [{record: r, expr: x}]}\n").remove(0);
    let first = group.due(10 * MINUTE).unwrap();
    assert!(first.missed == 0 && (9 * MINUTE..=10 * MINUTE).contains(&first.at_ms));
    store.evaluate(&mut group, first.at_ms);
    assert_eq!(group.due(10 * MINUTE), None);
    assert_eq!(group.next_at_ms(), first.at_ms + MINUTE);
    assert_eq!(group.due(first.at_ms + MINUTE - 1), None);
    assert_eq!(
        group.due(first.at_ms + 4 * MINUTE + 7),
        Some(Due { at_ms: first.at_ms + 4 * MINUTE, missed: 3 })
    );
    store.evaluate(&mut group, first.at_ms + 4 * MINUTE);
    assert_eq!(group.missed(), 3);
    // A clock that is set back by a day does not silence the rules for a day.
    assert!(group.due(first.at_ms - 1440 * MINUTE).is_some());
    assert!(group.due(first.at_ms + 3 * MINUTE).is_none());
}

#[test]
fn groups_are_spread_over_their_interval_by_name() {
    let text: String = (0..50).map(|n| format!("- {{name: g{n}, interval: 1m}}\n")).collect();
    let slots: std::collections::BTreeSet<i64> =
        groups(&format!("groups:\n{text}")).iter().map(|group| group.slot(MINUTE)).collect();
    assert!(slots.len() > 40);
    assert!(slots.iter().all(|slot| (0..=MINUTE).contains(slot)));
}

#[test]
fn the_http_api_is_told_what_there_is() {
    let store = Memory::default();
    let mut group = groups(
        "groups:\n- {name: g, labels: {team: x, severity: low}, rules: [{alert: A, expr: x > 0, for: 1m, keep_firing_for: 5m, labels: {severity: high}, annotations: {s: 'of {{ $labels.job }}'}}, {record: r, expr: '\"t\"'}]}\n",
    )
    .remove(0);
    assert_eq!(group.shown().last_evaluation_ms, None);
    for (minute, value) in [(0, 1.0), (1, 1.0), (2, 0.0)] {
        store.add(x("a"), minute * MINUTE, value);
        store.evaluate(&mut group, minute * MINUTE);
    }
    let shown = group.shown();
    assert_eq!((shown.name.as_str(), shown.last_evaluation_ms), ("g", Some(2 * MINUTE)));
    let [alert, record] = &shown.rules[..] else { panic!() };
    assert_eq!(alert.labels.to_string(), r#"{severity="high", team="x"}"#);
    let alerting = alert.alerting.as_ref().unwrap();
    assert_eq!(alerting.annotations.get("s"), Some("of {{ $labels.job }}"));
    let active = &alerting.alerts[0];
    assert_eq!(active.labels.to_string(), r#"{alertname="A", job="a", severity="high", team="x"}"#);
    assert_eq!(active.annotations.get("s"), Some("of a"));
    assert!(active.firing && active.active_at_ms == 0 && active.keep_firing_since_ms == Some(2 * MINUTE));
    assert_eq!((record.health, record.alerting.is_none()), (crate::httpapi::Health::Bad, true));
    assert_eq!(record.last_error, "rule result is not a vector or scalar");
}

#[test]
fn five_hundred_rules_take_less_than_five_seconds() {
    let store = Memory::default();
    for service in 0..20 {
        for code in ["2xx", "4xx", "5xx"] {
            let labels = Labels::new([
                (NAME.to_owned(), "http_requests_total".to_owned()),
                ("service".to_owned(), format!("s{service}")),
                ("code".to_owned(), code.to_owned()),
            ]);
            for step in 0..40 {
                store.add(labels.clone(), step * 15_000, step as f64);
            }
        }
    }
    let rules: String = (0..250)
        .map(|n| {
            format!("  - {{record: 'r{n}', expr: 'sum by (service) (rate(http_requests_total[5m]))'}}\n  - {{alert: A{n}, expr: 'r{n} > 0.1', annotations: {{s: '{{{{ $value | humanize }}}}'}}}}\n")
        })
        .collect();
    let mut group = group(&rules);
    let begun = std::time::Instant::now();
    let evaluation = store.evaluate(&mut group, 600_000);
    let took = begun.elapsed();
    assert_eq!((evaluation.failures.len(), evaluation.samples.len()), (0, 250 * 20 * 3));
    assert!(took.as_secs() < 5, "{took:?}");
}
