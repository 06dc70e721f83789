//! The deciding thread: what is served, what is told, when it ends.

mod failing;
mod succession;
mod switch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::control::{self, Applied, Arms, Ask, Command, Event, RejectReason, Rejected, Say, Stats};
use crate::endpoint::Endpoint;
use crate::handover::{self, Handed, Successor};
use crate::health::{Change, Checks};
use crate::listen::{Inherited, Origin};
use crate::persist::{self, Loaded};
use crate::policy::cache::Space;
use crate::run::{ExitReason, RunError, RunOptions};
use crate::safekeeping;
use crate::series::SeriesBook;
use crate::snapshot::Snapshot;
use crate::stop::Stop;
use crate::table::{ServiceTable, Table, TableMaker};
use crate::tickets::Tickets;
use crate::worker::{Shared, Tell};
use switch::{Disk, NotApplied};

/// Questions that wait for the deciding thread; clients wait beyond that.
const COMMANDS_MAX: usize = 64;

/// Events that a client may be behind before it is told that it missed some.
const EVENTS_MAX: usize = 4_096;

/// How long a process that was killed may still hold its sockets: the kernel takes them away some time after the
/// signal. Whoever holds them longer is alive.
const LET_GO: Duration = Duration::from_secs(1);

/// How often removed instances are looked at. A drain is reported that much late.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct OpenListener {
    uid: u64,
    socket: TcpListener,
    origin: Origin,
}

impl OpenListener {
    fn about_to_close(&self) {
        if self.origin == Origin::Own
            && let Err(error) = crate::listen::refuse_new(&self.socket)
        {
            // A kernel without socket filters: the close may then reset a connection of the last moment.
            eprintln!("fairway proxy: cannot stop new connections before closing: {error}");
        }
    }
}

/// An instance that a snapshot removed and that is still busy.
#[derive(Debug)]
struct Draining {
    endpoint: Arc<Endpoint>,
}

/// The deciding thread.
#[derive(Debug)]
pub(crate) struct Proxy {
    state_dir: PathBuf,
    started: Instant,
    /// Which life of the proxy this is.
    source: u64,
    shared: Arc<Shared>,
    series: Arc<SeriesBook>,
    maker: TableMaker,
    current: Snapshot,
    table: Arc<Table>,
    generation: Arc<AtomicU64>,
    listeners: BTreeMap<SocketAddr, OpenListener>,
    /// Addresses that were given up a moment ago, whose sockets may not be closed yet.
    closing: BTreeMap<SocketAddr, Instant>,
    next_listener: u64,
    inherited: Inherited,
    /// What others hold for whoever comes after this process.
    kept: watch::Sender<Arc<Vec<TcpListener>>>,
    tickets: Tickets,
    tell: Vec<mpsc::Sender<Tell>>,
    draining: Vec<Draining>,
    checks: Checks,
    changes: mpsc::Receiver<Change>,
    commands: mpsc::Receiver<Command>,
    /// `None` once a successor speaks for this directory.
    events: Option<broadcast::Sender<Event>>,
    steps: mpsc::Receiver<handover::Step>,
    /// Keeps `commands` and `steps` open when nobody can connect any more.
    _senders: (mpsc::Sender<Command>, mpsc::Sender<handover::Step>),
    /// What is served to others over sockets of this process.
    doors: Vec<AbortHandle>,
    predecessor: Option<tokio::net::UnixStream>,
    stage: Stage,
}

/// What the process is doing.
#[derive(Debug)]
enum Stage {
    /// A predecessor serves, and has the last word.
    StandingBy,
    Serving,
    /// A successor has the sockets and is not settled yet.
    Offering,
    Draining {
        /// Its connection ends with this process, which is how it knows.
        _successor: Option<Successor>,
        cores: tokio::task::JoinSet<bool>,
        until: tokio::time::Instant,
    },
}

/// Whose the connections are that wait on the sockets of a process that drains.
#[derive(Debug)]
enum Queue {
    /// Nobody accepts them after us.
    Ours,
    OfSuccessor(Successor),
    /// It never stopped accepting.
    OfPredecessor,
}

