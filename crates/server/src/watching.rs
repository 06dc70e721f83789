//! Watching: figures into the store, observations into the engine, rules and alerts out of both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_metrics::exposition::{self, Format};
use fairway_metrics::httpapi;
use fairway_metrics::labels::Labels;
use fairway_metrics::promql;
use fairway_metrics::remote::{ReceiveLimits, Received, Receiver, Refused};
use fairway_metrics::sample::Sample;
use fairway_metrics::store::{Appended, Options, Store, StoreError};
use fairway_store::Trees;
use tokio::task::JoinSet;

use crate::drivers::{Drivers, Hands};
use crate::error::StartError;
use crate::outgoing::{Outgoing, Roots};
use crate::ports::Ports;
use crate::pump::Pump;
use crate::routes::Routes;
use crate::secrets::Vault;
use crate::warn::warn;

mod alerting;
mod figures;
mod gates;
mod observer;
mod probes;
mod proc;
mod purge;
mod scraping;
mod sizing;
mod slos;
mod source;
mod targets;
mod writing;

pub use alerting::Alerting;
pub use scraping::SCRAPE_TIMEOUT;
pub use slos::specs as objectives;
pub use source::{NoValue, Source};
pub use targets::{SCRAPE_EVERY, Target, all as all_targets, serving};
use writing::{Origin, Writing};

/// A proxy that does not answer in this time is not waited for: what depends on it says "no data".
const ASK_PROXY_TIMEOUT: Duration = Duration::from_secs(1);

/// Beside releases and logs on one disk. A project of ten services, 1,000 series each, takes about 3 GiB a month.
const STORE_BYTES_MAX: u64 = 4 << 30;

/// On one machine more are a mistake, and each costs a kilobyte of memory.
const SERIES_MAX: usize = 200_000;

/// What all tasks of this kind share.
#[derive(Debug)]
pub struct Watching {
    pub pump: Pump,
    pub routes: Routes,
    pub drivers: Drivers,
    pub outgoing: Outgoing,
    pub store: Arc<Store>,
    pub promql: promql::Engine,
    pub alerting: Alerting,
    writing: Writing,
    /// One for the socket and the listener: a sender's series are learnt once.
    receiver: Receiver,
    trees: Trees,
    vault: Arc<Vault>,
    ports: Arc<Ports>,
    state_dir: PathBuf,
    ended: Mutex<figures::Ended>,
    /// Series of a target that were dropped, as of its last scrape: said where figures are shown.
    limited: Mutex<BTreeMap<Labels, usize>>,
    /// How the last scrape of each target went.
    scraped: Mutex<BTreeMap<Labels, httpapi::Target>>,
}

impl Watching {
    /// # Errors
    /// When the store of samples cannot be opened.
    pub fn open(hands: &Hands) -> Result<Arc<Self>, StartError> {
        let dir = hands.state_dir.join("metrics");
        let options =
            Options { retention_bytes: Some(STORE_BYTES_MAX), series_max: SERIES_MAX, ..Options::default() };
        let opened = Store::open(&dir, options)
            .map_err(|error| StartError::Metrics { path: dir.clone(), why: error.to_string() })?;
        for damage in opened.recovered.damages {
            warn(format_args!("samples were lost: {}: {}", damage.file.display(), damage.what));
        }
        let outgoing = Outgoing::new(Roots::System);
        Ok(Arc::new(Self {
            alerting: Alerting::new(hands, outgoing.clone()),
            writing: Writing::default(),
            receiver: Receiver::new(ReceiveLimits::default()),
            pump: hands.pump.clone(),
            routes: hands.routes.clone(),
            drivers: hands.drivers.clone(),
            outgoing,
            store: Arc::new(opened.store),
            promql: promql::Engine::default(),
            trees: hands.trees.clone(),
            vault: Arc::clone(&hands.vault),
            ports: Arc::clone(&hands.ports),
            state_dir: hands.state_dir.clone(),
            ended: Mutex::default(),
            limited: Mutex::default(),
            scraped: Mutex::default(),
        }))
    }

    /// Starts everything that watches. None of the tasks ends before the server does.
    pub fn start(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(observer::run(self.pump.clone(), self.routes.clone()));
        tasks.spawn(gates::run(Arc::clone(self)));
        tasks.spawn(probes::run(Arc::clone(self)));
        tasks.spawn(purge::run(Arc::clone(self)));
        tasks.spawn(scraping::run(Arc::clone(self)));
        tasks.spawn(sizing::run(Arc::clone(self)));
        tasks.spawn(alerting::evaluate(Arc::clone(self)));
        tasks.spawn(alerting::tell(Arc::clone(self)));
        tasks.spawn(alerting::listen(Arc::clone(self)));
        tasks.spawn(writing::run(Arc::clone(self)));
        tasks
    }

    /// As Prometheus writes it.
    #[must_use]
    pub fn retention() -> String {
        let days = Options::default().retention_ms / 86_400_000;
        format!("{days}d or {}GiB", STORE_BYTES_MAX >> 30)
    }

    #[must_use]
    pub fn now_ms(&self) -> i64 {
        i64::try_from(self.pump.shared.clock.now().0).unwrap_or(i64::MAX)
    }

