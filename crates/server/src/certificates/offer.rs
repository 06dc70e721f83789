//! What the proxy needs of this module: whole, so that each offer replaces the one before, as its snapshots do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cause::Cause;
use super::status::Event;
use super::wanted::Slug;

/// The proxy confirms a snapshot within milliseconds; one that is being started or upgraded takes seconds.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Serving,
    /// Only for connections that ask for `acme-tls/1`.
    AcmeTlsAlpn,
}

/// Files that are never changed: a renewed certificate has other paths and another digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub names: Vec<String>,
    pub chain: PathBuf,
    pub key: PathBuf,
    /// BLAKE3 of the bytes of chain and key, in hex.
    pub digest: String,
    pub purpose: Purpose,
}

/// Everything that the proxy should have of certificates now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    pub certificates: Vec<Certificate>,
    /// By token: what `GET /.well-known/acme-challenge/TOKEN` answers on port 80, for every host, before any redirect.
    pub http_challenges: BTreeMap<String, String>,
}

pub type Published<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// The other side, which brings offers into the proxy.
pub trait Edge: Send + Sync + 'static {
    /// Resolves when the proxy has confirmed a snapshot with this offer or a later one; the error says in one
    /// sentence why it has not. Never called twice at a time.
    fn publish(&self, offer: Offer) -> Published<'_>;

    /// Something for the record. Must not wait.
    fn happened(&self, event: &Event) {
        let _ = event;
    }
}

/// All that is offered, by the set that offers it.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) serving: BTreeMap<Slug, Certificate>,
    pub(super) answers: BTreeMap<Slug, Answers>,
}

/// Answers to challenges of one set.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) http: BTreeMap<String, String>,
    pub(super) tls: Vec<Certificate>,
}

impl Held {
    fn offer(&self) -> Offer {
        let challenges = self.answers.values().flat_map(|answers| &answers.tls);
        Offer {
            certificates: self.serving.values().chain(challenges).cloned().collect(),
            http_challenges: self.answers.values().flat_map(|answers| answers.http.clone()).collect(),
        }
    }
}

/// Where sets put up what they offer.
pub(super) struct Board {
    pub(super) edge: Arc<dyn Edge>,
    held: Mutex<Held>,
    /// What the proxy has confirmed, where that is known. Held while it is told: changes reach it in their order.
    confirmed: tokio::sync::Mutex<Option<Offer>>,
}

impl Board {
    pub(super) fn new(edge: Arc<dyn Edge>) -> Self {
        Self { edge, held: Mutex::default(), confirmed: tokio::sync::Mutex::default() }
    }

    pub(super) fn offer(&self) -> Offer {
        self.held().offer()
    }

    /// Without publishing: for what the proxy learns with the next offer.
    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The change stays also where the proxy could not be told: the next offer holds it.
    pub(super) async fn change(&self, change: impl FnOnce(&mut Held)) -> Result<(), Cause> {
        let mut confirmed = self.confirmed.lock().await;
        let offer = {
            let mut held = self.held();
            change(&mut held);
            held.offer()
        };
        if confirmed.as_ref() == Some(&offer) {
            return Ok(());
        }
        // Whoever stops waiting here does not know what the proxy has.
        *confirmed = None;
        match tokio::time::timeout(CONFIRMED_WITHIN, self.edge.publish(offer.clone())).await {
            Ok(Ok(())) => {
                *confirmed = Some(offer);
                Ok(())
            }
            Ok(Err(why)) => Err(Cause::Edge { why }),
            Err(_) => {
                let why = format!("it has not confirmed within {} s", CONFIRMED_WITHIN.as_secs());
                Err(Cause::Edge { why })
            }
        }
    }
}
