//! Every key of fairway.toml: what it takes, what holds without it, what it means.

use std::time::Duration;

use fairway_engine::id::{EnvironmentName, InvalidName, ProjectName, ServiceName};

use crate::code;
use crate::spec::{Absent, Format, KeySpec, Kind, TableSpec, key};
use crate::value::{name, path};

use Absent::{Default, Required, Words};

/// The number in `version = 1`.
pub(crate) const VERSION: i64 = 1;

/// Each environment holds a merged copy of the file, and each is validated.
pub(crate) const ENVIRONMENTS_MAX: usize = 50;
/// One machine starts them all; a larger project is several projects.
pub(crate) const SERVICES_MAX: usize = 200;
/// What `execve` takes is bounded too; a thousand variables is far beyond any project seen.
pub(crate) const VARIABLES_MAX: usize = 1000;
const AFTER_MAX: usize = SERVICES_MAX;
const STEPS_MAX: usize = 100;
const MATCHES_MAX: usize = 20;
const GATES_MAX: usize = 50;

macro_rules! text_format {
    ($name:ident, $label:literal, $expected:literal, $code:expr, $pattern:expr, $check:expr) => {
        pub(crate) static $name: Format =
            Format { name: $label, expected: $expected, code: $code, pattern: $pattern, check: $check };
    };
}

fn owned<T>(result: Result<T, &'static str>) -> Result<(), String> {
    result.map(|_| ()).map_err(str::to_owned)
}

fn named<T>(result: Result<T, InvalidName>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| error.why.to_owned())
}

const NAME_PATTERN: Option<&str> = Some("^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$");

text_format!(TEXT, "TEXT", "a string", code::BAD_VALUE, None, |text| {
    match text {
        "" => Err("it is empty".to_owned()),
        text if text.contains('\0') => Err("it has a NUL character".to_owned()),
        _ => Ok(()),
    }
});
text_format!(PROJECT_NAME, "NAME", "a project name", code::BAD_NAME, NAME_PATTERN, |t| named(
    ProjectName::new(t)
));
text_format!(
    ENVIRONMENT_NAME,
    "ENVIRONMENT",
    "the name of an environment",
    code::BAD_NAME,
    NAME_PATTERN,
    |t| { named(EnvironmentName::new(t)) }
);
text_format!(SERVICE_NAME, "SERVICE", "the name of a service", code::BAD_NAME, NAME_PATTERN, |t| {
    match t {
        "data" | "public" => {
            Err("the name is taken by the references { ref = \"data.dir\" } and { ref = \"public.url\" }"
                .to_owned())
        }
        t => named(ServiceName::new(t)),
    }
});
text_format!(
    VARIABLE_NAME,
    "NAME",
    "the name of a variable",
    code::BAD_NAME,
    Some("^[A-Za-z_][A-Za-z0-9_]*$"),
    |t| { owned(name::variable(t)) }
);
text_format!(HOST, "HOST", "a host name", code::BAD_VALUE, None, |t| owned(name::host(t)));
text_format!(LISTEN, "ADDRESS", "an address such as \"0.0.0.0:80\"", code::BAD_VALUE, None, |t| {
    owned(name::listen(t))
});
text_format!(
    URL,
    "URL",
    "a URL such as \"https://shop.example\"",
    code::BAD_VALUE,
    Some("^https?://"),
    |t| { owned(name::url(t)) }
);
text_format!(USER, "USER", "a user name or a numeric id", code::BAD_NAME, None, |t| owned(name::user(t)));
text_format!(DIRECTORY, "PATH", "a path inside the project", code::BAD_VALUE, Some("^[^/~]"), |t| {
    owned(path::relative(t))
});
text_format!(ROUTE_PATH, "PATH", "a path such as \"/\" or \"/api\"", code::BAD_VALUE, Some("^/"), |t| {
    owned(path::route(t))
});
text_format!(PROBE_PATH, "PATH", "a path such as \"/healthz\"", code::BAD_VALUE, Some("^/"), |t| {
    owned(path::request(t))
});
text_format!(TOKEN, "NAME", "the name of a header or a cookie", code::BAD_NAME, None, |t| owned(
    name::token(t)
));
text_format!(MATCH_VALUE, "VALUE", "a string", code::BAD_VALUE, None, |t| owned(name::header_value(t)));

