//! Random series and random queries, the same for the same seed.

use fairway_metrics::labels::Labels;
use fairway_metrics::sample::stale;

use super::memory::Memory;

/// SplitMix64, after Steele, Lea and Flood.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub const START_MS: i64 = 1_700_000_000_000;
pub const STEP_MS: i64 = 15_000;
pub const STEPS: i64 = 400;

pub const JOBS: [&str; 3] = ["api", "db", "web"];
pub const INSTANCES: [&str; 3] = ["a:1", "b:2", "c:3"];

/// Counters with resets, gauges with all sorts of floats, classic histograms, and what joins them; with gaps, stale
/// markers and jitter.
pub fn data(random: &mut Random) -> Memory {
    let mut memory = Memory::default();
    for job in JOBS {
        for instance in INSTANCES {
            let base = [("job", job), ("instance", instance)];
            let of = |name: &str, more: &[(&str, &str)]| {
                Labels::new(base.iter().copied().chain([("__name__", name)]).chain(more.iter().copied()))
            };
            for code in ["200", "404", "500"] {
                counter(random, &mut memory, &of("requests_total", &[("code", code)]));
            }
            gauge(random, &mut memory, &of("load", &[]));
            gauge(random, &mut memory, &of("temperature", &[("zone", "north")]));
            constant(
                &mut memory,
                &of("build_info", &[("version", if job == "db" { "2" } else { "1" })]),
                1.0,
            );
            let mut counts = Vec::new();
            for le in ["0.1", "0.5", "1", "+Inf"] {
                counts.push((of("latency_bucket", &[("le", le)]), random.below(4)));
            }
            histogram(random, &mut memory, &counts);
            if job == "api" {
                small(random, &mut memory, &of("small", &[]));
            }
        }
    }
    gauge(random, &mut memory, &Labels::new([("__name__", "odd.name"), ("odd.label", "x"), ("job", "api")]));
    constant(&mut memory, &Labels::new([("__name__", "threshold"), ("job", "api")]), 3.0);
    constant(&mut memory, &Labels::new([("__name__", "clock")]), START_MS as f64 / 1000.0);
    memory
}

/// The time of a step; seldom exactly on it.
fn time(random: &mut Random, step: i64) -> i64 {
    let jitter = if random.chance(20) { random.below(4_000) as i64 } else { 0 };
    START_MS + step * STEP_MS + jitter
}

/// Runs of steps without a sample.
fn in_gap(random: &mut Random, left: &mut usize) -> bool {
    if *left > 0 {
        *left -= 1;
        return true;
    }
    if random.chance(1) {
        *left = random.below(40);
    }
    false
}

fn counter(random: &mut Random, memory: &mut Memory, labels: &Labels) {
    let mut value = random.below(100) as f64;
    let mut gap = 0;
    for step in 0..STEPS {
        value += random.below(20) as f64 * if random.chance(10) { 0.5 } else { 1.0 };
        if random.chance(2) {
            value = random.below(5) as f64;
        }
        if step > 0 && in_gap(random, &mut gap) {
            continue;
        }
        let shown = if random.chance(1) { stale() } else { value };
        memory.put(labels, time(random, step), if step == 0 { value } else { shown });
    }
}

fn gauge(random: &mut Random, memory: &mut Memory, labels: &Labels) {
    let mut gap = 0;
    let special = random.chance(40);
    for step in 0..STEPS {
        if step > 0 && in_gap(random, &mut gap) {
            continue;
        }
        let value = match random.below(60) {
            0 if special => f64::NAN,
            1 if special => f64::INFINITY,
            2 if special => f64::NEG_INFINITY,
            3 => 0.0,
            4 => stale(),
            5 => 1e9,
            6..=20 => random.below(7) as f64 - 3.0,
            _ => random.fraction() * 200.0 - 100.0,
        };
        memory.put(labels, time(random, step), if step == 0 { 1.0 } else { value });
    }
}

fn constant(memory: &mut Memory, labels: &Labels, value: f64) {
    for step in 0..STEPS {
        memory.put(labels, START_MS + step * STEP_MS, value);
    }
}

/// Few distinct values, so that ties happen.
fn small(random: &mut Random, memory: &mut Memory, labels: &Labels) {
    for step in 0..STEPS {
        memory.put(labels, START_MS + step * STEP_MS, random.below(3) as f64);
    }
}

fn histogram(random: &mut Random, memory: &mut Memory, buckets: &[(Labels, usize)]) {
    let mut totals = vec![0.0; buckets.len()];
    for step in 0..STEPS {
        let at = time(random, step);
        let mut added = 0;
        for (index, (labels, _)) in buckets.iter().enumerate() {
            added += random.below(3);
            totals[index] += added as f64;
            // Now and then a bucket lags behind a smaller one.
            let lag = if random.chance(2) { 5.0 } else { 0.0 };
            memory.put(labels, at, (totals[index] - lag).max(0.0));
        }
        if let Some((labels, _)) = buckets.last() {
            let count = labels.with("__name__", "latency_count").with("le", "");
            memory.put(&count, at, totals[buckets.len() - 1]);
            let sum = labels.with("__name__", "latency_sum").with("le", "");
            memory.put(&sum, at, totals.iter().sum::<f64>() * 0.3);
        }
    }
}
