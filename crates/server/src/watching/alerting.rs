//! Rules and alerts at work: two tasks. One evaluates rules and says what fires; the other tells people, so that
//! neither waits for the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_api::{AlertList, ApiError, ChannelInfo, ChannelTest, SilenceInfo, SilenceRequest};
use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::MetricsSource;
use fairway_engine::{Input, State};
use fairway_metrics::httpapi;
use fairway_metrics::labels::Labels;
use fairway_metrics::notify::{Alert, Outcome};
use fairway_metrics::rules::{self, AlertState};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Watching, serving};
use crate::drivers::Hands;
use crate::notify::{Origin, Senders, TestAnswer};
use crate::outgoing::Outgoing;
use crate::secrets::Vault;
use crate::warn::warn;

mod book;
mod changed;
mod desk;
mod elsewhere;
mod keep;
mod view;

pub use elsewhere::run as listen;

use book::{Book, Kept, Settings};
use desk::{Desk, Message, Sent};
use elsewhere::{AllHeard, Heard, Told};

/// What fires is reported to whoever tells people at least this often: far within the time after which an alert that
/// nobody reports counts as over.
const REPORT_EVERY_MS: i64 = 60_000;

/// Groups' moments and series are written down at least this often while nothing changes: after a restart a pending
/// alert may count on from where it was.
const KEEP_EVERY_MS: i64 = 600_000;

/// A defect that shows in each round must not become a busy loop.
const ROUND_MIN: Duration = Duration::from_millis(200);

/// An alert's name in the record, with the labels that tell it from others of its rule. The record cuts texts at 300
/// characters, and the end must have the name of the beginning.
const NAME_CHARS_MAX: usize = 200;

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

/// `rules.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    groups: Vec<Kept>,
    #[serde(default)]
    heard: Vec<(EnvironmentKey, Heard)>,
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

fn settings(state: &State) -> Settings {
    let of = |env: &fairway_engine::Environment| {
        let number = env.stable.or(env.rollout.as_ref().map(|rollout| rollout.to))?;
        serving(env)?;
        Some((env.key.clone(), Arc::clone(env.releases.get(&number)?)))
    };
    state.environments.values().filter_map(of).collect()
}

fn is_same(one: &Settings, other: &Settings) -> bool {
    one.len() == other.len()
        && one.iter().all(|(environment, release)| {
            other
                .get(environment)
                .is_some_and(|other| Arc::ptr_eq(release, other) || release.number == other.number)
        })
}

/// What the evaluating task knows alone.
struct Evaluator {
    watching: Arc<Watching>,
    book: Book,
    settings: Settings,
    kept_at_ms: i64,
    /// Critical alerts that the record says fire.
    told: BTreeMap<EnvironmentKey, BTreeSet<String>>,
}

