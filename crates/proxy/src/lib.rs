//! The data plane of Fairway.
//!
//! It knows routes, services, versions and instances ([`snapshot`]), and is told about them over a unix socket
//! ([`control`]). It never knows a rollout.

mod codec;
pub mod control;
pub mod snapshot;
