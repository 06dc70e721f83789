//! Figures per service, version, route and way of choosing; counted per core, summed on read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::control::{Arm, Cause, Chosen, LATENCY_BOUNDS_US, SeriesStats, StatusClass};
use crate::endpoint::{Apart, CoreCounter};

const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// One core's part of a series.
///
/// A request is counted before its failure, and a failure before its burst; they are read the other way round, so that
/// no reader ever sees more failures than requests.
///
/// In the order in which they are here: what every request counts is on two cache lines.
#[derive(Debug, Default)]
#[repr(C)]
struct Part {
    in_flight: CoreCounter,
    bytes_in: CoreCounter,
    bytes_out: CoreCounter,
    latency_sum_us: CoreCounter,
    requests: [CoreCounter; StatusClass::ALL.len()],
    latency: [CoreCounter; BUCKETS],
    unanswered: CoreCounter,
    failed: CoreCounter,
    bursts: CoreCounter,
    dropped: CoreCounter,
    given_up: CoreCounter,
    errors: [CoreCounter; Cause::ALL.len()],
}

#[derive(Debug)]
pub(crate) struct Series {
    name: Name,
    parts: Box<[Apart<Part>]>,
    /// Clients that failed of late. Most series never need it.
    clients: OnceLock<Clients>,
    /// It failed, and nobody was told yet.
    is_news: AtomicBool,
    failures: Arc<Failures>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub service: String,
    pub version: String,
    pub route: String,
    pub chosen: Chosen,
}

/// What the failures of all series have in common.
#[derive(Debug)]
struct Failures {
    /// Seconds are counted from here.
    since: Instant,
    news: Notify,
}

/// In which second each client last failed, to count a client that tries again and again once a second.
///
/// Shared by all cores, because one client has connections on several; touched by failures only. Two clients that
/// meet in one slot count as one: the sum may be too small, never too large.
#[derive(Debug)]
struct Clients(Box<[AtomicU32; CLIENTS]>);

/// 4 KiB for a series that fails. Of 100 clients that fail in one second 95 are told apart, of 1,000 about 640: by then
/// nobody needs the exact number.
const CLIENTS: usize = 1024;

impl Clients {
    fn new() -> Self {
        Self(Box::new([const { AtomicU32::new(0) }; CLIENTS]))
    }

    /// Whether this is the client's first failure in that second.
    fn is_first(&self, client: IpAddr, second: u32) -> bool {
        let slot = &self.0[slot_of(client)];
        slot.load(Ordering::Relaxed) < second && slot.fetch_max(second, Ordering::Relaxed) < second
    }
}

/// One household has a whole /64, and a machine in it a new address whenever it likes.
fn slot_of(client: IpAddr) -> usize {
    let key = match client.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    };
    // Fibonacci hashing (Knuth): neighbours are spread, which is what addresses of one network are.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CLIENTS.ilog2())) as usize
}

impl Series {
    /// A request that got a status.
    pub(crate) fn request(&self, core: usize, status: u16, latency_us: u64) {
        let part = &self.parts[core].0;
        part.requests[StatusClass::of(status) as usize].add(1);
        let bucket = LATENCY_BOUNDS_US.iter().position(|bound| latency_us <= *bound);
        part.latency[bucket.unwrap_or(BUCKETS - 1)].add(1);
        part.latency_sum_us.add(latency_us);
    }

    /// A request that got none.
    pub(crate) fn unanswered(&self, core: usize) {
        self.parts[core].0.unanswered.add(1);
    }

    /// After [`Self::unanswered`]: its client had waited for a while.
    pub(crate) fn given_up(&self, core: usize) {
        self.parts[core].0.given_up.add(1);
    }

    pub(crate) fn error(&self, core: usize, cause: Cause) {
        self.parts[core].0.errors[cause as usize].add(1);
    }

