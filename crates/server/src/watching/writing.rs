//! Every sample that is kept is also sent on, where an environment asks for it (Prometheus remote write).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_engine::State;
use fairway_metrics::exposition::Family;
use fairway_metrics::labels::Labels;
use fairway_metrics::remote::{Batch, Message, Outbox, OutboxSettings, Outcome, encode};
use fairway_metrics::sample::Sample;
use hyper::header::HeaderName;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Watching, serving};
use crate::outgoing::{Outgoing, Request};

/// Prometheus' own limit for a batch.
const SEND_WITHIN: Duration = Duration::from_secs(30);

/// Only the status counts.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Samples of one receiver that wait: half an hour of 800 series, and a few dozen megabytes at most.
const WAITING_MAX: usize = 100_000;

#[derive(Debug)]
struct Line {
    outbox: Outbox,
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

impl Writing {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits: what there is no room for is dropped, and counted.
    pub fn push(&self, samples: &[(Labels, Sample)], now_ms: i64) {
        let mut lines = self.lines();
        for line in lines.values_mut() {
            let environments = &line.environments;
            let is_theirs = |(labels, _): &&(Labels, Sample)| {
                labels.get("environment").is_none_or(|of| of.is_empty() || environments.contains(of))
            };
            line.outbox.push(samples.iter().filter(is_theirs).cloned(), now_ms);
        }
        if !lines.is_empty() {
            self.to_send.notify_one();
        }
    }

    fn configure(&self, wanted: Wanted) {
        let mut lines = self.lines();
        lines.retain(|url, _| wanted.contains_key(url));
        for (url, environments) in wanted {
            let settings = OutboxSettings { capacity_samples: WAITING_MAX, ..OutboxSettings::default() };
            let new = || Line { outbox: Outbox::new(settings), environments: BTreeSet::new() };
            lines.entry(url).or_insert_with(new).environments = environments;
        }
    }

    fn due(&self, now_ms: i64) -> Vec<(String, Batch)> {
        let mut lines = self.lines();
        lines.iter_mut().filter_map(|(url, line)| Some((url.clone(), line.outbox.take(now_ms)?))).collect()
    }

    fn next_at_ms(&self) -> Option<i64> {
        self.lines().values().filter_map(|line| line.outbox.wake_at_ms()).min()
    }

    fn answered(&self, url: &str, outcome: Outcome, now_ms: i64) {
        if let Some(line) = self.lines().get_mut(url) {
            line.outbox.answered(outcome, now_ms);
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
            let counts = line.outbox.counts();
            let number = number.to_string();
            let of = || Labels::new([("receiver", number.as_str()), ("host", host(url))]);
            sent = sent.with(of(), counts.sent as f64);
            lost = lost.with(of().with("reason", "no_room"), counts.dropped as f64);
            lost = lost.with(of().with("reason", "refused"), counts.rejected as f64);
            waiting = waiting.with(of(), line.outbox.pending() as f64);
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
    let mut sending: JoinSet<(String, Outcome)> = JoinSet::new();
    loop {
        watching.writing.configure(watching.pump.shared.read(wanted));
        for (url, batch) in watching.writing.due(watching.now_ms()) {
            let outgoing = watching.outgoing.clone();
            sending.spawn(async move {
                let outcome = send(&outgoing, &url, &batch).await;
                (url, outcome)
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
                if let Ok((url, outcome)) = done {
                    watching.writing.answered(&url, outcome, watching.now_ms());
                }
            }
            _ = news.recv() => while news.try_recv().is_ok() {},
            () = watching.writing.to_send.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn send(outgoing: &Outgoing, url: &str, batch: &Batch) -> Outcome {
    let encoded = encode(&batch.samples, Message::V1);
    let headers = encoded.headers.iter().map(|(name, value)| {
        (
            HeaderName::from_bytes(name.as_bytes()).expect("they are constants of letters and dashes"),
            (*value).to_owned(),
        )
    });
    let request = Request {
        headers: headers.collect(),
        within: SEND_WITHIN,
        answer_bytes_max: ANSWER_BYTES_MAX,
        ..Request::post(url, "application/x-protobuf", encoded.body)
    };
    match outgoing.send(request).await {
        Ok(answer) => Outcome::Answered { status: answer.status, retry_after: answer.retry_after() },
        Err(_) => Outcome::NoAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        writing.push(&[sample("shop/dev"), sample("shop/production"), sample("")], 0);
        let due = writing.due(60_000);
        assert_eq!((due.len(), due[0].1.samples.len()), (1, 2));
        writing.answered(&due[0].0, Outcome::Answered { status: 204, retry_after: None }, 60_000);
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
        writing.push(&[sample("shop/dev")], 70_000);
        assert!(writing.due(i64::MAX).is_empty() && writing.families().is_empty());
    }
}
