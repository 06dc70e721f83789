//! Objectives and their error budgets. `GET …/slo`

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SloInfo {
    pub name: String,
    /// `requests to api that did not fail`
    pub goal: String,
    /// Above 0, below 1.
    pub objective: f64,
    pub window_ms: u64,
    /// Time of the window for which there are figures.
    pub covered_ms: u64,
    pub standing: SloStanding,
    pub burns: Vec<SloBurn>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum SloStanding {
    /// Nothing was recorded in the window.
    NoData,
    /// There were figures, and no events.
    NoTraffic,
    Measured {
        good: f64,
        total: f64,
        /// Of the budget: 1 untouched, 0 spent, below 0 overspent.
        remaining_ratio: f64,
        /// When it is spent if errors go on as in the last hour; absent when it will not be, or nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exhausted_at_ms: Option<u64>,
    },
    /// Whoever keeps the figures did not answer.
    Unknown { why: String },
}

/// How fast the budget was spent: 1 spends it exactly by the end of the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SloBurn {
    pub window_ms: u64,
    /// Absent without traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}
