//! The one clock of the control plane.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fairway_engine::time::Timestamp;

/// Wall time at the start, carried on by the monotonic clock: while the server runs, a clock that is set by hand or
/// by NTP moves no deadline. It never reads earlier than the last event on the record.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    at_start: Timestamp,
    started: Instant,
}

impl Clock {
    #[must_use]
    pub fn start(not_before: Timestamp) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        Self { at_start: wall.max(not_before), started: Instant::now() }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at_start + self.started.elapsed()
    }

    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.at_start
    }
}
