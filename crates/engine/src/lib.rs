//! The engine decides. It does no IO, reads no clock, draws no random number and keeps only ordered maps, so that
//! the same inputs give the same bytes: restart is replay, audit is reading, and a test is inputs and a clock.

pub mod id;
pub mod release;
pub mod service;
pub mod strategy;
pub mod time;
