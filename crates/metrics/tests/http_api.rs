//! The HTTP API, remote write and the exposition parser, held against a real Prometheus 3.
//!
//! Runs when `FAIRWAY_PROMETHEUS` names its program, and says so when it does not.

// Helpers of tests are tests: what they cannot do ends the test.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

#[path = "http_api/peer.rs"]
mod peer;
#[path = "http_api/requests.rs"]
mod requests;

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_metrics::httpapi::{
    Alerting, Context, Health, Request, Response, Rule, RuleGroup, Rules, Source, Status, Target, Targets,
    answer,
};
use fairway_metrics::labels::{Labels, NAME};
use fairway_metrics::promql::Engine;
use fairway_metrics::remote::{Message, encode};
use fairway_metrics::sample::{Sample, TimestampMs, is_stale, stale};
use fairway_metrics::select::{Matcher, Querier, SelectError, Series};
use serde_json::Value;

use peer::Prometheus;
use requests::{Compare, requests};

/// Series in memory, as plain as they can be.
struct Memory(Vec<Series>);

impl Querier for Memory {
    fn select(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        samples_max: usize,
    ) -> Result<Vec<Series>, SelectError> {
        let in_range = |series: &Series| Series {
            labels: series.labels.clone(),
            samples: series
                .samples
                .iter()
                .filter(|it| (from_ms..=to_ms).contains(&it.at_ms))
                .copied()
                .collect(),
        };
        let accepted = self.0.iter().filter(|series| matchers.iter().all(|it| it.accepts(&series.labels)));
        let found: Vec<Series> = accepted.map(in_range).filter(|series| !series.samples.is_empty()).collect();
        let count: usize = found.iter().map(|series| series.samples.len()).sum();
        if count > samples_max { Err(SelectError::TooManySamples { limit: samples_max }) } else { Ok(found) }
    }

