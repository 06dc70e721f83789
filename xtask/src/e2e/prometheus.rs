//! Fairway among the programs that people have already: a real Prometheus that answers for gates and alerts, gets samples
//! and sends some, a real Alertmanager that is told, exports that their own tools accept, and the questions of Grafana.
//!
//! One home under load, and the stories one after the other: each leaves the shop serving.

mod exported;
mod found;
mod leaving;
mod otlp;
mod programs;
mod samples;
mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairway_load::{Kind, Plan, Report, Running, Share};
use serde_json::Value;

use crate::checks::Count;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Shop, Show, free_address};
use programs::{Program, Programs, Shown, Told};

const RATE_PER_S: f64 = 100.0;

/// Longer than any of the waits between the programs: a scrape, a rule, a question every few seconds, a batch.
const SOON: Duration = Duration::from_secs(60);

/// Between two looks at something that is to come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Story = fn(&mut World) -> Done<Vec<String>>;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Length {
    /// A minute: what takes longest, and what stories of canaries and alerts have as well, is left out.
    Short,
    Full,
}

const STORIES: [(&str, Length, Story); 9] = [
    ("a canary goes through by a gate that a real Prometheus answers", Length::Short, source::goes_through),
    ("a canary is called off by a gate that a real Prometheus answers", Length::Short, source::called_off),
    (
        "an alert of a real Prometheus undoes a bake, and is told to a real Alertmanager",
        Length::Short,
        source::alert_undoes,
    ),
    (
        "a real Prometheus finds the copies of a service, and those of the next release",
        Length::Full,
        found::by_itself,
    ),
    (
        "an alert of its own rules is told to a real Alertmanager, and the ends of both",
        Length::Short,
        source::own_alert_is_told,
    ),
    ("a real Prometheus gets what Fairway has measured", Length::Full, samples::sent_out),
    (
        "samples that a real Prometheus and OTLP send in are answered as by Prometheus",
        Length::Short,
        samples::taken_in,
    ),
    (
        "the questions of Grafana are answered as by a real Prometheus",
        Length::Short,
        samples::asked_as_grafana,
    ),
    ("promtool, amtool and the API accept what is exported", Length::Short, exported::accepted),
];

/// Goes on beside the others: it waits a minute for a source that does not answer.
const LEAVING: &str = "a canary whose Prometheus ends pauses, says so, and goes on with it";

pub fn run(fairway: &Path) -> Count {
    told(fairway, Length::Full)
}

pub fn short(fairway: &Path) -> Count {
    told(fairway, Length::Short)
}

fn told(fairway: &Path, length: Length) -> Count {
    let mut count = Count::default();
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(missing) => {
            println!("note    no story with a real Prometheus was told: {missing} names no program");
            return count;
        }
    };
    let mut world = None;
    count.check("Fairway, two Prometheuses and an Alertmanager come up", || {
        world = Some(World::new(fairway, programs)?);
        Ok(Vec::new())
    });
    let Some(world) = &mut world else { return count };
    let mut is_good = true;
    let mut check = |name: &str, story: &mut dyn FnMut() -> Done<Vec<String>>| {
        count.check(name, || {
            let findings = story().unwrap_or_else(|fault| vec![fault.to_string()]);
            is_good &= findings.is_empty();
            Ok(findings)
        });
    };
    let mut left = (length == Length::Full).then(|| leaving::Leaving::begin(world));
    for (name, _, story) in STORIES.iter().filter(|(_, from, _)| *from <= length) {
        check(name, &mut || story(world));
    }
    if let Some(left) = &mut left {
        check(LEAVING, &mut || match left {
            Ok(left) => left.end(world),
            Err(fault) => Err(fault.again()),
        });
    }
    check("Fairway itself failed no request", &mut || {
        let report = world.load.take().map(Running::stop);
        Ok(report.map_or_else(Vec::new, |report| own_failures(&report)))
    });
    if !is_good {
        world.home.keep();
    }
    count
}

struct World {
    programs: Programs,
    home: Home,
    shop: Shop,
    load: Option<Running>,
    shown: Shown,
    /// Scrapes Fairway and has rules: answers for gates and alerts.
    prometheus: Program,
    /// Gets samples from Fairway and sends what it has.
    peer: Program,
    alertmanager: Program,
    /// Where Fairway answers as a Prometheus.
    figures: SocketAddr,
    /// What a Prometheus answers while an alert fires, by its question.
    while_firing: Vec<(&'static str, Told)>,
}

/// What answers for Fairway.
fn scraping(figures: SocketAddr, shown: SocketAddr) -> String {
    format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [ rules.yml ]
scrape_configs:
- job_name: fairway
  honor_labels: true
  static_configs: [ {{ targets: [ '{figures}' ] }} ]
- job_name: service
  http_sd_configs: [ {{ url: 'http://{figures}/api/v1/http_sd', refresh_interval: 1s }} ]
- job_name: outside
  static_configs: [ {{ targets: [ '{shown}' ] }} ]
"
    )
}

/// What no store but this one's knows: an answer proves who was asked.
const RULES: &str = r#"groups:
- name: outside
  interval: 1s
  rules:
  - record: version:http_errors:ratio_rate10s
    expr: >
      (sum by (environment, version) (rate(http_requests_total{code="5xx"}[10s])) or
       0 * sum by (environment, version) (rate(http_requests_total[10s])))
      / sum by (environment, version) (rate(http_requests_total[10s]))
  - alert: Outside
    expr: outside_alarm > 0
    labels: { severity: critical, environment: shop/demo }
    annotations: { summary: 'the alarm is {{ $value }}' }
