//! Effects on their way to the machine, and what the machine says on its way back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairway_engine::id::{EnvironmentKey, InstanceId, JobNumber, TreeDigest};
use fairway_engine::release::Release;
use fairway_engine::service::ServiceSpec;
use fairway_engine::{Effect, Failure, Input, InstanceState, JobEnd, Outcome};
use fairway_store::Trees;
use fairway_targets::event::{JobEvent, TargetEvent, TargetEventKind};
use fairway_targets::jobs::Jobs;
use fairway_targets::key::{InstanceKey, JobKey};
use fairway_targets::supervisor::{ControlError, Supervisor};
use tokio::sync::mpsc;

use crate::error::StartError;
use crate::launch::Launcher;
use crate::ports::Ports;
use crate::proxy_process::own_program;
use crate::pump::Pump;
use crate::routes::Routes;
use crate::secrets::Vault;

/// The drivers of one machine. Copies share everything.
#[derive(Clone, Debug)]
pub struct Drivers {
    pub supervisor: Supervisor,
    pub jobs: Jobs,
    known: Arc<Mutex<Known>>,
}

/// What processes tell beyond the record.
#[derive(Debug, Default)]
struct Known {
    pids: BTreeMap<InstanceId, u32>,
    not_enforced: BTreeMap<InstanceId, Vec<String>>,
}

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

    /// Process ids, and limits that are not enforced.
    #[must_use]
    pub fn known(&self) -> (BTreeMap<InstanceId, u32>, BTreeMap<InstanceId, Vec<String>>) {
        let known = self.lock();
        (known.pids.clone(), known.not_enforced.clone())
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
}

