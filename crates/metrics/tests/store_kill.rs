//! A process that is killed while it writes, and a disk that is really full.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use fairway_metrics::labels::Labels;
use fairway_metrics::sample::Sample;
use fairway_metrics::select::Querier;
use fairway_metrics::store::{Options, Store, StoreError};

/// Set in the process that is to be killed.
const DIR: &str = "FAIRWAY_TEST_STORE_DIR";

fn open(dir: &Path) -> Store {
    let options = Options { block_ms: 60_000, retention_ms: 1 << 40, ..Options::default() };
    let opened = Store::open(dir, options).unwrap();
    assert_eq!(opened.recovered.damages, []);
    opened.store
}

fn series(number: usize) -> Labels {
    Labels::new([("__name__", "up".to_owned()), ("instance", number.to_string())])
}

/// Samples of each series: all equally many but the last round, and each with its time as its value.
fn rounds(store: &Store) -> (usize, usize) {
    let found = store.select(&[], i64::MIN, i64::MAX, usize::MAX).unwrap();
    for series in &found {
        for (number, sample) in series.samples.iter().enumerate() {
            assert_eq!((sample.at_ms, sample.value), (number as i64 * 1_000, number as f64));
        }
    }
    let counts = || found.iter().map(|series| series.samples.len());
    (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
}

/// Runs by itself only in the process that the other test starts; a test binary has no other entry.
#[test]
fn write_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = open(Path::new(&dir));
    let names: Vec<Labels> = (0..20).map(series).collect();
    for round in rounds(&store).1.. {
        let sample = Sample { at_ms: round as i64 * 1_000, value: round as f64 };
        store.append_labels(names.iter().map(|labels| (labels, sample))).unwrap();
        store.sync().unwrap();
        println!("synced {}", round + 1);
        if round % 10 == 0 {
            store.maintain(i64::MAX).unwrap();
        }
    }
}

#[test]
fn what_was_synced_is_there_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut at_least = 0;
    for wanted in [3, 200, 77, 400, 1] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let synced = lines
            .map_while(Result::ok)
            .filter_map(|line| Some(line.split_once("synced ")?.1.parse().unwrap()));
        at_least = synced.take(wanted).last().unwrap_or(at_least);
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(dir.path());
        let (min, max) = rounds(&store);
        assert!(min >= at_least && max <= min + 1, "{at_least} were synced, {min} to {max} are there");
    }
    assert!(at_least > 600);
    assert!(open(dir.path()).stats().blocks > 1);
}

/// `unshare -rm` gives a mount namespace in which anybody may mount; the test calls itself in there.
#[test]
#[ignore = "needs user namespaces or root, and tmpfs"]
fn a_real_full_disk_is_borne() {
    let Some(dir) = std::env::var_os(DIR) else {
        let dir = tempfile::tempdir().unwrap();
        let exe = std::env::current_exe().unwrap();
        let script = format!(
            "mount -t tmpfs -o size=2m none {0} && exec {1} --ignored --exact a_real_full_disk_is_borne",
            dir.path().display(),
            exe.display()
        );
        let status =
            Command::new("unshare").args(["-rm", "sh", "-c", &script]).env(DIR, dir.path()).status().unwrap();
        assert!(status.success());
        return;
    };
    let dir = Path::new(&dir);
    let filler = dir.join("filler");
    let store = open(&dir.join("store"));
    let names: Vec<Labels> = (0..20).map(series).collect();
    let mut round = 0;
    let mut write = |count: usize| {
        for _ in 0..count {
            let sample = Sample { at_ms: round * 1_000, value: round as f64 };
            store.append_labels(names.iter().map(|labels| (labels, sample))).unwrap();
            round += 1;
        }
        round as usize
    };
    let synced = write(300);
    store.sync().unwrap();
    // Takes all the room that there is.
    let _ = std::fs::write(&filler, vec![1; 4 << 20]);
    let written = write(3_000);
    let error = store.sync().unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(matches!(store.maintain(i64::MAX), Err(StoreError::DiskFull { .. })));
    assert_eq!(rounds(&store), (written, written));
    assert!(synced < written);
    std::fs::remove_file(&filler).unwrap();
    store.sync().unwrap();
    assert!(store.maintain(i64::MAX).unwrap().blocks_cut > 0);
    drop(store);
    assert_eq!(rounds(&open(&dir.join("store"))), (written, written));
}
