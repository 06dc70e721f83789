//! From what a release says about alerts to what delivers them.

use fairway_engine::monitoring::{self, AlertMatch, AlertMatchOp, Monitoring, SmtpTls};
use fairway_engine::service::EnvValue;
use fairway_metrics::notify::{Config, InhibitRule, Match, MatchError, MatchOp, Route};

use super::{Channel, Email, Secret, Tls};

fn matches(list: &[AlertMatch]) -> Result<Vec<Match>, MatchError> {
    let one = |written: &AlertMatch| {
        let op = match written.op {
            AlertMatchOp::Equal => MatchOp::Equal,
            AlertMatchOp::NotEqual => MatchOp::NotEqual,
            AlertMatchOp::Regex => MatchOp::Regex,
            AlertMatchOp::NotRegex => MatchOp::NotRegex,
        };
        Match::new(&written.label, op, &written.value)
    };
    list.iter().map(one).collect()
}

/// Routes and inhibition, with Alertmanager's resolve timeout and our limits.
///
/// # Errors
/// When a matcher is no regular expression.
pub fn config(monitoring: &Monitoring) -> Result<Config, MatchError> {
    let route = |written: &monitoring::AlertRoute| {
        Ok(Route {
            matches: matches(&written.matches)?,
            channels: written.channels.clone(),
            group_by: written.group_by.clone(),
            group_wait: written.group_wait,
            group_interval: written.group_interval,
            repeat: written.repeat,
        })
    };
    let inhibit = |written: &monitoring::Inhibit| {
        let (source, target) = (matches(&written.source)?, matches(&written.target)?);
        Ok(InhibitRule { source, target, equal: written.equal.clone() })
    };
    Ok(Config {
        routes: monitoring.routes.iter().map(route).collect::<Result<_, _>>()?,
        inhibit: monitoring.inhibit.iter().map(inhibit).collect::<Result<_, _>>()?,
        ..Config::default()
    })
}

/// A channel with its secrets, which `resolve` looks up.
///
/// # Errors
/// The first of `resolve`.
pub fn channel<E>(
    written: &monitoring::Channel,
    mut resolve: impl FnMut(&EnvValue) -> Result<String, E>,
) -> Result<Channel, E> {
    let mut secret = |value: &EnvValue| resolve(value).map(Secret::new);
    Ok(match written {
        monitoring::Channel::Email { host, port, tls, from, to, username, password } => {
            let password = password.as_ref().map(&mut secret).transpose()?;
            Channel::Email(Email {
                host: host.clone(),
                port: *port,
                tls: match tls {
                    SmtpTls::Starttls => Tls::Starttls,
                    SmtpTls::Tls => Tls::Wrapped,
                    SmtpTls::None => Tls::None,
                },
                from: from.clone(),
                to: to.clone(),
                login: username.clone().map(|user| (user, password.unwrap_or_else(|| Secret::new("")))),
            })
        }
        monitoring::Channel::Slack { url } => Channel::Slack { url: secret(url)? },
        monitoring::Channel::PagerDuty { key, url } => {
            Channel::PagerDuty { key: secret(key)?, url: url.clone() }
        }
        monitoring::Channel::Webhook { url } => Channel::Webhook { url: secret(url)? },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fairway_engine::monitoring::{AlertRoute, Inhibit};

    use super::*;

    fn matcher(op: AlertMatchOp, value: &str) -> AlertMatch {
        AlertMatch { label: "severity".to_owned(), op, value: value.to_owned() }
    }

    #[test]
    fn what_is_written_is_what_is_done() {
        let route = AlertRoute {
            matches: vec![matcher(AlertMatchOp::NotRegex, "info|none")],
            channels: vec!["oncall".to_owned()],
            group_by: vec!["service".to_owned()],
            group_wait: Duration::from_secs(1),
            group_interval: Duration::from_secs(2),
            repeat: Duration::from_secs(3),
        };
        let inhibit = Inhibit {
            source: vec![matcher(AlertMatchOp::Equal, "critical")],
            target: vec![matcher(AlertMatchOp::NotEqual, "critical")],
            equal: vec!["service".to_owned()],
        };
        let written = Monitoring { routes: vec![route], inhibit: vec![inhibit], ..Monitoring::default() };
        let config = config(&written).unwrap();
        let expected = Route {
            matches: vec![Match::new("severity", MatchOp::NotRegex, "info|none").unwrap()],
            channels: vec!["oncall".to_owned()],
            group_by: vec!["service".to_owned()],
            group_wait: Duration::from_secs(1),
            group_interval: Duration::from_secs(2),
            repeat: Duration::from_secs(3),
        };
        assert_eq!(config.routes, [expected]);
        assert_eq!(config.inhibit[0].target[0].to_string(), r#"severity!="critical""#);
        let mut bad = written.clone();
        bad.routes[0].matches[0].value = "(".to_owned();
        assert!(super::config(&bad).is_err());
    }

    #[test]
    fn secrets_are_looked_up_and_a_missing_one_is_told() {
        let named = EnvValue::Secret { name: "smtp".to_owned(), version: 2 };
        let written = monitoring::Channel::Email {
            host: "mail.example".to_owned(),
            port: 587,
            tls: SmtpTls::Starttls,
            from: "a@mail.example".to_owned(),
            to: vec!["b@mail.example".to_owned()],
            username: Some("ada".to_owned()),
            password: Some(named),
        };
        let resolve = |value: &EnvValue| match value {
            EnvValue::Secret { name, version } => Ok::<_, String>(format!("{name}@{version}")),
            EnvValue::Literal(_) | EnvValue::Ref(_) => Err("not a secret".to_owned()),
        };
        let Channel::Email(email) = channel(&written, resolve).unwrap() else { panic!("no mail") };
        assert_eq!(email.login, Some(("ada".to_owned(), Secret::new("smtp@2"))));
        let literal = EnvValue::Literal("http://x/".to_owned());
        let written = monitoring::Channel::Webhook { url: literal };
        assert_eq!(channel(&written, resolve), Err("not a secret".to_owned()));
    }
}
