//! All kept answers of a process, shared by its cores.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::flights::{Flights, Turn};
use super::key::{Key, Space, space_of, target_of};
use super::stored::Stored;
use crate::codec::RequestHead;
use crate::control::CacheStats;
use crate::policy::coding::Coding;

/// Answers under one address, each for other requests. Beyond it the oldest goes: a field of which every visitor has
/// another value would fill the cache with one page.
const VARIANTS_MAX: usize = 16;

/// Locks beside each other, so that cores rarely meet.
const STRIPES: usize = 64;

/// Parts that the memory is divided into. Each is large enough for the largest answer, and there are enough for cores
/// to rarely meet.
const SHARDS: usize = 8;

/// How long it is remembered that the answer for an address is not kept, so that requests for it do not wait for each
/// other in vain. Short, because the service may change its mind.
const PASS: Duration = Duration::from_secs(10);

/// What remembering that costs.
const PASS_BYTES: usize = 1024;

/// What is kept under one address.
#[derive(Debug, Clone)]
enum Slot {
    Answers(Arc<[Arc<Stored>]>),
    /// Answers are not kept.
    Pass {
        until: Instant,
    },
}

#[derive(Debug, Clone, Copy)]
struct Weigh;

impl Weighter<Key, Slot> for Weigh {
    fn weight(&self, key: &Key, slot: &Slot) -> u64 {
        let bytes = match slot {
            Slot::Answers(answers) => answers.iter().map(|stored| stored.bytes()).sum(),
            Slot::Pass { .. } => PASS_BYTES,
        };
        (key.len() + bytes) as u64
    }
}

type Slots = quick_cache::sync::Cache<Key, Slot, Weigh>;

#[derive(Debug)]
pub(crate) struct Cache {
    slots: Slots,
    /// Held while a slot is changed; the number counts what was invalidated. Never held across an await.
    stripes: Box<[Mutex<u64>]>,
    flights: Box<[Arc<Flights>]>,
    /// Bytes of answers that are being received.
    receiving: AtomicUsize,
    receiving_max: AtomicUsize,
    bytes_max: AtomicUsize,
    counts: [AtomicU64; 4],
}

/// What became of a request on a route that has a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Hit,
    Miss,
    Stale,
    Bypass,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
        }
    }
}

/// What is there for a request.
#[derive(Debug)]
pub(crate) enum Found {
    Stored(Arc<Stored>),
    /// Answers for other requests, at most.
    Nothing,
    /// An answer would not be kept.
    Pass,
}

