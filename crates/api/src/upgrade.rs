//! Another Fairway in the place of the one that runs.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeRequest {
    /// Absolute path of the program on the server's machine.
    pub binary: String,
}

/// What is done when the answer comes: the proxy is the new one, and the server is about to be. Whether it then came up
/// is in [`crate::ServerInfo::upgraded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// Names this upgrade, in [`Upgraded::id`].
    pub id: String,
    pub from: String,
    pub to: String,
    /// None when no proxy answered: the new server starts one.
    pub proxy: Option<ProxyHandover>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyHandover {
    pub from_pid: u32,
    pub to_pid: u32,
    /// From the start of the new one until it answered for the sockets.
    pub took_ms: u64,
}

/// How a server came to be that was not started as a process of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    pub id: String,
    /// Version of the one before.
    pub from: String,
    /// Why the new one did not start: this is the one before, back again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}
