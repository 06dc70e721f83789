//! One copy of a service and the states it goes through.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::id::{Generation, InstanceId};
use crate::time::Timestamp;

/// Where a copy listens, `127.0.0.1:20017`: as short as that it lies within, without room of its own on the heap.
pub type Address = SmolStr;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    /// Restart epoch of the service when this copy was planned. `fairway restart` raises the service's epoch;
    /// copies of an older one are replaced one at a time.
    pub epoch: u32,
    pub planned_at: Timestamp,
    /// Once started; none for a service without a port.
    pub address: Option<Address>,
    /// The last route table that named it: requests from before the next one may still be under way.
    #[serde(default)]
    pub last_routed: Option<Generation>,
    /// How often the process ended by itself and was started again by its shim.
    pub crashes: u32,
    pub state: InstanceState,
}

impl Instance {
    /// Counts towards capacity, now or soon.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self.state {
            InstanceState::Starting { .. }
            | InstanceState::Ready { .. }
            | InstanceState::Suspect { .. }
            | InstanceState::Down { .. } => true,
            InstanceState::Draining { .. } | InstanceState::Stopping { .. } => false,
        }
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.state {
            InstanceState::Ready { .. } => true,
            InstanceState::Starting { .. }
            | InstanceState::Suspect { .. }
            | InstanceState::Down { .. }
            | InstanceState::Draining { .. }
            | InstanceState::Stopping { .. } => false,
        }
    }

    /// Was ready and is alive, though its probe fails: used only when no ready copy is left (panic mode), because
    /// a failing probe under overload must not turn into an outage.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        match self.state {
            InstanceState::Suspect { .. } => true,
            InstanceState::Starting { .. }
            | InstanceState::Ready { .. }
            | InstanceState::Down { .. }
            | InstanceState::Draining { .. }
            | InstanceState::Stopping { .. } => false,
        }
    }
}

/// Draining and stopping have no way back: a probe that succeeds late must never put an instance back in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum InstanceState {
    /// Asked to start; must be ready by the deadline.
    Starting {
        deadline: Timestamp,
    },
    Ready {
        since: Timestamp,
    },
    Suspect {
        since: Timestamp,
        why: String,
    },
    /// Its process ended; the shim starts it again after a back-off.
    Down {
        since: Timestamp,
        why: String,
    },
    /// Out of the route table from generation `cut` on; its requests may finish until the deadline.
    Draining {
        since: Timestamp,
        deadline: Timestamp,
        cut: Generation,
    },
    /// Told to stop.
    Stopping {
        since: Timestamp,
        deadline: Timestamp,
    },
}

impl InstanceState {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            InstanceState::Starting { .. } => "starting",
            InstanceState::Ready { .. } => "ready",
            InstanceState::Suspect { .. } => "suspect",
            InstanceState::Down { .. } => "down",
            InstanceState::Draining { .. } => "draining",
            InstanceState::Stopping { .. } => "stopping",
        }
    }
}

/// An instance that is gone, kept for status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedInstance {
    pub id: InstanceId,
    pub at: Timestamp,
    pub how: InstanceEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum InstanceEnd {
    /// Asked to stop and did; `exit` as the system put it ("exit code 0", "signal 15").
    Stopped { exit: String },
    /// Ended against our will.
    Failed { failure: Failure },
    /// Still there perhaps, but not provably ours: neither killed nor used.
    Unverifiable { why: String },
}

/// Why something failed, with the last lines that it logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub cause: String,
    pub last_lines: Vec<String>,
}