pub(crate) const STRATEGIES: &[&str] = &["rolling", "blue-green", "blue_green", "canary"];
pub(crate) const ENGINES: &[&str] = &["postgres", "redis"];
pub(crate) const SIGNALS: &[&str] = &["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"];

const PORT_NUMBER: Kind = Kind::Integer { min: 1, max: 65_535 };
const COUNT: Kind = Kind::Integer { min: 0, max: 1000 };
const DURATION: Kind = Kind::Duration { min: Duration::ZERO };
const POSITIVE: Kind = Kind::Duration { min: Duration::from_millis(1) };
/// Probing faster than this costs more than it tells.
const INTERVAL: Kind = Kind::Duration { min: Duration::from_millis(10) };
const FAILURES: Kind = Kind::Integer { min: 1, max: 1000 };
const VARIABLES: Kind = Kind::Map { key: &VARIABLE_NAME, of: &Kind::Variable, max: VARIABLES_MAX };
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
        HOST_KEY,
        LISTEN_KEY,
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
        URL_KEY,
        PROTECT_KEY,
        VARS_KEY,
        RELEASE_KEY,
        SERVICE_KEY,
        DEPLOY_KEY,
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

pub(crate) static SERVICE: TableSpec = TableSpec {
    name: "service",
    doc: "A service: a command, static files, or a server that Fairway provides. Exactly one of command, static and uses.",
    keys: &[
        key(
            "command",
            Kind::CommandWithPort,
            Words("none"),
            "[\"bin/api\", \"--port\", { ref = \"port\" }]",
            "What starts. A string is split into words; no shell is involved.",
        ),
        key(
            "static",
            Kind::OneOf(&[Kind::Text(&DIRECTORY), Kind::Table(&STATIC)]),
            Words("none"),
            "{ dir = \"dist\", spa = true }",
            "Files to serve instead of a command.",
        ),
        key(
            "uses",
            Kind::Choice(ENGINES),
            Words("none"),
            "\"postgres\"",
            "A server that Fairway provides and whose data outlives releases.",
        ),
        key(
            "build",
            Kind::OneOf(&[Kind::Command, Kind::Table(&BUILD)]),
            Words("nothing is built"),
            "{ run = [\"npm\", \"run\", \"build\"], artifact = \"dist\" }",
            "What runs in dir before a release is captured.",
        ),
        key(
            "dir",
            Kind::Text(&DIRECTORY),
            Default("."),
            "\"api\"",
            "Directory of the project that holds the service; captured for each release unless build names an artifact.",
        ),
        key(
            "workdir",
            Kind::Text(&DIRECTORY),
            Default("."),
            "\"server\"",
            "Directory below what is captured, in which the command starts.",
        ),
        key(
            "port",
            Kind::OneOf(&[PORT_NUMBER, Kind::Table(&PORT)]),
            Words("the service listens on nothing"),
            "4000",
            "Port that the service listens on. On one machine each instance gets its own, in the variable PORT.",
        ),
        key(
            "route",
            Kind::OneOf(&[Kind::Text(&ROUTE_PATH), Kind::Table(&ROUTE)]),
            Words("no public requests"),
            "\"/api\"",
            "Path prefix of the public requests that go to the service. The longest one wins.",
        ),
        key(
            "sticky",
            Kind::OneOf(&[Kind::Bool, Kind::Text(&TOKEN)]),
            Default("false"),
            "true",
            "Keep a visitor on one version by a cookie; a string names the cookie.",
        ),
        key(
            "replicas",
            Kind::Integer { min: 0, max: 1000 },
            Default("1"),
            "2",
            "Copies, unless an operator scaled the service.",
        ),
        key(
            "after",
            Kind::List { of: &Kind::Text(&SERVICE_NAME), max: AFTER_MAX },
            Words("no order"),
            "[\"postgres\"]",
            "Services that must be ready before this one starts.",
        ),
        key("env", VARIABLES, Words("[vars] alone"), "{ WORKERS = 4 }", "Variables on top of [vars]."),
        key(
            "ready",
            Kind::Table(&READY),
            Words("tcp with a port, otherwise alive for 1s"),
            "{ http = \"/healthz\", within = \"60s\" }",
            "How an instance proves that it can take work.",
        ),
        key(
            "live",
            Kind::Table(&LIVE),
            Words("not probed"),
            "{ http = \"/livez\", every = \"10s\", failures = 3 }",
            "How a running instance proves that it is not stuck. Failing it restarts the instance.",
        ),
        key(
            "stop",
            Kind::Table(&STOP),
            Words("every default of stop"),
            "{ signal = \"TERM\", timeout = \"5m\" }",
            "How an instance is stopped.",
        ),
        key(
            "restart",
            Kind::Table(&RESTART),
            Words("every default of restart"),
            "{ burst = 5, window = \"60s\" }",
            "What happens when the process ends by itself.",
        ),
        key(
            "limits",
            Kind::Table(&LIMITS),
            Words("no limits"),
            "{ cpu = 1.0, memory = \"512M\" }",
            "What an instance may use.",
        ),
        key("user", Kind::Text(&USER), Words("the server's own"), "\"shop\"", "User to run as."),
        key(
            "log",
            Kind::Table(&LOG),
            Words("every default of log"),
            "{ max_size = \"16M\", files = 5 }",
            "How the output is kept.",
        ),
        key(
            "backup",
            Kind::Table(&BACKUP),
            Words("no backup"),
            "{ every = \"6h\", keep = \"30d\", to = \"offsite\", drill = \"weekly\" }",
            "Backups of a service with uses.",
        ),
    ],
};

