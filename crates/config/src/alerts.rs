//! `[alerts]`: who is told when an alert fires.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::monitoring::{self as engine, AlertMatch, AlertMatchOp, AlertRoute, Inhibit, SmtpTls};
use fairway_engine::service::EnvValue;

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::monitoring::{plain_secret, public_url, text_map, texts};
use crate::reader::{Reader, Texts};
use crate::suggest::{listed, nearest};
use crate::value::{labels, url};
use crate::variable::{Variable, VariableValue};

/// `[alerts]` of one environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Alerts {
    pub channels: BTreeMap<String, Channel>,
    pub routes: Vec<AlertRoute>,
    pub inhibit: Vec<Inhibit>,
    pub alertmanager: Option<String>,
}

/// A way to reach people, before the versions of secrets are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    Email {
        host: String,
        port: u16,
        tls: SmtpTls,
        from: String,
        to: Vec<String>,
        username: Option<String>,
        password: Option<Variable>,
    },
    Slack {
        url: Variable,
    },
    PagerDuty {
        key: Variable,
        url: Option<String>,
    },
    Webhook {
        url: Variable,
    },
}

impl Channel {
    /// # Errors
    /// When a secret has no value.
    pub(crate) fn resolve(
        &self,
        environment: &str,
        secrets: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<engine::Channel, Box<Diagnostic>> {
        let value = |variable: &Variable| -> Result<EnvValue, _> { variable.resolve(environment, secrets) };
        Ok(match self {
            Channel::Email { host, port, tls, from, to, username, password } => engine::Channel::Email {
                host: host.clone(),
                port: *port,
                tls: *tls,
                from: from.clone(),
                to: to.clone(),
                username: username.clone(),
                password: password.as_ref().map(value).transpose()?,
            },
            Channel::Slack { url } => engine::Channel::Slack { url: value(url)? },
            Channel::PagerDuty { key, url } => {
                engine::Channel::PagerDuty { key: value(key)?, url: url.clone() }
            }
            Channel::Webhook { url } => engine::Channel::Webhook { url: value(url)? },
        })
    }
}

pub(crate) fn read(root: &Reader<'_>) -> Alerts {
    let reader = root.table("alerts", &keys::ALERTS);
    // An Alertmanager has channels of its own.
    let forwards = reader.one_of(&["alertmanager", "channels"]) == Some("alertmanager");
    let alertmanager = public_url(&reader, "alertmanager").map(|url| url.trim_end_matches('/').to_owned());
    if forwards {
        reader.refuse_beside(
            "alertmanager",
            &["routes", "inhibit"],
            "beside alertmanager, which does this itself",
        );
        return Alerts { channels: BTreeMap::new(), routes: Vec::new(), inhibit: Vec::new(), alertmanager };
    }
    let readers = reader.map_of_tables("channels", &keys::CHANNEL);
    // What is broken is known all the same: a route to it is no second mistake.
    let names: Vec<&str> = readers.iter().map(|(name, _)| *name).collect();
    let channels = readers.iter().filter_map(|(name, reader)| Some(((*name).to_owned(), channel(reader)?)));
    let channels = channels.collect();
    let routes = routes(&reader, &names);
    Alerts { channels, routes, inhibit: inhibit(&reader), alertmanager: None }
}

fn secret(reader: &Reader<'_>) -> Option<Variable> {
    let name = reader.get("secret")?;
    let at = reader.cx.source.span(reader.value_at("secret"));
    Some(Variable { value: VariableValue::Secret { name }, at })
}

fn channel(reader: &Reader<'_>) -> Option<Channel> {
    match reader.one_of(&["slack", "email", "pagerduty", "webhook"]) {
        Some("slack") => {
            Some(Channel::Slack { url: secret(&reader.optional_table("slack", &keys::SECRET)?)? })
        }
        Some("email") => email(&reader.optional_table("email", &keys::MAIL)?),
        Some("pagerduty") => {
            let table = reader.optional_table("pagerduty", &keys::PAGERDUTY)?;
            let (key, url) = (secret(&table), public_url(&table, "url"));
            Some(Channel::PagerDuty { key: key?, url })
        }
        Some(_) => webhook(reader).map(|url| Channel::Webhook { url }),
        None => {
            reader.lacks("slack, email, pagerduty or webhook", "add slack = { secret = \"slack_url\" }");
            None
        }
    }
}

fn webhook(reader: &Reader<'_>) -> Option<Variable> {
    if let Some(table) = reader.optional_table("webhook", &keys::SECRET) {
        return secret(&table);
    }
    let text: String = reader.get("webhook")?;
    if let Some(what) = url::credential(&text) {
        let environment = reader.cx.environment;
        let hint = format!(
            "webhook = {{ secret = \"webhook_url\" }}, and fairway secret set webhook_url -e {environment}"
        );
        plain_secret(reader, "webhook", what, &hint, reader.value_at("webhook"));
    }
    let at = reader.cx.source.span(reader.value_at("webhook"));
    Some(Variable { value: VariableValue::Literal(text), at })
}

fn email(reader: &Reader<'_>) -> Option<Channel> {
    let tls = match reader.fixed::<String>("tls").as_str() {
        "tls" => SmtpTls::Tls,
        "none" => SmtpTls::None,
        _ => SmtpTls::Starttls,
    };
    let port = reader.get_or(
        "port",
        || match tls {
            SmtpTls::Starttls => 587,
            SmtpTls::Tls => 465,
            SmtpTls::None => 25,
        },
        u16::to_string,
    );
    let username = reader.get("username");
    let password = reader.optional_table("password", &keys::SECRET).map(|table| secret(&table));
    for (key, other) in [("username", "password"), ("password", "username")] {
        if reader.has(key) && !reader.has(other) {
            let message = format!("{} has no {other}", reader.path_of(key));
            let hint = "a login is username = \"…\" and password = { secret = \"…\" }";
            refuse(reader, key, code::MISSING_KEY, message, hint);
        }
    }
    if tls == SmtpTls::None && reader.has("password") {
        let message = format!("{} would cross the network in plain text", reader.path_of("password"));
        refuse(reader, "tls", code::CONFLICT, message, "tls = \"starttls\", or no login");
    }
    let (host, from, to) = (reader.get("host"), reader.get("from"), reader.get("to"));
    let Texts(to) = to?;
    if to.is_empty() {
        let message = format!("{} is empty", reader.path_of("to"));
        refuse(reader, "to", code::BAD_VALUE, message, "to = [\"ops@shop.example\"]");
    }
    Some(Channel::Email { host: host?, port, tls, from: from?, to, username, password: password.flatten() })
}

fn routes(reader: &Reader<'_>, channels: &[&str]) -> Vec<AlertRoute> {
    let defaults = Reader::new(reader.cx, &keys::ALERT_ROUTE, None, reader.at, String::new());
    let Some(list) = reader.list_of_tables("routes", &keys::ALERT_ROUTE) else {
        if channels.is_empty() {
            return Vec::new();
        }
        return vec![AlertRoute {
            matches: Vec::new(),
            channels: channels.iter().map(|name| (*name).to_owned()).collect(),
            group_by: group_by_default(),
            group_wait: defaults.default_of("group_wait"),
            group_interval: defaults.default_of("group_interval"),
            repeat: defaults.default_of("repeat"),
        }];
    };
    let mut rest: Option<&Reader<'_>> = None;
    let mut routes = Vec::new();
    for item in &list {
        if let Some(rest) = rest {
            let message = format!("no alert ever comes to {}", item.path());
            reader.cx.push(
                Diagnostic::error(code::CONFLICT, message)
                    .at(reader.cx.source.span(item.at))
                    .related(reader.cx.source.span(rest.at), "this one takes every alert that is left")
                    .hint("a route without severity and match is the last one"),
            );
        }
        let route = route(item, channels);
        if route.matches.is_empty() && !item.has("severity") && !item.has("match") && !item.has_unknown() {
            rest = rest.or(Some(item));
        }
        routes.push(route);
    }
    if rest.is_none() && !list.is_empty() {
        let message = "alerts that match no route are told to nobody";
        let hint = "add { channels = [\"…\"] } as the last route; channels = [] says that it is meant so";
        let warning = Diagnostic::warning(code::UNROUTED, message).hint(hint);
        reader.cx.push_at(warning, reader.key_at("routes"));
    }
    routes
}

/// One message for what happens to an environment, however many services it happens to.
fn group_by_default() -> Vec<String> {
    ["alertname", "environment"].map(str::to_owned).to_vec()
}

fn route(reader: &Reader<'_>, known: &[&str]) -> AlertRoute {
    let mut matches = matches(reader, "match");
    if let Some(severities) = texts(reader, "severity") {
        if matches.iter().any(|one| one.label == "severity") {
            let message = format!("{} names the severity twice", reader.path());
            refuse(reader, "severity", code::CONFLICT, message, "remove it here or in match");
        }
        let (op, value) = match severities.as_slice() {
            [one] => (AlertMatchOp::Equal, one.clone()),
            many => (AlertMatchOp::Regex, labels::any_of(many)),
        };
        if severities.is_empty() {
            let message = format!("{} is empty: it matches nothing", reader.path_of("severity"));
            refuse(reader, "severity", code::BAD_VALUE, message, "severity = \"critical\"");
        }
        matches.push(AlertMatch { label: "severity".to_owned(), op, value });
    }
    let items = reader.node("channels").and_then(|node| node.value.as_array()).unwrap_or_default();
    for item in items {
        let Some(name) = item.value.as_text().filter(|name| !known.contains(name)) else { continue };
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if known.is_empty() => {
                "add [alerts.channels.NAME] with slack, email, pagerduty or webhook".to_owned()
            }
            None => format!("the channels are {}", listed(known.iter().copied())),
        };
        let shown: String = name.chars().take(64).collect();
        let message = format!("there is no channel {shown:?}");
        reader.cx.push_at(Diagnostic::error(code::UNKNOWN_CHANNEL, message).hint(hint), item.at);
    }
    let (group_wait, group_interval): (Duration, Duration) =
        (reader.fixed("group_wait"), reader.fixed("group_interval"));
    let Texts(group_by) = reader.get_or(
        "group_by",
        || Texts(group_by_default()),
        |Texts(names)| {
            let shown: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            format!("[{}]", shown.join(", "))
        },
    );
    AlertRoute {
        matches,
        channels: texts(reader, "channels").unwrap_or_default(),
        group_by,
        group_wait,
        group_interval,
        repeat: reader.fixed("repeat"),
    }
}

