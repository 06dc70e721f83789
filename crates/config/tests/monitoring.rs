//! What the settings of evidence, autoscaling, metrics, alerts, probes and objectives become in a release.

// The helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use fairway_config::{
    Inputs, Origin, Project, RULE_FILE_BYTES_MAX, RULE_FILES_MAX, RULES_BYTES_MAX, StrategyKind,
};
use fairway_engine::evidence::{
    Bounds, Check, Evidence, NoData, Number, ScaleChange, ScaleMetric, ScaleSelect, ScaleSource, Sequential,
    Trigger,
};
use fairway_engine::id::{ServiceName, TreeDigest};
use fairway_engine::monitoring::{
    AlertMatch, AlertMatchOp, Channel, MetricsSource, Monitoring, ProbeCheck, RuleFile, SloGoal, SmtpTls,
};
use fairway_engine::release::ReleaseSpec;
use fairway_engine::service::{EnvValue, ServiceSpec};
use fairway_engine::strategy::{Step, Strategy};

const SHOP: &str = include_str!("fixtures/shop/fairway.toml");
const WATCHED: &str = include_str!("fixtures/watched.toml");
const EVERYTHING: &str = include_str!("fixtures/everything.toml");
const HEAD: &str =
    "version = 1\nproject = \"p\"\n[service.api]\ncommand = \"bin/api\"\nport = 3000\nroute = \"/\"\n";

