//! Rules and alerts at work: two tasks. One evaluates rules and says what fires; the other tells people, so that
//! neither waits for the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_api::{AlertList, ApiError, ChannelInfo, ChannelTest, SilenceInfo, SilenceRequest};
use fairway_engine::id::EnvironmentKey;
use fairway_metrics::httpapi;
use fairway_metrics::notify::Outcome;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Watching;
use crate::drivers::Hands;
use crate::notify::{Origin, Senders, TestAnswer};
use crate::outgoing::Outgoing;
use crate::secrets::Vault;
use crate::warn::warn;

mod book;
mod changed;
mod desk;
mod elsewhere;
mod evaluate;
mod keep;
mod said;
mod view;

pub use elsewhere::run as listen;
pub use evaluate::run as evaluate;

use desk::{Desk, Message, Sent};
use elsewhere::{AllHeard, Heard, Told};

/// A defect that shows in each round must not become a busy loop.
const ROUND_MIN: Duration = Duration::from_millis(200);

/// What both tasks and the API share.
#[derive(Debug)]
pub struct Alerting {
    dir: PathBuf,
    senders: Senders,
    vault: Arc<Vault>,
    desks: Mutex<BTreeMap<EnvironmentKey, Arc<Desk>>>,
    heard: Mutex<AllHeard>,
    shown: Mutex<Arc<Vec<httpapi::RuleGroup>>>,
    problems: Mutex<BTreeMap<EnvironmentKey, Vec<String>>>,
    /// There may be something to send.
    to_tell: Notify,
    /// Somebody else's alerts changed, and are not written down yet.
    is_heard_new: AtomicBool,
    to_report: Notify,
}

impl Alerting {
    #[must_use]
    pub fn new(hands: &Hands, outgoing: Outgoing) -> Self {
        let origin = Origin { name: machine(), url: String::new() };
        Self {
            dir: hands.state_dir.join("alerts"),
            senders: Senders::new(outgoing, origin),
            vault: Arc::clone(&hands.vault),
            desks: Mutex::default(),
            heard: Mutex::default(),
            shown: Mutex::default(),
            problems: Mutex::default(),
            to_tell: Notify::new(),
            is_heard_new: AtomicBool::new(false),
            to_report: Notify::new(),
        }
    }

    fn memory_path(&self) -> PathBuf {
        self.dir.join("rules.json")
    }

    fn desk_path(&self, environment: &EnvironmentKey) -> PathBuf {
        let dir = self.dir.join(environment.project.as_str());
        dir.join(format!("{}.json", environment.environment.as_str()))
    }

    fn desks(&self) -> Vec<Arc<Desk>> {
        lock(&self.desks).values().cloned().collect()
    }

    fn desk(&self, environment: &EnvironmentKey) -> Result<Arc<Desk>, ApiError> {
        lock(&self.desks).get(environment).cloned().ok_or_else(|| {
            ApiError::new("environment/down", format!("nothing is deployed to {environment}, or it is down"))
                .hint("fairway deploy -e ENV")
                .exit(1)
        })
    }

    /// A Prometheus answered, or did not; then what it told last goes on.
    fn hear(&self, environment: EnvironmentKey, answer: &Result<Vec<Told>, String>) {
        let mut all = lock(&self.heard);
        let heard = all.entry(environment.clone()).or_default();
        match answer {
            Ok(told) => {
                let key = environment.to_string();
                let is_ours = |told: &&Told| {
                    let of = told.labels.get("environment").unwrap_or_default();
                    of.is_empty() || of == key
                };
                let alerts: Vec<Told> = told.iter().filter(is_ours).cloned().collect();
                if heard.alerts != alerts || !heard.answered {
                    self.is_heard_new.store(true, Ordering::Release);
                    self.to_report.notify_one();
                }
                *heard = Heard { alerts, answered: true, silent: None };
            }
            Err(why) => {
                if heard.silent.is_none() {
                    warn(format_args!("{environment}: {why}"));
                }
                heard.silent = Some(why.clone());
            }
        }
    }

    fn forget_all_but(&self, is_wanted: impl Fn(&EnvironmentKey) -> bool) {
        lock(&self.heard).retain(|environment, _| is_wanted(environment));
        self.is_heard_new.store(true, Ordering::Release);
    }

    /// For `/api/v1/rules` and `/api/v1/alerts`.
    #[must_use]
    pub fn groups(&self) -> Arc<Vec<httpapi::RuleGroup>> {
        Arc::clone(&lock(&self.shown))
    }

    /// # Errors
    /// When nothing runs there.
    pub fn list(&self, environment: &EnvironmentKey, now_ms: i64) -> Result<AlertList, ApiError> {
        let desk = self.desk(environment)?;
        let mut problems = lock(&self.problems).get(environment).cloned().unwrap_or_default();
        problems.extend(lock(&self.heard).get(environment).and_then(|heard| heard.silent.clone()));
        problems.extend(desk.lock().problem.clone());
        Ok(view::list(&desk, &self.groups(), problems, now_ms))
    }

    /// # Errors
    /// When nothing runs there.
    pub fn silences(&self, environment: &EnvironmentKey, now_ms: i64) -> Result<Vec<SilenceInfo>, ApiError> {
        Ok(view::silences(&self.desk(environment)?.lock(), now_ms))
    }