fn matches(reader: &Reader<'_>, key: &str) -> Vec<AlertMatch> {
    // A bad one was told by the first pass.
    let one = |(label, text): (&str, &str)| {
        let (op, value) = labels::split(text);
        AlertMatch { label: label.to_owned(), op, value: value.to_owned() }
    };
    text_map(reader, key).into_iter().map(one).collect()
}

fn inhibit(reader: &Reader<'_>) -> Vec<Inhibit> {
    let Some(list) = reader.list_of_tables("inhibit", &keys::INHIBIT) else {
        let severity = |value: &str| {
            vec![AlertMatch {
                label: "severity".to_owned(),
                op: AlertMatchOp::Equal,
                value: value.to_owned(),
            }]
        };
        // With the alertname: a disk that is full must not silence what the services have to say.
        let equal = ["alertname", "environment", "service"].map(str::to_owned).to_vec();
        return vec![Inhibit { source: severity("critical"), target: severity("warning"), equal }];
    };
    let read = |item: &Reader<'_>| {
        let rule = Inhibit {
            source: matches(item, "source"),
            target: matches(item, "target"),
            equal: texts(item, "equal").unwrap_or_default(),
        };
        for (key, side) in [("source", &rule.source), ("target", &rule.target)] {
            let given = item.node(key).and_then(|node| node.value.as_table());
            if side.is_empty() && given.is_some_and(|table| table.entries.is_empty()) {
                let message = format!("{} matches every alert", item.path_of(key));
                refuse(item, key, code::BAD_VALUE, message, "for example { severity = \"critical\" }");
            }
        }
        rule
    };
    list.iter().map(read).collect()
}

fn refuse(reader: &Reader<'_>, key: &str, code: &'static str, message: String, hint: &str) {
    reader.cx.push_at(Diagnostic::error(code, message).hint(hint), reader.value_at(key));
}
