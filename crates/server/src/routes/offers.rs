//! Certificates and challenges on their way into the snapshot.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fairway_engine::Input;
use fairway_engine::certificate::{CertificateGain, CertificateStep};
use fairway_engine::id::EnvironmentKey;
use fairway_engine::time::Timestamp;
use tokio::sync::{Notify, mpsc, watch};

use crate::certificates::{Edge, Event, Happened, Lookout, Offer, Options, Published};
use crate::pump::Pump;
use crate::secrets::Vault;
use crate::warn::warn;

/// Events that may wait for the record: one for each of some hundred names, while a server starts or the disk is full.
/// What does not fit is told again by the next attempt, the next hour or the next server.
const NEWS_MAX: usize = 1024;

/// What the proxy should have of certificates, counted, so that it is known when it has it.
#[derive(Clone, Debug)]
pub(super) struct Offers {
    latest: Arc<Mutex<(u64, Offer)>>,
    confirmed: Arc<watch::Sender<u64>>,
    /// Of the driver of routes.
    wake: Arc<Notify>,
    news: mpsc::Sender<Event>,
}

impl Offers {
    pub(super) fn new(wake: Arc<Notify>) -> (Self, News) {
        let (news, told) = mpsc::channel(NEWS_MAX);
        (Self { latest: Arc::default(), confirmed: Arc::new(watch::Sender::new(0)), wake, news }, News(told))
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
            Happened::Obtained { how: CertificateGain::Issued | CertificateGain::Renewed, .. } => {
                warn(format_args!("there is a certificate for {names}"));
            }
            Happened::Failed(trouble) => warn(format_args!("no certificate for {names}: {}", trouble.why)),
            Happened::Obtained { how: CertificateGain::Kept, .. } | Happened::LetGo => {}
        }
        // Full: it is told again.
        drop(self.news.try_send(event.clone()));
    }
}

/// What becomes of certificates, on its way to the record.
#[derive(Debug)]
pub struct News(mpsc::Receiver<Event>);

impl News {
    /// Not before the server serves: until then the Fairway before may have to read the log again, and it may know
    /// nothing of certificates.
    pub async fn record(mut self, pump: Pump) {
        while let Some(event) = self.0.recv().await {
            for input in inputs(&event) {
                pump.outcome(input).await;
            }
        }
    }
}

fn inputs(event: &Event) -> impl Iterator<Item = Input> {
    let step = match &event.what {
        Happened::Obtained { how, until, digest } => {
            CertificateStep::Obtained { how: *how, until: *until, digest: digest.clone() }
        }
        Happened::Failed(trouble) => CertificateStep::Failed {
            code: trouble.code.clone(),
            why: trouble.why.clone(),
            until: event.until,
            retry_at: trouble.retry_at,
        },
        Happened::LetGo => CertificateStep::LetGo,
    };
    let environments = event.environments.iter().filter_map(|name| {
        let (project, environment) = name.split_once('/')?;
        Some(EnvironmentKey { project: project.parse().ok()?, environment: environment.parse().ok()? })
    });
    environments.map(move |environment| {
        let (names, source, step) = (event.names.clone(), event.source.clone(), step.clone());
        Input::Certificate { environment, names, source, step }
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(environments: &[&str], what: Happened) -> Event {
        Event {
            environments: environments.iter().map(|one| (*one).to_owned()).collect(),
            names: vec!["a.test".to_owned()],
            source: "acme.test".to_owned(),
            until: None,
            what,
        }
    }

    #[test]
    fn each_environment_that_wants_a_certificate_has_it_on_its_record() {
        let told: Vec<Input> = inputs(&event(&["shop/dev", "shop/prod"], Happened::LetGo)).collect();
        let environments: Vec<String> = told
            .iter()
            .filter_map(|input| {
                let Input::Certificate { environment, step, .. } = input else { return None };
                (*step == CertificateStep::LetGo).then(|| environment.to_string())
            })
            .collect();
        assert_eq!(environments, ["shop/dev", "shop/prod"]);
    }

    #[test]
    fn a_record_that_is_not_to_be_had_holds_up_nobody() {
        let (offers, News(mut told)) = Offers::new(Arc::default());
        for _ in 0..=NEWS_MAX {
            offers.happened(&event(&["shop/dev"], Happened::LetGo));
        }
        let mut count = 0;
        while told.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, NEWS_MAX);
    }
}
