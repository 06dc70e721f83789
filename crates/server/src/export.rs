//! Rules, routes and dashboards as files for Prometheus, Alertmanager and Grafana.

use std::path::Path;
use std::str::FromStr;

use fairway_api::{Exported, ExportedFile, ExportedSecret};
use fairway_config::{Diagnostic, Project};
use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::{self, AlertMatch, AlertMatchOp, Monitoring, SmtpTls};
use fairway_metrics::builtin;
use fairway_metrics::export::{
    self, AlertmanagerConfig, ChannelKind, Export, GrafanaSource, Inhibition, MailTls, MatchOp, Matching,
    ScrapeOptions,
};
use fairway_metrics::rules::RuleFile;
use fairway_metrics::slo;

use crate::validate;
use crate::watching::objectives;

/// What the examples of `fairway server run --listen` say.
const FIGURES: &str = "127.0.0.1:7480";

/// Where the packages of Debian and the official images look.
const DASHBOARDS_DIR: &str = "/var/lib/grafana/dashboards/fairway";
const SECRETS_DIR: &str = "/etc/alertmanager/secrets";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Prometheus,
    Grafana,
    Alertmanager,
}

impl FromStr for What {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "prometheus" => Ok(What::Prometheus),
            "grafana" => Ok(What::Grafana),
            "alertmanager" => Ok(What::Alertmanager),
            _ => Err(()),
        }
    }
}

/// As fairway.toml and the rule files beside it say, without a server.
///
/// # Errors
/// What is wrong with the file, or with the rule files.
pub fn project(what: What, project: &Project, environment: &str, root: &Path) -> Result<Exported, Problems> {
    let monitoring = validate::spec(project, environment, root)?.monitoring;
    let key = validate::key(project, environment)?;
    files(what, Some((&key, &monitoring))).map_err(Problems::Rules)
}

#[derive(Debug)]
pub enum Problems {
    Config(Vec<Diagnostic>),
    /// A sentence each, with place.
    Rules(Vec<String>),
}

impl From<Vec<Diagnostic>> for Problems {
    fn from(found: Vec<Diagnostic>) -> Self {
        Problems::Config(found)
    }
}

/// The built-in rules and dashboards, and with an environment also its own.
///
/// # Errors
/// Rules that cannot be read, a sentence each.
pub fn files(what: What, of: Option<(&EnvironmentKey, &Monitoring)>) -> Result<Exported, Vec<String>> {
    match what {
        What::Prometheus => prometheus(of),
        What::Grafana => Ok(grafana(of)),
        What::Alertmanager => Ok(alertmanager(of.map(|(_, monitoring)| monitoring))),
    }
}

fn exported(export: Export, steps: Vec<String>) -> Exported {
    let file = |file: export::ExportFile| ExportedFile { path: file.path, text: file.text };
    let secret = |secret: export::SecretFile| ExportedSecret { path: secret.path, what: secret.what };
    Exported {
        files: export.files.into_iter().map(file).collect(),
        secrets: export.secrets.into_iter().map(secret).collect(),
        steps,
    }
}

