//! Asks the sources of gates when the engine says that they are due: queries, commands, webhooks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_engine::evidence::{Check, Number};
use fairway_engine::id::{EnvironmentKey, JobNumber, ReleaseNumber, RolloutNumber};
use fairway_engine::release::Release;
use fairway_engine::time::Timestamp;
use fairway_engine::{Input, Reading, State};
use fairway_targets::event::{JobEvent, JobOutcome};
use fairway_targets::exit::Exit;
use fairway_targets::jobs::Jobs;
use fairway_targets::key::JobKey;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{Source, Watching};
use crate::launch::Launcher;
use crate::outgoing::Request;
use crate::proxy_process::own_program;
use crate::warn::warn;

/// A webhook is somebody's program: longer than this is no answer, and the next one comes soon.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Of its answer only the status counts.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// When nothing is due and no event says otherwise: a gate that was missed is found after this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// After a reading that could not be recorded (the disk is full): a gate's source is somebody's, and is not asked as
/// fast as it answers.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A command that was to end by its timeout has its stop signal, `SIGKILL` and a loaded machine's delays after it.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// One gate of one rollout: the next rollout's gate of that place is another.
type Key = (EnvironmentKey, RolloutNumber, u32);

/// A gate that wants to be asked.
#[derive(Clone, Debug)]
struct Due {
    environment: EnvironmentKey,
    rollout: RolloutNumber,
    gate: u32,
    name: String,
    check: Check,
    compares: bool,
    at: Timestamp,
    release: Arc<Release>,
    stable: Option<ReleaseNumber>,
}

fn due(state: &State) -> Vec<Due> {
    let of_environment = |env: &fairway_engine::Environment| {
        let rollout = env.rollout.as_ref()?;
        let release = env.releases.get(&rollout.to)?;
        let gates = env.gates_due().into_iter().map(|gate| Due {
            environment: env.key.clone(),
            rollout: rollout.number,
            gate: gate.gate,
            name: gate.name.to_owned(),
            check: gate.check.clone(),
            compares: gate.compares,
            at: gate.due,
            release: Arc::clone(release),
            stable: rollout.from,
        });
        Some(gates.collect::<Vec<_>>())
    };
    state.environments.values().filter_map(of_environment).flatten().collect()
}

impl Due {
    fn key(&self) -> Key {
        (self.environment.clone(), self.rollout, self.gate)
    }

    fn answered(&self, reading: Reading) -> Input {
        let (environment, rollout, gate) = self.key();
        Input::Measured { environment, rollout, gate, due: self.at, reading }
    }
}

