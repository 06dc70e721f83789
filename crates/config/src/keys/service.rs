//! The keys of a service.

use std::time::Duration;

use super::autoscale::AUTOSCALE;
use super::format::{
    DIRECTORY, HOST, PROBE_PATH, ROUTE_PATH, SERVICE_NAME, TEXT, TOKEN, USER, VARIABLE_NAME,
};
use super::{COPIES_MAX, COUNT, DURATION, ENGINES, POSITIVE, SERVICES_MAX, SIGNALS, VARIABLES};
use crate::spec::Absent::{Default, Required, Words};
use crate::spec::{KeySpec, Kind, TableSpec, key};

const AFTER_MAX: usize = SERVICES_MAX;
const PORT_NUMBER: Kind = Kind::Integer { min: 1, max: 65_535 };
/// Probing faster than this costs more than it tells.
const INTERVAL: Kind = Kind::Duration { min: Duration::from_millis(10) };
const FAILURES: Kind = Kind::Integer { min: 1, max: 1000 };

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
            "protocol",
            Kind::Choice(&["http1", "h2c"]),
            Default("http1"),
            "\"h2c\"",
            "What the copies speak: HTTP/1.1, or HTTP/2 without TLS, as gRPC needs it. Clients may speak either.",
        ),
        super::edge::EDGE_KEY,
        key(
            "sticky",
            Kind::OneOf(&[Kind::Bool, Kind::Text(&TOKEN)]),
            Default("false"),
            "true",
            "Keep a visitor on one version by a cookie; a string names the cookie.",
        ),
        key(
            "replicas",
            Kind::Integer { min: 0, max: COPIES_MAX as i64 },
            Words("1, or the least of autoscale"),
            "2",
            "Copies, unless an operator or autoscale scaled the service.",
        ),
        key(
            "autoscale",
            Kind::Table(&AUTOSCALE),
            Words("replicas does not change"),
            "{ min = 2, max = 10, cpu = 70 }",
            "Copies follow the load.",
        ),
        key(
            "metrics",
            Kind::Text(&PROBE_PATH),
            Words("not scraped"),
            "\"/metrics\"",
            "Path under which each copy serves its own metrics, on its port.",
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
            "Answer a visit to a path that is no file with index.html, as single-page applications need. A missing script, style or image stays a 404.",
        ),
        key(
            "cache",
            Kind::Table(&STATIC_CACHE),
            Words("every default of static_cache"),
            "{ pages = \"1h\", other = \"365d\" }",
            "How long browsers and CDNs may keep the files.",
        ),
        key(
            "old_assets",
            Kind::Bool,
            Default("true"),
            "false",
            "Answer a name with a content hash that this release lacks from the site's other releases that are still on the machine, so that pages loaded before a deploy keep working.",
        ),
    ],
};

pub(crate) static STATIC_CACHE: TableSpec = TableSpec {
    name: "static_cache",
    doc: "How long browsers and CDNs may keep static files. With \"0s\" they ask each time, which costs a 304 without a body.",
    keys: &[
        key(
            "hashed",
            DURATION,
            Default("365d"),
            "\"365d\"",
            "Names with a content hash as bundlers write them, index-DiwrgTda.js or app.3f2a9c1b.css; also marked immutable.",
        ),
        key(
            "pages",
            DURATION,
            Default("0s"),
            "\"1h\"",
            "HTML, and scripts, styles and data without a hash: an old one beside a new one is a broken page.",
        ),
        key(
            "other",
            DURATION,
            Default("1h"),
            "\"365d\"",
            "Everything else without a hash: images, fonts, downloads.",
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
