//! How fast the store is and how much room it takes, for `cargo xtask bench`.
//!
//! What is written is what services tell in general: counters that grow by whole numbers, or stand still, seconds of CPU
//! with two digits, gauges with few digits, one number that is no decimal at all in sixteen. Every 15 s, all series.

use std::path::Path;
use std::time::Duration;

use super::append::SeriesRef;
use super::error::StoreError;
use super::open::Store;
use super::options::Options;
use crate::labels::Labels;
use crate::sample::Sample;
use crate::select::{Matcher, Querier, SelectError};

/// What is written.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub series: usize,
    /// At least seven, so that six of them can be asked for.
    pub hours: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub samples: u64,
    /// With the log, a sync after each round, and `maintain` after each minute of the samples' time.
    pub samples_per_second: f64,
    /// The longest that one round and its sync took.
    pub round_max: Duration,
    /// Of all blocks, with their indexes, after merging.
    pub bytes_per_sample: f64,
    /// All blocks, merged ones among them.
    pub blocks: usize,
    /// Packed samples and series in memory, as the store counts them.
    pub head_bytes: u64,
    /// To open it again and read the log.
    pub open: Duration,
    /// Up to 1,000 series over six hours: samples, and the middle and the longest of [`RUNS`] times.
    pub selected: usize,
    pub select: Duration,
    pub select_max: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Select(#[from] SelectError),
    #[error("{lost} samples were not accepted")]
    Lost { lost: u64 },
}

pub const RUNS: usize = 21;
const STEP_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;
/// A round number of blocks, in 2026.
const START_MS: i64 = 1_785_600_000_000;

/// Writes into an empty directory and asks. `clock` tells how long ago anything was.
///
/// # Errors
/// When the directory cannot be written or read.
pub fn bench(dir: &Path, load: Load, clock: &dyn Fn() -> Duration) -> Result<Figures, BenchError> {
    // Merged blocks of up to a day.
    let options = Options { retention_ms: 10 * 24 * HOUR_MS, ..Options::default() };
    let store = Store::open(dir, options.clone())?.store;
    let mut sources = Vec::with_capacity(load.series);
    for number in 0..load.series {
        let reference = store.resolve(&labels(number)).map_err(|_| BenchError::Lost { lost: 1 })?;
        sources.push((reference, Source::new(number % KINDS, number as u64)));
    }
    let rounds = i64::from(load.hours) * HOUR_MS / STEP_MS;
    let mut round_max = Duration::ZERO;
    let mut samples = 0;
    let began = clock();
    for round in 0..rounds {
        let at_ms = START_MS + round * STEP_MS;
        let round_began = clock();
        samples += append(&store, &mut sources, at_ms)?;
        store.sync()?;
        round_max = round_max.max(clock() - round_began);
        if round % 4 == 0 {
            store.maintain(at_ms)?;
        }
    }
    let took = clock() - began;
    let stats = store.stats();
    drop((sources, store));

    let began = clock();
    let store = Store::open(dir, options)?.store;
    let open = clock() - began;
    let end_ms = START_MS + rounds * STEP_MS;
    let matchers = [Matcher::equal("set", "0")];
    let mut times = Vec::with_capacity(RUNS);
    let mut selected = 0;
    for _ in 0..RUNS {
        let began = clock();
        let found = store.select(&matchers, end_ms - 6 * HOUR_MS, end_ms - 1, usize::MAX)?;
        times.push(clock() - began);
        selected = found.iter().map(|series| series.samples.len()).sum();
    }
    times.sort();
    Ok(Figures {
        samples,
        samples_per_second: samples as f64 / took.as_secs_f64(),
        round_max,
        bytes_per_sample: stats.block_bytes as f64 / stats.block_samples.max(1) as f64,
        blocks: stats.blocks,
        head_bytes: stats.head_bytes,
        open,
        selected,
        select: times[RUNS / 2],
        select_max: times[RUNS - 1],
    })
}

fn append(store: &Store, sources: &mut [(SeriesRef, Source)], at_ms: i64) -> Result<u64, BenchError> {
    let batch = sources.iter_mut().map(|(series, source)| (&*series, Sample { at_ms, value: source.draw() }));
    let done = store.append(batch)?;
    if done.rejected() > 0 {
        return Err(BenchError::Lost { lost: done.rejected() });
    }
    Ok(done.accepted)
}

