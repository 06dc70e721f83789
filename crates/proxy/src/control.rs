//! How the control plane and the proxy talk: newline-delimited JSON over a unix socket.
//!
//! Every line from a client is an [`Asked`], every line from the proxy a [`Said`]. Answers carry the `seq` of
//! the question; events carry none and may come at any time, between a question and its answer too. Several
//! clients may be connected at once; all of them get all events.

mod client;
mod figures;
mod message;
mod path;
mod server;

pub use client::{ApplyError, Client, ClientError, Events};
pub use figures::{Arm, Arms, CacheStats, Cause, Chosen, LATENCY_BOUNDS_US, SeriesStats, Stats, StatusClass};
pub use message::{Applied, Ask, Asked, Event, Hello, RejectReason, Rejected, Said, Say};
pub use path::bind as bind_path;
pub(crate) use path::{bind_beside as bind_path_beside, connect as connect_path};
pub(crate) use server::{Command, Known, serve};
