//! An instance as all cores see it: in-flight counts, health, passive signals.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::queue::Queue;
use crate::snapshot::Eject;

/// A number that one core writes and others read. Written without a locked instruction, because there is one writer; it
/// belongs in memory that only this core writes, see [`Apart`].
#[derive(Debug, Default)]
pub(crate) struct CoreCounter(AtomicU64);

/// On cache lines of its own, two of which are fetched together: cores do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub T);

impl CoreCounter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    pub(crate) fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What active checks found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Checks are configured, and the first has not ended: no traffic yet.
    Unchecked,
    Healthy,
    Unhealthy,
}

impl Health {
    fn code(self) -> u8 {
        match self {
            Self::Unchecked => 0,
            Self::Healthy => 1,
            Self::Unhealthy => 2,
        }
    }

    fn of(code: u8) -> Self {
        match code {
            0 => Self::Unchecked,
            1 => Self::Healthy,
            _ => Self::Unhealthy,
        }
    }
}

/// One kind of passive signal. Each ejects by itself, and only what speaks against it ends what it caused: that an
/// instance accepts connections says nothing about its answers.
#[derive(Debug, Default)]
struct Signal {
    /// Failures in a row.
    failures: AtomicU32,
    /// Milliseconds after `epoch` until which it keeps traffic away.
    ejected_until_ms: AtomicU64,
}

impl Signal {
    /// Counts one more; says how many there are.
    fn fail(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Read before it is written: on the way of every request, and shared by all cores.
    fn forget_failures(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        if self.ejected_until_ms.load(Ordering::Relaxed) != 0 {
            self.ejected_until_ms.store(0, Ordering::Relaxed);
        }
    }

    fn ejects_at(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let until = self.ejected_until_ms.load(Ordering::Relaxed);
        until != 0 && until > now_ms()
    }
}

/// Shared by every table that names the instance, so that counts and health outlive a swap.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Unique in the process; a removed instance that comes back is another endpoint.
    pub uid: u64,
    pub id: String,
    pub addr: SocketAddr,
    in_flight: Box<[Apart<CoreCounter>]>,
    health: AtomicU8,
    /// Connections in a row that failed.
    connects: Signal,
    /// Answers in a row that failed.
    answers: Signal,
    /// Times in a row that it was left alone without a good answer in between.
    ejections: AtomicU32,
    epoch: Instant,
}

