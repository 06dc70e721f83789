//! The keys of autoscaling: those of Fairway, and those of a HorizontalPodAutoscaler's `behavior` as they are.

use super::COPIES_MAX;
use super::deploy::SECONDS;
use super::format::PROMQL;
use crate::spec::Absent::{Default, Required, Words};
use crate::spec::{KeySpec, Kind, TableSpec, key};

const COPIES: Kind = Kind::Integer { min: 1, max: COPIES_MAX as i64 };
/// A target over ten times the limit can never be reached.
const PERCENT: Kind = Kind::Integer { min: 1, max: 1000 };
/// More policies than this say nothing that fewer could not.
const POLICIES_MAX: usize = 20;

const fn latency(name: &'static str, doc: &'static str) -> KeySpec {
    key(name, SECONDS, Words("not used"), "\"500ms\"", doc)
}

pub(crate) static AUTOSCALE: TableSpec = TableSpec {
    name: "autoscale",
    doc: "Copies follow the load, by the algorithm of Kubernetes' HorizontalPodAutoscaler. Of several measures the one that asks for the most copies counts.",
    keys: &[
        key("min", COPIES, Default("1"), "2", "Fewest copies."),
        key("max", COPIES, Required, "10", "Most copies."),
        key(
            "cpu",
            PERCENT,
            Words("80 when no measure is named"),
            "70",
            "Percent of the CPU limit (of one core without a limit) that the average copy should use.",
        ),
        key(
            "memory",
            PERCENT,
            Words("not used"),
            "80",
            "Percent of the memory limit (of the machine without a limit) that the average copy should use.",
        ),
        key(
            "requests",
            Kind::Number { min: 0.001, max: 1e9 },
            Words("not used"),
            "100",
            "Requests per second that the average copy should answer.",
        ),
        latency("p50", "Response time that half of the answers should stay under."),
        latency("p90", "Response time that 90 % of the answers should stay under."),
        latency("p95", "Response time that 95 % of the answers should stay under."),
        latency("p99", "Response time that 99 % of the answers should stay under."),
        key(
            "query",
            Kind::Table(&AUTOSCALE_QUERY),
            Words("not used"),
            "{ promql = \"sum(queue_depth)\", target = 100 }",
            "A value of your own.",
        ),
        key(
            "tolerance",
            Kind::Number { min: 0.0, max: 1.0 },
            Default("0.1"),
            "0.1",
            "Ratios to the target within 1 ± this change nothing.",
        ),
        key(
            "behavior",
            Kind::Table(&BEHAVIOR),
            Words("every default of behavior"),
            "{ scaleDown = { stabilizationWindowSeconds = 300 } }",
            "How fast copies come and go, in the words of Kubernetes.",
        ),
    ],
};

pub(crate) static AUTOSCALE_QUERY: TableSpec = TableSpec {
    name: "autoscale_query",
    doc: "A value that the copies follow.",
    keys: &[
        key("promql", Kind::Text(&PROMQL), Required, "\"sum(queue_depth)\"", "A PromQL expression."),
        key(
            "target",
            Kind::Number { min: 1e-9, max: 1e15 },
            Required,
            "100",
            "The value that it should have.",
        ),
    ],
};

pub(crate) static BEHAVIOR: TableSpec = TableSpec {
    name: "behavior",
    doc: "As `spec.behavior` of a HorizontalPodAutoscaler (autoscaling/v2).",
    keys: &[
        key(
            "scaleUp",
            Kind::Table(&SCALING),
            Words("0 s; the larger of 100 % and 4 copies in 15 s"),
            "{ stabilizationWindowSeconds = 0, selectPolicy = \"Max\" }",
            "When copies are added.",
        ),
        key(
            "scaleDown",
            Kind::Table(&SCALING),
            Words("300 s; 100 % in 15 s"),
            "{ stabilizationWindowSeconds = 300, policies = [{ type = \"Percent\", value = 10, periodSeconds = 60 }] }",
            "When copies are taken away.",
        ),
    ],
};

pub(crate) static SCALING: TableSpec = TableSpec {
    name: "scaling",
    doc: "One direction of scaling.",
    keys: &[
        key(
            "stabilizationWindowSeconds",
            Kind::Integer { min: 0, max: 3600 },
            Words("0 up, 300 down"),
            "300",
            "The most cautious recommendation of this long counts.",
        ),
        key(
            "policies",
            Kind::List { of: &Kind::Table(&POLICY), max: POLICIES_MAX },
            Words("those of Kubernetes"),
            "[{ type = \"Percent\", value = 10, periodSeconds = 60 }]",
            "The most that may change in a time.",
        ),
        key(
            "selectPolicy",
            Kind::Choice(&["Max", "Min", "Disabled"]),
            Default("Max"),
            "\"Max\"",
            "The policy that counts: the one that allows most, the one that allows least, or never in this direction.",
        ),
    ],
};

pub(crate) static POLICY: TableSpec = TableSpec {
    name: "policy",
    doc: "The most that may change in a time.",
    keys: &[
        key(
            "type",
            Kind::Choice(&["Percent", "Pods"]),
            Required,
            "\"Percent\"",
            "What value counts: percent of the copies, or copies.",
        ),
        key("value", Kind::Integer { min: 1, max: 100_000 }, Required, "10", "How much."),
        key("periodSeconds", Kind::Integer { min: 1, max: 1800 }, Required, "60", "In how many seconds."),
    ],
};
