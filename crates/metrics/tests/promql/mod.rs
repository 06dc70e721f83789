//! What the tests of PromQL share.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod memory;
pub mod run;
pub mod script;
