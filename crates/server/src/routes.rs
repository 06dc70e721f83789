//! Drives the proxy: its snapshot is kept current, and its answers become outcomes.

mod compose;
mod edge;
mod key;
mod offers;
mod part;
pub mod sharing;
mod urls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_engine::id::ReleaseNumber;
use fairway_engine::{Environment, Input, InstanceState, Outcome};
use fairway_proxy::control::{ApplyError, Client, Event, Events, RejectReason};
use fairway_proxy::snapshot::Snapshot;
use tokio::sync::Notify;

use crate::certificates::Certificates;
use crate::ports::Ports;
use crate::proxy_process;
use crate::pump::Pump;
use crate::secrets::Vault;
use compose::{Parts, compose, culprit, only_listeners, parts_of};
use key::parse_instance_key;
pub use key::{instance_key, service_key};
pub use offers::News;
use offers::Offers;
use part::part;
pub use urls::urls;

/// While instances drain, the proxy is asked again: a `drained` that was said while nobody listened is not repeated.
const ASK_DRAINED_EVERY: Duration = Duration::from_millis(250);

/// One answer of the proxy. To a snapshot it writes one file and swaps pointers; ten seconds is a hung machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A snapshot that was refused through no table's fault, as on a full disk, is offered again after this.
const OFFER_AGAIN: Duration = Duration::from_secs(1);

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
/// What becomes of certificates is for the record.
///
/// # Errors
/// When there is no place for certificates in the state directory.
pub fn start(
    pump: Pump,
    ports: Arc<Ports>,
    state_dir: &Path,
    vault: Arc<Vault>,
) -> Result<(Routes, News, tokio::task::JoinHandle<()>), String> {
    let proxy_dir = state_dir.join("proxy");
    let wake = Arc::new(Notify::new());
    let (offers, news) = Offers::new(Arc::clone(&wake));
    let certificates = Certificates::open(state_dir, offers::options(vault)?, Arc::new(offers.clone()))
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
    Ok((routes, news, tokio::spawn(task)))
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

/// Where an offer has led.
enum Offered {
    InForce,
    /// Not taken, and no table is to blame.
    Again {
        why: String,
    },
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
