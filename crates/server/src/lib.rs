//! The control plane: pumps the engine, carries its effects out through the drivers, serves the API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub mod upload;

/// Where a server keeps everything: the log, artifacts, instances, sockets.
pub const SOCKET_NAME: &str = "fairway.sock";

#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub state_dir: PathBuf,
    /// The API on loopback with a bearer token, besides the unix socket.
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
    let _ = options;
    Err(ServeError(fairway_api::ApiError::new("server/unfinished", "not there yet")))
}

/// The data plane role: `fairway proxy`.
pub fn run_proxy(state_dir: &Path) -> ExitCode {
    let _ = state_dir;
    ExitCode::FAILURE
}

/// The instance supervisor role: `fairway shim`.
pub fn run_shim(dir: &Path) -> ExitCode {
    let _ = dir;
    ExitCode::FAILURE
}

/// The static file role: `fairway file-server`.
pub fn run_file_server(dir: &Path, port: u16, spa: bool) -> ExitCode {
    let _ = (dir, port, spa);
    ExitCode::FAILURE
}
