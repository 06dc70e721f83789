//! Releases as people make them, good and bad.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairway_engine::evidence::{
    Autoscale, Bounds, Check, Evidence, Gate, NoData, Number, ScaleBehaviour, ScaleChange, ScaleMetric,
    ScalePolicy, ScaleSelect, ScaleSource, Sequential, Trigger,
};
use fairway_engine::id::{ServiceName, TreeDigest};
use fairway_engine::release::{DeploySettings, JobSpec, Listen, ReleaseJobs, ReleaseSpec, Source};
use fairway_engine::service::{
    Argument, BackingEngine, Limits, Port, Readiness, ReadyProbe, RestartPolicy, RouteSpec, Runs,
    ServiceSpec, StaticServing, Stop, StopSignal,
};
use fairway_engine::strategy::{Match, Step, Strategy};

use crate::rng::Rng;
use crate::traffic::{Answers, Behaviour};

/// What becomes of the copies of a release. Written into its title, where the simulated machine finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    Good,
    NeverReady,
    CrashLoop,
    LateCrash,
    Flapping,
    /// The proxy cannot listen where it wants to.
    BadListener,
    /// One answer in ten is an error.
    Erring,
    /// Most of them are.
    Failing,
    Slow,
    /// As good as any, but now and then one client fails many times at once.
    Bursty,
    /// It takes requests and answers none.
    Hanging,
    /// It takes no connection, and nobody but the proxy notices.
    Refusing,
}

impl Quality {
    const ALL: [(Quality, &'static str); 12] = [
        (Quality::Good, "good"),
        (Quality::NeverReady, "never ready"),
        (Quality::CrashLoop, "crash loop"),
        (Quality::LateCrash, "late crash"),
        (Quality::Flapping, "flapping"),
        (Quality::BadListener, "bad listener"),
        (Quality::Erring, "erring"),
        (Quality::Failing, "failing"),
        (Quality::Slow, "slow"),
        (Quality::Bursty, "bursty"),
        (Quality::Hanging, "hanging"),
        (Quality::Refusing, "refusing"),
    ];

    #[must_use]
    pub fn of(spec: &ReleaseSpec) -> Quality {
        let title = spec.source.title.as_deref();
        Self::ALL
            .into_iter()
            .find(|(_, name)| Some(*name) == title)
            .map_or(Quality::Good, |(quality, _)| quality)
    }

    #[must_use]
    pub fn behaviour(self) -> Behaviour {
        let usual = Behaviour::USUAL;
        match self {
            Quality::Erring => Behaviour { errors: 0.1, ..usual },
            Quality::Failing => Behaviour { errors: 0.8, ..usual },
            Quality::Slow => Behaviour { slow: 0.5, ..usual },
            Quality::Bursty => Behaviour { is_bursty: true, ..usual },
            Quality::Hanging => Behaviour { answers: Answers::Never, ..usual },
            Quality::Refusing => Behaviour { answers: Answers::NoConnection, ..usual },
            Quality::Good
            | Quality::NeverReady
            | Quality::CrashLoop
            | Quality::LateCrash
            | Quality::Flapping
            | Quality::BadListener => usual,
        }
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(quality, _)| *quality == self).map_or("good", |(_, name)| name)
    }
}

pub const PEOPLE: [&str; 4] = ["ann@example.com", "bob@example.com", "cleo@example.com", "Ann@example.com"];

#[must_use]
pub fn service_name(name: &str) -> ServiceName {
    ServiceName::new(name).expect("the simulator's own names are valid")
}

fn seconds(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.between(low * 1000, high * 1000))
}

fn job(rng: &mut Rng) -> JobSpec {
    JobSpec {
        command: vec!["./run".to_owned()],
        artifact: TreeDigest("a".repeat(64).into()),
        workdir: String::new(),
        env: BTreeMap::new(),
        timeout: seconds(rng, 5, 60),
        user: None,
    }
}

fn process(port: bool) -> Runs {
    Runs::Process {
        command: vec![Argument::Literal("./serve".to_owned()), Argument::Port],
        artifact: TreeDigest("b".repeat(64).into()),
        workdir: String::new(),
        port: port.then(|| Port { declared: 8080, variable: "PORT".to_owned() }),
    }
}

fn service(rng: &mut Rng, runs: Runs, path: Option<&str>, replicas: u32, after: &[&str]) -> ServiceSpec {
    ServiceSpec {
        runs,
        replicas,
        after: after.iter().map(|name| service_name(name)).collect::<BTreeSet<_>>(),
        route: path.map(|path| RouteSpec {
            host: None,
            path: path.to_owned(),
            strip_prefix: false,
            sticky_cookie: None,
        }),
        env: BTreeMap::new(),
        ready: Readiness {
            probe: ReadyProbe::Tcp,
            within: seconds(rng, 5, 30),
            every: Duration::from_millis(250),
            timeout: Duration::from_secs(1),
            failures: 3,
        },
        live: None,
        stop: Stop { signal: StopSignal::Term, timeout: seconds(rng, 1, 10), drain: seconds(rng, 0, 20) },
        restart: RestartPolicy {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            burst: 5,
            burst_window: Duration::from_secs(60),
        },
        limits: Limits::default(),
        user: None,
        metrics: None,
        autoscale: None,
        edge: Default::default(),
    }
}

