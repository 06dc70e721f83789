//! A service of one environment, read from its merged table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairway_engine::edge::{Edge, Protocol};
use fairway_engine::evidence::Autoscale;
use fairway_engine::id::ServiceName;
use fairway_engine::service::{
    Argument, BackingEngine, Limits, Liveness, Port, Readiness, Reference, RestartPolicy, RouteSpec,
    StaticServing, Stop, StopSignal,
};

use crate::artifact::{ArtifactKey, Build};
use crate::autoscale;
use crate::code;
use crate::diagnostic::Diagnostic;
use crate::edge;
use crate::keys;
use crate::probe;
use crate::reader::{Bytes, Reader, Words};
use crate::span::Span;
use crate::tree::Value;
use crate::value::{command, path};
use crate::variable::{self, Roster, Variable, VariableValue};

/// A service before its artifacts and the versions of its secrets are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: ServiceName,
    /// Its key in the file.
    pub at: Span,
    pub runs: ServiceRuns,
    pub replicas: u32,
    pub autoscale: Option<Autoscale>,
    pub edge: Edge,
    /// Path under which each copy serves its own metrics.
    pub metrics: Option<String>,
    /// As written, and every backing service that a variable refers to: its URL leads nowhere before it is ready.
    pub after: BTreeSet<ServiceName>,
    pub route: Option<RouteSpec>,
    pub env: BTreeMap<String, Variable>,
    pub ready: Readiness,
    pub live: Option<Liveness>,
    pub stop: Stop,
    pub restart: RestartPolicy,
    pub limits: Limits,
    pub user: Option<String>,
    pub log: LogSettings,
    pub backup: Option<Backup>,
    pub(crate) after_at: BTreeMap<ServiceName, Span>,
    pub(crate) route_at: Option<Span>,
    /// The value of command, static or uses.
    pub(crate) runs_at: Span,
}

/// What starts.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceRuns {
    Process {
        command: Vec<Argument>,
        capture: Capture,
        workdir: String,
        port: Option<Port>,
    },
    /// `dir` is relative to what is captured; empty = its root.
    Static {
        capture: Capture,
        dir: String,
        spa: bool,
        serving: StaticServing,
    },
    Backing {
        engine: BackingEngine,
        port: u16,
    },
}

impl ServiceRuns {
    /// None for a backing service, which runs nothing of the project's.
    #[must_use]
    pub fn capture(&self) -> Option<&Capture> {
        match self {
            ServiceRuns::Process { capture, .. } | ServiceRuns::Static { capture, .. } => Some(capture),
            ServiceRuns::Backing { .. } => None,
        }
    }
}

/// What of the project a service needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    pub key: ArtifactKey,
    pub build: Option<Build>,
    pub at: Span,
}

/// How the output of an instance is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Size at which a file is closed and the next begins.
    pub max_size_bytes: u64,
    /// Files kept for an instance.
    pub files: u32,
}

/// Backups of a backing service, as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub every: Duration,
    pub keep: Duration,
    pub to: Option<String>,
    pub drill: Drill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    Never,
    Daily,
    Weekly,
    Monthly,
}

/// What every service of an environment shares.
pub(crate) struct Shared<'a> {
    pub(crate) vars: &'a BTreeMap<String, Variable>,
    pub(crate) roster: &'a Roster,
    /// `deploy.drain`
    pub(crate) drain: Duration,
    /// `[edge]`
    pub(crate) edge: &'a Edge,
}

