//! The control plane: pumps the engine, carries its effects out through the drivers, serves the API.
//!
//! [`run`] is the server. The other entry points are the roles that the same binary plays in other processes: the
//! proxy, the shim of an instance, the server of static files.

use std::net::SocketAddr;
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
pub mod upload;
mod values;
mod warn;
mod watching;

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
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServeError(pub fairway_api::ApiError);

/// Runs the server until it is told to stop.
///
/// # Errors
/// When it cannot start, with code, cause and hint.
pub fn run(options: &ServerOptions) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|source| ServeError(error::StartError::Runtime { source }.to_api()))?;
    let result = runtime.block_on(serve::serve(options)).map_err(|error| ServeError(error.to_api()));
    runtime.shutdown_background();
    result
}

/// The data plane role: `fairway proxy`.
#[must_use]
pub fn run_proxy(state_dir: &Path) -> ExitCode {
    // Where a proxy runs already this one takes its sockets over without losing a connection.
    let options = fairway_proxy::RunOptions { take_over: true, ..fairway_proxy::RunOptions::new(state_dir) };
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
