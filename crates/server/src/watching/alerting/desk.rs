//! Where the alerts of one environment become messages, and what remembers which were sent.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::{self, Monitoring};
use fairway_engine::release::Release;
use fairway_engine::service::EnvValue;
use fairway_metrics::labels::Labels;
use fairway_metrics::notify::{
    Alert, Batch, Config, Delivery, DeliveryId, Dispatcher, Forwarder, Outcome, State,
};

use super::keep;
use crate::notify::settings;
use crate::secrets::Vault;
use crate::warn::warn;

/// Something to send, and where.
#[derive(Debug)]
pub enum Message {
    Delivery(Box<Delivery>),
    Batch { url: String, batch: Batch },
}

/// A message that was sent, or not.
#[derive(Debug)]
pub enum Sent {
    Delivery(DeliveryId, Outcome),
    Batch(DeliveryId, Outcome),
}

#[derive(Debug)]
pub struct Desk {
    pub environment: EnvironmentKey,
    path: PathBuf,
    inner: Mutex<Inner>,
    /// The revision that is on disk. Held while it is written, so that an older one never comes after a newer one.
    saved: tokio::sync::Mutex<u64>,
}

#[derive(Debug)]
pub struct Inner {
    pub release: Arc<Release>,
    pub dispatcher: Dispatcher,
    /// To an Alertmanager, which then does everything else.
    pub forwarder: Option<(String, Forwarder)>,
    /// What was reported as firing.
    firing: BTreeSet<Labels>,
    /// Why the settings are not those of the release.
    pub problem: Option<String>,
}

impl Inner {
    #[must_use]
    pub fn monitoring(&self) -> &Monitoring {
        &self.release.spec.monitoring
    }

    /// What [`Desk::configure`] does, with the dispatcher at hand.
    fn configure(&mut self, release: Arc<Release>, now_ms: i64) {
        self.release = release;
        match config(&self.release.spec.monitoring) {
            Ok(config) => {
                self.problem = None;
                self.dispatcher.configure(now_ms, config);
            }
            Err(why) => {
                self.problem = Some(format!("routes stay as they were: {why}"));
            }
        }
        let wanted = self.release.spec.monitoring.alertmanager.clone();
        let known = self.forwarder.take();
        self.forwarder = wanted.map(|url| match known {
            Some((known, forwarder)) if known == url => (url, forwarder),
            Some(_) | None => (url, Forwarder::default()),
        });
    }
}

/// With an Alertmanager, alerts are still listed and silenced here, and no channel is told.
fn config(monitoring: &Monitoring) -> Result<Config, String> {
    let mut config = settings::config(monitoring).map_err(|error| error.to_string())?;
    if monitoring.alertmanager.is_some() {
        config.routes.clear();
    }
    Ok(config)
}