/// None when the service is too broken to go on; the reasons are in the findings.
pub(crate) fn read(name: &str, reader: &Reader<'_>, shared: &Shared<'_>) -> Option<Service> {
    let cx = reader.cx;
    let kind = reader.one_of(&["command", "static", "uses"]);
    let (runs, listens) = match kind {
        Some("command") => {
            let port = port(reader);
            let listens = reader.has("port");
            (process(reader, port), listens)
        }
        Some("static") => {
            reader.refuse_beside(
                "static",
                &["port", "workdir", "env", "live", "metrics", "autoscale"],
                "for static files",
            );
            (static_files(reader), true)
        }
        Some("uses") => {
            reader.refuse_beside(
                "uses",
                &[
                    "build",
                    "dir",
                    "workdir",
                    "route",
                    "sticky",
                    "replicas",
                    "after",
                    "env",
                    "live",
                    "metrics",
                    "autoscale",
                    "edge",
                    "protocol",
                ],
                "for a service that Fairway provides",
            );
            (backing(reader), true)
        }
        Some(_) | None => {
            // A slip in the key's name has been told already.
            if !reader.has_unknown() {
                let message = format!("service {name} has nothing to run");
                let hint = "add command = [\"…\"], static = \"dir\" or uses = \"postgres\"";
                cx.push_at(Diagnostic::error(code::NOTHING_TO_RUN, message).hint(hint), reader.at);
            }
            (None, reader.has("port"))
        }
    };
    let backing = kind == Some("uses");
    // What an overlay inherits and cannot take away does not reach a server that Fairway provides.
    let route = if backing { None } else { route(reader, name) };
    if reader.has("route") && !listens && kind.is_some() {
        let message = format!("service {name} has a route and no port to send the requests to");
        cx.push_at(
            Diagnostic::error(code::ROUTE_NEEDS_PORT, message).hint("add port = 3000"),
            reader.value_at("route"),
        );
    }
    if reader.has("backup") && !backing && kind.is_some() {
        reader.refuse_beside(kind.unwrap_or("command"), &["backup"], "for a service without uses");
    }
    let env = if kind == Some("command") {
        variable::read(reader, "env", shared.vars, shared.roster)
    } else {
        BTreeMap::new()
    };
    if let Some(ServiceRuns::Process { port: Some(port), .. }) = &runs
        && let Some(variable) = env.get(&port.variable)
    {
        let message = format!("{} is the variable in which {name} learns its port", port.variable);
        let hint = "remove it here, or choose another with port = { number = …, env = \"NAME\" }";
        cx.push(Diagnostic::error(code::CONFLICT, message).at(variable.at.clone()).hint(hint));
    }
    if let Some(ServiceRuns::Process { port: None, .. }) = &runs
        && let Some(variable) = env.get("PORT")
    {
        let message = format!("PORT is set by hand, and {name} has no port");
        let hint = "port = 3000 gives every instance its own, so that two releases can run side by side";
        cx.push(Diagnostic::warning(code::PORT_VARIABLE, message).at(variable.at.clone()).hint(hint));
    }
    let mut after_at = if backing { BTreeMap::new() } else { after(reader, shared.roster) };
    for variable in env.values() {
        if let VariableValue::Ref(Reference::BackingUrl { service }) = &variable.value {
            after_at.entry(service.clone()).or_insert_with(|| variable.at.clone());
        }
    }
    let ready = probe::readiness(reader, listens);
    let live = if kind == Some("command") { probe::liveness(reader, listens) } else { None };
    let stop = stop(reader, shared.drain);
    let restart = restart(reader);
    let limits = limits(reader);
    let user = reader.get("user");
    let log = log(reader);
    let backup = if backing { backup(reader) } else { None };
    let autoscale = if kind == Some("command") { autoscale::read(reader, listens) } else { None };
    let edge = if backing { Edge::default() } else { edge_of(reader, shared.edge, listens) };
    let replicas = if backing { 1 } else { replicas(reader, autoscale.as_ref()) };
    let metrics = if kind == Some("command") { metrics(reader, listens) } else { None };
    Some(Service {
        name: ServiceName::new(name).ok()?,
        at: cx.source.span(reader.at),
        runs_at: cx.source.span(kind.map_or(reader.at, |key| reader.value_at(key))),
        runs: runs?,
        replicas,
        autoscale,
        edge,
        metrics,
        after: after_at.keys().cloned().collect(),
        route_at: route.is_some().then(|| cx.source.span(reader.value_at("route"))),
        route,
        env,
        ready,
        live,
        stop,
        restart,
        limits,
        user,
        log,
        backup,
        after_at,
    })
}

