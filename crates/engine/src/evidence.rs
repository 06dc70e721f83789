//! What a release has to show before it gets more traffic, and what undoes it: the settings. Fixed with the release,
//! so that a rollout resumed after a week is judged by the rules under which it began.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::release::JobSpec;
use crate::time::duration_ms;

/// A finite measured value or threshold, ordered; the serde form is the plain number.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(pub f64);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// The sequential count test on errors and slow answers; none when it was switched off.
    pub sequential: Option<Sequential>,
    pub gates: Vec<Gate>,
    /// What undoes the release while it bakes.
    pub triggers: Vec<Trigger>,
}

/// Compares how bad events fall to the new version and to stable, with what its share of the traffic explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequential {
    /// A new version that is worse by less than this factor is not undone.
    pub margin: Number,
    /// Probability of undoing a release that is not worse than the margin.
    pub alpha: Number,
    /// Requests that the new version must have answered in a step before the step can end.
    pub min_requests: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// What people call it: the metric, or the query shortened.
    pub name: String,
    pub check: Check,
    pub bounds: Bounds,
    /// How long a bound must be crossed before the gate fails.
    #[serde(with = "duration_ms")]
    pub lasts: Duration,
    pub min_requests: u64,
    pub no_data: NoData,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Check {
    /// Share of requests that failed, 0 to 1, counted at the proxy since the step began.
    ErrorRate,
    /// Seconds under which this many percent of the answers stayed, from the proxy's histogram.
    Latency { percentile: u32 },
    /// PromQL, asked of the metrics source. The first sample's value counts; an empty answer is no data.
    Query { promql: String },
    /// Exit status 0 passes; the value is the exit status.
    Command { job: Box<JobSpec> },
    /// POSTed to; a 2xx answer passes.
    Webhook { url: String },
}

/// All that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub max: Option<Number>,
    pub min: Option<Number>,
    /// Largest ratio to the same measure of stable; asked only while stable is healthy.
    pub max_vs_stable: Option<Number>,
}

/// What holds when there is nothing to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoData {
    #[default]
    Pause,
    Pass,
    Fail,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Trigger {
    ErrorRate {
        above: Number,
        #[serde(with = "duration_ms")]
        lasts: Duration,
    },
    Latency {
        percentile: u32,
        #[serde(with = "duration_ms")]
        above: Duration,
        #[serde(with = "duration_ms")]
        lasts: Duration,
    },
    /// An alert of severity critical fires in the environment.
    CriticalAlert,
}

/// Copies follow the load, by the algorithm of Kubernetes' HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autoscale {
    pub min: u32,
    pub max: u32,
    pub metrics: Vec<ScaleMetric>,
    /// Ratios to the target within 1 ± this change nothing.
    pub tolerance: Number,
    pub up: ScaleBehaviour,
    pub down: ScaleBehaviour,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleMetric {
    pub source: ScaleSource,
    /// In the source's unit, for the average copy (`Query`, `Latency`: for all of them).
    pub target: Number,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ScaleSource {
    /// Percent of the limit, or of one core where there is no limit.
    Cpu,
    /// Percent of the limit, or of the machine where there is no limit.
    Memory,
    /// Requests per second.
    Requests,
    /// Seconds.
    Latency {
        percentile: u32,
    },
    Query {
        promql: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleBehaviour {
    /// The most cautious recommendation of this long counts.
    #[serde(with = "duration_ms")]
    pub stabilisation: Duration,
    pub policies: Vec<ScalePolicy>,
    pub select: ScaleSelect,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalePolicy {
    pub change: ScaleChange,
    #[serde(with = "duration_ms")]
    pub period: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ScaleChange {
    Percent { value: u32 },
    Copies { value: u32 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleSelect {
    #[default]
    Max,
    Min,
    /// Never in this direction.
    Disabled,
}