fn project(text: &str) -> Project {
    Project::parse("fairway.toml", text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn resolve_as(project: &Project, environment: &str, strategy: Option<StrategyKind>) -> ReleaseSpec {
    let requests = project.artifacts(environment).unwrap();
    let artifacts = requests.into_iter().map(|one| (one.key, TreeDigest(one.dir.into()))).collect();
    let inputs = Inputs { artifacts, secrets: &|_| Some(3), source: Default::default(), strategy };
    project.resolve(environment, &inputs).unwrap()
}

fn resolve(text: &str, environment: &str) -> ReleaseSpec {
    resolve_as(&project(text), environment, None)
}

fn evidence(text: &str, environment: &str) -> Evidence {
    resolve(text, environment).deploy.evidence
}

fn api(spec: &ReleaseSpec) -> &ServiceSpec {
    &spec.services[&ServiceName::new("api").unwrap()]
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn codes(text: &str) -> Vec<&'static str> {
    let problems = match Project::parse("fairway.toml", text) {
        Ok(project) => project.warnings().to_vec(),
        Err(problems) => problems,
    };
    problems.iter().map(|problem| problem.code).collect()
}

#[test]
fn a_canary_without_settings_has_the_sequential_test_and_the_triggers_of_the_seeds() {
    let text = format!("{HEAD}[env.production]\ndeploy.strategy = \"canary\"\n[env.dev]\n[env.staging]\n");
    let production = evidence(&text, "production");
    let sequential = Sequential { margin: Number(1.25), alpha: Number(0.01), min_requests: 20 };
    assert_eq!(production.sequential, Some(sequential.clone()));
    assert!(production.gates.is_empty());
    let triggers = [
        Trigger::ErrorRate { above: Number(0.05), lasts: seconds(120) },
        Trigger::Latency { percentile: 95, above: seconds(3), lasts: seconds(60) },
        Trigger::CriticalAlert,
    ];
    assert_eq!(production.triggers, triggers);
    assert_eq!(evidence(&text, "staging").sequential, None, "blue-green has no second side");
    assert_eq!(evidence(&text, "staging").triggers, triggers);
    assert_eq!(evidence(&text, "dev"), Evidence::default());
    let project = project(&text);
    let as_canary = |environment| {
        resolve_as(&project, environment, Some(StrategyKind::Canary)).deploy.evidence.sequential
    };
    assert_eq!(as_canary("staging"), Some(sequential.clone()), "deploy --strategy canary");
    let in_dev = Sequential { min_requests: 0, ..sequential };
    assert_eq!(as_canary("dev"), Some(in_dev), "where nobody sends requests, nothing waits for them");
    let as_rolling = resolve_as(&project, "production", Some(StrategyKind::Rolling));
    assert_eq!(as_rolling.deploy.evidence.sequential, None);
}

#[test]
fn each_part_of_the_evidence_can_be_switched_off_and_on() {
    let text = format!(
        "{HEAD}[deploy]\nstrategy = \"canary\"\n[env.a.deploy]\nsequential = false\ntriggers = false\n\
         [env.b.deploy]\ntriggers = {{ error_rate = false, critical_alert = false, p99 = true }}\n\
         [env.c.deploy]\ntriggers.p95.above = 0.5\nsequential = true\n\
         [env.dev.deploy]\ntriggers.p95.for = \"1s\"\n[env.development.deploy]\ntriggers = true\n"
    );
    assert_eq!(evidence(&text, "a"), Evidence::default());
    let latency = |percentile, above, lasts| Trigger::Latency { percentile, above, lasts: seconds(lasts) };
    assert_eq!(evidence(&text, "b").triggers, [latency(95, seconds(3), 60), latency(99, seconds(3), 60)]);
    let half = Duration::from_millis(500);
    assert!(evidence(&text, "c").triggers.contains(&latency(95, half, 60)));
    assert!(evidence(&text, "c").sequential.is_some());
    assert_eq!(evidence(&text, "dev").triggers, [latency(95, seconds(3), 1)], "what is written holds in dev");
    assert_eq!(evidence(&text, "development").triggers.len(), 3);
}

#[test]
fn gates_are_resolved_with_their_bounds_and_their_jobs() {
    let spec = resolve(EVERYTHING, "dev");
    let gates = &spec.deploy.evidence.gates;
    let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "error_rate",
            "p95",
            "rate(errors{version=\"$version\"}[1m])",
            "bin/judge",
            "bin/judge --all",
            "judge.example/release"
        ]
    );
    assert_eq!(gates[0].check, Check::ErrorRate);
    assert_eq!((gates[0].lasts, gates[0].min_requests, gates[0].no_data), (seconds(60), 200, NoData::Fail));
    assert_eq!(gates[1].check, Check::Latency { percentile: 95 });
    let bounds = Bounds { max: Some(Number(0.3)), min: None, max_vs_stable: Some(Number(1.3)) };
    assert_eq!(gates[1].bounds, bounds, "a time is in seconds");
    let Check::Command { job } = &gates[3].check else { panic!("{:?}", gates[3]) };
    assert_eq!((&*job.artifact.0, job.timeout), (".", seconds(300)));
    let Check::Command { job } = &gates[4].check else { panic!("{:?}", gates[4]) };
    assert_eq!((&*job.artifact.0, job.workdir.as_str(), job.timeout), ("api", "server", seconds(60)));
    assert_eq!(job.env["WORKERS"], EnvValue::Literal("4".into()));
    assert_eq!(gates[5].check, Check::Webhook { url: "https://judge.example/release".into() });
    let text = format!(
        "{HEAD}[deploy]\ngates = [{{ metric = \"p9\", max = 1 }}, {{ metric = \"p9\", max = 2 }}, {{ query = \"{}\", max = 1 }}]\n",
        "up + ".repeat(50)
    );
    let gates = evidence(&text, "dev").gates;
    assert_eq!((gates[0].name.as_str(), gates[1].name.as_str()), ("p9", "p9 #2"), "names are unique");
    assert_eq!(gates[2].name.chars().count(), 40);
}

