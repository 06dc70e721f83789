//! Samples: reading and writing them on the wire, keeping them, asking about them in PromQL, and what follows from
//! the answers: rules, alerts, notifications.
//!
//! No clock, no network, no thread, no runtime: whoever asks says what time it is. The store does write files.

pub mod builtin;
pub mod export;
pub mod exposition;
pub mod httpapi;
pub mod labels;
pub mod notify;
pub mod promql;
pub mod remote;
pub mod rules;
pub mod sample;
pub mod select;
pub mod slo;
pub mod store;
