//! The output of instances and jobs: written by shims, read and followed by the server.

mod follow;
pub mod line;
mod query;
pub(crate) mod stamp;
pub(crate) mod writer;

pub use self::follow::follow;
pub use self::query::{LINES_MAX, LogEntry, LogError, LogQuery, LogSource, Pattern, Selection, read};