#[test]
fn a_command_of_a_gate_is_captured_and_looked_for() {
    let gate = "[deploy]\ngates = [{ command = { run = \"bin/judge\", dir = \"judges\" } }]\n";
    let project = project(&format!("{HEAD}{gate}"));
    let dirs: Vec<String> = project.artifacts("dev").unwrap().into_iter().map(|one| one.dir).collect();
    assert_eq!(dirs, [".", "judges"]);
    let directory = tempfile::tempdir().unwrap();
    let stage = fairway_config::Stage::BeforeBuild;
    let problems = project.check_files("dev", directory.path(), None, stage).unwrap();
    assert!(problems.iter().any(|problem| problem.message.contains("judges")), "{problems:#?}");
}

#[test]
fn steps_mirror_and_compare() {
    let Strategy::Canary { steps, .. } = resolve(EVERYTHING, "dev").deploy.strategy else { panic!() };
    let step = |weight, hold, approve, mirror, experiment: Option<&str>| Step {
        weight,
        hold: seconds(hold),
        approve,
        mirror,
        experiment: experiment.map(str::to_owned),
    };
    let expected = [
        step(0, 60, false, 10, None),
        step(5, 300, false, 0, None),
        step(50, 0, true, 0, None),
        step(50, 0, true, 0, Some("new-checkout")),
    ];
    assert_eq!(steps, expected, "an experiment without hold waits for a person");
    let timed = "[deploy]\nstrategy = \"canary\"\nsteps = [{ weight = 5, experiment = \"x\", hold = \"1h\" }, { weight = 5 }]\n";
    let Strategy::Canary { steps, .. } = resolve(&format!("{HEAD}{timed}"), "dev").deploy.strategy else {
        panic!()
    };
    assert_eq!(steps, [step(5, 3600, false, 0, Some("x")), step(5, 300, false, 0, None)]);
}

#[test]
fn the_autoscaler_of_the_seeds_works_as_written() {
    let spec = resolve(EVERYTHING, "dev");
    let autoscale = api(&spec).autoscale.clone().unwrap();
    assert_eq!((autoscale.min, autoscale.max, autoscale.tolerance), (2, 10, Number(0.2)));
    let metric = |source, target| ScaleMetric { source, target: Number(target) };
    let expected = [
        metric(ScaleSource::Cpu, 70.0),
        metric(ScaleSource::Memory, 80.0),
        metric(ScaleSource::Requests, 100.0),
        metric(ScaleSource::Latency { percentile: 50 }, 0.1),
        metric(ScaleSource::Latency { percentile: 90 }, 0.25),
        metric(ScaleSource::Latency { percentile: 95 }, 0.5),
        metric(ScaleSource::Latency { percentile: 99 }, 1.0),
        metric(ScaleSource::Query { promql: "sum(queue_depth)".into() }, 30.0),
    ];
    assert_eq!(autoscale.metrics, expected);
    assert_eq!(autoscale.down.stabilisation, seconds(300));
    assert_eq!(autoscale.down.policies.len(), 1);
    assert_eq!(autoscale.down.policies[0].change, ScaleChange::Percent { value: 10 });
    assert_eq!(autoscale.down.policies[0].period, seconds(60));
    assert_eq!(autoscale.up.stabilisation, Duration::ZERO);
    assert_eq!(autoscale.up.policies[1].change, ScaleChange::Copies { value: 4 });
    assert_eq!(api(&spec).metrics.as_deref(), Some("/metrics"));
    assert_eq!(api(&resolve(EVERYTHING, "production")).autoscale.as_ref().unwrap().max, 20);
}

