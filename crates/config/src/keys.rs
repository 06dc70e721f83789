//! Every key of fairway.toml: what it takes, what holds without it, what it means.

mod alerts;
mod alias;
mod autoscale;
mod deploy;
mod edge;
mod evidence;
mod format;
mod metrics;
mod service;

use std::time::Duration;

pub(crate) use alerts::{ALERT_ROUTE, ALERTS, CHANNEL, INHIBIT, MAIL, PAGERDUTY, SECRET};
pub(crate) use alias::ALIASES;
pub(crate) use autoscale::{AUTOSCALE, AUTOSCALE_QUERY, BEHAVIOR, POLICY, SCALING};
pub(crate) use deploy::{DEPLOY, MATCH, PURGE, STEP};
pub(crate) use edge::{
    ACME, BREAKER, CACHE, COMPRESS, CONNECTIONS, EDGE, EJECT, HOLD, HSTS, PROXY, RATE_LIMIT, RETRY, TIMEOUTS,
    TLS,
};
use edge::{CONNECTIONS_KEY, EDGE_KEY, PROXY_KEY, PROXY_PROTOCOL_KEY, TLS_KEY, TRUSTED_PROXIES_KEY};
pub(crate) use evidence::{ERROR_TRIGGER, GATE, LATENCY_TRIGGER, SEQUENTIAL, TRIGGERS};
pub(crate) use format::SERVICE_NAME;
use format::{DIRECTORY, ENVIRONMENT_NAME, HOST, LISTEN, PROJECT_NAME, THING, URL, USER, VARIABLE_NAME};
pub(crate) use metrics::{METRICS, SCRAPE, SLO, SLO_LATENCY, UPTIME};
pub(crate) use service::{
    BACKUP, BUILD, LIMITS, LIVE, LOG, PORT, READY, RESTART, ROUTE, SERVICE, STATIC, STATIC_CACHE, STOP,
};

use crate::spec::Absent::{Default, Required, Words};
use crate::spec::{KeySpec, Kind, TableSpec, key};

/// The number in `version = 1`.
pub(crate) const VERSION: i64 = 1;

/// Each environment holds a merged copy of the file, and each is validated.
pub(crate) const ENVIRONMENTS_MAX: usize = 50;
/// One machine starts them all; a larger project is several projects.
pub(crate) const SERVICES_MAX: usize = 200;
/// What `execve` takes is bounded too; a thousand variables is far beyond any project seen.
pub(crate) const VARIABLES_MAX: usize = 1000;

pub(crate) const STRATEGIES: &[&str] = &["rolling", "blue-green", "blue_green", "canary"];
pub(crate) const ENGINES: &[&str] = &["postgres", "redis"];
pub(crate) const SIGNALS: &[&str] = &["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"];

/// What the engine lets a service have.
pub(crate) const COPIES_MAX: u32 = fairway_engine::REPLICAS_MAX;

const COUNT: Kind = Kind::Integer { min: 0, max: 1000 };
const DURATION: Kind = Kind::Duration { min: Duration::ZERO };
const POSITIVE: Kind = Kind::Duration { min: Duration::from_millis(1) };
const VARIABLES: Kind = Kind::Map { key: &VARIABLE_NAME, of: &Kind::Variable, max: VARIABLES_MAX };
const PROBES: Kind = Kind::Map { key: &THING, of: &Kind::Table(&UPTIME), max: metrics::PROBES_MAX };
const SLOS: Kind = Kind::Map { key: &THING, of: &Kind::Table(&SLO), max: metrics::SLOS_MAX };
const SERVICES: Kind = Kind::Map { key: &SERVICE_NAME, of: &Kind::Table(&SERVICE), max: SERVICES_MAX };

