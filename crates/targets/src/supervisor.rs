//! The server's side of its instances: starts a shim each, follows what they report, finds them again after a
//! restart. It keeps no state that is not in their directories.

mod keeper;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_engine::service::{LiveProbe, ReadyProbe};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::attach::{Found, inspect};
use crate::client::{self, ClientError};
use crate::event::TargetEvent;
use crate::key::{InstanceKey, Layout};
use crate::ports::{PortRange, Ports};
use crate::reap::{ReapError, Reaped, reap};
use crate::spec::{GivenPort, InstanceSpec, Launch, LaunchRecord, PortRequest, Role};
use crate::wire::{Command, EXIT_FILE, RECORD_FILE, STATE_FILE, State};
use crate::{cgroup, process, record};

pub use self::status::{InstancePhase, InstanceStatus};

/// Events that wait for the server. A reader that falls behind holds back the reports, never an application: the
/// shims go on alone, and a report that waits is the state as it is when it is read.
const EVENTS_MAX: usize = 1024;

#[derive(Debug, Error)]
pub enum OpenError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Why an instance was not started. Nothing runs then.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("{key}: its {probe} asks a port, and it was given none")]
    ProbeWithoutPort { key: InstanceKey, probe: &'static str },
    #[error("{key}: no port is free between {} and {}", range.first, range.last)]
    NoPortFree { key: InstanceKey, range: PortRange },
    #[error("{key}: {}: {error}", path.display())]
    Io { key: InstanceKey, path: PathBuf, error: io::Error },
    #[error("{key}: its shim did not start: {error}")]
    Shim { key: InstanceKey, error: io::Error },
}

#[derive(Debug, Error)]
pub enum ControlError {
    #[error("there is no instance {key}")]
    Unknown { key: InstanceKey },
    #[error("{key}: {why}; it was left alone")]
    Unverifiable { key: InstanceKey, why: String },
    #[error("{key}: its shim does not answer: {error}")]
    NoAnswer { key: InstanceKey, error: io::Error },
    #[error("{key}: {why}")]
    Refused { key: InstanceKey, why: String },
}

/// A handle; copies share everything. When the last one goes, nothing is followed any more, and everything that
/// runs keeps running.
#[derive(Clone, Debug)]
pub struct Supervisor {
    inner: Arc<Inner>,
    _tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    shim_command: Vec<OsString>,
    range: PortRange,
    ports: Mutex<Ports>,
    instances: Mutex<BTreeMap<InstanceKey, Arc<Entry>>>,
    events: mpsc::Sender<TargetEvent>,
}

/// What is known of one instance. Being in the map means that it was started, by this server or one before it.
#[derive(Debug, Default)]
struct Entry {
    known: Mutex<Known>,
    keeper: Mutex<Option<AbortHandle>>,
}

#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    State(Box<State>),
    Unverifiable(String),
}

/// The keepers, which hold the rest alive themselves.
#[derive(Debug)]
struct Tasks(Arc<Inner>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for entry in lock(&self.0.instances).values() {
            if let Some(keeper) = lock(&entry.keeper).take() {
                keeper.abort();
            }
        }
    }
}

/// What these locks guard is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory for its owner alone: output may hold what nobody else should read.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

impl Supervisor {
    /// `shim_command` is what to run with `--dir DIR` behind it, such as `[current_exe, "shim"]`. Nothing is touched
    /// yet; call [`Supervisor::reattach`] before anything else.
    ///
    /// # Errors
    /// When the state directory cannot be made or read.
    pub fn open(
        state_dir: &Path,
        shim_command: Vec<OsString>,
    ) -> Result<(Self, mpsc::Receiver<TargetEvent>), OpenError> {
        Self::open_with(state_dir, shim_command, PortRange::default())
    }

    /// # Errors
    /// As [`Supervisor::open`].
    pub fn open_with(
        state_dir: &Path,
        shim_command: Vec<OsString>,
        range: PortRange,
    ) -> Result<(Self, mpsc::Receiver<TargetEvent>), OpenError> {
        let failed = |error| OpenError::Io { path: state_dir.to_path_buf(), error };
        let state_dir = std::path::absolute(state_dir).map_err(failed)?;
        fs::create_dir_all(&state_dir).map_err(failed)?;
        cgroup::make_room();
        let layout = Layout::new(&state_dir);
        let mut reserved = BTreeSet::new();
        for key in layout.all_instances().map_err(failed)? {
            let dir = layout.instance(&key);
            if !dir.join(EXIT_FILE).exists() {
                let recorded: Option<LaunchRecord> = record::read(&dir, RECORD_FILE).unwrap_or_default();
                let state: Option<State> = record::read(&dir, STATE_FILE).unwrap_or_default();
                reserved.extend(recorded.and_then(|record| record.port).map(|given| given.port));
                reserved.extend(state.and_then(|state| state.port));
            }
        }
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let seed = process::random_token().map_err(failed)?;
        let seed = seed.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
        let inner = Inner {
            layout,
            shim_command,
            range,
            ports: Mutex::new(Ports::new(range, reserved, seed)),
            instances: Mutex::default(),
            events,
        };
        let inner = Arc::new(inner);
        Ok((Self { _tasks: Arc::new(Tasks(Arc::clone(&inner))), inner }, receiver))
    }

