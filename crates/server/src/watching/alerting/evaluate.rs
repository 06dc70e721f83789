//! The task that evaluates rules as they are due, and says what fires.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::MetricsSource;
use fairway_engine::{Input, State};
use fairway_metrics::notify::Alert;
use serde::{Deserialize, Serialize};

use super::super::{Watching, serving};
use super::book::{Book, Kept, Settings};
use super::desk::Desk;
use super::elsewhere::Heard;
use super::said::{of_elsewhere, of_rule, recorded_name, said, why};
use super::{changed, keep, lock, until};
use crate::warn::warn;

/// What fires is reported to whoever tells people at least this often: far within the time after which an alert that
/// nobody reports counts as over.
const REPORT_EVERY_MS: i64 = 60_000;

/// Groups' moments and series are written down at least this often while nothing changes: after a restart a pending
/// alert may count on from where it was.
const KEEP_EVERY_MS: i64 = 600_000;

/// `rules.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    groups: Vec<Kept>,
    #[serde(default)]
    heard: Vec<(EnvironmentKey, Heard)>,
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
pub async fn run(watching: Arc<Watching>) {
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
            // What is said of the machine as a whole, as of a disk that is full, is no evidence against a release.
            let critical = alerts.iter().filter(|alert| {
                alert.ends_at_ms.is_none()
                    && alert.labels.get("severity") == Some("critical")
                    && alert.labels.get("environment").is_some()
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
                let alerts = heard.alerts.into_iter().map(of_elsewhere);
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
