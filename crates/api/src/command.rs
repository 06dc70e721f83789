//! What an operator asks of an environment: `POST /v1/projects/P/environments/E/commands`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command", deny_unknown_fields)]
pub enum Command {
    Promote {
        full: bool,
    },
    Pause,
    Resume,
    Abort {
        reason: Option<String>,
    },
    Retry,
    /// `release` such as `r12`; none = what the serving release replaced.
    Rollback {
        release: Option<String>,
        reason: Option<String>,
    },
    Approve,
    Reject {
        reason: Option<String>,
    },
    Scale {
        service: String,
        replicas: u32,
    },
    /// Takes a `Scale` back: the load decides again how many copies there are, or fairway.toml.
    Autoscale {
        service: String,
    },
    Restart {
        service: Option<String>,
    },
    MaintenanceOn {
        message: String,
    },
    MaintenanceOff,
    Down,
}

/// The command is on the record. What came of it is told by the events after `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Number of the first event that the command caused: follow `events?after=seq-1`.
    pub seq: u64,
    /// The rollout that the command started, or acted on.
    pub rollout: Option<u32>,
    pub release: Option<String>,
    pub job: Option<u32>,
    /// One sentence for people.
    pub summary: String,
    /// What whoever asked should know; nothing of it keeps the command from being carried out.
    #[serde(default)]
    pub warnings: Vec<String>,
}
