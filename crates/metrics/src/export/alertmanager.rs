//! Channels, routes and inhibition in Alertmanager's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Export, ExportFile, SecretFile, file_name};
use crate::rules::emit::Yaml;
use crate::rules::show_duration;

#[derive(Clone, Debug, Default)]
pub struct AlertmanagerConfig {
    pub channels: BTreeMap<String, Channel>,
    /// The first that matches delivers; one without matchers takes the rest.
    pub routes: Vec<Route>,
    pub inhibit: Vec<Inhibition>,
    /// Where Alertmanager finds the secrets: `/etc/alertmanager/secrets`.
    pub secrets_dir: String,
}

#[derive(Clone, Debug)]
pub struct Channel {
    pub kind: ChannelKind,
    /// Whether the end of an alert is told too.
    pub send_resolved: bool,
}

/// Without secrets; each kind that needs one reads it from a file of the channel's name.
#[derive(Clone, Debug)]
pub enum ChannelKind {
    Email {
        host: String,
        port: u16,
        tls: MailTls,
        from: String,
        to: Vec<String>,
        /// None: no authentication.
        username: Option<String>,
    },
    /// The address is the secret.
    Slack,
    /// The routing key is the secret; `url` only for a compatible service elsewhere.
    PagerDuty { url: Option<String> },
    /// The address is the secret: it may carry a token.
    Webhook,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    Starttls,
    Tls,
    None,
}

#[derive(Clone, Debug)]
pub struct Matching {
    pub label: String,
    pub op: MatchOp,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

#[derive(Clone, Debug)]
pub struct Route {
    pub matches: Vec<Matching>,
    pub channels: Vec<String>,
    pub group_by: Vec<String>,
    pub group_wait: Duration,
    pub group_interval: Duration,
    pub repeat: Duration,
}

#[derive(Clone, Debug)]
pub struct Inhibition {
    pub source: Vec<Matching>,
    pub target: Vec<Matching>,
    pub equal: Vec<String>,
}

/// Alerts that no route takes are listed and told to nobody, as in Fairway.
const NOBODY: &str = "nobody";

/// `alertmanager/alertmanager.yml`. Channels that a route names and nobody defined are left out of it.
#[must_use]
pub fn alertmanager(config: &AlertmanagerConfig) -> Export {
    let mut export = Export::default();
    let names = secret_names(config);
    let channels: BTreeMap<&str, (&str, Yaml)> = config
        .channels
        .iter()
        .map(|(name, channel)| {
            let path = format!("{}/{}", config.secrets_dir.trim_end_matches('/'), names[name.as_str()]);
            let (key, yaml, what) = receiver(channel, &path);
            export
                .secrets
                .extend(what.map(|what| SecretFile { path, what: format!("{what} of channel {name}") }));
            (name.as_str(), (key, yaml))
        })
        .collect();

    let mut receivers: BTreeMap<String, Yaml> = BTreeMap::from([(NOBODY.to_owned(), nobody())]);
    let mut routes = Vec::new();
    for route in &config.routes {
        let used: BTreeSet<&str> =
            route.channels.iter().map(String::as_str).filter(|name| channels.contains_key(name)).collect();
        let name = receiver_name(&used);
        if !used.is_empty() {
            let mut by_kind: BTreeMap<&str, Vec<Yaml>> = BTreeMap::new();
            for (key, yaml) in used.iter().filter_map(|name| channels.get(name)) {
                by_kind.entry(key).or_default().push(yaml.clone());
            }
            let mut entries = vec![("name".to_owned(), Yaml::text(&name))];
            entries.extend(by_kind.into_iter().map(|(key, list)| (key.to_owned(), Yaml::List(list))));
            receivers.insert(name.clone(), Yaml::Map(entries));
        }
        routes.push(child(route, &name));
    }
    let mut root = vec![("receiver", Yaml::text(NOBODY))];
    if !routes.is_empty() {
        root.push(("routes", Yaml::List(routes)));
    }
    let inhibit: Vec<Yaml> = config.inhibit.iter().map(inhibition).collect();
    let mut document = vec![("route", Yaml::map(root))];
    if !inhibit.is_empty() {
        document.push(("inhibit_rules", Yaml::List(inhibit)));
    }
    document.push(("receivers", Yaml::List(receivers.into_values().collect())));
    let text = Yaml::map(document).document();
    export.files.push(ExportFile { path: "alertmanager/alertmanager.yml".to_owned(), text });
    export
}

/// A file's name for each channel. Two channels must never read one secret.
fn secret_names(config: &AlertmanagerConfig) -> BTreeMap<&str, String> {
    let mut taken = BTreeSet::new();
    let mut names = BTreeMap::new();
    for channel in config.channels.keys() {
        let base = file_name(channel);
        let mut name = base.clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{base}-{number}");
        }
        names.insert(channel.as_str(), name);
    }
    names
}

