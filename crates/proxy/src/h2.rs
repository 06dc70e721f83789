//! HTTP/2 at both rims. The crate `h2` speaks the protocol; here each of its streams becomes a message of HTTP/1.1 in a
//! [`Pipe`](crate::pipe::Pipe) and back, so that routing, retries, holding, counting and draining are done in one place,
//! whatever is spoken outside.
//!
//! `server`: from clients. `client`: to instances. `incoming` and `outgoing`: bodies from and to HTTP/2. `fields`: heads
//! and trailers. `wire` and `budget`: what the peer does besides its requests, and how much of it.

mod budget;
pub(crate) mod client;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod incoming;
mod outgoing;
pub(crate) mod server;
mod websocket;
mod wire;

/// A body, HTTP/2 is done with it or gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// The HTTP/2 side reset its stream, or its connection is gone.
    Peer,
    /// The relay ended before its message was complete, or said that it cannot be completed.
    Relay,
}
