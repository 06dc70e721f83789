//! Alerts, silences and channels as people read them.

use fairway_api::{AlertInfo, AlertState, ChannelInfo, ChannelState, SilenceInfo, SilenceState};

use crate::ago;
use crate::output::{Colours, Paint, Table, printable};

/// Whether anything fires of which somebody is to be told.
#[must_use]
pub fn is_loud(alerts: &[AlertInfo]) -> bool {
    alerts.iter().any(|alert| {
        alert.state == AlertState::Firing && alert.silenced_by.is_none() && alert.inhibited_by.is_none()
    })
}

/// A line each, the worst first, and below it what to do.
#[must_use]
pub fn alerts(alerts: &[AlertInfo], now_ms: u64, colours: Colours) -> String {
    let mut sorted: Vec<&AlertInfo> = alerts.iter().collect();
    sorted.sort_by_key(|alert| (alert.state == AlertState::Pending, rank(alert), alert.since_ms));
    let mut lines = Vec::new();
    for alert in sorted {
        let (word, paint) = match (alert.state, rank(alert)) {
            (AlertState::Pending, _) => ("pending", Paint::Dim),
            (AlertState::Firing, 0) => ("critical", Paint::Bad),
            (AlertState::Firing, 1) => ("warning", Paint::Warn),
            (AlertState::Firing, _) => ("firing", Paint::Bold),
        };
        let said = alert.annotations.get("summary").or_else(|| alert.annotations.get("description"));
        // A template that is not filled in yet says little.
        let summary = match (alert.state, said) {
            (AlertState::Firing, Some(said)) => format!(": {said}"),
            (AlertState::Pending, _) | (AlertState::Firing, None) => labels(alert),
        };
        lines.push(format!(
            "{}  {}{}  ({})",
            colours.paint(paint, word),
            printable(&alert.name),
            printable(&summary),
            ago::ago(alert.since_ms, now_ms)
        ));
        if alert.state == AlertState::Firing {
            lines.push(format!("    {}", told(alert)));
        }
        for note in ["changed", "command", "next"].iter().filter(|_| alert.state == AlertState::Firing) {
            if let Some(text) = alert.annotations.get(*note) {
                lines.push(format!("    {note}: {}", printable(text)));
            }
        }
    }
    lines.join("\n")
}

fn rank(alert: &AlertInfo) -> u8 {
    match alert.severity.as_deref() {
        Some("critical") => 0,
        Some("warning") => 1,
        Some(_) | None => 2,
    }
}

fn labels(alert: &AlertInfo) -> String {
    let others = alert
        .labels
        .iter()
        .filter(|(name, _)| !["alertname", "environment", "severity"].contains(&name.as_str()));
    let texts: Vec<String> = others.map(|(name, value)| format!("{name}={value:?}")).collect();
    if texts.is_empty() { String::new() } else { format!(" {}", texts.join(" ")) }
}

fn told(alert: &AlertInfo) -> String {
    match (&alert.silenced_by, &alert.inhibited_by, alert.channels.as_slice()) {
        (Some(silence), _, _) => format!("silenced by {silence}"),
        (None, Some(_), _) => "not told: another alert says it already".to_owned(),
        (None, None, []) => "no route takes it: nobody is told".to_owned(),
        (None, None, channels) => format!("to {}", channels.join(", ")),
    }
}

#[must_use]
pub fn silences(silences: &[SilenceInfo], colours: Colours) -> String {
    let mut table = Table::default();
    for silence in silences {
        let (word, paint) = match silence.state {
            SilenceState::Pending => ("waits", Paint::Dim),
            SilenceState::Active => ("holds", Paint::Warn),
            SilenceState::Expired => ("ended", Paint::Dim),
        };
        table.row([
            silence.id.clone(),
            colours.paint(paint, word),
            format!("until {} UTC", ago::utc(silence.ends_ms)),
            printable(&silence.matchers.join(" ")),
            printable(&format!("{}: {}", silence.by, silence.comment)),
        ]);
    }
    table.render()
}

#[must_use]
pub fn channels(channels: &[ChannelInfo], now_ms: u64, colours: Colours) -> String {
    let mut table = Table::default();
    for channel in channels {
        let (word, paint, text) = match &channel.state {
            ChannelState::Untried => ("untried", Paint::Dim, "nothing was sent yet".to_owned()),
            ChannelState::Working { last_ms } => (
                "works",
                Paint::Good,
                format!("{} sent, the last {}", channel.sent, ago::ago(*last_ms, now_ms)),
            ),
            ChannelState::Failing { since_ms, failures, why, refused, .. } => {
                let kind = if *refused { "refused" } else { "failed" };
                let text = format!("{failures} {kind} since {} UTC: {why}", ago::utc(*since_ms));
                ("fails", Paint::Bad, text)
            }
        };
        let routed = if channel.is_routed { "" } else { "no route leads here" };
        table.row([
            printable(&channel.name),
            channel.kind.clone(),
            colours.paint(paint, word),
            printable(&text),
            colours.paint(Paint::Dim, routed),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str, severity: &str, state: AlertState) -> AlertInfo {
        AlertInfo {
            name: name.to_owned(),
            state,
            severity: Some(severity.to_owned()),
            labels: [("service".to_owned(), "api".to_owned())].into(),
            annotations: [("summary".to_owned(), "it\nburns".to_owned())].into(),
            since_ms: 0,
            silenced_by: None,
            inhibited_by: None,
            channels: vec!["ops".to_owned()],
        }
    }

    #[test]
    fn the_worst_comes_first_and_a_summary_cannot_break_the_line() {
        let shown = alerts(
            &[
                alert("Soon", "critical", AlertState::Pending),
                alert("Odd", "warning", AlertState::Firing),
                alert("Down", "critical", AlertState::Firing),
            ],
            61_000,
            Colours::Off,
        );
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "critical  Down: it·burns  (1m 01s ago)");
        assert_eq!(lines[1], "    to ops");
        assert!(lines[2].starts_with("warning  Odd"));
        assert!(lines[4].starts_with("pending  Soon service=\"api\""), "{}", lines[4]);
    }

    #[test]
    fn only_what_somebody_hears_is_loud() {
        let mut firing = alert("Down", "critical", AlertState::Firing);
        assert!(is_loud(std::slice::from_ref(&firing)));
        firing.silenced_by = Some("s1".to_owned());
        assert!(!is_loud(&[firing, alert("Soon", "critical", AlertState::Pending)]));
    }
}
