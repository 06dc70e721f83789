//! Requests that wait until another one of their version ends, because its instances have as many as they may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// Of one version, over all cores and snapshots. How many may wait is the hold queue's to say.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: AtomicU32,
    freed: Notify,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Place(Arc::clone(self))
    }

    /// There may be room for one more.
    pub(crate) fn wake(&self) {
        self.freed.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.freed.notified().await;
    }
}

/// Of one request, in the queue.
#[derive(Debug)]
pub(crate) struct Place(Arc<Queue>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        // It may have been woken in vain, as one that has waited for too long.
        self.0.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_leaves_wakes_the_next() {
        let queue = Arc::new(Queue::default());
        let (first, second) = (queue.enter(), queue.enter());
        drop(first);
        queue.woken().await;
        assert!(!queue.is_empty());
        drop(second);
        assert!(queue.is_empty());
    }
}