    /// After [`Self::request`] or [`Self::unanswered`]: that request failed.
    pub(crate) fn failed(&self, core: usize, client: IpAddr) {
        let part = &self.parts[core].0;
        part.failed.add(1);
        // Second 0 is that of a slot never used.
        let second = u32::try_from(self.failures.since.elapsed().as_secs()).unwrap_or(u32::MAX - 1) + 1;
        if self.clients.get_or_init(Clients::new).is_first(client, second) {
            part.bursts.add(1);
        }
        if self.name.chosen.is_evidence()
            && !self.name.version.is_empty()
            && !self.is_news.load(Ordering::Relaxed)
            && !self.is_news.swap(true, Ordering::AcqRel)
        {
            self.failures.news.notify_one();
        }
    }

    /// A copy that was not sent.
    pub(crate) fn dropped(&self, core: usize) {
        self.parts[core].0.dropped.add(1);
    }

    pub(crate) fn bytes(&self, core: usize, bytes_in: u64, bytes_out: u64) {
        self.parts[core].0.bytes_in.add(bytes_in);
        self.parts[core].0.bytes_out.add(bytes_out);
    }

    /// Route and service.
    pub(crate) fn labels(&self) -> (&str, &str) {
        (&self.name.route, &self.name.service)
    }

    pub(crate) fn read(&self) -> SeriesStats {
        let mut stats = SeriesStats::new(&self.name.service, &self.name.version, &self.name.route);
        stats.chosen = self.name.chosen;
        for Apart(part) in &self.parts {
            stats.error_bursts += part.bursts.get();
            stats.failed += part.failed.get();
            stats.unanswered += part.unanswered.get();
            for (sum, counter) in stats.latency.iter_mut().zip(&part.latency) {
                *sum += counter.get();
            }
            stats.latency_sum_us += part.latency_sum_us.get();
            for (class, counter) in StatusClass::ALL.into_iter().zip(&part.requests) {
                *stats.requests.entry(class).or_default() += counter.get();
            }
            for (cause, counter) in Cause::ALL.into_iter().zip(&part.errors) {
                *stats.errors.entry(cause).or_default() += counter.get();
            }
            stats.dropped += part.dropped.get();
            stats.given_up += part.given_up.get();
            stats.in_flight = stats.in_flight.wrapping_add(part.in_flight.get());
            stats.bytes_in += part.bytes_in.get();
            stats.bytes_out += part.bytes_out.get();
        }
        stats.requests.retain(|_, n| *n > 0);
        stats.errors.retain(|_, n| *n > 0);
        stats
    }

    /// Adds what a version is judged by.
    fn add_to(&self, arm: &mut Arm) {
        for Apart(part) in &self.parts {
            arm.error_bursts += part.bursts.get();
            arm.errors += part.failed.get();
            for (sum, counter) in arm.latency.iter_mut().zip(&part.latency) {
                *sum += counter.get();
            }
            arm.latency_sum_us += part.latency_sum_us.get();
            arm.requests += part.requests.iter().map(CoreCounter::get).sum::<u64>();
            let unreached = Cause::ALL.into_iter().filter(|cause| cause.is_unreached());
            arm.unreached += unreached.map(|cause| part.errors[cause as usize].get()).sum::<u64>();
            arm.in_flight = arm.in_flight.wrapping_add(part.in_flight.get());
            arm.given_up += part.given_up.get();
        }
    }
}

/// One request in flight in a series.
#[derive(Debug)]
pub(crate) struct SeriesInFlight {
    series: Arc<Series>,
    core: usize,
}

impl SeriesInFlight {
    pub(crate) fn begin(series: &Arc<Series>, core: usize) -> Self {
        series.parts[core].0.in_flight.add(1);
        Self { series: Arc::clone(series), core }
    }
}

impl Drop for SeriesInFlight {
    fn drop(&mut self) {
        self.series.parts[self.core].0.in_flight.subtract(1);
    }
}

/// Series that no route leads to any more and that are kept nevertheless, so that the last figures of a removed
/// version are still read by whoever reads every minute. Oldest first out.
const RETIRED_MAX: usize = 256;

