//! Prometheus' HTTP API as functions: a request in, an answer out, no connection in between.
//!
//! ```text
//! answer(&Context { source, engine, rules, targets, status, … }, &Request { method, path, query, form, accept })
//!     -> Response { status, content_type, body }
//! ```
//!
//! Paths, parameters, envelope, status codes, number forms and error texts are those of Prometheus 3, so that Grafana's
//! Prometheus data source works unchanged. A test holds the answers against a real Prometheus.

mod context;
mod envelope;
mod federate;
mod json;
mod labels;
mod query;
mod request;
mod route;
mod rules;
mod status;
mod targets;
mod text;
mod time;

pub use context::{
    ActiveAlert, Alerting, BuildInfo, Context, Health, Rule, RuleGroup, Rules, Source, Status, Target,
    Targets,
};
pub use request::{FORM_BYTES_MAX, Request};
pub use route::{Response, answer};

#[cfg(test)]
mod tests;