/// `listens`: requests of others can reach it at all.
fn edge_of(reader: &Reader<'_>, base: &Edge, listens: bool) -> Edge {
    if !listens {
        for key in ["edge", "protocol"] {
            if reader.has(key) {
                reader.refuse(key, "for a service that listens on nothing");
            }
        }
        return Edge::default();
    }
    let protocol: String = reader.fixed("protocol");
    let protocol = if protocol == "h2c" { Protocol::H2c } else { Protocol::Http1 };
    Edge { protocol, ..edge::read(reader, base) }
}

fn process(reader: &Reader<'_>, port: Option<Port>) -> Option<ServiceRuns> {
    let (capture, workdir) = (capture(reader), directory(reader, "workdir"));
    let node = reader.node("command")?;
    reader.cx.record(reader.path_of("command"), node);
    let command = match &node.value {
        Value::Text(text) => command::split(text).ok()?.into_iter().map(Argument::Literal).collect(),
        Value::Array(words) => words
            .iter()
            .map(|word| match &word.value {
                Value::Text(text) => Some(Argument::Literal(text.clone())),
                Value::Table(_) => {
                    if !reader.has("port") {
                        let message = "the command refers to a port, and the service has none";
                        reader.cx.push_at(
                            Diagnostic::error(code::UNKNOWN_REFERENCE, message).hint("add port = 3000"),
                            word.at,
                        );
                    }
                    Some(Argument::Port)
                }
                Value::Integer(_)
                | Value::Float { .. }
                | Value::Bool(_)
                | Value::Datetime(_)
                | Value::Array(_) => None,
            })
            .collect::<Option<Vec<_>>>()?,
        Value::Integer(_) | Value::Float { .. } | Value::Bool(_) | Value::Datetime(_) | Value::Table(_) => {
            return None;
        }
    };
    Some(ServiceRuns::Process {
        command,
        capture: capture?,
        workdir: if workdir == "." { String::new() } else { workdir },
        port,
    })
}

/// A directory key with its default, normalised; a bad one has been told by the first pass.
fn directory(reader: &Reader<'_>, key: &str) -> String {
    reader.get::<String>(key).and_then(|text| path::relative(&text).ok()).unwrap_or_else(|| ".".to_owned())
}

/// The build, and the path of its artifact below the service's directory when it names one.
fn build(reader: &Reader<'_>, dir: &str) -> (Option<Build>, Option<(String, Span)>) {
    let at = |reader: &Reader<'_>, key| reader.cx.source.span(reader.value_at(key));
    let build = |command: Option<Words>, at: Span| {
        command.map(|Words(command)| Build { command, dir: dir.to_owned(), at })
    };
    if let Some(table) = reader.optional_table("build", &keys::BUILD) {
        let artifact: Option<String> = table.get("artifact");
        let artifact = artifact.and_then(|text| path::relative(&text).ok());
        let artifact = artifact.map(|artifact| (artifact, at(&table, "artifact")));
        (build(table.get("run"), at(&table, "run")), artifact)
    } else {
        (build(reader.get("build"), at(reader, "build")), None)
    }
}

fn capture(reader: &Reader<'_>) -> Option<Capture> {
    let dir = directory(reader, "dir");
    let (build, artifact) = build(reader, &dir);
    let (path, at) = match artifact {
        Some((artifact, at)) => (path::join(&dir, &artifact), at),
        None => (dir, reader.cx.source.span(reader.value_at("dir"))),
    };
    Some(Capture { key: ArtifactKey::new(&path), build, at })
}

