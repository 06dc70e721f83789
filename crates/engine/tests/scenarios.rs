//! Scenario scripts with golden output: `tests/scenarios/*.txt`.
//!
//! A line that begins with `> ` is a step; the lines below it say what the engine made of it: events indented, effects
//! with an arrow, refusals with an exclamation mark. Every script ends with `> again`, which plans once more and must
//! change nothing. After an intended change: `UPDATE_SCENARIOS=1 cargo test -p fairway-engine --test scenarios`, then
//! read the difference.
//!
//! | step | |
//! |---|---|
//! | `release NAME SERVICES ; OPTIONS` | `web*2 api*1<db db! worker*1- site`: `*` copies, `<` after, `!` backing, `-` without port; options as in `settings` below |
//! | `deploy NAME [wait] [if=rN]`, `promote [full]`, `rollback [rN]`, … | a command, by ann unless `by WHO` stands before it |
//! | `ready ID…`, `ready all` | started and ready |
//! | `applied`, `refused`, `drained ID…`, `stopped all`, `ended jN` … | outcomes |
//! | `+10s` | time passes, and a tick |
//! | `status`, `table`, `next` | shows |
//! | `restart-server` | replays the log, shows what is outstanding, ticks |

#![allow(clippy::unwrap_used, reason = "a script that cannot be read must stop the test where it stands")]
#![allow(clippy::disallowed_methods, reason = "the scripts are files; the engine itself reads none")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairway_engine::id::*;
use fairway_engine::release::*;
use fairway_engine::service::*;
use fairway_engine::strategy::*;
use fairway_engine::time::Timestamp;
use fairway_engine::*;

#[path = "support/evidence.rs"]
mod support;
#[path = "support/words.rs"]
mod words;

use words::{after, effect, fact, phase, route_table};

const START: u64 = 1_000_000;

struct Script {
    state: State,
    log: Vec<Event>,
    now: u64,
    key: EnvironmentKey,
    releases: BTreeMap<String, ReleaseSpec>,
    out: String,
    ports: u32,
    /// What the proxy has counted.
    counters: Observation,
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(
        text.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{text:?} is no duration")),
    )
}

fn job() -> JobSpec {
    JobSpec {
        command: vec!["./job".into()],
        artifact: TreeDigest("a".repeat(64).into()),
        workdir: String::new(),
        env: BTreeMap::new(),
        timeout: Duration::from_secs(60),
        user: None,
    }
}

/// `api*2<db`, `worker*1-`, `db!`
fn service(text: &str) -> (ServiceName, ServiceSpec) {
    let (text, after) = text.split_once('<').unwrap_or((text, ""));
    let (is_backing, has_port) = (text.ends_with('!'), !text.ends_with('-'));
    let (label, copies) = text.trim_end_matches(['!', '-']).split_once('*').unwrap_or((text, "1"));
    let label = label.trim_end_matches(['!', '-']);
    let runs = if is_backing {
        Runs::Backing { engine: BackingEngine::Postgres, port: 5432 }
    } else {
        Runs::Process {
            command: vec![Argument::Literal("./serve".into()), Argument::Port],
            artifact: TreeDigest("b".repeat(64).into()),
            workdir: String::new(),
            port: has_port.then(|| Port { declared: 80, variable: "PORT".into() }),
        }
    };
    let path = if label == "web" { "/".to_owned() } else { format!("/{label}") };
    let spec = ServiceSpec {
        route: (has_port && !is_backing).then_some(RouteSpec {
            host: None,
            path,
            strip_prefix: false,
            sticky_cookie: None,
        }),
        runs,
        replicas: copies.parse().unwrap(),
        after: after.split('+').filter(|a| !a.is_empty()).map(name).collect(),
        env: BTreeMap::new(),
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
    };
    (name(label), spec)
}