pub(crate) static BUILD: TableSpec = TableSpec {
    name: "build",
    doc: "What runs before a release is captured.",
    keys: &[
        key("run", Kind::Command, Required, "[\"npm\", \"run\", \"build\"]", "The command."),
        key(
            "artifact",
            Kind::Text(&DIRECTORY),
            Words("the whole of dir"),
            "\"dist\"",
            "File or directory below dir that is captured for the release. A file is captured under its own name.",
        ),
    ],
};

pub(crate) static STATIC: TableSpec = TableSpec {
    name: "static",
    doc: "Files to serve.",
    keys: &[
        key(
            "dir",
            Kind::Text(&DIRECTORY),
            Required,
            "\"dist\"",
            "Directory with the files, below the service's dir.",
        ),
        key(
            "spa",
            Kind::Bool,
            Default("false"),
            "true",
            "Answer a path that is no file with index.html, as single-page applications need.",
        ),
    ],
};

pub(crate) static PORT: TableSpec = TableSpec {
    name: "port",
    doc: "The port of a service.",
    keys: &[
        key("number", PORT_NUMBER, Required, "4000", "The port."),
        key(
            "env",
            Kind::Text(&VARIABLE_NAME),
            Default("PORT"),
            "\"API_PORT\"",
            "Variable in which the process learns the port that it was given.",
        ),
    ],
};

pub(crate) static ROUTE: TableSpec = TableSpec {
    name: "route",
    doc: "The public requests of a service.",
    keys: &[
        key("path", Kind::Text(&ROUTE_PATH), Default("/"), "\"/api\"", "Path prefix, on part boundaries."),
        key("host", Kind::Text(&HOST), Words("any"), "\"api.shop.example\"", "Host name that must match."),
        key(
            "strip_prefix",
            Kind::Bool,
            Default("false"),
            "true",
            "Take the prefix off before the request goes to the service.",
        ),
    ],
};

const READY_EXEC: KeySpec = key(
    "exec",
    Kind::Command,
    Words("not used"),
    "[\"bin/ready\"]",
    "A command that exits with 0, in the instance's environment.",
);
const PROBE_PATHS: &[Kind] = &[Kind::Text(&PROBE_PATH), Kind::True];
const PROBE_HTTP: KeySpec = key(
    "http",
    Kind::OneOf(PROBE_PATHS),
    Words("not used"),
    "\"/healthz\"",
    "A GET on the instance's port, answered with 2xx or 3xx; true asks for \"/\".",
);
const PROBE_TCP: KeySpec =
    key("tcp", Kind::True, Words("not used"), "true", "The instance's port accepts a connection.");

