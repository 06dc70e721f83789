//! Keeps samples on disk: a head in memory with a write-ahead log, and immutable blocks.

mod append;
mod bits;
mod chunk;
mod error;
mod gather;
mod head;
mod intern;
mod matching;
mod open;
mod options;
mod query;
mod stats;

pub use append::{Appended, SeriesRef};
pub use error::{Refused, StoreError};
pub use open::{Damage, Opened, Recovered, Store};
pub use options::Options;
pub use stats::{Maintained, Stats};