/// Starts carrying out effects and reporting outcomes. Returns once everything that ran before is found again: only
/// then is it known what must be started.
///
/// # Errors
/// When what ran before cannot be looked at.
pub async fn start(
    hands: Hands,
    receivers: Receivers,
    mut effects: mpsc::UnboundedReceiver<Effect>,
) -> Result<(), StartError> {
    let Receivers { mut instances, mut jobs } = receivers;
    let reporter = hands.clone();
    tokio::spawn(async move {
        while let Some(event) = instances.recv().await {
            reporter.instance(event).await;
        }
    });
    let reporter = hands.clone();
    tokio::spawn(async move {
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
    tokio::spawn(async move {
        while let Some(effect) = effects.recv().await {
            hands.clone().carry_out(effect);
        }
    });
    Ok(())
}

impl Hands {
    /// Each effect on a task of its own: a slow start must not hold back a stop.
    fn carry_out(self, effect: Effect) {
        match effect {
            Effect::ApplyRoutes { .. } => self.routes.wake(),
            Effect::StartInstance { environment, instance } => {
                tokio::spawn(async move { self.start_instance(environment, instance).await });
            }
            Effect::StopInstance { environment, instance } => {
                tokio::spawn(async move { self.stop_instance(environment, instance).await });
            }
            Effect::RunJob { environment, job } => {
                tokio::spawn(async move { self.run_job(environment, job).await });
            }
            Effect::CancelJob { environment, job } => {
                tokio::spawn(async move {
                    let key = JobKey { environment, job };
                    if let Err(error) = self.drivers.jobs.cancel(&key, None).await {
                        eprintln!("fairway: {key} was not cancelled: {error}");
                    }
                });
            }
        }
    }

    fn launcher(&self) -> Launcher<'_> {
        Launcher { trees: &self.trees, vault: &self.vault, ports: &self.ports, state_dir: &self.state_dir }
    }

    fn release_of(
        &self,
        environment: &EnvironmentKey,
        instance: &InstanceId,
    ) -> Option<(Arc<Release>, ServiceSpec)> {
        self.pump.shared.read(|state| {
            let release = state.environments.get(environment)?.releases.get(&instance.release)?;
            let spec = release.spec.services.get(&instance.service)?.clone();
            Some((Arc::clone(release), spec))
        })
    }

    async fn start_instance(self, environment: EnvironmentKey, instance: InstanceId) {
        let Some((release, spec)) = self.release_of(&environment, &instance) else { return };
        let key = InstanceKey { environment: environment.clone(), instance: instance.clone() };
        let hands = self.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            hands
                .launcher()
                .instance(&key.environment, &release, &key.instance, &spec)
                .map(|spec| (key, spec))
        })
        .await
        .unwrap_or_else(|error| Err(format!("the preparation failed: {error}")));
        let started = match prepared {
            Ok((key, spec)) => {
                self.drivers.supervisor.start(key, spec).await.map_err(|error| error.to_string())
            }
            Err(cause) => Err(cause),
        };
        if let Err(cause) = started {
            let failure = Failure { cause, last_lines: Vec::new() };
            self.tell(environment, Outcome::InstanceFailed { instance, failure }).await;
        }
    }

    async fn stop_instance(self, environment: EnvironmentKey, instance: InstanceId) {
        let key = InstanceKey { environment: environment.clone(), instance: instance.clone() };
        match self.drivers.supervisor.stop(&key, None).await {
            Ok(()) => {}
            // It never got as far as a process.
            Err(ControlError::Unknown { .. }) => {
                let exit = "it was never started".to_owned();
                self.tell(environment, Outcome::InstanceStopped { instance, exit }).await;
            }
            Err(ControlError::Unverifiable { why, .. }) => {
                self.tell(environment, Outcome::InstanceUnverifiable { instance, why }).await;
            }
            // The engine's deadline says what becomes of one that does not answer.
            Err(error @ (ControlError::NoAnswer { .. } | ControlError::Refused { .. })) => {
                eprintln!("fairway: {error}");
            }
        }
    }

    async fn run_job(self, environment: EnvironmentKey, number: JobNumber) {
        let found = self.pump.shared.read(|state| {
            let env = state.environments.get(&environment)?;
            let job = env.jobs.get(&number)?.clone();
            let release = Arc::clone(env.releases.get(&job.release)?);
            Some((job, release))
        });
        let Some((job, release)) = found else { return };
        let hands = self.clone();
        let key = environment.clone();
        let prepared = tokio::task::spawn_blocking(move || hands.launcher().job(&key, &release, &job))
            .await
            .unwrap_or_else(|error| Err(format!("the preparation failed: {error}")));
        let key = JobKey { environment: environment.clone(), job: number };
        let started = match prepared {
            Ok(spec) => self.drivers.jobs.start(key, spec).await.map_err(|error| error.to_string()),
            Err(cause) => Err(cause),
        };
        if let Err(cause) = started {
            let end = JobEnd::Failed { failure: Failure { cause, last_lines: Vec::new() } };
            self.tell(environment, Outcome::JobEnded { job: number, end }).await;
        }
    }

    async fn instance(&self, event: TargetEvent) {
        let TargetEvent { environment, instance, kind } = event;
        if kind.is_end() {
            let mut known = self.drivers.lock();
            known.pids.remove(&instance);
            known.not_enforced.remove(&instance);
        }
        let outcome = match kind {
            TargetEventKind::Started { pid, port } => {
                self.drivers.lock().pids.insert(instance.clone(), pid);
                let address = port.map(|port| format!("127.0.0.1:{port}").into_boxed_str());
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
                Outcome::InstanceFailed { instance, failure: Failure { cause, last_lines } }
            }
            TargetEventKind::GaveUp { cause, last_lines } => Outcome::InstanceFailed {
                instance,
                failure: Failure { cause: cause.to_string(), last_lines },
            },
            TargetEventKind::SpawnFailed { cause } => Outcome::InstanceFailed {
                instance,
                failure: Failure { cause: cause.to_string(), last_lines: Vec::new() },
            },
            TargetEventKind::Stopped { exit } => {
                Outcome::InstanceStopped { instance, exit: exit.to_string() }
            }
            TargetEventKind::Unverifiable { why } => Outcome::InstanceUnverifiable { instance, why },
            TargetEventKind::NotEnforced { why, .. } => {
                self.drivers.lock().not_enforced.insert(instance, why);
                return;
            }
        };
        self.tell(environment, outcome).await;
    }

    async fn job(&self, event: JobEvent) {
        use fairway_targets::event::JobOutcome;
        let JobEvent { environment, job, outcome } = event;
        let failed = |cause: String, last_lines| JobEnd::Failed { failure: Failure { cause, last_lines } };
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
        if self.pump.command(input).await.is_ok()
            && let Err(error) = self.drivers.jobs.acknowledge(&key)
        {
            eprintln!("fairway: {error}");
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
            let cause = "its directory is gone: nothing is left of it".to_owned();
            let failure = Failure { cause, last_lines: Vec::new() };
            self.tell(environment, Outcome::InstanceFailed { instance, failure }).await;
        }
    }

    async fn tell(&self, environment: EnvironmentKey, outcome: Outcome) {
        self.pump.outcome(Input::Outcome { environment, outcome }).await;
    }
}

/// Where a tree's files are, built if need be.
///
/// # Errors
/// When a blob is missing or damaged, or the disk is full.
pub fn materialise(trees: &Trees, tree: &TreeDigest) -> Result<PathBuf, String> {
    trees.materialise(tree).map(|built| built.path).map_err(|error| error.to_string())
}
