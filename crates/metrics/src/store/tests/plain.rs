//! One thing at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::sample::stale;
use crate::select::{SelectError, Test};

#[test]
fn each_reason_for_a_refusal_is_counted() {
    let dir = scratch();
    let options = Options { series_max: 2, ..options() };
    let store = Store::open(dir.path(), options).unwrap().store;
    let (one, two, three) = (name("a", 1), name("a", 2), name("a", 3));
    let add = |labels: &Labels, at_ms, value| store.append_labels([(labels, sample(at_ms, value))]).unwrap();
    let none = Appended::default();
    assert_eq!(add(&one, 5, 1.0), Appended { accepted: 1, ..none });
    assert_eq!(add(&one, 5, 1.0), Appended { repeated: 1, ..none });
    assert_eq!(add(&one, 5, 2.0), Appended { conflicting: 1, ..none });
    assert_eq!(add(&one, 4, 1.0), Appended { out_of_order: 1, ..none });
    assert_eq!(add(&two, 5, stale()), Appended { accepted: 1, ..none });
    assert_eq!(add(&two, 5, stale()), Appended { repeated: 1, ..none });
    assert_eq!(add(&three, 5, 1.0), Appended { too_many_series: 1, ..none });
    assert_eq!(store.resolve(&three).unwrap_err(), Refused::TooManySeries { series_max: 2 });
    assert_eq!(add(&one, 10 * MINUTE_MS, 1.0).accepted, 1);
    store.maintain(10 * MINUTE_MS).unwrap();
    // The second one left memory, and so there is room.
    assert_eq!(add(&three, 5, 1.0), Appended { too_old: 1, ..none });
    let long = Labels::new([("a", "x".repeat(100_000))]);
    assert_eq!(add(&Labels::default(), 1, 1.0).rejected(), 1);
    drop(store);
    let store = open(dir.path()).store;
    assert_eq!(store.resolve(&Labels::default()).unwrap_err(), Refused::NoLabels);
    assert!(matches!(store.resolve(&long), Err(Refused::LabelsTooLong { .. })));
}

#[test]
fn the_own_labels_of_a_series_find_it_and_outlive_it() {
    let dir = scratch();
    let store = open(dir.path()).store;
    let asked = name("a", 1);
    assert_eq!(store.own_labels(&asked), None);
    fill(&store, &asked, 0..1);
    let own = store.own_labels(&asked).unwrap();
    assert!(own == asked && !std::ptr::eq(own.pairs(), asked.pairs()));
    // Both are one series.
    assert_eq!(fill(&store, &own, 0..2), Appended { accepted: 1, repeated: 1, ..Appended::default() });
    assert_eq!((store.stats().head_series, contents(&store)[&asked].len()), (1, 2));
    // They keep nothing in memory, and make the series anew when it has gone.
    fill(&store, &name("other", 0), 600..601);
    assert_eq!(store.maintain(600_000).unwrap().series_dropped, 1);
    assert_eq!(store.own_labels(&own), None);
    assert_eq!(fill(&store, &own, 601..602).accepted, 1);
    assert!(!std::ptr::eq(store.own_labels(&own).unwrap().pairs(), own.pairs()));
    store.sync().unwrap();
    drop(store);
    assert_eq!(contents(&open(dir.path()).store)[&asked].len(), 3);
}

#[test]
fn more_samples_than_a_query_may_have_are_refused_before_they_are_read() {
    let dir = scratch();
    let store = open(dir.path()).store;
    for series in 0..4 {
        fill(&store, &name("a", series), 0..60);
    }
    fill(&store, &name("a", 0), 600..601);
    assert_eq!(store.maintain(600_000).unwrap().blocks_cut, 1);
    let select = |samples_max| store.select(&[], 0, 59_999, samples_max).map(|series| series.len());
    assert_eq!(select(240).unwrap(), 4);
    for limit in [239, 100, 0] {
        assert!(matches!(select(limit), Err(SelectError::TooManySamples { limit: found }) if found == limit));
    }
    // Nothing of the chunks is needed for it.
    let block =
        files::names(dir.path()).unwrap().into_iter().find(|name| name.starts_with("block-")).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join(block).join("chunks"))
        .unwrap()
        .set_len(8)
        .unwrap();
    assert!(matches!(select(100), Err(SelectError::TooManySamples { limit: 100 })));
    assert!(matches!(select(239), Err(SelectError::Storage { .. })));
}

