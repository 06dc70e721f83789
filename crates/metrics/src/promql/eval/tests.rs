use super::*;
use crate::labels::{Labels, NAME};
use crate::promql::parse::{Dialect, NESTING_MAX, OPERATORS_MAX, parse, parse_as};
use crate::select::{Matcher, SelectError};

struct Kept(Vec<Series>);

impl Querier for Kept {
    fn select(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        _: usize,
    ) -> Result<Vec<Series>, SelectError> {
        let within = |samples: &[Sample]| -> Vec<Sample> {
            samples.iter().copied().filter(|sample| (from_ms..=to_ms).contains(&sample.at_ms)).collect()
        };
        let accepted =
            self.0.iter().filter(|series| matchers.iter().all(|matcher| matcher.accepts(&series.labels)));
        Ok(accepted
            .map(|series| Series { labels: series.labels.clone(), samples: within(&series.samples) })
            .filter(|series| !series.samples.is_empty())
            .collect())
    }

    fn series(&self, _: &[Matcher], _: TimestampMs, _: TimestampMs) -> Result<Vec<Labels>, SelectError> {
        Ok(self.0.iter().map(|series| series.labels.clone()).collect())
    }
}

/// Ten series `x`, one of which begins late, with a sample each second.
fn kept() -> Kept {
    let samples =
        |from: i64| (from..100).map(|at| Sample { at_ms: at * 1000, value: (at * 7 % 13) as f64 }).collect();
    let series = |index: i64| Series {
        labels: Labels::new([(NAME, "x".to_owned()), ("i", index.to_string())]),
        samples: samples(if index == 3 { 50 } else { 0 }),
    };
    Kept((0..10).map(series).collect())
}

fn instant(text: &str) -> Result<Answer, EvalError> {
    Engine::default().instant(&kept(), &parse(text).unwrap(), 99_000)
}

fn range(text: &str) -> Result<Answer, EvalError> {
    Engine::default().range(&kept(), &parse(text).unwrap(), 0, 99_000, 1_000)
}

#[test]
fn the_deepest_and_the_longest_query_fit_on_a_stack() {
    let nested =
        |open: &str, close: &str| format!("{}x{}", open.repeat(NESTING_MAX), close.repeat(NESTING_MAX));
    for text in [
        nested("(", ")"),
        nested("abs(", ")"),
        nested("-", ""),
        nested("sum(", ")"),
        nested("1 + (", ")"),
        format!("{}x{}", "max_over_time(".repeat(NESTING_MAX), "[5s:1s])".repeat(NESTING_MAX)),
        format!("2{}", " ^ 2".repeat(NESTING_MAX)),
        format!("x{}", " or x".repeat(OPERATORS_MAX)),
        format!("1{}", " + 1".repeat(OPERATORS_MAX)),
    ] {
        assert!(instant(&text).is_ok(), "{}", &text[..20]);
    }
}

#[test]
fn a_sort_over_a_range_does_not_compare_what_is_not_there() {
    for text in ["sort(x)", "sort_desc(x)"] {
        let Ok(Answer { value: Value::Matrix(series), warnings, .. }) = range(text) else { panic!("{text}") };
        assert_eq!((series.len(), warnings.len()), (10, 1));
    }
}

#[test]
fn a_query_that_would_take_too_much_is_refused_before_it_does() {
    for text in
        ["sum_over_time(x[100y:1s])", "sum_over_time(x[150d:1s])", "count_over_time(vector(1)[290y:1ms])"]
    {
        let refused = instant(text).map(|_| ()).expect_err(text);
        assert!(matches!(refused, EvalError::TooManySamples { .. }), "{text}: {refused}");
    }
    let few = Engine { limits: Limits { samples_max: 100, steps_max: 11_000 }, ..Engine::default() };
    for text in ["x", "count_values(\"v\", x)", "x + x", "x or x", "rate(x[10s])"] {
        let refused = few.range(&kept(), &parse(text).unwrap(), 0, 99_000, 1_000);
        assert!(matches!(refused, Err(EvalError::TooManySamples { .. })), "{text}");
    }
}