    /// Finds every instance again that an earlier server started, and reports the state of each, as events and in
    /// order: what runs, what ended meanwhile, what cannot be verified. What was found unverifiable before is looked
    /// at once more.
    ///
    /// # Errors
    /// When the state directory cannot be read.
    pub async fn reattach(&self) -> Result<Vec<InstanceKey>, OpenError> {
        let keys = self.inner.layout.all_instances();
        let keys =
            keys.map_err(|error| OpenError::Io { path: self.inner.layout.root().to_path_buf(), error })?;
        let mut found = Vec::new();
        for key in keys {
            // A server that died before it started the shim: to start it now is a start like any other.
            if let Found::Unused = inspect(&self.inner.layout.instance(&key)).await {
                continue;
            }
            let entry = {
                let mut instances = lock(&self.inner.instances);
                match instances.get(&key) {
                    Some(entry) if !lock(&entry.known).is_unverifiable() => None,
                    Some(_) | None => {
                        let entry = Arc::new(Entry::default());
                        instances.insert(key.clone(), Arc::clone(&entry));
                        Some(entry)
                    }
                }
            };
            if let Some(entry) = entry {
                self.keep(key.clone(), entry);
            }
            found.push(key);
        }
        Ok(found)
    }

    /// Starts an instance. A key that was started before, by whichever server, is not started again: its state is
    /// reported once more. Returns as soon as a shim has taken it over; everything else comes as events.
    ///
    /// # Errors
    /// Why nothing was started.
    pub async fn start(&self, key: InstanceKey, spec: InstanceSpec) -> Result<(), StartError> {
        check_probes(&key, &spec)?;
        let (entry, known) = {
            let mut instances = lock(&self.inner.instances);
            match instances.get(&key) {
                Some(entry) => (Arc::clone(entry), true),
                None => {
                    let entry = Arc::new(Entry::default());
                    instances.insert(key.clone(), Arc::clone(&entry));
                    (entry, false)
                }
            }
        };
        if known {
            self.report_again(&key, &entry).await;
            return Ok(());
        }
        // From here on this call alone may start the key; a cancelled or failed one lets go of it again.
        let mut claim = Claim { inner: &self.inner, key: &key, kept: false };
        match self.launch(&key, spec).await {
            Ok(()) => {
                claim.kept = true;
                self.keep(key.clone(), entry);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn launch(&self, key: &InstanceKey, spec: InstanceSpec) -> Result<(), StartError> {
        let dir = self.inner.layout.instance(key);
        let failed = |error| StartError::Io { key: key.clone(), path: dir.clone(), error };
        fs::create_dir_all(self.inner.layout.instances(&key.environment)).map_err(failed)?;
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
        let port_assigned = match spec.port {
            PortRequest::Assign { .. } => true,
            PortRequest::None | PortRequest::Fixed { .. } => false,
        };
        let port = self.give_port(key, spec.port)?;
        let number = port.as_ref().map(|given| given.port);
        let launch = Launch {
            name: key.to_string(),
            token: process::random_token().map_err(failed)?,
            role: Role::Instance {
                protocol: spec.protocol,
                ready: spec.ready,
                live: spec.live,
                restart: spec.restart,
            },
            argv: spec.argv,
            env: spec.env,
            workdir: spec.workdir,
            port,
            port_assigned,
            stop: spec.stop,
            limits: spec.limits,
            user: spec.user,
            log: spec.log,
        };
        match client::launch(&dir, &self.inner.shim_command, &launch).await {
            Ok(()) => Ok(()),
            Err(error) => {
                if let Some(port) = number {
                    lock(&self.inner.ports).release(port);
                }
                match inspect(&dir).await {
                    Found::Unused => {
                        // Another server's directory stays: its shim may be about to use it.
                        if fresh {
                            let _ = fs::remove_dir_all(&dir);
                        }
                        Err(StartError::Shim { key: key.clone(), error })
                    }
                    // A shim of an earlier server was faster.
                    Found::Ended(_) | Found::Alive(_) | Found::Gone { .. } | Found::Unverifiable { .. } => {
                        Ok(())
                    }
                }
            }
        }
    }

    fn give_port(&self, key: &InstanceKey, request: PortRequest) -> Result<Option<GivenPort>, StartError> {
        let mut ports = lock(&self.inner.ports);
        match request {
            PortRequest::None => Ok(None),
            PortRequest::Fixed { port, variable } => {
                ports.reserve(port);
                Ok(Some(GivenPort { port, variable }))
            }
            PortRequest::Assign { variable } => match ports.take() {
                Some(port) => Ok(Some(GivenPort { port, variable: Some(variable) })),
                None => Err(StartError::NoPortFree { key: key.clone(), range: self.inner.range }),
            },
        }
    }

    /// Removes what ended instances and jobs left, as [`crate::reap::reap`] does, and forgets them. Blocking IO.
    ///
    /// # Errors
    /// As there.
    pub fn reap(&self, keep: usize) -> Result<Reaped, ReapError> {
        let reaped = reap(self.inner.layout.root(), keep)?;
        let mut instances = lock(&self.inner.instances);
        for key in &reaped.instances {
            instances.remove(key);
        }
        Ok(reaped)
    }

    /// Asks an instance to stop: its stop signal now, `SIGKILL` to whatever is left after `grace` (none = as its
    /// release says). Returns when the shim has taken the order; `Stopped` follows. Of an instance that has ended
    /// already the end is reported again.
    ///
    /// # Errors
    /// Why the order was not taken.
    pub async fn stop(&self, key: &InstanceKey, grace: Option<Duration>) -> Result<(), ControlError> {
        let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        self.order(key, &Command::Stop { grace_ms }).await
    }

    /// `SIGKILL` to the whole group, at once.
    ///
    /// # Errors
    /// Why the order was not taken.
    pub async fn kill(&self, key: &InstanceKey) -> Result<(), ControlError> {
        self.order(key, &Command::Kill).await
    }

    /// Sends a signal to the instance's first process.
    ///
    /// # Errors
    /// Why it was not sent.
    pub async fn signal(&self, key: &InstanceKey, signal: i32) -> Result<(), ControlError> {
        self.order(key, &Command::Signal { signal }).await
    }

    async fn order(&self, key: &InstanceKey, command: &Command) -> Result<(), ControlError> {
        let entry = self.entry(key)?;
        match self.ask(key, command).await {
            Ok(_) => Ok(()),
            // It may have ended between the question and the answer.
            Err(error) => match inspect(&self.inner.layout.instance(key)).await {
                Found::Ended(_) | Found::Gone { .. } => {
                    self.report_again(key, &entry).await;
                    Ok(())
                }
                Found::Alive(_) | Found::Unused | Found::Unverifiable { .. } => Err(error),
            },
        }
    }

    fn entry(&self, key: &InstanceKey) -> Result<Arc<Entry>, ControlError> {
        let entry = lock(&self.inner.instances).get(key).cloned();
        entry.ok_or_else(|| ControlError::Unknown { key: key.clone() })
    }

    /// One question to the shim of an instance that is verified to be what it claims.
    pub(crate) async fn ask(
        &self,
        key: &InstanceKey,
        command: &Command,
    ) -> Result<crate::wire::Message, ControlError> {
        let dir = self.inner.layout.instance(key);
        if let Found::Unverifiable { why } = inspect(&dir).await {
            return Err(ControlError::Unverifiable { key: key.clone(), why });
        }
        client::request(&dir, command).await.map_err(|error| match error {
            ClientError::NoAnswer(error) => ControlError::NoAnswer { key: key.clone(), error },
            ClientError::Refused(why) => ControlError::Refused { key: key.clone(), why },
        })
    }
}

impl Known {
    fn is_unverifiable(&self) -> bool {
        match self {
            Known::Unverifiable(_) => true,
            Known::Nothing | Known::State(_) => false,
        }
    }
}

/// The place of a key in the map while it is being started.
struct Claim<'a> {
    inner: &'a Inner,
    key: &'a InstanceKey,
    kept: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.inner.instances).remove(self.key);
        }
    }
}

fn check_probes(key: &InstanceKey, spec: &InstanceSpec) -> Result<(), StartError> {
    if spec.port != PortRequest::None {
        return Ok(());
    }
    let ready = match spec.ready.probe {
        ReadyProbe::Http { .. } | ReadyProbe::Tcp => Some("readiness probe"),
        ReadyProbe::Exec { .. }
        | ReadyProbe::Notify
        | ReadyProbe::LogLine { .. }
        | ReadyProbe::Alive { .. } => None,
    };
    let live = spec.live.as_ref().and_then(|live| match live.probe {
        LiveProbe::Http { .. } | LiveProbe::Tcp => Some("liveness probe"),
        LiveProbe::Exec { .. } => None,
    });
    match ready.or(live) {
        Some(probe) => Err(StartError::ProbeWithoutPort { key: key.clone(), probe }),
        None => Ok(()),
    }
}
