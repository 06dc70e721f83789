//! Route tables of all environments become one snapshot for the proxy, and its answers become outcomes.

mod edge;
mod offers;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_engine::edge::{Edge, Hsts};
use fairway_engine::id::{EnvironmentKey, Generation, InstanceId, ReleaseNumber, ServiceName};
use fairway_engine::strategy::Match as EngineMatch;
use fairway_engine::{Environment, Input, InstanceState, Outcome, RouteTable, ServiceRoute};
use fairway_proxy::control::{ApplyError, Client, Event, Events, RejectReason};
use fairway_proxy::snapshot::{
    Instance, Invalid, Listener, Maintenance, Match, Mirror, Policy, Purpose, Route, Service, Snapshot,
    Sticky, ToHttps, Version,
};
use tokio::sync::Notify;

use crate::certificates::{Certificates, Offer};
use crate::ports::Ports;
use crate::proxy_process;
use crate::pump::Pump;
use offers::Offers;

use crate::values::{called_services, internal_listener, preview_listener};

/// While instances drain, the proxy is asked again: a `drained` that was said while nobody listened is not repeated.
const ASK_DRAINED_EVERY: Duration = Duration::from_millis(250);

/// One answer of the proxy. To a snapshot it writes one file and swaps pointers; ten seconds is a hung machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A snapshot is in force within milliseconds, on a machine that is busy within some hundred.
const STREAM_MARGIN_MAX: Duration = Duration::from_secs(1);

/// A snapshot that was refused through no table's fault, as on a full disk, is offered again after this.
const OFFER_AGAIN: Duration = Duration::from_secs(1);

/// The last bound of the latency histogram: a copy that takes longer is too slow whatever it would say in the end.
const MIRROR_TIMEOUT_MS: u64 = 10_000;

/// What is known of the proxy, for status.
#[derive(Clone, Debug)]
pub enum ProxyState {
    /// It took a snapshot over from this server; `behind` says why it does not have a newer one.
    Serving {
        client: Client,
        generation: u64,
        behind: Option<String>,
    },
    /// It answers, and what it serves is not known.
    Connected {
        client: Client,
        why: String,
    },
    Unreachable {
        why: String,
    },
}