impl Desk {
    /// With the memory of an earlier run, where there is one.
    #[must_use]
    pub fn open(environment: EnvironmentKey, path: PathBuf, release: Arc<Release>, now_ms: i64) -> Self {
        let first = config(&release.spec.monitoring).unwrap_or_default();
        let mut dispatcher = Dispatcher::new(first);
        match keep::read::<State>(&path) {
            Ok(Some(state)) => dispatcher.restore(state, now_ms),
            Ok(None) => {}
            Err(error) => {
                warn(format_args!(
                    "{environment}: which alerts were told is not known, they are told again: {}: {error}",
                    path.display()
                ));
            }
        }
        let saved = tokio::sync::Mutex::new(dispatcher.revision());
        let mut inner = Inner {
            release: Arc::clone(&release),
            dispatcher,
            forwarder: None,
            firing: BTreeSet::new(),
            problem: None,
        };
        inner.configure(release, now_ms);
        Self { environment, path, inner: Mutex::new(inner), saved }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other settings: what was told stays told.
    pub fn configure(&self, release: &Arc<Release>, now_ms: i64) {
        let mut inner = self.lock();
        if inner.release.spec.monitoring != release.spec.monitoring {
            inner.configure(Arc::clone(release), now_ms);
        } else {
            inner.release = Arc::clone(release);
        }
    }

    /// Everything that fires, and what ended lately. What fired and is not among it has ended now.
    pub fn report(&self, mut alerts: Vec<Alert>, now_ms: i64) {
        let mut inner = self.lock();
        let known: BTreeSet<&Labels> = alerts.iter().map(|alert| &alert.labels).collect();
        let gone: Vec<Labels> =
            inner.firing.iter().filter(|labels| !known.contains(labels)).cloned().collect();
        let is_firing = |alert: &&Alert| alert.ends_at_ms.is_none();
        inner.firing = alerts.iter().filter(is_firing).map(|alert| alert.labels.clone()).collect();
        alerts.extend(gone.into_iter().map(|labels| Alert {
            labels,
            annotations: Labels::default(),
            starts_at_ms: now_ms,
            ends_at_ms: Some(now_ms),
            generator_url: String::new(),
        }));
        if let Some((_, forwarder)) = &mut inner.forwarder {
            forwarder.receive(now_ms, alerts.clone());
        }
        inner.dispatcher.receive(now_ms, alerts);
    }

    /// What is to be sent now; [`Self::save`] comes before the sending.
    pub fn due(&self, now_ms: i64) -> Vec<Message> {
        let mut inner = self.lock();
        let due = inner.dispatcher.due(now_ms);
        let mut messages: Vec<Message> =
            due.into_iter().map(|one| Message::Delivery(Box::new(one))).collect();
        if let Some((url, forwarder)) = &mut inner.forwarder {
            let url = url.clone();
            messages.extend(forwarder.due(now_ms).map(|batch| Message::Batch { url, batch }));
        }
        messages
    }

    #[must_use]
    pub fn next_at_ms(&self) -> Option<i64> {
        let inner = self.lock();
        let forwarder = inner.forwarder.as_ref().and_then(|(_, forwarder)| forwarder.next_at());
        inner.dispatcher.next_at().into_iter().chain(forwarder).min()
    }

    pub fn sent(&self, sent: Sent, now_ms: i64) {
        let mut inner = self.lock();
        match sent {
            Sent::Delivery(id, outcome) => {
                inner.dispatcher.delivered(now_ms, id, outcome);
            }
            Sent::Batch(id, outcome) => {
                if let Some((_, forwarder)) = &mut inner.forwarder {
                    forwarder.delivered(now_ms, id, outcome);
                }
            }
        }
    }

    /// Durable when it returns, unless the disk does not take it. An alert is then sent all the same: it may be the
    /// one about the disk.
    ///
    /// # Errors
    /// Why it is not written.
    pub async fn save(self: &Arc<Self>) -> std::io::Result<()> {
        let mut saved = self.saved.lock().await;
        let (revision, state) = {
            let inner = self.lock();
            let revision = inner.dispatcher.revision();
            if revision == *saved {
                return Ok(());
            }
            (revision, inner.dispatcher.state())
        };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || keep::write(&path, &state)).await;
        written.unwrap_or_else(|error| Err(std::io::Error::other(error)))?;
        *saved = revision;
        Ok(())
    }

    /// A channel with its secrets, for the moment in which it is used.
    ///
    /// # Errors
    /// Why it cannot be used, in one sentence.
    pub async fn channel(&self, vault: &Arc<Vault>, name: &str) -> Result<crate::notify::Channel, String> {
        let written = self.lock().monitoring().channels.get(name).cloned();
        let written = written.ok_or_else(|| format!("there is no channel {name:?}"))?;
        let (vault, environment) = (Arc::clone(vault), self.environment.clone());
        let resolved = tokio::task::spawn_blocking(move || with_secrets(&vault, &environment, &written));
        resolved.await.map_err(|error| error.to_string())?
    }
}

fn with_secrets(
    vault: &Vault,
    environment: &EnvironmentKey,
    written: &monitoring::Channel,
) -> Result<crate::notify::Channel, String> {
    settings::channel(written, |value| match value {
        EnvValue::Literal(text) => Ok(text.clone()),
        EnvValue::Secret { name, version } => vault
            .value(environment, name, *version)
            .map_err(|why| format!("the secret {name} (version {version}) cannot be read: {why}")),
        EnvValue::Ref(_) => Err("a channel cannot refer to a service".to_owned()),
    })
}

#[cfg(test)]
mod tests;
