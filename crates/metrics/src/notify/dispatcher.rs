//! The state machine of delivery.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::alert::{Alert, End, Fingerprint, Known, TimestampMs};
use super::config::{Config, to_ms};
use super::delivery::{Delivery, DeliveryId, Outcome};
use super::group::{ANSWER_WITHIN, Alerts, BACKOFF_MAX, Group, Phase, Told, backoff_ms};
use super::health::ChannelHealth;
use super::inhibit::Inhibitions;
use super::silence::{NewSilence, Silence, SilenceError, SilenceId, Silences};
use crate::labels::Labels;

mod bound;
mod compose;
mod reload;
mod state;
#[cfg(test)]
mod tests;

pub use state::State;

/// Messages that one channel has to answer for at a time: a channel that hangs holds up four of its own messages and
/// nobody else's.
pub const IN_FLIGHT_MAX: usize = 4;

/// What was not taken, or not as it was meant. Counts since the memory began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Reports of alerts that found the memory full.
    pub alerts_dropped: u64,
    /// Reports with labels that are too large, or whose hash belongs to other labels.
    pub alerts_refused: u64,
    /// Alerts that no route accepts.
    pub alerts_unrouted: u64,
    /// Alerts told with others because there were too many groups.
    pub groups_merged: u64,
    /// Messages whose outcome nobody reported.
    pub deliveries_lost: u64,
}

/// An alert as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlertView<'a> {
    pub fingerprint: Fingerprint,
    pub labels: &'a Labels,
    pub annotations: &'a Labels,
    pub starts_at_ms: TimestampMs,
    pub generator_url: &'a str,
    pub silenced_by: Option<SilenceId>,
    pub inhibited_by: Option<Fingerprint>,
    /// Of its route; empty when no route accepts it.
    pub channels: &'a [String],
}

/// See the [module](super) for how it is driven.
#[derive(Debug)]
pub struct Dispatcher {
    config: Config,
    alerts: BTreeMap<Fingerprint, Held>,
    groups: BTreeMap<String, Group>,
    silences: Silences,
    health: BTreeMap<String, ChannelHealth>,
    counters: Counters,
    last_delivery: u64,
    /// Where the answer to a delivery belongs. Derived from the groups.
    in_flight: BTreeMap<DeliveryId, Place>,
    /// The latest time that was said.
    last_ms: Option<TimestampMs>,
    revision: u64,
}

#[derive(Debug)]
struct Held {
    known: Known,
    /// Groups that hold it; without any it is forgotten when it ends.
    groups: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    group: String,
    channel: String,
}

#[derive(Debug)]
struct Seat {
    route: usize,
    key: String,
    labels: Labels,
    /// There was no room for a group of its own.
    merged: bool,
}

