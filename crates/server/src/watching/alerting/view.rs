//! Alerts, silences and channels as the API tells them.

use std::collections::BTreeMap;

use fairway_api::{
    AlertInfo, AlertList, AlertState, ApiError, ChannelInfo, ChannelState, MatcherOp, SilenceInfo,
    SilenceRequest, SilenceState,
};
use fairway_engine::monitoring::{Channel, MetricsSource};
use fairway_metrics::httpapi::RuleGroup;
use fairway_metrics::labels::Labels;
use fairway_metrics::notify::{
    self, ChannelHealth, Match, MatchOp, NewSilence, Silence, SilenceId, Standing,
};

use super::desk::{Desk, Inner};

/// A silence for longer than this is a rule that should not be there.
const SILENCE_MAX_MS: u64 = 365 * 24 * 3_600_000;

fn texts(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn moment(at_ms: i64) -> u64 {
    u64::try_from(at_ms).unwrap_or(0)
}

/// What fires, as those who are told see it, and what may soon.
#[must_use]
pub fn list(desk: &Desk, shown: &[RuleGroup], problems: Vec<String>, now_ms: i64) -> AlertList {
    let inner = desk.lock();
    let mut alerts: Vec<AlertInfo> = inner.dispatcher.alerts(now_ms).iter().map(firing).collect();
    let key = desk.environment.to_string();
    let without = &inner.monitoring().without;
    let is_here = match inner.monitoring().source {
        MetricsSource::BuiltIn => true,
        MetricsSource::Prometheus { .. } => false,
    };
    let rules = shown.iter().filter(|_| is_here).flat_map(|group| &group.rules);
    for rule in rules.filter(|rule| !without.contains(&rule.name)) {
        for alert in rule.alerting.iter().flat_map(|alerting| &alerting.alerts) {
            let of = alert.labels.get("environment").unwrap_or_default();
            if alert.firing || !(of.is_empty() || of == key) {
                continue;
            }
            alerts.push(AlertInfo {
                name: rule.name.clone(),
                state: AlertState::Pending,
                severity: alert.labels.get("severity").map(str::to_owned),
                labels: texts(&alert.labels),
                annotations: texts(&alert.annotations),
                since_ms: moment(alert.active_at_ms),
                silenced_by: None,
                inhibited_by: None,
                channels: Vec::new(),
            });
        }
    }
    AlertList { alerts, alertmanager: inner.monitoring().alertmanager.clone(), problems }
}

fn firing(alert: &notify::AlertView<'_>) -> AlertInfo {
    AlertInfo {
        name: alert.labels.get("alertname").unwrap_or_default().to_owned(),
        state: AlertState::Firing,
        severity: alert.labels.get("severity").map(str::to_owned),
        labels: texts(alert.labels),
        annotations: texts(alert.annotations),
        since_ms: moment(alert.starts_at_ms),
        silenced_by: alert.silenced_by.map(|id| id.to_string()),
        inhibited_by: alert.inhibited_by.map(|id| id.to_string()),
        channels: alert.channels.to_vec(),
    }
}

#[must_use]
pub fn silences(inner: &Inner, now_ms: i64) -> Vec<SilenceInfo> {
    inner.dispatcher.silences().map(|silence| shown(silence, now_ms)).collect()
}

#[must_use]
pub fn shown(silence: &Silence, now_ms: i64) -> SilenceInfo {
    SilenceInfo {
        id: silence.id.to_string(),
        matchers: silence.what.matches.iter().map(ToString::to_string).collect(),
        starts_ms: moment(silence.what.starts_at_ms),
        ends_ms: moment(silence.what.ends_at_ms),
        by: silence.what.by.clone(),
        comment: silence.what.comment.clone(),
        state: match silence.state(now_ms) {
            notify::SilenceState::Pending => SilenceState::Pending,
            notify::SilenceState::Active => SilenceState::Active,
            notify::SilenceState::Expired => SilenceState::Expired,
        },
    }
}

/// # Errors
/// When a matcher is none, or the time too long.
pub fn wanted(request: &SilenceRequest, by: &str, now_ms: i64) -> Result<NewSilence, ApiError> {
    let bad = |why: String| ApiError::new("alert/silence", why).exit(2);
    let one = |matcher: &fairway_api::Matcher| {
        let op = match matcher.op {
            MatcherOp::Equal => MatchOp::Equal,
            MatcherOp::NotEqual => MatchOp::NotEqual,
            MatcherOp::Regex => MatchOp::Regex,
            MatcherOp::NotRegex => MatchOp::NotRegex,
        };
        Match::new(&matcher.label, op, &matcher.value).map_err(|error| bad(error.to_string()))
    };
    if request.for_ms > SILENCE_MAX_MS {
        return Err(bad("a silence lasts a year at most; switch the alert off instead".to_owned()));
    }
    Ok(NewSilence {
        matches: request.matchers.iter().map(one).collect::<Result<_, _>>()?,
        starts_at_ms: now_ms,
        ends_at_ms: now_ms.saturating_add(i64::try_from(request.for_ms).unwrap_or(i64::MAX)),
        by: by.to_owned(),
        comment: request.comment.clone(),
    })
}

/// # Errors
/// When it is not an id.
pub fn silence_id(text: &str) -> Result<SilenceId, ApiError> {
    text.parse().map_err(|error: notify::SilenceError| refused(&error))
}

#[must_use]
pub fn refused(error: &notify::SilenceError) -> ApiError {
    let api = ApiError::new("alert/silence", error.to_string()).exit(2);
    match error {
        notify::SilenceError::Unknown { .. } => api.hint("fairway alert silences -e ENV lists them"),
        notify::SilenceError::EndsBeforeItStarts
        | notify::SilenceError::Ended
        | notify::SilenceError::MatchesEverything
        | notify::SilenceError::TooManyMatches { .. }
        | notify::SilenceError::TextTooLong
        | notify::SilenceError::Full { .. } => api,
    }
}

/// Every channel of the settings, and the Alertmanager where there is one.
#[must_use]
pub fn channels(inner: &Inner) -> Vec<ChannelInfo> {
    let health = inner.dispatcher.channel_health();
    let mut channels: Vec<ChannelInfo> = inner
        .monitoring()
        .channels
        .iter()
        .map(|(name, channel)| {
            let is_routed = health.contains_key(name.as_str());
            let health = health.get(name.as_str()).cloned().unwrap_or_default();
            told(name, kind(channel), is_routed, &health)
        })
        .collect();
    if let Some((_, forwarder)) = &inner.forwarder {
        channels.push(told("alertmanager", "alertmanager", true, forwarder.health()));
    }
    channels
}

fn kind(channel: &Channel) -> &'static str {
    match channel {
        Channel::Email { .. } => "email",
        Channel::Slack { .. } => "slack",
        Channel::PagerDuty { .. } => "pagerduty",
        Channel::Webhook { .. } => "webhook",
    }
}

fn told(name: &str, kind: &str, is_routed: bool, health: &ChannelHealth) -> ChannelInfo {
    let state = match &health.standing {
        Standing::Untried => ChannelState::Untried,
        Standing::Working { last_ms } => ChannelState::Working { last_ms: moment(*last_ms) },
        Standing::Failing { since_ms, last_ms, failures, why, refused, .. } => ChannelState::Failing {
            since_ms: moment(*since_ms),
            last_ms: moment(*last_ms),
            failures: *failures,
            why: why.clone(),
            refused: *refused,
        },
    };
    ChannelInfo {
        name: name.to_owned(),
        kind: kind.to_owned(),
        is_routed,
        state,
        sent: health.sent,
        failed: health.failed,
    }
}
