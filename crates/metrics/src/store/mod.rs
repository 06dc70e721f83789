//! Keeps samples on disk: a head in memory with a write-ahead log, and immutable blocks.
//!
//! The design is that of Prometheus' TSDB (Fabian Reinartz, "Writing a Time Series Database from Scratch", 2017), the
//! formats are our own. What is appended goes into the head and the log; [`Store::sync`] makes it safe. When two hours
//! are over and one more has passed, [`Store::maintain`] writes them into a block and forgets them in memory; three blocks
//! become one, up to a tenth of the retention; the oldest go as a whole. A query puts blocks and head together. It sees a
//! batch that is being appended in part.
//!
//! What is kept in memory:
//! - a series: 1.1 kB, measured with nine labels of which one is unlike all others (its name, one entry of 8 bytes in the
//!   list of each label value, two maps, the chunk that grows); texts are there once, however many series share them;
//! - a sample of the last three hours: 1.6 bytes, measured with the load of [`bench`]; up to 10 when nothing repeats;
//! - a block: the texts of its labels, 8 bytes a series, 16 bytes a label value;
//! - what is not synced: 10 bytes a sample, 32 MiB at most.
//!
//! From these, a million series, each 15 s, need 2.3 GB, and ten thousand 23 MB. On disk a sample of that load takes 1.55
//! bytes in blocks, indexes included, and 10 to 12 in the log, which is shortened with every block.
//!
//! Samples of a series come in the order of their time; others are counted and left out. Whoever appends keeps times from
//! the far future out: a series that has one takes nothing older any more.

mod append;
pub mod bench;
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