#[test]
fn a_reference_outlives_blocks_and_even_its_store() {
    let dir = scratch();
    let store = open(dir.path()).store;
    let (kept, dropped) = (store.resolve(&name("kept", 0)).unwrap(), name("dropped", 0));
    store.append([(&kept, sample(0, 1.0))]).unwrap();
    fill(&store, &dropped, 0..1);
    fill(&store, &name("other", 0), 600..601);
    let done = store.maintain(600_000).unwrap();
    assert_eq!((done.blocks_cut, done.series_dropped, done.checkpointed), (1, 1, true));
    assert_eq!(store.stats().head_series, 2);
    assert_eq!(store.append([(&kept, sample(600_000, 2.0))]).unwrap().accepted, 1);
    store.sync().unwrap();
    drop(store);
    let store = open(dir.path()).store;
    assert_eq!(
        store.append([(&kept, sample(600_000, 2.0)), (&kept, sample(600_001, 3.0))]).unwrap().accepted,
        1
    );
    assert_eq!(contents(&store)[kept.labels()].len(), 3);
}

#[test]
fn blocks_are_cut_merged_and_removed_by_age() {
    let dir = scratch();
    let options = Options { retention_ms: 100 * MINUTE_MS, ..options() };
    let store = Store::open(dir.path(), options).unwrap().store;
    let labels = name("a", 1);
    for minute in 0..250_i64 {
        fill(&store, &labels, minute * 60..minute * 60 + 60);
        store.sync().unwrap();
        store.maintain((minute + 1) * MINUTE_MS).unwrap();
        let oldest = *contents(&store)[&labels].first_key_value().unwrap().0;
        // A block of nine minutes goes when all of it is too old.
        assert!(
            (minute - 109..=(minute - 98).max(0)).contains(&(oldest / MINUTE_MS)),
            "{oldest} in {minute}"
        );
    }
    let stats = store.stats();
    assert!(stats.blocks < 20 && stats.log_bytes < 20_000, "{stats:?}");
    assert_eq!(stats.max_ms, Some(250 * MINUTE_MS - 1_000));
    let before = contents(&store);
    drop(store);
    assert_same(&contents(&open(dir.path()).store), &before, "opened again");
}

#[test]
fn blocks_are_removed_for_room_oldest_first() {
    let dir = scratch();
    let options = Options { retention_bytes: Some(40_000), ..options() };
    let store = Store::open(dir.path(), options).unwrap().store;
    for minute in 0..200 {
        for series in 0..20 {
            fill(&store, &name("a", series), minute * 60..minute * 60 + 60);
        }
        store.sync().unwrap();
        store.maintain((minute + 1) * MINUTE_MS).unwrap();
    }
    let stats = store.stats();
    let left = contents(&store);
    let times = &left[&name("a", 3)];
    let (first, last) = (*times.first_key_value().unwrap().0, *times.last_key_value().unwrap().0);
    assert!(stats.block_bytes + stats.log_bytes < 60_000, "{stats:?}");
    assert!(first > MINUTE_MS && stats.blocks > 1, "{stats:?} from {first}");
    assert_eq!((last - first) / 1_000 + 1, times.len() as i64);
}

#[test]
fn a_clock_that_jumps_closes_and_removes_nothing() {
    let dir = scratch();
    let store = open(dir.path()).store;
    fill(&store, &name("a", 1), 0..30);
    for now_ms in [i64::MAX, i64::MIN, 1 << 60] {
        assert_eq!(store.maintain(now_ms).unwrap(), Maintained::default());
    }
    assert_eq!(fill(&store, &name("a", 1), 30..60).accepted, 30);
    // One sample from the far future holds nothing up either, as long as the clock is right.
    store
        .append_labels([(&name("b", 1), sample(i64::MAX, 1.0)), (&name("c", 1), sample(-600_000, 1.0))])
        .unwrap();
    store.maintain(90_000).unwrap();
    assert_eq!(fill(&store, &name("a", 1), 60..90).accepted, 30);
    assert_eq!(contents(&store).len(), 3);
}

#[test]
fn labels_are_listed_with_and_without_matchers() {
    let dir = scratch();
    let store = open(dir.path()).store;
    fill(&store, &Labels::new([("__name__", "old"), ("code", "5xx")]), 0..10);
    fill(&store, &Labels::new([("__name__", "new"), ("route", "/")]), 600..610);
    store.maintain(610_000).unwrap();
    let old = [Matcher::equal("__name__", "old")];
    for (matchers, range, names, values) in [
        (&[][..], (i64::MIN, i64::MAX), &["__name__", "code", "route"][..], &["new", "old"][..]),
        (&[], (0, 9_000), &["__name__", "code"], &["old"]),
        (&[], (605_000, 605_000), &["__name__", "route"], &["new"]),
        (&[], (700_000, 800_000), &[], &[]),
        (&old, (0, i64::MAX), &["__name__", "code"], &["old"]),
        (&old, (9_001, i64::MAX), &[], &[]),
    ] {
        assert_eq!(store.label_names(matchers, range.0, range.1).unwrap(), names);
        assert_eq!(store.label_values("__name__", matchers, range.0, range.1).unwrap(), values);
    }
}

