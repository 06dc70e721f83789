//! What one environment adds to the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use fairway_engine::edge::{Edge, Hsts};
use fairway_engine::id::{EnvironmentKey, Generation, ReleaseNumber, ServiceName};
use fairway_engine::strategy::Match as EngineMatch;
use fairway_engine::{Environment, RouteTable, ServiceRoute};
use fairway_proxy::snapshot::{
    Instance, Listener, Maintenance, Match, Mirror, Policy, ProcessLimits, Purpose, Route, Service, Sticky,
    ToHttps, Version,
};

use super::edge;
use super::key::{instance_key, service_key};
use crate::certificates::Offer;
use crate::ports::Ports;
use crate::values::{called_services, internal_listener, preview_listener};

/// A proxy on a machine that is busy with other things comes to what is due some hundred milliseconds late.
const STREAM_MARGIN_MAX: Duration = Duration::from_secs(1);

/// The last bound of the latency histogram: a copy that takes longer is too slow whatever it would say in the end.
const MIRROR_TIMEOUT_MS: u64 = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) generation: Generation,
    pub(super) listeners: BTreeMap<String, Listener>,
    pub(super) services: BTreeMap<String, Service>,
    pub(super) routes: Vec<Route>,
    /// Of the whole proxy.
    pub(super) process: ProcessLimits,
    pub(super) access_log: bool,
}

pub(super) fn part(environment: &Environment, ports: &Ports, offer: &Offer) -> Part {
    let table = &environment.routes.table;
    let key = &environment.key;
    let asked = edge::facing(environment).map(|release| release.spec.entrance.process).unwrap_or_default();
    let mut part = Part {
        generation: environment.routes.generation,
        process: edge::process(&asked),
        access_log: asked.access_log,
        ..Part::default()
    };
    let public = Entries::of(environment, offer);
    for (name, service) in &table.services {
        let total: u32 = service.versions.values().map(|version| version.weight).sum();
        let asked = edge::edge_of(environment, name).cloned().unwrap_or_default();
        let mut shaped = service_of(key, service, &asked);
        let stream_drain_ms = &mut shaped.timeouts.stream_drain_ms;
        *stream_drain_ms = (*stream_drain_ms).min(stream_drain_ms_max(environment, name, service));
        part.services.insert(service_key(key, name), shaped);
        let maintenance = table.maintenance.as_ref().map(|message| maintenance_page(message));
        if let (Some(route), Some(public)) = (&service.route, &public)
            && total > 0
        {
            for entry in &public.0 {
                let host = route.host.clone().or_else(|| public.1.clone());
                part.listeners.insert(entry.listener.name.clone(), entry.listener.clone());
                part.routes.push(Route {
                    listener: entry.listener.name.clone(),
                    policy: entry.policy(&asked, host.as_deref(), offer),
                    host,
                    path: route.path.clone(),
                    strip_prefix: route.strip_prefix,
                    service: service_key(key, name),
                    pin: None,
                    maintenance: maintenance.clone(),
                });
            }
        }
        // The new version while there is one to be tried, otherwise whatever serves: `fairway smoke` works at any time.
        let pin = table.preview.filter(|release| service.versions.contains_key(release));
        if let Some(route) = &service.route
            && (pin.is_some() || total > 0)
        {
            let preview = |host: Option<String>| Route {
                listener: preview_listener(key),
                host,
                path: route.path.clone(),
                strip_prefix: route.strip_prefix,
                service: service_key(key, name),
                pin: pin.map(|release| release.to_string()),
                maintenance: None,
                policy: Policy::default(),
            };
            // Checks ask without a host name; where several services share a path, the first one answers them.
            let is_first = !part.routes.iter().any(|other| {
                other.listener == preview_listener(key) && other.host.is_none() && other.path == route.path
            });
            part.routes.extend(is_first.then(|| preview(None)));
            part.routes.extend(route.host.clone().map(|host| preview(Some(host))));
        }
    }
    part.preview(environment, ports);
    part.call_each_other(environment, table, ports);
    part
}

/// Where public requests come in, and for which host where a route names none.
struct Entries(Vec<Entrance>, Option<String>);

struct Entrance {
    listener: Listener,
    /// Who comes in here is sent there, once it can be asked.
    https: Option<ToHttps>,
    /// All that certificates of the environment are for.
    hosts: BTreeSet<String>,
    hsts: Option<Hsts>,
}

impl Entries {
    fn of(environment: &Environment, offer: &Offer) -> Option<Self> {
        let listen = environment.routes.table.listen.as_ref()?;
        let address = listen.address.parse::<SocketAddr>().ok()?;
        let release = edge::facing(environment);
        let settings = release.map(|release| release.spec.entrance.clone()).unwrap_or_default();
        let hosts = release.map(|release| edge::hosts(environment, release)).unwrap_or_default();
        let plain = edge::listener(address, &settings);
        let mut entries = vec![Entrance { listener: plain, https: None, hosts: hosts.clone(), hsts: None }];
        if let Some(tls) = &settings.tls
            && let Some(listener) = edge::tls_listener(tls, &hosts, &settings, offer)
        {
            let port = listener.addr.port();
            let encrypted = Entrance { listener, https: None, hosts, hsts: tls.hsts.clone() };
            if encrypted.listener.addr == address {
                entries.clear();
            } else {
                entries[0].https = tls.redirect.then_some(ToHttps { port });
            }
            entries.push(encrypted);
        }
        Some(Self(entries, listen.host.clone()))
    }
}

impl Entrance {
    fn policy(&self, asked: &Edge, host: Option<&str>, offer: &Offer) -> Policy {
        let https = self.https.filter(|_| edge::has_certificate(host, &self.hosts, offer));
        edge::policy(asked, https, self.hsts.as_ref())
    }
}

