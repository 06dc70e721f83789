//! Why a command did not start: each one a sentence that an operator can act on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SpawnError {
    #[error("there is no command to run")]
    EmptyCommand,
    #[error("command not found: {command} (PATH is {path}){}", hint(.suggestion))]
    CommandNotFound { command: String, path: String, suggestion: Option<String> },
    #[error("no such file: {}{}", path.display(), hint(.suggestion))]
    FileNotFound { path: PathBuf, suggestion: Option<String> },
    #[error("{} is not executable; try chmod +x", path.display())]
    NotExecutable { path: PathBuf },
    #[error("{} is a directory, not a command", path.display())]
    IsADirectory { path: PathBuf },
    /// `at` is the directory or file that stops `user`.
    #[error("permission denied: {user} may not run {}, stopped at {}", path.display(), at.display())]
    PermissionDenied { path: PathBuf, at: PathBuf, user: String },
    #[error("the working directory {} does not exist", path.display())]
    WorkdirMissing { path: PathBuf },
    #[error("{user} may not enter the working directory {}, stopped at {}", path.display(), at.display())]
    WorkdirDenied { path: PathBuf, at: PathBuf, user: String },
    #[error("there is no user {user} on this machine")]
    UnknownUser { user: String },
    #[error("cannot run as {user}: only root may change user, and Fairway runs as {running_as}")]
    CannotBecomeUser { user: String, running_as: String },
    #[error("the #! line of {} names {interpreter}, which does not exist", script.display())]
    InterpreterMissing { script: PathBuf, interpreter: String },
    #[error("{} cannot be executed on this machine: {why}", path.display())]
    ExecFormat { path: PathBuf, why: String },
    #[error("{what} contains a NUL byte")]
    NulByte { what: String },
    /// Anything the kernel says beyond that: no memory, too many processes.
    #[error("cannot start {command}: {stage}: {why}")]
    System { command: String, stage: String, why: String },
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|to| format!("; did you mean {to}?")).unwrap_or_default()
}
