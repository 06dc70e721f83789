//! Alerts on their way to an Alertmanager that does everything else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::alert::{Alert, Fingerprint, TimestampMs};
use super::config::to_ms;
use super::delivery::{DeliveryId, Outcome};
use super::group::{ANSWER_WITHIN, backoff_ms};
use super::health::ChannelHealth;

/// What fires is said again this often (Prometheus's `--rules.alert.resend-delay`).
pub const RESEND_EVERY: Duration = Duration::from_secs(60);

/// How long what was said holds without being said again: four times, as Prometheus has it. A Fairway that dies
/// leaves no alert behind that fires for ever.
pub const VALID_FOR: Duration = Duration::from_secs(4 * 60);

/// Alerts in one request; Prometheus sends 256 at a time.
pub const BATCH_MAX: usize = 256;

/// As many as the dispatcher keeps.
const ALERTS_MAX: usize = 20_000;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub id: DeliveryId,
    /// Every one has an end: when it ended, or when it will unless it is sent again.
    pub alerts: Vec<Alert>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    At(TimestampMs),
    /// In a batch that is on its way; `stale` when a report changed it since.
    Sending {
        stale: bool,
    },
}

#[derive(Clone, Debug)]
struct Held {
    alert: Alert,
    /// When it was reported last.
    seen_ms: TimestampMs,
    turn: Turn,
}

#[derive(Debug)]
enum Line {
    Free,
    Sending { id: DeliveryId, sent: Vec<Fingerprint>, until_ms: TimestampMs },
    Waiting { retry_at_ms: TimestampMs },
}

/// Keeps the latest word on each alert until it is delivered; one request at a time. Nothing of it is written down:
/// after a restart the rules report what fires, and what does not fire any more ends by itself at [`VALID_FOR`].
///
/// As with the dispatcher, rules whose evaluation fails keep reporting what they knew.
#[derive(Debug)]
pub struct Forwarder {
    alerts: BTreeMap<Fingerprint, Held>,
    line: Line,
    failures: u32,
    last_id: u64,
    dropped: u64,
    health: ChannelHealth,
}

impl Default for Forwarder {
    fn default() -> Self {
        Self {
            alerts: BTreeMap::new(),
            line: Line::Free,
            failures: 0,
            last_id: 0,
            dropped: 0,
            health: ChannelHealth::default(),
        }
    }
}

impl Forwarder {
    pub fn receive(&mut self, now_ms: TimestampMs, alerts: Vec<Alert>) {
        for alert in alerts {
            let fingerprint = Fingerprint::of(&alert.labels);
            let full = self.alerts.len() >= ALERTS_MAX;
            let ended = alert.ends_at_ms.is_some_and(|end_ms| end_ms <= now_ms);
            match self.alerts.get_mut(&fingerprint) {
                Some(held) => {
                    let was_ended = held.alert.ends_at_ms.is_some_and(|end_ms| end_ms <= now_ms);
                    held.seen_ms = now_ms;
                    if was_ended && ended {
                        continue;
                    }
                    let changed = was_ended != ended;
                    held.alert = alert;
                    held.turn = match held.turn {
                        Turn::Sending { stale } => Turn::Sending { stale: stale || changed },
                        Turn::At(at_ms) => Turn::At(if changed { now_ms } else { at_ms }),
                    };
                }
                // The Alertmanager never heard of it.
                None if ended => {}
                None if full => self.dropped += 1,
                None => {
                    self.alerts.insert(fingerprint, Held { alert, seen_ms: now_ms, turn: Turn::At(now_ms) });
                }
            }
        }
    }

