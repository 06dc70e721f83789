//! Commands that run once: migrations, smoke checks, seeds, `fairway run`. Each has a shim as an instance has, so it
//! outlives the server, and a directory whose existence means that it is never run a second time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_engine::service::Argument;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::attach::{Found, inspect};
use crate::client::{self, ClientError, Follower, News};
use crate::event::{JobEvent, JobOutcome};
use crate::key::{JobKey, Layout};
use crate::process::random_token;
use crate::record;
use crate::spec::{JobSpec, Launch, Role};
use crate::supervisor::private_dir;
use crate::wire::{Command, EXIT_FILE, End, Message, Phase, State};

/// Results that wait for the server; a job has one.
const EVENTS_MAX: usize = 256;

/// Says in a job's directory that the server has its result on record.
const ACKNOWLEDGED_FILE: &str = "acknowledged.json";

#[derive(Debug, Error)]
pub enum JobError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{key}: its shim did not start: {error}")]
    Shim { key: JobKey, error: io::Error },
    #[error("there is no job {key}")]
    Unknown { key: JobKey },
    #[error("{key}: {why}; it was left alone")]
    Unverifiable { key: JobKey, why: String },
    #[error("{key}: {why}")]
    Refused { key: JobKey, why: String },
}

/// What can be said of a job now.
#[derive(Clone, Debug, PartialEq)]
pub enum JobStatus {
    Starting,
    Running { pid: u32 },
    Stopping { pid: u32 },
    Done(JobOutcome),
    Unverifiable { why: String },
}

/// A handle; copies share everything. When the last one goes, jobs go on and nobody follows them.
#[derive(Clone, Debug)]
pub struct Jobs {
    inner: Arc<Inner>,
    _tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    shim_command: Vec<OsString>,
    jobs: Mutex<BTreeMap<JobKey, Place>>,
    events: mpsc::Sender<JobEvent>,
}

#[derive(Debug)]
enum Place {
    Starting,
    Followed(AbortHandle),
    Reported(JobOutcome),
}

