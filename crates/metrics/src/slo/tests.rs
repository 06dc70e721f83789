use std::time::Duration;

use super::*;
use crate::labels::Labels;
use crate::promql::Query;
use crate::rules::{Evaluate, EvaluateError, Found, Recorded, RuleKind, show_duration};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn spec(goal: SloGoal, objective: f64, days: u32) -> SloSpec {
    SloSpec { name: "api".into(), environment: "shop/production".into(), goal, objective, window: DAY * days }
}

fn availability(objective: f64, days: u32) -> SloSpec {
    spec(SloGoal::Availability { service: "api".into() }, objective, days)
}

fn told(spec: &SloSpec) -> Vec<String> {
    let levels = levels(spec).into_iter();
    levels
        .map(|level| {
            let (long, short) = (show_duration(level.long), show_duration(level.short));
            format!("{:?} {:.2} {long} {short}", level.severity, level.factor)
        })
        .collect()
}

#[test]
fn levels_are_those_of_the_workbook() {
    let expect = ["Page 14.40 1h 5m", "Page 6.00 6h 30m", "Ticket 3.00 1d 2h", "Ticket 1.00 3d 6h"];
    assert_eq!(told(&availability(0.999, 30)), expect);
    // What spends less than the budget is nobody's business; the slow ticket keeps its proportion.
    assert_eq!(
        told(&availability(0.999, 7)),
        ["Page 3.36 1h 5m", "Page 1.40 6h 30m", "Ticket 1.00 16h48m 1h24m"]
    );
    assert_eq!(told(&availability(0.999, 1)), ["Ticket 1.00 2h24m 12m"]);
    // 14.4 times a tenth is more than everything.
    assert_eq!(told(&availability(0.9, 30)), ["Page 6.00 6h 30m", "Ticket 3.00 1d 2h", "Ticket 1.00 3d 6h"]);
    assert_eq!(told(&availability(0.5, 30)), ["Ticket 1.00 3d 6h"]);
}

