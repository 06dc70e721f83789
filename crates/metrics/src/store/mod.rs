//! Keeps samples on disk: a head in memory with a write-ahead log, and immutable blocks.

mod append;
mod bits;
mod block;
mod chunk;
mod disk;
mod error;
mod files;
mod gather;
mod head;
mod intern;
mod log;
mod maintain;
mod matching;
mod merge;
mod open;
mod options;
mod query;
mod recover;
mod stats;

pub use append::{Appended, SeriesRef};
pub use error::{Refused, StoreError};
pub use maintain::Maintained;
pub use open::{Damage, Opened, Recovered, Store};
pub use options::Options;
pub use stats::Stats;

#[cfg(test)]
mod tests;
