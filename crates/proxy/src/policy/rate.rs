//! Rates by the generic cell rate algorithm: one number for each key says when its bucket is empty again (ITU-T I.371).
//!
//! Own and not a library's, because what is kept per client has to have a bound: whoever owns a network has more
//! addresses than a machine has memory.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::snapshot::{RateKey, RateLimit};

/// Keys are spread over so many locks, that cores seldom meet.
const SHARDS: usize = 16;

/// Together 131,072 keys of 16 bytes and their table: some 4 MiB for each limit.
const KEYS_PER_SHARD_MAX: usize = 8 * 1024;

/// Time between two sweeps of one shard: 8,192 keys are read in some 20 µs.
const SWEEP_EVERY_NS: u64 = 1_000_000_000;

/// Buckets for keys beyond those, which share them.
const CROWD: usize = 64;

#[derive(Debug)]
pub(crate) struct Limiter {
    start: Instant,
    /// Nanoseconds that one request fills.
    each_ns: u64,
    /// How far ahead of the even rate a key may be.
    ahead_ns: u64,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    One(AtomicU64),
    Many { hasher: RandomState, shards: Box<[Mutex<Shard>]>, crowd: Box<[AtomicU64]> },
}

#[derive(Debug, Default)]
struct Shard {
    /// When the bucket of a key is empty again, by the key's hash.
    empty_ns: HashMap<u64, u64>,
    /// When empty buckets were last thrown out.
    swept_ns: u64,
}

impl Shard {
    /// Whether there is a place for one more. A sweep reads all, so a flood of new keys does not get one for each.
    fn has_room(&mut self, now_ns: u64) -> bool {
        if self.empty_ns.len() >= KEYS_PER_SHARD_MAX && now_ns.saturating_sub(self.swept_ns) >= SWEEP_EVERY_NS
        {
            self.swept_ns = now_ns;
            // An empty bucket is as good as none.
            self.empty_ns.retain(|_, empty_ns| *empty_ns > now_ns);
        }
        self.empty_ns.len() < KEYS_PER_SHARD_MAX
    }
}

impl Limiter {
    pub(crate) fn new(settings: &RateLimit) -> Self {
        let each_ns =
            (settings.within_ms.saturating_mul(1_000_000) / u64::from(settings.requests.max(1))).max(1);
        let keys = match settings.per {
            RateKey::Route => Keys::One(AtomicU64::new(0)),
            RateKey::Client | RateKey::Header(_) => Keys::Many {
                hasher: RandomState::new(),
                shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
                crowd: (0..CROWD).map(|_| AtomicU64::new(0)).collect(),
            },
        };
        // With more the end of time would be within the burst, and then nothing is beyond it: some 290 years will do.
        let ahead_ns = each_ns.saturating_mul(u64::from(settings.burst.max(1) - 1)).min(u64::MAX / 2);
        Self { start: Instant::now(), each_ns, ahead_ns, keys }
    }

    /// # Errors
    /// How long until there is room again.
    pub(crate) fn admit(&self, key: &[u8]) -> Result<(), Duration> {
        let now_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.admit_at(key, now_ns)
    }

    /// Whether there is room, without taking it.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(crate) fn has_room(&self, key: &[u8]) -> Result<(), Duration> {
        let now_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let empty_ns = match &self.keys {
            Keys::One(empty) => empty.load(Ordering::Relaxed),
            Keys::Many { hasher, shards, .. } => {
                let hash = hasher.hash_one(key);
                let shard = shards[hash as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
                // A key that is not known has room, unless it is one of a crowd, which is told when it takes it.
                shard.empty_ns.get(&hash).copied().unwrap_or(0)
            }
        };
        self.after(empty_ns, now_ns).map(drop)
    }

    fn admit_at(&self, key: &[u8], now_ns: u64) -> Result<(), Duration> {
        match &self.keys {
            Keys::One(empty) => self.spend(empty, now_ns),
            Keys::Many { hasher, shards, crowd } => {
                let hash = hasher.hash_one(key);
                let shard = &shards[hash as usize % SHARDS];
                let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                if !shard.empty_ns.contains_key(&hash) && !shard.has_room(now_ns) {
                    drop(shard);
                    return self.spend(&crowd[(hash >> 32) as usize % CROWD], now_ns);
                }
                let empty_ns = shard.empty_ns.entry(hash).or_default();
                *empty_ns = self.after(*empty_ns, now_ns)?;
                Ok(())
            }
        }
    }