impl Endpoint {
    pub(crate) fn new(uid: u64, id: String, addr: SocketAddr, cores: usize, health: Health) -> Self {
        Self {
            uid,
            id,
            addr,
            in_flight: (0..cores).map(|_| Apart::default()).collect(),
            health: AtomicU8::new(health.code()),
            connects: Signal::default(),
            answers: Signal::default(),
            ejections: AtomicU32::new(0),
            epoch: Instant::now(),
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.iter().map(|on_core| on_core.0.get()).fold(0, u64::wrapping_add)
    }

    pub(crate) fn in_flight_on(&self, core: usize) -> u64 {
        self.in_flight[core].0.get()
    }

    pub(crate) fn health(&self) -> Health {
        Health::of(self.health.load(Ordering::Acquire))
    }

    pub(crate) fn set_health(&self, health: Health) {
        self.health.store(health.code(), Ordering::Release);
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.connects.ejects_at(|| self.age_ms()) || self.answers.ejects_at(|| self.age_ms())
    }

    /// Healthy, and no recent failures.
    pub(crate) fn is_fit(&self) -> bool {
        self.health() == Health::Healthy && !self.is_ejected()
    }

    /// A new connection was made.
    pub(crate) fn connected(&self) {
        self.connects.forget_failures();
        self.connects.end();
    }

    /// A connection failed. `others_fit`: whether another instance of the version can take over; the last one
    /// is never ejected.
    pub(crate) fn failed(&self, eject: &Eject, others_fit: impl FnOnce() -> bool) {
        if self.connects.fail() >= eject.connects && others_fit() {
            self.eject(&self.connects, eject);
        }
    }

    /// An answer of the instance; failed ones of 500 and above, or none at all. `others_fit`: as in [`Self::failed`].
    pub(crate) fn answered(&self, failed: bool, eject: &Eject, others_fit: impl FnOnce() -> bool) {
        if !failed {
            self.answers.forget_failures();
            if self.ejections.load(Ordering::Relaxed) != 0 && !self.is_ejected() {
                self.ejections.store(0, Ordering::Relaxed);
            }
        } else if eject.failures > 0 && self.answers.fail() >= eject.failures && others_fit() {
            self.answers.forget_failures();
            self.eject(&self.answers, eject);
        }
    }

    /// Each time in a row for twice as long: an instance that fails whenever it is tried is tried ever less.
    fn eject(&self, by: &Signal, eject: &Eject) {
        if self.is_ejected() {
            return;
        }
        let before = self.ejections.fetch_add(1, Ordering::Relaxed).min(32);
        let lasts_ms = eject.first_ms.saturating_mul(1 << before).min(eject.longest_ms.max(eject.first_ms));
        by.ejected_until_ms.store(self.age_ms().saturating_add(lasts_ms), Ordering::Relaxed);
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One request in flight on an endpoint, counted from the choice to the last byte.
#[derive(Debug)]
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
    core: usize,
    /// Those who wait until there is room for one more.
    wakes: Option<Arc<Queue>>,
}

impl InFlight {
    pub(crate) fn begin(endpoint: &Arc<Endpoint>, core: usize, wakes: Option<&Arc<Queue>>) -> Self {
        endpoint.in_flight[core].0.add(1);
        Self { endpoint: Arc::clone(endpoint), core, wakes: wakes.cloned() }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight[self.core].0.subtract(1);
        if let Some(wakes) = &self.wakes {
            wakes.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new(1, "a".into(), ([127, 0, 0, 1], 1).into(), 2, Health::Healthy))
    }

    #[test]
    fn the_last_instance_is_never_ejected() {
        let (last, eject) = (endpoint(), Eject { failures: 2, ..Eject::default() });
        for _ in 0..100 {
            last.failed(&eject, || false);
            last.answered(true, &eject, || false);
        }
        assert!(last.is_fit());
        last.failed(&eject, || true);
        assert!(!last.is_fit());
        last.connected();
        assert!(last.is_fit());
    }

    #[test]
    fn answers_eject_only_in_a_row_and_only_where_they_may() {
        let eject = Eject { failures: 3, ..Eject::default() };
        let one = endpoint();
        for failed in [true, true, false, true, true] {
            one.answered(failed, &eject, || true);
        }
        assert!(one.is_fit());
        one.answered(true, &eject, || true);
        assert!(!one.is_fit());
        let other = endpoint();
        (0..10).for_each(|_| other.answered(true, &Eject::default(), || true));
        assert!(other.is_fit(), "what a service answers is its own business unless it says otherwise");
    }

    #[test]
    fn each_ejection_in_a_row_is_twice_as_long_up_to_a_bound() {
        let eject = Eject { failures: 1, first_ms: 1_000, longest_ms: 5_000, ..Eject::default() };
        let one = endpoint();
        let lasts = || {
            one.answers.ejected_until_ms.store(0, Ordering::Relaxed);
            one.answered(true, &eject, || true);
            one.answers.ejected_until_ms.load(Ordering::Relaxed) / 1_000
        };
        assert_eq!([lasts(), lasts(), lasts(), lasts(), lasts()], [1, 2, 4, 5, 5]);
        one.answers.ejected_until_ms.store(0, Ordering::Relaxed);
        one.answered(false, &eject, || true);
        one.answered(true, &eject, || true);
        assert_eq!(one.answers.ejected_until_ms.load(Ordering::Relaxed) / 1_000, 1);
    }

    #[test]
    fn a_connection_does_not_end_an_ejection_that_answers_caused() {
        let eject = Eject { connects: 2, failures: 2, ..Eject::default() };
        let one = endpoint();
        // One failed connection in between: what is forgotten with it is it alone.
        one.failed(&eject, || true);
        (0..2).for_each(|_| one.answered(true, &eject, || true));
        assert!(one.is_ejected());
        one.connected();
        assert!(one.is_ejected(), "it accepts, and its answers are no better for it");
        let other = endpoint();
        (0..2).for_each(|_| other.failed(&eject, || true));
        other.answered(true, &eject, || true);
        assert!(other.is_ejected());
        other.connected();
        assert!(!other.is_ejected());
    }

    #[test]
    fn a_good_answer_ends_the_row_of_ejections_by_connections_too() {
        let eject = Eject { connects: 1, first_ms: 1_000, longest_ms: 60_000, ..Eject::default() };
        let one = endpoint();
        for _ in 0..5 {
            one.failed(&eject, || true);
            let until = one.connects.ejected_until_ms.load(Ordering::Relaxed);
            assert_eq!(until / 1_000, 1, "each is the first");
            one.connected();
            one.answered(false, &eject, || true);
        }
    }

    #[test]
    fn in_flight_is_summed_over_cores() {
        let endpoint = endpoint();
        let (a, b) = (InFlight::begin(&endpoint, 0, None), InFlight::begin(&endpoint, 1, None));
        assert_eq!(endpoint.in_flight(), 2);
        drop((a, b));
        assert_eq!(endpoint.in_flight(), 0);
    }
}
