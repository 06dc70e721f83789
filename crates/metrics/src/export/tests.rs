use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::builtin;
use crate::rules::RuleFile;
use crate::slo::{SloGoal, SloSpec, rule_file};

/// What a program of others says of our files; none when it is not there, which is said aloud.
fn judge(variable: &str, arguments: &[&str], export: &Export) -> Option<Result<(), String>> {
    let Some(program) = std::env::var_os(variable) else {
        eprintln!("SKIPPED: {variable} does not name the program that judges these files");
        return None;
    };
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), export);
    let output = Command::new(program).args(arguments).current_dir(directory.path()).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}

fn write(directory: &Path, export: &Export) {
    for file in &export.files {
        let path = directory.join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &file.text).unwrap();
    }
}

fn text<'a>(export: &'a Export, path: &str) -> &'a str {
    &export.files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path}")).text
}

const HOSTILE: &str = "a\"b\\c{{ $value }}\nd: #x";

fn slos() -> Vec<SloSpec> {
    let goals = [
        SloGoal::Availability { service: "api".into() },
        SloGoal::Latency { service: "api".into(), within_s: 0.5 },
        SloGoal::Latency { service: HOSTILE.into(), within_s: 1.0 },
        SloGoal::Query {
            good: "rate(jobs_total{ok=\"1\"}[$window])".into(),
            total: "rate(jobs_total[$window])".into(),
        },
    ];
    let specs = goals.into_iter().enumerate().map(|(number, goal)| SloSpec {
        name: format!("slo {number}{HOSTILE}"),
        environment: "shop/production".into(),
        goal,
        objective: 0.999,
        window: Duration::from_secs(86_400 * (7 + 23 * number as u64)),
    });
    specs.collect()
}

fn scrape() -> ScrapeOptions {
    ScrapeOptions {
        target: "127.0.0.1:7171".into(),
        https: true,
        alertmanager: Some("127.0.0.1:9093".into()),
        token_file: Some("/etc/prometheus/fairway-token".into()),
    }
}

#[test]
fn promtool_takes_rules_and_configuration() {
    let user = RuleFile::parse(
        "mine/fairway.yml",
        "groups:\n- name: mine\n  rules: [{record: a, expr: up}] # kept\n",
    )
    .unwrap();
    let empty = RuleFile::parse("empty.yml", "").unwrap();
    let files =
        [builtin::alerts(&["HighCpu".into()]).unwrap(), user, empty, rule_file("slo.yml", &slos()).unwrap()];
    let export = prometheus(&files, &scrape());
    let paths: Vec<&str> = export.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "prometheus/prometheus.yml",
            "prometheus/rules/fairway.yml",
            "prometheus/rules/fairway-2.yml",
            "prometheus/rules/slo.yml"
        ]
    );
    assert!(text(&export, "prometheus/rules/fairway-2.yml").contains("# kept"));
    let config = text(&export, "prometheus/prometheus.yml");
    assert!(config.contains("url: \"https://127.0.0.1:7171/api/v1/http_sd\"\n"), "{config}");
    assert_eq!(config.matches("credentials_file: ").count(), 2);
    for arguments in [
        &[
            "check",
            "rules",
            "prometheus/rules/fairway.yml",
            "prometheus/rules/fairway-2.yml",
            "prometheus/rules/slo.yml",
        ][..],
        // The token's file is not there, and only this check asks for it.
        &["check", "config", "--syntax-only", "prometheus/prometheus.yml"],
    ] {
        if let Some(verdict) = judge("FAIRWAY_PROMTOOL", arguments, &export) {
            verdict.unwrap_or_else(|said| panic!("{said}\n{}", text(&export, "prometheus/rules/slo.yml")));
        }
    }
}

#[test]
fn promtool_is_heard_when_it_refuses() {
    let mut export = prometheus(&[builtin::alerts(&[]).unwrap()], &scrape());
    export.files[1].text.push_str("\nbroken: true\n");
    if let Some(verdict) =
        judge("FAIRWAY_PROMTOOL", &["check", "rules", "prometheus/rules/fairway.yml"], &export)
    {
        assert!(verdict.unwrap_err().contains("broken"));
    }
}

fn matching(label: &str, op: MatchOp, value: &str) -> Matching {
    Matching { label: label.into(), op, value: value.into() }
}

