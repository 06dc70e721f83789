//! What a message says.

use std::collections::BTreeMap;

use super::super::alert::TimestampMs;
use super::super::config::to_ms;
use super::super::delivery::{ALERTS_MAX, Delivery, DeliveryId, Reason, Status, ToldAlert, common};
use super::super::group::{ANSWER_WITHIN, Alerts, Group, Phase, Told};
use super::super::inhibit::Inhibitions;
use super::{Dispatcher, IN_FLIGHT_MAX, Place};

/// The alerts of a group after inhibition and silences.
#[derive(Debug, Default)]
struct Content {
    /// Firing, and nothing mutes it.
    told: Alerts,
    /// Firing, and muted, or told by another group by now.
    muted: Alerts,
    resolved: Alerts,
}

/// What a channel does not know yet.
#[derive(Debug)]
pub(super) struct News {
    reason: Reason,
    firing: Alerts,
    resolved: Alerts,
}

impl Dispatcher {
    /// For each place whose channel has room, what it must hear: `None` when it knows everything.
    pub(super) fn decide(
        &self,
        now_ms: TimestampMs,
        ready: Vec<(TimestampMs, Place)>,
    ) -> Vec<(Place, Option<News>)> {
        if ready.is_empty() {
            return Vec::new();
        }
        let inhibitions = self.inhibitions(now_ms);
        let mut room = self.room();
        let mut contents: BTreeMap<String, Content> = BTreeMap::new();
        let mut decided = Vec::new();
        for (_, place) in ready {
            let places = room.entry(place.channel.clone()).or_insert(IN_FLIGHT_MAX);
            if *places == 0 {
                continue;
            }
            let Some(group) = self.groups.get(&place.group) else { continue };
            let Some(told) = group.told.get(&place.channel) else { continue };
            let content = contents
                .entry(place.group.clone())
                .or_insert_with(|| self.content(now_ms, group, &inhibitions));
            let route = group.route.and_then(|index| self.config.routes.get(index));
            let news = match route.filter(|route| route.tells(&place.channel)) {
                Some(route) => news(now_ms, route.repeat_ms(), told, content),
                None if self.config.has_channel(&place.channel) => closing(told, content),
                None => None,
            };
            *places -= usize::from(news.is_some());
            decided.push((place, news));
        }
        decided
    }

    fn content(&self, now_ms: TimestampMs, group: &Group, inhibitions: &Inhibitions<'_>) -> Content {
        let mut content = Content::default();
        for fingerprint in &group.alerts {
            let Some(held) = self.alerts.get(fingerprint) else { continue };
            let labels = &held.known.labels;
            let muted = || {
                group.leaving.contains(fingerprint)
                    || inhibitions.muting(labels).is_some()
                    || self.silences.covering(now_ms, labels).is_some()
            };
            let kind = if held.known.is_resolved(now_ms) {
                &mut content.resolved
            } else if muted() {
                &mut content.muted
            } else {
                &mut content.told
            };
            kind.insert(*fingerprint);
        }
        content
    }

    /// Puts the news in flight.
    pub(super) fn start(
        &mut self,
        now_ms: TimestampMs,
        place: Place,
        news: Option<News>,
    ) -> Option<Delivery> {
        let told = self.groups.get_mut(&place.group)?.told.get_mut(&place.channel)?;
        let attempts = match told.phase {
            Phase::Ready { attempts, .. } => attempts,
            Phase::Idle | Phase::InFlight { .. } | Phase::Waiting { .. } => 0,
        };
        let Some(news) = news else {
            told.phase = Phase::Idle;
            return None;
        };
        self.last_delivery = self.last_delivery.saturating_add(1);
        self.revision += 1;
        let id = DeliveryId(self.last_delivery);
        told.phase = Phase::InFlight {
            id,
            firing: news.firing.clone(),
            resolved: news.resolved.clone(),
            at_ms: now_ms,
            until_ms: now_ms.saturating_add(to_ms(ANSWER_WITHIN)),
            attempts,
        };
        let labels = self.groups.get(&place.group).map(|group| group.labels.clone()).unwrap_or_default();
        let chosen = news.firing.iter().chain(&news.resolved);
        let mut alerts: Vec<ToldAlert> = chosen
            .filter_map(|one| self.alerts.get(one).map(|held| ToldAlert::of(*one, &held.known, now_ms)))
            .collect();
        alerts.sort_by(|a, b| {
            let key = |alert: &ToldAlert| (alert.status == Status::Resolved, alert.starts_at_ms);
            key(a).cmp(&key(b)).then_with(|| a.labels.cmp(&b.labels))
        });
        let common_labels = common(alerts.iter().map(|alert| &alert.labels));
        let common_annotations = common(alerts.iter().map(|alert| &alert.annotations));
        let truncated = alerts.len().saturating_sub(ALERTS_MAX);
        alerts.truncate(ALERTS_MAX);
        self.in_flight.insert(id, place.clone());
        Some(Delivery {
            id,
            channel: place.channel,
            group_key: place.group,
            group_labels: labels,
            common_labels,
            common_annotations,
            status: if news.firing.is_empty() { Status::Resolved } else { Status::Firing },
            reason: news.reason,
            alerts,
            truncated,
            attempt: attempts.saturating_add(1),
        })
    }
}

/// After Alertmanager's `DedupStage.needsUpdate`.
fn news(now_ms: TimestampMs, repeat_ms: TimestampMs, told: &Told, content: &Content) -> Option<News> {
    let resolved: Alerts = content.resolved.intersection(&told.open).copied().collect();
    let grew = !content.told.is_subset(&told.firing);
    let over = told.sent_at_ms.is_none_or(|sent_at_ms| sent_at_ms.saturating_add(repeat_ms) <= now_ms);
    let reason = if grew && told.sent_at_ms.is_none() {
        Reason::New
    } else if content.told.is_empty() && !resolved.is_empty() {
        Reason::Resolved
    } else if grew || !resolved.is_empty() {
        Reason::Changed
    } else if over && !content.told.is_empty() {
        Reason::Repeat
    } else {
        return None;
    };
    Some(News { reason, firing: content.told.clone(), resolved })
}

/// The last word on what was opened here, once nothing of it fires: no route leads from these alerts to this channel
/// in this group any more.
fn closing(told: &Told, content: &Content) -> Option<News> {
    let fires = |alert| content.told.contains(alert) || content.muted.contains(alert);
    if told.open.is_empty() || told.open.iter().any(fires) {
        return None;
    }
    Some(News { reason: Reason::Resolved, firing: Alerts::new(), resolved: told.open.clone() })
}
