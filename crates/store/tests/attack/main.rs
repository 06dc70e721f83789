//! Attacks on the store from outside: killed processes, full disks, changed bytes, two at once.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions; these are their helpers")]

mod flip;
mod full_disk;
mod kill;
mod two_servers;
