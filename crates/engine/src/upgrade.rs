//! Another Fairway in the place of the one that runs. It happens to the server, and is on the record of every environment
//! that the server had then: who reads why something was slow at that moment reads it there.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// No other upgrade of this server has the same.
    pub id: String,
    /// Versions.
    pub from: String,
    pub to: String,
    /// Who asked for it.
    pub by: String,
}

/// One that has begun and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeUnderWay {
    pub upgrade: Upgrade,
    pub since: Timestamp,
}

/// One that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeOver {
    pub upgrade: Upgrade,
    pub at: Timestamp,
    pub end: UpgradeEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum UpgradeEnd {
    /// The new server serves.
    Done,
    /// The proxy did not hand over: both are the ones before.
    Refused { why: String },
    /// The new server did not come to serve: it is the one before again. The proxy is the new one.
    CameBack { why: String },
    /// The server ended in the middle of it, and whatever starts servers has started this version.
    Interrupted { version: String },
}

/// What the server tells of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpgradeStep {
    Begun { program: String },
    ProxyHandedOver { took_ms: u64 },
    Ended { end: UpgradeEnd },
}