fn static_files(reader: &Reader<'_>) -> Option<ServiceRuns> {
    let cx = reader.cx;
    let base = directory(reader, "dir");
    let (build, artifact) = build(reader, &base);
    let (files, files_at, spa, serving) = match reader.optional_table("static", &keys::STATIC) {
        Some(table) => (table.get("dir"), table.value_at("dir"), table.fixed("spa"), serving(&table)),
        None => (reader.get("static"), reader.value_at("static"), false, StaticServing::default()),
    };
    let files: String = files?;
    let files = path::join(&base, &path::relative(&files).ok()?);
    let (key, dir, at) = match artifact {
        None => (files, String::new(), cx.source.span(files_at)),
        Some((artifact, artifact_at)) => {
            let artifact = path::join(&base, &artifact);
            let Some(dir) = path::below(&files, &artifact) else {
                cx.push(
                    Diagnostic::error(code::CONFLICT, format!("{files:?} is not inside the artifact {artifact:?}"))
                        .at(cx.source.span(files_at))
                        .related(artifact_at, "what is captured")
                        .hint("both are relative to the service's dir; leave artifact out to capture the files alone"),
                );
                return None;
            };
            (artifact.clone(), dir.to_owned(), artifact_at)
        }
    };
    let capture = Capture { key: ArtifactKey::new(&key), build, at };
    Some(ServiceRuns::Static { capture, dir, spa, serving })
}

fn serving(files: &Reader<'_>) -> StaticServing {
    let cache = files.table("cache", &keys::STATIC_CACHE);
    StaticServing {
        hashed: cache.fixed("hashed"),
        pages: cache.fixed("pages"),
        other: cache.fixed("other"),
        old_assets: files.fixed("old_assets"),
    }
}

fn backing(reader: &Reader<'_>) -> Option<ServiceRuns> {
    let name: String = reader.get("uses")?;
    let (engine, default) = match name.as_str() {
        "postgres" => (BackingEngine::Postgres, 5432),
        "redis" => (BackingEngine::Redis, 6379),
        _ => return None,
    };
    if let Some(table) = reader.optional_table("port", &keys::PORT) {
        if table.has("env") && table.layer("env") >= reader.layer("uses") {
            table.refuse("env", "for a service that Fairway provides");
        }
        return Some(ServiceRuns::Backing { engine, port: table.get("number")? });
    }
    Some(ServiceRuns::Backing { engine, port: reader.get_or("port", || default, u16::to_string) })
}

fn port(reader: &Reader<'_>) -> Option<Port> {
    if let Some(table) = reader.optional_table("port", &keys::PORT) {
        let variable: String = table.fixed("env");
        return Some(Port { declared: table.get("number")?, variable });
    }
    Some(Port { declared: reader.get("port")?, variable: "PORT".to_owned() })
}

fn route(reader: &Reader<'_>, name: &str) -> Option<RouteSpec> {
    let sticky_cookie = match reader.node("sticky").map(|node| &node.value) {
        Some(Value::Text(_)) => reader.get("sticky"),
        Some(_) | None => {
            reader.fixed::<bool>("sticky").then(|| format!("fairway_{}", name.replace('-', "_")))
        }
    };
    if sticky_cookie.is_some() && !reader.has("route") {
        reader.refuse("sticky", "without a route");
    }
    let route = if let Some(table) = reader.optional_table("route", &keys::ROUTE) {
        RouteSpec {
            path: path::route(&table.get::<String>("path")?).ok()?,
            host: table.get::<String>("host").map(|host| host.to_ascii_lowercase()),
            strip_prefix: table.fixed("strip_prefix"),
            sticky_cookie,
        }
    } else {
        let path: String = reader.get("route")?;
        RouteSpec { path: path::route(&path).ok()?, host: None, strip_prefix: false, sticky_cookie }
    };
    Some(route)
}

fn after(reader: &Reader<'_>, roster: &Roster) -> BTreeMap<ServiceName, Span> {
    let Some(node) = reader.node("after") else { return BTreeMap::new() };
    reader.cx.record(reader.path_of("after"), node);
    let items = node.value.as_array().unwrap_or_default();
    let known = |item: &crate::tree::Node| {
        let name = roster.service(reader.cx, item.value.as_text()?, item.at)?;
        Some((name, reader.cx.source.span(item.at)))
    };
    items.iter().filter_map(known).collect()
}

