//! Damaged files, a full disk, a machine that stops.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::super::disk::Disk;
use super::*;
use crate::select::SelectError;

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else if entry.file_name() != "lock" {
            all.push(entry.path());
        }
    }
    all.sort();
    all
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Blocks, a checkpoint and a segment, and what they hold.
fn example(dir: &Path) -> Contents {
    let store = open(dir).store;
    for series in 0..4 {
        fill(&store, &name("a", series), 0..200);
    }
    store.maintain(200_000).unwrap();
    for series in 2..6 {
        fill(&store, &name("a", series), 200..210);
        store.sync().unwrap();
    }
    let stats = store.stats();
    assert!(stats.blocks == 2 && stats.log_bytes > 0, "{stats:?}");
    contents(&store)
}

#[test]
fn a_damaged_byte_anywhere_is_reported_and_never_becomes_a_value() {
    let root = scratch();
    let whole = example(&root.path().join("whole"));
    let mut rng = fastrand::Rng::with_seed(8);
    for (number, path) in files(&root.path().join("whole")).into_iter().enumerate() {
        let length = std::fs::metadata(&path).unwrap().len();
        let mut places: Vec<u64> = (0..40).map(|_| rng.u64(..length)).collect();
        places.extend(0..length.min(14));
        for (count, place) in places.into_iter().enumerate() {
            let dir = root.path().join(format!("{number}-{count}"));
            copy_dir(&root.path().join("whole"), &dir);
            let damaged = dir.join(path.strip_prefix(root.path().join("whole")).unwrap());
            flip(&damaged, place);
            let opened = match Store::open(&dir, options()) {
                Ok(opened) => opened,
                // A digit of the version became a higher one.
                Err(StoreError::Newer { .. }) if damaged.ends_with("meta.json") => continue,
                Err(error) => panic!("{error}"),
            };
            let told = !opened.recovered.damages.is_empty() || opened.recovered.torn.is_some();
            match opened.store.select(&[], i64::MIN, i64::MAX, usize::MAX) {
                Ok(found) => {
                    let mut same = true;
                    for series in &found {
                        for sample in &series.samples {
                            let value = whole.get(&series.labels).and_then(|known| known.get(&sample.at_ms));
                            assert_eq!(value, Some(&sample.value.to_bits()), "{damaged:?} at {place}");
                        }
                    }
                    same &= contents(&opened.store) == whole;
                    assert!(same || told, "silent loss: {damaged:?} at {place}");
                }
                Err(SelectError::Storage { why }) => assert!(why.contains("is damaged at byte"), "{why}"),
                Err(error) => panic!("{error}"),
            }
            drop(opened);
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}

#[test]
fn damage_in_the_log_is_reported_with_its_place_and_the_rest_is_kept() {
    let dir = scratch();
    let store = open(dir.path()).store;
    for second in 0..10 {
        fill(&store, &name("a", 1), second..second + 1);
        store.sync().unwrap();
    }
    drop(store);
    let segment = dir.path().join("log/0000000001");
    let length = std::fs::metadata(&segment).unwrap().len();
    // Frames are equally long but for the first two: the series, and the first sample of a longer time.
    flip(&segment, length - 60);
    let recovered = open(dir.path()).recovered;
    let [damage] = &recovered.damages[..] else { panic!("{recovered:?}") };
    assert_eq!((&damage.file, recovered.samples), (&segment, 9));
    assert!((damage.offset..damage.offset + damage.bytes).contains(&(length - 60)), "{damage:?}");
    // The loss is not forgotten while the file is there.
    assert_eq!(open(dir.path()).recovered.damages, recovered.damages);
}

#[test]
fn a_lost_series_record_is_counted_with_its_samples() {
    let dir = scratch();
    let store = open(dir.path()).store;
    fill(&store, &name("a", 1), 0..5);
    store.sync().unwrap();
    drop(store);
    flip(&dir.path().join("log/0000000001"), 30);
    let recovered = open(dir.path()).recovered;
    assert_eq!((recovered.damages.len(), recovered.samples, recovered.samples_without_series), (1, 0, 5));
}

#[test]
fn a_damaged_block_is_set_aside_and_goes_when_its_time_is_over() {
    let dir = scratch();
    example(dir.path());
    let index = dir.path().join("block-0_60000/index");
    let length = std::fs::metadata(&index).unwrap().len();
    flip(&index, length - 30);
    let Opened { store, recovered } = open(dir.path());
    let aside = dir.path().join("damaged-block-0_60000");
    assert_eq!((recovered.blocks, recovered.damages[0].file.clone()), (1, aside.join("index")));
    assert!(contents(&store)[&name("a", 1)].len() == 140 && aside.exists());
    drop(store);
    let options = Options { retention_ms: 2 * MINUTE_MS, ..options() };
    let store = Store::open(dir.path(), options).unwrap().store;
    assert_eq!(store.maintain(i64::MAX).unwrap().blocks_removed, 1);
    assert!(!aside.exists());
}

#[test]
fn a_newer_block_stops_the_start_and_stays() {
    let dir = scratch();
    example(dir.path());
    let meta = dir.path().join("block-0_60000/meta.json");
    let text = std::fs::read_to_string(&meta).unwrap();
    std::fs::write(&meta, text.replace("\"version\": 1", "\"version\": 7")).unwrap();
    assert!(matches!(Store::open(dir.path(), options()), Err(StoreError::Newer { version: 7, .. })));
    assert!(meta.exists());
}

#[test]
fn maintain_may_stop_at_any_call() {
    let root = scratch();
    let prepare = |dir: &Path| {
        let disk = Disk::default();
        let store = Store::open_on(disk.clone(), dir, options()).unwrap().store;
        for minute in 0..3 {
            for series in 0..3 {
                fill(&store, &name("a", series), minute * 60..minute * 60 + 60);
            }
        }
        store.maintain(180_000).unwrap();
        fill(&store, &name("a", 1), 180..600);
        store.sync().unwrap();
        (disk, store)
    };
    let mut stops = 0;
    loop {
        let dir = root.path().join(stops.to_string());
        let (disk, store) = prepare(&dir);
        let before = contents(&store);
        *disk.faults.calls_left.lock().unwrap() = Some(stops);
        let outcome = store.maintain(600_000);
        assert_same(&contents(&store), &before, &format!("in memory, stopped at {stops}"));
        drop(store);
        let Opened { store, recovered } = open(&dir);
        assert_eq!(recovered.damages, [], "stopped at {stops}");
        assert_same(&contents(&store), &before, &format!("stopped at {stops}"));
        store.maintain(600_000).unwrap();
        assert_same(&contents(&store), &before, &format!("went on after {stops}"));
        let left =
            std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| !name.starts_with("block-")).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        if let Ok(done) = outcome {
            assert!(done.blocks_cut == 7 && done.blocks_merged > 3, "{done:?}");
            break;
        }
        stops += 1;
    }
    assert!(stops > 50, "{stops}");
}

#[test]
fn a_full_disk_loses_nothing_and_writing_goes_on() {
    let dir = scratch();
    let disk = Disk::default();
    let store = Store::open_on(disk.clone(), dir.path(), options()).unwrap().store;
    let labels = name("a", 1);
    fill(&store, &labels, 0..100);
    store.sync().unwrap();
    *disk.faults.bytes_left.lock().unwrap() = Some(10);
    fill(&store, &labels, 100..300);
    for _ in 0..3 {
        let error = store.sync().unwrap_err();
        assert!(error.to_string().starts_with("no room left to write"), "{error}");
        assert!(matches!(store.maintain(300_000), Err(StoreError::DiskFull { .. })));
        assert_eq!(contents(&store)[&labels].len(), 300);
    }
    // Killed now, what was synced is there.
    let copy = scratch();
    copy_dir(dir.path(), copy.path());
    let Opened { store: other, recovered } = open(copy.path());
    assert!(contents(&other)[&labels].len() >= 100 && recovered.damages.is_empty(), "{recovered:?}");
    *disk.faults.bytes_left.lock().unwrap() = None;
    store.sync().unwrap();
    assert!(store.maintain(300_000).unwrap().blocks_cut > 0);
    drop(store);
    assert_eq!(contents(&open(dir.path()).store)[&labels].len(), 300);
}

#[test]
fn what_waits_for_a_full_disk_is_bounded() {
    let dir = scratch();
    let disk = Disk::default();
    let store = Store::open_on(disk.clone(), dir.path(), options()).unwrap().store;
    let series: Vec<SeriesRef> =
        (0..1_000).map(|number| store.resolve(&name("a", number)).unwrap()).collect();
    *disk.faults.bytes_left.lock().unwrap() = Some(0);
    let mut taken = 0_usize;
    let error = loop {
        let at_ms = (taken / 1_000) as i64;
        let batch =
            (0..40).flat_map(|step| series.iter().map(move |series| (series, sample(at_ms + step, 0.5))));
        match store.append(batch) {
            Ok(done) => taken += done.accepted as usize,
            Err(error) => break error,
        }
        assert!(taken < 10_000_000, "no bound");
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(store.writer().log.pending_bytes() < 34 << 20);
    *disk.faults.bytes_left.lock().unwrap() = None;
    assert_eq!(store.append([(&series[0], sample(1 << 40, 1.0))]).unwrap().accepted, 1);
    drop(store);
    assert_eq!(open(dir.path()).recovered.samples, taken as u64);
}

#[test]
fn starts_leave_no_segments_behind() {
    let dir = scratch();
    fill(&open(dir.path()).store, &name("a", 1), 0..5);
    for _ in 0..20 {
        drop(open(dir.path()));
    }
    assert!(std::fs::read_dir(dir.path().join("log")).unwrap().count() <= 2);
}
