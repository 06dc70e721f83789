//! The data plane of Fairway.
//!
//! It knows routes, services, versions and instances ([`snapshot`]), and is told about them over a unix socket
//! ([`control`]). It never knows a rollout.
//!
//! Its one promise is that no request is lost by anything that Fairway does. What that takes is spread over the
//! modules, each of which names its rule:
//! `worker` (one accept queue; pools closed before a drain is reported), `conn` (half-close and lingering
//! read, hop-by-hop fields, deadlines), `conn::relay` (retries that cannot do harm, re-pick, hold queue),
//! `balance` (panic mode, exact weights), `decide` (bind, make durable, switch; drain), `handover` (upgrades),
//! `safekeeping` (sockets that outlive a crash).
//!
//! What it does not do: it never closes a connection that a client may be about to use without saying so on the
//! response before; it never passes on a message that two servers could read differently; it never shares
//! mutable state between cores on the path of a request, counters that are summed on read excepted.

mod accept;
mod accesslog;
mod balance;
mod buffer;
mod certificates;
mod clients;
pub mod codec;
mod conn;
pub mod control;
mod deadline;
mod decide;
mod endpoint;
mod entrance;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod h2;
mod handover;
mod health;
mod limits;
mod listen;
mod metrics;
mod passing;
mod persist;
mod pipe;
mod policy;
mod queue;
mod run;
pub mod safekeeping;
mod series;
pub mod snapshot;
mod spin;
mod stop;
mod stream;
mod table;
mod tickets;
mod trace;
mod worker;

pub use accesslog::AccessLog;
pub use limits::Limits;
pub use run::{ExitReason, RunError, RunOptions, run};