#[test]
fn every_kind_of_goal_gives_rules_that_can_be_read() {
    let hostile = "a\"b\\c{{ $value }}\nd: #x";
    let goals = [
        SloGoal::Availability { service: hostile.into() },
        SloGoal::Latency { service: hostile.into(), within_s: 0.5 },
        SloGoal::Latency { service: "api".into(), within_s: 1.0 },
        SloGoal::Query {
            good: "sum(rate(jobs_total{ok=\"1\"}[$window])) # comment".into(),
            total: "rate(jobs_total[$window])".into(),
        },
    ];
    for goal in goals {
        for days in [1, 7, 30, 100] {
            let spec = SloSpec {
                name: hostile.into(),
                environment: hostile.into(),
                ..spec(goal.clone(), 0.999, days)
            };
            let file = rule_file("slo.yml", &[spec]).unwrap();
            assert_eq!(file.groups.len(), 2);
            let alerts: Vec<&str> = file
                .groups
                .iter()
                .flat_map(|group| &group.rules)
                .filter(|rule| matches!(rule.kind, RuleKind::Alert { .. }))
                .map(|rule| rule.name())
                .collect();
            assert!(
                alerts.contains(&"ErrorBudgetBurnsSlowly") && alerts.contains(&"ErrorBudgetSpent"),
                "{alerts:?}"
            );
            assert_eq!(alerts.contains(&"ErrorBudgetBurnsFast"), days > 1);
        }
    }
    let text =
        rule_file("slo.yml", &[spec(SloGoal::Latency { service: "api".into(), within_s: 1.0 }, 0.99, 30)])
            .unwrap()
            .text;
    assert!(text.contains(r#"le=~"1(\\.0)?""#), "{text}");
}

#[test]
fn what_is_no_objective_is_refused() {
    let refused = |spec: SloSpec| rule_file("slo.yml", &[spec]).unwrap_err().to_string();
    for objective in [0.0, 1.0, -1.0, 99.9, f64::NAN] {
        assert!(refused(availability(objective, 30)).contains("above 0 and below 1"));
    }
    assert!(refused(availability(0.9, 0)).contains("between 1 d and 100 d, and is 0s"));
    assert!(refused(availability(0.9, 101)).contains("between 1 d and 100 d"));
    let query = |good: &str| {
        spec(SloGoal::Query { good: good.into(), total: "sum(rate(x[$window]))".into() }, 0.9, 30)
    };
    assert_eq!(
        refused(query("sum(rate(x[5m]))")),
        "api: the query for good events has no $window where its range belongs"
    );
    assert_eq!(
        refused(query("sum(rate(x[$window])")),
        "api: the query for good events: 1:16: parse error: unclosed left parenthesis"
    );
    assert!(refused(query("x[$window]")).contains("gives a range vector"));
    assert!(
        refused(spec(SloGoal::Latency { service: "api".into(), within_s: 0.0 }, 0.9, 30)).contains("above 0")
    );
    let twice = [availability(0.9, 30), availability(0.99, 30)];
    assert_eq!(
        rule_file("slo.yml", &twice).unwrap_err().to_string(),
        "api: defined twice in shop/production"
    );
}

#[test]
fn what_is_too_large_is_refused_and_strange_names_are_names() {
    let query = "x or ".repeat(2_000) + "rate(x[$window])";
    let goals = [
        (SloGoal::Query { good: query.clone(), total: query }, "api"),
        (SloGoal::Availability { service: "x".repeat(200_000) }, "api"),
    ];
    for (goal, _) in goals {
        assert!(rule_file("slo.yml", &[spec(goal, 0.9, 30)]).is_err());
    }
    for name in [
        "\0", "\u{feff}", "\u{85}", "\r", "{", "{{{", "}}", "`", "'", "%", "\u{2028}", "ünï", " ", "&a", "*",
        "!x", "\\",
    ] {
        let slo = SloSpec { name: name.into(), environment: name.into(), ..availability(0.9, 30) };
        let file = rule_file("slo.yml", &[slo]).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        let RuleKind::Record { .. } = file.groups[0].rules[0].kind else { panic!() };
        assert_eq!(file.groups[0].rules[0].labels["slo"].text(), name);
    }
}

/// Answers queries by their beginning.
struct Answers(Vec<(&'static str, f64)>);

impl Evaluate for Answers {
    fn instant(&mut self, query: &Query, _: i64) -> Result<Vec<Found>, EvaluateError> {
        let found = self.0.iter().find(|(begins, _)| query.text().starts_with(begins));
        Ok(found.map(|(_, value)| Found { labels: Labels::default(), value: *value }).into_iter().collect())
    }

    fn record(&mut self, _: &[Recorded]) {}
}

#[test]
fn a_budget_says_what_it_does_not_know() {
    let spec = availability(0.999, 30);
    let of = |answers: Vec<(&'static str, f64)>| budget(&mut Answers(answers), &spec, 1_000_000).unwrap();
    let empty = of(Vec::new());
    assert_eq!((empty.standing, empty.covered_ms), (Standing::NoData, 0));
    assert!(empty.burns.iter().all(|burn| burn.rate.is_none()));
    let quiet = of(vec![("count_over_time(slo:sli_total", 12.0), ("sum_over_time(slo:sli_total", 0.0)]);
    assert_eq!((quiet.standing, quiet.covered_ms), (Standing::NoTraffic, 3_600_000));
    // A tenth of the budget in the first hour; the next 9 tenths take 9 hours at ten times... of 30 days.
    let measured = of(vec![
        ("count_over_time(slo:sli_total", 12.0),
        ("sum_over_time(slo:sli_total:rate5m{environment=\"shop/production\",slo=\"api\"}[30d])", 1_200.0),
        ("sum_over_time(slo:sli_error:rate5m{environment=\"shop/production\",slo=\"api\"}[30d])", 0.12),
        ("slo:sli_error:ratio_rate1h", 0.01),
    ]);
    let Standing::Measured { good, total, remaining_ratio, exhausted_at_ms } = measured.standing else {
        panic!()
    };
    assert_eq!((total, good.round()), (360_000.0, 359_964.0));
    assert!((remaining_ratio - 0.9).abs() < 1e-9);
    assert!((measured.burns[1].rate.unwrap() - 10.0).abs() < 1e-9);
    let in_days = (exhausted_at_ms.unwrap() - 1_000_000) as f64 / 86_400_000.0;
    assert!((in_days - 2.7).abs() < 1e-6, "{in_days}");
}

/// Real rules over a store: half of the requests fails for an hour, at 200 a minute.
#[test]
fn a_burn_is_paged_and_the_budget_is_counted() {
    use std::sync::Arc;

    use crate::labels::NAME;
    use crate::promql::Engine;
    use crate::rules::tests::Memory;
    use crate::rules::{Group, Local, Surroundings};

    const MINUTE: i64 = 60_000;
    let store = Memory::default();
    let (mut good, mut bad) = (0.0, 0.0);
    for minute in 0..=600 {
        let fails = (300..360).contains(&minute);
        good += if fails { 100.0 } else { 200.0 };
        bad += if fails { 100.0 } else { 0.0 };
        for (code, count) in [("2xx", good), ("5xx", bad)] {
            let labels = [
                (NAME, "http_requests_total"),
                ("environment", "shop/production"),
                ("service", "api"),
                ("code", code),
            ];
            store.add(Labels::new(labels), minute * MINUTE, count);
        }
    }
    let spec = availability(0.99, 30);
    let around = Arc::new(Surroundings::default());
    let file = rule_file("slo.yml", std::slice::from_ref(&spec)).unwrap();
    let mut groups: Vec<Group> =
        file.groups.into_iter().map(|group| Group::new("slo.yml", group, Arc::clone(&around))).collect();
    let mut firing = std::collections::BTreeMap::<String, Vec<i64>>::new();
    for minute in (0..=600).step_by(5) {
        for group in &mut groups {
            let evaluation = store.evaluate(group, minute * MINUTE);
            assert_eq!(evaluation.failures, []);
            for alert in group.alerts().filter(|alert| alert.is_firing()) {
                firing.entry(alert.name().to_owned()).or_default().push(minute);
            }
        }
    }
    // 14.4 % of an hour's requests have failed after 17 of its minutes. Half an hour after the end, it is over.
    let pages = &firing["ErrorBudgetBurnsFast"];
    assert_eq!((pages[0], pages[pages.len() - 1]), (320, 380), "{firing:?}");
    assert!(!firing.contains_key("ErrorBudgetSpent"), "ten hours are no history: {firing:?}");
    let engine = Engine::default();
    let budget = budget(&mut Local::new(&store, &engine), &spec, 600 * MINUTE).unwrap();
    let Standing::Measured { good, total, remaining_ratio, exhausted_at_ms } = budget.standing else {
        panic!()
    };
    // 120 kept samples of five minutes each: the first moment has no rate. The first rate is a little short, because
    // a counter that begins at 0 is not extrapolated to before it began.
    assert_eq!(budget.covered_ms, 600 * 60_000);
    assert!((total - 120_000.0).abs() < 30.0, "{total}");
    assert!((total - good - 6_000.0).abs() < 30.0, "{good}");
    assert!((remaining_ratio + 4.0).abs() < 0.05, "5 % failed and 1 % is the budget: {remaining_ratio}");
    assert_eq!(exhausted_at_ms, Some(600 * MINUTE));
    let rates: Vec<Option<f64>> =
        budget.burns.iter().map(|burn| burn.rate.map(|rate| rate.round())).collect();
    assert_eq!(rates, [Some(0.0), Some(0.0), Some(8.0), Some(5.0), Some(5.0)]);
}
