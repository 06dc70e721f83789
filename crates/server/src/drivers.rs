//! Effects on their way to the machine, and what the machine says on its way back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_engine::id::{EnvironmentKey, InstanceId, JobNumber, TreeDigest};
use fairway_engine::release::Release;
use fairway_engine::service::ServiceSpec;
use fairway_engine::{Effect, Failure, Input, InstanceState, Job, JobEnd, Outcome};
use fairway_store::Trees;
use fairway_targets::event::{JobEvent, TargetEvent, TargetEventKind};
use fairway_targets::jobs::Jobs;
use fairway_targets::key::{InstanceKey, JobKey};
use fairway_targets::supervisor::{ControlError, Supervisor};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::{Refused, StartError};
use crate::launch::Launcher;
use crate::ports::Ports;
use crate::proxy_process::own_program;
use crate::pump::Pump;
use crate::routes::Routes;
use crate::secrets::Vault;
use crate::starts::{End, Starts};
use crate::warn::warn;

/// Between two attempts to have a shim stop its instance: it did not answer within seconds, and a machine that is that
/// loaded is not helped by haste.
const STOP_AGAIN: Duration = Duration::from_secs(2);

/// The drivers of one machine. Copies share everything.
#[derive(Clone, Debug)]
pub struct Drivers {
    pub supervisor: Supervisor,
    pub jobs: Jobs,
    known: Arc<Mutex<Known>>,
}

/// What an instance told this server beyond what is on the record.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Of the process that runs now; none while it is started again.
    pub pid: Option<u32>,
    /// Limits that the machine does not enforce, one sentence each.
    pub not_enforced: Vec<String>,
}

/// Two environments have instances of the same name.
pub type Known = BTreeMap<InstanceKey, Told>;

pub struct Receivers {
    instances: mpsc::Receiver<TargetEvent>,
    jobs: mpsc::Receiver<JobEvent>,
}

impl Drivers {
    /// # Errors
    /// When the state directory cannot be read.
    pub fn open(state_dir: &Path) -> Result<(Self, Receivers), StartError> {
        let shim: Vec<OsString> = vec![own_program(), "shim".into()];
        let fail = |error: String| StartError::Supervisor(error);
        let (supervisor, instances) =
            Supervisor::open(state_dir, shim.clone()).map_err(|error| fail(error.to_string()))?;
        let (jobs, job_events) = Jobs::open(state_dir, shim).map_err(|error| fail(error.to_string()))?;
        let drivers = Self { supervisor, jobs, known: Arc::default() };
        Ok((drivers, Receivers { instances, jobs: job_events }))
    }

