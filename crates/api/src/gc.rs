//! What can be removed, why, and how much it frees.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    pub items: Vec<GcItem>,
    pub bytes: u64,
    pub done: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcItem {
    pub what: String,
    pub why: String,
    pub bytes: u64,
}
