//! Makes effects real on one machine: processes under a shim each, jobs, backing services, logs.
//!
//! This crate does the IO at the rim and decides no policy. It never restarts what the spec does not say, never
//! starts a second copy, and never kills a process that it cannot prove to be its own.

mod attach;
pub mod backing;
mod cgroup;
mod child;
mod client;
mod command;
pub mod event;
pub mod exec;
pub mod exit;
pub mod jobs;
pub mod key;
mod lock;
pub mod logs;
pub mod ports;
mod process;
pub mod reap;
mod record;
pub mod shim;
mod sockets;
pub mod spawn_error;
pub mod spec;
pub mod supervisor;
mod user;
mod wire;

pub use wire::Enforcement;
