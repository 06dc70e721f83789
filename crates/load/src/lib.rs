//! Open-loop load: requests start at fixed, planned times whatever the service does, so a
//! stall is seen by every request that should have started during it. Latency is measured
//! from the planned start ("coordinated omission", Gil Tene) beside the service time.
//!
//! The client never retries. Whatever does not end in a complete answer below 400 is a
//! failure with a cause, and is kept. That makes a run the proof, or the refutation, of "no
//! request is lost".
//!
//! ```no_run
//! use fairway_load::{Kind, Plan, Share, Until, start};
//! let mut plan = Plan::new("127.0.0.1:8080".parse().unwrap());
//! plan.rate_per_s = 300.0;
//! plan.until = Until::Stopped;
//! plan.mix = vec![
//!     Share::new(Kind::KeepAliveGet, 2, "/"),
//!     Share::new(Kind::FreshPost, 1, "/api/orders"),
//! ];
//! let running = start(plan).unwrap();
//! running.mark("deploy v2");
//! // … deploy …
//! let report = running.stop();
//! assert!(report.verdict.passed, "{:?}", report.verdict.reasons);
//! ```
//!
//! Linux only: start times come from a timerfd, because tokio's own timer rounds up to a
//! millisecond, which is several times the latency of a good answer on loopback.

mod channel;
mod connection;
mod failure;
mod kind;
mod multiplexed;
mod plan;
mod record;
mod report;
mod response;
mod run;
mod stream;
mod timer;
mod wire;

pub use failure::{Cause, Failure, FailureClass, Phase};
pub use kind::Kind;
pub use plan::{Body, Plan, PlanError, Share, Until};
pub use report::{ActReport, KindReport, Report, Spread, Tally, Verdict, VersionSeen};
pub use run::{Running, Snapshot, StartError, start};
pub use stream::{StreamBreak, StreamKind, StreamPlan, StreamReport, StreamTally, Streams, start_streams};
pub use wire::Tls;