/// All series of the process.
#[derive(Debug)]
pub(crate) struct SeriesBook {
    cores: usize,
    failures: Arc<Failures>,
    known: Mutex<BTreeMap<Name, (Arc<Series>, u64)>>,
}

impl SeriesBook {
    pub(crate) fn new(cores: usize) -> Self {
        let failures = Arc::new(Failures { since: Instant::now(), news: Notify::new() });
        Self { cores, failures, known: Mutex::default() }
    }

    /// The series of that name; `generation` says which snapshot needs it.
    pub(crate) fn series(&self, name: Name, generation: u64) -> Arc<Series> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (series, used) = known.entry(name.clone()).or_insert_with(|| {
            let series = Series {
                name,
                parts: (0..self.cores).map(|_| Apart::default()).collect(),
                clients: OnceLock::new(),
                is_news: AtomicBool::new(false),
                failures: Arc::clone(&self.failures),
            };
            (Arc::new(series), generation)
        });
        *used = generation;
        Arc::clone(series)
    }

    /// Forgets series that snapshots before `generation` needed, the most recent ones excepted.
    pub(crate) fn trim(&self, generation: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut retired: Vec<_> = known
            .iter()
            // Someone still counts in a series that more than the book holds.
            .filter(|(_, (series, used))| *used < generation && Arc::strong_count(series) == 1)
            .map(|(name, (_, used))| (*used, name.clone()))
            .collect();
        retired.sort();
        let excess = retired.len().saturating_sub(RETIRED_MAX);
        for (_, name) in retired.into_iter().take(excess) {
            known.remove(&name);
        }
    }

    pub(crate) fn read(&self) -> Vec<SeriesStats> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().map(|(series, _)| series.read()).collect()
    }

    /// What the versions of these services are judged by; of all services when none is named.
    pub(crate) fn arms(&self, services: &[String]) -> Vec<Arm> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arms: Vec<Arm> = Vec::new();
        for (name, (series, _)) in known.iter() {
            let wanted = services.is_empty() || services.contains(&name.service);
            if !wanted || name.version.is_empty() {
                continue;
            }
            // Names come in order, so that a version's series follow each other.
            if arms.last().is_none_or(|arm| (&arm.service, &arm.version) != (&name.service, &name.version)) {
                arms.push(Arm {
                    service: name.service.clone(),
                    version: name.version.clone(),
                    latency: vec![0; BUCKETS],
                    ..Arm::default()
                });
            }
            if name.chosen.is_evidence()
                && let Some(arm) = arms.last_mut()
            {
                series.add_to(arm);
            }
        }
        arms.iter_mut().for_each(Arm::trim);
        arms
    }

    /// Waits until a version failed a request that is evidence.
    pub(crate) async fn failure(&self) {
        self.failures.news.notified().await;
    }

    /// Services and versions that failed since the last call.
    pub(crate) fn take_failing(&self) -> BTreeSet<(String, String)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .filter(|(_, (series, _))| series.is_news.swap(false, Ordering::AcqRel))
            .map(|(name, _)| (name.service.clone(), name.version.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Stats;

    fn name(version: &str, route: &str, chosen: Chosen) -> Name {
        Name { service: "s".to_owned(), version: version.to_owned(), route: route.to_owned(), chosen }
    }

    #[test]
    fn cores_are_summed_and_bounds_are_inclusive() {
        let book = SeriesBook::new(2);
        let series = book.series(name("r1", "*/", Chosen::Weight), 1);
        series.request(0, 200, 5_000);
        series.request(1, 200, 5_001);
        series.request(1, 503, 20_000_000);
        series.error(1, Cause::NoInstance);
        let stats = &book.read()[0];
        assert_eq!(stats.requests[&StatusClass::Success], 2);
        assert_eq!(stats.requests[&StatusClass::ServerError], 1);
        assert_eq!((stats.latency[0], stats.latency[1], stats.latency[BUCKETS - 1]), (1, 1, 1));
        assert_eq!(stats.errors[&Cause::NoInstance], 1);
        assert_eq!(stats.requests_total(), 3);
    }

    #[test]
    fn a_client_fails_once_a_second_and_never_more_often_than_it_did() {
        let clients = Clients::new();
        let v4 = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(n));
        assert!(clients.is_first(v4(1), 1));
        assert!(!clients.is_first(v4(1), 1));
        assert!(
            !clients.is_first("::ffff:0.0.0.1".parse().unwrap(), 1),
            "the same address, written otherwise"
        );
        assert!(clients.is_first(v4(1), 2));
        assert!(!clients.is_first(v4(1), 1), "a core that is late with its clock");
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(clients.is_first(v6("2001:db8::1"), 3));
        assert!(!clients.is_first(v6("2001:db8::ffff:2"), 3), "the same household");
        // However many there are, and wherever they meet: never more than there are.
        for (second, count) in [(10, 100u32), (11, 1_000), (12, 100_000)] {
            let first = (0..count).filter(|n| clients.is_first(v4(0x0a00_0000 + n), second)).count();
            let again = (0..count).filter(|n| clients.is_first(v4(0x0a00_0000 + n), second)).count();
            assert!(first <= count.min(CLIENTS as u32) as usize && again == 0, "{first} of {count}");
            assert!(first >= 80.min(count as usize), "{first} of {count}");
        }
    }

    #[test]
    fn failures_of_testers_and_copies_are_no_news() {
        let book = SeriesBook::new(1);
        for (version, chosen) in [
            ("r1", Chosen::Match),
            ("r2", Chosen::Preview),
            ("r3", Chosen::Mirror),
            ("r4", Chosen::Weight),
            ("r5", Chosen::Only),
            ("", Chosen::Weight),
        ] {
            let series = book.series(name(version, "*/", chosen), 1);
            series.request(0, 500, 1);
            series.failed(0, [127, 0, 0, 1].into());
        }
        let failing: Vec<_> = book.take_failing().into_iter().map(|(_, version)| version).collect();
        assert_eq!(failing, ["r4", "r5"]);
        assert!(book.take_failing().is_empty(), "said once");
        let errors: Vec<_> = book.arms(&[]).into_iter().map(|arm| (arm.version, arm.errors)).collect();
        let expect = [("r1", 0), ("r2", 0), ("r3", 0), ("r4", 1), ("r5", 1)];
        assert_eq!(errors, expect.map(|(version, errors)| (version.to_owned(), errors)));
    }

    #[test]
    fn attempts_without_a_connection_are_counted_and_are_no_failures() {
        let book = SeriesBook::new(2);
        for (core, cause) in [
            (0, Cause::Connect),
            (1, Cause::ConnectTimeout),
            (1, Cause::Connect),
            (0, Cause::NoResponse),
            (0, Cause::ClientClosed),
        ] {
            book.series(name("r1", "*/", Chosen::Weight), 1).error(core, cause);
            book.series(name("r1", "*/", Chosen::Preview), 1).error(core, cause);
        }
        let _guard = SeriesInFlight::begin(&book.series(name("r1", "*/", Chosen::Weight), 1), 1);
        let arm = &book.arms(&[])[0];
        assert_eq!((arm.unreached, arm.errors, arm.requests, arm.in_flight), (3, 0, 0, 1));
        let stats = Stats { series: book.read(), ..Stats::default() };
        assert_eq!(stats.arm("s", "r1"), *arm, "both ways of asking say the same");
    }

    #[test]
    fn many_releases_do_not_pile_up() {
        let book = SeriesBook::new(1);
        for generation in 1..2_000 {
            book.series(name(&format!("r{generation}"), "*/", Chosen::Weight), generation);
            book.trim(generation);
        }
        assert!(book.read().len() <= RETIRED_MAX + 1);
    }
}
