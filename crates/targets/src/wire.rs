//! What the shim and the supervisor say to each other: one JSON object a line over the control socket, and the same
//! state on disk. Both sides are the same program, in two versions while Fairway itself is being upgraded: fields
//! are only ever added, with a default.

use std::time::Duration;

use fairway_engine::time::{Timestamp, duration_ms};
use serde::{Deserialize, Serialize};

use crate::event::{GiveUpCause, Limit};
use crate::exit::Exit;
use crate::process::ProcessId;
use crate::spawn_error::SpawnError;
use crate::spec::{GivenPort, Variables};

/// Files of an instance's directory.
pub(crate) const STATE_FILE: &str = "state.json";
pub(crate) const EXIT_FILE: &str = "exit.json";
pub(crate) const RECORD_FILE: &str = "spec.json";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const SOCKET_FILE: &str = "ctl.sock";
pub(crate) const LOG_DIR: &str = "log";

/// The longest line accepted on a control socket. A state with twenty last lines of 2 KiB, each byte escaped to six,
/// is 240 KiB; an environment is at most what `execve` takes, 2 MiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// What a shim knows of what it runs. On disk in `state.json`, and in `exit.json` once it has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Counts every change: the higher one is the later one.
    pub(crate) sequence: u64,
    pub(crate) boot_id: String,
    pub(crate) shim: ProcessId,
    pub(crate) token: String,
    /// The cgroup v2 directory that holds what was started, if there is one.
    pub(crate) cgroup: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) phase: Phase,
    /// Starts after the first one.
    pub(crate) restarts: u32,
    pub(crate) limits: Vec<LimitReport>,
    pub(crate) log_lines_dropped: u64,
    pub(crate) changed_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Phase {
    Starting,
    Running {
        process: ProcessId,
        health: Health,
    },
    /// It ended and will be started again.
    BackingOff {
        exit: Exit,
        why: Option<String>,
        port_taken: bool,
        #[serde(rename = "restart_in_ms", with = "duration_ms")]
        restart_in: Duration,
        last_lines: Vec<String>,
    },
    Stopping {
        process: ProcessId,
    },
    Ended {
        end: End,
    },
}

impl Phase {
    /// The first process of the run, if there is one.
    pub(crate) fn process(&self) -> Option<ProcessId> {
        match self {
            Phase::Running { process, .. } | Phase::Stopping { process } => Some(*process),
            Phase::Starting | Phase::BackingOff { .. } | Phase::Ended { .. } => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub(crate) enum Health {
    /// Started, and why it does not count as ready yet, as far as the last probe told.
    Waiting {
        why: Option<String>,
    },
    Ready,
    Suspect {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub(crate) enum End {
    /// It was asked to.
    Stopped {
        exit: Exit,
    },
    SpawnFailed {
        cause: SpawnError,
    },
    GaveUp {
        cause: GiveUpCause,
        last_lines: Vec<String>,
    },
    /// It is gone and nobody was left to see how. Written by the supervisor that found out.
    Lost {
        why: String,
    },
    /// A job ran to its end.
    Finished {
        exit: Exit,
        last_lines: Vec<String>,
    },
    TimedOut {
        #[serde(rename = "after_ms", with = "duration_ms")]
        after: Duration,
        last_lines: Vec<String>,
    },
}

/// Whether a limit that was asked for holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitReport {
    pub(crate) limit: Limit,
    pub(crate) by: Enforcement,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Enforcement {
    /// For the instance as a whole, by cgroup v2.
    Cgroup,
    /// For each process alone, by a resource limit; `note` says how that differs from what was asked.
    Rlimit {
        note: String,
    },
    Nothing {
        why: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub(crate) enum Command {
    Status,
    /// The state now, and again after every change.
    Subscribe,
    Stop {
        /// Instead of the release's own stop timeout.
        grace_ms: Option<u64>,
    },
    Kill,
    Signal {
        signal: i32,
    },
    /// Use this port from the next start on: the one before was taken.
    Port {
        port: u16,
    },
    /// What a command that runs beside the instance needs to see the same world.
    Surroundings,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    State(Box<State>),
    Done,
    Refused(String),
    Surroundings { env: Variables, workdir: std::path::PathBuf, user: Option<String> },
}

/// The variables an instance gets beyond its own: the mark, the port.
pub(crate) fn with_given(env: &Variables, token: &str, port: Option<&GivenPort>) -> Variables {
    let mut env = env.clone();
    env.0.insert(crate::process::MARK.to_owned(), token.to_owned());
    if let Some(GivenPort { port, variable: Some(variable) }) = port {
        env.0.insert(variable.clone(), port.to_string());
    }
    env
}
