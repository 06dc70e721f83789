//! The hold queue (rule 10).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Relay;
use super::plan::Plan;
use crate::control::Cause;
use crate::limits::HOLD_LOOK;
use crate::table::ServiceTable;

/// A place in a service's hold queue.
pub(super) struct Held {
    pub(super) places: Arc<AtomicU32>,
    pub(super) since: Instant,
}

impl Held {
    fn begin(service: &ServiceTable) -> Option<Self> {
        let places = Arc::clone(&service.held);
        if places.fetch_add(1, Ordering::AcqRel) >= service.hold.max_requests {
            places.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self { places, since: Instant::now() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Relay<'_> {
    /// Rule 10: waits for something to change. `Err` when that takes too long or too many wait already.
    pub(super) async fn hold(&self, plan: &Plan, held: &mut Option<Held>) -> Result<(), Cause> {
        let service = plan.service();
        let waiting = match held {
            Some(waiting) => waiting,
            none => none.insert(Held::begin(service).ok_or(Cause::HoldFull)?),
        };
        let changed = self.conn.worker.shared.changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        // A swap between the choice and this line has notified before we listened.
        if !self.conn.worker.is_current(&plan.routing) {
            return Ok(());
        }
        let left = Duration::from_millis(service.hold.max_wait_ms).saturating_sub(waiting.since.elapsed());
        if left.is_zero() {
            return Err(Cause::NoInstance);
        }
        let _ = tokio::time::timeout(left.min(HOLD_LOOK), changed).await;
        Ok(())
    }
}
