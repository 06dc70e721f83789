//! Prometheus rule files: read, checked, evaluated on a schedule, shown.
//!
//! ```text
//! RuleFile::parse(name, text) -> groups -> Group::new(file, spec, surroundings)
//!     adopt(state)                          after a restart or a change of the file
//!     remember(store, now)                  after a restart without a state
//!     due(now) -> evaluate(source, at) -> Evaluation { samples, transitions, failures }
//!     shown()                               for the HTTP API
//! ```
//!
//! What differs from Prometheus, on purpose:
//! - An evaluation that fails leaves alerts as they are, also when it fails by the group's limit. Prometheus forgets
//!   the alerts of a rule that goes over its limit, which resolves them.
//! - `for` is an absolute time. A restart neither restarts it nor adds the outage to it. After an hour of silence an
//!   alert that was only pending begins anew.
//! - Rules that are taken away resolve their alerts at once instead of letting them time out.

mod alert;
mod clock;
pub(crate) mod emit;
mod evaluate;
mod file;
mod group;
mod http;
mod rule;
pub(crate) mod span;
mod template;
mod yaml;

pub use alert::{
    ALERT_NAME, ALERTS, ALERTS_FOR_STATE, Alert, AlertState, Change, RESOLVED_KEPT_MS, Transition,
};
pub use clock::rfc3339;
pub use evaluate::{Evaluate, EvaluateError, Found, Local, Recorded};
pub use file::{GroupSpec, LoadError, Problem, RuleFile, RuleKind, RuleSpec, write};
pub use group::{Due, Evaluation, Failure, Group, GroupState, OUTAGE_MAX_MS, Surroundings};
pub use rule::{Health, Rule, RuleState};
pub use span::{parse as parse_duration, show as show_duration};
pub use template::{Scene, Template, exponential as show_value};
pub use yaml::Place;

#[cfg(test)]
pub(crate) mod tests;
