//! What a CDN is told after a rollout: once on the record it is due until somebody has said how it went.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::ReleaseNumber;
use crate::service::EnvValue;
use crate::time::{Timestamp, duration_ms};

/// A request that empties what stands before the environment. An answer of 200 to 299 is success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeHook {
    pub url: EnvValue,
    pub method: String,
    pub headers: BTreeMap<String, EnvValue>,
    pub body: Option<String>,
    pub attempts: u32,
    /// For each attempt.
    #[serde(with = "duration_ms")]
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeDue {
    /// Whose hook it is.
    pub release: ReleaseNumber,
    pub since: Timestamp,
    pub by: String,
}

/// How the last one went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    pub at: Timestamp,
    pub release: ReleaseNumber,
    pub attempts: u32,
    /// Why it came to nothing.
    pub failure: Option<String>,
}