pub async fn run(watching: Arc<Watching>) {
    let commands = Commands::start(&watching).await;
    let mut news = watching.pump.follow();
    let mut asking: JoinSet<Key> = JoinSet::new();
    let mut under_way: BTreeSet<Key> = BTreeSet::new();
    loop {
        let known = watching.pump.shared.read(due);
        let now = watching.pump.shared.clock.now();
        let (ready, later): (Vec<Due>, Vec<Due>) = known
            .into_iter()
            .filter(|gate| !under_way.contains(&gate.key()))
            .partition(|gate| gate.at <= now);
        for gate in ready {
            let key = gate.key();
            under_way.insert(key.clone());
            let (watching, commands) = (Arc::clone(&watching), commands.clone());
            asking.spawn(async move {
                let reading = ask(&watching, &commands, &gate).await;
                tell(&watching, gate, reading).await;
                key
            });
        }
        let next = later.iter().map(|gate| gate.at).min();
        // With no gate in sight only an event can bring one.
        let wait = match (next, asking.is_empty()) {
            (Some(at), _) => at.since(now).min(LOOK_EVERY),
            (None, false) => LOOK_EVERY,
            (None, true) => Duration::MAX,
        };
        tokio::select! {
            Some(done) = asking.join_next() => {
                match done {
                    Ok(key) => drop(under_way.remove(&key)),
                    // Only a defect panics there; whatever it was may be asked again.
                    Err(_) => under_way.clear(),
                }
            }
            // Missed or read: there is news.
            _ = news.recv() => while news.try_recv().is_ok() {},
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Returns when the reading is on the record: until then the gate is due still, and would be asked again.
async fn tell(watching: &Watching, gate: Due, reading: Reading) {
    if watching.pump.recorded_outcome(gate.answered(reading)).await.is_err() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn ask(watching: &Arc<Watching>, commands: &Commands, gate: &Due) -> Reading {
    let value = |value: f64| Reading::Value { value: Number(value), stable: None };
    let none = |why: String| Reading::None { why };
    match &gate.check {
        // The engine reckons them itself.
        Check::ErrorRate | Check::Latency { .. } => none("nobody is to be asked".to_owned()),
        Check::Query { promql } => query(watching, gate, promql).await.unwrap_or_else(none),
        Check::Command { .. } => {
            commands.run(watching, gate).await.map_or_else(none, |code| value(f64::from(code)))
        }
        Check::Webhook { url } => {
            webhook(watching, gate, url).await.map_or_else(none, |status| value(f64::from(status)))
        }
    }
}

/// `$version` in a query is the release that is asked about, `$environment` where.
async fn query(watching: &Arc<Watching>, gate: &Due, promql: &str) -> Result<Reading, String> {
    let of = &gate.release.spec.monitoring.source;
    let source = Source { watching, of };
    let asked = async |release: ReleaseNumber| {
        let text = promql
            .replace("$version", &release.to_string())
            .replace("$environment", &gate.environment.to_string());
        source.value(&text).await.map(Number).map_err(|error| error.to_string())
    };
    let value = asked(gate.release.number).await?;
    let stable = match gate.stable {
        Some(release) if gate.compares => Some(asked(release).await?),
        Some(_) | None => None,
    };
    Ok(Reading::Value { value, stable })
}

async fn webhook(watching: &Watching, gate: &Due, url: &str) -> Result<u16, String> {
    let body = json!({
        "environment": gate.environment.to_string(),
        "gate": gate.name,
        "release": gate.release.number.to_string(),
        "stable": gate.stable.map(|stable| stable.to_string()),
        "commit": gate.release.spec.source.commit,
    });
    let request = Request {
        within: WEBHOOK_TIMEOUT,
        answer_bytes_max: ANSWER_BYTES_MAX,
        ..Request::post(url, "application/json", body.to_string())
    };
    let answer = watching.outgoing.send(request).await.map_err(|error| error.to_string())?;
    Ok(answer.status)
}

/// Runs gates' commands as jobs are run, with a shim each, but off the record: what a gate's command does is look.
#[derive(Clone, Debug)]
struct Commands {
    jobs: Option<Jobs>,
    dir: PathBuf,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u32,
    for_end: BTreeMap<JobNumber, oneshot::Sender<JobOutcome>>,
}

impl Commands {
    async fn start(watching: &Watching) -> Self {
        let all = watching.state_dir.join("gates");
        // Commands of an earlier server end by their own timeouts, and say so in their directories. This server's have
        // other ones, or what was asked about an earlier release would answer for this one.
        let life = format!("{:x}-{:x}", watching.pump.shared.clock.started_at().0, std::process::id());
        let dir = all.join(life);
        // What they said is of no interest any more, nor whether it can be removed.
        drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(all)).await);
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let opened = Jobs::open(&dir, vec![own_program(), "shim".into()]).ok();
        let jobs = opened.map(|(jobs, events)| {
            tokio::spawn(deliver(events, Arc::clone(&waiting), jobs.clone()));
            jobs
        });
        Self { jobs, dir, waiting }
    }

    /// The command's exit status.
    async fn run(&self, watching: &Arc<Watching>, gate: &Due) -> Result<i32, String> {
        let Check::Command { job } = &gate.check else { return Err("it is not a command".to_owned()) };
        let jobs = self.jobs.as_ref().ok_or_else(|| format!("{} cannot be written", self.dir.display()))?;
        let within = job.timeout.saturating_add(ENDS_WITHIN);
        let (hands, of, job) = (Arc::clone(watching), gate.clone(), job.clone());
        let spec = tokio::task::spawn_blocking(move || {
            let launcher = Launcher {
                trees: &hands.trees,
                vault: &hands.vault,
                ports: &hands.ports,
                state_dir: &hands.state_dir,
            };
            launcher.check(&of.environment, &of.release, &job)
        });
        let spec = spec.await.map_err(|error| error.to_string())??;
        let (sender, ended) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.last += 1;
            let number = JobNumber(waiting.last);
            waiting.for_end.insert(number, sender);
            number
        };
        let key = JobKey { environment: gate.environment.clone(), job: number };
        if let Err(error) = jobs.start(key, spec).await {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).for_end.remove(&number);
            return Err(error.to_string());
        }
        let Ok(ended) = tokio::time::timeout(within, ended).await else {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).for_end.remove(&number);
            return Err(format!("nothing is known of the command after {within:?}"));
        };
        match ended.map_err(|_| "the server stops".to_owned())? {
            JobOutcome::Succeeded => Ok(0),
            JobOutcome::Failed { exit: Exit::Code(code), .. } => Ok(code),
            JobOutcome::Failed { exit, .. } | JobOutcome::Cancelled { exit } => {
                Err(format!("the command ended: {exit}"))
            }
            JobOutcome::SpawnFailed { cause } => Err(cause.to_string()),
            JobOutcome::TimedOut { after, .. } => Err(format!("the command did not end within {after:?}")),
            JobOutcome::Lost { why } => Err(why),
        }
    }
}

