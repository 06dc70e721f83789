//! The exposition formats: reading what services show, writing what Fairway shows, and a scrape's samples out of it.
//!
//! Read and written are Prometheus' text format 0.0.4 and 1.0 (names in quotes) and OpenMetrics 1.0. What Prometheus'
//! own parsers refuse is refused here, with the line.

pub mod format;
pub mod metadata;
pub mod number;
pub mod parse;
pub mod scrape;
pub mod write;

pub use format::{ACCEPT, Format};
pub use metadata::{Metadata, MetricType};
pub use parse::{Entry, Exemplar, Exposed, Exposition, Limits, ParseError, Parser, Problem, parse};
pub use scrape::{Scrape, ScrapeError, ScrapeSettings, TargetMemory};
pub use write::{Family, Point, write};