fn replicas(reader: &Reader<'_>, autoscale: Option<&Autoscale>) -> u32 {
    let Some(autoscale) = autoscale else { return reader.get_or("replicas", || 1, u32::to_string) };
    let replicas = reader.get_or("replicas", || autoscale.min, u32::to_string);
    let (least, most) = (autoscale.min, autoscale.max.max(autoscale.min));
    let within = replicas.clamp(least, most);
    if within != replicas && autoscale::is_older(reader, "replicas") {
        let message = format!("{replicas} copies are outside of autoscale, {least} to {most}");
        let at = |key| reader.cx.source.span(reader.value_at(key));
        reader.cx.push(
            Diagnostic::error(code::CONFLICT, message)
                .at(at("replicas"))
                .related(reader.cx.source.span(reader.key_at("autoscale")), "the bounds")
                .hint("leave replicas out: autoscale begins with its least"),
        );
    }
    within
}

fn metrics(reader: &Reader<'_>, listens: bool) -> Option<String> {
    let path = reader.get("metrics")?;
    if !listens {
        let message = format!("{} is scraped on a port, and the service has none", reader.path_of("metrics"));
        let hint = "add port = 3000, or scrape another address with [metrics.scrape.NAME]";
        reader.cx.push_at(Diagnostic::error(code::CONFLICT, message).hint(hint), reader.key_at("metrics"));
    }
    Some(path)
}

fn stop(reader: &Reader<'_>, drain: Duration) -> Stop {
    let reader = reader.table("stop", &keys::STOP);
    let signal = match reader.fixed::<String>("signal").as_str() {
        "INT" => StopSignal::Int,
        "QUIT" => StopSignal::Quit,
        "HUP" => StopSignal::Hup,
        "USR1" => StopSignal::Usr1,
        "USR2" => StopSignal::Usr2,
        _ => StopSignal::Term,
    };
    Stop {
        signal,
        timeout: reader.fixed("timeout"),
        drain: reader.get_or("drain", || drain, crate::deploy::show_duration),
    }
}

fn restart(reader: &Reader<'_>) -> RestartPolicy {
    let reader = reader.table("restart", &keys::RESTART);
    let policy = RestartPolicy {
        backoff_min: reader.fixed("backoff_min"),
        backoff_max: reader.fixed("backoff_max"),
        burst: reader.fixed("burst"),
        burst_window: reader.fixed("window"),
    };
    if policy.backoff_min > policy.backoff_max {
        let message = format!("{} is longer than backoff_max", reader.path_of("backoff_min"));
        reader.cx.push_at(Diagnostic::error(code::CONFLICT, message), reader.value_at("backoff_min"));
    }
    policy
}

fn limits(reader: &Reader<'_>) -> Limits {
    let reader = reader.table("limits", &keys::LIMITS);
    Limits {
        log: None,
        // In range: the first pass accepts 0.001 to 4096 cores.
        cpu_millis: reader.get::<f64>("cpu").map(|cores| (cores * 1000.0).round() as u32),
        memory_bytes: reader.get("memory").map(|Bytes(bytes)| bytes),
        open_files: reader.get("open_files"),
        processes: reader.get("processes"),
    }
}

fn log(reader: &Reader<'_>) -> LogSettings {
    let reader = reader.table("log", &keys::LOG);
    let Bytes(max_size_bytes) = reader.fixed("max_size");
    LogSettings { max_size_bytes, files: reader.fixed("files") }
}

fn backup(reader: &Reader<'_>) -> Option<Backup> {
    let reader = reader.optional_table("backup", &keys::BACKUP)?;
    let message = "backups are not made by this version";
    let hint = "until then, schedule pg_dump or a copy of the data yourself";
    reader.cx.push_at(Diagnostic::warning(code::NOT_IN_EFFECT, message).hint(hint), reader.at);
    Some(Backup {
        every: reader.fixed("every"),
        keep: reader.fixed("keep"),
        to: reader.get("to"),
        drill: match reader.fixed::<String>("drill").as_str() {
            "daily" => Drill::Daily,
            "weekly" => Drill::Weekly,
            "monthly" => Drill::Monthly,
            _ => Drill::Never,
        },
    })
}
