//! Servers that Fairway provisions itself and that hold data: PostgreSQL and Redis. Each has a directory that
//! outlives releases, a port of its own on the loopback address and a random password. What comes out is an instance
//! like any other.

mod postgres;
mod redis;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairway_engine::service::{BackingEngine, RestartPolicy};
use thiserror::Error;

use crate::command::{DEFAULT_PATH, prepare as prepare_command};
use crate::exec::{ExecError, ExecOutput, start};
use crate::exit::Exit;
use crate::process::random_token;
use crate::spawn_error::SpawnError;
use crate::spec::{InstanceSpec, Variables};
use crate::user::User;

/// Setting up a cluster writes and syncs some 50 MB: seconds, or a minute on a bad disk.
const SETUP_WITHIN: Duration = Duration::from_secs(180);

/// What is kept of a set-up tool's words for the error.
const OUTPUT_BYTES_MAX: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingRequest {
    pub engine: BackingEngine,
    /// For this service of this environment alone. Made if it is missing; every directory above it must let the
    /// user pass that the server runs as.
    pub data_dir: PathBuf,
    pub port: u16,
    /// Name of the database that is created; PostgreSQL only.
    pub database: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    pub spec: InstanceSpec,
    /// What `{ ref = "postgres.url" }` stands for. It holds the password.
    pub url: String,
}

#[derive(Debug, Error)]
pub enum BackingError {
    #[error("{program} is not installed (looked in {searched}); on Debian: apt install {package}")]
    Missing { program: &'static str, package: &'static str, searched: String },
    #[error(
        "the data in {} is of PostgreSQL {data}, and PostgreSQL {installed} is installed; \
         run pg_upgrade, or install postgresql-{data}",
        dir.display()
    )]
    Version { dir: PathBuf, data: String, installed: String },
    #[error("the user {user} cannot reach {}, stopped at {}", dir.display(), at.display())]
    Unreachable { dir: PathBuf, at: PathBuf, user: String },
    #[error("{} holds data whose password file is missing", dir.display())]
    PasswordMissing { dir: PathBuf },
    #[error("{database:?} cannot be the name of a database")]
    DatabaseName { database: String },
    #[error("{step} failed with {exit}: {output}")]
    Setup { step: &'static str, exit: Exit, output: String },
    #[error("{step} took longer than {within:?}")]
    SetupTimedOut { step: &'static str, within: Duration },
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Finds the programs, sets the data directory up if that was not done yet, and says how to run the server.
///
/// # Errors
/// What is missing or went wrong. A set-up that was interrupted is begun again by the next call.
pub async fn prepare(request: &BackingRequest) -> Result<Backing, BackingError> {
    match request.engine {
        BackingEngine::Postgres => postgres::prepare(request).await,
        BackingEngine::Redis => redis::prepare(request),
    }
}

/// A server with data is not restarted in a hurry, and not for ever.
fn restart_policy() -> RestartPolicy {
    RestartPolicy {
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(30),
        burst: 5,
        burst_window: Duration::from_secs(300),
    }
}

/// The first of these users that exists, when Fairway runs as root: neither server should, and one refuses to.
fn server_user(names: &[&str]) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    names.iter().find_map(|name| User::find(name).ok().flatten())
}

/// Looks for a program in `PATH` and then in `more`.
fn find_program(name: &str, more: &[PathBuf]) -> Option<PathBuf> {
    search_path(more).into_iter().map(|dir| dir.join(name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn search_path(more: &[PathBuf]) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    std::env::split_paths(&path).chain(more.iter().cloned()).collect()
}

fn searched(more: &[PathBuf]) -> String {
    search_path(more).iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":")
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackingError {
    let path = path.to_path_buf();
    move |error| BackingError::Io { path, error }
}

/// A directory that belongs to the server's user and to nobody else.
fn own_dir(dir: &Path, user: Option<&User>) -> Result<(), BackingError> {
    fs::create_dir_all(dir).map_err(failed(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed(dir))?;
    if let Some(user) = user {
        std::os::unix::fs::chown(dir, Some(user.uid), Some(user.gid)).map_err(failed(dir))?;
        if let Some(at) = user.stopped_at(&dir.join("x")) {
            return Err(BackingError::Unreachable { dir: dir.to_path_buf(), at, user: user.name.clone() });
        }
    }
    Ok(())
}

/// Reads the password, or makes one that nobody chose.
fn password(dir: &Path, user: Option<&User>) -> Result<String, BackingError> {
    let path = dir.join("password");
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&path)(error)),
    }
    let password = random_token().map_err(failed(&path))?;
    write_private(&path, &password, user)?;
    Ok(password)
}

/// Whole or not at all, and readable by the server's user alone.
fn write_private(path: &Path, text: &str, user: Option<&User>) -> Result<(), BackingError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        if let Some(user) = user {
            std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
        }
        file.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().map_err(failed(path))
}

/// Runs a set-up tool as the server's user and gives back what it said. It ends with this call, however that ends.
async fn run(
    step: &'static str,
    argv: &[String],
    dir: &Path,
    user: Option<&User>,
    input: &str,
) -> Result<String, BackingError> {
    let command = prepare_command(argv, &Variables::default(), dir, user.map(|user| user.name.as_str()))?;
    let mut session = start(command).await.map_err(|error| match error {
        ExecError::Spawn(error) => BackingError::Spawn(error),
        ExecError::Io(error) => BackingError::Io { path: dir.to_path_buf(), error },
        ExecError::Instance(error) => {
            BackingError::Io { path: dir.to_path_buf(), error: io::Error::other(error) }
        }
    })?;
    let _ = session.stdin.send(input.as_bytes().to_vec()).await;
    drop(session.stdin);
    let mut output = Vec::new();
    let collected = tokio::time::timeout(SETUP_WITHIN, async {
        while let Some(chunk) = session.output.recv().await {
            match chunk {
                ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => {
                    output.extend(bytes);
                    let surplus = output.len().saturating_sub(OUTPUT_BYTES_MAX);
                    output.drain(..surplus);
                }
                ExecOutput::Exited(exit) => return exit,
            }
        }
        Exit::Unknown { why: "it was not seen to end".into() }
    });
    let exit = collected.await.map_err(|_| BackingError::SetupTimedOut { step, within: SETUP_WITHIN })?;
    let output = String::from_utf8_lossy(&output).trim().to_owned();
    if exit.success() { Ok(output) } else { Err(BackingError::Setup { step, exit, output }) }
}
