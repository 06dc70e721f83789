//! Every sample that is kept is also sent on, where an environment asks for it (Prometheus remote write).

mod sending;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_engine::State;
use fairway_metrics::exposition::Family;
use fairway_metrics::labels::Labels;
use fairway_metrics::remote::{Batch, Outbox, OutboxCounts, OutboxSettings};
use fairway_metrics::sample::Sample;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Watching, serving};
use crate::warn::warn;
use sending::{Sent, send};

/// Prometheus' own limit for a batch.
const SEND_WITHIN: Duration = Duration::from_secs(30);

/// Only the status counts.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Samples of one receiver that wait: half an hour of 800 series, and a few dozen megabytes at most.
const WAITING_MAX: usize = 100_000;

/// Who measured a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Fairway.
    Here,
    /// Somebody who sent it in. It may be of a series that the receiver knows better, and is refused with all that
    /// goes with it.
    Elsewhere,
}

#[derive(Debug)]
struct Line {
    here: Outbox,
    elsewhere: Outbox,
    /// Samples of batches that were taken but for them.
    refused: u64,
    /// It was said already that it refuses samples.
    is_told: bool,
    /// Whose samples it gets; those of nobody (the machine's, Fairway's own) go everywhere.
    environments: BTreeSet<String>,
}

/// By the receiver's address.
#[derive(Debug, Default)]
pub struct Writing {
    lines: Mutex<BTreeMap<String, Line>>,
    to_send: Notify,
}

type Wanted = BTreeMap<String, BTreeSet<String>>;

fn wanted(state: &State) -> Wanted {
    let mut wanted = Wanted::new();
    for env in state.environments.values() {
        for url in serving(env).into_iter().flat_map(|release| &release.spec.monitoring.remote_write) {
            wanted.entry(url.clone()).or_default().insert(env.key.to_string());
        }
    }
    wanted
}

impl Line {
    fn new() -> Self {
        let settings = OutboxSettings { capacity_samples: WAITING_MAX, ..OutboxSettings::default() };
        Self {
            here: Outbox::new(settings),
            elsewhere: Outbox::new(settings),
            refused: 0,
            is_told: false,
            environments: BTreeSet::new(),
        }
    }

    fn outbox(&mut self, origin: Origin) -> &mut Outbox {
        match origin {
            Origin::Here => &mut self.here,
            Origin::Elsewhere => &mut self.elsewhere,
        }
    }

    fn counts(&self) -> OutboxCounts {
        let (one, other) = (self.here.counts(), self.elsewhere.counts());
        OutboxCounts {
            sent: (one.sent + other.sent).saturating_sub(self.refused),
            dropped: one.dropped + other.dropped,
            rejected: one.rejected + other.rejected + self.refused,
            retries: one.retries + other.retries,
        }
    }
}

impl Writing {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody gets samples.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lines().is_empty()
    }

    /// Never waits: what there is no room for is dropped, and counted.
    pub fn push(&self, origin: Origin, samples: &[(Labels, Sample)], now_ms: i64) {
        let mut lines = self.lines();
        for line in lines.values_mut() {
            let environments = std::mem::take(&mut line.environments);
            let is_theirs = |(labels, _): &&(Labels, Sample)| {
                labels.get("environment").is_none_or(|of| of.is_empty() || environments.contains(of))
            };
            line.outbox(origin).push(samples.iter().filter(is_theirs).cloned(), now_ms);
            line.environments = environments;
        }
        if !lines.is_empty() {
            self.to_send.notify_one();
        }
    }

    fn configure(&self, wanted: Wanted) {
        let mut lines = self.lines();
        lines.retain(|url, _| wanted.contains_key(url));
        for (url, environments) in wanted {
            lines.entry(url).or_insert_with(Line::new).environments = environments;
        }
    }

    fn due(&self, now_ms: i64) -> Vec<(String, Origin, Batch)> {
        let mut due = Vec::new();
        for (url, line) in self.lines().iter_mut() {
            for origin in [Origin::Here, Origin::Elsewhere] {
                due.extend(line.outbox(origin).take(now_ms).map(|batch| (url.clone(), origin, batch)));
            }
        }
        due
    }

    fn next_at_ms(&self) -> Option<i64> {
        let lines = self.lines();
        lines.values().flat_map(|line| [line.here.wake_at_ms(), line.elsewhere.wake_at_ms()]).flatten().min()
    }

    fn answered(&self, url: &str, origin: Origin, sent: Sent, now_ms: i64) {
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(url) else { return };
        let rejected = line.counts().rejected;
        line.outbox(origin).answered(sent.outcome, now_ms);
        line.refused += sent.refused;
        let lost = line.counts().rejected - rejected;
        if lost > 0 && !std::mem::replace(&mut line.is_told, true) {
            let why = sent.why.unwrap_or_default();
            warn(format_args!(
                "{} does not take {lost} of the samples that were sent to it, and they are not sent again: {why}; \
                 fairway_remote_write_samples_lost_total counts on",
                host(url)
            ));
        }
    }

    /// For `/metrics`. Addresses may carry credentials: only the host is shown.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let lines = self.lines();
        if lines.is_empty() {
            return Vec::new();
        }
        let mut sent =
            Family::counter("fairway_remote_write_samples_sent_total", "Samples that a receiver took.");
        let mut lost = Family::counter(
            "fairway_remote_write_samples_lost_total",
            "Samples that a receiver refused, or that there was no room to keep for it.",
        );
        let mut waiting =
            Family::gauge("fairway_remote_write_samples_pending", "Samples that wait to be sent.");
        let mut retries =
            Family::counter("fairway_remote_write_retries_total", "Batches that were sent again.");
        for (number, (url, line)) in lines.iter().enumerate() {
            let counts = line.counts();
            let number = number.to_string();
            let of = || Labels::new([("receiver", number.as_str()), ("host", host(url))]);
            sent = sent.with(of(), counts.sent as f64);
            lost = lost.with(of().with("reason", "no_room"), counts.dropped as f64);
            lost = lost.with(of().with("reason", "refused"), counts.rejected as f64);
            waiting = waiting.with(of(), (line.here.pending() + line.elsewhere.pending()) as f64);
            retries = retries.with(of(), counts.retries as f64);
        }
        vec![sent, lost, waiting, retries]
    }
}