fn config() -> AlertmanagerConfig {
    let channel = |kind| Channel { kind, send_resolved: true };
    let mail = |tls, username: Option<&str>| ChannelKind::Email {
        host: "::1".into(),
        port: 2525,
        tls,
        from: "fairway@example.org".into(),
        to: vec!["ops@example.org".into(), "chief@example.org".into()],
        username: username.map(str::to_owned),
    };
    let route = |matches: Vec<Matching>, channels: &[&str]| Route {
        matches,
        channels: channels.iter().map(|name| (*name).to_owned()).collect(),
        group_by: vec!["alertname".into(), "environment".into()],
        group_wait: Duration::ZERO,
        group_interval: Duration::from_secs(300),
        repeat: Duration::from_secs(14_400),
    };
    AlertmanagerConfig {
        channels: BTreeMap::from([
            ("ops".into(), channel(mail(MailTls::Starttls, Some("fairway")))),
            ("relay".into(), channel(mail(MailTls::None, None))),
            ("smtps".into(), channel(mail(MailTls::Tls, Some("x")))),
            ("chat".into(), channel(ChannelKind::Slack)),
            ("pager".into(), channel(ChannelKind::PagerDuty { url: None })),
            (
                "pager/eu".into(),
                channel(ChannelKind::PagerDuty {
                    url: Some("https://events.eu.pagerduty.com/v2/enqueue".into()),
                }),
            ),
            ("pager-eu".into(), channel(ChannelKind::Webhook)),
            ("nobody".into(), channel(ChannelKind::Webhook)),
        ]),
        routes: vec![
            route(
                vec![
                    matching("severity", MatchOp::Equal, "critical"),
                    matching("service", MatchOp::NotRegex, "a\\d|\"b\""),
                ],
                &["pager", "pager/eu", "ops", "chat", "smtps"],
            ),
            route(
                vec![matching("severity", MatchOp::NotEqual, "info"), matching("x", MatchOp::Regex, "y.*")],
                &["nobody", "no such channel"],
            ),
            route(Vec::new(), &["relay", "pager-eu"]),
        ],
        inhibit: vec![Inhibition {
            source: vec![matching("severity", MatchOp::Equal, "critical")],
            target: vec![matching("severity", MatchOp::Equal, "warning")],
            equal: vec!["environment".into(), "service".into()],
        }],
        secrets_dir: "/etc/alertmanager/secrets/".into(),
    }
}

#[test]
fn amtool_takes_the_configuration_and_no_secret_is_in_it() {
    let export = alertmanager(&config());
    let path = "alertmanager/alertmanager.yml";
    if let Some(verdict) = judge("FAIRWAY_AMTOOL", &["check-config", path], &export) {
        verdict.unwrap_or_else(|said| panic!("{said}\n{}", text(&export, path)));
    }
    let secrets: BTreeMap<&str, &str> =
        export.secrets.iter().map(|secret| (secret.path.as_str(), secret.what.as_str())).collect();
    assert_eq!(secrets.len(), 7, "two channels share a file: {secrets:?}");
    assert_eq!(secrets["/etc/alertmanager/secrets/ops"], "the SMTP password of channel ops");
    for path in secrets.keys() {
        assert!(text(&export, "alertmanager/alertmanager.yml").contains(path), "{path}");
    }
    // Without anything it is still a configuration.
    let bare = alertmanager(&AlertmanagerConfig::default());
    if let Some(verdict) = judge("FAIRWAY_AMTOOL", &["check-config", path], &bare) {
        verdict.unwrap();
    }
}

/// Alertmanager itself says who gets an alert.
#[test]
fn alertmanager_routes_as_fairway_does() {
    let export = alertmanager(&config());
    let Some(program) = std::env::var_os("FAIRWAY_AMTOOL") else {
        eprintln!("SKIPPED: FAIRWAY_AMTOOL does not name amtool");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &export);
    for (labels, expect) in [
        (&["severity=critical", "service=api"][..], "to chat and ops and pager and pager/eu and smtps"),
        (&["severity=critical", "service=a1"], "to pager-eu and relay"),
        (&["severity=warning", "x=yes"], "to nobody"),
        (&["severity=info"], "to pager-eu and relay"),
    ] {
        let arguments = ["config", "routes", "test", "--config.file=alertmanager/alertmanager.yml"];
        let output = Command::new(&program)
            .args(arguments)
            .args(labels)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expect, "{labels:?}");
    }
}

#[test]
fn grafana_gets_five_dashboards_and_how_to_load_them() {
    let source = GrafanaSource {
        name: "Fairway".into(),
        url: "http://127.0.0.1:7171".into(),
        dashboards_dir: "/var/lib/grafana/dashboards/fairway".into(),
    };
    let export = grafana(&builtin::dashboards::all(), &source);
    let paths: Vec<&str> = export.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "grafana/dashboards/fairway-system.json",
            "grafana/dashboards/fairway-application.json",
            "grafana/dashboards/fairway-infrastructure.json",
            "grafana/dashboards/fairway-security.json",
            "grafana/dashboards/fairway-business.json",
            "grafana/provisioning/dashboards/fairway.yaml",
            "grafana/provisioning/datasources/fairway.yaml",
        ]
    );
    for path in &paths[..5] {
        let json: serde_json::Value = serde_json::from_str(text(&export, path)).unwrap();
        assert_eq!(json["schemaVersion"], 41);
        assert_eq!(json["templating"]["list"][0]["name"], "DS_PROMETHEUS");
    }
    assert!(text(&export, paths[6]).contains("    type: prometheus\n"));
}

#[test]
fn names_of_files_lead_nowhere_else() {
    for (name, expect) in [
        ("../../etc/passwd", "etc-passwd"),
        ("a b", "a-b"),
        ("", "unnamed"),
        ("..", "unnamed"),
        ("ü", "unnamed"),
        ("-rf", "rf"),
    ] {
        assert_eq!(file_name(name), expect);
    }
}
