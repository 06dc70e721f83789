//! Figures per service, version and route; counted per core, summed on read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::control::{Cause, LATENCY_BOUNDS_US, SeriesStats, StatusClass};
use crate::endpoint::CoreCounter;

const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// One core's part of a series.
#[derive(Debug, Default)]
struct Part {
    requests: [CoreCounter; StatusClass::ALL.len()],
    errors: [CoreCounter; Cause::ALL.len()],
    latency: [CoreCounter; BUCKETS],
    latency_sum_us: CoreCounter,
    in_flight: CoreCounter,
    bytes_in: CoreCounter,
    bytes_out: CoreCounter,
}

#[derive(Debug)]
pub(crate) struct Series {
    name: Name,
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    service: String,
    version: String,
    route: String,
}

impl Series {
    pub(crate) fn request(&self, core: usize, status: u16, latency_us: u64) {
        let part = &self.parts[core];
        part.requests[StatusClass::of(status) as usize].add(1);
        let bucket = LATENCY_BOUNDS_US.iter().position(|bound| latency_us <= *bound);
        part.latency[bucket.unwrap_or(BUCKETS - 1)].add(1);
        part.latency_sum_us.add(latency_us);
    }

    pub(crate) fn error(&self, core: usize, cause: Cause) {
        self.parts[core].errors[cause as usize].add(1);
    }

    pub(crate) fn bytes(&self, core: usize, bytes_in: u64, bytes_out: u64) {
        self.parts[core].bytes_in.add(bytes_in);
        self.parts[core].bytes_out.add(bytes_out);
    }

    /// Route and service.
    pub(crate) fn labels(&self) -> (&str, &str) {
        (&self.name.route, &self.name.service)
    }

    pub(crate) fn read(&self) -> SeriesStats {
        let mut stats = SeriesStats::new(&self.name.service, &self.name.version, &self.name.route);
        for part in &self.parts {
            for (class, counter) in StatusClass::ALL.into_iter().zip(&part.requests) {
                *stats.requests.entry(class).or_default() += counter.get();
            }
            for (cause, counter) in Cause::ALL.into_iter().zip(&part.errors) {
                *stats.errors.entry(cause).or_default() += counter.get();
            }
            for (sum, counter) in stats.latency.iter_mut().zip(&part.latency) {
                *sum += counter.get();
            }
            stats.latency_sum_us += part.latency_sum_us.get();
            stats.in_flight = stats.in_flight.wrapping_add(part.in_flight.get());
            stats.bytes_in += part.bytes_in.get();
            stats.bytes_out += part.bytes_out.get();
        }
        stats.requests.retain(|_, n| *n > 0);
        stats.errors.retain(|_, n| *n > 0);
        stats
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
        series.parts[core].in_flight.add(1);
        Self { series: Arc::clone(series), core }
    }
}

impl Drop for SeriesInFlight {
    fn drop(&mut self) {
        self.series.parts[self.core].in_flight.subtract(1);
    }
}

/// Series that no route leads to any more and that are kept nevertheless, so that the last figures of a removed
/// version are still read by whoever reads every minute. Oldest first out.
const RETIRED_MAX: usize = 256;

/// All series of the process.
#[derive(Debug)]
pub(crate) struct SeriesBook {
    cores: usize,
    known: Mutex<BTreeMap<Name, (Arc<Series>, u64)>>,
}

impl SeriesBook {
    pub(crate) fn new(cores: usize) -> Self {
        Self { cores, known: Mutex::default() }
    }

    /// The series of that name; `generation` says which snapshot needs it.
    pub(crate) fn series(&self, service: &str, version: &str, route: &str, generation: u64) -> Arc<Series> {
        let name = Name { service: service.to_owned(), version: version.to_owned(), route: route.to_owned() };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (series, used) = known.entry(name.clone()).or_insert_with(|| {
            let parts = (0..self.cores).map(|_| Part::default()).collect();
            (Arc::new(Series { name, parts }), generation)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_summed_and_bounds_are_inclusive() {
        let book = SeriesBook::new(2);
        let series = book.series("s", "r1", "*/", 1);
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
    fn many_releases_do_not_pile_up() {
        let book = SeriesBook::new(1);
        for generation in 1..2_000 {
            book.series("s", &format!("r{generation}"), "*/", generation);
            book.trim(generation);
        }
        assert!(book.read().len() <= RETIRED_MAX + 1);
    }
}
