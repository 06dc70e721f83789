//! What the supervisor and the job runner report back. Everything may be reported again after a re-attach.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use fairway_engine::id::{EnvironmentKey, InstanceId, JobNumber};
use fairway_engine::time::duration_ms;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::spawn_error::SpawnError;

/// How many of the last lines of output go with a failure: a screenful, stack trace included.
pub const LAST_LINES_MAX: usize = 20;

#[derive(Clone, Debug, PartialEq)]
pub struct TargetEvent {
    pub environment: EnvironmentKey,
    pub instance: InstanceId,
    pub kind: TargetEventKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TargetEventKind {
    /// The command runs. Again after every restart, with another pid and perhaps another port.
    Started {
        pid: u32,
        port: Option<u16>,
    },
    Ready,
    /// It was ready and its probe failed as often as the release allows; it still runs.
    Suspect {
        why: String,
    },
    /// It ended by itself, or liveness ended it. `will_restart_in` is none when nothing will start it again.
    Exited {
        exit: Exit,
        /// Where the exit alone does not say it: liveness failed, the port was taken.
        why: Option<String>,
        will_restart_in: Option<Duration>,
        last_lines: Vec<String>,
    },
    /// The shim stops trying, as its policy says.
    GaveUp {
        cause: GiveUpCause,
        last_lines: Vec<String>,
    },
    /// It cannot start at all; trying again would change nothing.
    SpawnFailed {
        cause: SpawnError,
    },
    /// It was asked to stop, and nothing of it runs any more.
    Stopped {
        exit: Exit,
    },
    /// It may or may not run. It was neither killed nor started again: somebody has to look.
    Unverifiable {
        why: String,
    },
    /// It runs without these limits. `why` is one sentence a limit.
    NotEnforced {
        limits: Vec<Limit>,
        why: Vec<String>,
    },
}

impl TargetEventKind {
    /// Nothing of the instance runs after this.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match self {
            TargetEventKind::Exited { will_restart_in, .. } => will_restart_in.is_none(),
            TargetEventKind::GaveUp { .. }
            | TargetEventKind::SpawnFailed { .. }
            | TargetEventKind::Stopped { .. } => true,
            TargetEventKind::Started { .. }
            | TargetEventKind::Ready
            | TargetEventKind::Suspect { .. }
            | TargetEventKind::Unverifiable { .. }
            | TargetEventKind::NotEnforced { .. } => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GiveUpCause {
    /// More exits than the restart policy allows.
    CrashLoop {
        exits: u32,
        #[serde(rename = "window_ms", with = "duration_ms")]
        window: Duration,
        exit: Exit,
        why: Option<String>,
    },
    /// Not ready in the time the release allows.
    NotReady {
        #[serde(rename = "within_ms", with = "duration_ms")]
        within: Duration,
        why: String,
        /// Where the instance's processes listen instead, when that is the reason.
        listens_on: Vec<SocketAddr>,
    },
}

impl fmt::Display for GiveUpCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GiveUpCause::CrashLoop { exits, window, exit, why } => {
                write!(f, "crash loop: ended {exits} times within {window:?}, last with {exit}")?;
                why.iter().try_for_each(|why| write!(f, " ({why})"))
            }
            GiveUpCause::NotReady { within, why, .. } => write!(f, "not ready within {within:?}: {why}"),
        }
    }
}

/// A limit of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Cpu,
    Memory,
    OpenFiles,
    Processes,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Cpu => "cpu",
            Limit::Memory => "memory",
            Limit::OpenFiles => "open files",
            Limit::Processes => "processes",
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobEvent {
    pub environment: EnvironmentKey,
    pub job: JobNumber,
    pub outcome: JobOutcome,
}

#[derive(Clone, Debug, PartialEq)]
pub enum JobOutcome {
    Succeeded,
    Failed {
        exit: Exit,
        last_lines: Vec<String>,
    },
    SpawnFailed {
        cause: SpawnError,
    },
    TimedOut {
        after: Duration,
        last_lines: Vec<String>,
    },
    /// It was asked to stop before it was done.
    Cancelled {
        exit: Exit,
    },
    /// Nobody knows how it ended, or whether it has. It was not run again.
    Lost {
        why: String,
    },
}