#[derive(Debug)]
struct Tasks(Arc<Inner>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for place in self.0.lock().values() {
            if let Place::Followed(task) = place {
                task.abort();
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobKey, Place>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, key: &JobKey, outcome: JobOutcome) {
        let event = JobEvent { environment: key.environment.clone(), job: key.job, outcome };
        // Nobody listens when the server is going down; what is not acknowledged is reported to the next one.
        let _ = self.events.send(event).await;
    }
}

impl Jobs {
    /// `shim_command` as in [`crate::supervisor::Supervisor::open`].
    ///
    /// # Errors
    /// When the state directory cannot be made.
    pub fn open(
        state_dir: &Path,
        shim_command: Vec<OsString>,
    ) -> Result<(Self, mpsc::Receiver<JobEvent>), JobError> {
        let failed = |error| JobError::Io { path: state_dir.to_path_buf(), error };
        let state_dir = std::path::absolute(state_dir).map_err(failed)?;
        fs::create_dir_all(&state_dir).map_err(failed)?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let layout = Layout::new(&state_dir);
        let inner = Arc::new(Inner { layout, shim_command, jobs: Mutex::default(), events });
        Ok((Self { _tasks: Arc::new(Tasks(Arc::clone(&inner))), inner }, receiver))
    }

    /// Follows every job again whose result is not acknowledged, and reports the results there are.
    ///
    /// # Errors
    /// When the state directory cannot be read.
    pub async fn reattach(&self) -> Result<Vec<JobKey>, JobError> {
        let keys = self.inner.layout.all_jobs();
        let keys =
            keys.map_err(|error| JobError::Io { path: self.inner.layout.root().to_path_buf(), error })?;
        let mut found = Vec::new();
        for key in keys {
            let dir = self.inner.layout.job(&key);
            if dir.join(ACKNOWLEDGED_FILE).exists() || self.inner.lock().contains_key(&key) {
                continue;
            }
            // Made and not used: no command has run, and starting it now is a first start.
            if let Found::Unused = inspect(&dir).await {
                continue;
            }
            self.follow(key.clone());
            found.push(key);
        }
        Ok(found)
    }

    /// Runs a job, unless its directory says that it has run or runs: then its result is reported, once it is there.
    ///
    /// # Errors
    /// Why nothing was started.
    pub async fn start(&self, key: JobKey, spec: JobSpec) -> Result<(), JobError> {
        let again = {
            let mut jobs = self.inner.lock();
            match jobs.get(&key) {
                Some(Place::Reported(outcome)) => Some(outcome.clone()),
                Some(Place::Starting | Place::Followed(_)) => return Ok(()),
                None => {
                    jobs.insert(key.clone(), Place::Starting);
                    None
                }
            }
        };
        if let Some(outcome) = again {
            self.inner.send(&key, outcome).await;
            return Ok(());
        }
        let mut claim = Claim { inner: &self.inner, key: &key, kept: false };
        self.launch(&key, spec).await?;
        claim.kept = true;
        self.follow(key.clone());
        Ok(())
    }

    async fn launch(&self, key: &JobKey, spec: JobSpec) -> Result<(), JobError> {
        let dir = self.inner.layout.job(key);
        let failed = |error| JobError::Io { path: dir.clone(), error };
        fs::create_dir_all(self.inner.layout.jobs(&key.environment)).map_err(failed)?;
        let fresh = match private_dir(&dir) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match inspect(&dir).await {
                Found::Unused => false,
                Found::Ended(_) | Found::Alive(_) | Found::Gone { .. } | Found::Unverifiable { .. } => {
                    return Ok(());
                }
            },
            Err(error) => return Err(failed(error)),
        };
        let launch = Launch {
            name: key.to_string(),
            token: random_token().map_err(failed)?,
            role: Role::Job { timeout: spec.timeout },
            argv: spec.argv.into_iter().map(Argument::Literal).collect(),
            env: spec.env,
            workdir: spec.workdir,
            port: None,
            port_assigned: false,
            stop: spec.stop,
            limits: spec.limits,
            user: spec.user,
            log: spec.log,
        };
        match client::launch(&dir, &self.inner.shim_command, &launch).await {
            Ok(()) => Ok(()),
            Err(error) => match inspect(&dir).await {
                Found::Unused => {
                    if fresh {
                        let _ = fs::remove_dir_all(&dir);
                    }
                    Err(JobError::Shim { key: key.clone(), error })
                }
                Found::Ended(_) | Found::Alive(_) | Found::Gone { .. } | Found::Unverifiable { .. } => Ok(()),
            },
        }
    }

    fn follow(&self, key: JobKey) {
        // Held while the task is made, so that it cannot end before it is in the map.
        let mut jobs = self.inner.lock();
        let task = tokio::spawn(follow(Arc::clone(&self.inner), key.clone()));
        jobs.insert(key, Place::Followed(task.abort_handle()));
    }

    /// Says that the result is on the server's record: it is not reported to a later server.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn acknowledge(&self, key: &JobKey) -> Result<(), JobError> {
        let dir = self.inner.layout.job(key);
        record::write(&dir, ACKNOWLEDGED_FILE, &true).map_err(|error| JobError::Io { path: dir, error })
    }

    /// Removes all that is left of a job that has ended.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn forget(&self, key: &JobKey) -> Result<(), JobError> {
        self.inner.lock().remove(key);
        let dir = self.inner.layout.job(key);
        fs::remove_dir_all(&dir).map_err(|error| JobError::Io { path: dir, error })
    }

    /// Stops a job: its stop signal, then `SIGKILL` after `grace`. `Cancelled` follows, unless it was done before.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn cancel(&self, key: &JobKey, grace: Option<Duration>) -> Result<(), JobError> {
        let dir = self.inner.layout.job(key);
        match inspect(&dir).await {
            Found::Unused => Err(JobError::Unknown { key: key.clone() }),
            Found::Ended(_) | Found::Gone { .. } => Ok(()),
            Found::Unverifiable { why } => Err(JobError::Unverifiable { key: key.clone(), why }),
            Found::Alive(_) => {
                let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
                match client::request(&dir, &Command::Stop { grace_ms }).await {
                    Ok(_) => Ok(()),
                    // It ended between the look and the question.
                    Err(_) if dir.join(EXIT_FILE).exists() => Ok(()),
                    Err(ClientError::NoAnswer(error)) => Err(JobError::Io { path: dir, error }),
                    Err(ClientError::Refused(why)) => Err(JobError::Refused { key: key.clone(), why }),
                }
            }
        }
    }

    /// # Errors
    /// When there is no such job.
    pub async fn status(&self, key: &JobKey) -> Result<JobStatus, JobError> {
        Ok(match inspect(&self.inner.layout.job(key)).await {
            Found::Unused => return Err(JobError::Unknown { key: key.clone() }),
            Found::Ended(state) => match outcome(&state) {
                Some(outcome) => JobStatus::Done(outcome),
                None => JobStatus::Unverifiable { why: "its record of the end is of another form".into() },
            },
            Found::Gone { why, .. } => JobStatus::Done(JobOutcome::Lost { why }),
            Found::Unverifiable { why } => JobStatus::Unverifiable { why },
            Found::Alive(recorded) => {
                // The shim knows before the disk does.
                let state = match client::request(&self.inner.layout.job(key), &Command::Status).await {
                    Ok(Message::State(state)) => state,
                    Ok(Message::Done | Message::Refused(_) | Message::Surroundings { .. }) | Err(_) => {
                        recorded
                    }
                };
                match (&state.phase, outcome(&state)) {
                    (_, Some(outcome)) => JobStatus::Done(outcome),
                    (Phase::Running { process, .. }, None) => {
                        JobStatus::Running { pid: process.pid.unsigned_abs() }
                    }
                    (Phase::Stopping { process }, None) => {
                        JobStatus::Stopping { pid: process.pid.unsigned_abs() }
                    }
                    (Phase::Starting | Phase::BackingOff { .. } | Phase::Ended { .. }, None) => {
                        JobStatus::Starting
                    }
                }
            }
        })
    }
}