#[test]
fn an_autoscaler_with_nothing_but_max_is_that_of_kubernetes() {
    let text = format!("{HEAD}autoscale = {{ max = 5 }}\n");
    let autoscale = api(&resolve(&text, "dev")).autoscale.clone().unwrap();
    assert_eq!((autoscale.min, autoscale.max, autoscale.tolerance), (1, 5, Number(0.1)));
    assert_eq!(autoscale.metrics, [ScaleMetric { source: ScaleSource::Cpu, target: Number(80.0) }]);
    let changes = |policies: &[fairway_engine::evidence::ScalePolicy]| -> Vec<_> {
        policies.iter().map(|policy| (policy.change, policy.period)).collect()
    };
    let fifteen = seconds(15);
    assert_eq!(
        changes(&autoscale.up.policies),
        [(ScaleChange::Percent { value: 100 }, fifteen), (ScaleChange::Copies { value: 4 }, fifteen)]
    );
    assert_eq!(changes(&autoscale.down.policies), [(ScaleChange::Percent { value: 100 }, fifteen)]);
    assert_eq!((autoscale.up.stabilisation, autoscale.down.stabilisation), (Duration::ZERO, seconds(300)));
    assert_eq!((autoscale.up.select, autoscale.down.select), (ScaleSelect::Max, ScaleSelect::Max));
    let partly = format!(
        "{HEAD}[service.api.autoscale]\nmax = 5\nmin = 2\nbehavior.scaleDown.selectPolicy = \"Disabled\"\n"
    );
    let spec = resolve(&partly, "dev");
    let autoscale = api(&spec).autoscale.clone().unwrap();
    assert_eq!(autoscale.down.select, ScaleSelect::Disabled);
    assert_eq!(autoscale.down.stabilisation, seconds(300), "the rest keeps its default");
    assert_eq!(api(&spec).replicas, 2, "it begins with the least");
}

#[test]
fn replicas_that_an_overlay_inherits_are_brought_within_its_bounds() {
    let text =
        format!("{HEAD}replicas = 1\n[env.dev]\n[env.production.service.api.autoscale]\nmin = 3\nmax = 6\n");
    assert_eq!(api(&resolve(&text, "dev")).replicas, 1);
    assert_eq!(api(&resolve(&text, "production")).replicas, 3);
    let here =
        text.replace("[env.production.service.api.autoscale]", "autoscale = { max = 2, min = 2 }\n[x]");
    let here = here.split("[x]").next().unwrap().replace("[env.dev]\n", "");
    assert_eq!(codes(&here), ["config/conflict"]);
}