/// What had been invalidated when a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let items = (bytes_max / 8192).max(SHARDS);
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(items)
            .weight_capacity(bytes_max as u64)
            .build()
            .expect("every number that the options need is given");
        Self {
            slots: Slots::with_options(
                options,
                Weigh,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            stripes: (0..STRIPES).map(|_| Mutex::new(0)).collect(),
            flights: (0..STRIPES).map(|_| Arc::default()).collect(),
            receiving: AtomicUsize::new(0),
            receiving_max: AtomicUsize::new(bytes_max / 4),
            bytes_max: AtomicUsize::new(bytes_max),
            counts: [const { AtomicU64::new(0) }; 4],
        }
    }

    pub(crate) fn find(&self, key: &Key, request: &RequestHead<'_, '_>, now: Instant) -> Found {
        match self.slots.get(key) {
            Some(Slot::Answers(answers)) => {
                // The newest comes first (RFC 9111, 4.1).
                match answers.iter().find(|stored| stored.vary.fits(request)) {
                    Some(stored) => Found::Stored(Arc::clone(stored)),
                    None => Found::Nothing,
                }
            }
            Some(Slot::Pass { until }) if now < until => Found::Pass,
            Some(Slot::Pass { .. }) | None => Found::Nothing,
        }
    }

    pub(crate) fn turn(&self, key: &Key) -> Turn {
        self.flights[stripe(key)].turn(key)
    }

    pub(crate) fn epoch(&self, key: &Key) -> Epoch {
        Epoch(*self.stripe(key))
    }

    /// Keeps an answer to a request that was sent at `epoch`; not if the address was invalidated since.
    pub(super) fn keep(&self, key: &Key, stored: Arc<Stored>, epoch: Epoch, now: Instant) -> bool {
        let stripe = self.stripe(key);
        if *stripe != epoch.0 {
            return false;
        }
        let mut answers = vec![Arc::clone(&stored)];
        if let Some(Slot::Answers(before)) = self.slots.peek(key) {
            let others = before.iter().filter(|other| other.vary != stored.vary && !other.is_over(now));
            answers.extend(others.take(VARIANTS_MAX - 1).cloned());
        }
        self.slots.insert(Arc::clone(key), Slot::Answers(answers.into()));
        true
    }

    /// Remembers that answers are not kept; what is kept for other requests stays.
    pub(super) fn pass(&self, key: &Key, now: Instant) {
        let _stripe = self.stripe(key);
        if !matches!(self.slots.peek(key), Some(Slot::Answers(_))) {
            self.slots.insert(Arc::clone(key), Slot::Pass { until: now + PASS });
        }
    }

    /// Puts the packed body beside the answer's own, if it is still kept.
    pub(crate) fn keep_packed(&self, key: &Key, stored: &Arc<Stored>, coding: Coding, bytes: Arc<[u8]>) {
        let _stripe = self.stripe(key);
        let Some(Slot::Answers(answers)) = self.slots.peek(key) else { return };
        if answers.iter().any(|known| Arc::ptr_eq(known, stored)) {
            let with = Arc::new(stored.with_packed(coding, bytes));
            let replaced = answers.iter().map(|known| match Arc::ptr_eq(known, stored) {
                true => Arc::clone(&with),
                false => Arc::clone(known),
            });
            self.slots.insert(Arc::clone(key), Slot::Answers(replaced.collect()));
        }
    }

    /// The resource changed: nothing that was asked before is given or kept any more.
    pub(crate) fn invalidate(&self, key: &Key) {
        let mut stripe = self.stripe(key);
        *stripe = stripe.wrapping_add(1);
        self.slots.remove(key);
    }

    /// Drops what is kept for these versions, below one of `paths` where there are any, and keeps nothing of it that is on
    /// its way. Counts what went.
    pub(crate) fn purge(&self, spaces: &BTreeSet<Space>, paths: &[String]) -> u64 {
        for stripe in &self.stripes {
            let mut stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            *stripe = stripe.wrapping_add(1);
        }
        let count = Cell::new(0);
        self.slots.retain(|key, slot| {
            let target = target_of(key);
            let is_below = |path: &String| is_below(target, path.as_bytes());
            let goes = spaces.contains(&space_of(key)) && (paths.is_empty() || paths.iter().any(is_below));
            if let (true, Slot::Answers(answers)) = (goes, slot) {
                count.set(count.get() + answers.len() as u64);
            }
            !goes
        });
        count.get()
    }

    /// Drops what versions left behind that are gone.
    pub(crate) fn retain(&self, is_there: impl Fn(Space) -> bool) {
        self.slots.retain(|key, _| is_there(space_of(key)));
    }

    /// Has room for so much from now on; what is more goes at once.
    pub(crate) fn resize(&self, bytes_max: usize) {
        if self.bytes_max.swap(bytes_max, Ordering::Relaxed) != bytes_max {
            self.slots.set_capacity(bytes_max as u64);
            self.receiving_max.store(bytes_max / 4, Ordering::Relaxed);
        }
    }

    /// Takes room for bytes that are being received.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let taken = self.receiving.fetch_add(bytes, Ordering::Relaxed);
        if taken + bytes > self.receiving_max.load(Ordering::Relaxed) {
            self.release(bytes);
            return false;
        }
        true
    }

    pub(super) fn release(&self, bytes: usize) {
        self.receiving.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, outcome: Outcome) {
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let counted = |outcome: Outcome| self.counts[outcome as usize].load(Ordering::Relaxed);
        CacheStats {
            hit: counted(Outcome::Hit),
            miss: counted(Outcome::Miss),
            stale: counted(Outcome::Stale),
            bypass: counted(Outcome::Bypass),
            bytes: self.bytes(),
        }
    }

    /// Bytes that are kept.
    fn bytes(&self) -> u64 {
        self.slots.weight()
    }

    fn stripe(&self, key: &Key) -> MutexGuard<'_, u64> {
        self.stripes[stripe(key)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As routes match: `/a` is `/a`, `/a/b` and `/a?b`, and not `/ab`.
fn is_below(target: &[u8], path: &[u8]) -> bool {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    target.strip_prefix(path).is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?')))
}

/// FNV-1a: only spreads over locks, so that nothing is won by choosing addresses that meet.
fn stripe(key: &Key) -> usize {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> 32) as usize % STRIPES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{ResponseHead, header_storage};
    use crate::policy::cache::stored::{Now, judge, kept_head};
    use crate::policy::cache::{Address, Rule};

    fn stored(fields: &str, request: &str, body_bytes: usize) -> Arc<Stored> {
        let rule = Rule { path: "/".into(), fresh: Duration::from_secs(60), stale: Duration::ZERO };
        let (answer, request) = (
            format!("HTTP/1.1 200 OK\r\n{fields}content-length: {body_bytes}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{request}\r\n"),
        );
        let (mut a, mut b) = (header_storage(), header_storage());
        let head = ResponseHead::parse(answer.as_bytes(), &mut a, "GET").unwrap();
        let request = RequestHead::parse(request.as_bytes(), &mut b).unwrap();
        let judged = judge(&head, &request, None, &rule, Now::read()).unwrap();
        Arc::new(Stored::new(judged, &kept_head(&head), vec![b'x'; body_bytes].into()).unwrap())
    }

    fn key(target: &str, space: u64) -> Key {
        let target = target.as_bytes();
        Address { listener: b"l", scheme: b"http", host: b"a", target }.key(Space(space))
    }

    fn finds(cache: &Cache, key: &Key, request: &str) -> bool {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{request}\r\n");
        let mut storage = header_storage();
        let request = RequestHead::parse(request.as_bytes(), &mut storage).unwrap();
        matches!(cache.find(key, &request, Instant::now()), Found::Stored(_))
    }

    #[test]
    fn memory_is_bounded_however_much_is_kept() {
        let bytes_max = 4 * 1024 * 1024;
        let cache = Cache::new(bytes_max);
        for (body_bytes, count) in [(0, 20_000), (100_000, 300), (1_000_000, 40)] {
            for n in 0..count {
                let key = key(&format!("/{body_bytes}/{n}"), 1);
                cache.keep(&key, stored("", "", body_bytes), cache.epoch(&key), Instant::now());
                assert!(cache.bytes() <= bytes_max as u64, "{} after {n} of {body_bytes}", cache.bytes());
            }
        }
        assert!(cache.bytes() > 0);
        for smaller in [bytes_max / 2, 0] {
            cache.resize(smaller);
            assert!(cache.bytes() <= smaller as u64, "{} of {smaller}", cache.bytes());
        }
        let none = Cache::new(0);
        none.keep(&key("/", 1), stored("", "", 1), none.epoch(&key("/", 1)), Instant::now());
        assert!(!finds(&none, &key("/", 1), ""));
    }

    #[test]
    fn variants_of_an_answer_are_bounded_and_the_newest_stay() {
        let (cache, key) = (Cache::new(1024 * 1024), key("/", 1));
        for n in 0..100 {
            let stored = stored("vary: x\r\n", &format!("X: {n}\r\n"), 10);
            cache.keep(&key, stored, cache.epoch(&key), Instant::now());
        }
        let found: Vec<i32> = (0..100).filter(|n| finds(&cache, &key, &format!("X: {n}\r\n"))).collect();
        assert_eq!(found, (100 - VARIANTS_MAX as i32..100).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_asked_before_an_invalidation_is_not_kept_after_it() {
        let (cache, key) = (Cache::new(1024 * 1024), key("/", 1));
        let early = cache.epoch(&key);
        assert!(cache.keep(&key, stored("", "", 1), early, Instant::now()));
        cache.invalidate(&key);
        assert!(!finds(&cache, &key, ""));
        assert!(!cache.keep(&key, stored("", "", 1), early, Instant::now()));
        assert!(!finds(&cache, &key, ""));
        assert!(cache.keep(&key, stored("", "", 1), cache.epoch(&key), Instant::now()));
    }

    #[test]
    fn a_purge_takes_what_is_below_a_path_and_what_is_on_its_way() {
        let cache = Cache::new(1024 * 1024);
        let targets = ["/", "/a", "/a?x", "/a/b", "/ab", "/b"];
        let kept = |space: u64| -> Vec<&str> {
            targets.into_iter().filter(|target| finds(&cache, &key(target, space), "")).collect()
        };
        for (target, space) in targets.into_iter().flat_map(|target| [(target, 1), (target, 2)]) {
            let key = key(target, space);
            assert!(cache.keep(&key, stored("", "", 1), cache.epoch(&key), Instant::now()));
        }
        let early = cache.epoch(&key("/a", 1));
        assert_eq!(cache.purge(&[Space(1)].into(), &["/a/".to_owned()]), 3);
        assert_eq!((kept(1), kept(2)), (vec!["/", "/ab", "/b"], targets.to_vec()));
        assert!(!cache.keep(&key("/a", 1), stored("", "", 1), early, Instant::now()));
        assert_eq!(cache.purge(&[Space(1)].into(), &["/b".to_owned(), "/none".to_owned()]), 1);
        assert_eq!(cache.purge(&[Space(2)].into(), &[]), 6);
        assert_eq!((kept(1), kept(2)), (vec!["/", "/ab"], vec![]));
    }

    #[test]
    fn what_versions_leave_behind_goes_with_them() {
        let cache = Cache::new(1024 * 1024);
        for space in [1, 2] {
            let key = key("/", space);
            cache.keep(&key, stored("", "", 1), cache.epoch(&key), Instant::now());
        }
        cache.retain(|space| space == Space(2));
        assert!(!finds(&cache, &key("/", 1), ""));
        assert!(finds(&cache, &key("/", 2), ""));
    }

    #[test]
    fn a_packed_body_is_paid_for_and_outlives_nothing() {
        let (cache, key) = (Cache::new(1024 * 1024), key("/", 1));
        let stored = stored("", "", 1000);
        cache.keep(&key, Arc::clone(&stored), cache.epoch(&key), Instant::now());
        let before = cache.bytes();
        cache.keep_packed(&key, &stored, Coding::Gzip, vec![0; 500].into());
        assert_eq!(cache.bytes(), before + 500);
        cache.keep_packed(&key, &stored, Coding::Gzip, vec![0; 500].into());
        assert_eq!(cache.bytes(), before + 500, "the answer had been replaced");
        cache.invalidate(&key);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn an_answer_that_is_not_kept_is_remembered_without_hiding_others() {
        let (cache, key) = (Cache::new(1024 * 1024), key("/", 1));
        let mut storage = header_storage();
        let request = RequestHead::parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut storage).unwrap();
        let now = Instant::now();
        cache.pass(&key, now);
        assert!(matches!(cache.find(&key, &request, now), Found::Pass));
        assert!(matches!(cache.find(&key, &request, now + PASS), Found::Nothing));
        cache.keep(&key, stored("", "", 1), cache.epoch(&key), now);
        cache.pass(&key, now);
        assert!(finds(&cache, &key, ""));
    }

    #[test]
    fn what_is_being_received_is_bounded() {
        let cache = Cache::new(4000);
        assert!(cache.reserve(600));
        assert!(cache.reserve(400));
        assert!(!cache.reserve(1));
        cache.release(400);
        assert!(cache.reserve(400));
    }
}
