//! The composition root of the control plane.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use fairway_engine::Power;
use fairway_engine::time::Timestamp;
use fairway_store::database::DATABASE_FILE;
use fairway_store::{Log, ServerLock, Snapshots, Trees};
use fairway_targets::supervisor::Supervisor;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::{self, App, Caller, Writes};
use crate::clock::Clock;
use crate::drivers::{self, Drivers, Hands};
use crate::error::StartError;
use crate::identity::user_name;
use crate::ports::Ports;
use crate::pump::{self, Pump};
use crate::record::replay;
use crate::routes;
use crate::secrets::Vault;
use crate::warn::warn;
use crate::watching::Watching;
use crate::{ENDED_KEPT, SOCKET_NAME, ServerOptions};

/// Commands that are being answered may finish; streams are cut.
const LINGER: Duration = Duration::from_secs(2);

/// A deploy leaves a directory a copy; in this time even a busy pipeline leaves some hundreds, of small logs.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// Anybody on the machine may connect there: they must not use up the descriptors that commands need. Prometheus needs
/// one.
const FIGURES_CONNECTIONS_MAX: usize = 16;

/// Accept fails when descriptors run out; trying again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub async fn serve(options: &ServerOptions) -> Result<(), StartError> {
    let state_dir = std::path::absolute(&options.state_dir)
        .map_err(|source| StartError::StateDir { path: options.state_dir.clone(), source })?;
    make_private(&state_dir)?;
    let socket_path = state_dir.join(SOCKET_NAME);
    let wall = Clock::start(Timestamp(0)).now();
    let _lock = ServerLock::acquire(&state_dir, &socket_path.display().to_string(), wall.0)?;

    let log_path = state_dir.join(DATABASE_FILE);
    let log = Log::open(&log_path)?;
    let snapshots = Snapshots::open(&state_dir.join("snapshots"))?;
    let (state, seq) = replay(&log.reader()?, &snapshots)?;
    let last_at = log.record(seq)?.map_or(Timestamp(0), |record| Timestamp(record.at_ms));
    let vault =
        Arc::new(Vault::open(&log_path, &state_dir).map_err(|error| StartError::Secrets(error.to_string()))?);
    let trees = Trees::open(&state_dir)?;
    let ports = Arc::new(Ports::open(state_dir.join("ports.json")));

    // Bound before anything is started: an address that is taken must change nothing.
    let figures = match options.listen {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|source| StartError::Listen { address: address.to_string(), source })?,
        ),
        None => None,
    };
    let commands = bind(&socket_path)?;

    let (effects_in, effects) = mpsc::unbounded_channel();
    let (pump, pump_thread) = pump::start(log, snapshots, state, seq, Clock::start(last_at), effects_in)
        .map_err(|source| StartError::Runtime { source })?;
    let (routes, mut routes_task) = routes::start(pump.clone(), Arc::clone(&ports), state_dir.join("proxy"));
    let (drivers, receivers) = Drivers::open(&state_dir)?;
    let hands = Hands {
        pump: pump.clone(),
        drivers: drivers.clone(),
        routes: routes.clone(),
        trees: trees.clone(),
        vault: Arc::clone(&vault),
        ports,
        state_dir: state_dir.clone(),
        starts: Arc::default(),
        job_starts: Arc::default(),
    };
    let watching = Watching::open(&hands)?;
    let mut vital = drivers::start(hands, receivers, effects).await?;
    let mut watchers = watching.start();

    let supervisor = drivers.supervisor.clone();
    let app = App {
        pump: pump.clone(),
        routes: routes.clone(),
        drivers,
        trees,
        vault,
        state_dir,
        log_path,
        watching,
    };
    let mut tasks = JoinSet::new();
    if let Some(listener) = figures {
        // Who is on this machine may send samples in, as it may send them to any Prometheus here.
        let is_here = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let writes = if is_here { Writes::Taken } else { Writes::Refused };
        tasks.spawn(serve_figures(listener, api::public_router(app.clone(), writes)));
    }
    tasks.spawn(serve_commands(commands, api::router(app)));
    tasks.spawn(tidy_up(supervisor));
    // Nobody may be reading, which is no reason not to serve.
    drop(writeln!(std::io::stdout(), "fairway server ready at {}", socket_path.display()));

    let died = tokio::select! {
        () = wait_for_stop() => None,
        () = pump.ended() => Some("the thread that decides"),
        Some(_) = vital.join_next() => Some("a task that drives the machine"),
        Some(_) = watchers.join_next() => Some("a task that watches"),
        _ = &mut routes_task => Some("the task that keeps the proxy"),
    };
    if let Some(what) = died {
        // Half a server would take commands and let nothing come of them. The next one carries on from the log.
        drop(std::fs::remove_file(&socket_path));
        pump.stop().await;
        return match tokio::task::spawn_blocking(move || pump_thread.join()).await {
            Ok(Ok(Err(broken))) => Err(broken.into()),
            Ok(Ok(Ok(())) | Err(_)) | Err(_) => Err(StartError::Died(what)),
        };
    }
    // No new commands; what runs keeps running, the next server carries on.
    drop(std::fs::remove_file(&socket_path));
    tasks.abort_all();
    if nothing_runs(&pump)
        && let Some(client) = routes.proxy().client()
    {
        // Nothing left to serve: the proxy would hold listeners for nobody.
        drop(tokio::time::timeout(LINGER, client.shutdown()).await);
    }
    routes_task.abort();
    pump.stop().await;
    // The pump ends after what it has before it, which is an fsync.
    drop(tokio::task::spawn_blocking(move || pump_thread.join()).await);
    Ok(())
}

