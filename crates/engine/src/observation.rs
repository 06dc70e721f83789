//! What was measured, as it comes in. Counters are absolute, as their source keeps them, so that a reading that is
//! lost or doubled changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::Number;
use crate::id::{ReleaseNumber, ServiceName};

/// Upper bounds in milliseconds of [`ArmCounters::latency`]; one more bucket takes what is above. The proxy's.
pub const LATENCY_BOUNDS_MS: [u64; 14] =
    [5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000];

/// The proxy's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Which life of the proxy counted; counters of another one start at 0.
    pub source: u64,
    /// Only services and releases with counters.
    pub services: BTreeMap<ServiceName, BTreeMap<ReleaseNumber, ArmCounters>>,
}

/// What one release of one service answered. Requests that testers sent there on purpose, previews and mirrored
/// copies are not in it: only what the weight decided, and what the release's own services asked of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounters {
    pub requests: u64,
    /// Answers of class 5xx, and requests that got no answer.
    pub errors: u64,
    /// The same, but all of one client within one second counted once.
    pub error_bursts: u64,
    /// Requests per bucket, not cumulative; trailing zeros may be left out.
    pub latency: Vec<u64>,
    /// Attempts that got no connection to a copy. Another copy answered the request, or none did: then it is among
    /// the errors as well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreached: u64,
    /// Requests that had no end yet, and those that clients gave up since the release last answered anybody. Not a sum: how
    /// it stood at that moment.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_flight: u64,
}

/// Most readings have none of them, and every one stays in the log for good.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a gate's source said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Reading {
    Value {
        value: Number,
        /// The same measure of stable, where the gate compares.
        stable: Option<Number>,
    },
    /// The source could not be asked, or had nothing.
    None { why: String },
}

/// What an autoscaled service measures, the average of its copies, in the order of its metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleReading {
    /// Copies that gave a value.
    pub copies: u32,
    /// None: could not be measured.
    pub values: Vec<Option<Number>>,
}
