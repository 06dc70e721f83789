//! The keys of `[deploy]`.

use super::alerts::SECRET;
use super::evidence::{GATE, SEQUENTIAL, TRIGGERS};
use super::format::{MATCH_VALUE, TEXT, THING, TOKEN, URL};
use super::{COUNT, DURATION, POSITIVE, STRATEGIES};
use crate::spec::Absent::{Default, Required, Words};
use crate::spec::{Kind, TableSpec, key};

/// Nobody watches more steps; each one is held in the release for good.
const STEPS_MAX: usize = 100;
/// As many as any CDN asks for.
const PURGE_HEADERS_MAX: usize = 20;
/// Each is tried on every public request.
const MATCHES_MAX: usize = 20;
/// Each is a query that is asked again and again while a rollout lasts.
const GATES_MAX: usize = 50;
/// A time as text, or as a number of seconds.
pub(super) const SECONDS: Kind = Kind::OneOf(&[Kind::Number { min: 0.001, max: 1e6 }, POSITIVE]);

pub(crate) static DEPLOY: TableSpec = TableSpec {
    name: "deploy",
    doc: "How a release is brought in and kept.",
    keys: &[
        key(
            "strategy",
            Kind::Choice(STRATEGIES),
            Words("blue-green when a service has a route, otherwise rolling"),
            "\"canary\"",
            "How traffic moves from the release that serves to the one that comes.",
        ),
        key(
            "steps",
            Kind::List { of: &Kind::Table(&STEP), max: STEPS_MAX },
            Words("5 %, 25 % and 50 %, 5m each"),
            "[{ weight = 5, hold = \"5m\" }, { weight = 50, approve = true }]",
            "canary: shares of public requests, rising; a step with an experiment may keep the share. After the last one everything goes to the new version.",
        ),
        key(
            "matches",
            Kind::List { of: &Kind::Table(&MATCH), max: MATCHES_MAX },
            Words("none"),
            "[{ header = \"X-Canary\", value = \"1\" }]",
            "canary: requests that go to the new version whatever the weight; testers first.",
        ),
        key(
            "sticky",
            Kind::Bool,
            Default("true"),
            "true",
            "canary: a visitor who has seen the new version stays on it, by a cookie.",
        ),
        key(
            "gates",
            Kind::List { of: &Kind::Table(&GATE), max: GATES_MAX },
            Words("the sequential test of the canary and the triggers of the bake"),
            "[{ metric = \"error_rate\", max = 0.01, min_requests = 200 }]",
            "Evidence that the new version must give.",
        ),
        key(
            "sequential",
            Kind::OneOf(&[Kind::Bool, Kind::Table(&SEQUENTIAL)]),
            Words("true for canary"),
            "{ margin = 1.25, alpha = 0.01, min_requests = 50 }",
            "canary: undo the new version when errors or slow answers fall to it more often than its share explains.",
        ),
        key(
            "triggers",
            Kind::OneOf(&[Kind::Bool, Kind::Table(&TRIGGERS)]),
            Words("false in dev, otherwise every default of triggers"),
            "{ error_rate = { above = 0.05, for = \"2m\" }, p95 = false }",
            "What undoes the new version while it bakes.",
        ),
        key(
            "approve",
            Kind::Bool,
            Default("false"),
            "true",
            "blue-green: hold before the switch until somebody promotes.",
        ),
        key(
            "max_surge",
            COUNT,
            Default("1"),
            "1",
            "rolling: copies that may be started above the wanted number.",
        ),
        key(
            "max_unavailable",
            COUNT,
            Default("0"),
            "0",
            "rolling: copies that may be missing from the wanted number.",
        ),
        key(
            "bake",
            DURATION,
            Words("0s in dev, otherwise 2m"),
            "\"10m\"",
            "How long the new version is watched with all the traffic before the rollout commits.",
        ),
        key(
            "keep_warm",
            DURATION,
            Default("10m"),
            "\"10m\"",
            "How long the old version stays started after the switch, so that a rollback is one routing change.",
        ),
        key(
            "drain",
            DURATION,
            Default("30s"),
            "\"30s\"",
            "How long requests in flight may hold back the stop of an instance.",
        ),
        key(
            "retain",
            Kind::Integer { min: 1, max: 1000 },
            Default("5"),
            "5",
            "Releases that stay startable besides the one that serves.",
        ),
        key(
            "purge",
            Kind::Table(&PURGE),
            Words("nobody is told"),
            "{ url = \"https://cdn.example/purge\", headers = { authorization = { secret = \"cdn_token\" } } }",
            "A request that empties what stands before the environment, as a CDN: after a release has come in, after one is rolled back, and with `fairway purge`.",
        ),
        key(
            "deadline",
            POSITIVE,
            Default("30m"),
            "\"30m\"",
            "Longest time in a phase of a rollout that has no deadline of its own.",
        ),
    ],
};