#[test]
fn times_at_the_ends_of_their_range_do_not_overflow() {
    for text in [
        "x",
        "rate(x[5m])",
        "x offset 290y",
        "x @ 9e15",
        "x @ -9e15 offset -290y",
        "sum_over_time(x[5m:1m])",
        "hour()",
        "timestamp(x)",
    ] {
        for at_ms in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX, 0] {
            let query = parse(text).unwrap();
            let _ = Engine::default().instant(&kept(), &query, at_ms);
            let _ = Engine::default().range(&kept(), &query, at_ms, at_ms.saturating_add(10_000), 1_000);
        }
    }
}

#[test]
fn impossible_ranges_are_refused_in_prometheus_words() {
    let engine = Engine::default();
    let refused = |text: &str, start: i64, end: i64, step: i64| {
        engine
            .range(&kept(), &parse(text).unwrap(), start, end, step)
            .map(|_| ())
            .expect_err(text)
            .to_string()
    };
    assert!(
        refused("x", 0, 1, 0).starts_with("zero or negative query resolution step widths are not accepted.")
    );
    assert_eq!(refused("x", 1, 0, 1), "end timestamp must not be before start time");
    assert!(
        refused("x", 0, 11_001, 1)
            .starts_with("exceeded maximum resolution of 11,000 points per timeseries.")
    );
    assert_eq!(
        refused("x[5m]", 0, 1, 1),
        "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
    );
    assert!(engine.range(&kept(), &parse("x").unwrap(), 0, 11_000, 1).is_ok());
}

#[test]
fn whoever_waits_can_stop_an_evaluation() {
    let engine = Engine { stop: Some(Stop(Arc::new(|| true))), ..Engine::default() };
    let stopped = engine.instant(&kept(), &parse("sum(x)").unwrap(), 0);
    assert!(matches!(stopped, Err(EvalError::Stopped)));
}

#[test]
fn names_go_at_once_unless_asked_otherwise() {
    let Ok(Answer { value: Value::Vector(list), .. }) = instant("sum by (__name__) (rate(x[1m]))") else {
        panic!()
    };
    assert_eq!(list[0].labels, Labels::default());
    let query =
        parse_as("label_replace(rate(x[1m]), \"n\", \"$1\", \"__name__\", \"(.*)\")", Dialect::Stable)
            .unwrap();
    let delayed = Engine { names: Names::Delayed, ..Engine::default() };
    let Ok(Answer { value: Value::Vector(list), .. }) = delayed.instant(&kept(), &query, 99_000) else {
        panic!()
    };
    assert_eq!((list[0].labels.get("n"), list[0].labels.name()), (Some("x"), ""));
}

#[test]
fn a_counter_that_falls_seldom_is_followed_as_window_by_window() {
    let falls = [17, 18, 40, 41, 71];
    let samples = (0..100).filter(|at| !(55..62).contains(at)).map(|at| {
        let since = falls.iter().rev().find(|fall| **fall <= at).copied().unwrap_or(0);
        Sample { at_ms: at * 1000, value: (at - since) as f64 * 3.0 }
    });
    let kept = Kept(vec![Series { labels: Labels::new([(NAME, "x")]), samples: samples.collect() }]);
    for text in ["increase(x[1s500ms])", "increase(x[4s])", "rate(x[30s])", "increase(x[5s] offset 3s)"] {
        let query = parse(text).unwrap();
        let moved = Engine::default().range(&kept, &query, 0, 110_000, 1_500).unwrap();
        let Value::Matrix(moved) = moved.value else { panic!("{text}") };
        let mut alone = Vec::new();
        for at_ms in (0..=110_000).step_by(1_500) {
            let Value::Vector(found) = Engine::default().instant(&kept, &query, at_ms).unwrap().value else {
                panic!("{text}")
            };
            alone.extend(found.iter().map(|element| (at_ms, element.sample.value)));
        }
        let moved: Vec<_> =
            moved.iter().flat_map(|one| &one.samples).map(|sample| (sample.at_ms, sample.value)).collect();
        assert_eq!(moved, alone, "{text}");
        assert!(alone.iter().all(|(_, value)| *value >= 0.0), "{text}: {alone:?}");
    }
}