#[test]
fn metrics_alerts_probes_and_objectives_are_resolved() {
    let Monitoring {
        source,
        remote_write,
        rules,
        without,
        channels,
        routes,
        inhibit,
        alertmanager,
        scrapes,
        probes,
        slos,
    } = resolve(EVERYTHING, "dev").monitoring;
    assert_eq!(source, MetricsSource::Prometheus { url: "http://prometheus.example:9090".into() });
    assert_eq!(remote_write, ["http://prometheus.example:9090/api/v1/write"]);
    assert!(rules.is_empty() && alertmanager.is_none());
    assert_eq!(without, ["HighCpu"]);
    assert_eq!(scrapes["node"].url, "http://127.0.0.1:9100/metrics");
    assert_eq!((scrapes["node"].every, scrapes["node"].labels["machine"].as_str()), (seconds(30), "one"));
    let secret = |name: &str| EnvValue::Secret { name: name.into(), version: 3 };
    assert_eq!(channels["ops"], Channel::Slack { url: secret("slack_url") });
    assert_eq!(
        channels["bot"],
        Channel::Webhook { url: EnvValue::Literal("https://bot.example/alerts".into()) }
    );
    assert_eq!(channels["hidden"], Channel::Webhook { url: secret("webhook_url") });
    match &channels["pager"] {
        Channel::PagerDuty { key, url } => {
            assert_eq!(
                (key, url.as_deref()),
                (&secret("pagerduty_key"), Some("https://events.eu.pagerduty.com/v2/enqueue"))
            );
        }
        other @ (Channel::Email { .. } | Channel::Slack { .. } | Channel::Webhook { .. }) => {
            panic!("{other:?}")
        }
    }
    match &channels["mail"] {
        Channel::Email { host, port, tls, from, to, username, password } => {
            assert_eq!((host.as_str(), *port, *tls), ("smtp.example", 2525, SmtpTls::Tls));
            assert_eq!(from, "Fairway <fairway@everything.example>");
            assert_eq!((to.len(), username.as_deref()), (1, Some("fairway")));
            assert_eq!(password, &Some(secret("smtp_password")));
        }
        other @ (Channel::Slack { .. } | Channel::PagerDuty { .. } | Channel::Webhook { .. }) => {
            panic!("{other:?}")
        }
    }
    let is = |label: &str, op, value: &str| AlertMatch { label: label.into(), op, value: value.into() };
    assert_eq!(
        routes[0].matches,
        [
            is("alertname", AlertMatchOp::Regex, "High.*"),
            is("service", AlertMatchOp::Equal, "api"),
            is("team", AlertMatchOp::NotEqual, "web"),
            is("severity", AlertMatchOp::Equal, "critical"),
        ]
    );
    assert_eq!((routes[0].group_wait, routes[0].repeat), (seconds(10), seconds(3600)));
    assert_eq!(routes[1].matches, [is("severity", AlertMatchOp::Regex, "critical|warning")]);
    assert_eq!((routes[2].group_wait, routes[2].group_interval), (seconds(30), seconds(300)));
    assert_eq!(
        (routes[2].repeat, routes[2].group_by.join(" ")),
        (seconds(14_400), "alertname environment".into())
    );
    assert_eq!(inhibit.len(), 1);
    let url = "https://everything.example/healthz".to_owned();
    assert_eq!(probes["site"].check, ProbeCheck::Http { url, status: vec![200, 204] });
    assert_eq!((probes["site"].every, probes["site"].timeout), (seconds(60), seconds(10)));
    assert_eq!(probes["port"].check, ProbeCheck::Tcp { address: "db.example:5432".into() });
    let server_name = "www.everything.example".to_owned();
    assert_eq!(
        probes["certificate"].check,
        ProbeCheck::Certificate { address: "everything.example:443".into(), server_name }
    );
    assert_eq!(probes["name"].check, ProbeCheck::Dns { name: "everything.example".into() });
    assert_eq!((probes["name"].every, probes["name"].timeout), (seconds(30), seconds(5)));
    let service = ServiceName::new("api").unwrap();
    assert_eq!(slos["up"].goal, SloGoal::Availability { service: service.clone() });
    assert_eq!((slos["up"].objective, slos["up"].window), (Number(0.999), seconds(28 * 86_400)));
    assert_eq!(slos["fast"].goal, SloGoal::Latency { service, within: Duration::from_millis(500) });
    assert!(matches!(&slos["jobs"].goal, SloGoal::Query { good, .. } if good.contains("$window")));
}

#[test]
fn a_project_that_uses_all_of_it_is_sound_and_without_a_warning() {
    let project = project(WATCHED);
    assert_eq!(project.warnings(), []);
    let production = resolve_as(&project, "production", None);
    assert_eq!(production.deploy.evidence.gates.len(), 5);
    assert_eq!(production.deploy.evidence.triggers.len(), 3);
    assert!(matches!(production.monitoring.source, MetricsSource::Prometheus { .. }));
    assert_eq!(production.monitoring.routes.len(), 3);
    let text = serde_json::to_string(&production).unwrap();
    let again: ReleaseSpec = serde_json::from_str(&text).unwrap();
    assert_eq!(again, production, "the record gives the same release again");
    let dev = resolve_as(&project, "dev", None);
    assert_eq!(dev.monitoring.source, MetricsSource::BuiltIn);
    let site = "http://127.0.0.1:8080/healthz".to_owned();
    assert_eq!(dev.monitoring.probes["site"].check, ProbeCheck::Http { url: site, status: vec![200] });
}