pub(crate) static PURGE: TableSpec = TableSpec {
    name: "purge",
    doc: "A request to a CDN. An answer of 200 to 299 is success; what fails is tried again, undoes nothing, and is on the record and in `fairway status`.",
    keys: &[
        key(
            "url",
            Kind::OneOf(&[Kind::Text(&URL), Kind::Table(&SECRET)]),
            Required,
            "\"https://cdn.example/purge\"",
            "Where it goes, or the secret that says it.",
        ),
        key(
            "method",
            Kind::Choice(&["POST", "PURGE", "BAN", "PUT", "DELETE", "GET"]),
            Default("POST"),
            "\"PURGE\"",
            "Its method.",
        ),
        key(
            "headers",
            Kind::Map {
                key: &TOKEN,
                of: &Kind::OneOf(&[Kind::Text(&MATCH_VALUE), Kind::Table(&SECRET)]),
                max: PURGE_HEADERS_MAX,
            },
            Words("none"),
            "{ authorization = { secret = \"cdn_token\" } }",
            "Its header fields; a secret is the whole value, \"Bearer \" included.",
        ),
        key("body", Kind::Text(&TEXT), Words("empty"), "'{\"purge_everything\":true}'", "Its body."),
        key(
            "attempts",
            Kind::Integer { min: 1, max: 20 },
            Default("5"),
            "3",
            "How often it is tried: at once, after a second, after two, and so on.",
        ),
        key("timeout", POSITIVE, Default("10s"), "\"30s\"", "For each attempt."),
    ],
};

pub(crate) static STEP: TableSpec = TableSpec {
    name: "step",
    doc: "A step of a canary.",
    keys: &[
        key(
            "weight",
            Kind::Integer { min: 0, max: 100 },
            Required,
            "5",
            "Percent of public requests that go to the new version.",
        ),
        key("hold", DURATION, Words("5m, or 0s with approve"), "\"5m\"", "How long the step is watched."),
        key(
            "approve",
            Kind::Bool,
            Words("true for an experiment without hold, otherwise false"),
            "true",
            "Wait for `fairway promote` after the hold.",
        ),
        key(
            "mirror",
            Kind::Integer { min: 0, max: 100 },
            Default("0"),
            "10",
            "Percent of public requests of which the new version gets a copy whose answer nobody sees.",
        ),
        key(
            "experiment",
            Kind::Text(&THING),
            Words("none"),
            "\"new-checkout\"",
            "The step is an A/B test of this name: it reports for each side.",
        ),
    ],
};

pub(crate) static MATCH: TableSpec = TableSpec {
    name: "match",
    doc: "Requests of testers: exactly one of header and cookie.",
    keys: &[
        key("header", Kind::Text(&TOKEN), Words("not used"), "\"X-Canary\"", "Name of a header."),
        key("cookie", Kind::Text(&TOKEN), Words("not used"), "\"beta\"", "Name of a cookie."),
        key("value", Kind::Text(&MATCH_VALUE), Required, "\"1\"", "Value that it must have."),
    ],
};