/// `blue-green`, `blue-green-approve`, `rolling=SURGE/UNAVAILABLE`, `canary=10:30s,50:0s:approve`, `bake=60s`,
/// `sequential=MIN_REQUESTS`, `gate=CHECK:BOUND…` (see `support`), `triggers`, `autoscale=MIN-MAX:SOURCE:TARGET`,
/// `warm=600s`, `retain=3`, `approvers=1`, `deadline=300s`, `authors=a+b`, `expand`, `smoke`, `verify`, `seed`,
/// `contract=60s`
fn settings(spec: &mut ReleaseSpec, option: &str) {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    match key {
        "blue-green" => spec.deploy.strategy = Strategy::BlueGreen { approve: false },
        "blue-green-approve" => spec.deploy.strategy = Strategy::BlueGreen { approve: true },
        "rolling" => {
            let (surge, unavailable) = value.split_once('/').unwrap();
            spec.deploy.strategy = Strategy::Rolling {
                max_surge: surge.parse().unwrap(),
                max_unavailable: unavailable.parse().unwrap(),
            };
        }
        "canary" => {
            let step = |text: &str| {
                let parts: Vec<&str> = text.split(':').collect();
                let named = |key: &str| parts.iter().find_map(|part| part.strip_prefix(key));
                Step {
                    weight: parts[0].parse().unwrap(),
                    hold: seconds(parts[1]),
                    approve: parts.contains(&"approve"),
                    mirror: named("mirror").map_or(0, |percent| percent.parse().unwrap()),
                    experiment: named("ab-").map(ToOwned::to_owned),
                }
            };
            let matches = vec![Match::Header { name: "x-tester".into(), value: "1".into() }];
            spec.deploy.strategy =
                Strategy::Canary { steps: value.split(',').map(step).collect(), matches, sticky: true };
        }
        "sequential" => {
            spec.deploy.evidence.sequential = Some(evidence::Sequential {
                margin: evidence::Number(1.25),
                alpha: evidence::Number(0.01),
                min_requests: value.parse().unwrap(),
            });
        }
        "gate" => spec.deploy.evidence.gates.push(support::gate(value)),
        "triggers" => spec.deploy.evidence.triggers = support::triggers(),
        "autoscale" => support::autoscale(spec, value),
        "bake" => spec.deploy.bake = seconds(value),
        "warm" => spec.deploy.keep_warm = seconds(value),
        "retain" => spec.deploy.retain = value.parse().unwrap(),
        "approvers" => spec.deploy.approvers = value.parse().unwrap(),
        "deadline" => spec.deploy.phase_deadline = seconds(value),
        "authors" => spec.source.authors = value.split('+').map(Into::into).collect(),
        "expand" => spec.jobs.expand = Some(job()),
        "smoke" => spec.jobs.smoke = Some(job()),
        "verify" => spec.jobs.verify = Some(job()),
        "seed" => spec.jobs.seed = Some(job()),
        "contract" => {
            spec.jobs.contract = Some(job());
            spec.jobs.contract_after = seconds(value);
        }
        _ => panic!("no option {option:?}"),
    }
}

fn release(text: &str) -> ReleaseSpec {
    let (services, options) = text.split_once(';').unwrap_or((text, ""));
    let mut spec = ReleaseSpec {
        source: Source::default(),
        services: services.split_whitespace().map(service).collect(),
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
        listen: Listen { address: "127.0.0.1:8080".into(), host: None },
        monitoring: Default::default(),
        entrance: Default::default(),
    };
    for option in options.split_whitespace() {
        settings(&mut spec, option);
    }
    spec
}

impl Script {
    fn new() -> Self {
        let key = EnvironmentKey {
            project: ProjectName::new("shop").unwrap(),
            environment: EnvironmentName::new("staging").unwrap(),
        };
        Self {
            state: State::default(),
            log: Vec::new(),
            now: START,
            key,
            releases: BTreeMap::new(),
            out: String::new(),
            ports: 20_000,
            counters: Observation { source: 1, ..Observation::default() },
        }
    }

    fn env(&self) -> Option<&Environment> {
        self.state.environments.get(&self.key)
    }

