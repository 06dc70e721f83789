//! What outlives a process: the event log, state snapshots, the files a release runs, and secrets at rest.
//!
//! The log is the truth. Everything else here is either named by it (blobs, trees, secret versions) or can be
//! rebuilt from it (snapshots, materialised trees, caches). Payloads are opaque: this crate never reads what an
//! event means. It opens no socket and starts no process.

pub mod blobs;
pub mod database;
pub mod digest;
mod durable;
pub mod gc;
pub mod lock;
pub mod log;
pub mod redact;
pub mod secrets;
pub mod snapshot;
pub mod tree;

pub use blobs::{BlobError, Blobs, Stored};
pub use database::{Damage, DatabaseError, OpenError};
pub use digest::Digest;
pub use gc::{Applied, GcError, Plan, Removal, Roots, What};
pub use lock::{Holder, LockError, ServerLock};
pub use log::{AppendError, Head, Log, LogReader, NewRecord, Record, Records, Verified};
pub use redact::{Masks, Redactor};
pub use secrets::{SecretEntry, SecretError, SecretState, SecretValue, SecretVersion, Secrets};
pub use snapshot::{Ignored, Latest, Snapshot, SnapshotError, Snapshots};
pub use tree::{
    CaptureError, Captured, Exclude, How, Kind, Manifest, ManifestError, MaterialiseError, Materialised,
    TreePath, Trees,
};
