//! A command that runs once: migrations, smoke checks, seeds, one-offs.

use serde::{Deserialize, Serialize};

use crate::id::{JobNumber, ReleaseNumber, RolloutNumber};
use crate::instance::Failure;
use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub number: JobNumber,
    pub release: ReleaseNumber,
    pub kind: JobKind,
    pub requested_by: String,
    /// The rollout that asked for it; none for what a person or the clock asked for. A job whose rollout has moved
    /// on must be cancelled, not run again, when a server comes back.
    #[serde(default)]
    pub rollout: Option<RolloutNumber>,
    pub state: JobState,
}

impl Job {
    #[must_use]
    pub fn is_running(&self) -> bool {
        match self.state {
            JobState::Running { .. } => true,
            JobState::Ended { .. } => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum JobKind {
    Expand,
    Contract,
    Smoke,
    Verify,
    Seed,
    /// `fairway run`: a command of the operator's with the release's environment.
    OneOff {
        service: Option<crate::id::ServiceName>,
        command: Vec<String>,
    },
}

impl JobKind {
    /// Changes the schema: never beside another that does.
    #[must_use]
    pub fn is_migration(&self) -> bool {
        match self {
            JobKind::Expand | JobKind::Contract => true,
            JobKind::Smoke | JobKind::Verify | JobKind::Seed | JobKind::OneOff { .. } => false,
        }
    }

    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            JobKind::Expand => "expand migration",
            JobKind::Contract => "contract migration",
            JobKind::Smoke => "smoke checks",
            JobKind::Verify => "verification",
            JobKind::Seed => "seed",
            JobKind::OneOff { .. } => "one-off command",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum JobState {
    Running { since: Timestamp },
    Ended { at: Timestamp, end: JobEnd },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum JobEnd {
    Succeeded,
    Failed {
        failure: Failure,
    },
    /// Nobody knows whether it ran to its end; never run again blindly.
    Lost {
        why: String,
    },
}
