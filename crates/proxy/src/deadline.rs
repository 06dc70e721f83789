//! One coarse deadline per connection, looked at by one timer per core, which rests while nothing happens.
//!
//! A timer per request costs a wheel insertion and removal each; setting a number costs nothing.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::limits::TICK;

/// Milliseconds since the core started, as of its last look. It stands while nothing happens, so that an idle core
/// sleeps; whoever asks for the time wakes it.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    now_ms: Cell<u64>,
    pace: Cell<Pace>,
    woken: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Nobody asked for the time since the last look: the next is when something is due.
    Asleep,
    Awake {
        look_ms: u64,
    },
}

impl Clock {
    fn now_ms(&self) -> u64 {
        match self.pace.get() {
            Pace::Awake { .. } => self.now_ms.get(),
            Pace::Asleep => {
                let now = self.read();
                self.pace.set(Pace::Awake { look_ms: now.saturating_add(millis(TICK)) });
                self.woken.notify_one();
                now
            }
        }
    }

    fn read(&self) -> u64 {
        let now = millis(self.start.elapsed());
        self.now_ms.set(now);
        now
    }

    async fn until(&self, at_ms: u64) {
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(millis(self.start.elapsed())))).await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}

/// What a connection is doing, as far as a drain or the want of room is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No request has begun.
    Idle,
    /// It is being secured, or the head of a request is on its way: nobody works for it yet.
    Arriving,
    Exchange,
    /// A connection of HTTP/2, whose streams have deadlines of their own: it is told at once.
    Multiplexed,
    /// An upgraded connection or an event stream; the number is that of the endpoint.
    Stream {
        endpoint: u64,
        drain_ms: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Deadline {
    clock: Rc<Clock>,
    at_ms: Cell<u64>,
    due: Cell<Due>,
    /// Streams have an end that progress does not move: set when their instance is removed.
    hard_ms: Cell<u64>,
    /// When the task is woken although nothing is due; [`NEVER`] if it was, or did not ask for that.
    reminder_ms: Cell<u64>,
    phase: Cell<Phase>,
    /// When it began.
    since_ms: Cell<u64>,
    /// Which listener the connection came in by.
    listener: u64,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Later,
    Passed,
    /// It made room for another connection.
    Displaced,
}

/// What a look at all deadlines found, in the clock's milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub now_ms: u64,
    /// When something is due.
    pub next_ms: u64,
}

/// The deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed;

const NEVER: u64 = u64::MAX;

impl Deadline {
    fn come(&self, due: Due) {
        self.due.set(due);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(crate) fn arm(&self, after: Duration) {
        self.arm_ms(millis(after));
    }

    pub(crate) fn arm_ms(&self, after_ms: u64) {
        let at = self.clock.now_ms().saturating_add(after_ms);
        self.at_ms.set(at.min(self.hard_ms.get()));
        self.due.set(Due::Later);
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since_ms.set(self.clock.now_ms());
        self.hard_ms.set(NEVER);
    }

    /// Brings the deadline forward, for good.
    pub(crate) fn cap_ms(&self, after_ms: u64) {
        let at = self.clock.now_ms().saturating_add(after_ms);
        self.hard_ms.set(at.min(self.hard_ms.get()));
        self.at_ms.set(at.min(self.at_ms.get()));
    }

    /// Asks for one waking after so long, wherever the deadline is by then and whatever moves it. `Duration::MAX`: for none.
    pub(crate) fn remind(&self, after: Duration) {
        self.reminder_ms.set(self.clock.now_ms().saturating_add(millis(after)));
    }

    /// Whether no waking is to come that was asked for.
    pub(crate) fn is_reminded(&self) -> bool {
        self.reminder_ms.get() == NEVER
    }

    /// Whether a drain has set an end that progress does not move.
    pub(crate) fn is_capped(&self) -> bool {
        self.hard_ms.get() != NEVER
    }

    /// Whether the connection is to go because others need its room.
    pub(crate) fn is_displaced(&self) -> bool {
        self.due.get() == Due::Displaced
    }

    /// Whether it passed; otherwise the task is woken when it does.
    pub(crate) fn poll_passed(&self, cx: &Context<'_>) -> Poll<Passed> {
        if self.due.get() != Due::Later {
            return Poll::Ready(Passed);
        }
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            Some(_) | None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Runs `future` until it is ready or the deadline passes.
    pub(crate) async fn within<F: Future>(&self, future: F) -> Result<F::Output, Passed> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_passed(cx).map(Err),
        })
        .await
    }
}

