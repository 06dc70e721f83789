//! One environment: everything of the file as it holds there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use fairway_engine::edge::Entrance;
use fairway_engine::id::{EnvironmentName, ServiceName};
use fairway_engine::release::Listen;
use fairway_engine::service::Reference;

use crate::code;
use crate::cycle;
use crate::deploy::{self, Deploy};
use crate::diagnostic::{Diagnostic, Findings};
use crate::edge;
use crate::entrance;
use crate::evidence::{self, Evidence};
use crate::job::{self, Job, Jobs, Surroundings};
use crate::keys;
use crate::monitoring::{self, Monitoring};
use crate::overlay::Merged;
use crate::reader::{Context, Reader, Setting};
use crate::service::{self, Service, ServiceRuns, Shared};
use crate::span::{ByteRange, Source};
use crate::variable::{self, Roster, Variable, VariableValue};

#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    pub name: EnvironmentName,
    pub services: BTreeMap<ServiceName, Service>,
    pub jobs: Jobs,
    pub deploy: Deploy,
    pub evidence: Evidence,
    pub monitoring: Monitoring,
    pub listen: Listen,
    pub entrance: Entrance,
    pub(crate) external_account: Option<entrance::ExternalAccount>,
    /// Where the environment is reached from outside, without a slash at the end.
    pub url: String,
    pub protect: Protect,
    pub(crate) settings: Vec<Setting>,
}

/// What a person must do before the environment changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protect {
    /// Ask for the environment's name.
    pub confirm: bool,
    /// People other than the requester who must approve a deploy.
    pub approvers: u32,
}

impl Environment {
    /// Every command that runs once: those of the release, and those of its gates.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().chain(self.evidence.jobs())
    }
}

pub(crate) fn read(
    name: &EnvironmentName,
    merged: &Merged,
    source: &Source,
    findings: &RefCell<Findings>,
) -> Environment {
    read_in(&Context::new(source, name, &merged.layers, findings), merged)
}

pub(crate) fn read_in(cx: &Context<'_>, merged: &Merged) -> Environment {
    let root = Reader::new(cx, &keys::ROOT, Some(&merged.table), ByteRange::default(), String::new());
    let roster = Roster::of(&root);
    if roster.0.is_empty() && !root.has_unknown() {
        cx.push(
            Diagnostic::error(code::NO_SERVICES, "the project has no service")
                .hint("add [service.NAME] with a command, or let `fairway init` look at the project"),
        );
    }
    let vars = variable::read(&root, "vars", &BTreeMap::new(), &roster);
    let routed = root
        .entries("service")
        .any(|(_, entry)| entry.node.value.as_table().is_some_and(|table| table.get("route").is_some()));
    let deploy = deploy::read(&root, routed);
    let edge = edge::read(&root, &edge::defaults());
    let shared = Shared { vars: &vars, roster: &roster, drain: deploy.drain, edge: &edge };
    let mut services = BTreeMap::new();
    for (name, entry) in root.entries("service") {
        let Some(table) = entry.node.value.as_table() else { continue };
        let path = format!("service.{name}");
        let reader = Reader::new(cx, &keys::SERVICE, Some(table), entry.key_at, path);
        if let Some(service) = service::read(name, &reader, &shared) {
            services.insert(service.name.clone(), service);
        }
    }
    routes(cx, &services);
    unreachable(cx, &services, &vars);
    cycle::check(cx, &services);
    let around = Surroundings { services: &services, vars: &vars, roster: &roster };
    let jobs = job::read(&root, &around);
    let evidence = evidence::read(&root, deploy.strategy, &around);
    let protect = protect(&root);
    let host: Option<String> = root.get("host");
    let listen = Listen {
        address: root.get_or("listen", || default_listen(cx).to_owned(), |text| format!("{text:?}")),
        host: host.map(|host| host.to_ascii_lowercase()),
    };
    let (entrance, external_account) = entrance::read(&root, &listen, &services);
    let url = root.get_or("url", || public_url(&listen, &entrance), |text| format!("{text:?}"));
    let url = url.trim_end_matches('/').to_owned();
    let monitoring = monitoring::read(&root, &roster, &url);
    Environment {
        name: cx.environment.clone(),
        services,
        jobs,
        deploy,
        evidence,
        monitoring,
        listen,
        entrance,
        external_account,
        url,
        protect,
        settings: cx.settings.take(),
    }
}

