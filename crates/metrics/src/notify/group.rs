//! Alerts that are told together, and what each channel has been told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::{Fingerprint, TimestampMs};
use super::config::to_ms;
use super::delivery::DeliveryId;
use crate::labels::Labels;

/// A channel that hiccups gets its message a second later.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// One that is down for an hour is found again within five minutes of its return.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Whoever sends must say how it went. After this time it is taken for lost; longer than every timeout of a sender.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(120);

pub(super) type Alerts = BTreeSet<Fingerprint>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) labels: Labels,
    pub(super) alerts: Alerts,
    /// Those among them that another group tells now; here they are only closed. Derived, like `route`.
    #[serde(skip)]
    pub(super) leaving: Alerts,
    pub(super) next_look_ms: TimestampMs,
    /// Of the route, for when that is gone.
    pub(super) interval_ms: TimestampMs,
    pub(super) looked_at: bool,
    pub(super) told: BTreeMap<String, Told>,
    /// `None`: no route leads here any more, and the group only closes what it opened. Derived from the
    /// configuration, and therefore not written down.
    #[serde(skip)]
    pub(super) route: Option<usize>,
}

/// What one channel knows of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// As firing, in the last message.
    pub(super) firing: Alerts,
    /// Told as firing at some time, perhaps, and not as resolved since: what the channel must still hear the end of.
    pub(super) open: Alerts,
    /// When the content of the last message was true.
    pub(super) sent_at_ms: Option<TimestampMs>,
    pub(super) phase: Phase,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub(super) enum Phase {
    /// Until the next look.
    #[default]
    Idle,
    /// To be looked at as soon as the channel has room.
    Ready { since_ms: TimestampMs, attempts: u32 },
    /// With whoever sends.
    InFlight {
        id: DeliveryId,
        firing: Alerts,
        resolved: Alerts,
        at_ms: TimestampMs,
        until_ms: TimestampMs,
        attempts: u32,
    },
    /// It failed.
    Waiting { retry_at_ms: TimestampMs, attempts: u32 },
}

/// How long to wait after this many failures in a row: doubled each time, between the two bounds.
pub(super) fn backoff_ms(attempts: u32) -> TimestampMs {
    let doublings = attempts.saturating_sub(1).min(30);
    to_ms(BACKOFF_MIN).saturating_mul(1 << doublings).min(to_ms(BACKOFF_MAX))
}

impl Told {
    pub(super) fn make_ready(&mut self, now_ms: TimestampMs) {
        match self.phase {
            Phase::Idle => self.phase = Phase::Ready { since_ms: now_ms, attempts: 0 },
            // It waits for room, for an answer, or for its time already; what it says is decided then.
            Phase::Ready { .. } | Phase::InFlight { .. } | Phase::Waiting { .. } => {}
        }
    }

    pub(super) fn wake(&mut self, now_ms: TimestampMs) {
        if let Phase::Waiting { retry_at_ms, attempts } = self.phase
            && retry_at_ms <= now_ms
        {
            self.phase = Phase::Ready { since_ms: retry_at_ms, attempts };
        }
    }

    /// The clock reads earlier than it did: nothing may wait for the time between.
    pub(super) fn rewind(&mut self, now_ms: TimestampMs) {
        if let Some(sent_at_ms) = &mut self.sent_at_ms {
            *sent_at_ms = now_ms.min(*sent_at_ms);
        }
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Ready { since_ms, .. } => *since_ms = now_ms.min(*since_ms),
            Phase::InFlight { at_ms, until_ms, .. } => {
                *at_ms = now_ms.min(*at_ms);
                *until_ms = now_ms.saturating_add(to_ms(ANSWER_WITHIN)).min(*until_ms);
            }
            Phase::Waiting { retry_at_ms, .. } => {
                *retry_at_ms = now_ms.saturating_add(to_ms(BACKOFF_MAX)).min(*retry_at_ms);
            }
        }
    }

    pub(super) fn holds(&self, alert: Fingerprint) -> bool {
        let in_flight = match &self.phase {
            Phase::InFlight { firing, resolved, .. } => firing.contains(&alert) || resolved.contains(&alert),
            Phase::Idle | Phase::Ready { .. } | Phase::Waiting { .. } => false,
        };
        in_flight || self.open.contains(&alert)
    }

    pub(super) fn next_at(&self) -> Option<TimestampMs> {
        match self.phase {
            Phase::Idle => None,
            Phase::Ready { since_ms, .. } => Some(since_ms),
            Phase::InFlight { until_ms, .. } => Some(until_ms),
            Phase::Waiting { retry_at_ms, .. } => Some(retry_at_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_a_bound() {
        let waits: Vec<TimestampMs> = [0, 1, 2, 3, 9, 10, 11, u32::MAX].map(backoff_ms).to_vec();
        assert_eq!(waits, [1000, 1000, 2000, 4000, 256_000, 300_000, 300_000, 300_000]);
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_wait_longer_than_its_bound() {
        let phases = [
            Phase::Ready { since_ms: 1_000_000_000, attempts: 0 },
            Phase::Waiting { retry_at_ms: 1_000_000_000, attempts: 1 },
            Phase::InFlight {
                id: DeliveryId(1),
                firing: Alerts::new(),
                resolved: Alerts::new(),
                at_ms: 1_000_000_000,
                until_ms: 1_000_000_000,
                attempts: 0,
            },
        ];
        for phase in phases {
            let mut told = Told { phase, sent_at_ms: Some(1_000_000_000), ..Told::default() };
            told.rewind(1_000);
            assert!(told.next_at().unwrap() <= 301_000, "{told:?}");
            assert_eq!(told.sent_at_ms, Some(1_000));
        }
    }
}