    /// The next request, if one is due and none is on its way. Answer it with [`Self::delivered`].
    pub fn due(&mut self, now_ms: TimestampMs) -> Option<Batch> {
        match self.line {
            Line::Free => {}
            Line::Sending { id, until_ms, .. }
                if until_ms <= now_ms || until_ms > now_ms.saturating_add(LONGEST) =>
            {
                let why = "no word of how it went".to_owned();
                self.delivered(now_ms, id, Outcome::Failed { why, perhaps_sent: true, retry_after: None });
                return None;
            }
            Line::Sending { .. } => return None,
            Line::Waiting { retry_at_ms } if now_ms < retry_at_ms => return None,
            Line::Waiting { .. } => self.line = Line::Free,
        }
        // What its source does not report any more is left to end by itself.
        let valid_ms = to_ms(VALID_FOR);
        self.alerts.retain(|_, held| {
            held.alert.ends_at_ms.is_some() || held.seen_ms.saturating_add(valid_ms) > now_ms
        });
        let mut sent = Vec::new();
        let mut alerts = Vec::new();
        for (fingerprint, held) in &mut self.alerts {
            let Turn::At(at_ms) = held.turn else { continue };
            if at_ms > now_ms {
                continue;
            }
            let ends_at_ms = held.alert.ends_at_ms.unwrap_or(held.seen_ms.saturating_add(valid_ms));
            alerts.push(Alert { ends_at_ms: Some(ends_at_ms), ..held.alert.clone() });
            held.turn = Turn::Sending { stale: false };
            sent.push(*fingerprint);
            if sent.len() == BATCH_MAX {
                break;
            }
        }
        if sent.is_empty() {
            return None;
        }
        self.last_id += 1;
        let id = DeliveryId(self.last_id);
        self.line = Line::Sending { id, sent, until_ms: now_ms.saturating_add(LONGEST) };
        Some(Batch { id, alerts })
    }

    /// Whether the request was waited for.
    pub fn delivered(&mut self, now_ms: TimestampMs, id: DeliveryId, outcome: Outcome) -> bool {
        let sent = match &mut self.line {
            Line::Sending { id: waited, sent, .. } if *waited == id => std::mem::take(sent),
            Line::Sending { .. } | Line::Free | Line::Waiting { .. } => return false,
        };
        let taken = match outcome {
            Outcome::Sent => {
                self.health.worked(now_ms);
                self.failures = 0;
                self.line = Line::Free;
                true
            }
            Outcome::Failed { why, retry_after, .. } => {
                self.health.failed(now_ms, &why, false);
                self.wait(now_ms, retry_after.map_or(0, to_ms));
                false
            }
            // The next batch may be all right: one alert that it does not like must not hold up the others.
            Outcome::Refused { why } => {
                self.health.failed(now_ms, &why, true);
                self.wait(now_ms, 0);
                true
            }
        };
        for fingerprint in sent {
            let Some(held) = self.alerts.get_mut(&fingerprint) else { continue };
            let stale = held.turn == Turn::Sending { stale: true };
            let ended = held.alert.ends_at_ms.is_some_and(|end_ms| end_ms <= now_ms);
            if taken && ended && !stale {
                self.alerts.remove(&fingerprint);
            } else if taken && !stale {
                held.turn = Turn::At(now_ms.saturating_add(to_ms(RESEND_EVERY)));
            } else {
                held.turn = Turn::At(now_ms);
            }
        }
        true
    }

    fn wait(&mut self, now_ms: TimestampMs, least_ms: TimestampMs) {
        self.failures = self.failures.saturating_add(1);
        // Never longer than what was said holds, or firing alerts would end over there.
        let wait_ms = backoff_ms(self.failures).max(least_ms).min(to_ms(RESEND_EVERY));
        self.line = Line::Waiting { retry_at_ms: now_ms.saturating_add(wait_ms) };
    }

    #[must_use]
    pub fn next_at(&self) -> Option<TimestampMs> {
        let turns = self.alerts.values().filter_map(|held| match held.turn {
            Turn::At(at_ms) => Some(at_ms),
            Turn::Sending { .. } => None,
        });
        match &self.line {
            Line::Free => turns.min(),
            Line::Sending { until_ms, .. } => Some(*until_ms),
            Line::Waiting { retry_at_ms } => turns.min().map(|at_ms| at_ms.max(*retry_at_ms)),
        }
    }

    #[must_use]
    pub fn health(&self) -> &ChannelHealth {
        &self.health
    }

    /// Reports that found the memory full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

const LONGEST: TimestampMs = ANSWER_WITHIN.as_millis() as TimestampMs;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;

    fn alert(name: &str, ends_at_ms: Option<TimestampMs>) -> Alert {
        let labels = Labels::new([("alertname", name)]);
        let annotations = Labels::default();
        Alert { labels, annotations, starts_at_ms: 1, ends_at_ms, generator_url: String::new() }
    }