fn nobody() -> Yaml {
    Yaml::map([("name", Yaml::text(NOBODY))])
}

/// A channel may be called `nobody`, and must not become the receiver that drops everything.
fn receiver_name(channels: &BTreeSet<&str>) -> String {
    if channels.is_empty() {
        return NOBODY.to_owned();
    }
    let names: Vec<&str> = channels.iter().copied().collect();
    format!("to {}", names.join(" and "))
}

/// The key of the list it belongs into, itself, and what its secret is.
fn receiver(channel: &Channel, secret: &str) -> (&'static str, Yaml, Option<&'static str>) {
    let resolved = ("send_resolved", Yaml::plain(channel.send_resolved));
    match &channel.kind {
        ChannelKind::Email { host, port, tls, from, to, username } => {
            let mut entries = vec![
                ("to", Yaml::text(to.join(", "))),
                ("from", Yaml::text(from)),
                ("smarthost", Yaml::text(address(host, *port))),
                ("require_tls", Yaml::plain(*tls == MailTls::Starttls)),
                // Port 465 would imply it; every other port has to be told.
                ("force_implicit_tls", Yaml::plain(*tls == MailTls::Tls)),
            ];
            if let Some(username) = username {
                entries.push(("auth_username", Yaml::text(username)));
                entries.push(("auth_password_file", Yaml::text(secret)));
            }
            entries.push(resolved);
            ("email_configs", Yaml::map(entries), username.as_ref().map(|_| "the SMTP password"))
        }
        ChannelKind::Slack => {
            let entries = [
                ("api_url_file", Yaml::text(secret)),
                ("title", Yaml::text("{{ .Status | toUpper }}: {{ .CommonLabels.alertname }}")),
                (
                    "text",
                    Yaml::text(
                        "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.command }}\n{{ end }}",
                    ),
                ),
                resolved,
            ];
            ("slack_configs", Yaml::map(entries), Some("the address of the Slack webhook"))
        }
        ChannelKind::PagerDuty { url } => {
            let mut entries = vec![("routing_key_file", Yaml::text(secret))];
            entries.extend(url.as_ref().map(|url| ("url", Yaml::text(url))));
            entries.push(("severity", Yaml::text("{{ or .CommonLabels.severity \"error\" }}")));
            entries.push(resolved);
            ("pagerduty_configs", Yaml::map(entries), Some("the routing key of PagerDuty"))
        }
        ChannelKind::Webhook => {
            let entries = [("url_file", Yaml::text(secret)), resolved];
            ("webhook_configs", Yaml::map(entries), Some("the address of the webhook"))
        }
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn child(route: &Route, receiver: &str) -> Yaml {
    let mut entries = vec![("receiver", Yaml::text(receiver))];
    if !route.matches.is_empty() {
        entries.push(("matchers", matchers(&route.matches)));
    }
    if !route.group_by.is_empty() {
        entries.push(("group_by", Yaml::texts(&route.group_by)));
    }
    for (key, length) in [
        ("group_wait", route.group_wait),
        ("group_interval", route.group_interval),
        ("repeat_interval", route.repeat),
    ] {
        // Alertmanager refuses 0 for the last two.
        let length = if key == "group_wait" { length } else { length.max(Duration::from_secs(1)) };
        entries.push((key, Yaml::text(show_duration(length))));
    }
    Yaml::map(entries)
}

fn inhibition(rule: &Inhibition) -> Yaml {
    let mut entries =
        vec![("source_matchers", matchers(&rule.source)), ("target_matchers", matchers(&rule.target))];
    if !rule.equal.is_empty() {
        entries.push(("equal", Yaml::texts(&rule.equal)));
    }
    Yaml::map(entries)
}

fn matchers(matches: &[Matching]) -> Yaml {
    Yaml::texts(matches.iter().map(|matching| {
        let op = match matching.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        };
        let value = matching.value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{}{op}\"{value}\"", matching.label)
    }))
}