const HOST_KEY: KeySpec = key(
    "host",
    Kind::Text(&HOST),
    Words("any host name"),
    "\"shop.example\"",
    "Public host name of the environment. Requests for another host are refused.",
);
const LISTEN_KEY: KeySpec = key(
    "listen",
    Kind::Text(&LISTEN),
    Words("127.0.0.1:8080 in dev, otherwise 0.0.0.0:80"),
    "\"0.0.0.0:80\"",
    "Address and port on which the proxy takes public requests.",
);
const URL_KEY: KeySpec = key(
    "url",
    Kind::Text(&URL),
    Words("http:// with host, or with the listen address"),
    "\"https://shop.example\"",
    "Public URL of the environment, when something in front of Fairway changes it. Read as { ref = \"public.url\" }.",
);
const PROTECT_KEY: KeySpec = key(
    "protect",
    Kind::Table(&PROTECT),
    Words("no protection"),
    "{ confirm = true, approvers = 1 }",
    "What a person must do before the environment changes.",
);
const VARS_KEY: KeySpec = key(
    "vars",
    VARIABLES,
    Words("no variables"),
    "{ LOG_LEVEL = \"info\" }",
    "Variables of every service and every job, at run time.",
);
const RELEASE_KEY: KeySpec = key(
    "release",
    Kind::Table(&RELEASE),
    Words("no jobs"),
    "{ expand = [\"bin/migrate\", \"expand\"] }",
    "Commands that belong to a release and run once.",
);
const SERVICE_KEY: KeySpec = key(
    "service",
    SERVICES,
    Words("none; a project needs at least one"),
    "{ api = { command = \"bin/api\" } }",
    "What the project runs. Each service is a table, [service.NAME].",
);
const DEPLOY_KEY: KeySpec = key(
    "deploy",
    Kind::Table(&DEPLOY),
    Words("every default of [deploy]"),
    "{ strategy = \"rolling\" }",
    "How a release is brought in and kept.",
);
const METRICS_KEY: KeySpec = key(
    "metrics",
    Kind::Table(&METRICS),
    Words("every default of [metrics]"),
    "{ rules = [\"ops/*.rules.yml\"] }",
    "Where the figures come from and where they go.",
);
const ALERTS_KEY: KeySpec = key(
    "alerts",
    Kind::Table(&ALERTS),
    Words("alerts are shown, and nobody is told"),
    "{ channels = { ops = { slack = { secret = \"slack_url\" } } } }",
    "Who is told when an alert fires.",
);
const PROBE_KEY: KeySpec = key(
    "probe",
    PROBES,
    Words("nothing is checked from outside"),
    "{ site = { http = \"https://shop.example\" } }",
    "Uptime checks. Each is a table, [probe.NAME].",
);
const SLO_KEY: KeySpec = key(
    "slo",
    SLOS,
    Words("no objectives"),
    "{ checkout = { service = \"api\", availability = 0.999 } }",
    "Objectives. Each is a table, [slo.NAME].",
);

pub(crate) static ROOT: TableSpec = TableSpec {
    name: "project",
    doc: "The file itself.",
    keys: &[
        key(
            "version",
            Kind::Integer { min: VERSION, max: VERSION },
            Required,
            "1",
            "Version of the format. A later program reads an earlier version.",
        ),
        key("project", Kind::Text(&PROJECT_NAME), Required, "\"shop\"", "Name of the project."),
        VARS_KEY,
        RELEASE_KEY,
        SERVICE_KEY,
        DEPLOY_KEY,
        METRICS_KEY,
        ALERTS_KEY,
        PROBE_KEY,
        SLO_KEY,
        HOST_KEY,
        LISTEN_KEY,
        TLS_KEY,
        PROXY_PROTOCOL_KEY,
        TRUSTED_PROXIES_KEY,
        CONNECTIONS_KEY,
        PROXY_KEY,
        EDGE_KEY,
        URL_KEY,
        PROTECT_KEY,
        key(
            "env",
            Kind::Map { key: &ENVIRONMENT_NAME, of: &Kind::Table(&ENVIRONMENT), max: ENVIRONMENTS_MAX },
            Words("one environment, dev"),
            "{ production = { host = \"shop.example\" } }",
            "The environments. Each is a table, [env.NAME], laid over the rest of the file: tables merge, everything else replaces.",
        ),
    ],
};