impl Proxy {
    pub(crate) async fn start(
        options: &RunOptions,
        inherited: Inherited,
        shared: Arc<Shared>,
        tell: Vec<mpsc::Sender<Tell>>,
    ) -> Result<Self, RunError> {
        let state = |source| RunError::State { path: options.state_dir.clone(), source };
        let path = options.control_socket();
        let upgrade_path = handover::path(&options.state_dir);
        let mut inherited = inherited;
        let relieved = match options.take_over {
            true => handover::receive(&options.state_dir).map_err(RunError::TakeOver)?,
            false => None,
        };
        let control = |source| RunError::ControlSocket { path: path.clone(), source };
        let mut keys = Vec::new();
        let (socket, loaded, succession) = match relieved {
            Some(Handed { predecessor, sockets, tickets }) => {
                keys = tickets;
                inherited.add(sockets).map_err(RunError::TakeOver)?;
                let loaded = persist::peek(&options.state_dir).map_err(RunError::TakeOver)?;
                let beside = control::bind_path_beside(&path).map_err(control)?;
                let socket = beside.listener.try_clone().map_err(control)?;
                (socket, loaded, Some((predecessor, beside)))
            }
            None => {
                // Bound first: of two proxies in one directory the second must not touch the state.
                let socket = bind_control(&path).await.map_err(control)?;
                (socket, persist::load(&options.state_dir).map_err(state)?, None)
            }
        };
        let (command, commands) = mpsc::channel(COMMANDS_MAX);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (change, changes) = mpsc::channel(COMMANDS_MAX);
        let (step, steps) = mpsc::channel(1);
        let cores = tell.len();
        let series = Arc::new(SeriesBook::new(cores));
        let generation = Arc::new(AtomicU64::new(0));
        let source = source();
        let tickets = Tickets::new(keys).map_err(|error| RunError::Start(io::Error::other(error)))?;
        let mut proxy = Self {
            state_dir: options.state_dir.clone(),
            started: Instant::now(),
            source,
            shared,
            maker: TableMaker::new(cores, Arc::clone(&series)),
            series,
            current: Snapshot::default(),
            table: Arc::default(),
            generation: Arc::clone(&generation),
            listeners: BTreeMap::new(),
            closing: BTreeMap::new(),
            next_listener: 1,
            inherited,
            kept: watch::Sender::default(),
            tickets,
            tell,
            draining: Vec::new(),
            checks: Checks::new(change),
            changes,
            commands,
            events: Some(events.clone()),
            steps,
            _senders: (command.clone(), step.clone()),
            doors: Vec::new(),
            predecessor: None,
            stage: if succession.is_some() { Stage::StandingBy } else { Stage::Serving },
        };
        match loaded {
            Loaded::Nothing => {}
            Loaded::Unusable { problem, kept } => {
                eprintln!(
                    "fairway proxy: the saved snapshot is unusable ({problem}); it is kept as {}, and nothing is \
                     served until the control plane sends another",
                    kept.display()
                );
            }
            Loaded::Snapshot(snapshot) => proxy.serve_saved(*snapshot).await?,
        }
        let upgrade = |source| RunError::ControlSocket { path: upgrade_path.clone(), source };
        let upgrade_socket = control::bind_path_beside(&upgrade_path).map_err(upgrade)?;
        let keeper_path = safekeeping::path(&options.state_dir);
        let keeping = |source| RunError::ControlSocket { path: keeper_path.clone(), source };
        let keeper_socket = control::bind_path_beside(&keeper_path).map_err(keeping)?;
        let known = control::Known { source, generation };
        let task = tokio::spawn(control::serve(socket, command.clone(), events.clone(), known));
        proxy.doors.push(task.abort_handle());
        let control_socket = match succession {
            Some((predecessor, control_socket)) => {
                proxy.succeed(predecessor, &control_socket.beside).await?;
                Some(control_socket)
            }
            None => None,
        };
        let keeper_socket = keeper_socket.put_in_place().map_err(keeping)?;
        let task = tokio::spawn(safekeeping::serve(keeper_socket, proxy.kept.subscribe()));
        proxy.doors.push(task.abort_handle());
        // After the other: whoever finds this one looks for that next.
        if let Some(control_socket) = control_socket {
            control_socket.put_in_place().map_err(control)?;
        }
        tokio::spawn(handover::serve(upgrade_socket.put_in_place().map_err(upgrade)?, step));
        if let Some(addr) = options.metrics_addr {
            let listener = proxy.bind_metrics(addr).await;
            let listener = listener.map_err(|source| RunError::Metrics { addr, source })?;
            let task = tokio::spawn(crate::metrics::serve(listener, command));
            proxy.doors.push(task.abort_handle());
        }
        let task = tokio::spawn(failing::tell(Arc::clone(&proxy.series), events));
        proxy.doors.push(task.abort_handle());
        Ok(proxy)
    }