    /// The instances that this server has heard from and that have not ended.
    #[must_use]
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    fn note(&self, key: &InstanceKey, kind: &TargetEventKind) {
        let mut known = self.lock();
        match kind {
            TargetEventKind::Started { pid, .. } => known.entry(key.clone()).or_default().pid = Some(*pid),
            TargetEventKind::NotEnforced { why, .. } => {
                known.entry(key.clone()).or_default().not_enforced.clone_from(why);
            }
            // The process is no more, and its number may be somebody else's.
            TargetEventKind::Exited { will_restart_in: Some(_), .. } => {
                known.entry(key.clone()).or_default().pid = None;
            }
            TargetEventKind::Exited { will_restart_in: None, .. }
            | TargetEventKind::GaveUp { .. }
            | TargetEventKind::SpawnFailed { .. }
            | TargetEventKind::Stopped { .. }
            | TargetEventKind::Unverifiable { .. } => drop(known.remove(key)),
            TargetEventKind::Ready | TargetEventKind::Suspect { .. } => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What effects need to become real.
#[derive(Clone, Debug)]
pub struct Hands {
    pub pump: Pump,
    pub drivers: Drivers,
    pub routes: Routes,
    pub trees: Trees,
    pub vault: Arc<Vault>,
    pub ports: Arc<Ports>,
    pub state_dir: PathBuf,
    pub starts: Arc<Starts<InstanceKey>>,
    pub job_starts: Arc<Starts<JobKey>>,
}

/// Starts carrying out effects and reporting outcomes. Returns once everything that ran before is found again: only
/// then is it known what must be started. None of the tasks ends before the server does.
///
/// # Errors
/// When what ran before cannot be looked at.
pub async fn start(
    hands: Hands,
    receivers: Receivers,
    mut effects: mpsc::UnboundedReceiver<Effect>,
) -> Result<JoinSet<()>, StartError> {
    let Receivers { mut instances, mut jobs } = receivers;
    let mut tasks = JoinSet::new();
    let reporter = hands.clone();
    tasks.spawn(async move {
        while let Some(event) = instances.recv().await {
            reporter.instance(event).await;
        }
    });
    let reporter = hands.clone();
    tasks.spawn(async move {
        while let Some(event) = jobs.recv().await {
            reporter.job(event).await;
        }
    });
    let fail = |error: String| StartError::Supervisor(error);
    let found = hands.drivers.supervisor.reattach().await.map_err(|error| fail(error.to_string()))?;
    hands.drivers.jobs.reattach().await.map_err(|error| fail(error.to_string()))?;
    hands.report_lost(&found).await;
    let outstanding = hands.pump.shared.read(fairway_engine::outstanding);
    for effect in outstanding {
        hands.clone().carry_out(effect);
    }
    tasks.spawn(async move {
        while let Some(effect) = effects.recv().await {
            hands.clone().carry_out(effect);
        }
    });
    Ok(tasks)
}

impl Hands {
    /// Each effect on a task of its own: a slow start must not hold back a stop.
    fn carry_out(self, effect: Effect) {
        match effect {
            Effect::ApplyRoutes { .. } => self.routes.wake(),
            Effect::StartInstance { environment, instance } => {
                // What it calls has a listener of its own for its release, which is in no table of the engine's.
                self.routes.wake();
                tokio::spawn(async move { self.start_instance(environment, instance).await });
            }
            Effect::StopInstance { environment, instance } => {
                let key = InstanceKey { environment, instance };
                tokio::spawn(async move { self.stop_instance(key).await });
            }
            Effect::RunJob { environment, job } => {
                tokio::spawn(async move { self.run_job(environment, job).await });
            }
            Effect::CancelJob { environment, job } => {
                tokio::spawn(async move { self.cancel_job(JobKey { environment, job }).await });
            }
        }
    }

    fn launcher(&self) -> Launcher<'_> {
        Launcher { trees: &self.trees, vault: &self.vault, ports: &self.ports, state_dir: &self.state_dir }
    }

    async fn start_instance(self, environment: EnvironmentKey, instance: InstanceId) {
        let key = InstanceKey { environment, instance };
        let Some((release, spec)) = self.to_be_started(&key) else { return };
        if !self.starts.begin(&key) {
            return;
        }
        let started = self.prepare_and_start(&key, release, spec).await;
        let end = self.starts.end(&key);
        match (end, started) {
            // Of one that never got as far as a process this says so.
            (End::CalledOff, _) => self.stop_instance(key).await,
            (End::Wanted, Ok(())) => {}
            (End::Wanted, Err(cause)) => {
                let failure = failure(cause, Vec::new());
                self.tell(key.environment, Outcome::InstanceFailed { instance: key.instance, failure }).await;
            }
        }
    }

    /// None when the record says by now that it is to stop, or that it has ended.
    fn to_be_started(&self, key: &InstanceKey) -> Option<(Arc<Release>, ServiceSpec)> {
        self.pump.shared.read(|state| {
            let environment = state.environments.get(&key.environment)?;
            match environment.instances.get(&key.instance)?.state {
                InstanceState::Starting { .. } => {}
                InstanceState::Ready { .. }
                | InstanceState::Suspect { .. }
                | InstanceState::Down { .. }
                | InstanceState::Draining { .. }
                | InstanceState::Stopping { .. } => return None,
            }
            let release = environment.releases.get(&key.instance.release)?;
            let spec = release.spec.services.get(&key.instance.service)?.clone();
            Some((Arc::clone(release), spec))
        })
    }

    async fn prepare_and_start(
        &self,
        key: &InstanceKey,
        release: Arc<Release>,
        spec: ServiceSpec,
    ) -> Result<(), String> {
        let (hands, of) = (self.clone(), key.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            hands.launcher().instance(&of.environment, &release, &of.instance, &spec)
        });
        let spec = prepared.await.unwrap_or_else(|error| Err(format!("the preparation failed: {error}")))?;
        if self.starts.is_called_off(key) {
            return Err("it was called off before it began".to_owned());
        }
        self.drivers.supervisor.start(key.clone(), spec).await.map_err(|error| error.to_string())
    }

    async fn stop_instance(&self, key: InstanceKey) {
        if self.starts.call_off(&key) {
            return;
        }
        let InstanceKey { environment, instance } = key.clone();
        loop {
            match self.drivers.supervisor.stop(&key, None).await {
                Ok(()) => return,
                // It never got as far as a process.
                Err(ControlError::Unknown { .. }) => {
                    let exit = "it was never started".to_owned();
                    return self.tell(environment, Outcome::InstanceStopped { instance, exit }).await;
                }
                Err(ControlError::Unverifiable { why, .. }) => {
                    return self.tell(environment, Outcome::InstanceUnverifiable { instance, why }).await;
                }
                // The engine's deadline says when enough has been tried.
                Err(error @ (ControlError::NoAnswer { .. } | ControlError::Refused { .. })) => {
                    warn(format_args!("{error}"));
                    tokio::time::sleep(STOP_AGAIN).await;
                    let is_known = self.pump.shared.read(|state| {
                        let known = state.environments.get(&environment);
                        known.is_some_and(|known| known.instances.contains_key(&instance))
                    });
                    if !is_known {
                        return;
                    }
                }
            }
        }
    }

    async fn run_job(self, environment: EnvironmentKey, number: JobNumber) {
        let found = self.pump.shared.read(|state| {
            let env = state.environments.get(&environment)?;
            let job = env.running_job(number)?.clone();
            let release = Arc::clone(env.releases.get(&job.release)?);
            Some((job, release))
        });
        let Some((job, release)) = found else { return };
        let key = JobKey { environment, job: number };
        if !self.job_starts.begin(&key) {
            return;
        }
        let started = self.prepare_and_run(&key, release, job).await;
        let end = self.job_starts.end(&key);
        match (end, started) {
            (_, Err(cause)) => {
                let end = JobEnd::Failed { failure: failure(cause, Vec::new()) };
                self.tell(key.environment, Outcome::JobEnded { job: number, end }).await;
            }
            (End::CalledOff, Ok(())) => self.cancel_job(key).await,
            (End::Wanted, Ok(())) => {}
        }
    }

    async fn prepare_and_run(&self, key: &JobKey, release: Arc<Release>, job: Job) -> Result<(), String> {
        let (hands, environment) = (self.clone(), key.environment.clone());
        let prepared =
            tokio::task::spawn_blocking(move || hands.launcher().job(&environment, &release, &job)).await;
        let spec = prepared.unwrap_or_else(|error| Err(format!("the preparation failed: {error}")))?;
        if self.job_starts.is_called_off(key) {
            return Err("cancelled before it began".to_owned());
        }
        self.drivers.jobs.start(key.clone(), spec).await.map_err(|error| error.to_string())
    }

    async fn cancel_job(&self, key: JobKey) {
        if self.job_starts.call_off(&key) {
            return;
        }
        if let Err(error) = self.drivers.jobs.cancel(&key, None).await {
            warn(format_args!("{key} was not cancelled: {error}"));
        }
    }

    async fn instance(&self, event: TargetEvent) {
        let TargetEvent { environment, instance, kind } = event;
        let key = InstanceKey { environment, instance };
        self.drivers.note(&key, &kind);
        let InstanceKey { environment, instance } = key;
        let outcome = match kind {
            TargetEventKind::Started { port, .. } => {
                let address = port.map(|port| format!("127.0.0.1:{port}").into());
                Outcome::InstanceStarted { instance, address }
            }
            TargetEventKind::Ready => Outcome::InstanceReady { instance },
            TargetEventKind::Suspect { why } => Outcome::InstanceSuspect { instance, why },
            TargetEventKind::Exited { exit, why, will_restart_in: Some(wait), .. } => {
                let why = why.map_or_else(|| exit.to_string(), |why| format!("{exit} ({why})"));
                Outcome::InstanceDown { instance, why: format!("{why}; starts again in {wait:?}") }
            }
            TargetEventKind::Exited { exit, why, will_restart_in: None, last_lines } => {
                let cause = why.map_or_else(|| exit.to_string(), |why| format!("{exit} ({why})"));
                Outcome::InstanceFailed { instance, failure: failure(cause, last_lines) }
            }
            TargetEventKind::GaveUp { cause, last_lines } => {
                Outcome::InstanceFailed { instance, failure: failure(cause.to_string(), last_lines) }
            }
            TargetEventKind::SpawnFailed { cause } => {
                Outcome::InstanceFailed { instance, failure: failure(cause.to_string(), Vec::new()) }
            }
            TargetEventKind::Stopped { exit } => {
                Outcome::InstanceStopped { instance, exit: exit.to_string() }
            }
            TargetEventKind::Unverifiable { why } => Outcome::InstanceUnverifiable { instance, why },
            TargetEventKind::NotEnforced { .. } => return,
        };
        self.tell(environment, outcome).await;
    }

    async fn job(&self, event: JobEvent) {
        use fairway_targets::event::JobOutcome;
        let JobEvent { environment, job, outcome } = event;
        let failed = |cause: String, last_lines| JobEnd::Failed { failure: failure(cause, last_lines) };
        let end = match outcome {
            JobOutcome::Succeeded => JobEnd::Succeeded,
            JobOutcome::Failed { exit, last_lines } => failed(exit.to_string(), last_lines),
            JobOutcome::SpawnFailed { cause } => failed(cause.to_string(), Vec::new()),
            JobOutcome::TimedOut { after, last_lines } => {
                failed(format!("not done after {after:?}"), last_lines)
            }
            JobOutcome::Cancelled { exit } => failed(format!("cancelled ({exit})"), Vec::new()),
            JobOutcome::Lost { why } => JobEnd::Lost { why },
        };
        let key = JobKey { environment: environment.clone(), job };
        let input = Input::Outcome { environment, outcome: Outcome::JobEnded { job, end } };
        // Acknowledged only when it is on the record, so that a crash in between reports it once more.
        match self.pump.recorded_outcome(input).await {
            Ok(_) => {}
            Err(Refused::Stopping) => return,
            Err(error @ (Refused::Engine(_) | Refused::NotRecorded(_))) => {
                return warn(format_args!("the end of {key} was not taken: {error}"));
            }
        }
        let jobs = self.drivers.jobs.clone();
        match tokio::task::spawn_blocking(move || jobs.acknowledge(&key)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn(format_args!("{error}")),
            Err(error) => warn(format_args!("{error}")),
        }
    }

    /// What the record says is running and no supervisor directory knows has ended with its machine.
    async fn report_lost(&self, found: &[InstanceKey]) {
        let lost: Vec<(EnvironmentKey, InstanceId)> = self.pump.shared.read(|state| {
            let all = state
                .environments
                .iter()
                .flat_map(|(key, env)| env.instances.values().map(move |i| (key, i)));
            all.filter(|(_, instance)| match instance.state {
                // Will be started, or is told to stop, again: both are effects that are still outstanding.
                InstanceState::Starting { .. } | InstanceState::Stopping { .. } => false,
                InstanceState::Ready { .. }
                | InstanceState::Suspect { .. }
                | InstanceState::Down { .. }
                | InstanceState::Draining { .. } => true,
            })
            .filter(|(key, instance)| {
                !found.iter().any(|one| one.environment == **key && one.instance == instance.id)
            })
            .map(|(key, instance)| (key.clone(), instance.id.clone()))
            .collect()
        });
        for (environment, instance) in lost {
            let failure = failure("its directory is gone: nothing is left of it".to_owned(), Vec::new());
            self.tell(environment, Outcome::InstanceFailed { instance, failure }).await;
        }
    }

    async fn tell(&self, environment: EnvironmentKey, outcome: Outcome) {
        self.pump.outcome(Input::Outcome { environment, outcome }).await;
    }
}

/// A log keeps lines of 64 KiB; twenty of those, escaped, are more than a record of the event log can hold.
const LAST_LINE_CHARS_MAX: usize = 2_000;

fn failure(cause: String, last_lines: Vec<String>) -> Failure {
    let cut = |line: String| match line.char_indices().nth(LAST_LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    };
    Failure { cause: cut(cause), last_lines: last_lines.into_iter().map(cut).collect() }
}

/// Where a tree's files are, built if need be.
///
/// # Errors
/// When a blob is missing or damaged, or the disk is full.
pub fn materialise(trees: &Trees, tree: &TreeDigest) -> Result<PathBuf, String> {
    trees.materialise(tree).map(|built| built.path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_shouted_fits_into_a_record() {
        let shout = vec!["\u{1}".repeat(64 << 10); fairway_targets::event::LAST_LINES_MAX];
        let failure = failure("exit code 1".to_owned(), shout);
        let bytes = serde_json::to_vec(&failure).unwrap().len();
        // The cause of an abort is told in a second place of the same event.
        assert!(2 * bytes < fairway_store::log::PAYLOAD_BYTES_MAX, "{bytes}");
        assert_eq!(failure.cause, "exit code 1");
    }
}