    /// Everything that `/metrics` shows: the proxy's figures and the control plane's own.
    pub async fn exposition(&self) -> String {
        let (up, mut text) = match self.routes.proxy().client() {
            Some(client) => match tokio::time::timeout(ASK_PROXY_TIMEOUT, client.metrics()).await {
                Ok(Ok(text)) => (1.0, text),
                Ok(Err(_)) | Err(_) => (0.0, String::new()),
            },
            None => (0.0, String::new()),
        };
        let state_dir = self.state_dir.clone();
        let machine = tokio::task::spawn_blocking(move || figures::Machine::read(&state_dir)).await;
        let machine = machine.unwrap_or_default();
        let told = self.drivers.known();
        let seq = self.pump.shared.seq();
        let mut families = {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            self.pump.shared.read(|state| {
                ended.count(state);
                figures::families(state, seq, &ended, &told, &machine)
            })
        };
        families.extend(figures::certificates(&self.routes.certificates().status()));
        let help = "1 when the proxy answers the control plane.";
        families.push(exposition::Family::gauge("fairway_proxy_up", help).with(Labels::default(), up));
        families.extend(self.own());
        families.extend(self.writing.families());
        text.push_str(&exposition::write(&families, Format::Text));
        text
    }

    /// What the store says of itself.
    fn own(&self) -> [exposition::Family; 3] {
        let stats = self.store.stats();
        let none = Labels::default;
        let series = exposition::Family::gauge("fairway_metrics_series", "Series in memory.");
        let bytes = exposition::Family::gauge("fairway_metrics_disk_bytes", "Disk space that samples take.");
        let mut limited = exposition::Family::gauge(
            "fairway_scrape_series_limited",
            "Series of a target that were dropped in its last scrape because it shows too many.",
        );
        for (target, dropped) in self.limited.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            limited = limited.with(target.clone(), *dropped as f64);
        }
        [
            series.with(none(), stats.head_series as f64),
            bytes.with(none(), (stats.block_bytes + stats.log_bytes) as f64),
            limited,
        ]
    }

    /// Into the store, and on disk before anybody is told that it is. None when nothing could be kept.
    async fn keep(self: &Arc<Self>, samples: Vec<(Labels, Sample)>) -> Option<Appended> {
        if samples.is_empty() {
            return Some(Appended::default());
        }
        self.writing.push(Origin::Here, &samples, self.now_ms());
        let watching = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            let of_series = samples.iter().map(|(labels, sample)| (labels, *sample));
            let appended = watching.store.append_labels(of_series)?;
            watching.store.sync()?;
            Ok::<_, StoreError>(appended)
        });
        let kept = kept.await.map_err(|error| error.to_string());
        match kept.and_then(|kept| kept.map_err(|error| error.to_string())) {
            Ok(appended) => {
                if appended.too_many_series > 0 {
                    warn(format_args!(
                        "{} samples were not kept: there are {SERIES_MAX} series, and these would be more",
                        appended.too_many_series
                    ));
                }
                Some(appended)
            }
            Err(why) => {
                warn(format_args!("samples were not kept: {why}"));
                None
            }
        }
    }

    async fn maintain(self: &Arc<Self>) {
        let (watching, now_ms) = (Arc::clone(self), self.now_ms());
        match tokio::task::spawn_blocking(move || watching.store.maintain(now_ms).map(|_| ())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn(format_args!("the store of samples was not tidied: {error}")),
            Err(error) => warn(format_args!("the store of samples was not tidied: {error}")),
        }
    }

    /// A target shows more series than are kept; said once, and shown as long as it lasts.
    fn limited(&self, target: &targets::Target, dropped: usize) {
        let mut limited = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if dropped == 0 {
            limited.remove(&target.labels)
        } else {
            limited.insert(target.labels.clone(), dropped)
        };
        if dropped > 0 && before.is_none() {
            warn(format_args!("{} shows too many series: {dropped} are dropped", target.url));
        }
    }

    /// Every target with its last scrape, by job and name.
    #[must_use]
    pub fn scraped(&self) -> Vec<httpapi::Target> {
        let scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
        let mut targets: Vec<httpapi::Target> = scraped.values().cloned().collect();
        targets.sort_by(|one, other| one.pool.cmp(&other.pool));
        targets
    }

    /// Into the store, and on to receivers what is new to it.
    fn add(&self, samples: &[(Labels, Sample)]) -> Result<Appended, StoreError> {
        if self.writing.is_idle() {
            return self.store.append_labels(samples.iter().map(|(labels, sample)| (labels, *sample)));
        }
        let (mut appended, mut new) = (Appended::default(), Vec::new());
        let mut outcome = Ok(());
        for one in samples {
            match self.store.append_labels([(&one.0, one.1)]) {
                Ok(added) => {
                    // What was there already was sent on then: two that write to each other would never end.
                    if added.accepted > 0 {
                        new.push(one.clone());
                    }
                    appended += added;
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // When it is sent again after an error, this part of it is not new any more.
        self.writing.push(Origin::Elsewhere, &new, self.now_ms());
        outcome.map(|()| appended)
    }

    /// Reads a request of remote write. The series that are in the store already come with its own labels.
    ///
    /// # Errors
    /// When nothing of the request can be taken.
    pub fn receive(&self, kind: &str, encoding: &str, body: &[u8]) -> Result<Received, Refused> {
        let own = |labels: &Labels| self.store.own_labels(labels);
        self.receiver.decode(kind, encoding, body, self.now_ms(), own)
    }

    /// What others send in. It goes where Fairway's own samples go.
    ///
    /// # Errors
    /// Why nothing of it is kept.
    pub async fn take_in(self: &Arc<Self>, samples: Vec<(Labels, Sample)>) -> Result<Appended, String> {
        let watching = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            let appended = watching.add(&samples)?;
            watching.store.sync()?;
            Ok::<_, StoreError>(appended)
        });
        kept.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}
