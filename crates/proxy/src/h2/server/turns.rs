//! Streams of one connection take turns: a connection that has a hundred of them is to others no more than a few that
//! have one each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// Streams that go on before other connections do. With each of them taking some ten microseconds, ten connections that
/// have a hundred streams to move at once hold up others for a fifth of a millisecond, and not for ten. With four the p99
/// of others was 2.7 ms in such an attack, and is 1.5; one alone would have every answer written out by itself.
const AT_ONCE: usize = 2;

/// Of one connection.
#[derive(Debug)]
pub(super) struct Turns {
    at_once: Cell<usize>,
    /// Streams that went on, or were called, since the last renewal.
    used: Cell<usize>,
    waiting: RefCell<VecDeque<(Rc<Cell<Place>>, Waker)>>,
    /// The connection's own task, which renews.
    connection: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    Waiting,
    /// Its turn is kept for it.
    Called,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            at_once: Cell::new(AT_ONCE),
            used: Cell::new(0),
            waiting: RefCell::default(),
            connection: RefCell::default(),
        }
    }
}

impl Turns {
    /// A stream that goes on when its turn comes.
    pub(super) fn take<F: Future<Output = ()>>(
        turns: &Rc<Self>,
        stream: F,
    ) -> impl Future<Output = ()> + use<F> {
        let (turns, place) = (Rc::clone(turns), Rc::new(Cell::new(Place::Free)));
        let mut stream = Box::pin(stream);
        poll_fn(move |cx| {
            ready!(turns.poll(cx, &place));
            stream.as_mut().poll(cx)
        })
    }

    fn poll(&self, cx: &Context<'_>, place: &Rc<Cell<Place>>) -> Poll<()> {
        match place.get() {
            Place::Called => {
                place.set(Place::Free);
                Poll::Ready(())
            }
            // Woken by something else.
            Place::Waiting => Poll::Pending,
            Place::Free if self.used.get() < self.at_once.get() => {
                self.used.set(self.used.get() + 1);
                Poll::Ready(())
            }
            Place::Free => {
                place.set(Place::Waiting);
                self.waiting.borrow_mut().push_back((Rc::clone(place), cx.waker().clone()));
                if let Some(connection) = self.connection.borrow_mut().take() {
                    connection.wake();
                }
                Poll::Pending
            }
        }
    }

    /// Calls those who have waited for longest. To be done whenever the connection's task has its turn.
    pub(super) fn renew(&self, cx: &Context<'_>) {
        let called = self.call(AT_ONCE);
        self.used.set(called);
        if self.waiting.borrow().is_empty() {
            *self.connection.borrow_mut() = Some(cx.waker().clone());
        } else {
            cx.waker().wake_by_ref();
        }
    }

    fn call(&self, at_most: usize) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        let many = at_most.min(waiting.len());
        for (place, waker) in waiting.drain(..many) {
            place.set(Place::Called);
            waker.wake();
        }
        many
    }
}

/// Held by the connection.
#[derive(Debug, Default)]
pub(super) struct Order(pub(super) Rc<Turns>);

impl Drop for Order {
    /// Nobody renews any more: what is left of the streams ends without order.
    fn drop(&mut self) {
        self.0.at_once.set(usize::MAX);
        self.0.call(usize::MAX);
        self.0.connection.borrow_mut().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// How often a task was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn waker() -> (Arc<Self>, Waker) {
            let woken = Arc::new(Self::default());
            (Arc::clone(&woken), Waker::from(woken))
        }
    }

    #[test]
    fn streams_go_on_a_few_at_a_time_and_those_that_waited_first() {
        let order = Order::default();
        let (connection, waker) = Woken::waker();
        let cx = Context::from_waker(&waker);
        order.0.renew(&cx);
        let ran = Rc::new(RefCell::new(Vec::new()));
        let mut streams: Vec<_> = (0..5)
            .map(|number| {
                let ran = Rc::clone(&ran);
                let stream = poll_fn(move |_| {
                    ran.borrow_mut().push(number);
                    Poll::Pending
                });
                (Box::pin(Turns::take(&order.0, stream)), Woken::waker())
            })
            .collect();
        let mut poll = |number: usize| {
            let (stream, (_, waker)) = &mut streams[number];
            assert!(stream.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        };
        (0..5).for_each(&mut poll);
        assert_eq!(*ran.borrow(), (0..2).collect::<Vec<_>>());
        assert_eq!(connection.0.load(Ordering::Relaxed), 1, "the first that waits wakes the connection");
        // Who goes on again before the others had their turn waits behind them.
        poll(0);
        order.0.renew(&cx);
        assert_eq!(connection.0.load(Ordering::Relaxed), 2, "some wait still");
        (0..5).for_each(&mut poll);
        assert_eq!(ran.borrow()[2..], (2..4).collect::<Vec<_>>());
        order.0.renew(&cx);
        (0..5).for_each(&mut poll);
        assert_eq!(ran.borrow()[4..], [0, 4], "those that had waited for longest");
        // The connection ends: nobody waits any more.
        drop(order);
        ran.borrow_mut().clear();
        for _ in 0..3 {
            (0..5).for_each(&mut poll);
        }
        assert_eq!(ran.borrow().len(), 15);
    }
}