    fn say(&mut self, line: &str) {
        self.out.push_str("  ");
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn input(&mut self, input: &Input) {
        match decide(&self.state, Timestamp(self.now), input) {
            Ok(decision) => self.carry_out(decision),
            Err(refusal) => {
                assert!(!refusal.code().starts_with("internal"), "{input:?}: {refusal}\n{}", self.out);
                self.say(&format!("! {}: {refusal}", refusal.code()));
            }
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        for event in decision.events {
            self.state.apply(&event).unwrap();
            self.say(&fact(&event.fact));
            self.log.push(event);
        }
        if !decision.effects.is_empty() {
            let effects: Vec<String> = decision.effects.iter().map(effect).collect();
            self.say(&format!("-> {}", effects.join(", ")));
        }
        if let Some(why) = decision.ignored {
            self.say(&format!("(ignored: {why})"));
        }
        if let Some(due) = next_deadline(&self.state) {
            assert!(
                due.0 > self.now,
                "a deadline that is due is not dealt with: {}\n{}",
                after(due),
                self.out
            );
        }
    }

    fn command(&mut self, by: &str, command: Command) {
        let input = Input::Command { environment: self.key.clone(), by: by.to_owned(), command };
        self.input(&input);
    }

    fn outcome(&mut self, outcome: Outcome) {
        let input = Input::Outcome { environment: self.key.clone(), outcome };
        self.input(&input);
    }

    fn instances(&self, words: &[&str], is_meant: fn(&InstanceState) -> bool) -> Vec<InstanceId> {
        if words == ["all"] {
            let all = self.env().unwrap().instances.values();
            return all.filter(|i| is_meant(&i.state)).map(|i| i.id.clone()).collect();
        }
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    fn ready(&mut self, words: &[&str]) {
        // What starts because of this is left for the next step.
        for instance in self.instances(words, |state| matches!(state, InstanceState::Starting { .. })) {
            let known = self.env().unwrap().instances.get(&instance);
            let needs_address = known.is_some_and(|i| i.address.is_none())
                && self.env().unwrap().takes(instance.release, &instance.service);
            if needs_address {
                self.ports += 1;
                let address = Some(format!("127.0.0.1:{}", self.ports).into());
                self.outcome(Outcome::InstanceStarted { instance: instance.clone(), address });
            }
            self.outcome(Outcome::InstanceReady { instance });
        }
    }

    fn status(&mut self) {
        let Some(env) = self.env() else { return self.say("there is no such environment") };
        let stable = env.stable.map_or("nothing".to_owned(), |stable| stable.to_string());
        let mut lines = vec![format!("{stable} serves")];
        if let Some(warm) = &env.warm {
            lines.push(format!("{} warm until {}", warm.release, after(warm.until)));
        }
        if let Some(rollout) = &env.rollout {
            let waiting = env.waiting().map_or(String::new(), |waiting| format!("; waits for: {waiting}"));
            lines.push(format!("{} to {}: {}{waiting}", rollout.number, rollout.to, phase(&rollout.phase)));
        }
        for instance in env.instances.values() {
            lines.push(format!("{} {}", instance.id, instance.state.name()));
        }
        for line in lines {
            self.say(&line);
        }
    }

    /// Replays the log, as a server does that comes back.
    fn restart_server(&mut self) {
        let mut state = State::default();
        for event in &self.log {
            let stored = serde_json::to_string(event).unwrap();
            state.apply(&serde_json::from_str(&stored).unwrap()).unwrap();
        }
        assert_eq!(serde_json::to_string(&state).unwrap(), serde_json::to_string(&self.state).unwrap());
        self.state = state;
        let effects: Vec<String> = outstanding(&self.state).iter().map(effect).collect();
        self.say(&format!("-> {}", effects.join(", ")));
        self.input(&Input::Tick);
    }

    fn again(&mut self) {
        let before = self.log.len();
        self.input(&Input::Tick);
        self.outcome_quietly();
        assert_eq!(before, self.log.len(), "planning again changed something\n{}", self.out);
        self.say("no change");
    }

    fn outcome_quietly(&mut self) {
        let outcome = Outcome::RoutesApplied { generation: Generation(0) };
        let input = Input::Outcome { environment: self.key.clone(), outcome };
        let decision = decide(&self.state, Timestamp(self.now), &input).unwrap();
        assert!(decision.events.is_empty() && decision.effects.is_empty(), "{decision:?}\n{}", self.out);
    }

    fn step(&mut self, line: &str) {
        let (by, line) = match line.strip_prefix("by ") {
            Some(rest) => rest.split_once(' ').unwrap(),
            None => ("ann", line),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().expect("a step says something");
        let failure =
            |cause: &str| Failure { cause: cause.to_owned(), last_lines: vec!["last line".to_owned()] };
        match *verb {
            "release" => {
                let (label, text) = line["release ".len()..].split_once(' ').unwrap();
                self.releases.insert(label.to_owned(), release(text));
            }
            "deploy" => {
                let if_release =
                    rest.iter().find_map(|word| word.strip_prefix("if=")).map(|r| r.parse().unwrap());
                let spec = Box::new(self.releases[rest[0]].clone());
                let wait = rest.contains(&"wait");
                self.command(by, Command::Deploy { spec, reason: None, if_release, wait });
            }
            "promote" => self.command(by, Command::Promote { full: rest == ["full"] }),
            "pause" => self.command(by, Command::Pause),
            "resume" => self.command(by, Command::Resume),
            "abort" => self.command(by, Command::Abort { reason: None }),
            "retry" => self.command(by, Command::Retry),
            "rollback" => {
                let to = rest.first().map(|release| release.parse().unwrap());
                self.command(by, Command::Rollback { to, reason: None });
            }
            "approve" => self.command(by, Command::Approve),
            "reject" => self.command(by, Command::Reject { reason: None }),
            "scale" => {
                self.command(
                    by,
                    Command::Scale { service: name(rest[0]), replicas: rest[1].parse().unwrap() },
                );
            }
            "autoscale" => self.command(by, Command::Autoscale { service: name(rest[0]) }),
            "restart" => self.command(by, Command::Restart { service: rest.first().map(|s| name(s)) }),
            "run" => {
                let kind = match rest[0] {
                    "expand" => JobKind::Expand,
                    "contract" => JobKind::Contract,
                    "smoke" => JobKind::Smoke,
                    "verify" => JobKind::Verify,
                    "seed" => JobKind::Seed,
                    _ => JobKind::OneOff { service: None, command: vec!["date".into()] },
                };
                self.command(by, Command::RunJob { kind });
            }
            "maintenance" if rest == ["off"] => self.command(by, Command::MaintenanceOff),
            "maintenance" => self.command(by, Command::MaintenanceOn { message: rest.join(" ") }),
            "down" => self.command(by, Command::Down),

            "ready" => self.ready(rest),
            "ready-without-address" => {
                self.outcome(Outcome::InstanceReady { instance: rest[0].parse().unwrap() });
            }
            "started" => {
                self.ports += 1;
                let address = Some(format!("127.0.0.1:{}", self.ports).into());
                self.outcome(Outcome::InstanceStarted { instance: rest[0].parse().unwrap(), address });
            }
            "suspect" => {
                for instance in self.instances(rest, |state| matches!(state, InstanceState::Ready { .. })) {
                    self.outcome(Outcome::InstanceSuspect { instance, why: "probe failed".into() });
                }
            }
            "crashed" => {
                for instance in self.instances(rest, |_| false) {
                    self.outcome(Outcome::InstanceDown { instance, why: "exit 1".into() });
                }
            }
            "failed" => {
                for instance in self.instances(rest, |_| false) {
                    self.outcome(Outcome::InstanceFailed { instance, failure: failure("exit 1 five times") });
                }
            }
            "unverifiable" => {
                for instance in self.instances(rest, |_| false) {
                    self.outcome(Outcome::InstanceUnverifiable {
                        instance,
                        why: "another start time".into(),
                    });
                }
            }
            "drained" => {
                for instance in self.instances(rest, |state| matches!(state, InstanceState::Draining { .. }))
                {
                    self.outcome(Outcome::InstanceDrained { instance });
                }
            }
            "stopped" => {
                for instance in self.instances(rest, |state| matches!(state, InstanceState::Stopping { .. }))
                {
                    self.outcome(Outcome::InstanceStopped { instance, exit: "exit code 0".into() });
                }
            }
            "applied" => {
                let generation = match rest.first() {
                    Some(number) => Generation(number.trim_start_matches('g').parse().unwrap()),
                    None => self.env().unwrap().routes.generation,
                };
                self.outcome(Outcome::RoutesApplied { generation });
            }
            "refused" => {
                let generation = self.env().unwrap().routes.generation;
                self.outcome(Outcome::RoutesRefused { generation, why: "address in use".into() });
            }
            "ended" => {
                let end = match rest.get(1) {
                    Some(&"failed") => JobEnd::Failed { failure: failure("exit 3") },
                    Some(&"lost") => JobEnd::Lost { why: "the machine restarted".into() },
                    _ => JobEnd::Succeeded,
                };
                self.outcome(Outcome::JobEnded { job: rest[0].parse().unwrap(), end });
            }
            "observe" => self.observe(rest),
            "flow" => self.flow(rest),
            "measure" => self.measure(rest),
            "alert" => self.alert(rest),
            "load" => self.load(rest),
            "evidence" => self.evidence(),
            "due" => self.due(),
            "status" => self.status(),
            "table" => {
                let text = route_table(&self.env().unwrap().routes.table);
                self.say(text.trim_start());
            }
            "next" => {
                let next = next_deadline(&self.state)
                    .map_or("nothing is due".into(), |at| format!("due {}", after(at)));
                self.say(&next);
            }
            "restart-server" => self.restart_server(),
            "again" => self.again(),
            wait if wait.starts_with('+') => {
                self.now += u64::try_from(seconds(&wait[1..]).as_millis()).unwrap();
                self.input(&Input::Tick);
            }
            other => panic!("no step {other:?}"),
        }
    }
}

/// Runs the script and gives back what it should look like.
fn told(script: &str) -> String {
    let mut run = Script::new();
    for line in script.lines() {
        if let Some(step) = line.strip_prefix("> ") {
            run.out.push_str(line);
            run.out.push('\n');
            run.step(step);
        } else if line.starts_with('#') || line.is_empty() {
            run.out.push_str(line);
            run.out.push('\n');
        }
    }
    run.out
}

fn check(file: &str) {
    let path = format!("{}/tests/scenarios/{file}.txt", env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(&path).unwrap();
    let last = script.lines().rfind(|line| line.starts_with("> "));
    assert_eq!(last, Some("> again"), "{file} does not end with planning again");
    let told = told(&script);
    if std::env::var_os("UPDATE_SCENARIOS").is_some() {
        std::fs::write(&path, told).unwrap();
        return;
    }
    let differs = script.lines().zip(told.lines()).position(|(expected, actual)| expected != actual);
    if script != told {
        let line = differs.unwrap_or_else(|| script.lines().count().min(told.lines().count()));
        panic!(
            "{file}.txt line {}:\n expected {:?}\n got      {:?}\n\n{told}",
            line + 1,
            script.lines().nth(line),
            told.lines().nth(line)
        );
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn every_script_is_run() {
            let dir = format!("{}/tests/scenarios", env!("CARGO_MANIFEST_DIR"));
            let files: BTreeSet<String> = std::fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".txt").to_owned())
                .collect();
            let run: BTreeSet<String> = [$(stringify!($name).to_owned()),*].into();
            assert_eq!(files, run);
        }
    };
}

scenarios! {
    abort_in_every_phase
    after_order
    approvals
    autoscale
    autoscale_rollout
    backing_services
    bake_without_visitors
    blue_green
    canary
    canary_bad
    canary_elsewhere
    canary_fix
    canary_good
    canary_hangs
    canary_no_traffic
    canary_plainly_worse
    canary_refuses
    canary_server_restart
    canary_slow
    canary_unasked
    contraction
    crash_loop
    down
    drain
    drain_after_suspect
    evidence_gets_old
    evidence_old_waived
    experiment
    first_deploy
    first_deploy_superseded
    gates_asked
    gates_source_gone
    jobs_and_crashes
    late_answers
    late_outcomes
    maintenance
    never_ready
    new_and_removed_services
    pause
    promoted_without
    queue
    readiness_lost
    ready_once
    ready_without_address
    replacements
    restart
    retry
    rollback
    rollback_aborted_to_warm
    rollback_chain
    rollback_with_workers
    rolling
    rolling_ready_once
    rolling_server_to_worker
    rolling_turned_back
    routes_refused
    scale
    scale_auto
    server_restart
    stale_plan
    stand_in_after_warm
    stand_in_like_for_like
    supersede
    triggers
    triggers_first_deploy
    unverifiable
    workers
    workers_superseded
}