pub(crate) static ENVIRONMENT: TableSpec = TableSpec {
    name: "environment",
    doc: "An environment: what differs from the rest of the file.",
    keys: &[
        key(
            "extends",
            Kind::Text(&ENVIRONMENT_NAME),
            Words("the file without its environments"),
            "\"staging\"",
            "Another environment that this one is laid over.",
        ),
        HOST_KEY,
        LISTEN_KEY,
        TLS_KEY,
        PROXY_PROTOCOL_KEY,
        TRUSTED_PROXIES_KEY,
        CONNECTIONS_KEY,
        PROXY_KEY,
        EDGE_KEY,
        URL_KEY,
        PROTECT_KEY,
        VARS_KEY,
        RELEASE_KEY,
        SERVICE_KEY,
        DEPLOY_KEY,
        METRICS_KEY,
        ALERTS_KEY,
        PROBE_KEY,
        SLO_KEY,
    ],
};

pub(crate) static PROTECT: TableSpec = TableSpec {
    name: "protect",
    doc: "What a person must do before the environment changes.",
    keys: &[
        key(
            "confirm",
            Kind::Bool,
            Words("true for production, otherwise false"),
            "true",
            "Ask for the environment's name before a command changes it.",
        ),
        key(
            "approvers",
            Kind::Integer { min: 0, max: 20 },
            Default("0"),
            "1",
            "People other than the requester who must approve a deploy.",
        ),
    ],
};

pub(crate) static RELEASE: TableSpec = TableSpec {
    name: "release",
    doc: "Commands that belong to a release and run once.",
    keys: &[
        key(
            "expand",
            Kind::OneOf(&[Kind::Command, Kind::Table(&JOB)]),
            Words("no migration"),
            "[\"bin/migrate\", \"expand\"]",
            "Before any new instance starts. Must leave the schema usable by the release that serves.",
        ),
        key(
            "contract",
            Kind::OneOf(&[Kind::Command, Kind::Table(&CONTRACT)]),
            Words("no migration"),
            "{ run = [\"bin/migrate\", \"contract\"], after = \"24h\" }",
            "After the release has served for a while. Earlier releases cannot come back afterwards.",
        ),
        key(
            "smoke",
            Kind::OneOf(&[Kind::Command, Kind::Table(&JOB)]),
            Words("no smoke suite"),
            "[\"bin/smoke\"]",
            "Against the new version over its preview route, before public traffic.",
        ),
        key(
            "verify",
            Kind::OneOf(&[Kind::Command, Kind::Table(&JOB)]),
            Words("no verification"),
            "[\"bin/verify\"]",
            "Your own verification, after smoke and before public traffic.",
        ),
        key(
            "seed",
            Kind::OneOf(&[Kind::Command, Kind::Table(&JOB)]),
            Words("no seed data"),
            "[\"bin/seed\"]",
            "Fills an environment with data, when asked to with `fairway seed`.",
        ),
    ],
};

const JOB_RUN: KeySpec = key("run", Kind::Command, Required, "[\"bin/migrate\", \"expand\"]", "The command.");
const JOB_SERVICE: KeySpec = key(
    "service",
    Kind::Text(&SERVICE_NAME),
    Words("none"),
    "\"api\"",
    "Run in what this service runs in: its artifact, its workdir, its user and its env.",
);
const JOB_DIR: KeySpec = key(
    "dir",
    Kind::Text(&DIRECTORY),
    Words("the whole project"),
    "\"db\"",
    "Directory of the project that is captured for the command and in which it starts.",
);
const JOB_WORKDIR: KeySpec = key(
    "workdir",
    Kind::Text(&DIRECTORY),
    Default("."),
    "\"tools\"",
    "Directory below dir in which the command starts.",
);
const JOB_ENV: KeySpec =
    key("env", VARIABLES, Words("[vars] alone"), "{ STEP = \"expand\" }", "Variables on top of [vars].");
