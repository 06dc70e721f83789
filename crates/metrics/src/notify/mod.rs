//! From firing alerts to messages: routing, grouping, inhibition, silences, repetition.
//!
//! The stages and their order are those of Prometheus's Alertmanager (`dispatch`, `inhibit`, `silence`, `nflog`): an
//! alert takes the first route that accepts it, joins a group, and each time the group is due what is inhibited and
//! then what is silenced is taken out, and each channel is told what it has not been told before.
//!
//! Nothing here waits, sends, or reads a clock. The caller
//! 1. hands in what fires ([`Dispatcher::receive`]),
//! 2. asks what is [due](Dispatcher::due), **writes [`Dispatcher::state`] down**, and only then sends,
//! 3. reports each [`Outcome`] ([`Dispatcher::delivered`]), and writes the state down again,
//! 4. comes back at [`Dispatcher::next_at`].
//!
//! Delivery is at least once: after a crash between 2 and 3 a message is sent again, because one too many is better
//! than an alert that nobody saw. [`Delivery::group_key`] is the same each time, so that a channel which merges by key
//! (PagerDuty's `dedup_key`) merges them.
//!
//! Where this differs from Alertmanager, on purpose:
//! - What was told as firing is told as resolved, once, even if it is silenced or inhibited by then: an incident that
//!   was opened is closed. What was never told as firing is never told as resolved.
//! - A failed message is tried again with what is true by then, not with what was true when it failed.
//! - Memory is part of the group, so a restart, a clock that jumps or a new configuration ends no alert.

pub mod alert;
pub mod config;
pub mod delivery;
pub mod dispatcher;
pub mod forward;
mod group;
pub mod health;
pub mod inhibit;
pub mod matching;
pub mod silence;

pub use alert::{Alert, Fingerprint, TimestampMs};
pub use config::{Config, Limits, Route};
pub use delivery::{Delivery, DeliveryId, Outcome, Reason, Status, ToldAlert};
pub use dispatcher::{AlertView, Counters, Dispatcher, State};
pub use forward::{Batch, Forwarder};
pub use health::{ChannelHealth, Standing};
pub use inhibit::InhibitRule;
pub use matching::{Match, MatchError, MatchOp};
pub use silence::{NewSilence, Silence, SilenceError, SilenceId, SilenceState};
