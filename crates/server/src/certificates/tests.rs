//! Against a real authority: pebble, of Let's Encrypt. Without it the tests say that they did not run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fairway_engine::time::Timestamp;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;

mod dns;
mod local;
mod orders;
mod pebble;
mod proxy;
mod site;
mod trouble;

use pebble::Pebble;
use site::Site;

const HOST: &str = "shop.example.test";
const WWW: &str = "www.example.test";

/// A server's certificates with the proxy that it speaks to and a clock that is moved by hand.
struct World {
    site: Arc<Site>,
    state: TempDir,
    /// Added to the real one: authorities sign real times.
    ahead_ms: Arc<AtomicU64>,
    resolver: Resolver,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl World {
    async fn new() -> Self {
        let here = vec!["127.0.0.1".parse().unwrap()];
        let table: BTreeMap<_, _> = [HOST, WWW].map(|name| (name.to_owned(), here.clone())).into();
        Self {
            site: Site::start().await,
            state: tempfile::tempdir().unwrap(),
            ahead_ms: Arc::default(),
            resolver: Resolver::Table(table),
            tasks: Vec::new(),
        }
    }

    fn now(&self) -> Timestamp {
        now_ahead(&self.ahead_ms)
    }

    fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// As when a server starts.
    fn open(&mut self) -> Certificates {
        let ahead_ms = Arc::clone(&self.ahead_ms);
        let options = Options {
            now: Arc::new(move || now_ahead(&ahead_ms)),
            jitter: 7,
            lookout: Lookout {
                resolver: self.resolver.clone(),
                http_port: self.site.http_port,
                tls_port: self.site.tls_port,
            },
            secret_of: secrets(),
        };
        let edge: Arc<dyn Edge> = self.site.clone();
        Certificates::open(self.state.path(), options, edge).unwrap()
    }

    fn start(&mut self, wanted: Vec<Wanted>) -> Certificates {
        let certificates = self.open();
        certificates.want(wanted);
        self.tasks.push(tokio::spawn(certificates.clone().run()));
        certificates
    }

    /// As when a server is killed: nothing is tidied up.
    async fn kill(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            drop(task.await);
        }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        find(&self.state.path().join("certificates"), name)
    }

    fn meta(&self) -> Meta {
        serde_json::from_slice(&std::fs::read(self.file("meta.json").unwrap()).unwrap()).unwrap()
    }
}

/// Of the account that pebble knows.
fn secrets() -> SecretOf {
    Arc::new(|environment, name, version| match (environment.to_string().as_str(), name, version) {
        ("shop/prod", "acme_hmac", 3) => Ok(format!("{}==\n", pebble::HMAC)),
        ("shop/prod", "garbage", 1) => Ok("no base64!".to_owned()),
        _ => Err("there is none".to_owned()),
    })
}

fn now_ahead(ahead_ms: &AtomicU64) -> Timestamp {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(ahead_ms.load(Ordering::SeqCst)) + wall
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).ok()?.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let here = entries.iter().find(|path| path.file_name().is_some_and(|known| known == name)).cloned();
    here.or_else(|| entries.iter().find_map(|path| find(path, name)))
}

fn wanted(names: &[&str], source: Source) -> Vec<Wanted> {
    vec![Wanted::new("shop/prod", names, source)]
}

fn state_of(certificates: &Certificates, name: &str) -> NameState {
    let found = certificates.status().into_iter().find(|status| status.name == name);
    found.expect("the name is wanted").state
}

/// Waits until the name is in a state that `is` it.
async fn until(certificates: &Certificates, name: &str, is: impl Fn(&NameState) -> bool) -> NameState {
    /// Orders take one or two seconds; the machine may be busy.
    const WITHIN: Duration = Duration::from_secs(60);
    let started = Instant::now();
    loop {
        let state = state_of(certificates, name);
        if is(&state) {
            return state;
        }
        assert!(started.elapsed() < WITHIN, "still {state:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn has_ended(state: &NameState) -> bool {
    matches!(state, NameState::Valid { .. } | NameState::Failed { .. })
}

/// With the authority's word on when to renew it: pebble gives one.
async fn until_valid(certificates: &Certificates, name: &str) -> (Timestamp, Timestamp) {
    let is_settled = |state: &NameState| {
        matches!(state, NameState::Valid { suggested: true, .. } | NameState::Failed { .. })
    };
    let state = until(certificates, name, is_settled).await;
    let NameState::Valid { until, renew_at, .. } = state else { panic!("{state:?}") };
    (until, renew_at)
}

async fn until_failed(certificates: &Certificates, name: &str) -> Trouble {
    let state = until(certificates, name, has_ended).await;
    let NameState::Failed { trouble, .. } = state else { panic!("{state:?}") };
    trouble
}

/// What the proxy does not need any more goes a moment later.
async fn until_gone(path: &Path) {
    for _ in 0..1000 {
        if !path.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} is still there", path.display());
}