"#;

fn sending(figures: SocketAddr, shown: SocketAddr) -> String {
    format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
- job_name: made
  static_configs: [ {{ targets: [ '{shown}' ] }} ]
remote_write:
- url: http://{figures}/api/v1/write
  queue_config: {{ batch_send_deadline: 1s, min_shards: 1, max_shards: 2 }}
"
    )
}

const ALERTMANAGER: &str = "route: { receiver: nobody }\nreceivers: [ { name: nobody } ]\n";

impl World {
    fn new(fairway: &Path, programs: Programs) -> Done<Self> {
        let mut home = Home::new(fairway, Show::Nothing)?;
        let (figures, shown) = (free_address()?, Shown::start()?);
        home.listen(figures);
        home.take_samples();
        let of = |name: &str| home.path().join(name);
        let prometheus = programs.prometheus(
            &of("prometheus"),
            &[("prometheus.yml", &scraping(figures, shown.address)), ("rules.yml", RULES)],
        )?;
        let peer =
            programs.prometheus(&of("peer"), &[("prometheus.yml", &sending(figures, shown.address))])?;
        let alertmanager = programs.alertmanager(&of("alertmanager"), ALERTMANAGER)?;
        let shop = Shop::new(of("shop"), free_address()?, "0s");
        home.start_server()?;
        let mut world = Self {
            programs,
            home,
            shop,
            load: None,
            shown,
            prometheus,
            peer,
            alertmanager,
            figures,
            while_firing: Vec::new(),
        };
        let settings = world.elsewhere("");
        world.deploy("v2", &settings)?;
        let mut plan = Plan::new(world.shop.address());
        plan.rate_per_s = RATE_PER_S;
        plan.mix = vec![Share::new(Kind::KeepAliveGet, 1, "/api/products")];
        world.load = Some(fairway_load::start(plan).context("the load")?);
        Ok(world)
    }

    /// Settings with `[env.demo.deploy]` first, and the real Prometheus for figures.
    fn elsewhere(&self, deploy: &str) -> String {
        self.settings(deploy, &format!("prometheus = \"{}\"", self.prometheus.url()))
    }

    fn settings(&self, deploy: &str, metrics: &str) -> String {
        let (peer, alertmanager) = (self.peer.url(), self.alertmanager.url());
        format!(
            "{deploy}\n[env.demo.metrics]\n{metrics}\nremote_write = [\"{peer}/api/v1/write\"]\n\n\
             [env.demo.alerts]\nalertmanager = \"{alertmanager}\"\n"
        )
    }

    fn directory(&self) -> PathBuf {
        self.shop.directory().to_owned()
    }

    fn check_out(&mut self, version: &str, settings: &str) -> Done {
        self.shop.settings(settings);
        self.shop.check_out(version)
    }

    fn deploy(&mut self, version: &str, settings: &str) -> Done {
        self.check_out(version, settings)?;
        self.home.must(self.shop.directory(), &["deploy", "-e", "demo"])?;
        Ok(())
    }

    fn begin_deploy(&mut self, version: &str, settings: &str) -> Done {
        self.check_out(version, settings)?;
        self.home.must(self.shop.directory(), &["deploy", "-e", "demo", "--detach"])?;
        Ok(())
    }

    /// With a bake that only evidence can end sooner.
    fn begin_deploy_with(&mut self, bake: &str, version: &str, settings: &str) -> Done {
        let baking = Shop::new(self.directory(), self.shop.address(), bake);
        let shop = std::mem::replace(&mut self.shop, baking);
        let begun = self.begin_deploy(version, settings);
        self.shop = shop;
        begun
    }

    /// What the record says of the last rollout, as people read it.
    fn history(&self) -> Done<String> {
        Ok(self.home.must(self.shop.directory(), &["history", "-e", "demo", "--limit", "1"])?.stdout)
    }

    /// The rollout (null when there is none) as soon as it is as wanted.
    fn until(&self, is_wanted: impl Fn(&Value) -> bool) -> Done<Value> {
        until(&self.home, self.shop.directory(), is_wanted)
    }
}

fn until(home: &Home, directory: &Path, is_wanted: impl Fn(&Value) -> bool) -> Done<Value> {
    soon("what the rollout is to come to", || {
        let status = home.ask(directory, &["status", "-e", "demo"])?;
        let rollout = status["environments"][0]["rollout"].clone();
        Ok(if is_wanted(&rollout) { Ok(rollout) } else { Err(rollout.to_string()) })
    })
}

/// Answers that no version of the shop gave.
fn own_failures(report: &Report) -> Vec<String> {
    let by_fairway = |failure: &&fairway_load::Failure| failure.header("x-shop-version").is_none();
    let failures = report.failures.iter().filter(by_fairway);
    let mut findings: Vec<String> = failures.map(|failure| format!("failed by Fairway: {failure}")).collect();
    if report.failures_dropped > 0 {
        findings.push(format!("{} failures were not kept: nothing is proved", report.failures_dropped));
    }
    findings
}

/// What comes soon. `look` answers with what it saw until then.
fn soon<T>(what: &str, mut look: impl FnMut() -> Done<Result<T, String>>) -> Done<T> {
    let began = Instant::now();
    loop {
        let seen = match look() {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(seen)) => seen,
            Err(fault) => fault.to_string(),
        };
        if began.elapsed() > SOON {
            return Err(Fault::new(format!("{what} does not come: {seen}")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
