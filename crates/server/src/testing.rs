//! For tests: releases as a project would have them, and an engine whose instances do as they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::id::{EnvironmentKey, InstanceId, ServiceName, TreeDigest};
use fairway_engine::release::{DeploySettings, Listen, ReleaseJobs, ReleaseSpec, Source};
use fairway_engine::service::{
    Argument, EnvValue, Limits, Port, Readiness, ReadyProbe, Reference, RestartPolicy, RouteSpec, Runs,
    ServiceSpec, Stop, StopSignal,
};
use fairway_engine::strategy::Strategy;
use fairway_engine::time::Timestamp;
use fairway_engine::{Command, Environment, Event, Input, InstanceState, Outcome, State, decide};

pub fn key(environment: &str) -> EnvironmentKey {
    EnvironmentKey { project: "shop".parse().unwrap(), environment: environment.parse().unwrap() }
}

pub fn name(service: &str) -> ServiceName {
    ServiceName::new(service).unwrap()
}

/// Answers on a port, at `path` where there is one, and calls the services of `calls`.
pub fn service(path: Option<&str>, calls: &[&str]) -> ServiceSpec {
    let call = |called: &&str| {
        let url = EnvValue::Ref(Reference::ServiceUrl { service: name(called) });
        (format!("{}_URL", called.to_uppercase()), url)
    };
    ServiceSpec {
        runs: Runs::Process {
            command: vec![Argument::Literal("./serve".into()), Argument::Port],
            artifact: TreeDigest("b".repeat(64).into()),
            workdir: String::new(),
            port: Some(Port { declared: 80, variable: "PORT".into() }),
        },
        replicas: 1,
        after: Default::default(),
        route: path.map(|path| RouteSpec {
            host: None,
            path: path.to_owned(),
            strip_prefix: false,
            sticky_cookie: None,
        }),
        env: calls.iter().map(call).collect(),
        ready: Readiness {
            probe: ReadyProbe::Tcp,
            within: Duration::from_secs(20),
            every: Duration::from_millis(200),
            timeout: Duration::from_secs(1),
            failures: 3,
        },
        live: None,
        stop: Stop {
            signal: StopSignal::Term,
            timeout: Duration::from_secs(10),
            drain: Duration::from_secs(30),
        },
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

/// `web` at `/`, which calls `api` at `/api`; blue-green, kept warm.
pub fn release(listen: &str) -> ReleaseSpec {
    ReleaseSpec {
        source: Source::default(),
        services: BTreeMap::from([
            (name("web"), service(Some("/"), &["api"])),
            (name("api"), service(Some("/api"), &[])),
        ]),
        jobs: ReleaseJobs::default(),
        deploy: DeploySettings {
            strategy: Strategy::BlueGreen { approve: true },
            bake: Duration::ZERO,
            keep_warm: Duration::from_secs(600),
            retain: 3,
            approvers: 0,
            phase_deadline: Duration::from_secs(300),
            evidence: Default::default(),
            purge: None,
        },
        listen: Listen { address: listen.to_owned(), host: None },
        monitoring: Default::default(),
        entrance: Default::default(),
    }
}

pub fn deploy(environment: &EnvironmentKey, spec: ReleaseSpec) -> Input {
    let command = Command::Deploy { spec: Box::new(spec), reason: None, if_release: None, wait: false };
    command_of(environment, command)
}

pub fn command_of(environment: &EnvironmentKey, command: Command) -> Input {
    Input::Command { environment: environment.clone(), by: "ann".to_owned(), command }
}

pub fn outcome_of(environment: &EnvironmentKey, outcome: Outcome) -> Input {
    Input::Outcome { environment: environment.clone(), outcome }
}

#[derive(Debug, Default)]
pub struct World {
    pub state: State,
    pub log: Vec<Event>,
    ports: u32,
}

impl World {
    pub fn give(&mut self, input: Input) {
        let decision = decide(&self.state, Timestamp(1_000_000), &input).unwrap();
        for event in decision.events {
            self.state.apply(&event).unwrap();
            self.log.push(event);
        }
    }

    pub fn of(&self, environment: &EnvironmentKey) -> &Environment {
        &self.state.environments[environment]
    }

    /// The proxy confirms the newest table, and every copy that starts becomes ready, until nothing follows.
    pub fn settle(&mut self, environment: &EnvironmentKey) {
        loop {
            let before = self.log.len();
            let env = self.of(environment).clone();
            let generation = env.routes.generation;
            self.give(outcome_of(environment, Outcome::RoutesApplied { generation }));
            for instance in env.instances.values() {
                if let InstanceState::Starting { .. } = instance.state {
                    self.ready(environment, &instance.id);
                }
            }
            if self.log.len() == before {
                return;
            }
        }
    }

    pub fn ready(&mut self, environment: &EnvironmentKey, instance: &InstanceId) {
        self.ports += 1;
        let address = Some(format!("127.0.0.1:{}", 30_000 + self.ports).into());
        let instance = instance.clone();
        self.give(outcome_of(environment, Outcome::InstanceStarted { instance: instance.clone(), address }));
        self.give(outcome_of(environment, Outcome::InstanceReady { instance }));
    }

    /// Deployed and serving.
    pub fn deployed(environment: &EnvironmentKey, spec: ReleaseSpec) -> Self {
        let mut world = Self::default();
        world.give(deploy(environment, spec));
        world.settle(environment);
        world
    }
}