/// As many labels as series of the proxy and of services have.
fn labels(number: usize) -> Labels {
    let bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
    Labels::new([
        (
            "__name__",
            format!("http_request_duration_seconds_{}", ["bucket", "sum", "count"][number / 12 % 3]),
        ),
        ("environment", "production".to_owned()),
        ("service", format!("service-{}", number / 500 % 20)),
        ("instance", format!("service-{}", number / 100)),
        ("version", "2026-08-01.3".to_owned()),
        ("route", format!("/api/v1/things/{}", number / 36 % 14)),
        ("le", bounds[number % 12].to_owned()),
        ("set", (number / 1_000).to_string()),
    ])
}

/// The kinds of values: below 9 counters, and the first of these the faster the higher; then what else there is.
pub const KINDS: usize = 16;

/// The values of one series, one after the other, and the same for the same seed.
#[derive(Clone, Debug)]
pub struct Source {
    kind: usize,
    value: f64,
    state: u64,
}

impl Source {
    /// `kind` is below [`KINDS`].
    #[must_use]
    pub fn new(kind: usize, seed: u64) -> Self {
        Self { kind, value: 0.0, state: seed }
    }

    /// SplitMix64: enough for values that look unlike each other.
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The next value.
    pub fn draw(&mut self) -> f64 {
        let random = self.random();
        match self.kind {
            // Requests, at different rates.
            0..6 => self.value += (random * 40.0 * 4_f64.powi(self.kind as i32 - 2)).floor(),
            // Errors, now and then.
            6..9 => self.value += f64::from(random > 0.97),
            // Never changes.
            9 => self.value = 1.0,
            // CPU seconds.
            10 | 11 => self.value = ((self.value + random * 3.0) * 100.0).round() / 100.0,
            // Per cent, degrees, items in a queue.
            12 => self.value = (random * 1_000.0).round() / 10.0,
            13 => self.value = (40.0 + random * 10.0).round(),
            // Bytes in use, in pages.
            14 => self.value = 2e8 + (random * 5_000.0).floor() * 4_096.0,
            // A sum of seconds, measured to the last digit.
            _ => self.value += random,
        }
        self.value
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// How long this thread has been on a processor: does not count what others of the machine take.
    fn on_processor() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
    }

    /// `cargo test --release -p fairway-metrics --lib bench -- --ignored --nocapture`
    #[test]
    #[ignore = "measures, and so wants a release build"]
    fn figures() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let wall = || start.elapsed();
        let clocks: [(&str, &dyn Fn() -> Duration); 2] = [("wall", &wall), ("processor", &on_processor)];
        for ((name, clock), series) in clocks.iter().flat_map(|clock| [(clock, 1_000), (clock, 10_000)]) {
            let dir = dir.path().join(format!("{name}-{series}"));
            let figures = bench(&dir, Load { series, hours: 13 }, clock).unwrap();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let resident: Vec<&str> = status.lines().filter(|line| line.starts_with("VmRSS")).collect();
            println!("{series} series by {name} clock: {figures:#?}\n{resident:?}");
            assert!(figures.bytes_per_sample <= 2.0);
            if *name == "processor" {
                assert!(figures.samples_per_second >= 100_000.0);
                assert!(figures.select < Duration::from_millis(60));
            }
        }
    }

    /// Alone in its process: `-- --ignored --exact store::bench::tests::memory_of_a_series --nocapture`
    #[test]
    #[ignore = "measures the memory of the whole process"]
    fn memory_of_a_series() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
        };
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap().store;
        let (series, before) = (100_000, resident());
        for number in 0..series {
            let labels = labels(number).with("pod", &format!("pod-{number:06}"));
            store.append_labels([(&labels, Sample { at_ms: 0, value: 1.0 })]).unwrap();
        }
        store.sync().unwrap();
        println!("{} bytes a series", (resident() - before) / series);
    }

    #[test]
    fn a_small_load_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let figures = bench(dir.path(), Load { series: 20, hours: 7 }, &|| start.elapsed()).unwrap();
        assert_eq!((figures.samples, figures.selected), (20 * 7 * 240, 20 * 6 * 240));
        assert!(figures.bytes_per_sample < 3.0, "{figures:?}");
    }
}
