use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::figures::{Arms, Stats};
use crate::snapshot::{Invalid, Snapshot};

/// One line from a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Chosen by the client; comes back with the answer.
    pub seq: u64,
    pub ask: Ask,
}

/// One line from the proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The question that this answers; `None` for events and for the greeting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    pub say: Say,
}

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Serve this from now on. Answered by `Applied` or `Rejected`.
    Apply { snapshot: Box<Snapshot> },
    /// Answered by `Stats`.
    Stats,
    /// Only what a rollout is judged by, for whoever asks several times a second. Answered by `Arms`.
    Arms {
        /// Keys of services; empty asks for all.
        #[serde(default)]
        services: Vec<String>,
    },
    /// The same figures as Prometheus text. Answered by `Metrics`.
    Metrics,
    /// Requests in flight on one instance. Answered by `InFlight`.
    InFlight { instance: String },
    /// Nothing that was kept of these services is given any more. Answered by `Purged`.
    Purge {
        services: Vec<String>,
        /// Whose path begins with one of these; empty: all.
        #[serde(default)]
        paths: Vec<String>,
    },
    /// Answered by `Pong`.
    Ping,
    /// Stop accepting, drain, exit. Answered by `ShuttingDown`.
    Shutdown,
}

/// What the proxy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// First line on every connection.
    Hello(Hello),
    /// The snapshot is durable, and every core routes by it.
    Applied(Applied),
    /// The snapshot was not taken over; the previous one still serves.
    Rejected(Rejected),
    Stats(Box<Stats>),
    Arms(Arms),
    Metrics {
        text: String,
    },
    /// 0 for instances that the proxy does not know (any more). While a predecessor of the process drains,
    /// removed instances have at least 1: it may still be using them.
    InFlight {
        instance: String,
        count: u64,
    },
    /// Answers that were kept.
    Purged {
        count: u64,
    },
    Pong,
    ShuttingDown,
    /// The line was not understood; the connection stays open.
    BadRequest {
        problem: String,
    },
    Event(Event),
}

/// Who the client is talking to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub pid: u32,
    /// [`Stats::source`].
    #[serde(default)]
    pub source: u64,
    /// Generation that is being served; 0 when there never was a snapshot.
    pub generation: u64,
    /// Of the program; empty when it is older than this field.
    #[serde(default)]
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Of the refused snapshot.
    pub generation: u64,
    /// Still being served.
    pub current: u64,
    pub reason: RejectReason,
}

/// Why a snapshot was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RejectReason {
    #[error("a newer generation is being served")]
    OlderGeneration,
    #[error("the same generation is being served with other content")]
    SameGenerationDifferent,
    #[error("the snapshot is invalid: {}", list(problems))]
    Invalid { problems: Vec<Invalid> },
    #[error("listener {listener:?}: cannot listen on {addr}: {message}")]
    Bind { listener: String, addr: SocketAddr, errno: Option<i32>, message: String },
    #[error("the snapshot could not be made durable: {message}")]
    Persist { errno: Option<i32>, message: String },
    #[error("the proxy is draining and takes no snapshot over any more")]
    Draining,
    /// Try again: within half a minute either this process or its successor will take it.
    #[error("the proxy is handing over to its successor")]
    HandingOver,
}

fn list(problems: &[Invalid]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Something happened. Sent to every client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The instance was removed by a snapshot, nothing is in flight on it and no connection to it is open.
    /// Said once per removal; ask `InFlight` when it may have been missed.
    Drained { instance: String },
    /// The instance began or ceased to be fit for traffic.
    Health { instance: String, healthy: bool, reason: String },
    /// The version failed a request that is evidence ([`super::Chosen::is_evidence`]), the first since this was last
    /// said: ask [`Ask::Arms`]. At most once in 100 ms for one version, and ten times a second for all of them.
    Failing { service: String, version: String },
    /// So many events were dropped because they were not read fast enough.
    Missed { count: u64 },
}
