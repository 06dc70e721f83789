//! Samples from elsewhere and to elsewhere: Prometheus' remote write 1.0 and 2.0, and OTLP metrics.
//!
//! Bodies are walked where they lie. Nothing is allocated by what a body says of its own size before that size is
//! known to be bearable.

mod known;
pub mod otlp;
pub mod outbox;
pub mod receive;
pub mod send;
mod wire;

pub use outbox::{Batch, Outbox, OutboxCounts, OutboxSettings, Outcome};
pub use receive::{Answer, ReceiveLimits, Received, ReceivedSeries, Receiver, Refused, Stored, decode};
pub use send::{Message, Outgoing, encode};