const JOB_USER: KeySpec =
    key("user", Kind::Text(&USER), Words("the server's own"), "\"shop\"", "User to run as.");
const JOB_TIMEOUT: KeySpec = key(
    "timeout",
    POSITIVE,
    Words("30m for expand, contract and seed; 5m for smoke and verify"),
    "\"10m\"",
    "Time after which the command is stopped and counts as failed.",
);

pub(crate) static JOB: TableSpec = TableSpec {
    name: "job",
    doc: "A command that runs once.",
    keys: &[JOB_RUN, JOB_SERVICE, JOB_DIR, JOB_WORKDIR, JOB_ENV, JOB_USER, JOB_TIMEOUT],
};

pub(crate) static CONTRACT: TableSpec = TableSpec {
    name: "contract",
    doc: "The migration that removes what earlier releases still need.",
    keys: &[
        JOB_RUN,
        key(
            "after",
            DURATION,
            Default("24h"),
            "\"24h\"",
            "How long after commit; until then a rollback is possible.",
        ),
        JOB_SERVICE,
        JOB_DIR,
        JOB_WORKDIR,
        JOB_ENV,
        JOB_USER,
        JOB_TIMEOUT,
    ],
};

/// Where a table stands in the file, for people.
pub(crate) fn place(spec: &TableSpec) -> &'static str {
    match spec.name {
        "project" => "the top of the file",
        "environment" => "[env.NAME]",
        "service" => "[service.NAME]",
        "probe" => "[probe.NAME]",
        "slo" => "[slo.NAME]",
        name => name,
    }
}

/// The format of a secret's name.
pub(crate) const SECRET_FORMAT: &str = "SECRET";

/// The format of what a label must match.
pub(crate) const MATCH_FORMAT: &str = "MATCH";

/// `{ ref = "…" }` and `{ secret = "…" }`, the only tables that a variable or a word may be.
pub(crate) const REFERENCE_KEYS: [&str; 2] = ["ref", "secret"];

/// Every table of the file, in the order of the reference.
pub(crate) static TABLES: &[&TableSpec] = &[
    &ROOT,
    &ENVIRONMENT,
    &PROTECT,
    &TLS,
    &CONNECTIONS,
    &PROXY,
    &ACME,
    &HSTS,
    &EDGE,
    &COMPRESS,
    &RATE_LIMIT,
    &CACHE,
    &TIMEOUTS,
    &RETRY,
    &EJECT,
    &HOLD,
    &BREAKER,
    &RELEASE,
    &JOB,
    &CONTRACT,
    &SERVICE,
    &BUILD,
    &STATIC,
    &STATIC_CACHE,
    &PORT,
    &ROUTE,
    &READY,
    &LIVE,
    &STOP,
    &RESTART,
    &LIMITS,
    &LOG,
    &BACKUP,
    &AUTOSCALE,
    &AUTOSCALE_QUERY,
    &BEHAVIOR,
    &SCALING,
    &POLICY,
    &DEPLOY,
    &PURGE,
    &STEP,
    &MATCH,
    &GATE,
    &SEQUENTIAL,
    &TRIGGERS,
    &ERROR_TRIGGER,
    &LATENCY_TRIGGER,
    &METRICS,
    &SCRAPE,
    &ALERTS,
    &CHANNEL,
    &SECRET,
    &MAIL,
    &PAGERDUTY,
    &ALERT_ROUTE,
    &INHIBIT,
    &UPTIME,
    &SLO,
    &SLO_LATENCY,
];

#[cfg(test)]
mod tests;
