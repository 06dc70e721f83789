//! Route tables of all environments become one snapshot for the proxy, and its answers become outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_engine::id::{EnvironmentKey, Generation, InstanceId, ReleaseNumber};
use fairway_engine::strategy::Match as EngineMatch;
use fairway_engine::{Environment, Input, InstanceState, Outcome, RouteTable, State};
use fairway_proxy::control::{ApplyError, Client, Event, Events, RejectReason, Rejected};
use fairway_proxy::snapshot::{
    Hold, Instance, Listener, Maintenance, Match, Retry, Route, Service, Snapshot, Sticky, Timeouts, Version,
};
use tokio::sync::Notify;

use crate::ports::Ports;
use crate::proxy_process;
use crate::pump::Pump;
use crate::values::{called_services, internal_listener, preview_listener};

/// While instances drain, the proxy is asked again: a `drained` that was said while nobody listened is not repeated.
const ASK_DRAINED_EVERY: Duration = Duration::from_millis(250);

/// One answer of the proxy to a snapshot. It writes one file and swaps pointers; ten seconds is a hung machine.
const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of the proxy, for status.
#[derive(Clone, Debug)]
pub enum ProxyState {
    Serving { client: Client, generation: u64 },
    Unreachable { why: String },
}

#[derive(Clone, Debug)]
pub struct Routes {
    wake: Arc<Notify>,
    state: Arc<Mutex<ProxyState>>,
}

impl Routes {
    /// There is another table to be applied.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    #[must_use]
    pub fn proxy(&self) -> ProxyState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts the driver. It keeps a proxy running and its snapshot current until the task is dropped.
pub fn start(pump: Pump, ports: Arc<Ports>, proxy_dir: PathBuf) -> (Routes, tokio::task::JoinHandle<()>) {
    let why = "it has not answered yet".to_owned();
    let routes = Routes {
        wake: Arc::new(Notify::new()),
        state: Arc::new(Mutex::new(ProxyState::Unreachable { why })),
    };
    let driver = Driver { pump, ports, proxy_dir, routes: routes.clone(), good: BTreeMap::new(), sent: None };
    (routes, tokio::spawn(driver.run()))
}

struct Driver {
    pump: Pump,
    ports: Arc<Ports>,
    proxy_dir: PathBuf,
    routes: Routes,
    /// What each environment last had accepted: it stays in force where a newer table is refused.
    good: BTreeMap<EnvironmentKey, Part>,
    /// The snapshot that this proxy process has.
    sent: Option<Snapshot>,
}

/// A listener of a release that was dropped, with nothing of it left, is needed by nobody.
fn is_needed(listener: &str, state: &State) -> bool {
    let Some((service, release)) = listener.split_once('@') else { return true };
    let Ok(release) = release.parse::<ReleaseNumber>() else { return true };
    state
        .environments
        .iter()
        .filter(|(key, _)| service.starts_with(&format!("{key}/")))
        .any(|(_, environment)| environment.releases.contains_key(&release))
}

/// What one environment adds to the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    generation: Generation,
    listeners: BTreeMap<String, SocketAddr>,
    services: BTreeMap<String, Service>,
    routes: Vec<Route>,
}