    fn names(batch: Option<Batch>) -> (DeliveryId, Vec<(String, TimestampMs)>) {
        let batch = batch.expect("something is due");
        let name = |alert: &Alert| alert.labels.get("alertname").unwrap().to_owned();
        (batch.id, batch.alerts.iter().map(|alert| (name(alert), alert.ends_at_ms.unwrap())).collect())
    }

    fn failed() -> Outcome {
        Outcome::Failed { why: "connection refused".to_owned(), perhaps_sent: false, retry_after: None }
    }

    #[test]
    fn what_fires_is_said_again_and_what_ended_once() {
        let mut forwarder = Forwarder::default();
        forwarder.receive(0, vec![alert("A", None), alert("never", Some(0))]);
        let (id, sent) = names(forwarder.due(0));
        assert_eq!(sent, [("A".to_owned(), 240_000)]);
        assert_eq!(forwarder.due(1), None, "one at a time");
        assert!(forwarder.delivered(5, id, Outcome::Sent));
        assert!(!forwarder.delivered(5, id, Outcome::Sent));
        forwarder.receive(30_000, vec![alert("A", None)]);
        assert_eq!((forwarder.due(30_000), forwarder.next_at()), (None, Some(60_005)));
        let (id, sent) = names(forwarder.due(60_005));
        assert_eq!(sent, [("A".to_owned(), 270_000)], "it holds from its last report");
        // It ends while the request is on its way.
        forwarder.receive(60_100, vec![alert("A", Some(60_100))]);
        forwarder.delivered(60_200, id, Outcome::Sent);
        let (id, sent) = names(forwarder.due(60_200));
        assert_eq!(sent, [("A".to_owned(), 60_100)]);
        forwarder.delivered(60_300, id, Outcome::Sent);
        forwarder.receive(60_400, vec![alert("A", Some(60_100))]);
        assert_eq!((forwarder.due(60_400), forwarder.next_at()), (None, None));
    }

    #[test]
    fn an_end_that_could_not_be_sent_is_not_lost() {
        let mut forwarder = Forwarder::default();
        forwarder.receive(0, vec![alert("A", None)]);
        let (id, _) = names(forwarder.due(0));
        forwarder.delivered(0, id, Outcome::Sent);
        forwarder.receive(10, vec![alert("A", Some(10))]);
        let mut now_ms = 10;
        for wait_ms in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let (id, sent) = names(forwarder.due(now_ms));
            assert_eq!(sent, [("A".to_owned(), 10)]);
            forwarder.delivered(now_ms, id, failed());
            assert_eq!(forwarder.next_at(), Some(now_ms + wait_ms));
            assert_eq!(forwarder.due(now_ms + wait_ms - 1), None);
            now_ms += wait_ms;
        }
        assert!(forwarder.health().is_failing());
        let (id, _) = names(forwarder.due(now_ms));
        forwarder.delivered(now_ms, id, Outcome::Sent);
        assert_eq!(forwarder.next_at(), None);
    }

    #[test]
    fn what_nobody_reports_any_more_is_not_said_again() {
        let mut forwarder = Forwarder::default();
        forwarder.receive(0, vec![alert("A", None)]);
        let (id, _) = names(forwarder.due(0));
        forwarder.delivered(0, id, Outcome::Sent);
        assert!(forwarder.due(300_000).is_none());
        assert_eq!(forwarder.next_at(), None);
    }

    #[test]
    fn many_go_out_in_batches_and_a_lost_answer_is_a_failure() {
        let mut forwarder = Forwarder::default();
        forwarder.receive(0, (0..30_000).map(|index| alert(&format!("A{index}"), None)).collect());
        assert_eq!(forwarder.dropped(), 10_000);
        let (id, sent) = names(forwarder.due(0));
        assert_eq!(sent.len(), BATCH_MAX);
        assert_eq!(forwarder.due(LONGEST - 1), None);
        assert_eq!(forwarder.due(LONGEST), None, "the answer is given up, and the next waits a little");
        assert!(!forwarder.delivered(LONGEST, id, Outcome::Sent));
        forwarder.receive(LONGEST, (0..20_000).map(|index| alert(&format!("A{index}"), None)).collect());
        let mut now_ms = LONGEST + 1000;
        let mut all = 0;
        while let Some(batch) = forwarder.due(now_ms) {
            all += batch.alerts.len();
            forwarder.delivered(now_ms, batch.id, Outcome::Sent);
            now_ms += 1;
        }
        assert_eq!(all, 20_000);
    }
}
