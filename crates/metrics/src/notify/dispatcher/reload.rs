//! A new configuration over an old memory.

use std::collections::{BTreeMap, BTreeSet};

use super::super::alert::{Fingerprint, TimestampMs};
use super::super::config::Config;
use super::super::group::Phase;
use super::{Dispatcher, Seat};

impl Dispatcher {
    /// Routes everything anew. What was told stays told: a group that the new routes name as the old ones did goes on
    /// as if nothing had happened; of one that they do not name, the channels still hear the end. What waits after
    /// failures is tried at once: the new configuration may be the repair.
    pub fn configure(&mut self, now_ms: TimestampMs, config: Config) {
        self.observe(now_ms);
        self.config = config;
        self.health.retain(|channel, _| self.config.has_channel(channel));
        for group in self.groups.values_mut() {
            for told in group.told.values_mut() {
                if let Phase::Waiting { .. } = told.phase {
                    told.phase = Phase::Ready { since_ms: now_ms, attempts: 0 };
                }
            }
        }
        self.regroup(now_ms);
        self.revision += 1;
    }

    /// Finds for every alert its group, and for every group the route that leads to it.
    pub(super) fn regroup(&mut self, now_ms: TimestampMs) {
        for group in self.groups.values_mut() {
            group.route = None;
        }
        let fingerprints: Vec<Fingerprint> = self.alerts.keys().copied().collect();
        let mut seats: BTreeMap<Fingerprint, String> = BTreeMap::new();
        for fingerprint in fingerprints {
            let Some(held) = self.alerts.get(&fingerprint) else { continue };
            let over = held.known.is_resolved(now_ms);
            let Some(Seat { route, key, .. }) = self.place(&held.known.labels) else { continue };
            if let Some(group) = self.groups.get_mut(&key)
                && let Some(rules) = self.config.routes.get(route)
            {
                group.route = Some(route);
                group.interval_ms = rules.group_interval_ms();
                let longest_ms = rules.group_interval_ms().max(rules.group_wait_ms());
                group.next_look_ms = now_ms.saturating_add(longest_ms).min(group.next_look_ms);
            }
            if !over {
                self.join(now_ms, fingerprint);
            }
            seats.insert(fingerprint, key);
        }
        for (key, group) in &mut self.groups {
            let moved = |alert: &&Fingerprint| seats.get(alert) != Some(key);
            group.leaving = group.alerts.iter().filter(moved).copied().collect();
        }
        let all: BTreeSet<String> = self.groups.keys().cloned().collect();
        self.clean(now_ms, all);
    }
}