impl Driver {
    async fn run(mut self) {
        let mut keeper = proxy_process::Keeper::new(self.proxy_dir.clone());
        loop {
            match keeper.connect().await {
                Ok(client) => {
                    let generation = client.hello().generation;
                    self.say(ProxyState::Serving { client: client.clone(), generation });
                    self.sent = None;
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

    /// Serves one connection to the proxy until it breaks.
    async fn serve(&mut self, client: &Client) {
        let mut events = client.events();
        let mut generation = client.hello().generation;
        if self.apply(client, &mut generation).await.is_err() {
            return;
        }
        loop {
            let draining = self.draining();
            tokio::select! {
                () = self.routes.wake.notified() => {
                    if self.apply(client, &mut generation).await.is_err() {
                        return;
                    }
                }
                event = Events::next(&mut events) => match event {
                    None => return,
                    Some(Event::Drained { instance }) => self.drained(&instance).await,
                    // The engine decides by readiness, which the shim reports; this is for the proxy's own balancing.
                    Some(Event::Health { .. } | Event::Missed { .. }) => {}
                },
                () = tokio::time::sleep(ASK_DRAINED_EVERY), if !draining.is_empty() => {
                    for instance in draining {
                        match client.in_flight(&instance).await {
                            Ok(0) => self.drained(&instance).await,
                            Ok(_) => {}
                            Err(_) => return,
                        }
                    }
                }
            }
        }
    }

    /// Composes and applies until the proxy has taken all that it will take.
    async fn apply(&mut self, client: &Client, generation: &mut u64) -> Result<(), ()> {
        let mut parts = self.parts();
        // Each round either succeeds or gives up on one environment's new table.
        for _ in 0..=parts.len() {
            let snapshot = compose(*generation + 1, &parts);
            let is_same = self
                .sent
                .as_ref()
                .is_some_and(|sent| Snapshot { generation: sent.generation, ..snapshot.clone() } == *sent);
            if is_same {
                return self.applied(&parts).await;
            }
            let answer = tokio::time::timeout(APPLY_TIMEOUT, client.apply(&snapshot)).await;
            match answer {
                Ok(Ok(applied)) => {
                    *generation = applied.generation;
                    self.sent = Some(snapshot);
                    self.say(ProxyState::Serving { client: client.clone(), generation: *generation });
                    return self.applied(&parts).await;
                }
                Ok(Err(ApplyError::Rejected(rejected))) => {
                    *generation = (*generation).max(rejected.current);
                    match rejected.reason {
                        // Somebody else's newer snapshot is there: ours comes after it.
                        RejectReason::OlderGeneration | RejectReason::SameGenerationDifferent => {}
                        RejectReason::Invalid { .. }
                        | RejectReason::Bind { .. }
                        | RejectReason::Persist { .. } => self.refused(&mut parts, &rejected).await,
                        // Nobody's table is at fault: the next process takes it.
                        RejectReason::Draining | RejectReason::HandingOver => return Err(()),
                    }
                }
                Ok(Err(ApplyError::Client(_))) | Err(_) => return Err(()),
            }
        }
        Ok(())
    }

    async fn applied(&mut self, parts: &BTreeMap<EnvironmentKey, Part>) -> Result<(), ()> {
        for (environment, part) in parts {
            self.good.insert(environment.clone(), part.clone());
            let outcome = Outcome::RoutesApplied { generation: part.generation };
            self.pump.outcome(Input::Outcome { environment: environment.clone(), outcome }).await;
        }
        Ok(())
    }

    /// One environment's table must not hold the others back: its last good one takes its place.
    async fn refused(&mut self, parts: &mut BTreeMap<EnvironmentKey, Part>, rejected: &Rejected) {
        let changed = |environment: &EnvironmentKey, part: &Part| {
            self.good.get(environment).is_none_or(|good| good.generation != part.generation)
        };
        let culprit = parts
            .iter()
            .filter(|(environment, part)| changed(environment, part))
            .find(|(_, part)| match &rejected.reason {
                RejectReason::Bind { addr, .. } => part.listeners.values().any(|address| address == addr),
                RejectReason::Invalid { .. }
                | RejectReason::Persist { .. }
                | RejectReason::Draining
                | RejectReason::HandingOver
                | RejectReason::OlderGeneration
                | RejectReason::SameGenerationDifferent => true,
            })
            .map(|(environment, part)| (environment.clone(), part.generation));
        let Some((environment, generation)) = culprit else { return };
        if let RejectReason::Bind { listener, .. } = &rejected.reason {
            // One of ours, not one that the project asked for: the next attempt gets another port.
            self.ports.forget(listener);
        }
        match self.good.get(&environment) {
            Some(good) => drop(parts.insert(environment.clone(), good.clone())),
            None => drop(parts.remove(&environment)),
        }
        let why = rejected.reason.to_string();
        let outcome = Outcome::RoutesRefused { generation, why };
        self.pump.outcome(Input::Outcome { environment, outcome }).await;
    }

    fn parts(&self) -> BTreeMap<EnvironmentKey, Part> {
        self.pump.shared.read(|state| {
            self.ports.retain(|listener| is_needed(listener, state));
            state
                .environments
                .iter()
                .filter(|(_, environment)| environment.routes.generation.0 > 0)
                .map(|(key, environment)| (key.clone(), part(environment, &self.ports)))
                .collect()
        })
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

/// `shop/production/api.r12.3`: unique over all environments.
#[must_use]
pub fn instance_key(environment: &EnvironmentKey, instance: &InstanceId) -> String {
    format!("{environment}/{instance}")
}

fn parse_instance_key(key: &str) -> Option<(EnvironmentKey, InstanceId)> {
    let mut parts = key.splitn(3, '/');
    let project = parts.next()?.parse().ok()?;
    let environment = parts.next()?.parse().ok()?;
    let instance = parts.next()?.parse().ok()?;
    Some((EnvironmentKey { project, environment }, instance))
}

/// `shop/production/api`
#[must_use]
pub fn service_key(environment: &EnvironmentKey, service: &fairway_engine::id::ServiceName) -> String {
    format!("{environment}/{service}")
}

fn part(environment: &Environment, ports: &Ports) -> Part {
    let table = &environment.routes.table;
    let key = &environment.key;
    let mut part = Part { generation: environment.routes.generation, ..Part::default() };
    let public = table.listen.as_ref().and_then(|listen| {
        let address = listen.address.parse::<SocketAddr>().ok()?;
        Some((address, listen.host.clone()))
    });
    for (name, service) in &table.services {
        let total: u32 = service.versions.values().map(|version| version.weight).sum();
        let versions = service
            .versions
            .iter()
            .map(|(release, version)| (release.to_string(), version_of(key, version)))
            .collect();
        let sticky = service
            .route
            .as_ref()
            .and_then(|route| route.sticky_cookie.clone())
            .map(|cookie| Sticky { cookie, max_age_s: None });
        part.services.insert(
            service_key(key, name),
            Service {
                versions,
                sticky,
                health: None,
                hold: Hold::default(),
                timeouts: Timeouts::default(),
                retry: Retry::default(),
                request_body_bytes_max: None,
            },
        );
        let maintenance = table.maintenance.as_ref().map(|message| maintenance_page(message));
        if let (Some(route), Some((address, host))) = (&service.route, &public)
            && total > 0
        {
            let listener = address.to_string();
            part.listeners.insert(listener.clone(), *address);
            part.routes.push(Route {
                listener,
                host: route.host.clone().or_else(|| host.clone()),
                path: route.path.clone(),
                strip_prefix: route.strip_prefix,
                service: service_key(key, name),
                pin: None,
                maintenance,
            });
        }
        // The new version while there is one to be tried, otherwise whatever serves: `fairway smoke` works at any time.
        let pin = table.preview.filter(|release| service.versions.contains_key(release));
        if let Some(route) = &service.route
            && (pin.is_some() || total > 0)
        {
            part.routes.push(Route {
                listener: preview_listener(key),
                host: None,
                path: route.path.clone(),
                strip_prefix: route.strip_prefix,
                service: service_key(key, name),
                pin: pin.map(|release| release.to_string()),
                maintenance: None,
            });
        }
    }
    part.preview(environment, ports);
    part.call_each_other(environment, table, ports);
    part
}

impl Part {
    /// The preview listener stays open as long as anything is served: an address that is closed and opened again and
    /// again can be taken by somebody else in between.
    fn preview(&mut self, environment: &Environment, ports: &Ports) {
        let name = preview_listener(&environment.key);
        match ports.address(&name) {
            Ok(address) if !environment.routes.table.services.is_empty() => {
                self.listeners.insert(name, address);
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
                self.listeners.insert(listener.clone(), address);
                self.routes.push(Route {
                    listener,
                    host: None,
                    path: "/".to_owned(),
                    strip_prefix: false,
                    service: service_key(key, &service),
                    pin: own.then(|| release.to_string()),
                    maintenance: None,
                });
            }
        }
    }
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

fn compose(generation: u64, parts: &BTreeMap<EnvironmentKey, Part>) -> Snapshot {
    let mut listeners: BTreeMap<String, SocketAddr> = BTreeMap::new();
    let mut services = BTreeMap::new();
    let mut routes = Vec::new();
    for part in parts.values() {
        listeners.extend(part.listeners.clone());
        services.extend(part.services.clone());
        routes.extend(part.routes.clone());
    }
    let listeners = listeners.into_iter().map(|(name, addr)| Listener { name, addr }).collect();
    Snapshot { generation, listeners, services, routes }
}