    fn series(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<Labels>, SelectError> {
        let found = self.select(matchers, from_ms, to_ms, usize::MAX)?;
        Ok(found.into_iter().map(|series| series.labels).collect())
    }
}

impl Source for Memory {}

/// Half an hour of samples every 30 seconds, up to now.
fn data(now_ms: i64) -> Vec<Series> {
    let last_ms = now_ms - now_ms.rem_euclid(1000);
    let times: Vec<i64> = (0..60).map(|at| last_ms - (59 - at) * 30_000).collect();
    let mut all = Vec::new();
    let mut add = |labels: Labels, value: &dyn Fn(usize) -> Option<f64>| {
        let samples = times.iter().enumerate();
        let samples =
            samples.filter_map(|(at, at_ms)| Some(Sample { at_ms: *at_ms, value: value(at)? })).collect();
        all.push(Series { labels, samples });
    };
    for (place, code) in ["2xx", "4xx", "5xx"].into_iter().enumerate() {
        for instance in ["i1", "i2"] {
            let labels =
                [(NAME, "http_requests_total"), ("code", code), ("instance", instance), ("job", "shop")];
            add(Labels::new(labels), &move |at| Some((at * (place + 1) * 7 % 1000) as f64 + at as f64 * 0.1));
        }
    }
    for (le, share) in [("0.1", 0.5), ("0.5", 0.9), ("1.0", 0.99), ("+Inf", 1.0)] {
        let labels = Labels::new([(NAME, "latency_seconds_bucket"), ("job", "shop"), ("le", le)]);
        add(labels, &move |at| Some((at as f64 * 100.0 * share).floor()));
    }
    let odd = [
        1e21,
        1e-7,
        1e20,
        123_456_789.125,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -0.0,
        0.1 + 0.2,
        5e-324,
    ];
    for (number, value) in odd.into_iter().enumerate() {
        add(Labels::new([(NAME, "odd"), ("n", &number.to_string())]), &move |_| Some(value));
    }
    add(Labels::new([(NAME, "ends"), ("job", "shop")]), &|at| {
        Some(if at == 30 { stale() } else { at as f64 }).filter(|_| at <= 30)
    });
    add(Labels::new([(NAME, "dotted.name"), ("label.x", "<a&b>\n\"é\"\\")]), &|at| Some(at as f64));
    add(Labels::new([(NAME, "Upper"), ("A", "1"), ("a", "2")]), &|_| Some(1.0));
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}

/// What the configuration of the other side has, as Fairway's views.
struct Views;

impl Rules for Views {
    fn groups(&self) -> Vec<RuleGroup> {
        let rule = |name: &str, query: &str, labels: &[(&str, &str)], alerting| Rule {
            name: name.to_owned(),
            query: query.to_owned(),
            labels: Labels::new(labels.iter().copied()),
            health: Health::Unknown,
            last_error: String::new(),
            evaluation_time: Duration::ZERO,
            last_evaluation_ms: None,
            alerting,
        };
        let group = |name: &str, interval: u64, rules| RuleGroup {
            name: name.to_owned(),
            file: peer::RULES_FILE.to_owned(),
            interval: Duration::from_secs(interval),
            limit: 0,
            rules,
            evaluation_time: Duration::ZERO,
            last_evaluation_ms: None,
        };
        let alerting = Alerting {
            hold: Duration::from_secs(90),
            keep_firing: Duration::from_secs(60),
            annotations: Labels::new([("summary", "{{ $value }} <b>")]),
            alerts: Vec::new(),
        };
        vec![
            group(
                "first",
                86_400,
                vec![
                    rule("Down", "up == 0", &[("severity", "critical")], Some(alerting)),
                    rule("job:up:sum", "sum by (job) (up)", &[], None),
                ],
            ),
            group("second", 43_200, vec![rule("x:y", "vector(1)", &[("team", "web")], None)]),
        ]
    }
}

impl Targets for Views {
    fn active(&self) -> Vec<Target> {
        let discovered = [
            ("__address__", "192.0.2.1:80"),
            ("__metrics_path__", "/metrics"),
            ("__scheme__", "http"),
            ("__scrape_interval__", "1d"),
            ("__scrape_timeout__", "10s"),
            ("job", "far"),
        ];
        vec![Target {
            discovered_labels: Labels::new(discovered),
            labels: Labels::new([("instance", "192.0.2.1:80"), ("job", "far")]),
            pool: "far".to_owned(),
            url: "http://192.0.2.1:80/metrics".to_owned(),
            last_error: String::new(),
            last_scrape_ms: None,
            last_scrape_duration: Duration::ZERO,
            health: Health::Unknown,
            interval: Duration::from_secs(86_400),
            timeout: Duration::from_secs(10),
            metadata: std::sync::Arc::new(BTreeMap::new()),
        }]
    }
}

fn ours(memory: &Memory, request: &Request<'_>, now_ms: i64) -> Response {
    let context = Context {
        source: memory,
        engine: &Engine::default(),
        stop_after: &|_| None,
        rules: &Views,
        targets: &Views,
        status: &Status::default(),
        external_labels: &Labels::default(),
        now_ms,
        ready: true,
    };
    answer(&context, request)
}

/// The same whatever the order of a list that has none.
fn sorted(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            for item in object.values_mut() {
                *item = sorted(item.take());
            }
        }
        Value::Array(list) => {
            let objects = list.iter().all(Value::is_object);
            *list = list.drain(..).map(sorted).collect();
            if objects {
                list.sort_by_key(Value::to_string);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

#[test]
fn answers_are_those_of_prometheus() {
    let Some(prometheus) = Prometheus::start("http_api", peer::CONFIG) else { return };
    let now_ms = peer::now_ms();
    let memory = Memory(data(now_ms));
    // A part in each of the two messages, so that both encoders are read by the original.
    let samples: Vec<(Labels, Sample)> = memory
        .0
        .iter()
        .flat_map(|series| series.samples.iter().map(|sample| (series.labels.clone(), *sample)))
        .collect();
    let (first, second) = samples.split_at(samples.len() / 2);
    for (part, message) in [(first, Message::V1), (second, Message::V2)] {
        let outgoing = encode(part, message);
        let reply = prometheus.send("POST", "/api/v1/write", &outgoing.headers, &outgoing.body);
        assert_eq!(reply.status, 204, "{message:?}: {}", reply.text());
        if message == Message::V2 {
            let written = reply.header("X-Prometheus-Remote-Write-Samples-Written");
            assert_eq!(written, Some(part.len().to_string().as_str()));
        }
    }
    prometheus.discovers_targets();
    let mut wrong = Vec::new();
    let all = requests(now_ms / 1000);
    for request in &all {
        let theirs = prometheus.send(
            request.method,
            &request.target,
            &[("Content-Type", "application/x-www-form-urlencoded"), ("Accept", request.accept)],
            request.form.as_bytes(),
        );
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let form = request.form.as_bytes();
        let asked = Request { method: request.method, path, query, form, accept: request.accept };
        let ours = ours(&memory, &asked, now_ms);
        let text = String::from_utf8(ours.body).unwrap();
        let json = |text: &str| serde_json::from_str(text).map(sorted).ok();
        let same = match request.compare {
            Compare::Bytes => text == theirs.text(),
            Compare::Sorted => json(&text).is_some() && json(&text) == json(&theirs.text()),
            Compare::Class => {
                let class = |text: &str| json(text).map(|json: Value| json["errorType"].clone());
                class(&text).is_some_and(|class| class.is_string()) && class(&text) == class(&theirs.text())
            }
            Compare::Status => true,
        };
        let typed = matches!(request.compare, Compare::Status)
            || theirs.header("Content-Type") == Some(ours.content_type);
        if !same || !typed || ours.status != theirs.status {
            wrong.push(format!(
                "{} {} {}\n  ours   {} {} {text}\n  theirs {} {:?} {}",
                request.method,
                request.target,
                request.form,
                ours.status,
                ours.content_type,
                theirs.status,
                theirs.header("Content-Type"),
                theirs.text()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

/// Bodies that are shown to both; the text format unless the name says otherwise.
const SHOWN: [(&str, &str); 46] = [
    ("text", "a 1\n# TYPE b counter\nb{x=\"y\",} 2.5\n\n  \nc 3"),
    ("text", "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n"),
    ("text", "# TYPE s summary\ns{quantile=\"0.50\"} 1\nother{quantile=\"1e3\"} 1\n"),
    ("text", "a{x=\"1\" y=\"2\"} 1\n"),
    ("text", "a { x = \"1\" , } 1\n"),
    ("text", "{\"a.b\",\"l.x\"=\"1\"} 1\n"),
    ("text", "{x=\"1\",\"a\"} 1\n"),
    ("text", "a{x=\"q\\\"\\\\\\n\\z\"} 1\n"),
    ("text", "a{x=\"two\nlines\"} 1\n"),
    ("text", "a1.5\n"),
    ("text", "a NaN\nb +Inf\nc -inf\nd 1e-400\n"),
    ("text", "#no comment\n# HELP a\n# HELP b \n# TYPE a gauge\na 1\n"),
    ("text", "a 1\na 2\n"),
    ("text", "a{x=\"\"} 1\n"),
    ("text", "a 1 -5\n"),
    ("text", "a 1 1.5\n"),
    ("text", "a\n"),
    ("text", "a 1 2 3\n"),
    ("text", "a{x=\"1\",x=\"2\"} 1\n"),
    ("text", "a{\"b\"} 1\n"),
    ("text", "{x=\"1\"} 1\n"),
    ("text", "a{__name__=\"b\"} 1\n"),
    ("text", "a{x='1'} 1\n"),
    ("text", "a{,} 1\n"),
    ("text", "a{x=\"1\",,} 1\n"),
    ("text", "a +NaN\n"),
    ("text", "a 1e999\n"),
    ("text", "a 0x1p3\n"),
    ("text", "a 1_0\n"),
    ("text", "9a 1\n"),
    ("text", "# TYPE a gage\na 1\n"),
    ("text", "# TYPE a  gauge\na 1\n"),
    ("text", "# TYPE a unknown\na 1\n"),
    ("text", "{\"\"} 1\n"),
    ("text", "a{\"\"=\"x\"} 1\n"),
    ("om", "# TYPE a counter\na_total 1 # {trace_id=\"x\"} 1 1.5\na_created 1.5\n# EOF\n"),
    ("om", "# TYPE h histogram\nh_bucket{le=\"1\"} 1 # {} 0.5\n# EOF\n"),
    ("om", "# TYPE u unknown\n# UNIT u_seconds seconds\nu_seconds{x=\"1\",} -1\n# EOF"),
    ("om", "{\"a.b\",\"l.x\"=\"1\"} 1\n# EOF\n"),
    ("om", "a 1\n"),
    ("om", "a 1\n# EOF\n\n"),
    ("om", "a  1\n# EOF\n"),
    ("om", "a{x=\"1\" } 1\n# EOF\n"),
    ("om", "# UNIT a seconds\na 1\n# EOF\n"),
    ("om", "# comment\na 1\n# EOF\n"),
    ("om", "a 1 # {\"b\"} 1\n# EOF\n"),
];

#[test]
fn a_body_is_read_when_prometheus_reads_it() {
    use fairway_metrics::exposition::{ScrapeSettings, TargetMemory};
    let content_type = |format: &str| match format {
        "om" => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        _ => "text/plain; version=0.0.4; charset=utf-8",
    };
    let bodies: Vec<(String, String)> =
        SHOWN.iter().map(|(format, body)| (content_type(format).to_owned(), (*body).to_owned())).collect();
    let (port, config) = peer::serve(bodies);
    let Some(prometheus) = Prometheus::start("exposition", &config) else { return };
    assert!(prometheus.scrapes(SHOWN.len()), "every target is scraped within its time");
    let instance = format!("127.0.0.1:{port}");
    let mut wrong = Vec::new();
    for (number, (format, body)) in SHOWN.iter().enumerate() {
        let number = number.to_string();
        let labels = Labels::new([("case", number.as_str()), ("instance", &instance), ("job", "cases")]);
        let settings = ScrapeSettings::new(labels);
        let scrape = TargetMemory::default().scraped(
            &settings,
            body.as_bytes(),
            content_type(format),
            0,
            Duration::ZERO,
        );
        let about = |name: &str| name.starts_with("scrape_");
        let mut ours: Vec<String> = scrape
            .samples
            .iter()
            .filter(|(labels, sample)| !about(labels.name()) && !is_stale(sample.value))
            .map(|(labels, sample)| format!("{labels} {:?}", sample.value))
            .collect();
        let mut theirs: Vec<String> = prometheus
            .vector(&format!("{{case=\"{number}\"}}"))
            .into_iter()
            .filter(|(labels, _)| !about(labels.name()))
            .map(|(labels, value)| format!("{labels} {value:?}"))
            .collect();
        ours.sort();
        theirs.sort();
        if ours != theirs {
            wrong.push(format!(
                "{format} {body:?}\n  ours   {ours:?} {:?}\n  theirs {theirs:?}",
                scrape.error
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
