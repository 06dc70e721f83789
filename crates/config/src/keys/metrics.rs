//! The keys of `[metrics]`, `[probe.NAME]` and `[slo.NAME]`.

use std::time::Duration;

use super::format::{
    ALERT_NAME, CERTIFICATE, HOST_PORT, LABEL_NAME, LABEL_VALUE, PROBE_URL, PROMQL, RULES, SERVER,
    SERVICE_NAME, THING, URL,
};
use crate::spec::Absent::{Default, Required, Words};
use crate::spec::{Kind, TableSpec, key};

/// Every sample is sent to each of them.
const REMOTES_MAX: usize = 10;
const RULES_MAX: usize = 50;
/// There are far fewer built-in alerts.
const WITHOUT_MAX: usize = 200;
/// Each is a connection in every interval.
const SCRAPES_MAX: usize = 200;
/// As many as fit into the name of a series without hiding it.
const LABELS_MAX: usize = 30;
pub(super) const PROBES_MAX: usize = 200;
/// Each is a dozen of rules.
pub(super) const SLOS_MAX: usize = 100;
/// More often than every second is load, not watching.
const EVERY: Kind = Kind::Duration { min: Duration::from_secs(1) };
const TIMEOUT: Kind = Kind::Duration { min: Duration::from_millis(1) };
const STATUS: Kind = Kind::Integer { min: 100, max: 599 };
const SHARE: Kind = Kind::Number { min: 0.0, max: 1.0 };

pub(crate) static METRICS: TableSpec = TableSpec {
    name: "metrics",
    doc: "Where the figures come from and where they go. Nothing is needed: the proxy, the services, the processes and the machine are measured anyway.",
    keys: &[
        key(
            "prometheus",
            Kind::Text(&URL),
            Words("the built-in store"),
            "\"http://prometheus.example:9090\"",
            "A Prometheus that answers for gates, alerts and dashboards instead of the built-in store. It scrapes Fairway's /metrics, and services by the list at /api/v1/http_sd: `fairway export prometheus` writes both jobs.",
        ),
        key(
            "remote_write",
            Kind::List { of: &Kind::Text(&URL), max: REMOTES_MAX },
            Words("nowhere"),
            "[\"http://prometheus.example:9090/api/v1/write\"]",
            "Where every sample is sent on.",
        ),
        key(
            "rules",
            Kind::List { of: &Kind::Text(&RULES), max: RULES_MAX },
            Words("the built-in rules alone"),
            "[\"ops/*.rules.yml\"]",
            "Prometheus rule files of the project; * and ? stand for a part of a name. They become part of the release.",
        ),
        key(
            "without",
            Kind::List { of: &Kind::Text(&ALERT_NAME), max: WITHOUT_MAX },
            Words("every built-in alert"),
            "[\"HighCpu\"]",
            "Built-in alerts that are switched off.",
        ),
        key(
            "scrape",
            Kind::Map { key: &THING, of: &Kind::Table(&SCRAPE), max: SCRAPES_MAX },
            Words("the services that have metrics"),
            "{ node = { url = \"http://127.0.0.1:9100/metrics\" } }",
            "What else is scraped. Each is a table, [metrics.scrape.NAME]; the name is its job.",
        ),
    ],
};

pub(crate) static SCRAPE: TableSpec = TableSpec {
    name: "scrape",
    doc: "Metrics of something that is no service of the project.",
    keys: &[
        key(
            "url",
            Kind::Text(&URL),
            Required,
            "\"http://127.0.0.1:9100/metrics\"",
            "Where its metrics are; /metrics when the URL has no path.",
        ),
        key("every", EVERY, Default("15s"), "\"30s\"", "Time between two scrapes."),
        key(
            "labels",
            Kind::Map { key: &LABEL_NAME, of: &Kind::Text(&LABEL_VALUE), max: LABELS_MAX },
            Words("none"),
            "{ machine = \"one\" }",
            "Labels that every sample gets.",
        ),
    ],
};

pub(crate) static UPTIME: TableSpec = TableSpec {
    name: "probe",
    doc: "A check from outside, again and again: exactly one of http, tcp, certificate and dns.",
    keys: &[
        key(
            "http",
            Kind::Text(&PROBE_URL),
            Words("not used"),
            "\"https://shop.example/healthz\"",
            "A URL that must answer, or a path of the environment's own URL.",
        ),
        key(
            "status",
            Kind::OneOf(&[STATUS, Kind::List { of: &STATUS, max: 50 }]),
            Words("any 2xx"),
            "[200, 204]",
            "http: status codes that pass.",
        ),
        key(
            "tcp",
            Kind::Text(&HOST_PORT),
            Words("not used"),
            "\"db.example:5432\"",
            "An address that must accept a connection.",
        ),
        key(
            "certificate",
            Kind::Text(&CERTIFICATE),
            Words("not used"),
            "\"shop.example:443\"",
            "An address whose certificate must not end soon; port 443 when it names none.",
        ),
        key(
            "server_name",
            Kind::Text(&SERVER),
            Words("the host of certificate"),
            "\"shop.example\"",
            "certificate: the name that is asked for.",
        ),
        key("dns", Kind::Text(&SERVER), Words("not used"), "\"shop.example\"", "A name that must resolve."),
        key("every", EVERY, Default("30s"), "\"30s\"", "Time between two checks."),
        key(
            "timeout",
            TIMEOUT,
            Words("5s, or every where that is less"),
            "\"5s\"",
            "Time that one check may take.",
        ),
    ],
};

pub(crate) static SLO: TableSpec = TableSpec {
    name: "slo",
    doc: "An objective with its error budget: exactly one of availability, latency and good.",
    keys: &[
        key(
            "service",
            Kind::Text(&SERVICE_NAME),
            Words("required for availability and latency"),
            "\"api\"",
            "The service whose requests count.",
        ),
        key("availability", SHARE, Words("not used"), "0.999", "Share of requests that must not fail."),
        key(
            "latency",
            Kind::Table(&SLO_LATENCY),
            Words("not used"),
            "{ within = \"500ms\", objective = 0.99 }",
            "Share of requests that must be answered in time.",
        ),
        key(
            "good",
            Kind::Text(&PROMQL),
            Words("not used"),
            "\"sum(rate(jobs_done[$window]))\"",
            "PromQL of what is good, with $window where the range belongs.",
        ),
        key(
            "total",
            Kind::Text(&PROMQL),
            Words("required for good"),
            "\"sum(rate(jobs[$window]))\"",
            "PromQL of everything, with $window where the range belongs.",
        ),
        key("objective", SHARE, Words("required for good"), "0.99", "Share that must be good."),
        key(
            "window",
            Kind::Duration { min: Duration::from_secs(86_400) },
            Default("30d"),
            "\"30d\"",
            "Time over which the budget is counted, at most 90d.",
        ),
    ],
};

pub(crate) static SLO_LATENCY: TableSpec = TableSpec {
    name: "slo_latency",
    doc: "Requests answered in time.",
    keys: &[
        key(
            "within",
            TIMEOUT,
            Required,
            "\"500ms\"",
            "A bound of the histogram: 5ms, 10ms, 25ms, 50ms, 75ms, 100ms, 250ms, 500ms, 750ms, 1s, 2500ms, 5s, 7500ms or 10s.",
        ),
        key("objective", SHARE, Required, "0.99", "Share of requests."),
    ],
};
