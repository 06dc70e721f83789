use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::exposition::{Format, Limits, Metadata, MetricType, parse};
use crate::labels::{Labels, NAME};
use crate::promql::{Engine, Stop};
use crate::sample::{Sample, TimestampMs, stale};
use crate::select::{Matcher, Querier, SelectError, Series};

const NOW_MS: i64 = 1_700_000_000_000;

/// A few series, or nothing but trouble.
enum Fixed {
    Series(Vec<Series>),
    Broken,
    Full,
}

impl Querier for Fixed {
    fn select(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        _: usize,
    ) -> Result<Vec<Series>, SelectError> {
        match self {
            Self::Series(all) => {
                let within =
                    |series: &Series| series.samples.iter().any(|it| (from_ms..=to_ms).contains(&it.at_ms));
                let accepted = |series: &Series| matchers.iter().all(|it| it.accepts(&series.labels));
                Ok(all.iter().filter(|series| accepted(series) && within(series)).cloned().collect())
            }
            Self::Broken => Err(SelectError::Storage { why: "the disk is gone".to_owned() }),
            Self::Full => Err(SelectError::TooManySamples { limit: 1 }),
        }
    }

    fn series(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Labels>, SelectError> {
        let found = self.select(matchers, from_ms, to_ms, usize::MAX)?;
        Ok(found.into_iter().map(|series| series.labels).collect())
    }
}

impl Source for Fixed {}

fn series(labels: &[(&str, &str)], value: f64) -> Series {
    let samples = vec![Sample { at_ms: NOW_MS, value }];
    Series { labels: Labels::new(labels.iter().copied()), samples }
}

struct Views {
    groups: Vec<RuleGroup>,
    targets: Vec<Target>,
}

impl Rules for Views {
    fn groups(&self) -> Vec<RuleGroup> {
        self.groups.clone()
    }
}

impl Targets for Views {
    fn active(&self) -> Vec<Target> {
        self.targets.clone()
    }
}

/// What a test changes.
struct World {
    source: Fixed,
    views: Views,
    external: Labels,
    ready: bool,
    stopped: bool,
    asked: RefCell<Vec<Option<Duration>>>,
}

impl World {
    fn new(source: Fixed) -> Self {
        let views = Views { groups: Vec::new(), targets: Vec::new() };
        let asked = RefCell::new(Vec::new());
        Self { source, views, external: Labels::default(), ready: true, stopped: false, asked }
    }