#[test]
fn a_check_that_is_made_often_needs_no_timeout_of_its_own() {
    let text = format!(
        "{HEAD}[probe.often]\ntcp = \"a:1\"\nevery = \"2s\"\n[probe.seldom]\ntcp = \"a:1\"\nevery = \"6s\"\n"
    );
    let probes = resolve(&text, "dev").monitoring.probes;
    assert_eq!((probes["often"].timeout, probes["seldom"].timeout), (seconds(2), seconds(5)));
    let too_long = text.replace("\"2s\"", "\"2s\"\ntimeout = \"3s\"");
    assert_eq!(codes(&too_long), ["config/conflict"]);
}

#[test]
fn nothing_is_needed_for_monitoring() {
    let monitoring = resolve(HEAD, "dev").monitoring;
    assert_eq!(monitoring.source, MetricsSource::BuiltIn);
    assert!(monitoring.routes.is_empty() && monitoring.channels.is_empty());
    assert_eq!(monitoring.inhibit.len(), 1);
    let with_channel = format!(
        "{HEAD}[alerts.channels]\nops = {{ slack = {{ secret = \"s\" }} }}\nbot = {{ webhook = \"http://a\" }}\n"
    );
    let monitoring = resolve(&with_channel, "dev").monitoring;
    assert_eq!(monitoring.routes.len(), 1);
    assert!(monitoring.routes[0].matches.is_empty());
    assert_eq!(monitoring.routes[0].channels, ["bot", "ops"]);
    assert!(project(&with_channel).warnings().is_empty());
    let quiet = format!(
        "{with_channel}[alerts]\nroutes = [{{ severity = \"critical\", channels = [\"ops\"] }}, {{ channels = [] }}]\ninhibit = []\n"
    );
    assert!(project(&quiet).warnings().is_empty(), "an empty list says that it is meant so");
    assert!(resolve(&quiet, "dev").monitoring.inhibit.is_empty());
}

#[test]
fn an_overlay_may_hand_the_alerts_to_an_alertmanager_and_take_them_back() {
    let production = resolve(EVERYTHING, "production").monitoring;
    assert_eq!(production.alertmanager.as_deref(), Some("http://alertmanager.example:9093"));
    assert!(production.channels.is_empty() && production.routes.is_empty() && production.inhibit.is_empty());
    assert!(production.without.is_empty());
    assert_eq!(production.probes["site"].every, seconds(15));
    assert!(
        matches!(&production.probes["site"].check, ProbeCheck::Http { url, .. } if url == "https://www.everything.example/healthz")
    );
    let back = format!(
        "{HEAD}alerts.alertmanager = \"http://a\"\n[env.dev.alerts.channels.ops]\nwebhook = \"http://b\"\n"
    )
    .replace("alerts.alertmanager", "[alerts]\nalertmanager");
    let dev = resolve(&back, "dev").monitoring;
    assert!(dev.alertmanager.is_none() && dev.channels.contains_key("ops"));
}

#[test]
fn the_origin_of_each_value_is_known_and_no_secret_is_shown() {
    let project = project(EVERYTHING);
    let settings = project.resolved_with_origin("production").unwrap();
    let find = |key: &str| settings.iter().find(|one| one.key == key).unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(find("service.api.autoscale.max").value, "20");
    assert!(matches!(find("service.api.autoscale.max").origin, Origin::Overlay { .. }));
    assert!(matches!(find("probe.site.timeout").origin, Origin::File(_)));
    assert_eq!(find("probe.port.every").origin, Origin::Default);
    assert_eq!(find("slo.fast.latency.within").value, "\"500ms\"");
    assert_eq!(find("deploy.triggers.p99.for").value, "\"30s\"");
    assert_eq!(find("deploy.triggers.p95").value, "false");
    assert_eq!(find("metrics.scrape.node.labels.machine").value, "\"one\"");
    assert!(matches!(find("alerts.alertmanager").origin, Origin::Overlay { .. }));
    let dev = project.resolved_with_origin("dev").unwrap();
    let find = |key: &str| dev.iter().find(|one| one.key == key).unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(find("alerts.channels.ops.slack.secret").value, "\"slack_url\"");
    assert_eq!(find("alerts.routes[0].match.service").value, "\"api\"");
    assert_eq!(find("alerts.routes[2].repeat").origin, Origin::Default);
    assert_eq!(find("deploy.gates[1].max").value, "\"300ms\"");
    assert_eq!(find("deploy.sequential.alpha").value, "0.001");
}

