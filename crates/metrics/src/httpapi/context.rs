//! What answers are made of: views of the store, the rules, the targets and the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::exposition::Metadata;
use crate::labels::Labels;
use crate::promql::{Engine, Stop};
use crate::sample::TimestampMs;
use crate::select::{Matcher, Querier, SelectError};
use crate::store::Store;

/// Everything an answer may need. Cheap to make for each request.
pub struct Context<'a> {
    pub source: &'a dyn Source,
    pub engine: &'a Engine,
    /// What ends an evaluation after the time that a request asks for, or after the longest one allowed when it asks
    /// for none. This module has no clock.
    pub stop_after: &'a dyn Fn(Option<Duration>) -> Option<Stop>,
    pub rules: &'a dyn Rules,
    pub targets: &'a dyn Targets,
    pub status: &'a Status,
    /// Put on federated series that do not have them.
    pub external_labels: &'a Labels,
    pub now_ms: TimestampMs,
    /// Whether questions can be answered; before, `/-/ready` and the API say 503.
    pub ready: bool,
}

/// A keeper of series that can list labels.
pub trait Source: Querier {
    /// Sorted. The default goes through all series.
    ///
    /// # Errors
    /// When they cannot be read.
    fn label_names(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<String>, SelectError> {
        let series = self.series(matchers, from_ms, to_ms)?;
        let names: BTreeSet<&str> = series.iter().flat_map(Labels::iter).map(|(name, _)| name).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    /// Sorted. The default goes through all series.
    ///
    /// # Errors
    /// When they cannot be read.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<String>, SelectError> {
        let series = self.series(matchers, from_ms, to_ms)?;
        let values: BTreeSet<&str> = series.iter().filter_map(|labels| labels.get(name)).collect();
        Ok(values.into_iter().map(str::to_owned).collect())
    }
}

impl Source for Store {
    fn label_names(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<String>, SelectError> {
        Self::label_names(self, matchers, from_ms, to_ms)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<String>, SelectError> {
        Self::label_values(self, name, matchers, from_ms, to_ms)
    }
}

/// Whoever evaluates rules.
pub trait Rules {
    /// In the order of files, and in each in its own order.
    fn groups(&self) -> Vec<RuleGroup>;
}

#[derive(Clone, Debug)]
pub struct RuleGroup {
    pub name: String,
    pub file: String,
    pub interval: Duration,
    /// Series or alerts of one rule; 0 is no limit.
    pub limit: usize,
    pub rules: Vec<Rule>,
    pub evaluation_time: Duration,
    /// `None` before the first.
    pub last_evaluation_ms: Option<TimestampMs>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub query: String,
    pub labels: Labels,
    pub health: Health,
    /// Empty when there is none.
    pub last_error: String,
    pub evaluation_time: Duration,
    pub last_evaluation_ms: Option<TimestampMs>,
    /// `None` for a recording rule.
    pub alerting: Option<Alerting>,
}

/// What an alerting rule has besides.
#[derive(Clone, Debug)]
pub struct Alerting {
    pub hold: Duration,
    pub keep_firing: Duration,
    pub annotations: Labels,
    /// Pending and firing ones. The rule's own state is that of the worst.
    pub alerts: Vec<ActiveAlert>,
}

#[derive(Clone, Debug)]
pub struct ActiveAlert {
    pub labels: Labels,
    pub annotations: Labels,
    /// Otherwise it is pending.
    pub firing: bool,
    pub active_at_ms: TimestampMs,
    pub keep_firing_since_ms: Option<TimestampMs>,
    pub value: f64,
}

/// Whether the last try was good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    Good,
    Bad,
    /// There was none yet.
    #[default]
    Unknown,
}

/// Whoever scrapes.
pub trait Targets {
    /// Sorted by pool.
    fn active(&self) -> Vec<Target>;
}

#[derive(Clone, Debug)]
pub struct Target {
    pub discovered_labels: Labels,
    pub labels: Labels,
    pub pool: String,
    pub url: String,
    pub last_error: String,
    pub last_scrape_ms: Option<TimestampMs>,
    pub last_scrape_duration: Duration,
    pub health: Health,
    pub interval: Duration,
    pub timeout: Duration,
    /// Of the last good scrape, by family.
    pub metadata: Arc<BTreeMap<String, Metadata>>,
}

/// What is to be said of the process.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub build: BuildInfo,
    pub started_ms: TimestampMs,
    pub hostname: String,
    pub working_directory: String,
    /// As Prometheus writes it: `15d`, or `15d or 1GiB`.
    pub retention: String,
    /// The settings of metrics, as a Prometheus configuration.
    pub config_yaml: String,
    pub flags: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// Of Prometheus' API: readers decide by it what they may ask for.
    pub version: String,
    /// Of Fairway.
    pub revision: String,
    pub build_date: String,
}

impl Default for BuildInfo {
    fn default() -> Self {
        // The version whose answers the tests compare with.
        Self { version: "3.5.0".to_owned(), revision: String::new(), build_date: String::new() }
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("now_ms", &self.now_ms)
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}
