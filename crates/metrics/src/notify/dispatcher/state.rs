//! The memory, as it is written down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::alert::{End, Fingerprint, Known, TimestampMs};
use super::super::group::{Group, Phase};
use super::super::health::ChannelHealth;
use super::super::silence::Silences;
use super::{Counters, Dispatcher, Held};

/// What a [`Dispatcher`] knows. Its form is nobody's business but its own; it holds no secret of any channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    at_ms: TimestampMs,
    alerts: Vec<Known>,
    groups: BTreeMap<String, Group>,
    silences: Silences,
    health: BTreeMap<String, ChannelHealth>,
    counters: Counters,
    last_delivery: u64,
}

impl Dispatcher {
    /// Written down after [`Self::due`] and before anything is sent, it makes sure that what may have been sent is
    /// closed one day. Written down after [`Self::delivered`], it makes sure that nothing is sent again.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            at_ms: self.last_ms.unwrap_or_default(),
            alerts: self.alerts.values().map(|held| held.known.clone()).collect(),
            groups: self.groups.clone(),
            silences: self.silences.clone(),
            health: self.health.clone(),
            counters: self.counters,
            last_delivery: self.last_delivery,
        }
    }

    /// Takes over the memory of an earlier run, under the configuration of this one. What fired then fires on for a
    /// whole resolve timeout: while nothing ran, nobody could report it. What was being sent is sent again if it is
    /// still true. What is more than the limits allow is dropped, and counted.
    pub fn restore(&mut self, state: State, now_ms: TimestampMs) {
        let State { at_ms, alerts, groups, silences, health, counters, last_delivery } = state;
        let limits = self.config.limits;
        let timeout_at_ms = now_ms.saturating_add(self.config.resolve_timeout_ms());
        self.counters = counters;
        self.last_delivery = last_delivery;
        self.last_ms = Some(now_ms);
        self.in_flight.clear();
        self.health = health;
        self.health.retain(|channel, _| self.config.has_channel(channel));
        let dropped = alerts.len().saturating_sub(limits.alerts);
        self.counters.alerts_dropped += u64::try_from(dropped).unwrap_or(u64::MAX);
        self.alerts = alerts
            .into_iter()
            .take(limits.alerts)
            .map(|mut known| {
                known.end = match known.end {
                    End::Said(end_ms) | End::Timeout(end_ms) if end_ms <= at_ms => {
                        End::Said(end_ms.min(now_ms))
                    }
                    End::Said(end_ms) => End::Said(end_ms),
                    End::Timeout(_) => End::Timeout(timeout_at_ms),
                };
                (Fingerprint::of(&known.labels), Held { known, groups: 0 })
            })
            .collect();
        self.groups = groups.into_iter().take(limits.groups).collect();
        for group in self.groups.values_mut() {
            group.alerts.retain(|alert| self.alerts.contains_key(alert));
            for alert in &group.alerts {
                if let Some(held) = self.alerts.get_mut(alert) {
                    held.groups += 1;
                }
            }
            group.interval_ms = group.interval_ms.max(1_000);
            group.next_look_ms = group.next_look_ms.min(now_ms.saturating_add(group.interval_ms));
            for told in group.told.values_mut() {
                told.rewind(now_ms);
                if let Phase::InFlight { firing, attempts, .. } = &told.phase {
                    told.open.extend(firing);
                    told.phase = Phase::Ready { since_ms: now_ms, attempts: *attempts };
                }
            }
        }
        self.silences = silences;
        self.silences.trim(now_ms, limits.silences);
        self.regroup(now_ms);
        self.revision += 1;
    }
}