    async fn serve_saved(&mut self, snapshot: Snapshot) -> Result<(), RunError> {
        let until = Instant::now() + LET_GO;
        loop {
            match self.take_over(snapshot.clone(), Disk::HasIt).await {
                Ok(()) => return Ok(()),
                Err(NotApplied::Rejected(RejectReason::Bind { .. })) if Instant::now() < until => {
                    tokio::time::sleep(DRAIN_LOOK).await;
                }
                Err(NotApplied::Rejected(reason)) => return Err(RunError::Saved(reason)),
                Err(NotApplied::Fatal(error)) => return Err(error),
            }
        }
    }

    pub(crate) async fn serve(&mut self, handle_signals: bool) -> Result<ExitReason, RunError> {
        let mut stop = Stop::new(handle_signals).map_err(RunError::Start)?;
        let mut look = tokio::time::interval(DRAIN_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(Command { ask, reply }) = command else { return Ok(ExitReason::Drained) };
                    let said = self.answer(ask).await?;
                    // The client may have gone; what it asked for is done all the same.
                    let _ = reply.send(said);
                }
                change = self.changes.recv() => {
                    if let Some(Change { endpoint, healthy, reason }) = change {
                        self.shared.changed.notify_waiters();
                        self.say(Event::Health { instance: endpoint.id.clone(), healthy, reason });
                    }
                }
                step = self.steps.recv() => {
                    if let Some(step) = step {
                        self.hand_over(step);
                    }
                }
                () = end_of(&mut self.predecessor) => self.predecessor = None,
                () = stop.asked() => self.drain(Queue::Ours),
                _ = look.tick(), if !self.draining.is_empty() => self.report_drained(),
                // Not before a predecessor that still drains itself: the successor takes our end for the end of all that
                // may use what was removed. It began to drain before us, so its time is over before ours.
                exit = exit(&mut self.stage), if self.is_draining_alone() => {
                    return Ok(match exit {
                        Exit::Drained => ExitReason::Drained,
                        Exit::Capped => ExitReason::DrainCapped { connections: self.connections() },
                    });
                }
            }
        }
    }

    fn is_draining_alone(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. }) && self.predecessor.is_none()
    }

    fn say(&self, event: Event) {
        if let Some(events) = &self.events {
            // No client connected is fine: it will ask.
            let _ = events.send(event);
        }
    }

    async fn answer(&mut self, ask: Ask) -> Result<Say, RunError> {
        Ok(match ask {
            Ask::Apply { snapshot } => {
                let generation = snapshot.generation;
                match self.apply(*snapshot).await {
                    Ok(()) => Say::Applied(Applied { generation }),
                    Err(NotApplied::Fatal(error)) => return Err(error),
                    Err(NotApplied::Rejected(reason)) => {
                        Say::Rejected(Rejected { generation, current: self.current.generation, reason })
                    }
                }
            }
            Ask::Stats => Say::Stats(Box::new(self.stats())),
            Ask::Arms { services } => Say::Arms(Arms {
                source: self.source,
                generation: self.current.generation,
                arms: self.series.arms(&services),
            }),
            Ask::Metrics => Say::Metrics { text: crate::metrics::text(&self.stats()) },
            Ask::InFlight { instance } => {
                let serving = self.table.endpoints.values().filter(|e| e.id == instance);
                let draining = self.draining.iter().map(|d| &d.endpoint).filter(|e| e.id == instance);
                let mut count = serving.clone().chain(draining).map(|endpoint| endpoint.in_flight()).sum();
                if self.predecessor.is_some() && serving.count() == 0 {
                    count += 1;
                }
                Say::InFlight { instance, count }
            }
            Ask::Purge { services, paths } => {
                let of = |service: &&ServiceTable| services.contains(&service.key);
                let versions = self.table.services.iter().filter(of).flat_map(|service| &service.versions);
                let spaces: BTreeSet<Space> = versions.map(|version| version.space).collect();
                Say::Purged { count: self.shared.cache.purge(&spaces, &paths) }
            }
            Ask::Ping => Say::Pong,
            Ask::Shutdown => {
                self.drain(Queue::Ours);
                Say::ShuttingDown
            }
        })
    }

    fn drain(&mut self, queue: Queue) {
        if matches!(self.stage, Stage::Draining { .. }) {
            return;
        }
        let (origin, successor) = match queue {
            Queue::Ours => (Origin::Own, None),
            Queue::OfSuccessor(successor) => (Origin::Inherited, Some(successor)),
            Queue::OfPredecessor => (Origin::Inherited, None),
        };
        let mut cores = tokio::task::JoinSet::new();
        for tell in &self.tell {
            let tell = tell.clone();
            cores.spawn(async move {
                let (done, drained) = oneshot::channel();
                tell.send(Tell::Drain { queue: origin, done }).await.is_ok() && drained.await.is_ok()
            });
        }
        if origin == Origin::Own {
            self.listeners.values().for_each(OpenListener::about_to_close);
        }
        self.listeners.clear();
        self.show_sockets();
        let until = tokio::time::Instant::now() + self.table.limits.drain;
        self.stage = Stage::Draining { _successor: successor, cores, until };
    }

    /// Those that somebody else bound are held there already.
    fn show_sockets(&self) {
        let own = self.listeners.values().filter(|listener| listener.origin == Origin::Own);
        let sockets: io::Result<Vec<_>> = own.map(|listener| listener.socket.try_clone()).collect();
        // Without descriptors for it none are kept: then connections are refused while no proxy runs.
        self.kept.send_replace(Arc::new(sockets.unwrap_or_default()));
    }

    fn connections(&self) -> u64 {
        self.shared.open.iter().map(|core| core.load(Ordering::Relaxed)).sum()
    }

    fn stats(&self) -> Stats {
        let refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Stats {
            pid: std::process::id(),
            source: self.source,
            generation: self.current.generation,
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            series: self.series.read(),
            refused,
            connections_open: self.connections(),
            connections_accepted: self.shared.accepted.load(Ordering::Relaxed),
            handshakes_failed: self.shared.failed_handshakes.load(Ordering::Relaxed),
            cache: self.shared.cache.stats(),
            access_log_dropped: self.shared.access_log.dropped(),
        }
    }
}