    fn spend(&self, empty: &AtomicU64, now_ns: u64) -> Result<(), Duration> {
        let mut known = empty.load(Ordering::Relaxed);
        loop {
            let next = self.after(known, now_ns)?;
            match empty.compare_exchange_weak(known, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => known = other,
            }
        }
    }

    /// When the bucket is empty after one more request.
    fn after(&self, empty_ns: u64, now_ns: u64) -> Result<u64, Duration> {
        let free_ns = empty_ns.saturating_sub(self.ahead_ns);
        if free_ns > now_ns {
            return Err(Duration::from_nanos(free_ns - now_ns));
        }
        Ok(empty_ns.max(now_ns).saturating_add(self.each_ns))
    }
}

/// What a client is counted by: an IPv6 network of one customer is one client.
pub(crate) fn client_key(address: IpAddr) -> [u8; 8] {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()).to_be_bytes(),
        IpAddr::V6(address) => ((address.to_bits() >> 64) as u64).to_be_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limiter(per: RateKey, requests: u32, within_ms: u64, burst: u32) -> Limiter {
        Limiter::new(&RateLimit { name: "r".into(), per, path: None, requests, within_ms, burst })
    }

    #[test]
    fn a_burst_then_the_even_rate() {
        for per in [RateKey::Route, RateKey::Client] {
            let limiter = limiter(per, 10, 1_000, 3);
            let admitted = |at_ns| limiter.admit_at(b"a", at_ns).is_ok();
            assert_eq!([admitted(0), admitted(0), admitted(0), admitted(0)], [true, true, true, false]);
            assert!(!admitted(SECOND / 10 - 1));
            assert!(admitted(SECOND / 10));
            assert!(!admitted(SECOND / 10));
            // After a rest the burst is there again, and not more.
            assert_eq!((0..5).filter(|_| admitted(10 * SECOND)).count(), 3);
        }
    }

    #[test]
    fn a_burst_of_centuries_ends_too() {
        let limiter = limiter(RateKey::Route, 1, 365 * 24 * 3_600_000, 2_000);
        assert_eq!((0..2_000).filter(|_| limiter.admit_at(b"", 1).is_ok()).count(), 293);
    }

    #[test]
    fn the_wait_that_is_told_is_enough_and_needed() {
        let limiter = limiter(RateKey::Route, 1, 60_000, 1);
        limiter.admit_at(b"", 5).unwrap();
        let wait = limiter.admit_at(b"", 5).unwrap_err();
        assert_eq!(wait, Duration::from_secs(60));
        assert!(limiter.admit_at(b"", 4 + 60 * SECOND).is_err());
        assert!(limiter.admit_at(b"", 5 + 60 * SECOND).is_ok());
    }

    #[test]
    fn clients_have_buckets_of_their_own_and_a_network_of_one_customer_shares_one() {
        let limiter = limiter(RateKey::Client, 1, 1_000, 1);
        let admitted = |text: &str| limiter.admit_at(&client_key(text.parse().unwrap()), 0).is_ok();
        assert!(admitted("192.0.2.1"));
        assert!(admitted("192.0.2.2"));
        assert!(!admitted("192.0.2.1"));
        assert!(admitted("2001:db8::1"));
        assert!(!admitted("2001:db8::2"));
        assert!(admitted("2001:db8:0:1::1"));
    }

    #[test]
    fn what_is_kept_of_a_million_clients_has_a_bound() {
        let limiter = limiter(RateKey::Client, 1, 3_600_000, 1);
        let admitted = (0..1_000_000u32).filter(|n| limiter.admit_at(&n.to_be_bytes(), 1).is_ok()).count();
        let Keys::Many { shards, .. } = &limiter.keys else { panic!() };
        let kept: usize = shards.iter().map(|shard| shard.lock().unwrap().empty_ns.len()).sum();
        assert_eq!(kept, SHARDS * KEYS_PER_SHARD_MAX);
        // Those beyond share a few buckets; nobody who was known before is worse off.
        assert_eq!(admitted, kept + CROWD);
        assert!(limiter.admit_at(&0u32.to_be_bytes(), 2 * 3_600 * SECOND).is_ok());
    }
}
