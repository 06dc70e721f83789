//! The proxy with real sockets: every test runs one, with its own origins and clients.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic like the test itself")]

mod breaker;
mod cache;
mod drain;
mod evidence;
mod frames;
mod h2c;
mod h2loss;
mod handover;
mod hangup;
mod hostile;
mod http2;
mod loss;
mod memory;
mod messages;
mod mirror;
mod offences;
mod policy;
mod posture;
mod safekeeping;
mod state;
mod support;
mod swap;
mod tls;