/// By its name: that of a developer, where nobody waits and nothing is public.
pub(crate) fn is_dev(name: &str) -> bool {
    matches!(name, "dev" | "development")
}

fn default_listen(cx: &Context<'_>) -> &'static str {
    if cx.is_dev() { "127.0.0.1:8080" } else { "0.0.0.0:80" }
}

/// With the host when there is one, otherwise with an address that a client on this machine can use.
fn public_url(listen: &Listen, entrance: &Entrance) -> String {
    let (scheme, address, usual) = match &entrance.tls {
        Some(tls) => ("https", &tls.address, 443),
        None => ("http", &listen.address, 80),
    };
    let (ip, port) = match address.parse::<SocketAddr>() {
        Ok(address) => (Some(address.ip()), address.port()),
        Err(_) => (None, usual),
    };
    let host = match (&listen.host, ip) {
        (Some(host), _) => host.clone(),
        (None, Some(ip)) if ip.is_unspecified() => "localhost".to_owned(),
        (None, Some(std::net::IpAddr::V6(ip))) => format!("[{ip}]"),
        (None, Some(std::net::IpAddr::V4(ip))) => ip.to_string(),
        (None, None) => "localhost".to_owned(),
    };
    match port {
        port if port == usual => format!("{scheme}://{host}"),
        443 => format!("https://{host}"),
        port => format!("{scheme}://{host}:{port}"),
    }
}

fn protect(root: &Reader<'_>) -> Protect {
    let reader = root.table("protect", &keys::PROTECT);
    Protect {
        confirm: reader.get_or("confirm", || root.cx.is_production(), bool::to_string),
        approvers: reader.fixed("approvers"),
    }
}

/// Static files that have no route and that no variable leads to.
fn unreachable(
    cx: &Context<'_>,
    services: &BTreeMap<ServiceName, Service>,
    vars: &BTreeMap<String, Variable>,
) {
    let leads_to = |variable: &Variable, name: &ServiceName| matches!(&variable.value, VariableValue::Ref(Reference::ServiceUrl { service }) if service == name);
    for service in services.values() {
        let is_static = matches!(service.runs, ServiceRuns::Static { .. });
        let mut variables = vars.values().chain(services.values().flat_map(|service| service.env.values()));
        if is_static
            && service.route.is_none()
            && !variables.any(|variable| leads_to(variable, &service.name))
        {
            let message = format!("no request can reach the files of {}", service.name);
            cx.push(
                Diagnostic::warning(code::UNREACHABLE, message)
                    .at(service.at.clone())
                    .hint("add route = \"/\""),
            );
        }
    }
}

fn routes(cx: &Context<'_>, services: &BTreeMap<ServiceName, Service>) {
    let mut taken: BTreeMap<(Option<&str>, &str), &Service> = BTreeMap::new();
    for service in services.values() {
        let Some(route) = &service.route else { continue };
        let other = taken.insert((route.host.as_deref(), &route.path), service);
        let (Some(other), Some(at)) = (other, &service.route_at) else { continue };
        let host = route.host.as_deref().unwrap_or_default();
        let message = format!("{} and {} both have the route {host}{}", other.name, service.name, route.path);
        let mut diagnostic = Diagnostic::error(code::ROUTE_TAKEN, message)
            .at(at.clone())
            .hint("give one of them another path, or another host: route = { path = …, host = … }");
        if let Some(other_at) = &other.route_at {
            diagnostic = diagnostic.related(other_at.clone(), format!("the route of {}", other.name));
        }
        cx.push(diagnostic);
    }
}
