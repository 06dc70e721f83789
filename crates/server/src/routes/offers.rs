//! Certificates and challenges on their way into the snapshot.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fairway_engine::time::Timestamp;
use tokio::sync::{Notify, watch};

use crate::certificates::{Edge, Event, Happened, Lookout, Offer, Options, Published};
use crate::secrets::Vault;
use crate::warn::warn;

/// What the proxy should have of certificates, counted, so that it is known when it has it.
#[derive(Clone, Debug)]
pub(super) struct Offers {
    latest: Arc<Mutex<(u64, Offer)>>,
    confirmed: Arc<watch::Sender<u64>>,
    /// Of the driver of routes.
    wake: Arc<Notify>,
}

impl Offers {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { latest: Arc::default(), confirmed: Arc::new(watch::Sender::new(0)), wake }
    }

    /// The how-manieth offer, and what it is.
    pub(super) fn latest(&self) -> (u64, Offer) {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The proxy has a snapshot with that offer.
    pub(super) fn confirm(&self, number: u64) {
        self.confirmed.send_if_modified(|confirmed| {
            let is_newer = number > *confirmed;
            *confirmed = (*confirmed).max(number);
            is_newer
        });
    }
}

impl Edge for Offers {
    fn publish(&self, offer: Offer) -> Published<'_> {
        Box::pin(async move {
            let number = {
                let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
                *latest = (latest.0 + 1, offer);
                latest.0
            };
            self.wake.notify_one();
            // Whoever asks puts a bound on the wait.
            let waited =
                self.confirmed.subscribe().wait_for(|confirmed| *confirmed >= number).await.map(drop);
            waited.map_err(|_| "the server is ending".to_owned())
        })
    }

    fn happened(&self, event: &Event) {
        let names = event.names.join(", ");
        match &event.what {
            Happened::Obtained { .. } => warn(format_args!("there is a certificate for {names}")),
            Happened::Failed(trouble) => warn(format_args!("no certificate for {names}: {}", trouble.why)),
        }
    }
}

/// # Errors
/// When the machine gives no random numbers.
pub(super) fn options(vault: Arc<Vault>) -> Result<Options, String> {
    let mut jitter = [0; 8];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut jitter).map_err(|_| "no random numbers".to_owned())?;
    let now = || {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
    };
    Ok(Options {
        now: Arc::new(now),
        jitter: u64::from_ne_bytes(jitter),
        lookout: Lookout::default(),
        secret_of: Arc::new(move |environment, name, version| vault.value(environment, name, version)),
    })
}