#[test]
fn a_series_counts_only_with_a_sample_in_the_range() {
    let dir = scratch();
    let store = open(dir.path()).store;
    let labels = name("a", 1);
    store.append_labels([1_000, 20_000, 50_000, 600_000].map(|at_ms| (&labels, sample(at_ms, 1.0)))).unwrap();
    for cut in [false, true] {
        if cut {
            assert_eq!(store.maintain(600_000).unwrap().blocks_cut, 1);
        }
        assert_eq!(contents_of(&store, &[], 1_001, 19_999), Contents::new());
        assert_eq!(contents_of(&store, &[], 2_000, 1_000), Contents::new());
        assert_eq!(contents_of(&store, &[], 1_001, 20_000).len(), 1);
    }
}

#[test]
fn too_many_samples_are_refused() {
    let dir = scratch();
    let store = open(dir.path()).store;
    fill(&store, &name("a", 1), 0..100);
    let ask = |samples_max| store.select(&[], 10_000, 19_000, samples_max);
    assert!(matches!(ask(9), Err(SelectError::TooManySamples { limit: 9 })));
    assert_eq!(ask(10).unwrap()[0].samples.len(), 10);
}

#[test]
fn another_length_of_blocks_loses_nothing() {
    let dir = scratch();
    let labels = name("a", 1);
    let mut second = 0;
    for block_ms in [MINUTE_MS, 7 * MINUTE_MS, 2 * MINUTE_MS, 5 * MINUTE_MS, MINUTE_MS] {
        let store = Store::open(dir.path(), Options { block_ms, ..options() }).unwrap().store;
        for _ in 0..20 {
            fill(&store, &labels, second..second + 77);
            second += 77;
            store.maintain(second * 1_000).unwrap();
            assert_eq!(contents(&store)[&labels].len() as i64, second);
        }
        store.sync().unwrap();
    }
    assert_eq!(contents(&open(dir.path()).store)[&labels].len() as i64, second);
}

#[test]
fn readers_see_whole_series_while_others_append_and_maintain() {
    let dir = scratch();
    let store = Arc::new(open(dir.path()).store);
    let stop = AtomicBool::new(false);
    let (asked, seconds) = (std::sync::atomic::AtomicUsize::new(0), 1_500);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (store, stop, asked) = (&store, &stop, &asked);
            scope.spawn(move || {
                let matcher =
                    Matcher { label: "instance".into(), test: Test::Regex(Matcher::regex("[0-4]").unwrap()) };
                let mut least = 0;
                while !stop.load(Ordering::Relaxed) {
                    let from_ms = if reader == 0 { 0 } else { 100_000 };
                    for series in
                        store.select(std::slice::from_ref(&matcher), from_ms, i64::MAX, usize::MAX).unwrap()
                    {
                        // Without a gap from the first to the last.
                        let last = series.samples.last().unwrap().at_ms;
                        assert_eq!((last - from_ms) / 1_000 + 1, series.samples.len() as i64);
                        if series.labels.get("instance") == Some("0") {
                            assert!(series.samples.len() >= least);
                            least = series.samples.len();
                        }
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.maintain(i64::MAX).unwrap();
                store.sync().unwrap();
            }
        });
        for second in 0..seconds {
            for series in 0..5 {
                assert_eq!(fill(&store, &name("a", series), second..second + 1).accepted, 1);
            }
            while asked.load(Ordering::Relaxed) < second as usize / 50 {
                std::thread::yield_now();
            }
        }
        // On a busy machine whoever maintains may not have had a turn yet.
        while store.stats().blocks < 2 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(contents(&store).values().all(|samples| samples.len() as i64 == seconds));
}

#[test]
fn only_one_process_writes() {
    let dir = scratch();
    let store = open(dir.path()).store;
    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(&error, StoreError::Locked { holder: Some(_), .. }), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
fn options_that_cannot_be_are_refused() {
    let dir = scratch();
    for options in [
        Options { block_ms: 0, ..options() },
        Options { block_ms: -1, ..options() },
        Options { block_ms: i64::MAX, ..options() },
        Options { retention_ms: 1, ..options() },
        Options { series_max: 0, ..options() },
    ] {
        assert!(matches!(Store::open(dir.path(), options), Err(StoreError::Option { .. })));
    }
}