    fn get(&self, target: &str) -> (u16, String) {
        let stopped = self.stopped;
        let stop_after = |timeout| {
            self.asked.borrow_mut().push(timeout);
            Some(Stop(Arc::new(move || stopped)))
        };
        let context = Context {
            source: &self.source,
            engine: &Engine::default(),
            stop_after: &stop_after,
            rules: &self.views,
            targets: &self.views,
            status: &Status::default(),
            external_labels: &self.external,
            now_ms: NOW_MS,
            ready: self.ready,
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let response = answer(&context, &Request { method: "GET", path, query, ..Request::default() });
        (response.status, String::from_utf8(response.body).unwrap())
    }
}

#[test]
fn nothing_is_answered_before_the_store_is_ready() {
    let mut world = World::new(Fixed::Series(Vec::new()));
    assert_eq!((world.get("/-/healthy").0, world.get("/-/ready").0), (200, 200));
    world.ready = false;
    let statuses =
        ["/-/healthy", "/-/ready", "/federate", "/api/v1/query?query=1"].map(|path| world.get(path).0);
    assert_eq!(statuses, [200, 503, 503, 503]);
    assert!(world.get("/api/v1/labels").1.contains("\"errorType\":\"unavailable\""));
}

#[test]
fn a_query_that_takes_too_long_is_a_timeout() {
    let mut world = World::new(Fixed::Series(vec![series(&[(NAME, "up")], 1.0)]));
    assert_eq!(world.get("/api/v1/query?query=up&timeout=1m30s").0, 200);
    assert_eq!(world.get("/api/v1/query?query=up").0, 200);
    assert_eq!(*world.asked.borrow(), [Some(Duration::from_secs(90)), None]);
    world.stopped = true;
    let (status, body) = world.get("/api/v1/query?query=sum(up)");
    let error = "query timed out in expression evaluation";
    assert_eq!(
        (status, body),
        (503, format!(r#"{{"status":"error","errorType":"timeout","error":"{error}"}}"#))
    );
}

#[test]
fn trouble_of_the_store_has_a_class() {
    let broken = World::new(Fixed::Broken);
    let (status, body) = broken.get("/api/v1/query?query=up");
    assert_eq!(status, 500);
    assert!(
        body.contains(r#""errorType":"internal","error":"expanding series: the disk is gone""#),
        "{body}"
    );
    assert_eq!(broken.get("/api/v1/series?match[]=up").0, 422);
    assert_eq!(broken.get("/federate?match[]=up").0, 500);
    let (status, body) = World::new(Fixed::Full).get("/api/v1/query?query=up");
    assert_eq!(status, 422);
    assert!(
        body.contains(r#""errorType":"execution","error":"query processing would load too many samples"#)
    );
}

fn alert(firing: bool, value: f64) -> ActiveAlert {
    ActiveAlert {
        labels: Labels::new([("alertname", "Slow")]),
        annotations: Labels::default(),
        firing,
        active_at_ms: NOW_MS,
        keep_firing_since_ms: firing.then_some(NOW_MS + 500),
        value,
    }
}

fn world_with_alerts(alerts: Vec<ActiveAlert>) -> World {
    let mut world = World::new(Fixed::Series(Vec::new()));
    let alerting = Alerting {
        hold: Duration::from_secs(60),
        keep_firing: Duration::ZERO,
        annotations: Labels::default(),
        alerts,
    };
    let rule = Rule {
        name: "Slow".to_owned(),
        query: "a > 1".to_owned(),
        labels: Labels::new([("severity", "page")]),
        health: Health::Bad,
        last_error: "no <data>".to_owned(),
        evaluation_time: Duration::from_micros(1500),
        last_evaluation_ms: Some(NOW_MS),
        alerting: Some(alerting),
    };
    world.views.groups.push(RuleGroup {
        name: "g".to_owned(),
        file: "f".to_owned(),
        interval: Duration::from_secs(15),
        limit: 0,
        rules: vec![rule],
        evaluation_time: Duration::from_millis(2),
        last_evaluation_ms: Some(NOW_MS),
    });
    world
}

#[test]
fn a_rule_is_shown_with_its_alerts() {
    let world = world_with_alerts(vec![alert(false, 0.25), alert(true, f64::INFINITY)]);
    let pending = r#"{"labels":{"alertname":"Slow"},"annotations":{},"state":"pending","activeAt":"2023-11-14T22:13:20Z","value":"2.5e-01"}"#;
    let firing = r#"{"labels":{"alertname":"Slow"},"annotations":{},"state":"firing","activeAt":"2023-11-14T22:13:20Z","keepFiringSince":"2023-11-14T22:13:20.5Z","value":"+Inf"}"#;
    let rule = |alerts: &str| {
        format!(
            r#"{{"state":"firing","name":"Slow","query":"a \u003e 1","duration":60,"keepFiringFor":0,"labels":{{"severity":"page"}},"annotations":{{}},"alerts":{alerts},"health":"err","lastError":"no \u003cdata\u003e","evaluationTime":0.0015,"lastEvaluation":"2023-11-14T22:13:20Z","type":"alerting"}}"#
        )
    };
    let group = |alerts: &str| {
        format!(
            r#"{{"status":"success","data":{{"groups":[{{"name":"g","file":"f","rules":[{}],"interval":15,"limit":0,"evaluationTime":0.002,"lastEvaluation":"2023-11-14T22:13:20Z"}}]}}}}"#,
            rule(alerts)
        )
    };
    assert_eq!(world.get("/api/v1/rules"), (200, group(&format!("[{pending},{firing}]"))));
    assert_eq!(world.get("/api/v1/rules?exclude_alerts=true"), (200, group("null")));
    let alerts = format!(r#"{{"status":"success","data":{{"alerts":[{pending},{firing}]}}}}"#);
    assert_eq!(world.get("/api/v1/alerts"), (200, alerts));
    let state = |alerts| {
        let (_, body) = world_with_alerts(alerts).get("/api/v1/rules");
        body.split("\"state\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned()
    };
    assert_eq!(
        (state(vec![alert(false, 1.0)]), state(Vec::new())),
        ("pending".to_owned(), "inactive".to_owned())
    );
}

#[test]
fn groups_come_in_pages() {
    let mut world = world_with_alerts(Vec::new());
    let mut second = world.views.groups[0].clone();
    second.name = "h".to_owned();
    world.views.groups.push(second);
    let (_, first) = world.get("/api/v1/rules?group_limit=1");
    let token = first.split("\"groupNextToken\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(first.contains(r#""name":"g""#) && !first.contains(r#""name":"h""#));
    let (_, next) = world.get(&format!("/api/v1/rules?group_limit=1&group_next_token={token}"));
    assert!(
        next.contains(r#""name":"h""#) && !next.contains(r#""name":"g""#) && !next.contains("groupNextToken")
    );
}

fn target(instance: &str, help: &str) -> Target {
    let said = Metadata { kind: MetricType::Counter, help: help.to_owned(), unit: "seconds".to_owned() };
    let other = Metadata { kind: MetricType::Gauge, ..Metadata::default() };
    Target {
        discovered_labels: Labels::default(),
        labels: Labels::new([("instance", instance)]),
        pool: "service".to_owned(),
        url: format!("http://{instance}/metrics"),
        last_error: "connection refused".to_owned(),
        last_scrape_ms: Some(NOW_MS),
        last_scrape_duration: Duration::from_millis(12),
        health: Health::Bad,
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(10),
        metadata: Arc::new(BTreeMap::from([("a_total".to_owned(), said), ("b".to_owned(), other)])),
    }
}

#[test]
fn targets_say_what_their_metrics_are() {
    let mut world = World::new(Fixed::Series(Vec::new()));
    world.views.targets = vec![target("i1:80", "One"), target("i2:80", "Two")];
    let (_, body) = world.get("/api/v1/targets");
    let wanted = r#""lastError":"connection refused","lastScrape":"2023-11-14T22:13:20Z","lastScrapeDuration":0.012,"health":"down","scrapeInterval":"15s","scrapeTimeout":"10s"}"#;
    assert!(body.contains(wanted), "{body}");
    let of = |help: &str| format!(r#"{{"type":"counter","unit":"seconds","help":"{help}"}}"#);
    let b = r#""b":[{"type":"gauge","unit":"","help":""}]"#;
    let check = |query: &str, data: String| {
        let wanted = format!(r#"{{"status":"success","data":{data}}}"#);
        assert_eq!(world.get(&format!("/api/v1/{query}")).1, wanted);
    };
    check("metadata", format!(r#"{{"a_total":[{},{}],{b}}}"#, of("One"), of("Two")));
    check("metadata?limit_per_metric=1", format!(r#"{{"a_total":[{}],{b}}}"#, of("One")));
    check("metadata?limit=1&metric=b", format!("{{{b}}}"));
    check("metadata?metric=none", "{}".to_owned());
    let said = r#"[{"target":{"instance":"i2:80"},"type":"counter","help":"Two","unit":"seconds"}]"#;
    check("targets/metadata?metric=a_total&match_target=%7Binstance%3D%22i2:80%22%7D", said.to_owned());
}

#[test]
fn grafana_finds_a_prometheus_without_features() {
    let (_, body) = World::new(Fixed::Series(Vec::new())).get("/api/v1/status/buildinfo");
    let build: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&build["data"]["version"], &build["data"]["branch"]), (&"3.5.0".into(), &"Fairway".into()));
    assert!(build["data"].get("features").is_none());
}

#[test]
fn what_is_federated_is_the_last_of_each_series_with_external_labels() {
    let mut world = World::new(Fixed::Series(vec![
        series(&[(NAME, "up"), ("instance", "i1")], 1.0),
        series(&[(NAME, "up"), ("site", "own")], 0.0),
        series(&[(NAME, "gone")], stale()),
        series(&[("no", "name")], 1.0),
    ]));
    world.external = Labels::new([("site", "north")]);
    let (status, body) = world.get("/federate?match[]=up&match[]=gone&match[]=%7Bno%3D%22name%22%7D");
    let wanted = "# TYPE up untyped\n\
        up{instance=\"i1\",site=\"north\"} 1 1700000000000\n\
        up{site=\"own\",instance=\"\"} 0 1700000000000\n";
    assert_eq!((status, body.as_str()), (200, wanted));
    assert_eq!(parse(body.as_bytes(), Format::Text, Limits::default()).unwrap().samples.len(), 2);
}

#[test]
fn a_form_full_of_selectors_is_refused() {
    let world = World::new(Fixed::Series(vec![series(&[(NAME, "up")], 1.0)]));
    let many = |count: usize| "match[]=up&".repeat(count);
    for path in ["/api/v1/series", "/api/v1/labels", "/api/v1/rules", "/federate"] {
        assert_eq!(world.get(&format!("{path}?{}", many(1_000))).0, 200, "{path}");
        let (status, body) = world.get(&format!("{path}?{}", many(1_001)));
        assert!(status == 400 && body.contains("more than 1000 match[] parameters"), "{path}: {body}");
    }
}

#[test]
fn garbage_is_answered() {
    let world = World::new(Fixed::Series(vec![series(&[(NAME, "up")], 1.0)]));
    let pieces = [
        "/api/v1/",
        "query",
        "query_range",
        "labels",
        "label/",
        "/values",
        "series",
        "rules",
        "?",
        "&",
        "=",
        "%",
        "%ff",
        "match[]=",
        "query=",
        "start=",
        "end=",
        "step=",
        "time=",
        "limit=",
        "1",
        "-1",
        "1e308",
        "NaN",
        "up",
        "{",
        "}",
        "U__",
        "_2e_",
        "%00",
        "5m",
        "é",
        ";",
        "federate",
        "9223372036854775807",
        "2015-07-01T20:10:51Z",
    ];
    let mut state = 99_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let mut known = 0;
    for _ in 0..20_000 {
        let mut target = String::from("/api/v1/query_range?start=0&end=10&step=1&");
        target.truncate(random() % (target.len() + 1));
        (0..random() % 8).for_each(|_| target.push_str(pieces[random() % pieces.len()]));
        let (status, _) = world.get(&target);
        assert!([200, 400, 404, 422].contains(&status), "{target}: {status}");
        known += usize::from(status != 404);
    }
    assert!(known > 1000, "{known}: the garbage is no good");
}

#[test]
fn times_at_the_ends_of_all_time_are_taken() {
    let world = World::new(Fixed::Series(vec![series(&[(NAME, "up")], 1.0)]));
    let largest: TimestampMs = i64::MAX / 1000;
    for time in [largest.to_string(), (-largest).to_string(), "9e15".to_owned(), "-9e15".to_owned()] {
        for query in ["up", "up[5m]", "up offset 1y", "up offset -1y", "rate(up[1y])"] {
            let _ = world.get(&format!("/api/v1/query?time={time}&query={}", query.replace(' ', "+")));
        }
        let _ = world.get(&format!("/api/v1/query_range?start={time}&end={time}&step=1&query=up"));
        let _ = world.get(&format!("/api/v1/labels?start={time}&end={time}"));
    }
}
