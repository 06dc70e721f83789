//! The hold queue (rule 10).

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Relay;
use super::plan::Plan;
use crate::conn::exchange::WATCHED_AFTER;
use crate::conn::request_buffer::RequestBuffer;
use crate::control::Cause;
use crate::limits::HOLD_LOOK;
use crate::queue::Place;
use crate::stream::Peeked;
use crate::table::ServiceTable;

/// A place in a service's hold queue.
pub(super) struct Held {
    pub(super) places: Arc<AtomicU32>,
    pub(super) since: Instant,
    /// Behind the breaker.
    queued: Option<Place>,
}

impl Held {
    fn begin(service: &ServiceTable) -> Option<Self> {
        let places = Arc::clone(&service.held);
        if places.fetch_add(1, Ordering::AcqRel) >= service.hold.max_requests {
            places.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self { places, since: Instant::now(), queued: None })
    }
}

impl Held {
    pub(super) fn is_queued(&self) -> bool {
        self.queued.is_some()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a held request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Instance,
    /// That a request ends.
    Room,
}

impl Relay<'_> {
    /// Rule 10: waits for something to change. `Err` when that takes too long, also for the client, or too many wait
    /// already.
    pub(super) async fn hold(
        &self,
        request: &RequestBuffer,
        plan: &Plan,
        held: &mut Option<Held>,
        what: For,
    ) -> Result<(), Cause> {
        let service = plan.service();
        let (over, full) = match what {
            For::Instance => (Cause::NoInstance, Cause::HoldFull),
            For::Room => (Cause::Breaker, Cause::Breaker),
        };
        let waiting = match held {
            Some(waiting) => waiting,
            none => none.insert(Held::begin(service).ok_or(full)?),
        };
        let queue = &service.versions[plan.choice.version].queue;
        if what == For::Room {
            waiting.queued.get_or_insert_with(|| queue.enter());
        }
        let changed = self.conn.worker.shared.changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        // A swap between the choice and this line has notified before we listened.
        if !self.conn.worker.is_current(&plan.routing) {
            return Ok(());
        }
        let left = Duration::from_millis(service.hold.max_wait_ms).saturating_sub(waiting.since.elapsed());
        if left.is_zero() {
            return Err(over);
        }
        let freed = async {
            match what {
                For::Instance => pending().await,
                For::Room => queue.woken().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(left.min(HOLD_LOOK)) => {}
            () = changed => {}
            () = freed => {}
            () = self.left(request) => return Err(over),
        }
        Ok(())
    }

    /// Ready when the client is seen to have left; it is looked for after a second, as while an instance answers. Then the
    /// request has waited for long enough, whatever its method: its client takes it for lost and may ask again, and a
    /// service that comes back would first do the work of all who have gone.
    async fn left(&self, request: &RequestBuffer) {
        let is_early = self.report.started.elapsed() < WATCHED_AFTER;
        // What an instance may have done by half is to be completed.
        let is_begun = self.report.attempts > 0 && !self.known.facts.is_safe;
        if is_early || is_begun {
            return pending().await;
        }
        let is_left = match poll_fn(|cx| self.conn.stream.poll_peek(cx)).await {
            Peeked::Bytes => false,
            // An end behind the next request is not this one's.
            Peeked::End => !request.body_is_complete() || request.rest().is_empty(),
            Peeked::Broken => true,
        };
        // An exchange for a client of HTTP/2 ends with it, whoever else waits.
        let is_for_others = self.conn.stream.as_pipe().is_none() && self.is_awaited();
        if !is_left || is_for_others {
            // The next look finds out anew.
            pending().await
        }
    }
}
