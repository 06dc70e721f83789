//! Service level objectives: burn-rate rules and error budgets, after chapter 5 of Google's Site Reliability Workbook.
//!
//! Each objective becomes two groups. The first, twice a minute, keeps the error ratio over 5 m to 6 h from the raw
//! series and pages. The second, every 5 minutes, keeps the *rates* of errors and of everything over those 5 minutes:
//! its samples lie side by side, so their sums over a day or a month are the true counts, weighted by traffic, from
//! 288 samples a day. That is all that has to be kept for the whole window; raw series may go after 6 hours.
//! [`keeps`] says which series these are.
//!
//! | recorded | is |
//! |---|---|
//! | `slo:sli_error:rate5m`, `slo:sli_total:rate5m` | bad and all events a second; kept for the window |
//! | `slo:sli_error:ratio_rate<w>` | share of bad events over 5m, 30m, 1h, 2h, 6h, 1d, 3d and the window |
//! | `slo:error_budget_remaining:ratio` | 1: untouched, 0: spent, below: overspent |
//! | `slo:objective:ratio` | the objective |
//!
//! No traffic gives no ratio: neither good nor bad. A level that cannot be reached (14.4 times the budget of 90 % is
//! more than every request) is left out, as is one that would alert on a spending within the budget.

mod budget;
mod levels;
mod record;

pub use budget::{Budget, Burn, Standing, budget};
pub use levels::{Level, Severity, levels};
pub use record::{keeps, rule_file};

use std::time::Duration;

use crate::promql::ParseError;
use crate::rules::LoadError;

#[derive(Clone, Debug, PartialEq)]
pub struct SloSpec {
    /// Unique in its environment.
    pub name: String,
    /// As the label `environment` has it: `project/environment`.
    pub environment: String,
    pub goal: SloGoal,
    /// Above 0, below 1.
    pub objective: f64,
    pub window: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SloGoal {
    /// Requests that did not fail.
    Availability { service: String },
    /// Requests answered within this time, which must be a bound of the histogram.
    Latency { service: String, within_s: f64 },
    /// Rates of good and of all events, with `$window` where the range belongs.
    Query { good: String, total: String },
}

/// A shorter one has no room for two burn rates.
pub const WINDOW_MIN: Duration = Duration::from_secs(24 * 3600);
/// A quarter and some: longer windows would make each evaluation read more than 30,000 samples a series.
pub const WINDOW_MAX: Duration = Duration::from_secs(100 * 24 * 3600);

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SloError {
    #[error("{slo}: the objective must be above 0 and below 1, and is {objective}")]
    Objective { slo: String, objective: f64 },
    #[error("{slo}: the window must be between 1 d and 100 d, and is {}", crate::rules::show_duration(*window))]
    Window { slo: String, window: Duration },
    #[error("{slo}: the time within which requests are to be answered must be above 0, and is {within_s} s")]
    Within { slo: String, within_s: f64 },
    #[error("{slo}: the query for {which} has no $window where its range belongs")]
    NoWindow { slo: String, which: &'static str },
    #[error("{slo}: the query for {which}: {error}")]
    Query { slo: String, which: &'static str, error: ParseError },
    #[error("{slo}: the query for {which} gives a {given}, not an instant vector")]
    Type { slo: String, which: &'static str, given: String },
    /// Two of one name in one environment would write the same series.
    #[error("{slo}: defined twice in {environment}")]
    Twice { slo: String, environment: String },
    /// A query is too long or too deep for a rule, or a name is too long.
    #[error("no rules can be made of the objectives: {error}")]
    Rules { error: LoadError },
}

#[cfg(test)]
mod tests;
