//! An alert as those who are told of it read it.

use std::collections::BTreeMap;

use fairway_metrics::labels::Labels;
use fairway_metrics::notify::{Alert, Fingerprint};
use fairway_metrics::rules::{self, AlertState};

use super::elsewhere::Told;

/// An alert's name in the record, with the labels that tell it from others of its rule. The record cuts texts at 300
/// characters, and the end must have the name of the beginning.
const NAME_CHARS_MAX: usize = 200;

/// As whoever tells people wants it; nothing while it is pending.
#[must_use]
pub fn of_rule(alert: &rules::Alert) -> Option<Alert> {
    let (starts_at_ms, ends_at_ms) = match alert.state {
        AlertState::Pending => return None,
        AlertState::Firing { since_ms, .. } => (since_ms, None),
        AlertState::Resolved { since_ms, at_ms } => (since_ms, Some(at_ms)),
    };
    Some(Alert {
        labels: alert.labels.clone(),
        annotations: texts(&alert.annotations),
        starts_at_ms,
        ends_at_ms,
        generator_url: String::new(),
    })
}

#[must_use]
pub fn of_elsewhere(told: Told) -> Alert {
    Alert {
        labels: told.labels,
        annotations: texts(&told.annotations),
        starts_at_ms: told.starts_at_ms,
        ends_at_ms: None,
        generator_url: String::new(),
    }
}

fn texts(pairs: &BTreeMap<String, String>) -> Labels {
    Labels::new(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

#[must_use]
pub fn said(mut alert: Alert, changed: Option<&str>) -> Alert {
    if let Some(changed) = changed.filter(|_| alert.ends_at_ms.is_none()) {
        alert.annotations = alert.annotations.with("changed", changed);
    }
    alert
}

/// `HighErrorRate{service="api"}`
#[must_use]
pub fn recorded_name(labels: &Labels) -> String {
    let known = ["alertname", "environment", "severity"];
    let others = labels.iter().filter(|(name, _)| !known.contains(name));
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={value:?}")).collect();
    let name = labels.get("alertname").unwrap_or_default();
    let name = if others.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", others.join(",")) };
    if name.chars().count() <= NAME_CHARS_MAX {
        return name;
    }
    // Two that begin alike are still two.
    let hash = Fingerprint::of(labels);
    format!("{}…{hash}", name.chars().take(NAME_CHARS_MAX).collect::<String>())
}

#[must_use]
pub fn why(alert: &Alert) -> String {
    let said = ["summary", "description", "message"].iter().find_map(|name| alert.annotations.get(name));
    said.map_or_else(
        || format!("{} fires", alert.labels.get("alertname").unwrap_or("an alert")),
        str::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_record_are_short_and_differ_where_alerts_differ() {
        let short =
            Labels::new([("alertname", "Down"), ("environment", "shop/dev"), ("severity", "critical")]);
        assert_eq!(recorded_name(&short), "Down");
        assert_eq!(recorded_name(&short.with("service", "api")), "Down{service=\"api\"}");
        let long = |end: &str| recorded_name(&short.with("service", &format!("{}{end}", "x".repeat(1000))));
        assert_ne!(long("a"), long("b"));
        assert!(long("a").chars().count() < 300);
    }

    #[test]
    fn a_pending_alert_is_told_to_nobody() {
        let labels = Labels::new([("alertname", "A")]);
        let annotations = BTreeMap::from([("summary".to_owned(), "bad".to_owned())]);
        let alert = |state| rules::Alert {
            labels: labels.clone(),
            annotations: annotations.clone(),
            value: 1.0,
            active_at_ms: 1,
            state,
        };
        assert_eq!(of_rule(&alert(AlertState::Pending)), None);
        let firing = of_rule(&alert(AlertState::Firing { since_ms: 5, gone_since_ms: None })).unwrap();
        assert_eq!((firing.starts_at_ms, firing.ends_at_ms), (5, None));
        assert_eq!(why(&firing), "bad");
        assert_eq!(said(firing, Some("r2 by ann")).annotations.get("changed"), Some("r2 by ann"));
        let resolved = of_rule(&alert(AlertState::Resolved { since_ms: 5, at_ms: 9 })).unwrap();
        assert_eq!(resolved.ends_at_ms, Some(9));
        assert_eq!(said(resolved, Some("r2")).annotations.get("changed"), None);
    }
}
