//! The store against a plain model, and what must hold when something goes wrong.

mod faults;
mod model;
mod plain;

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::labels::Labels;
use crate::sample::Sample;
use crate::select::{Matcher, Querier};

/// Labels, then time and bits of the value.
type Contents = BTreeMap<Labels, BTreeMap<i64, u64>>;

const MINUTE_MS: i64 = 60_000;

/// In memory where that can be: stories sync thousands of times, and no test here needs the disk to be real.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Blocks of a minute: a test need not write hours.
fn options() -> Options {
    Options {
        block_ms: MINUTE_MS,
        retention_ms: 10_000 * MINUTE_MS,
        retention_bytes: None,
        series_max: 1_000,
    }
}

fn open(dir: &Path) -> Opened {
    Store::open(dir, options()).unwrap()
}

fn name(metric: &str, instance: usize) -> Labels {
    Labels::new([("__name__", metric.to_owned()), ("instance", instance.to_string())])
}

fn sample(at_ms: i64, value: f64) -> Sample {
    Sample { at_ms, value }
}

/// One series, one sample every second.
fn fill(store: &Store, labels: &Labels, seconds: std::ops::Range<i64>) -> Appended {
    store.append_labels(seconds.map(|second| (labels, sample(second * 1_000, second as f64)))).unwrap()
}

fn contents(store: &Store) -> Contents {
    contents_of(store, &[], i64::MIN, i64::MAX)
}

fn contents_of(store: &Store, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Contents {
    let series = store.select(matchers, from_ms, to_ms, usize::MAX).unwrap();
    let names: Vec<&Labels> = series.iter().map(|series| &series.labels).collect();
    assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    assert_eq!(store.series(matchers, from_ms, to_ms).unwrap().iter().collect::<Vec<_>>(), names);
    let mut found = Contents::new();
    for series in series {
        let times: Vec<i64> = series.samples.iter().map(|sample| sample.at_ms).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{}: {times:?}", series.labels);
        let samples = series.samples.iter().map(|sample| (sample.at_ms, sample.value.to_bits())).collect();
        found.insert(series.labels, samples);
    }
    found
}

/// Tells the first difference instead of all of both.
fn assert_same(found: &Contents, expected: &Contents, why: &str) {
    assert_within(found, expected, &format!("{why}: nobody wrote it"));
    assert_within(expected, found, &format!("{why}: lost"));
}

/// Every sample of `part` is in `whole`, with the same bits.
fn assert_within(part: &Contents, whole: &Contents, why: &str) {
    for (labels, samples) in part {
        for (at_ms, bits) in samples {
            let found = whole.get(labels).and_then(|samples| samples.get(at_ms));
            assert_eq!(found, Some(bits), "{why}: {labels} at {at_ms}");
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
