//! The composition root of the control plane.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use fairway_api::client::{Client, Endpoint};
use fairway_engine::purge::{CachePurge, PurgeAbout};
use fairway_engine::time::Timestamp;
use fairway_engine::{Environment, Input, Outcome, Power, State};
use fairway_store::database::DATABASE_FILE;
use fairway_store::{Log, ServerLock, Snapshots, Trees};
use fairway_targets::supervisor::Supervisor;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::api::{self, App, Caller, Writes};
use crate::clock::Clock;
use crate::drivers::{self, Drivers, Hands};
use crate::error::StartError;
use crate::identity::user_name;
use crate::ports::Ports;
use crate::pump::{self, Pump};
use crate::record::replay;
use crate::routes::{self, News};
use crate::secrets::Vault;
use crate::upgrade::{self, Account, Kept, Predecessor, Successor, Taken, Upgrades};
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

/// How a server ended that was not broken.
#[derive(Debug)]
pub enum Ended {
    Stopped,
    /// This process is to become another program; `kept` is what must stay open meanwhile.
    Replaced {
        successor: Successor,
        kept: Kept,
    },
}

pub async fn serve(options: &ServerOptions, taken: Option<Taken>) -> Result<Ended, StartError> {
    let state_dir = std::path::absolute(&options.state_dir)
        .map_err(|source| StartError::StateDir { path: options.state_dir.clone(), source })?;
    make_private(&state_dir)?;
    let socket_path = state_dir.join(SOCKET_NAME);
    let wall = Clock::start(Timestamp(0)).now();
    let address = socket_path.display().to_string();
    // Before anything takes time: who is told to end meanwhile ends in order.
    let stop = stop_signals();
    let (handed_on, handed, predecessor) = match taken {
        Some(Taken { upgraded, kept, predecessor }) => (Some(upgraded), Some(kept), predecessor),
        None => (None, None, Predecessor::default()),
    };
    let lock = match &handed {
        Some(kept) => ServerLock::inherit(descriptor(&kept.lock)?, &state_dir, &address, wall.0)?,
        None => ServerLock::acquire(&state_dir, &address, wall.0)?,
    };

    let log_path = state_dir.join(DATABASE_FILE);
    let log = Log::open(&log_path)?;
    let snapshots = Snapshots::open(&state_dir.join("snapshots"))?;
    let (state, seq) = replay(&log.reader()?, &snapshots)?;
    let Account { upgraded, told } = Account::of(&state, handed_on);
    let last_at = log.record(seq)?.map_or(Timestamp(0), |record| Timestamp(record.at_ms));
    let vault =
        Arc::new(Vault::open(&log_path, &state_dir).map_err(|error| StartError::Secrets(error.to_string()))?);
    let trees = Trees::open(&state_dir)?;
    let ports = Arc::new(Ports::open(state_dir.join("ports.json")));

    // Bound before anything is started: an address that is taken must change nothing.
    let (commands, figures) = match handed {
        Some(kept) => {
            upgrade::adopt_children();
            let (commands, figures) =
                kept.listeners().map_err(|error| StartError::Handed(error.to_string()))?;
            (Some(commands), figures)
        }
        None => (None, None),
    };
    let figures = match (options.listen, figures) {
        (Some(_), Some(figures)) => Some(figures),
        (Some(address), None) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|source| StartError::Listen { address: address.to_string(), source })?,
        ),
        (None, _) => None,
    };
    let commands = match commands {
        Some(commands) => commands,
        None => bind(&socket_path)?,
    };
    // Stay open when the tasks that accept have ended: whoever connects then waits for the successor.
    let kept_commands = descriptor(&commands)?;
    let kept_figures = figures.as_ref().map(descriptor).transpose()?;

    let (effects_in, effects) = mpsc::unbounded_channel();
    let cut_short = purges_cut_short(&state);
    let (pump, pump_thread) = pump::start(log, snapshots, state, seq, Clock::start(last_at), effects_in)
        .map_err(|source| StartError::Runtime { source })?;
    let (routes, news, mut routes_task) =
        routes::start(pump.clone(), Arc::clone(&ports), &state_dir, Arc::clone(&vault))
            .map_err(|why| StartError::Certificates { path: state_dir.join("certificates"), why })?;
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
    let (upgrades, mut successors) = Upgrades::new();
    let health =
        report_health(state_dir.clone(), predecessor, pump.clone(), told.into_iter().chain(cut_short), news);
    let app = App {
        upgrades,
        upgraded,
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
        let writes = if options.take_samples { Writes::Taken } else { Writes::Refused };
        tasks.spawn(serve_figures(listener, api::public_router(app.clone(), writes)));
    }
    let (last_call, called) = watch::channel(());
    let mut answering = tokio::spawn(serve_commands(commands, api::router(app), called));
    tasks.spawn(tidy_up(supervisor));
    // Nobody may be reading, which is no reason not to serve.
    drop(writeln!(std::io::stdout(), "fairway server ready at {}", socket_path.display()));
    tasks.spawn(health);

    let mut successor = None;
    let died = tokio::select! {
        () = wait_for_stop(stop) => None,
        Some(next) = successors.recv() => {
            successor = Some(next);
            None
        }
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
    tasks.abort_all();
    if let Some(successor) = successor {
        drop(last_call);
        // Streams are cut; whoever follows one comes back to the successor.
        if tokio::time::timeout(LINGER, &mut answering).await.is_err() {
            answering.abort();
        }
        routes_task.abort();
        pump.stop().await;
        drop(tokio::task::spawn_blocking(move || pump_thread.join()).await);
        let kept = Kept {
            lock: lock.hand_on().map_err(|source| StartError::Runtime { source })?,
            commands: kept_commands,
            figures: kept_figures,
        };
        return Ok(Ended::Replaced { successor, kept });
    }
    // No new commands; what runs keeps running, the next server carries on.
    drop(std::fs::remove_file(&socket_path));
    drop(last_call);
    // Nobody starts a proxy any more.
    routes_task.abort();
    if nothing_runs(&pump) {
        // Nothing left to serve: the proxy would hold listeners for nobody.
        drop(tokio::time::timeout(LINGER, routes.proxies().stop()).await);
    }
    pump.stop().await;
    // The pump ends after what it has before it, which is an fsync.
    drop(tokio::task::spawn_blocking(move || pump_thread.join()).await);
    Ok(Ended::Stopped)
}

