//! The keys of what a release has to show: gates, the sequential test, triggers.

use super::deploy::SECONDS;
use super::format::{PROMQL, TEXT, URL};
use super::{DURATION, JOB};
use crate::spec::Absent::{Default, Words};
use crate::spec::{KeySpec, Kind, TableSpec, key};

/// A number, or a time where the metric is one.
const BOUND: Kind = Kind::OneOf(&[Kind::Number { min: -1e15, max: 1e15 }, DURATION]);
pub(super) const REQUESTS: Kind = Kind::Integer { min: 0, max: 1_000_000_000 };
const ERROR_TRIGGER_KIND: Kind = Kind::OneOf(&[Kind::Bool, Kind::Table(&ERROR_TRIGGER)]);
const LATENCY_TRIGGER_KIND: Kind = Kind::OneOf(&[Kind::Bool, Kind::Table(&LATENCY_TRIGGER)]);

pub(crate) static GATE: TableSpec = TableSpec {
    name: "gate",
    doc: "Evidence that the new version must give: exactly one of metric, query, command and webhook. A metric and a query have a bound.",
    keys: &[
        key(
            "metric",
            Kind::Text(&TEXT),
            Words("not used"),
            "\"error_rate\"",
            "error_rate (share of requests that failed, 0 to 1), or a percentile of the response time, p1 to p99.",
        ),
        key(
            "query",
            Kind::Text(&PROMQL),
            Words("not used"),
            "\"sum(rate(errors[1m]))\"",
            "A PromQL expression; the value of its first sample counts.",
        ),
        key(
            "command",
            Kind::OneOf(&[Kind::Command, Kind::Table(&JOB)]),
            Words("not used"),
            "[\"bin/judge\"]",
            "A command; exit status 0 passes.",
        ),
        key(
            "webhook",
            Kind::Text(&URL),
            Words("not used"),
            "\"https://judge.example/release\"",
            "A URL that is POSTed to; a 2xx answer passes.",
        ),
        key(
            "max",
            BOUND,
            Words("no bound"),
            "0.01",
            "Largest value that passes. Times in seconds, or as \"300ms\".",
        ),
        key("min", BOUND, Words("no bound"), "0.99", "Smallest value that passes."),
        key(
            "max_vs_stable",
            Kind::Number { min: 0.0, max: 1e6 },
            Words("no bound"),
            "1.3",
            "Largest ratio to the stable version that passes. A query says $version where the version's label belongs.",
        ),
        key(
            "min_requests",
            REQUESTS,
            Default("0"),
            "200",
            "Requests that the new version must have had before the gate says anything.",
        ),
        key("for", DURATION, Default("0s"), "\"1m\"", "How long the bound must be crossed."),
        key(
            "no_data",
            Kind::Choice(&["pause", "pass", "fail"]),
            Default("pause"),
            "\"pause\"",
            "What holds when there is nothing to judge.",
        ),
    ],
};

pub(crate) static SEQUENTIAL: TableSpec = TableSpec {
    name: "sequential",
    doc: "The sequential test: compares how errors and slow answers fall to the new version and to stable, after every request.",
    keys: &[
        key(
            "margin",
            Kind::Number { min: 1.0, max: 100.0 },
            Default("1.25"),
            "1.25",
            "A new version that is worse by less than this factor is not undone.",
        ),
        key(
            "alpha",
            Kind::Number { min: 1e-9, max: 0.5 },
            Default("0.01"),
            "0.01",
            "Probability of undoing a release that is not worse than the margin.",
        ),
        key(
            "min_requests",
            REQUESTS,
            Words("0 in dev, otherwise 20"),
            "50",
            "Requests that the new version must have answered in a step before the step can end.",
        ),
    ],
};

const fn latency(name: &'static str, absent: &'static str, doc: &'static str) -> KeySpec {
    key(name, LATENCY_TRIGGER_KIND, Words(absent), "{ above = \"3s\", for = \"1m\" }", doc)
}

pub(crate) static TRIGGERS: TableSpec = TableSpec {
    name: "triggers",
    doc: "What undoes a release while it bakes. Each can be switched off with false, and on with true.",
    keys: &[
        key(
            "error_rate",
            ERROR_TRIGGER_KIND,
            Words("false in dev, otherwise true"),
            "{ above = 0.05, for = \"2m\" }",
            "Share of requests that failed.",
        ),
        latency("p50", "false", "The response time that half of the requests stay under."),
        latency("p90", "false", "The response time that 90 % of the requests stay under."),
        latency(
            "p95",
            "false in dev, otherwise true",
            "The response time that 95 % of the requests stay under.",
        ),
        latency("p99", "false", "The response time that 99 % of the requests stay under."),
        key(
            "critical_alert",
            Kind::Bool,
            Words("false in dev, otherwise true"),
            "true",
            "An alert of severity critical fires in the environment.",
        ),
    ],
};

pub(crate) static ERROR_TRIGGER: TableSpec = TableSpec {
    name: "error_trigger",
    doc: "A share of failed requests that undoes a release.",
    keys: &[
        key("above", Kind::Number { min: 0.0, max: 1.0 }, Default("0.05"), "0.05", "The share, 0 to 1."),
        key("for", DURATION, Default("2m"), "\"2m\"", "How long it must be crossed."),
    ],
};

pub(crate) static LATENCY_TRIGGER: TableSpec = TableSpec {
    name: "latency_trigger",
    doc: "A response time that undoes a release.",
    keys: &[
        key("above", SECONDS, Default("3s"), "\"3s\"", "The time; a number is in seconds."),
        key("for", DURATION, Default("1m"), "\"1m\"", "How long it must be crossed."),
    ],
};