/// What ended copies left behind must not fill the disk.
async fn tidy_up(supervisor: Supervisor) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        let supervisor = supervisor.clone();
        match tokio::task::spawn_blocking(move || supervisor.reap(ENDED_KEPT)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn(format_args!("{error}")),
            Err(error) => warn(format_args!("{error}")),
        }
    }
}

fn nothing_runs(pump: &Pump) -> bool {
    pump.shared.read(|state| {
        state.environments.values().all(|env| {
            let is_down = match env.power {
                Power::Down { .. } => true,
                Power::Up => env.stable.is_none() && env.rollout.is_none(),
            };
            is_down && env.instances.is_empty()
        })
    })
}

fn make_private(path: &Path) -> Result<(), StartError> {
    let fail = |source| StartError::StateDir { path: path.to_owned(), source };
    let existed = path.exists();
    std::fs::create_dir_all(path).map_err(fail)?;
    if !existed {
        // Walkable for services that run as users of their own; readable for the owner alone. What is secret in it
        // has modes of its own.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)).map_err(fail)?;
    }
    Ok(())
}

/// The socket of an earlier server may still lie there; the lock says that nobody uses it.
fn bind(path: &PathBuf) -> Result<UnixListener, StartError> {
    let fail = |source| StartError::Listen { address: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    // Nobody else may connect in the moment between the two: whoever is in the queue by then is let in. Nothing else
    // makes files before the server has started.
    let usual = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = fairway_proxy::control::bind_path(path);
    rustix::process::umask(usual);
    let listener = bound.map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    UnixListener::from_std(listener).map_err(fail)
}

async fn serve_commands(listener: UnixListener, router: Router) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let caller = match stream.peer_cred() {
            Ok(credentials) => Caller(user_name(credentials.uid())),
            Err(_) => continue,
        };
        let router = router.clone().layer(Extension(caller));
        tokio::spawn(serve_connection(stream, router));
    }
}

async fn serve_figures(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= FIGURES_CONNECTIONS_MAX {
            // Whoever comes now waits in the kernel's queue.
            connections.join_next().await;
            continue;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve_connection(stream, router.clone()))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection<S>(stream: S, router: Router)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper_util::service::TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
    // A client that goes away in the middle is its own business.
    drop(connection.await);
}

async fn wait_for_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
