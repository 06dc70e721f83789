//! Keeps samples on disk: a head in memory with a write-ahead log, and immutable blocks.
