//! The process: its options, its cores, its end.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use tokio::sync::{Notify, mpsc};

use crate::accesslog::{self, AccessLog};
use crate::clients::Clients;
use crate::control::RejectReason;
use crate::decide::Proxy;
use crate::limits::Limits;
use crate::listen::Inherited;
use crate::policy::cache::Cache;
use crate::spin;
use crate::worker::{Shared, Tell, Worker};

/// How to run a proxy.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Holds `snapshot.json` and the control socket `proxy.sock`. Must exist; one proxy at a time.
    pub state_dir: PathBuf,
    /// Cores. `None`: as many as the machine has.
    pub workers: Option<NonZeroUsize>,
    pub access_log: AccessLog,
    /// Where `GET /metrics` is answered.
    pub metrics_addr: Option<SocketAddr>,
    pub limits: Limits,
    /// Drain on SIGTERM and SIGINT.
    pub handle_signals: bool,
    /// Take the sockets over from the proxy that runs in the same directory, if there is one. Without this a
    /// second proxy in a directory is an error.
    pub take_over: bool,
    /// Descriptors of listening sockets that this process was started with ([`crate::safekeeping`]); what no listener of
    /// the saved snapshot needs is closed.
    pub sockets: Vec<RawFd>,
}

impl RunOptions {
    /// Defaults for everything else.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            workers: None,
            access_log: AccessLog::Off,
            metrics_addr: None,
            limits: Limits::default(),
            handle_signals: true,
            take_over: false,
            sockets: Vec::new(),
        }
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.state_dir.join("proxy.sock")
    }
}

/// Why a proxy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// Everything in flight ended.
    Drained,
    /// Some connections did not end within [`Limits::drain`] and were cut.
    DrainCapped { connections: u64 },
}

/// Why a proxy could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("state directory {path}: {source}")]
    State { path: PathBuf, source: io::Error },
    #[error("control socket {path}: {source}")]
    ControlSocket { path: PathBuf, source: io::Error },
    #[error("access log: {0}")]
    AccessLog(io::Error),
    #[error("metrics address {addr}: {source}")]
    Metrics { addr: SocketAddr, source: io::Error },
    #[error("inherited sockets: {0}")]
    Inherited(io::Error),
    /// The running proxy goes on.
    #[error("cannot take over from the running proxy: {0}")]
    TakeOver(io::Error),
    #[error("the saved snapshot cannot be served: {0}")]
    Saved(RejectReason),
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// A core ended although it was not told to; the process must not go on half.
    #[error("core {0} ended unexpectedly")]
    Core(usize),
}
/// Runs a proxy on this thread and its cores until it is told to stop.
///
/// # Errors
/// When it cannot start, or a core dies.
pub fn run(options: RunOptions) -> Result<ExitReason, RunError> {
    let mut inherited = Inherited::from_env().map_err(RunError::Inherited)?;
    inherited.keep(&options.sockets);
    raise_descriptor_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Start)?;
    let path = options.state_dir.join("access.log");
    let access_log = accesslog::Switch::new(&options.access_log, path).map_err(RunError::AccessLog)?;
    let cores =
        options.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let shared = Arc::new(Shared {
        limits: options.limits.clone(),
        access_log,
        changed: Notify::new(),
        accepted: AtomicU64::new(0),
        open: (0..cores).map(|_| AtomicU64::new(0)).collect(),
        refused: std::sync::Mutex::default(),
        clients: Clients::default(),
        failed_handshakes: AtomicU64::new(0),
        cache: Arc::new(Cache::new(options.limits.cache_bytes)),
    });
    let (tell, threads) = start_cores(cores, &shared).map_err(RunError::Start)?;
    let result = runtime.block_on(async {
        let mut proxy = Proxy::start(&options, inherited, Arc::clone(&shared), tell).await?;
        proxy.serve(options.handle_signals).await
    });
    // Not waiting for blocking tasks: a successor that never got ready has 30 s.
    runtime.shutdown_background();
    // The senders are gone with the proxy, so the cores end.
    for thread in threads {
        // A core that panicked was reported by the loop that missed it.
        let _ = thread.join();
    }
    let writer = shared.access_log.take_writer();
    drop(shared);
    if let Some(thread) = writer {
        // Nothing is left to log; what is queued gets written.
        let _ = thread.join();
    }
    result
}

/// Every connection is a descriptor on each side. The soft limit of 1,024 is a compatibility value for
/// `select(2)`, which is not used here.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Below its hard limit a process may always raise the soft one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

type Cores = (Vec<mpsc::Sender<Tell>>, Vec<JoinHandle<()>>);

fn start_cores(cores: usize, shared: &Arc<Shared>) -> io::Result<Cores> {
    let mut tell = Vec::new();
    let mut threads = Vec::new();
    for core in 0..cores {
        // One snapshot at a time, and a drain behind it.
        let (sender, receiver) = mpsc::channel(2);
        let shared = Arc::clone(shared);
        let runtime = spin::runtime()?;
        let thread = std::thread::Builder::new()
            .name(format!("core-{core}"))
            .spawn(move || spin::run(&runtime, Worker::new(core, shared).run(receiver)))?;
        tell.push(sender);
        threads.push(thread);
    }
    Ok((tell, threads))
}