fn strategy(rng: &mut Rng) -> Strategy {
    match rng.index(3) {
        0 => Strategy::Rolling {
            max_surge: u32::try_from(rng.between(0, 3)).unwrap_or(1),
            max_unavailable: u32::try_from(rng.between(0, 2)).unwrap_or(0),
        },
        1 => Strategy::BlueGreen { approve: rng.percent(25) },
        _ => {
            let steps = (0..rng.index(5))
                .map(|_| Step {
                    weight: u32::try_from(rng.between(0, 100)).unwrap_or(0),
                    hold: if rng.percent(30) { Duration::ZERO } else { seconds(rng, 1, 60) },
                    approve: rng.percent(15),
                    mirror: if rng.percent(10) { 50 } else { 0 },
                    experiment: rng.percent(10).then(|| "prices".to_owned()),
                })
                .collect();
            let matches = if rng.percent(50) {
                vec![Match::Header { name: "x-tester".to_owned(), value: "1".to_owned() }]
            } else {
                Vec::new()
            };
            Strategy::Canary { steps, matches, sticky: rng.percent(50) }
        }
    }
}

/// One service, and nothing that takes time.
#[must_use]
pub fn plain() -> ReleaseSpec {
    let mut rng = Rng::new(0);
    let web = service(&mut rng, process(true), Some("/"), 2, &[]);
    ReleaseSpec {
        source: Source::default(),
        services: [(service_name("web"), web)].into(),
        jobs: ReleaseJobs::default(),
        deploy: DeploySettings {
            strategy: Strategy::BlueGreen { approve: false },
            bake: Duration::ZERO,
            keep_warm: Duration::ZERO,
            retain: 3,
            approvers: 0,
            phase_deadline: Duration::from_secs(300),
            evidence: Default::default(),
            purge: None,
        },
        listen: Listen { address: "127.0.0.1:8080".to_owned(), host: None },
        monitoring: Default::default(),
        entrance: Default::default(),
    }
}

fn gate(rng: &mut Rng) -> Gate {
    let check = match rng.index(4) {
        0 => Check::ErrorRate,
        1 => Check::Latency { percentile: 95 },
        2 => Check::Query { promql: "error_rate".to_owned() },
        _ => Check::Command { job: Box::new(job(rng)) },
    };
    let bounds = match check {
        Check::ErrorRate | Check::Query { .. } => Bounds {
            max: Some(Number(0.05)),
            max_vs_stable: rng.percent(30).then_some(Number(3.0)),
            min: None,
        },
        Check::Latency { .. } => Bounds { max: Some(Number(0.5)), ..Bounds::default() },
        Check::Command { .. } | Check::Webhook { .. } => Bounds::default(),
    };
    Gate {
        name: "gate".to_owned(),
        check,
        bounds,
        lasts: if rng.percent(50) { Duration::ZERO } else { seconds(rng, 1, 20) },
        min_requests: rng.between(0, 100),
        no_data: [NoData::Pause, NoData::Pause, NoData::Pass, NoData::Fail][rng.index(4)],
    }
}

fn evidence(rng: &mut Rng) -> Evidence {
    let sequential = rng.percent(75).then(|| Sequential {
        margin: Number(1.25),
        alpha: Number(0.01),
        min_requests: rng.between(0, 200),
    });
    let triggers = vec![
        Trigger::ErrorRate { above: Number(0.05), lasts: Duration::from_secs(rng.between(10, 120)) },
        Trigger::Latency { percentile: 95, above: Duration::from_secs(3), lasts: Duration::from_secs(60) },
        Trigger::CriticalAlert,
    ];
    Evidence {
        sequential,
        gates: (0..rng.index(3)).map(|_| gate(rng)).collect(),
        triggers: if rng.percent(60) { triggers } else { Vec::new() },
    }
}

fn autoscale(rng: &mut Rng) -> Autoscale {
    let behaviour = |rng: &mut Rng| ScaleBehaviour {
        stabilisation: seconds(rng, 0, 300),
        policies: vec![ScalePolicy {
            change: ScaleChange::Percent { value: 100 },
            period: seconds(rng, 15, 60),
        }],
        select: ScaleSelect::Max,
    };
    Autoscale {
        min: 1,
        max: 6,
        metrics: vec![ScaleMetric { source: ScaleSource::Requests, target: Number(30.0) }],
        tolerance: Number(0.1),
        up: behaviour(rng),
        down: behaviour(rng),
    }
}