/// All deadlines of one core.
#[derive(Debug)]
pub(crate) struct Deadlines {
    clock: Rc<Clock>,
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    used: Vec<Option<Rc<Deadline>>>,
    free: Vec<usize>,
}

/// Keeps a deadline in the list.
#[derive(Debug)]
pub(crate) struct Registered {
    list: Rc<Deadlines>,
    slot: usize,
    deadline: Rc<Deadline>,
}

impl std::ops::Deref for Registered {
    type Target = Deadline;
    fn deref(&self) -> &Deadline {
        &self.deadline
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // The count of open connections changes: there is something to look at.
        self.list.clock.now_ms();
        let mut slots = self.list.slots.borrow_mut();
        slots.used[self.slot] = None;
        slots.free.push(self.slot);
    }
}

impl Deadlines {
    pub(crate) fn new() -> Rc<Self> {
        let clock = Clock {
            start: Instant::now(),
            now_ms: Cell::new(0),
            pace: Cell::new(Pace::Asleep),
            woken: Notify::new(),
        };
        let clock = Rc::new(clock);
        Rc::new(Self { clock, slots: RefCell::default() })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn register(self: &Rc<Self>, listener: u64) -> Registered {
        let since_ms = Cell::new(self.clock.now_ms());
        let deadline = Rc::new(Deadline {
            clock: Rc::clone(&self.clock),
            at_ms: Cell::new(NEVER),
            due: Cell::new(Due::Later),
            hard_ms: Cell::new(NEVER),
            reminder_ms: Cell::new(NEVER),
            phase: Cell::new(Phase::Idle),
            since_ms,
            listener,
            waker: RefCell::new(None),
        });
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or(slots.used.len());
        if slot == slots.used.len() {
            slots.used.push(None);
        }
        slots.used[slot] = Some(Rc::clone(&deadline));
        Registered { list: Rc::clone(self), slot, deadline }
    }

    /// Registered deadlines, which is open connections.
    pub(crate) fn len(&self) -> usize {
        let slots = self.slots.borrow();
        slots.used.len() - slots.free.len()
    }

    /// Advances the clock and wakes whoever is late. Returns the time and when the next deadline is.
    pub(crate) fn look(&self) -> Look {
        let now = self.clock.read();
        self.clock.pace.set(Pace::Asleep);
        let mut next_ms = NEVER;
        for deadline in self.slots.borrow().used.iter().flatten() {
            if deadline.due.get() != Due::Later {
                continue;
            }
            if deadline.at_ms.get() <= now {
                deadline.come(Due::Passed);
                continue;
            }
            if deadline.reminder_ms.get() <= now {
                deadline.reminder_ms.set(NEVER);
                deadline.wake();
            }
            next_ms = next_ms.min(deadline.at_ms.get()).min(deadline.reminder_ms.get());
        }
        Look { now_ms: now, next_ms }
    }

    /// Sends away those for whom nobody works, the ones that have been like that for longest first, until `room` are
    /// free of `all`. Those that were told and have not gone yet count as gone. Of connections of HTTP/2 it is not known
    /// here whether they have streams: they come last, and those that have some are only asked whether they are there.
    pub(crate) fn make_room(&self, room: usize, all: usize) {
        let slots = self.slots.borrow();
        let open = slots.used.len() - slots.free.len();
        let mut waiting: Vec<(bool, u64, &Rc<Deadline>)> = Vec::new();
        let mut going = 0;
        for deadline in slots.used.iter().flatten() {
            match (deadline.due.get(), deadline.phase.get()) {
                (Due::Displaced, _) => going += 1,
                (Due::Later, phase @ (Phase::Idle | Phase::Arriving | Phase::Multiplexed)) => {
                    waiting.push((phase == Phase::Multiplexed, deadline.since_ms.get(), deadline));
                }
                (Due::Later | Due::Passed, _) => {}
            }
        }
        let wanted = (open + room).saturating_sub(all + going).min(waiting.len());
        if wanted == 0 {
            return;
        }
        let (first, last, _) =
            waiting.select_nth_unstable_by_key(wanted - 1, |(is_http2, since, _)| (*is_http2, *since));
        for (_, _, deadline) in first.iter().chain([&*last]) {
            deadline.come(Due::Displaced);
        }
    }

    /// Waits until it is time for the next look: when something is due, which is at `next_ms`, and soon after
    /// somebody asked for the time, which everything does that happens to a connection.
    pub(crate) async fn until_look(&self, next_ms: u64) {
        let clock = &self.clock;
        while clock.pace.get() == Pace::Asleep {
            tokio::select! {
                () = clock.until(next_ms) => return,
                // May tell of an earlier waking.
                () = clock.woken.notified() => {}
            }
        }
        if let Pace::Awake { look_ms } = clock.pace.get() {
            clock.until(look_ms).await;
        }
    }

    /// A drain of one listener or of all began: idle connections get until `idle`, and streams their own drain
    /// time.
    pub(crate) fn drain(&self, idle: Duration, listener: Option<u64>) {
        for deadline in self.slots.borrow().used.iter().flatten() {
            if listener.is_some_and(|listener| listener != deadline.listener) {
                continue;
            }
            match deadline.phase.get() {
                Phase::Idle => deadline.cap_ms(millis(idle)),
                Phase::Arriving | Phase::Exchange => {}
                Phase::Multiplexed => deadline.cap_ms(0),
                Phase::Stream { drain_ms, .. } => deadline.cap_ms(drain_ms),
            }
        }
    }

    /// Instances were removed: streams on them get their drain time.
    pub(crate) fn drain_streams(&self, is_removed: impl Fn(u64) -> bool) {
        for deadline in self.slots.borrow().used.iter().flatten() {
            if let Phase::Stream { endpoint, drain_ms } = deadline.phase.get()
                && is_removed(endpoint)
                && deadline.hard_ms.get() == NEVER
            {
                deadline.cap_ms(drain_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_outlives_progress() {
        let list = Deadlines::new();
        let deadline = list.register(1);
        deadline.enter(Phase::Stream { endpoint: 7, drain_ms: 0 });
        deadline.arm(Duration::from_secs(60));
        list.drain_streams(|endpoint| endpoint == 7);
        deadline.arm(Duration::from_secs(60));
        list.look();
        assert_eq!(deadline.due.get(), Due::Passed, "bytes on the stream moved the end of its drain");
        assert_eq!(list.len(), 1);
        drop(deadline);
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn a_reminder_comes_once_and_moves_no_deadline() {
        let list = Deadlines::new();
        let deadline = list.register(1);
        deadline.enter(Phase::Stream { endpoint: 7, drain_ms: 60_000 });
        deadline.arm(LONG);
        deadline.remind(Duration::from_secs(5));
        let cx = Context::from_waker(Waker::noop());
        assert!(deadline.poll_passed(&cx).is_pending());
        let due = deadline.at_ms.get();
        assert_eq!(list.look().next_ms, deadline.reminder_ms.get(), "a core that sleeps wakes for it");
        // What goes on meanwhile puts off the deadline, and the reminder not.
        deadline.arm(LONG);
        list.drain_streams(|endpoint| endpoint == 7);
        assert!(!deadline.is_reminded());
        deadline.remind(Duration::ZERO);
        assert!(list.look().next_ms >= due, "neither due nor to come again");
        assert!(deadline.is_reminded() && deadline.waker.borrow().is_none(), "nobody was woken");
        assert!(deadline.poll_passed(&cx).is_pending());
        assert!(deadline.is_capped());
    }

    #[test]
    fn exchanges_are_not_cut_by_a_drain() {
        let list = Deadlines::new();
        let (idle, busy) = (list.register(1), list.register(1));
        idle.arm(Duration::from_secs(60));
        busy.enter(Phase::Exchange);
        busy.arm(Duration::from_secs(60));
        list.drain(Duration::ZERO, None);
        list.look();
        assert_eq!((idle.due.get(), busy.due.get()), (Due::Passed, Due::Later));
    }

    fn displaced(of: &[&Registered]) -> Vec<bool> {
        of.iter().map(|one| one.is_displaced()).collect()
    }

    #[test]
    fn room_is_made_by_those_who_wait_for_longest_and_never_by_those_at_work() {
        let list = Deadlines::new();
        let all: [Registered; 5] = std::array::from_fn(|_| list.register(1));
        let [busy, http2, old, young, arriving] = &all;
        for (one, phase, since) in [
            (busy, Phase::Exchange, 0),
            (http2, Phase::Multiplexed, 0),
            (old, Phase::Idle, 1),
            (young, Phase::Idle, 3),
            (arriving, Phase::Arriving, 2),
        ] {
            one.enter(phase);
            one.since_ms.set(since);
        }
        let seen = || displaced(&[busy, http2, old, young, arriving]);
        list.make_room(1, 6);
        assert_eq!(seen(), [false; 5], "there was room");
        list.make_room(1, 5);
        assert_eq!(seen(), [false, false, true, false, false]);
        list.make_room(1, 5);
        assert_eq!(seen(), [false, false, true, false, false], "the one that goes counts as gone");
        list.make_room(3, 5);
        assert_eq!(seen(), [false, false, true, true, true]);
        list.make_room(5, 5);
        assert_eq!(seen(), [false, true, true, true, true]);
        // It began to do something in that moment.
        old.enter(Phase::Exchange);
        old.arm(LONG);
        assert!(!old.is_displaced());
    }

    fn looks_in(list: &Rc<Deadlines>, next_ms: u64, wait: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(wait, list.until_look(next_ms)).await.is_ok() })
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_quiet_core_sleeps_until_something_is_due() {
        let list = Deadlines::new();
        let deadline = list.register(1);
        deadline.arm(LONG);
        assert!(looks_in(&list, NEVER, LONG / 2), "a connection came and nobody looked");
        let look = list.look();
        assert_eq!(look.next_ms, deadline.at_ms.get());
        assert!(!looks_in(&list, look.next_ms, TICK * 3), "it looked again although nothing happened");
        assert!(looks_in(&list, look.now_ms, LONG / 2), "something was due");
        drop(deadline);
        assert!(looks_in(&list, look.next_ms, LONG / 2), "a connection ended and nobody looked");
    }

    #[test]
    fn a_deadline_after_a_sleep_counts_from_now() {
        let list = Deadlines::new();
        assert!(!looks_in(&list, NEVER, TICK * 2));
        let deadline = list.register(1);
        deadline.arm(TICK);
        assert!(deadline.at_ms.get() >= millis(TICK * 3), "the deadline was counted from before the sleep");
    }

    #[test]
    fn what_is_armed_before_an_interruption_is_looked_at_in_time() {
        let list = Deadlines::new();
        let look = list.look();
        list.register(1).arm(TICK);
        assert!(!looks_in(&list, look.next_ms, Duration::ZERO), "interrupted while it waited for the tick");
        assert!(looks_in(&list, look.next_ms, LONG), "the sleep went on as if nothing had been armed");
    }
}