pub(crate) static READY: TableSpec = TableSpec {
    name: "ready",
    doc: "Readiness: at most one of http, tcp, exec, notify, log and alive.",
    keys: &[
        PROBE_HTTP,
        PROBE_TCP,
        READY_EXEC,
        key(
            "notify",
            Kind::True,
            Words("not used"),
            "true",
            "The process says READY=1 on NOTIFY_SOCKET, as with systemd.",
        ),
        key("log", Kind::Text(&TEXT), Words("not used"), "\"listening\"", "A line of output has this text."),
        key("alive", POSITIVE, Words("not used"), "\"1s\"", "The process has lived for this long."),
        key(
            "within",
            POSITIVE,
            Default("60s"),
            "\"60s\"",
            "From start to ready; otherwise the instance has failed.",
        ),
        key("every", INTERVAL, Default("1s"), "\"1s\"", "Time between two probes."),
        key("timeout", POSITIVE, Default("2s"), "\"2s\"", "Time that one probe may take."),
        key(
            "failures",
            FAILURES,
            Default("3"),
            "3",
            "Failures in a row after which a ready instance gets no new requests.",
        ),
    ],
};

pub(crate) static LIVE: TableSpec = TableSpec {
    name: "live",
    doc: "Liveness: exactly one of http, tcp and exec.",
    keys: &[
        PROBE_HTTP,
        PROBE_TCP,
        READY_EXEC,
        key("every", INTERVAL, Default("10s"), "\"10s\"", "Time between two probes."),
        key("timeout", POSITIVE, Default("5s"), "\"5s\"", "Time that one probe may take."),
        key(
            "failures",
            FAILURES,
            Default("3"),
            "3",
            "Failures in a row after which the instance is restarted.",
        ),
    ],
};

pub(crate) static STOP: TableSpec = TableSpec {
    name: "stop",
    doc: "How an instance is stopped.",
    keys: &[
        key("signal", Kind::Choice(SIGNALS), Default("TERM"), "\"TERM\"", "Signal that asks it to end."),
        key(
            "timeout",
            DURATION,
            Default("10s"),
            "\"5m\"",
            "From the signal until the whole process group is killed.",
        ),
        key(
            "drain",
            DURATION,
            Words("deploy.drain"),
            "\"30s\"",
            "How long requests in flight may hold the signal back.",
        ),
    ],
};

pub(crate) static RESTART: TableSpec = TableSpec {
    name: "restart",
    doc: "What happens when the process ends by itself.",
    keys: &[
        key("backoff_min", POSITIVE, Default("200ms"), "\"200ms\"", "Wait before the first restart."),
        key("backoff_max", POSITIVE, Default("30s"), "\"30s\"", "The wait doubles up to this."),
        key(
            "burst",
            COUNT,
            Default("5"),
            "5",
            "Restarts within window; one more and the instance has failed.",
        ),
        key("window", POSITIVE, Default("60s"), "\"60s\"", "Time in which burst is counted."),
    ],
};

pub(crate) static LIMITS: TableSpec = TableSpec {
    name: "limits",
    doc: "What an instance may use.",
    keys: &[
        key("cpu", Kind::Number { min: 0.001, max: 4096.0 }, Words("no limit"), "1.0", "Cores."),
        key("memory", Kind::Size, Words("no limit"), "\"512M\"", "Memory; one more byte ends the instance."),
        key(
            "open_files",
            Kind::Integer { min: 16, max: 1 << 30 },
            Words("the server's own"),
            "65536",
            "Open files and connections.",
        ),
        key(
            "processes",
            Kind::Integer { min: 1, max: 1 << 22 },
            Words("no limit"),
            "256",
            "Processes and threads.",
        ),
    ],
};

pub(crate) static LOG: TableSpec = TableSpec {
    name: "log",
    doc: "How the output of a service is kept.",
    keys: &[
        key(
            "max_size",
            Kind::Size,
            Default("16M"),
            "\"16M\"",
            "Size at which a file is closed and the next begins.",
        ),
        key("files", Kind::Integer { min: 1, max: 1000 }, Default("5"), "5", "Files kept for an instance."),
    ],
};

pub(crate) static BACKUP: TableSpec = TableSpec {
    name: "backup",
    doc: "Backups of a service's data.",
    keys: &[
        key(
            "every",
            Kind::Duration { min: Duration::from_secs(60) },
            Default("24h"),
            "\"6h\"",
            "Time between two.",
        ),
        key("keep", POSITIVE, Default("30d"), "\"30d\"", "How long one is kept."),
        key("to", Kind::Text(&TEXT), Words("the machine itself"), "\"offsite\"", "Where they go."),
        key(
            "drill",
            Kind::Choice(&["daily", "weekly", "monthly", "never"]),
            Default("never"),
            "\"weekly\"",
            "How often one is restored for proof.",
        ),
    ],
};

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
            "canary: shares of public requests, rising. After the last one everything goes to the new version.",
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
            "deadline",
            POSITIVE,
            Default("30m"),
            "\"30m\"",
            "Longest time in a phase of a rollout that has no deadline of its own.",
        ),
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
        key("approve", Kind::Bool, Default("false"), "true", "Wait for `fairway promote` after the hold."),
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