fn prometheus(of: Option<(&EnvironmentKey, &Monitoring)>) -> Result<Exported, Vec<String>> {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    let without = of.map(|(_, monitoring)| monitoring.without.clone()).unwrap_or_default();
    match builtin::alerts(&without) {
        Ok(file) => files.push(file),
        Err(unknown) => problems.push(format!("no built-in alert is called {}", unknown.join(", "))),
    }
    if let Some((environment, monitoring)) = of {
        match slo::rule_file("objectives.yml", &objectives(environment, monitoring)) {
            Ok(file) => files.push(file),
            Err(error) => problems.push(error.to_string()),
        }
        for written in &monitoring.rules {
            match RuleFile::parse(&written.path, &written.text) {
                Ok(file) => files.push(file),
                Err(error) => problems.push(error.to_string()),
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let alertmanager = of.and_then(|(_, monitoring)| monitoring.alertmanager.as_deref());
    let scrape = ScrapeOptions {
        target: FIGURES.to_owned(),
        https: false,
        alertmanager: alertmanager.map(|url| authority(url).to_owned()),
        token_file: None,
    };
    let mut steps = vec![
        format!("fairway server run --listen {FIGURES}, so that Prometheus can scrape it"),
        "promtool check config prometheus/prometheus.yml".to_owned(),
        "prometheus --config.file prometheus/prometheus.yml".to_owned(),
    ];
    if of.is_some() {
        steps.push(
            "[metrics] prometheus = \"http://HOST:9090\" in fairway.toml, and gates, alerts and budgets ask it"
                .to_owned(),
        );
    }
    Ok(exported(export::prometheus(&files, &scrape), steps))
}

fn authority(url: &str) -> &str {
    let rest = url.split("://").nth(1).unwrap_or(url);
    rest.split('/').next().unwrap_or_default()
}

fn grafana(of: Option<(&EnvironmentKey, &Monitoring)>) -> Exported {
    let url = match of.map(|(_, monitoring)| &monitoring.source) {
        Some(monitoring::MetricsSource::Prometheus { url }) => url.clone(),
        Some(monitoring::MetricsSource::BuiltIn) | None => format!("http://{FIGURES}"),
    };
    let source = GrafanaSource {
        name: "Fairway".to_owned(),
        url: url.clone(),
        dashboards_dir: DASHBOARDS_DIR.to_owned(),
    };
    let steps = vec![
        format!("copy grafana/dashboards to {DASHBOARDS_DIR}"),
        "copy grafana/provisioning to /etc/grafana/provisioning".to_owned(),
        format!("restart Grafana; its data source asks {url}"),
    ];
    exported(export::grafana(&builtin::dashboards::all(), &source), steps)
}

fn alertmanager(of: Option<&Monitoring>) -> Exported {
    let none = Monitoring::default();
    let monitoring = of.unwrap_or(&none);
    let channel = |(name, channel): (&String, &monitoring::Channel)| {
        (name.clone(), export::Channel { kind: kind(channel), send_resolved: true })
    };
    let route = |route: &monitoring::AlertRoute| export::Route {
        matches: matches(&route.matches),
        channels: route.channels.clone(),
        group_by: route.group_by.clone(),
        group_wait: route.group_wait,
        group_interval: route.group_interval,
        repeat: route.repeat,
    };
    let inhibit = |inhibit: &monitoring::Inhibit| Inhibition {
        source: matches(&inhibit.source),
        target: matches(&inhibit.target),
        equal: inhibit.equal.clone(),
    };
    let config = AlertmanagerConfig {
        channels: monitoring.channels.iter().map(channel).collect(),
        routes: monitoring.routes.iter().map(route).collect(),
        inhibit: monitoring.inhibit.iter().map(inhibit).collect(),
        secrets_dir: SECRETS_DIR.to_owned(),
    };
    let steps = vec![
        "amtool check-config alertmanager/alertmanager.yml".to_owned(),
        "alertmanager --config.file alertmanager/alertmanager.yml".to_owned(),
        "[alerts] alertmanager = \"http://HOST:9093\" in fairway.toml, and it gets every alert".to_owned(),
    ];
    exported(export::alertmanager(&config), steps)
}

fn matches(written: &[AlertMatch]) -> Vec<Matching> {
    let one = |written: &AlertMatch| Matching {
        label: written.label.clone(),
        op: match written.op {
            AlertMatchOp::Equal => MatchOp::Equal,
            AlertMatchOp::NotEqual => MatchOp::NotEqual,
            AlertMatchOp::Regex => MatchOp::Regex,
            AlertMatchOp::NotRegex => MatchOp::NotRegex,
        },
        value: written.value.clone(),
    };
    written.iter().map(one).collect()
}

fn kind(channel: &monitoring::Channel) -> ChannelKind {
    match channel {
        monitoring::Channel::Email { host, port, tls, from, to, username, .. } => ChannelKind::Email {
            host: host.clone(),
            port: *port,
            tls: match tls {
                SmtpTls::Starttls => MailTls::Starttls,
                SmtpTls::Tls => MailTls::Tls,
                SmtpTls::None => MailTls::None,
            },
            from: from.clone(),
            to: to.clone(),
            username: username.clone(),
        },
        monitoring::Channel::Slack { .. } => ChannelKind::Slack,
        monitoring::Channel::PagerDuty { url, .. } => ChannelKind::PagerDuty { url: url.clone() },
        monitoring::Channel::Webhook { .. } => ChannelKind::Webhook,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version = 1\nproject = \"shop\"\n\
        [service.api]\ncommand = [\"bin/api\"]\nport = 4000\nroute = \"/\"\n\
        [env.dev]\n[env.dev.metrics]\nrules = [\"own.yml\"]\nwithout = [\"HighCpu\"]\n\
        [env.dev.slo.api]\nservice = \"api\"\navailability = 0.99\n\
        [env.dev.alerts.channels.ops]\nwebhook = { secret = \"hook\" }\n";

    fn paths(exported: &Exported) -> Vec<&str> {
        exported.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn a_project_is_exported_without_a_server_and_without_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("own.yml"), "groups: []\n").unwrap();
        let parsed = Project::parse("fairway.toml", FILE).unwrap();
        let rules = project(What::Prometheus, &parsed, "dev", dir.path()).unwrap();
        assert_eq!(
            paths(&rules),
            ["prometheus/prometheus.yml", "prometheus/rules/fairway.yml", "prometheus/rules/objectives.yml"]
        );
        assert!(!rules.files[1].text.contains("alert: HighCpu"));
        assert!(rules.files[2].text.contains("shop/dev"));
        let routes = project(What::Alertmanager, &parsed, "dev", dir.path()).unwrap();
        assert_eq!(paths(&routes), ["alertmanager/alertmanager.yml"]);
        assert_eq!(routes.secrets.len(), 1);
        std::fs::write(dir.path().join("own.yml"), "groups: [{name: a, rules: [{record: x}]}]\n").unwrap();
        let bad = project(What::Prometheus, &parsed, "dev", dir.path());
        assert!(matches!(bad, Err(Problems::Rules(found)) if found[0].starts_with("own.yml:1:")));
    }

    #[test]
    fn without_a_project_there_are_the_built_in_ones() {
        assert_eq!(files(What::Prometheus, None).unwrap().files.len(), 2);
        assert_eq!(files(What::Grafana, None).unwrap().files.len(), 7);
        assert_eq!("grafana".parse(), Ok(What::Grafana));
        assert_eq!("prometheus/".parse::<What>(), Err(()));
    }
}