impl ProxyState {
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        match self {
            ProxyState::Serving { client, .. } | ProxyState::Connected { client, .. } => Some(client),
            ProxyState::Unreachable { .. } => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Routes {
    wake: Arc<Notify>,
    state: Arc<Mutex<ProxyState>>,
    proxies: proxy_process::Proxies,
    certificates: Certificates,
}

impl Routes {
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// There is another table to be applied.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    #[must_use]
    pub fn proxies(&self) -> &proxy_process::Proxies {
        &self.proxies
    }

    #[must_use]
    pub fn proxy(&self) -> ProxyState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts the driver. It keeps a proxy running, its snapshot current and certificates good until the task is dropped.
///
/// # Errors
/// When there is no place for certificates in the state directory.
pub fn start(
    pump: Pump,
    ports: Arc<Ports>,
    state_dir: &Path,
) -> Result<(Routes, tokio::task::JoinHandle<()>), String> {
    let proxy_dir = state_dir.join("proxy");
    let wake = Arc::new(Notify::new());
    let offers = Offers::new(Arc::clone(&wake));
    let certificates = Certificates::open(state_dir, offers::options()?, Arc::new(offers.clone()))
        .map_err(|cause| cause.to_string())?;
    let why = "it has not answered yet".to_owned();
    let routes = Routes {
        wake,
        state: Arc::new(Mutex::new(ProxyState::Unreachable { why })),
        proxies: proxy_process::Proxies::new(proxy_dir.clone()),
        certificates: certificates.clone(),
    };
    let (routing, good) = (routes.clone(), BTreeMap::new());
    let driver = Driver { pump, ports, proxy_dir, routes: routing, offers, good, sent: None };
    let task = async move {
        tokio::select! {
            () = driver.run() => {}
            () = certificates.run() => {}
        }
    };
    Ok((routes, tokio::spawn(task)))
}

struct Driver {
    pump: Pump,
    ports: Arc<Ports>,
    proxy_dir: PathBuf,
    routes: Routes,
    offers: Offers,
    /// What each environment last had accepted: it stays in force where a newer table is refused.
    good: Parts,
    /// The snapshot that this proxy process has.
    sent: Option<Snapshot>,
}

/// A listener of a release that was dropped, with nothing of it left, is needed by nobody.
fn is_needed(listener: &str, environments: &[Environment]) -> bool {
    let Some((service, release)) = listener.split_once('@') else { return true };
    let Ok(release) = release.parse::<ReleaseNumber>() else { return true };
    environments
        .iter()
        .filter(|environment| service.starts_with(&format!("{}/", environment.key)))
        .any(|environment| environment.releases.contains_key(&release))
}

type Parts = BTreeMap<EnvironmentKey, Part>;

/// Where an offer has led.
enum Offered {
    InForce,
    /// Not taken, and no table is to blame.
    Again {
        why: String,
    },
}

/// What one environment adds to the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    generation: Generation,
    listeners: BTreeMap<String, Listener>,
    services: BTreeMap<String, Service>,
    routes: Vec<Route>,
}

impl Driver {
    async fn run(mut self) {
        let mut keeper = proxy_process::Keeper::new(self.routes.proxies.clone());
        loop {
            match keeper.connect().await {
                Ok(client) => {
                    let why = "it has not taken the route tables of this server yet".to_owned();
                    self.say(ProxyState::Connected { client: client.clone(), why });
                    self.sent = None;
                    self.learn(client.hello().generation).await;
                    self.serve(&client).await;
                    self.say(ProxyState::Unreachable { why: "it went away".to_owned() });
                }
                Err(why) => self.say(ProxyState::Unreachable { why }),
            }
            keeper.pause().await;
        }
    }

    fn say(&self, state: ProxyState) {
        *self.routes.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// What the proxy serves since before this server: without it, an environment whose newest table is refused would
    /// be taken from the proxy altogether.
    async fn learn(&mut self, serving: u64) {
        let dir = self.proxy_dir.clone();
        let saved = tokio::task::spawn_blocking(move || proxy_process::saved_snapshot(&dir)).await;
        if let Ok(Some(saved)) = saved
            && saved.generation == serving
        {
            for (environment, part) in parts_of(&saved) {
                self.good.entry(environment).or_insert(part);
            }
        }
    }

    /// Serves one connection to the proxy until it breaks.
    async fn serve(&mut self, client: &Client) {
        let mut events = client.events();
        let mut generation = client.hello().generation;
        let mut ask = tokio::time::interval(ASK_DRAINED_EVERY);
        ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut offer_at = Some(tokio::time::Instant::now());
        loop {
            let draining = self.draining();
            tokio::select! {
                () = self.routes.wake.notified() => offer_at = Some(tokio::time::Instant::now()),
                () = until(offer_at) => match self.offer(client, &mut generation).await {
                    Err(()) => return,
                    Ok(Offered::InForce) => {
                        offer_at = None;
                        let client = client.clone();
                        self.say(ProxyState::Serving { client, generation, behind: None });
                    }
                    Ok(Offered::Again { why }) => {
                        offer_at = Some(tokio::time::Instant::now() + OFFER_AGAIN);
                        let client = client.clone();
                        self.say(match &self.sent {
                            Some(sent) => {
                                ProxyState::Serving { client, generation: sent.generation, behind: Some(why) }
                            }
                            None => ProxyState::Connected { client, why },
                        });
                    }
                },
                event = Events::next(&mut events) => match event {
                    None => return,
                    Some(Event::Drained { instance }) => self.drained(&instance).await,
                    // The engine decides by readiness, which the shim reports; this is for the proxy's own balancing.
                    // And what a rollout is judged by is asked for (`watching/observer.rs`), not waited for.
                    Some(Event::Health { .. } | Event::Failing { .. } | Event::Missed { .. }) => {}
                },
                _ = ask.tick(), if !draining.is_empty() => {
                    for instance in draining {
                        match tokio::time::timeout(ANSWER_TIMEOUT, client.in_flight(&instance)).await {
                            Ok(Ok(0)) => self.drained(&instance).await,
                            Ok(Ok(_)) => {}
                            Ok(Err(_)) | Err(_) => return,
                        }
                    }
                }
            }
        }
    }

    /// Composes and applies until the proxy has taken all that it will take.
    async fn offer(&mut self, client: &Client, generation: &mut u64) -> Result<Offered, ()> {
        // Read before the parts: what is offered meanwhile is in some of them, and is not confirmed by this.
        let (offered, offer) = self.offers.latest();
        let mut parts = self.parts().await;
        let mut why = String::new();
        // Each round ends it or gives up on one environment's new table; one more for a newer snapshot of others.
        for _ in 0..=parts.len() + 1 {
            let snapshot = compose(*generation + 1, &parts, &offer.http_challenges);
            let is_same = self
                .sent
                .as_ref()
                .is_some_and(|sent| Snapshot { generation: sent.generation, ..snapshot.clone() } == *sent);
            if is_same {
                self.applied(&parts).await;
                self.offers.confirm(offered);
                return Ok(Offered::InForce);
            }
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.apply(&snapshot)).await;
            match answer {
                Ok(Ok(applied)) => {
                    *generation = applied.generation;
                    self.sent = Some(snapshot);
                    self.applied(&parts).await;
                    self.offers.confirm(offered);
                    return Ok(Offered::InForce);
                }
                Ok(Err(ApplyError::Rejected(rejected))) => {
                    *generation = (*generation).max(rejected.current);
                    why = rejected.reason.to_string();
                    match &rejected.reason {
                        // Somebody else's newer snapshot is there: ours comes after it.
                        RejectReason::OlderGeneration | RejectReason::SameGenerationDifferent => {}
                        RejectReason::Invalid { .. } | RejectReason::Bind { .. } => {
                            if !self.give_way(&mut parts, &rejected.reason).await {
                                break;
                            }
                        }
                        // A disk without room says nothing against a release, and to undo one takes as much room.
                        RejectReason::Persist { .. } => break,
                        // Nobody's table is at fault: the next process takes it.
                        RejectReason::Draining | RejectReason::HandingOver => return Err(()),
                    }
                }
                Ok(Err(ApplyError::Client(_))) | Err(_) => return Err(()),
            }
        }
        Ok(Offered::Again { why })
    }

    async fn applied(&mut self, parts: &Parts) {
        for (environment, part) in parts {
            self.good.insert(environment.clone(), part.clone());
            let outcome = Outcome::RoutesApplied { generation: part.generation };
            self.pump.outcome(Input::Outcome { environment: environment.clone(), outcome }).await;
        }
    }

    /// One environment's table must not hold the others back: its last good one takes its place. False when there is
    /// nothing to be done about the refusal.
    async fn give_way(&mut self, parts: &mut Parts, reason: &RejectReason) -> bool {
        let Some(environment) = culprit(parts, &self.good, reason) else { return false };
        let Some(refused) = parts.remove(&environment) else { return false };
        if let RejectReason::Bind { listener, .. } = reason {
            // One of ours, not one that the project asked for: the next attempt gets another port.
            self.ports.forget(listener);
        }
        let generation = refused.generation;
        match (self.good.get(&environment), reason) {
            (Some(good), RejectReason::Bind { addr, .. }) if *good == refused => {
                // What was good once cannot all be had any more: the rest of it goes on.
                drop(parts.insert(environment.clone(), refused.without(*addr)));
            }
            (Some(good), RejectReason::Invalid { problems }) if only_listeners(problems).is_some() => {
                if *good != refused {
                    drop(parts.insert(environment.clone(), good.clone()));
                }
            }
            (Some(good), _) if *good != refused => {
                drop(parts.insert(environment.clone(), good.clone().with_certificates_of(&refused)));
            }
            (Some(_) | None, _) => {}
        }
        let outcome = Outcome::RoutesRefused { generation, why: reason.to_string() };
        self.pump.outcome(Input::Outcome { environment, outcome }).await;
        true
    }

    /// Away from the threads that serve: to give a port is to write a file.
    async fn parts(&self) -> Parts {
        let environments: Vec<Environment> =
            self.pump.shared.read(|state| state.environments.values().cloned().collect());
        let ports = Arc::clone(&self.ports);
        let certificates = self.routes.certificates.clone();
        let made = tokio::task::spawn_blocking(move || {
            ports.retain(|listener| is_needed(listener, &environments));
            certificates.want(environments.iter().flat_map(edge::wanted).collect());
            let offer = certificates.offer();
            environments
                .iter()
                .filter(|environment| environment.routes.generation.0 > 0)
                .map(|environment| (environment.key.clone(), part(environment, &ports, &offer)))
                .collect()
        });
        match made.await {
            Ok(parts) => parts,
            // Only a defect panics there; this task then ends as well, and with it the server.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn draining(&self) -> Vec<String> {
        self.pump.shared.read(|state| {
            state
                .environments
                .iter()
                .flat_map(|(key, environment)| {
                    environment.instances.values().map(move |instance| (key, instance))
                })
                .filter(|(_, instance)| matches!(instance.state, InstanceState::Draining { .. }))
                .map(|(key, instance)| instance_key(key, &instance.id))
                .collect()
        })
    }

    async fn drained(&self, instance: &str) {
        let Some((environment, instance)) = parse_instance_key(instance) else { return };
        let outcome = Outcome::InstanceDrained { instance };
        self.pump.outcome(Input::Outcome { environment, outcome }).await;
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whose table is to give way. Only one that is new can be at fault; where none is, an address that was ours before
/// has been taken.
fn culprit(parts: &Parts, good: &Parts, reason: &RejectReason) -> Option<EnvironmentKey> {
    let changed: Vec<(&EnvironmentKey, &Part)> =
        parts.iter().filter(|(environment, part)| good.get(*environment) != Some(*part)).collect();
    let has =
        |part: &Part, wanted: &SocketAddr| part.listeners.values().any(|listener| listener.addr == *wanted);
    let found = match reason {
        RejectReason::Bind { addr, .. } => changed
            .iter()
            .copied()
            .find(|(_, part)| has(part, addr))
            .or_else(|| parts.iter().find(|(_, part)| has(part, addr))),
        // A certificate that cannot be read, which no other check finds: only a table with that listener is at fault.
        RejectReason::Invalid { problems } if only_listeners(problems).is_some() => {
            let names = only_listeners(problems).unwrap_or_default();
            changed
                .iter()
                .copied()
                .find(|(_, part)| names.iter().any(|name| part.listeners.contains_key(*name)))
        }
        RejectReason::Invalid { .. } => {
            let is_valid_without = |environment: &EnvironmentKey| {
                let mut others = parts.clone();
                others.remove(environment);
                others.extend(good.get(environment).map(|good| (environment.clone(), good.clone())));
                compose(1, &others, &BTreeMap::new()).validate().is_ok()
            };
            let is_invalid_alone = |environment: &EnvironmentKey, part: &Part| {
                compose(1, &Parts::from([(environment.clone(), part.clone())]), &BTreeMap::new())
                    .validate()
                    .is_err()
            };
            changed
                .iter()
                .find(|(environment, part)| is_invalid_alone(environment, part))
                .or_else(|| changed.iter().find(|(environment, _)| is_valid_without(environment)))
                .or(changed.first())
                .copied()
        }
        RejectReason::Persist { .. }
        | RejectReason::Draining
        | RejectReason::HandingOver
        | RejectReason::OlderGeneration
        | RejectReason::SameGenerationDifferent => None,
    };
    found.map(|(environment, _)| environment.clone())
}

/// The listeners that are refused, where nothing else is.
fn only_listeners(problems: &[Invalid]) -> Option<Vec<&str>> {
    let names = problems.iter().map(|problem| {
        let Invalid::Listener { name, .. } = problem else { return None };
        Some(name.as_str())
    });
    names.collect()
}

/// What each environment has in a snapshot, without the generations, which are not in it.
fn parts_of(snapshot: &Snapshot) -> Parts {
    let mut parts = Parts::new();
    for (key, service) in &snapshot.services {
        if let Some(environment) = environment_of(key) {
            parts.entry(environment).or_default().services.insert(key.clone(), service.clone());
        }
    }
    for route in &snapshot.routes {
        if let Some(part) = environment_of(&route.service).and_then(|key| parts.get_mut(&key)) {
            let own = snapshot.listeners.iter().filter(|listener| listener.name == route.listener);
            part.listeners.extend(own.map(|listener| (listener.name.clone(), listener.clone())));
            part.routes.push(route.clone());
        }
    }
    parts
}

/// Of `shop/production/api`.
fn environment_of(service_key: &str) -> Option<EnvironmentKey> {
    let (environment, _) = service_key.rsplit_once('/')?;
    let (project, environment) = environment.split_once('/')?;
    Some(EnvironmentKey { project: project.parse().ok()?, environment: environment.parse().ok()? })
}

/// `shop/production/api.r12.3`: unique over all environments.
#[must_use]
pub fn instance_key(environment: &EnvironmentKey, instance: &InstanceId) -> String {
    format!("{environment}/{instance}")
}

fn parse_instance_key(key: &str) -> Option<(EnvironmentKey, InstanceId)> {
    let (_, instance) = key.rsplit_once('/')?;
    Some((environment_of(key)?, instance.parse().ok()?))
}

/// How long a WebSocket or an event stream may hold on to an instance that is leaving: a little less than the instance
/// itself has, so that streams end in order, by the proxy, and not by the signal that ends their instance.
fn stream_drain_ms_max(environment: &Environment, name: &ServiceName, route: &ServiceRoute) -> u64 {
    let of_release = |release: &ReleaseNumber| Some(environment.service(*release, name)?.stop.drain);
    let Some(drain) = route.versions.keys().filter_map(of_release).min() else { return u64::MAX };
    // The instance's time runs from the decision, the stream's from the snapshot that follows from it.
    let margin = (drain / 10).min(STREAM_MARGIN_MAX);
    u64::try_from((drain - margin).as_millis()).unwrap_or(u64::MAX)
}

/// `shop/production/api`
#[must_use]
pub fn service_key(environment: &EnvironmentKey, service: &ServiceName) -> String {
    format!("{environment}/{service}")
}

fn part(environment: &Environment, ports: &Ports, offer: &Offer) -> Part {
    let table = &environment.routes.table;
    let key = &environment.key;
    let mut part = Part { generation: environment.routes.generation, ..Part::default() };
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
    fn without(mut self, address: SocketAddr) -> Self {
        self.listeners.retain(|_, own| own.addr != address);
        self.routes.retain(|route| self.listeners.contains_key(&route.listener));
        Self { generation: Generation::default(), ..self }
    }

    /// Its table may be the last good one for long, and its certificates are renewed meanwhile; the files of the old ones
    /// are gone soon after.
    fn with_certificates_of(mut self, newer: &Self) -> Self {
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

fn compose(generation: u64, parts: &Parts, http_challenges: &BTreeMap<String, String>) -> Snapshot {
    let mut listeners: BTreeMap<&String, Listener> = BTreeMap::new();
    let mut services = BTreeMap::new();
    let mut routes = Vec::new();
    for part in parts.values() {
        for (name, listener) in &part.listeners {
            match listeners.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(listener.clone())),
                Entry::Occupied(mut entry) => edge::merge(entry.get_mut(), listener),
            }
        }
        services.extend(part.services.clone());
        routes.extend(part.routes.clone());
    }
    let listeners = listeners.into_values().collect();
    Snapshot { generation, listeners, services, routes, http_challenges: http_challenges.clone() }
}

#[cfg(test)]
mod tests;
