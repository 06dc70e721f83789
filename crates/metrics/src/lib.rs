//! Samples: reading and writing them on the wire, keeping them, asking about them in PromQL, and what follows from
//! the answers: rules, alerts, notifications.
//!
//! No clock, no network, no thread, no runtime: whoever asks says what time it is. The store does write files.

pub mod labels;
pub mod sample;
pub mod select;