async fn deliver(mut events: mpsc::Receiver<JobEvent>, waiting: Arc<Mutex<Waiting>>, jobs: Jobs) {
    while let Some(event) = events.recv().await {
        let waits = waiting.lock().unwrap_or_else(PoisonError::into_inner).for_end.remove(&event.job);
        let key = JobKey { environment: event.environment, job: event.job };
        // One a quarter of a minute for as long as a canary lasts: nothing of them may stay.
        if let Err(error) = jobs.forget(&key) {
            warn(format_args!("{error}"));
        }
        if let Some(waits) = waits {
            // Whoever asked may have gone.
            drop(waits.send(event.outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use fairway_engine::Command;
    use fairway_engine::evidence::{Bounds, Gate, NoData};
    use fairway_engine::release::ReleaseSpec;
    use fairway_engine::strategy::{Step, Strategy};

    use super::*;
    use crate::testing::{World, command_of, deploy, key, release};

    fn gated(listen: &str) -> ReleaseSpec {
        let mut spec = release(listen);
        let hold = Duration::from_secs(600);
        let step = Step { weight: 5, hold, approve: false, mirror: 0, experiment: None };
        spec.deploy.strategy = Strategy::Canary { steps: vec![step], matches: Vec::new(), sticky: false };
        spec.deploy.evidence.gates.push(Gate {
            name: "checks".to_owned(),
            check: Check::Webhook { url: "http://127.0.0.1:1/".to_owned() },
            bounds: Bounds::default(),
            lasts: Duration::ZERO,
            min_requests: 0,
            no_data: NoData::Pause,
        });
        spec
    }

    #[test]
    fn a_late_answer_about_one_rollout_is_no_answer_about_the_next() {
        let shop = key("production");
        let mut world = World::deployed(&shop, release("127.0.0.1:8080"));
        world.give(deploy(&shop, gated("127.0.0.1:8080")));
        world.settle(&shop);
        let asked = due(&world.state).pop().expect("the gate is due");

        world.give(command_of(&shop, Command::Abort { reason: None }));
        world.settle(&shop);
        world.give(deploy(&shop, gated("127.0.0.1:8081")));
        world.settle(&shop);
        let next = due(&world.state).pop().expect("the gate is due again");
        assert_eq!((asked.gate, asked.at), (next.gate, next.at), "else it proves nothing");
        let says_ok = || Reading::Value { value: Number(200.0), stable: None };
        let before = world.log.len();
        world.give(asked.answered(says_ok()));
        assert_eq!(world.log.len(), before, "what was asked about the last one says nothing about this one");
        world.give(next.answered(says_ok()));
        assert!(world.log.len() > before);
        assert_ne!(asked.key(), next.key(), "the next one would wait for the end of the last one's command");
    }
}