    /// Durable when it returns.
    ///
    /// # Errors
    /// When it would silence everything, lasts too long, or cannot be written down.
    pub async fn silence(
        &self,
        environment: &EnvironmentKey,
        request: &SilenceRequest,
        by: &str,
        now_ms: i64,
    ) -> Result<SilenceInfo, ApiError> {
        let desk = self.desk(environment)?;
        let what = view::wanted(request, by, now_ms)?;
        let made = {
            let mut inner = desk.lock();
            let id = inner.dispatcher.silence(now_ms, what).map_err(|error| view::refused(&error))?;
            let silence = inner.dispatcher.silences().find(|silence| silence.id == id);
            silence.map(|silence| view::shown(silence, now_ms))
        };
        let made = made.ok_or_else(|| ApiError::new("alert/silence", "the silence is over already"))?;
        self.saved(&desk).await?;
        Ok(made)
    }

    /// Ends a silence now. Durable when it returns.
    ///
    /// # Errors
    /// When there is none of this id, or it cannot be written down.
    pub async fn unsilence(
        &self,
        environment: &EnvironmentKey,
        id: &str,
        now_ms: i64,
    ) -> Result<SilenceInfo, ApiError> {
        let desk = self.desk(environment)?;
        let id = view::silence_id(id)?;
        let ended = {
            let mut inner = desk.lock();
            inner.dispatcher.expire_silence(now_ms, id).map_err(|error| view::refused(&error))?;
            let silence = inner.dispatcher.silences().find(|silence| silence.id == id);
            silence.map(|silence| view::shown(silence, now_ms))
        };
        self.saved(&desk).await?;
        ended.ok_or_else(|| ApiError::new("alert/silence", "the silence is over already"))
    }

    async fn saved(&self, desk: &Arc<Desk>) -> Result<(), ApiError> {
        self.to_tell.notify_one();
        desk.save().await.map_err(|error| {
            ApiError::new("alert/not-kept", "it holds now, and would not survive a restart")
                .cause(error.to_string())
                .hint("make room in the state directory, then do it again")
        })
    }

    /// # Errors
    /// When nothing runs there.
    pub fn channels(&self, environment: &EnvironmentKey) -> Result<Vec<ChannelInfo>, ApiError> {
        Ok(view::channels(&self.desk(environment)?.lock()))
    }

    /// Sends a message that says that it is a test.
    ///
    /// # Errors
    /// When there is no such channel.
    pub async fn test(
        &self,
        environment: &EnvironmentKey,
        name: &str,
        now_ms: i64,
    ) -> Result<ChannelTest, ApiError> {
        let desk = self.desk(environment)?;
        let known: Vec<String> = desk.lock().monitoring().channels.keys().cloned().collect();
        if !known.iter().any(|known| known == name) {
            let error =
                ApiError::new("alert/unknown-channel", format!("{environment} has no channel {name:?}"));
            let hint = match known.as_slice() {
                [] => "channels are in [alerts.channels.NAME] of fairway.toml, and come with a deploy"
                    .to_owned(),
                known => format!("the channels are {}", known.join(", ")),
            };
            return Err(error.hint(hint).exit(2));
        }
        let refused = |answer: String| ChannelTest { is_taken: false, answer };
        let channel = match desk.channel(&self.vault, name).await {
            Ok(channel) => channel,
            Err(why) => return Ok(refused(why)),
        };
        Ok(match self.senders.test(&channel, name, now_ms).await {
            TestAnswer::Taken { answer } => ChannelTest { is_taken: true, answer },
            TestAnswer::Refused { why } => refused(why),
            TestAnswer::Failed { why } => refused(format!("{why} (it may work later)")),
        })
    }

    async fn send(&self, desk: &Desk, message: Message, now_ms: i64) -> Sent {
        match message {
            Message::Delivery(delivery) => {
                let outcome = match desk.channel(&self.vault, &delivery.channel).await {
                    Ok(channel) => self.senders.send(&channel, &delivery, now_ms).await,
                    Err(why) => Outcome::Failed { why, perhaps_sent: false, retry_after: None },
                };
                Sent::Delivery(delivery.id, outcome)
            }
            Message::Batch { url, batch } => {
                let outcome = self.senders.forward(&url, &batch).await;
                Sent::Batch(batch.id, outcome)
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As people call it.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "fairway".to_owned() } else { name.trim().to_owned() }
}

/// Sends what is due, each message on a task of its own.
pub async fn tell(watching: Arc<Watching>) {
    let alerting = &watching.alerting;
    let mut sending: JoinSet<(Arc<Desk>, Sent)> = JoinSet::new();
    loop {
        let mut next: Option<i64> = None;
        for desk in alerting.desks() {
            let messages = desk.due(watching.now_ms());
            if let Err(error) = desk.save().await {
                warn(format_args!(
                    "{}: which alerts were told cannot be written down, they may be told twice: {error}",
                    desk.environment
                ));
            }
            for message in messages {
                let (watching, desk) = (Arc::clone(&watching), Arc::clone(&desk));
                sending.spawn(async move {
                    let sent = watching.alerting.send(&desk, message, watching.now_ms()).await;
                    (desk, sent)
                });
            }
            next = next.into_iter().chain(desk.next_at_ms()).min();
        }
        let wait = next.map_or(Duration::MAX, |at_ms| until(at_ms, watching.now_ms()));
        tokio::select! {
            Some(done) = sending.join_next() => {
                // One that panicked is given up by the dispatcher, and sent again.
                if let Ok((desk, sent)) = done {
                    desk.sent(sent, watching.now_ms());
                }
            }
            () = alerting.to_tell.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn until(at_ms: i64, now_ms: i64) -> Duration {
    let wait = Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0));
    wait.max(ROUND_MIN)
}
