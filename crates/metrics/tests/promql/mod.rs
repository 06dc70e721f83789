//! What the tests of PromQL share.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

pub mod grammar;
pub mod memory;
pub mod prometheus;
pub mod random;
pub mod run;
pub mod script;
