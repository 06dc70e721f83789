//! The control plane: pumps the engine, carries its effects out through the drivers, serves the API.
//!
//! [`run`] is the server. The other entry points are the roles that the same binary plays in other processes: the
//! proxy, the shim of an instance, the server of static files.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod api;
mod artifacts;
mod backing;
pub mod certificates;
mod clock;
mod describe;
mod drivers;
mod error;
mod evidence;
pub mod export;
mod file_server;
mod identity;
mod launch;
pub mod notify;
pub mod outgoing;
mod ports;
mod proxy_process;
mod pump;
mod record;
mod routes;
mod secrets;
mod serve;
mod starts;
mod status;
#[cfg(test)]
mod testing;
mod upgrade;
pub mod upload;
pub mod validate;
mod values;
mod warn;
mod watching;

use serve::Ended;
pub use upgrade::State;
use upgrade::Taken;

/// Name of the API's socket in the state directory.
pub const SOCKET_NAME: &str = "fairway.sock";

/// The server waits for the disk and for people; the proxy has the cores.
const WORKER_THREADS: usize = 2;

/// Ended copies of a service, and ended jobs of an environment, whose logs stay: enough to compare a bad release with
/// the ones before it.
const ENDED_KEPT: usize = 20;

#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub state_dir: PathBuf,
    /// Where `GET /metrics` is answered besides the unix socket; loopback in most cases.
    pub listen: Option<SocketAddr>,
    /// Whether remote write and OTLP are taken there as well. What is sent in may decide about a release, and whoever
    /// reaches the address may send.
    pub take_samples: bool,
    /// What the program before this one in the same process left open, in its own words.
    pub handed: Option<String>,
    /// What this process has to watch instead of serving, in the words of the server that started it.
    pub guarding: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServeError(pub fairway_api::ApiError);

/// Runs the server until it is told to stop.
///
/// # Errors
/// When it cannot start, with code, cause and hint.
pub fn run(options: &ServerOptions) -> Result<(), ServeError> {
    if let Some(orders) = &options.guarding {
        return upgrade::stand(orders).map_err(|why| ServeError(error::StartError::Handed(why).to_api()));
    }
    let taken = match options.handed.as_deref().map(Taken::from_option).transpose() {
        Ok(taken) => taken,
        Err(why) => return Err(ServeError(error::StartError::Handed(why).to_api())),
    };
    let predecessor = taken.as_ref().map(|taken| taken.predecessor.clone());
    if let Some(predecessor) = &predecessor {
        predecessor.watch();
    }
    let served = std::panic::catch_unwind(AssertUnwindSafe(|| run_once(options, taken)));
    let why = match served {
        Ok(Ok(Ended::Stopped)) => {
            if let Some(predecessor) = predecessor {
                // Told to end before it was known to serve: nobody is to come back.
                predecessor.retire();
            }
            return Ok(());
        }
        Ok(Ok(Ended::Replaced { successor, kept })) => {
            if let Some(predecessor) = predecessor {
                // Of two guards both would come back, with one lock.
                predecessor.retire();
            }
            let source = upgrade::succeed(&successor, &kept, &options.state_dir);
            return Err(ServeError(error::StartError::Runtime { source }.to_api()));
        }
        Ok(Err(ref error)) => {
            error.0.causes.iter().fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
        }
        Err(_) => "it panicked: this is a defect of Fairway".to_owned(),
    };
    if let Some(predecessor) = predecessor {
        // Nothing happens where this program has served already.
        predecessor.return_to(&why);
    }
    match served {
        Ok(ended) => ended.map(drop),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Whether this program could go on with the state of the directory; reads it and changes nothing.
///
/// # Errors
/// What a start would end with.
pub fn check(options: &ServerOptions) -> Result<State, ServeError> {
    State::read(options).map_err(|error| ServeError(error.to_api()))
}

fn run_once(options: &ServerOptions, taken: Option<Taken>) -> Result<Ended, ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|source| ServeError(error::StartError::Runtime { source }.to_api()))?;
    let result = runtime.block_on(serve::serve(options, taken)).map_err(|error| ServeError(error.to_api()));
    runtime.shutdown_background();
    result
}

/// The data plane role: `fairway proxy`. `sockets`: descriptors that it was started with, to listen on.
#[must_use]
pub fn run_proxy(state_dir: &Path, sockets: Vec<RawFd>) -> ExitCode {
    // Where a proxy runs already this one takes its sockets over without losing a connection.
    let options =
        fairway_proxy::RunOptions { take_over: true, sockets, ..fairway_proxy::RunOptions::new(state_dir) };
    match fairway_proxy::run(options) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fairway proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The instance supervisor role: `fairway shim`.
#[must_use]
pub fn run_shim(dir: &Path) -> ExitCode {
    fairway_targets::shim::run(dir)
}

/// The static file role: `fairway file-server`.
#[must_use]
pub fn run_file_server(dir: &Path, port: u16, spa: bool) -> ExitCode {
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(file_server::serve(dir.to_owned(), port, spa)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fairway file-server: {error}");
            ExitCode::FAILURE
        }
    }
}