/// Evaluates rules as they are due, and says what fires.
pub async fn evaluate(watching: Arc<Watching>) {
    let memory_path = watching.alerting.memory_path();
    let memory = read_memory(&memory_path).await;
    *lock(&watching.alerting.heard) = memory.heard.into_iter().collect();
    let told = watching.pump.shared.read(|state| {
        let of = |env: &fairway_engine::Environment| (env.key.clone(), env.alerts.keys().cloned().collect());
        state.environments.values().map(of).collect()
    });
    let mut news = watching.pump.follow();
    let kept_at_ms = watching.now_ms();
    let book = Book::restored(memory.groups);
    let mut evaluator =
        Evaluator { watching: Arc::clone(&watching), book, settings: Settings::new(), kept_at_ms, told };
    let mut reported_at_ms = i64::MIN;
    loop {
        let now_ms = watching.now_ms();
        let is_new = evaluator.configure(now_ms).await;
        let is_due = evaluator.book.next_at_ms().is_some_and(|at_ms| at_ms <= now_ms);
        if is_due {
            evaluator.evaluate().await;
        }
        if is_new || is_due || reported_at_ms.saturating_add(REPORT_EVERY_MS) <= now_ms {
            evaluator.report().await;
            reported_at_ms = now_ms;
        }
        let nobody = evaluator.settings.is_empty();
        let next_ms = evaluator
            .book
            .next_at_ms()
            .into_iter()
            .chain([reported_at_ms.saturating_add(REPORT_EVERY_MS)])
            .min();
        // With nothing deployed only an event can change that.
        let wait = match next_ms {
            Some(at_ms) if !nobody => until(at_ms, watching.now_ms()),
            Some(_) | None => Duration::MAX,
        };
        tokio::select! {
            // Missed or read: there is news.
            _ = news.recv() => while news.try_recv().is_ok() {},
            () = watching.alerting.to_report.notified() => reported_at_ms = i64::MIN,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn read_memory(path: &Path) -> Memory {
    let of = path.to_owned();
    let read = tokio::task::spawn_blocking(move || keep::read::<Memory>(&of)).await;
    match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(memory) => memory.unwrap_or_default(),
        Err(error) => {
            warn(format_args!("since when alerts fire is not known: {}: {error}", path.display()));
            Memory::default()
        }
    }
}

impl Evaluator {
    /// Whether other settings count from now on.
    async fn configure(&mut self, now_ms: i64) -> bool {
        let settings = self.watching.pump.shared.read(settings);
        if is_same(&settings, &self.settings) {
            return false;
        }
        let alerting = &self.watching.alerting;
        for (environment, release) in &settings {
            let known = lock(&alerting.desks).get(environment).cloned();
            match known {
                Some(desk) => desk.configure(release, now_ms),
                None => {
                    let (path, key, release) =
                        (alerting.desk_path(environment), environment.clone(), Arc::clone(release));
                    let opened =
                        tokio::task::spawn_blocking(move || Desk::open(key, path, release, now_ms)).await;
                    if let Ok(desk) = opened {
                        lock(&alerting.desks).insert(environment.clone(), Arc::new(desk));
                    }
                }
            }
        }
        let round = self.book.configure(&settings, now_ms);
        self.settings = settings;
        self.watching.keep(round.samples).await;
        self.show();
        true
    }

    fn show(&self) {
        let alerting = &self.watching.alerting;
        *lock(&alerting.shown) = Arc::new(self.book.shown());
        let of = |environment: &EnvironmentKey| (environment.clone(), self.book.problems(environment));
        *lock(&alerting.problems) = self.settings.keys().map(of).collect();
    }

    async fn evaluate(&mut self) {
        let watching = Arc::clone(&self.watching);
        let mut book = std::mem::take(&mut self.book);
        let done = tokio::task::spawn_blocking(move || {
            let round = book.evaluate(&watching.store, &watching.promql, watching.now_ms());
            (book, round)
        });
        let round = match done.await {
            Ok((book, round)) => {
                self.book = book;
                round
            }
            Err(error) => {
                // Only a defect panics there. The rules begin again from what was written down.
                warn(format_args!("rules could not be evaluated: {error}"));
                self.book = Book::restored(read_memory(&self.watching.alerting.memory_path()).await.groups);
                self.settings.clear();
                return;
            }
        };
        let changed = round.changed;
        self.watching.keep(round.samples).await;
        self.show();
        let now_ms = self.watching.now_ms();
        if changed || self.kept_at_ms.saturating_add(KEEP_EVERY_MS) <= now_ms {
            self.kept_at_ms = now_ms;
            self.keep().await;
        }
    }

    async fn keep(&self) {
        let alerting = &self.watching.alerting;
        let heard = lock(&alerting.heard).iter().map(|(key, heard)| (key.clone(), heard.clone())).collect();
        let memory = Memory { groups: self.book.kept(), heard };
        let path = alerting.memory_path();
        let written = tokio::task::spawn_blocking(move || keep::write(&path, &memory)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            warn(format_args!("since when alerts fire cannot be written down: {error}"));
        }
    }

    /// To those who tell people, and to the engine.
    async fn report(&mut self) {
        if self.watching.alerting.is_heard_new.swap(false, Ordering::AcqRel) {
            self.keep().await;
        }
        let now_ms = self.watching.now_ms();
        for desk in self.watching.alerting.desks() {
            let environment = desk.environment.clone();
            let changed = self.watching.pump.shared.read(|state| {
                state.environments.get(&environment).and_then(|env| changed::changed(env, now_ms))
            });
            let known = self.alerts(&environment);
            let alerts: Vec<Alert> =
                known.alerts.into_iter().map(|alert| said(alert, changed.as_deref())).collect();
            let critical = alerts.iter().filter(|alert| {
                alert.ends_at_ms.is_none() && alert.labels.get("severity") == Some("critical")
            });
            let critical: BTreeMap<String, String> =
                critical.map(|alert| (recorded_name(&alert.labels), why(alert))).collect();
            self.tell_engine(&environment, &critical, known.is_sure).await;
            if known.is_sure || !alerts.is_empty() {
                desk.report(alerts, now_ms);
            }
        }
        self.watching.alerting.to_tell.notify_one();
    }

    fn alerts(&self, environment: &EnvironmentKey) -> Known {
        let Some(release) = self.settings.get(environment) else {
            // It is down: nothing of it fires.
            return Known { alerts: Vec::new(), is_sure: true };
        };
        let monitoring = &release.spec.monitoring;
        match monitoring.source {
            MetricsSource::BuiltIn => Known {
                alerts: self.book.alerts(environment, monitoring).filter_map(of_rule).collect(),
                is_sure: self.book.is_sure(environment),
            },
            MetricsSource::Prometheus { .. } => {
                let heard = lock(&self.watching.alerting.heard).get(environment).cloned().unwrap_or_default();
                let alerts = heard.alerts.into_iter().map(|told| Alert {
                    labels: told.labels,
                    annotations: texts(&told.annotations),
                    starts_at_ms: told.starts_at_ms,
                    ends_at_ms: None,
                    generator_url: String::new(),
                });
                Known { alerts: alerts.collect(), is_sure: heard.answered }
            }
        }
    }

    /// Only what changed: each is a fact on the record.
    async fn tell_engine(
        &mut self,
        environment: &EnvironmentKey,
        critical: &BTreeMap<String, String>,
        is_sure: bool,
    ) {
        let told = self.told.entry(environment.clone()).or_default();
        let mut changes: Vec<(String, bool, String)> = Vec::new();
        for (alert, why) in critical {
            if told.insert(alert.clone()) {
                changes.push((alert.clone(), true, why.clone()));
            }
        }
        // What is not known to have ended has not ended.
        if is_sure {
            let ended: Vec<String> =
                told.iter().filter(|alert| !critical.contains_key(*alert)).cloned().collect();
            for alert in ended {
                told.remove(&alert);
                changes.push((alert, false, "it does not fire any more".to_owned()));
            }
        }
        for (alert, firing, why) in changes {
            let environment = environment.clone();
            self.watching
                .pump
                .outcome(Input::Alert { environment, alert, critical: true, firing, why })
                .await;
        }
    }
}

struct Known {
    alerts: Vec<Alert>,
    /// Whether what is not among them does not fire.
    is_sure: bool,
}

/// As whoever tells people wants it; nothing while it is pending.
fn of_rule(alert: &rules::Alert) -> Option<Alert> {
    let (starts_at_ms, ends_at_ms) = match alert.state {
        AlertState::Pending => return None,
        AlertState::Firing { since_ms, .. } => (since_ms, None),
        AlertState::Resolved { since_ms, at_ms } => (since_ms, Some(at_ms)),
    };
    Some(Alert {
        labels: alert.labels.clone(),
        annotations: texts(&alert.annotations),
        starts_at_ms,
        ends_at_ms,
        generator_url: String::new(),
    })
}

fn texts(pairs: &BTreeMap<String, String>) -> Labels {
    Labels::new(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

fn said(mut alert: Alert, changed: Option<&str>) -> Alert {
    if let Some(changed) = changed.filter(|_| alert.ends_at_ms.is_none()) {
        alert.annotations = alert.annotations.with("changed", changed);
    }
    alert
}

/// `HighErrorRate{service="api"}`
fn recorded_name(labels: &Labels) -> String {
    let known = ["alertname", "environment", "severity"];
    let others = labels.iter().filter(|(name, _)| !known.contains(name));
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={value:?}")).collect();
    let name = labels.get("alertname").unwrap_or_default();
    let name = if others.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", others.join(",")) };
    if name.chars().count() <= NAME_CHARS_MAX {
        return name;
    }
    // Two that begin alike are still two.
    let hash = fairway_metrics::notify::Fingerprint::of(labels);
    format!("{}…{hash}", name.chars().take(NAME_CHARS_MAX).collect::<String>())
}

fn why(alert: &Alert) -> String {
    let said = ["summary", "description", "message"].iter().find_map(|name| alert.annotations.get(name));
    said.map_or_else(
        || format!("{} fires", alert.labels.get("alertname").unwrap_or("an alert")),
        str::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_record_are_short_and_differ_where_alerts_differ() {
        let short =
            Labels::new([("alertname", "Down"), ("environment", "shop/dev"), ("severity", "critical")]);
        assert_eq!(recorded_name(&short), "Down");
        assert_eq!(recorded_name(&short.with("service", "api")), "Down{service=\"api\"}");
        let long = |end: &str| recorded_name(&short.with("service", &format!("{}{end}", "x".repeat(1000))));
        assert_ne!(long("a"), long("b"));
        assert!(long("a").chars().count() < 300);
    }

    #[test]
    fn a_pending_alert_is_told_to_nobody() {
        let labels = Labels::new([("alertname", "A")]);
        let annotations = BTreeMap::from([("summary".to_owned(), "bad".to_owned())]);
        let alert = |state| rules::Alert {
            labels: labels.clone(),
            annotations: annotations.clone(),
            value: 1.0,
            active_at_ms: 1,
            state,
        };
        assert_eq!(of_rule(&alert(AlertState::Pending)), None);
        let firing = of_rule(&alert(AlertState::Firing { since_ms: 5, gone_since_ms: None })).unwrap();
        assert_eq!((firing.starts_at_ms, firing.ends_at_ms), (5, None));
        assert_eq!(why(&firing), "bad");
        assert_eq!(said(firing, Some("r2 by ann")).annotations.get("changed"), Some("r2 by ann"));
        let resolved = of_rule(&alert(AlertState::Resolved { since_ms: 5, at_ms: 9 })).unwrap();
        assert_eq!(resolved.ends_at_ms, Some(9));
        assert_eq!(said(resolved, Some("r2")).annotations.get("changed"), None);
    }
}