/// Another descriptor of the same file; the program that this process may become gets it.
fn descriptor(of: &impl AsFd) -> Result<OwnedFd, StartError> {
    of.as_fd().try_clone_to_owned().map_err(|source| StartError::Runtime { source })
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

/// Until the last call; then until everybody who was let in has an answer.
async fn serve_commands(listener: UnixListener, router: Router, mut last_call: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            _ = last_call.changed() => break,
        };
        let caller = match stream.peer_cred() {
            Ok(credentials) => Caller(user_name(credentials.uid())),
            Err(_) => continue,
        };
        let router = router.clone().layer(Extension(caller));
        connections.spawn(serve_connection(stream, router, last_call.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_figures(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    // Nobody who only reads is waited for.
    let (_never, last_call) = watch::channel(());
    loop {
        if connections.len() >= FIGURES_CONNECTIONS_MAX {
            // Whoever comes now waits in the kernel's queue.
            connections.join_next().await;
            continue;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve_connection(stream, router.clone(), last_call.clone()))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection<S>(stream: S, router: Router, mut last_call: watch::Receiver<()>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper_util::service::TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client that goes away in the middle is its own business.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = last_call.changed() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

/// It serves when it answers; from then on there is no way back. Where it does not, the one before takes its place
/// after its time.
///
/// Nothing that the one before may not know goes on the record by itself until then.
async fn report_health(
    state_dir: PathBuf,
    predecessor: Predecessor,
    pump: Pump,
    told: impl Iterator<Item = Input>,
    news: News,
) {
    let client = Client::new(Endpoint::Unix(state_dir.join(SOCKET_NAME)));
    while client.status().await.is_err() {
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    upgrade::say_served(&state_dir);
    predecessor.retire();
    for told in told {
        pump.outcome(told).await;
    }
    news.record(pump).await;
}

/// Whoever asked the proxy on behalf of these has ended with the server before.
fn purges_cut_short(state: &State) -> Vec<Input> {
    let of_environment = |env: &Environment| {
        let key = env.key.clone();
        let numbers = env.purges.iter().filter(|one| one.cache == CachePurge::UnderWay);
        let numbers = numbers.filter_map(|one| match one.about {
            PurgeAbout::Asked { purge, .. } => Some(purge),
            PurgeAbout::Rollout { .. } | PurgeAbout::Unsaid => None,
        });
        let outcome = |purge| {
            let failure = Some("the server ended before the proxy had answered".to_owned());
            Outcome::CachePurged { purge, answers: 0, failure }
        };
        let inputs =
            numbers.map(|purge| Input::Outcome { environment: key.clone(), outcome: outcome(purge) });
        inputs.collect::<Vec<_>>()
    };
    state.environments.values().flat_map(of_environment).collect()
}

/// None where they cannot be had: then they end the process at once, as they do any other.
fn stop_signals() -> Option<[Signal; 2]> {
    let of = |kind| signal(kind).ok();
    Some([of(SignalKind::terminate())?, of(SignalKind::interrupt())?])
}

async fn wait_for_stop(signals: Option<[Signal; 2]>) {
    let Some([mut term, mut int]) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