#[test]
fn a_missing_secret_of_a_channel_is_told_with_its_place_and_nobody_needs_it_in_dev() {
    let text = EVERYTHING.replace("[env.dev]", "[env.dev]\n[env.test]");
    let project = project(&text);
    let requests = project.artifacts("test").unwrap();
    let artifacts: BTreeMap<_, _> =
        requests.into_iter().map(|one| (one.key, TreeDigest(one.dir.into()))).collect();
    let secrets = |name: &str| (name != "slack_url").then_some(1);
    let inputs = Inputs { artifacts, secrets: &secrets, source: Default::default(), strategy: None };
    let monitoring = project.resolve("dev", &inputs).unwrap().monitoring;
    assert!(!monitoring.channels.contains_key("ops") && monitoring.channels.contains_key("pager"));
    assert_eq!(monitoring.routes[0].channels, ["pager"]);
    let problems = project.resolve("test", &inputs).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].hint.as_deref(), Some("fairway secret set slack_url -e test"));
    let line = problems[0].span.as_ref().unwrap().line as usize;
    assert!(text.lines().nth(line - 1).unwrap().starts_with("ops = "));
}

#[test]
fn no_secret_of_the_file_is_repeated() {
    for value in [
        "[alerts.channels.a]\nslack = \"https://hooks.slack.com/services/hunter2\"\n",
        "[alerts.channels.a]\nslack = { secret = \"https://hooks.slack.com/services/hunter2\" }\n",
        "[alerts.channels.a]\npagerduty = \"hunter2\"\n",
        "[alerts.channels.a]\nwebhook = \"https://u:hunter2@x.example\"\n",
        "[alerts.channels.a]\nwebhook = \"https://x.example?token=hunter2\"\n",
        "[alerts.channels.a.email]\nhost = \"x\"\nfrom = \"a@b\"\nto = \"a@b\"\nusername = \"u\"\npassword = \"hunter2\"\n",
        "[alerts.channels]\na.email = { from = \"x\", password = \"hunter2\" }\n",
        "[metrics]\nprometheus = \"https://u:hunter2@x.example\"\n",
        "[metrics]\nremote_write = [\"https://x.example/?key=hunter2\"]\n",
        "[metrics.scrape.a]\nurl = \"https://u:hunter2@x.example\"\n",
        "[alerts]\nalertmanager = \"https://u:hunter2@x.example\"\n",
        "[probe.a]\nhttp = \"https://u:hunter2@x.example\"\n",
        "[deploy]\ngates = [{ webhook = \"https://u:hunter2@x.example\" }]\n",
    ] {
        let text = format!("{HEAD}{value}");
        let problems = Project::parse("fairway.toml", &text).expect_err(value);
        let source = fairway_config::Source::new("fairway.toml", &text);
        let shown = fairway_config::render(&problems, &source, fairway_config::Colour::Off);
        assert!(problems.iter().any(|one| one.code == "config/plain-secret"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(problems.iter().all(|one| one.hint.is_some()), "{shown}");
    }
}

#[cfg(unix)]
mod rule_files {
    use super::*;

    const TEXT: &str = "groups: []\n";

    fn with_rules(rules: &str) -> Project {
        project(&format!("{HEAD}[metrics]\nrules = {rules}\n"))
    }

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, TEXT).unwrap();
        }
        directory
    }

    #[test]
    fn are_read_once_and_in_order() {
        let project = with_rules(r#"["ops/*.rules.yml", "ops/b*.yml", "*/deep/x.yml"]"#);
        let directory = directory(&[
            "ops/b.rules.yml",
            "ops/a.rules.yml",
            "ops/.hidden.rules.yml",
            "ops/deep/x.yml",
            "ops/deep/y.rules.yml",
            "other.rules.yml",
        ]);
        let files = project.rule_files("dev", directory.path()).unwrap();
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["ops/a.rules.yml", "ops/b.rules.yml", "ops/deep/x.yml"]);
        assert_eq!(files[0].text, TEXT);
        project.check_rules("dev", &files).unwrap();
    }

    #[test]
    fn that_cannot_be_part_of_a_release_are_refused_with_a_place() {
        let project = with_rules(r#"["missing.yml", "ops/*.yml"]"#);
        let directory = directory(&["ops/large.yml", "ops/bytes.yml", "ops/fine.yml"]);
        let root = directory.path();
        fs::write(root.join("ops/large.yml"), "x".repeat(RULE_FILE_BYTES_MAX + 1)).unwrap();
        fs::write(root.join("ops/bytes.yml"), [0xff, 0xfe]).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.join("ops/link.yml")).unwrap();
        let problems = project.rule_files("dev", root).unwrap_err();
        let shown: Vec<String> = problems.iter().map(|one| one.message.clone()).collect();
        assert!(problems.iter().all(|one| one.code == "config/rule-file" && one.span.is_some()), "{shown:?}");
        assert!(shown.iter().any(|message| message.contains("missing.yml")), "{shown:?}");
        // One place is told once: the first of its files.
        fs::remove_file(root.join("ops/bytes.yml")).unwrap();
        let told = |needle: &str| {
            let problems = project.rule_files("dev", root).unwrap_err();
            assert!(problems.iter().any(|one| one.message.contains(needle)), "{needle}: {problems:#?}");
        };
        told("over 512 KiB");
        fs::remove_file(root.join("ops/large.yml")).unwrap();
        if root.join("ops/link.yml").is_file() {
            told("leads out of the project");
        }
        let stage = fairway_config::Stage::BeforeBuild;
        let problems = project.check_files("dev", root, None, stage).unwrap();
        assert!(problems.iter().any(|one| one.code == "config/rule-file"), "{problems:#?}");
    }

    #[test]
    fn are_bounded_together() {
        let names: Vec<String> = (0..=RULE_FILES_MAX).map(|number| format!("ops/{number}.yml")).collect();
        let directory = directory(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let project = with_rules(r#"["ops/*.yml"]"#);
        assert!(project.rule_files("dev", directory.path()).is_err());
        let file =
            |number: usize, bytes| RuleFile { path: format!("ops/{number}.yml"), text: "x".repeat(bytes) };
        let many: Vec<RuleFile> = (0..3).map(|number| file(number, RULES_BYTES_MAX / 3 + 1)).collect();
        assert!(project.check_rules("dev", &many).is_err());
        project.check_rules("dev", &many[..2]).unwrap();
    }

    #[test]
    fn that_came_over_the_network_are_those_that_the_file_names() {
        let project = with_rules(r#"["ops/*.yml"]"#);
        let file = |path: &str| RuleFile { path: path.into(), text: TEXT.into() };
        project.check_rules("dev", &[file("ops/a.yml")]).unwrap();
        for bad in [
            vec![],
            vec![file("other.yml")],
            vec![file("ops/a.yml"), file("ops/../x.yml")],
            vec![file("ops/a.yml"), file("ops/a.yml")],
            vec![file("ops/./a.yml")],
        ] {
            assert!(project.check_rules("dev", &bad).is_err(), "{bad:?}");
        }
        assert!(project.check_rules("prod", &[]).is_err());
    }

    #[test]
    fn of_a_project_without_any_are_none() {
        let project = project(SHOP);
        assert!(project.rule_files("dev", std::path::Path::new("/nonexistent")).unwrap().is_empty());
        project.check_rules("dev", &[]).unwrap();
    }
}