fn host(url: &str) -> &str {
    let authority = url.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

pub async fn run(watching: Arc<Watching>) {
    let mut news = watching.pump.follow();
    let mut sending: JoinSet<(String, Origin, Sent)> = JoinSet::new();
    loop {
        watching.writing.configure(watching.pump.shared.read(wanted));
        for (url, origin, batch) in watching.writing.due(watching.now_ms()) {
            let outgoing = watching.outgoing.clone();
            sending.spawn(async move {
                let sent = send(&outgoing, &url, &batch).await;
                (url, origin, sent)
            });
        }
        let wait = match watching.writing.next_at_ms() {
            Some(at_ms) => {
                Duration::from_millis(u64::try_from(at_ms.saturating_sub(watching.now_ms())).unwrap_or(0))
            }
            // Samples wake it.
            None => Duration::MAX,
        };
        tokio::select! {
            Some(done) = sending.join_next() => {
                if let Ok((url, origin, sent)) = done {
                    watching.writing.answered(&url, origin, sent, watching.now_ms());
                }
            }
            _ = news.recv() => while news.try_recv().is_ok() {},
            () = watching.writing.to_send.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use fairway_metrics::remote::Outcome;

    use super::*;

    fn taken() -> Sent {
        let outcome = Outcome::Answered { status: 204, retry_after: None };
        Sent { outcome, refused: 0, why: None }
    }

    fn sample(environment: &str) -> (Labels, Sample) {
        let labels = Labels::new([("__name__", "up"), ("environment", environment)]);
        (labels, Sample { at_ms: 1, value: 1.0 })
    }

    #[test]
    fn a_receiver_gets_the_samples_of_its_environments_and_of_nobody() {
        let writing = Writing::default();
        writing.configure(Wanted::from([(
            "http://a@x/write".to_owned(),
            BTreeSet::from(["shop/dev".to_owned()]),
        )]));
        writing.push(Origin::Here, &[sample("shop/dev"), sample("shop/production"), sample("")], 0);
        let due = writing.due(60_000);
        assert_eq!((due.len(), due[0].2.samples.len()), (1, 2));
        writing.answered(&due[0].0, due[0].1, taken(), 60_000);
        assert_eq!(writing.next_at_ms(), None);
        let text = fairway_metrics::exposition::write(
            &writing.families(),
            fairway_metrics::exposition::Format::Text,
        );
        assert!(
            text.contains(r#"fairway_remote_write_samples_sent_total{host="x",receiver="0"} 2"#),
            "{text}"
        );
        writing.configure(Wanted::new());
        writing.push(Origin::Here, &[sample("shop/dev")], 70_000);
        assert!(writing.due(i64::MAX).is_empty() && writing.families().is_empty());
    }

    #[test]
    fn what_others_sent_in_goes_in_batches_of_its_own() {
        let writing = Writing::default();
        writing.configure(Wanted::from([("http://x/write".to_owned(), BTreeSet::new())]));
        writing.push(Origin::Elsewhere, &[sample(""), sample("")], 0);
        writing.push(Origin::Here, &[sample("")], 0);
        let due = writing.due(60_000);
        let of: Vec<_> = due.iter().map(|(_, origin, batch)| (*origin, batch.samples.len())).collect();
        assert_eq!(of, [(Origin::Here, 1), (Origin::Elsewhere, 2)]);
        writing.answered("http://x/write", Origin::Here, taken(), 60_000);
        let partly = Sent { refused: 1, why: Some("out of order".to_owned()), ..taken() };
        writing.answered("http://x/write", Origin::Elsewhere, partly, 60_000);
        let counts = writing.lines()["http://x/write"].counts();
        assert_eq!((counts.sent, counts.rejected), (2, 1));
    }
}