pub(crate) static GATE: TableSpec = TableSpec {
    name: "gate",
    doc: "Evidence that the new version must give: a metric or a query, and a threshold.",
    keys: &[
        key(
            "metric",
            Kind::Text(&TEXT),
            Words("not used"),
            "\"error_rate\"",
            "error_rate, p50, p95, p99 or another metric.",
        ),
        key(
            "query",
            Kind::Text(&TEXT),
            Words("not used"),
            "\"sum(rate(errors[1m]))\"",
            "A PromQL expression.",
        ),
        key(
            "max",
            Kind::Number { min: -1e15, max: 1e15 },
            Words("no bound"),
            "0.01",
            "Largest value that passes.",
        ),
        key(
            "min",
            Kind::Number { min: -1e15, max: 1e15 },
            Words("no bound"),
            "0.99",
            "Smallest value that passes.",
        ),
        key(
            "max_vs_stable",
            Kind::Number { min: 0.0, max: 1e6 },
            Words("no bound"),
            "1.3",
            "Largest ratio to the stable version that passes.",
        ),
        key(
            "min_requests",
            Kind::Integer { min: 0, max: 1_000_000_000 },
            Default("0"),
            "200",
            "Requests that the new version must have had before the gate says anything.",
        ),
        key("for", DURATION, Default("0s"), "\"1m\"", "How long the threshold must be crossed."),
        key(
            "no_data",
            Kind::Choice(&["pause", "pass", "fail"]),
            Default("pause"),
            "\"pause\"",
            "What holds when there is nothing to judge.",
        ),
    ],
};

/// Where a table stands in the file, for people.
pub(crate) fn place(spec: &TableSpec) -> &'static str {
    match spec.name {
        "project" => "the top of the file",
        "environment" => "[env.NAME]",
        "service" => "[service.NAME]",
        name => name,
    }
}

/// `{ ref = "…" }` and `{ secret = "…" }`, the only tables that a variable or a word may be.
pub(crate) const REFERENCE_KEYS: [&str; 2] = ["ref", "secret"];

/// Every table of the file, in the order of the reference.
pub(crate) static TABLES: &[&TableSpec] = &[
    &ROOT,
    &ENVIRONMENT,
    &PROTECT,
    &RELEASE,
    &JOB,
    &CONTRACT,
    &SERVICE,
    &BUILD,
    &STATIC,
    &PORT,
    &ROUTE,
    &READY,
    &LIVE,
    &STOP,
    &RESTART,
    &LIMITS,
    &LOG,
    &BACKUP,
    &DEPLOY,
    &STEP,
    &MATCH,
    &GATE,
];

/// Words that other tools use for something that has another name here.
pub(crate) static ALIASES: &[(&str, &str)] = &[
    ("image", "there are no images here: what runs is a directory of the project, with command"),
    ("cmd", "the key is command"),
    ("run", "the key is command"),
    ("entrypoint", "the key is command"),
    ("environment", "variables go into [vars] or env; environments are tables [env.NAME]"),
    ("envs", "environments are tables [env.NAME]"),
    ("ports", "the key is port, one number"),
    ("depends_on", "the key is after"),
    ("healthcheck", "the keys are ready and live"),
    ("health", "the keys are ready and live"),
    ("scale", "the key is replicas"),
    ("instances", "the key is replicas"),
    ("path", "the key is route"),
    ("domain", "the key is host, of an environment"),
    ("secrets", "a secret is the value of a variable: { secret = \"name\" }"),
    ("volumes", "a directory that outlives releases is { ref = \"data.dir\" }"),
    ("memory", "the key is limits = { memory = \"512M\" }"),
    ("cpu", "the key is limits = { cpu = 1.0 }"),
    ("cwd", "the key is workdir"),
    ("services", "each service is a table [service.NAME]"),
    ("name", "the key is project"),
    ("type", "a service is what it has: command, static or uses"),
];

#[cfg(test)]
mod tests;
