//! What outlives a process: the event log, state snapshots, the files a release runs, and secrets at rest.
//!
//! The log is the truth. Everything else here is either named by it (blobs, trees, secret versions) or can be
//! rebuilt from it (snapshots, materialised trees, caches). Payloads are opaque: this crate never reads what an
//! event means. It opens no socket and starts no process.

pub mod database;
pub mod digest;
mod durable;
pub mod log;

pub use database::{Damage, DatabaseError, OpenError};
pub use digest::Digest;
pub use log::{AppendError, Head, Log, LogReader, NewRecord, Record, Verified};