/// A release that is brought in step by step and lives to be judged: what is wrong with it shows in its answers alone.
#[must_use]
pub fn judged(rng: &mut Rng) -> ReleaseSpec {
    let mut spec = random(rng, true);
    let mut weight = 0;
    let steps = (0..rng.between(1, 4))
        .map(|_| {
            weight = (weight + u32::try_from(rng.between(2, 25)).unwrap_or(5)).min(90);
            let hold = seconds(rng, 5, 120);
            Step { weight, hold, approve: false, mirror: 0, experiment: None }
        })
        .collect();
    spec.deploy.strategy = Strategy::Canary { steps, matches: Vec::new(), sticky: false };
    spec.deploy.approvers = 0;
    let qualities = [
        Quality::Good,
        Quality::Good,
        Quality::Good,
        Quality::Erring,
        Quality::Failing,
        Quality::Slow,
        Quality::Bursty,
        Quality::Hanging,
        Quality::Refusing,
    ];
    let quality = qualities[rng.index(qualities.len())];
    spec.source.title = Some(quality.name().to_owned());
    spec.listen.address = "127.0.0.1:8080".to_owned();
    spec
}

/// A release of a shop whose services come and go.
#[must_use]
pub fn random(rng: &mut Rng, faults: bool) -> ReleaseSpec {
    let copies = |rng: &mut Rng| u32::try_from(rng.between(1, 5)).unwrap_or(1);
    let mut services = BTreeMap::new();
    let has_db = rng.percent(45);
    let has_api = rng.percent(60);
    if has_db {
        let runs = Runs::Backing { engine: BackingEngine::Postgres, port: 5432 };
        services.insert(service_name("db"), service(rng, runs, None, 1, &[]));
    }
    let after_db: &[&str] = if has_db { &["db"] } else { &[] };
    if has_api {
        let n = copies(rng);
        services.insert(service_name("api"), service(rng, process(true), Some("/api"), n, after_db));
    }
    if rng.percent(85) {
        let n = copies(rng);
        let after: &[&str] = if has_api { &["api"] } else { &[] };
        services.insert(service_name("web"), service(rng, process(true), Some("/"), n, after));
    }
    if rng.percent(30) || services.is_empty() {
        let runs = Runs::Static {
            artifact: TreeDigest("c".repeat(64).into()),
            dir: "public".to_owned(),
            spa: true,
            serving: StaticServing::default(),
        };
        services.insert(service_name("site"), service(rng, runs, Some("/site"), 1, &[]));
    }
    if rng.percent(40) {
        let n = u32::try_from(rng.between(0, 2)).unwrap_or(1);
        services.insert(service_name("worker"), service(rng, process(false), None, n, after_db));
    }
    if rng.percent(25) {
        // A worker in one release, a server in the next.
        let port = rng.percent(50);
        let n = copies(rng);
        services.insert(service_name("mixed"), service(rng, process(port), port.then_some("/mixed"), n, &[]));
    }
    if faults && rng.percent(30) {
        for service in services.values_mut().filter(|service| service.takes_requests()) {
            service.autoscale = Some(autoscale(rng));
        }
    }
    let quality = if !faults || rng.percent(60) {
        Quality::Good
    } else {
        Quality::ALL[rng.index(Quality::ALL.len())].0
    };
    let contract = rng.percent(25).then(|| job(rng));
    ReleaseSpec {
        source: Source {
            commit: None,
            branch: None,
            title: Some(quality.name().to_owned()),
            dirty: false,
            authors: PEOPLE.iter().filter(|_| rng.percent(15)).map(|name| (*name).to_owned()).collect(),
        },
        services,
        jobs: ReleaseJobs {
            expand: rng.percent(30).then(|| job(rng)),
            contract,
            contract_after: seconds(rng, 0, 900),
            smoke: rng.percent(30).then(|| job(rng)),
            verify: rng.percent(20).then(|| job(rng)),
            seed: rng.percent(20).then(|| job(rng)),
        },
        deploy: DeploySettings {
            strategy: strategy(rng),
            bake: if rng.percent(30) { Duration::ZERO } else { seconds(rng, 1, 120) },
            keep_warm: if rng.percent(20) { Duration::ZERO } else { seconds(rng, 10, 600) },
            retain: u32::try_from(rng.between(1, 4)).unwrap_or(3),
            approvers: if faults && rng.percent(20) {
                u32::try_from(rng.between(1, 2)).unwrap_or(1)
            } else {
                0
            },
            phase_deadline: seconds(rng, 40, 400),
            // In calm weather there is nobody to show anything to.
            evidence: if faults { evidence(rng) } else { Evidence::default() },
            purge: None,
        },
        listen: Listen {
            address: if quality == Quality::BadListener { "127.0.0.1:1" } else { "127.0.0.1:8080" }
                .to_owned(),
            host: None,
        },
        monitoring: Default::default(),
        entrance: Default::default(),
    }
}