fn service_of(key: &EnvironmentKey, service: &ServiceRoute, asked: &Edge) -> Service {
    let versions = service.versions.iter();
    let cookie = service.route.as_ref().and_then(|route| route.sticky_cookie.clone());
    let mut made = Service {
        versions: versions
            .map(|(release, version)| (release.to_string(), version_of(key, version)))
            .collect(),
        sticky: cookie.map(|cookie| Sticky { cookie, max_age_s: None }),
        mirror: mirror_of(service),
        ..Service::default()
    };
    edge::shape(&mut made, asked);
    made
}

impl Part {
    /// All but one listener and what it leads to. It is nobody's generation: nothing of it is to be confirmed.
    pub(super) fn without(mut self, address: SocketAddr) -> Self {
        self.listeners.retain(|_, own| own.addr != address);
        self.routes.retain(|route| self.listeners.contains_key(&route.listener));
        Self { generation: Generation::default(), ..self }
    }

    /// Its table may be the last good one for long, and its certificates are renewed meanwhile; the files of the old ones
    /// are gone soon after.
    pub(super) fn with_certificates_of(mut self, newer: &Self) -> Self {
        for (name, own) in &mut self.listeners {
            let newer = newer.listeners.get(name).and_then(|listener| listener.tls.as_ref());
            if let (Some(own), Some(newer)) = (&mut own.tls, newer) {
                own.clone_from(newer);
            }
        }
        self
    }

    /// The preview listener stays open as long as anything is served: an address that is closed and opened again and
    /// again can be taken by somebody else in between.
    fn preview(&mut self, environment: &Environment, ports: &Ports) {
        let name = preview_listener(&environment.key);
        match ports.address(&name) {
            Ok(address) if !environment.routes.table.services.is_empty() => {
                let listener = Listener::new(name.clone(), address, Purpose::Preview);
                self.listeners.insert(name, listener);
            }
            Ok(_) | Err(_) => self.routes.retain(|route| route.listener != name),
        }
    }

    /// A listener for each service that others call, one for each release that still has copies: it leads to that
    /// release's own version as long as there is one in the table, and to whatever serves afterwards.
    fn call_each_other(&mut self, environment: &Environment, table: &RouteTable, ports: &Ports) {
        let key = &environment.key;
        let callers: BTreeSet<ReleaseNumber> = environment
            .active_releases()
            .into_iter()
            .chain(environment.instances.keys().map(|id| id.release))
            .collect();
        for release in callers {
            for service in environment.release(release).map(called_services).unwrap_or_default() {
                let Some(route) = table.services.get(&service) else { continue };
                let own = route.versions.get(&release).is_some_and(|version| !version.instances.is_empty());
                let served = route.versions.values().any(|version| version.weight > 0);
                let listener = internal_listener(key, &service, release);
                let Ok(address) = ports.address(&listener) else { continue };
                if !own && !served {
                    continue;
                }
                let opened = Listener::new(listener.clone(), address, Purpose::Internal);
                self.listeners.insert(listener.clone(), opened);
                self.routes.push(Route {
                    listener,
                    host: None,
                    path: "/".to_owned(),
                    strip_prefix: false,
                    service: service_key(key, &service),
                    pin: own.then(|| release.to_string()),
                    maintenance: None,
                    policy: Policy::default(),
                });
            }
        }
    }
}

fn mirror_of(service: &ServiceRoute) -> Option<Mirror> {
    let (release, version) = service.versions.iter().find(|(_, version)| version.mirror > 0)?;
    // What else a request does than to ask would be done twice.
    Some(Mirror {
        version: release.to_string(),
        percent: version.mirror,
        unsafe_methods: false,
        timeout_ms: MIRROR_TIMEOUT_MS,
    })
}

fn version_of(key: &EnvironmentKey, version: &fairway_engine::VersionRoute) -> Version {
    let matches = version
        .matches
        .iter()
        .map(|one| match one {
            EngineMatch::Header { name, value } => Match::Header { name: name.clone(), value: value.clone() },
            EngineMatch::Cookie { name, value } => Match::Cookie { name: name.clone(), value: value.clone() },
        })
        .collect();
    let instances = version
        .instances
        .iter()
        .filter_map(|(id, address)| Some(Instance { id: instance_key(key, id), addr: address.parse().ok()? }))
        .collect();
    Version { weight: version.weight, matches, instances }
}

fn maintenance_page(message: &str) -> Maintenance {
    let escaped = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Maintenance {
        status: 503,
        body: format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>Maintenance</title><body style=\"font-family:system-ui;\
             max-width:36rem;margin:15vh auto;padding:0 1rem\"><h1>Maintenance</h1><p>{escaped}</p></body></html>\n"
        ),
        content_type: "text/html; charset=utf-8".to_owned(),
        retry_after_s: Some(60),
    }
}

/// How long a WebSocket or an event stream may hold on to an instance that is leaving: a little less than the instance
/// itself has, so that streams end in order, by the proxy, and not by the signal that ends their instance.
fn stream_drain_ms_max(environment: &Environment, name: &ServiceName, route: &ServiceRoute) -> u64 {
    let of_release = |release: &ReleaseNumber| Some(environment.service(*release, name)?.stop.drain);
    let Some(drain) = route.versions.keys().filter_map(of_release).min() else { return u64::MAX };
    // A tenth of a short drain was too little: 0.3 s passed before the proxy got a processor, and three streams were cut.
    let margin = (drain / 2).min(STREAM_MARGIN_MAX);
    u64::try_from((drain - margin).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests;
