//! Answers on their way: whoever asks for the same waits for it instead of asking too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::key::Key;

/// One per request that leads, so that there are never more than requests.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Arc<Flight>>>);

#[derive(Debug, Default)]
pub(crate) struct Flight {
    over: AtomicBool,
    ended: Notify,
}

impl Flight {
    /// Returns when the answer is kept, or is known not to be.
    pub(crate) async fn ended(&self) {
        let mut ended = std::pin::pin!(self.ended.notified());
        ended.as_mut().enable();
        // Whoever ended it before we listened has said so.
        if !self.over.load(Ordering::Acquire) {
            ended.await;
        }
    }
}

/// Being the one who asks the service. Its end, however it comes, lets the others go on.
#[derive(Debug)]
pub(crate) struct Lead {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
}

/// Who asks the service.
#[derive(Debug)]
pub(crate) enum Turn {
    Lead(Lead),
    Wait(Arc<Flight>),
}

impl Flights {
    pub(super) fn turn(self: &Arc<Self>, key: &Key) -> Turn {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return Turn::Wait(Arc::clone(flight));
        }
        let flight = Arc::<Flight>::default();
        flights.insert(Arc::clone(key), Arc::clone(&flight));
        Turn::Lead(Lead { flights: Arc::clone(self), key: Arc::clone(key), flight })
    }
}

impl Lead {
    pub(crate) fn is_awaited(&self) -> bool {
        // Ours and the table's.
        Arc::strong_count(&self.flight) > 2
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.flight.over.store(true, Ordering::Release);
        self.flight.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_leads_and_whoever_waits_learns_of_its_end() {
        let flights = Arc::<Flights>::default();
        let key: Key = b"k"[..].into();
        let Turn::Lead(lead) = flights.turn(&key) else { panic!("nobody else asks") };
        assert!(!lead.is_awaited());
        let Turn::Wait(early) = flights.turn(&key) else { panic!("somebody leads") };
        let Turn::Wait(late) = flights.turn(&key) else { panic!("somebody leads") };
        assert!(lead.is_awaited());
        let waiting = tokio::spawn(async move { early.ended().await });
        tokio::task::yield_now().await;
        drop(lead);
        waiting.await.unwrap();
        late.ended().await;
        assert!(matches!(flights.turn(&key), Turn::Lead(_)));
    }
}
