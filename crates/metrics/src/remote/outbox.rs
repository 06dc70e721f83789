//! Remote write out: what waits to be sent, what is being sent, and when to try again. Pure: whoever has a connection
//! asks for a batch, sends it, and says what came of it.
//!
//! One batch is under way at a time, so that samples of a series arrive in order. When the other side is away for
//! long, the oldest samples go first, and are counted: an alert today is worth more than a graph of yesterday.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};

#[derive(Clone, Copy, Debug)]
pub struct OutboxSettings {
    /// Samples that wait or are under way, together.
    pub capacity_samples: usize,
    pub batch_samples_max: usize,
    /// A sample waits at most this long for a batch to be full.
    pub batch_wait: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// A `Retry-After` beyond this is cut: the other side does not decide how long we lose samples.
    pub retry_after_max: Duration,
}

impl Default for OutboxSettings {
    /// Prometheus' own figures for one shard, with the capacity of ten.
    fn default() -> Self {
        Self {
            capacity_samples: 100_000,
            batch_samples_max: 2_000,
            batch_wait: Duration::from_secs(5),
            backoff_min: Duration::from_millis(30),
            backoff_max: Duration::from_secs(5),
            retry_after_max: Duration::from_secs(300),
        }
    }
}

/// What to send now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    pub samples: Arc<[(Labels, Sample)]>,
    /// 0 for the first try.
    pub attempt: u32,
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// No answer in time, or no connection.
    NoAnswer,
}

/// Samples, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    pub sent: u64,
    /// For want of room, oldest first.
    pub dropped: u64,
    /// The other side will not have them.
    pub rejected: u64,
    /// Batches, not samples.
    pub retries: u64,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is under way.
    Ready,
    Sending(Batch),
    Waiting {
        batch: Batch,
        until_ms: TimestampMs,
    },
}

#[derive(Debug)]
struct Queued {
    since_ms: TimestampMs,
    labels: Labels,
    sample: Sample,
}

#[derive(Debug)]
pub struct Outbox {
    settings: OutboxSettings,
    queue: VecDeque<Queued>,
    phase: Phase,
    counts: OutboxCounts,
}

/// What an answer says about the samples of a batch.
enum Verdict {
    Written,
    Again,
    Never,
}

impl Outcome {
    /// As the specification has it: 5xx and 429 are to be tried again, all others are final.
    fn verdict(self) -> Verdict {
        match self {
            Self::Answered { status: 200..=299, .. } => Verdict::Written,
            Self::Answered { status: 429 | 500..=599, .. } | Self::NoAnswer => Verdict::Again,
            Self::Answered { .. } => Verdict::Never,
        }
    }
}

impl Outbox {
    #[must_use]
    pub fn new(settings: OutboxSettings) -> Self {
        Self { settings, queue: VecDeque::new(), phase: Phase::Ready, counts: OutboxCounts::default() }
    }

    #[must_use]
    pub fn counts(&self) -> OutboxCounts {
        self.counts
    }

    /// Samples that wait or are under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue.len() + self.under_way()
    }

    fn under_way(&self) -> usize {
        match &self.phase {
            Phase::Ready => 0,
            Phase::Sending(batch) | Phase::Waiting { batch, .. } => batch.samples.len(),
        }
    }

    pub fn push(&mut self, samples: impl IntoIterator<Item = (Labels, Sample)>, now_ms: TimestampMs) {
        let room = self.settings.capacity_samples.saturating_sub(self.under_way());
        for (labels, sample) in samples {
            self.queue.push_back(Queued { since_ms: now_ms, labels, sample });
            if self.queue.len() > room {
                self.queue.pop_front();
                self.counts.dropped += 1;
            }
        }
    }

    /// The batch to send now, if there is one. Then `answered` must follow.
    pub fn take(&mut self, now_ms: TimestampMs) -> Option<Batch> {
        if self.wake_at_ms()? > now_ms {
            return None;
        }
        let batch = match std::mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Ready => {
                let count = self.queue.len().min(self.batch_max());
                let samples =
                    self.queue.drain(..count).map(|queued| (queued.labels, queued.sample)).collect();
                Batch { samples, attempt: 0 }
            }
            Phase::Waiting { batch, .. } | Phase::Sending(batch) => {
                self.counts.retries += 1;
                Batch { attempt: batch.attempt.saturating_add(1), ..batch }
            }
        };
        self.phase = Phase::Sending(batch.clone());
        Some(batch)
    }

    /// When `take` has something; `None` while a batch is under way or nothing waits.
    #[must_use]
    pub fn wake_at_ms(&self) -> Option<TimestampMs> {
        match &self.phase {
            Phase::Sending(_) => None,
            Phase::Waiting { until_ms, .. } => Some(*until_ms),
            Phase::Ready => {
                let oldest = self.queue.front()?;
                let full = self.queue.len() >= self.batch_max();
                let wait = if full { Duration::ZERO } else { self.settings.batch_wait };
                Some(after(oldest.since_ms, wait))
            }
        }
    }

    /// What came of the batch under way. Without one, nothing happens.
    pub fn answered(&mut self, outcome: Outcome, now_ms: TimestampMs) {
        let batch = match std::mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Sending(batch) => batch,
            other @ (Phase::Ready | Phase::Waiting { .. }) => {
                self.phase = other;
                return;
            }
        };
        match outcome.verdict() {
            Verdict::Written => self.counts.sent += batch.samples.len() as u64,
            Verdict::Never => self.counts.rejected += batch.samples.len() as u64,
            Verdict::Again => {
                let until_ms = after(now_ms, self.pause(outcome, batch.attempt));
                self.phase = Phase::Waiting { batch, until_ms };
            }
        }
    }

    fn pause(&self, outcome: Outcome, attempt: u32) -> Duration {
        let asked = match outcome {
            Outcome::Answered { retry_after, .. } => retry_after,
            Outcome::NoAnswer => None,
        };
        // 2^20 times any first pause is beyond any longest one.
        let doubled = self.settings.backoff_min.saturating_mul(1 << attempt.min(20));
        asked.map_or(doubled.min(self.settings.backoff_max), |asked| asked.min(self.settings.retry_after_max))
    }

    fn batch_max(&self) -> usize {
        self.settings.batch_samples_max.clamp(1, self.settings.capacity_samples.max(1))
    }
}

fn after(at_ms: TimestampMs, wait: Duration) -> TimestampMs {
    at_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