/// The place of a key in the map while it is being started.
struct Claim<'a> {
    inner: &'a Inner,
    key: &'a JobKey,
    kept: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.inner.lock().remove(self.key);
        }
    }
}

async fn follow(inner: Arc<Inner>, key: JobKey) {
    let mut follower = Follower::new(&inner.layout.job(&key));
    let mut silent = None;
    while let Some(news) = follower.next().await {
        match news {
            News::Unverifiable { why } => silent = Some(why),
            News::State(state) => {
                silent = None;
                if let Some(outcome) = outcome(&state) {
                    inner.lock().insert(key.clone(), Place::Reported(outcome.clone()));
                    return inner.send(&key, outcome).await;
                }
            }
        }
    }
    // Not remembered as its result: it may become clear later, and somebody may ask for it again.
    inner.lock().remove(&key);
    let why = silent.unwrap_or_else(|| "its shim ended without a result".into());
    inner.send(&key, JobOutcome::Lost { why }).await;
}

/// None while it runs.
fn outcome(state: &State) -> Option<JobOutcome> {
    let Phase::Ended { end } = &state.phase else { return None };
    Some(match end {
        End::Finished { exit, .. } if exit.success() => JobOutcome::Succeeded,
        End::Finished { exit, last_lines } => {
            JobOutcome::Failed { exit: exit.clone(), last_lines: last_lines.clone() }
        }
        End::TimedOut { after, last_lines } => {
            JobOutcome::TimedOut { after: *after, last_lines: last_lines.clone() }
        }
        End::SpawnFailed { cause } => JobOutcome::SpawnFailed { cause: cause.clone() },
        End::Stopped { exit } => JobOutcome::Cancelled { exit: exit.clone() },
        End::Lost { why } => JobOutcome::Lost { why: why.clone() },
        End::GaveUp { cause, .. } => JobOutcome::Lost { why: cause.to_string() },
    })
}
