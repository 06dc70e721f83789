//! Groups as the HTTP API shows them.

use super::alert::{Alert, AlertState};
use super::file::RuleKind;
use super::group::Group;
use super::rule::{Health, Rule};
use crate::httpapi;
use crate::labels::Labels;

impl Group {
    /// For `/api/v1/rules` and `/api/v1/alerts`.
    #[must_use]
    pub fn shown(&self) -> httpapi::RuleGroup {
        httpapi::RuleGroup {
            name: self.name().to_owned(),
            file: self.file().to_owned(),
            interval: self.interval(),
            limit: self.spec().limit,
            rules: self.rules().iter().map(|rule| shown(self, rule)).collect(),
            evaluation_time: self.took(),
            last_evaluation_ms: self.last_at_ms(),
        }
    }
}

fn shown(group: &Group, rule: &Rule) -> httpapi::Rule {
    let (health, last_error) = match &rule.health {
        Health::Unknown => (httpapi::Health::Unknown, String::new()),
        Health::Good => (httpapi::Health::Good, String::new()),
        Health::Bad { error } => (httpapi::Health::Bad, error.clone()),
    };
    let of_group = group.spec().labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // The last of two with one name counts.
    let labels =
        of_group.chain(rule.spec.labels.iter().map(|(name, template)| (name.as_str(), template.text())));
    let alerting = match &rule.spec.kind {
        RuleKind::Record { .. } => None,
        RuleKind::Alert { hold, keep_firing, annotations, .. } => Some(httpapi::Alerting {
            hold: *hold,
            keep_firing: *keep_firing,
            annotations: Labels::new(
                annotations.iter().map(|(name, template)| (name.as_str(), template.text())),
            ),
            alerts: rule.alerts().filter_map(active).collect(),
        }),
    };
    httpapi::Rule {
        name: rule.spec.name().to_owned(),
        query: rule.spec.query.text().to_owned(),
        labels: Labels::new(labels),
        health,
        last_error,
        evaluation_time: rule.took,
        last_evaluation_ms: rule.last_at_ms,
        alerting,
    }
}

fn active(alert: &Alert) -> Option<httpapi::ActiveAlert> {
    let (firing, keep_firing_since_ms) = match alert.state {
        AlertState::Pending => (false, None),
        AlertState::Firing { gone_since_ms, .. } => (true, gone_since_ms),
        AlertState::Resolved { .. } => return None,
    };
    let annotations = alert.annotations.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    Some(httpapi::ActiveAlert {
        labels: alert.labels.clone(),
        annotations: Labels::new(annotations),
        firing,
        active_at_ms: alert.active_at_ms,
        keep_firing_since_ms,
        value: alert.value,
    })
}