/// Bits of a process id: the kernel's `PID_MAX_LIMIT` is 2^22.
const PID_BITS: u32 = 22;

/// A number that no other life of a proxy has: when it began, in milliseconds, and as which process.
fn source() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let ms = u64::try_from(since.as_millis()).unwrap_or_default();
    ms << PID_BITS | u64::from(std::process::id())
}

enum Exit {
    Drained,
    Capped,
}

/// The control socket, as soon as a process that is being killed has let go of it.
async fn bind_control(path: &Path) -> io::Result<UnixListener> {
    let until = Instant::now() + LET_GO;
    loop {
        match control::bind_path(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            result => return result,
        }
    }
}

/// Waits until the other side of the connection is gone.
async fn end_of(stream: &mut Option<tokio::net::UnixStream>) {
    match stream {
        None => std::future::pending().await,
        Some(stream) => {
            let mut byte = [0u8; 1];
            while let Ok(1..) = stream.read(&mut byte).await {}
        }
    }
}

/// Waits for the end of a drain; never ends while serving.
async fn exit(stage: &mut Stage) -> Exit {
    match stage {
        Stage::StandingBy | Stage::Serving | Stage::Offering => std::future::pending().await,
        Stage::Draining { cores, until, .. } => {
            let all = async { while cores.join_next().await.is_some() {} };
            match tokio::time::timeout_at(*until, all).await {
                Ok(()) => Exit::Drained,
                Err(_) => Exit::Capped,
            }
        }
    }
}