impl Dispatcher {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            alerts: BTreeMap::new(),
            groups: BTreeMap::new(),
            silences: Silences::default(),
            health: BTreeMap::new(),
            counters: Counters::default(),
            last_delivery: 0,
            in_flight: BTreeMap::new(),
            last_ms: None,
            revision: 0,
        }
    }

    /// Takes alerts as they are reported. A report that repeats what is known costs no revision.
    pub fn receive(&mut self, now_ms: TimestampMs, alerts: Vec<Alert>) {
        self.observe(now_ms);
        let timeout_ms = self.config.resolve_timeout_ms();
        for alert in alerts {
            let Some(alert) = bound::bounded(alert) else {
                self.counters.alerts_refused += 1;
                continue;
            };
            let fingerprint = Fingerprint::of(&alert.labels);
            let reported = Known::new(alert, now_ms, timeout_ms);
            let over = reported.is_resolved(now_ms);
            match self.alerts.get_mut(&fingerprint) {
                Some(held) if held.known.labels != reported.labels => {
                    self.counters.alerts_refused += 1;
                    continue;
                }
                Some(held) => {
                    let was_over = held.known.is_resolved(now_ms);
                    let starts_at_ms = held.known.starts_at_ms;
                    if was_over && over {
                        // Its end stays the first that was said.
                        continue;
                    }
                    held.known.merge(reported);
                    if was_over != over || held.known.starts_at_ms != starts_at_ms {
                        self.revision += 1;
                    }
                }
                // Nobody heard of it: there is nothing to end.
                None if over => continue,
                None => {
                    if self.alerts.len() >= self.config.limits.alerts {
                        self.forget_ended(now_ms);
                    }
                    if self.alerts.len() >= self.config.limits.alerts {
                        self.counters.alerts_dropped += 1;
                        continue;
                    }
                    self.alerts.insert(fingerprint, Held { known: reported, groups: 0 });
                    self.revision += 1;
                    if self.config.route_of(&self.alerts[&fingerprint].known.labels).is_none() {
                        self.counters.alerts_unrouted += 1;
                    }
                }
            }
            if !over {
                self.join(now_ms, fingerprint);
            }
        }
    }

    /// Where an alert belongs.
    fn place(&self, labels: &Labels) -> Option<Seat> {
        let route = self.config.route_of(labels)?;
        let rules = self.config.routes.get(route)?;
        let labels = rules.group_labels(labels);
        let key = rules.group_key(&labels);
        if self.groups.contains_key(&key) || self.groups.len() < self.config.limits.groups {
            return Some(Seat { route, key, labels, merged: false });
        }
        let labels = Labels::default();
        Some(Seat { route, key: rules.group_key(&labels), labels, merged: true })
    }

    fn join(&mut self, now_ms: TimestampMs, fingerprint: Fingerprint) {
        let Some(held) = self.alerts.get(&fingerprint) else { return };
        let Some(seat) = self.place(&held.known.labels) else { return };
        let Some(route) = self.config.routes.get(seat.route) else { return };
        // One that began long ago has waited already, as in Alertmanager.
        let waited_ms = held.known.starts_at_ms.saturating_add(route.group_wait_ms());
        let group = self.groups.entry(seat.key).or_insert_with(|| Group {
            labels: seat.labels,
            alerts: Alerts::new(),
            leaving: Alerts::new(),
            next_look_ms: now_ms.saturating_add(route.group_wait_ms()),
            interval_ms: route.group_interval_ms(),
            looked_at: false,
            told: BTreeMap::new(),
            route: None,
        });
        group.route = Some(seat.route);
        if !group.looked_at && waited_ms < now_ms {
            group.next_look_ms = group.next_look_ms.min(now_ms);
        }
        group.leaving.remove(&fingerprint);
        if group.alerts.insert(fingerprint)
            && let Some(held) = self.alerts.get_mut(&fingerprint)
        {
            held.groups += 1;
            self.counters.groups_merged += u64::from(seat.merged);
        }
    }

    /// Messages to send now. Each must be answered with [`Self::delivered`]; one without an answer within
    /// [`ANSWER_WITHIN`] is taken for perhaps sent, and is sent again.
    pub fn due(&mut self, now_ms: TimestampMs) -> Vec<Delivery> {
        self.observe(now_ms);
        self.give_up_lost(now_ms);
        let looked_at = self.look(now_ms);
        let mut ready = self.ready();
        // The longest waiting first, so that no group starves behind a slow channel.
        ready.sort();
        let decided = self.decide(now_ms, ready);
        let mut touched = looked_at;
        touched.extend(decided.iter().map(|(place, _)| place.group.clone()));
        let deliveries =
            decided.into_iter().filter_map(|(place, news)| self.start(now_ms, place, news)).collect();
        self.clean(now_ms, touched);
        deliveries
    }

    /// How a delivery went. An id that nobody waits for (it took too long, or the group is gone) changes nothing but
    /// is no error; the answer says whether it was waited for.
    pub fn delivered(&mut self, now_ms: TimestampMs, id: DeliveryId, outcome: Outcome) -> bool {
        self.observe(now_ms);
        let Some(place) = self.in_flight.remove(&id) else { return false };
        self.settle(now_ms, &place, outcome);
        self.clean(now_ms, [place.group].into());
        true
    }

    /// When [`Self::due`] has something to do next; it may be in the past. `None` as long as nothing is reported.
    #[must_use]
    pub fn next_at(&self) -> Option<TimestampMs> {
        let room = self.room();
        let full = |channel: &str| room.get(channel) == Some(&0);
        let groups = self.groups.values().flat_map(|group| {
            let told = group.told.iter().filter_map(|(channel, told)| match told.phase {
                // An answer wakes it.
                Phase::Ready { .. } if full(channel) => None,
                Phase::Idle | Phase::Ready { .. } | Phase::InFlight { .. } | Phase::Waiting { .. } => {
                    told.next_at()
                }
            });
            told.chain([group.next_look_ms])
        });
        // Without calls in between, time that passes could not be told from a clock that jumps.
        let alive = |held: &&Held| matches!(held.known.end, End::Timeout(_));
        let pulse = self.alerts.values().find(alive).and(self.last_ms);
        let pulse = pulse.map(|last_ms| last_ms.saturating_add(self.config.resolve_timeout_ms() / 2));
        groups.chain(pulse).min()
    }

    /// Grows with every change that is worth writing down.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// # Errors
    /// When it covers everything, ends before it starts, or there are too many.
    pub fn silence(&mut self, now_ms: TimestampMs, what: NewSilence) -> Result<SilenceId, SilenceError> {
        let id = self.silences.add(now_ms, what, self.config.limits.silences)?;
        self.revision += 1;
        Ok(id)
    }

    /// Ends a silence now. One that is over stays as it is.
    ///
    /// # Errors
    /// When there is none with this id.
    pub fn expire_silence(&mut self, now_ms: TimestampMs, id: SilenceId) -> Result<(), SilenceError> {
        self.silences.expire(now_ms, id)?;
        self.revision += 1;
        Ok(())
    }

    /// Pending, active and lately expired ones, oldest first.
    pub fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.silences.list()
    }

    /// What fires.
    #[must_use]
    pub fn alerts(&self, now_ms: TimestampMs) -> Vec<AlertView<'_>> {
        let inhibitions = self.inhibitions(now_ms);
        self.firing(now_ms)
            .map(|(fingerprint, known)| AlertView {
                fingerprint,
                labels: &known.labels,
                annotations: &known.annotations,
                starts_at_ms: known.starts_at_ms,
                generator_url: &known.generator_url,
                silenced_by: self.silences.covering(now_ms, &known.labels),
                inhibited_by: inhibitions.muting(&known.labels),
                channels: self
                    .config
                    .route_of(&known.labels)
                    .and_then(|index| self.config.routes.get(index))
                    .map_or(&[], |route| route.channels.as_slice()),
            })
            .collect()
    }

    /// Every channel that a route names.
    #[must_use]
    pub fn channel_health(&self) -> BTreeMap<&str, ChannelHealth> {
        let channels = self.config.routes.iter().flat_map(|route| &route.channels);
        channels
            .map(|channel| (channel.as_str(), self.health.get(channel).cloned().unwrap_or_default()))
            .collect()
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Keeps time from doing what only alerts may do. A clock that went back must not stretch what waits. One that
    /// leapt, or a caller that slept, must not end alerts that nobody had the chance to report.
    fn observe(&mut self, now_ms: TimestampMs) {
        let last_ms = *self.last_ms.get_or_insert(now_ms);
        self.last_ms = Some(now_ms);
        let timeout_ms = self.config.resolve_timeout_ms();
        if now_ms < last_ms {
            self.rewind(last_ms, now_ms);
        } else if now_ms.saturating_sub(last_ms) >= timeout_ms {
            self.renew(last_ms, now_ms);
        }
    }

    /// What had not timed out at `last_ms` gets the whole timeout again.
    fn renew(&mut self, last_ms: TimestampMs, now_ms: TimestampMs) {
        let renewed = End::Timeout(now_ms.saturating_add(self.config.resolve_timeout_ms()));
        for held in self.alerts.values_mut() {
            match held.known.end {
                End::Timeout(at_ms) if at_ms > last_ms => held.known.end = renewed,
                End::Timeout(_) | End::Said(_) => {}
            }
        }
    }

    fn rewind(&mut self, last_ms: TimestampMs, now_ms: TimestampMs) {
        let timeout_at_ms = now_ms.saturating_add(self.config.resolve_timeout_ms());
        for held in self.alerts.values_mut() {
            let over = held.known.is_resolved(last_ms);
            match &mut held.known.end {
                // What is over stays over.
                End::Said(at_ms) | End::Timeout(at_ms) if over => *at_ms = now_ms.min(*at_ms),
                End::Timeout(at_ms) => *at_ms = timeout_at_ms.min(*at_ms),
                End::Said(_) => {}
            }
        }
        for group in self.groups.values_mut() {
            // The wait of a group that is new may be longer than its interval, and is waited for again at most.
            let longest_ms = group
                .route
                .and_then(|index| self.config.routes.get(index))
                .map_or(group.interval_ms, |route| route.group_wait_ms().max(group.interval_ms));
            group.next_look_ms = now_ms.saturating_add(longest_ms).min(group.next_look_ms);
            for told in group.told.values_mut() {
                told.rewind(now_ms);
            }
        }
    }

    fn firing(&self, now_ms: TimestampMs) -> impl Iterator<Item = (Fingerprint, &Known)> + Clone {
        self.alerts
            .iter()
            .filter(move |(_, held)| !held.known.is_resolved(now_ms))
            .map(|(fingerprint, held)| (*fingerprint, &held.known))
    }

    fn inhibitions(&self, now_ms: TimestampMs) -> Inhibitions<'_> {
        let firing = self.firing(now_ms).map(|(fingerprint, known)| (fingerprint, &known.labels));
        Inhibitions::of(&self.config.inhibit, firing)
    }

    /// Starts the look at every group whose time has come.
    fn look(&mut self, now_ms: TimestampMs) -> BTreeSet<String> {
        let mut looked_at = BTreeSet::new();
        for (key, group) in &mut self.groups {
            for told in group.told.values_mut() {
                told.wake(now_ms);
            }
            if group.next_look_ms > now_ms {
                continue;
            }
            group.next_look_ms = now_ms.saturating_add(group.interval_ms);
            group.looked_at = true;
            looked_at.insert(key.clone());
            let route = group.route.and_then(|index| self.config.routes.get(index));
            for channel in route.iter().flat_map(|route| &route.channels) {
                group.told.entry(channel.clone()).or_default();
            }
            for told in group.told.values_mut() {
                told.make_ready(now_ms);
            }
        }
        looked_at
    }

    fn ready(&self) -> Vec<(TimestampMs, Place)> {
        let mut ready = Vec::new();
        for (key, group) in &self.groups {
            for (channel, told) in &group.told {
                if let Phase::Ready { since_ms, .. } = told.phase {
                    ready.push((since_ms, Place { group: key.clone(), channel: channel.clone() }));
                }
            }
        }
        ready
    }

    /// How many more messages each busy channel may have in flight.
    fn room(&self) -> BTreeMap<String, usize> {
        let mut room = BTreeMap::new();
        for place in self.in_flight.values() {
            let places = room.entry(place.channel.clone()).or_insert(IN_FLIGHT_MAX);
            *places = places.saturating_sub(1);
        }
        room
    }

    fn give_up_lost(&mut self, now_ms: TimestampMs) {
        let lost: Vec<DeliveryId> = self
            .in_flight
            .iter()
            .filter(|(_, place)| {
                let told = self.groups.get(&place.group).and_then(|group| group.told.get(&place.channel));
                told.and_then(Told::next_at).is_none_or(|until_ms| until_ms <= now_ms)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.counters.deliveries_lost += 1;
            let why = format!("no word of how it went within {} s", ANSWER_WITHIN.as_secs());
            self.delivered(now_ms, id, Outcome::Failed { why, perhaps_sent: true, retry_after: None });
        }
    }

    fn settle(&mut self, now_ms: TimestampMs, place: &Place, outcome: Outcome) {
        let told = self.groups.get_mut(&place.group).and_then(|group| group.told.get_mut(&place.channel));
        let Some(told) = told else { return };
        let Phase::InFlight { firing, resolved, at_ms, attempts, .. } = std::mem::take(&mut told.phase)
        else {
            return;
        };
        self.revision += 1;
        let health = self.health.entry(place.channel.clone()).or_default();
        let wait = |attempts: u32, least_ms: TimestampMs| {
            let wait_ms = backoff_ms(attempts).max(least_ms).min(to_ms(BACKOFF_MAX));
            Phase::Waiting { retry_at_ms: now_ms.saturating_add(wait_ms), attempts }
        };
        let attempts = attempts.saturating_add(1);
        match outcome {
            Outcome::Sent => {
                health.worked(now_ms);
                told.open.retain(|alert| !resolved.contains(alert));
                told.open.extend(&firing);
                told.firing = firing;
                told.sent_at_ms = Some(at_ms);
            }
            Outcome::Failed { why, perhaps_sent, retry_after } => {
                health.failed(now_ms, &why, false);
                if perhaps_sent {
                    told.open.extend(&firing);
                }
                told.phase = wait(attempts, retry_after.map_or(0, to_ms));
            }
            Outcome::Refused { why } => {
                health.failed(now_ms, &why, true);
                told.phase = wait(attempts, to_ms(BACKOFF_MAX));
            }
        }
    }

    /// Lets go of alerts that are over and of which no channel must hear the end, and of groups without alerts.
    fn clean(&mut self, now_ms: TimestampMs, groups: BTreeSet<String>) {
        for key in groups {
            let Some(group) = self.groups.get_mut(&key) else { continue };
            let config = &self.config;
            let alerts = &mut self.alerts;
            let told = &group.told;
            group.alerts.retain(|fingerprint| {
                let Some(held) = alerts.get_mut(fingerprint) else { return false };
                let holding = told.iter().filter(|(channel, _)| config.has_channel(channel));
                let mut holding = holding.filter(|(_, told)| told.holds(*fingerprint));
                let stays = !group.leaving.contains(fingerprint) && !held.known.is_resolved(now_ms);
                let keep = stays || holding.next().is_some();
                if !keep {
                    held.groups = held.groups.saturating_sub(1);
                    if held.groups == 0 && held.known.is_resolved(now_ms) {
                        alerts.remove(fingerprint);
                    }
                }
                keep
            });
            group.leaving.retain(|alert| group.alerts.contains(alert));
            for told in group.told.values_mut() {
                told.open.retain(|alert| group.alerts.contains(alert));
            }
            let busy = group.told.values().any(|told| matches!(told.phase, Phase::InFlight { .. }));
            if group.alerts.is_empty() && !busy {
                self.groups.remove(&key);
                self.revision += 1;
            }
        }
    }

    /// Alerts that are over and in no group: of no route, or of none any more.
    fn forget_ended(&mut self, now_ms: TimestampMs) {
        self.alerts.retain(|_, held| held.groups > 0 || !held.known.is_resolved(now_ms));
    }
}
