//! Random stories, against maps.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::disk::Disk;
use super::super::files::LOG_DIR;
use super::super::log::segment_path;
use super::*;
use crate::sample::{NAN_BITS, STALE_BITS};
use crate::select::Test;

struct Story {
    rng: fastrand::Rng,
    root: tempfile::TempDir,
    dirs: usize,
    options: Options,
    store: Store,
    /// What is to be found.
    all: Contents,
    /// What retention removed. The log may still hold it when the disk was full, and bring it back until the next time.
    removed: Contents,
    /// What must be found after a crash.
    synced: Contents,
    /// The newest sample of each series that the store has ever had and that a crash did not take.
    last: BTreeMap<Labels, (i64, u64)>,
    now_ms: i64,
}

impl Story {
    fn begin(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let root = scratch();
        let retention_ms = if rng.bool() { options().retention_ms } else { rng.i64(3..40) * MINUTE_MS };
        let options = Options { retention_ms, ..options() };
        let store = Store::open(&root.path().join("0"), options.clone()).unwrap().store;
        // Some stories begin before 1970, some with the clock of today.
        let now_ms = rng.choice([-7 * MINUTE_MS, 0, 1_790_000_000_123]).unwrap();
        Self {
            rng,
            root,
            dirs: 1,
            options,
            store,
            all: Contents::new(),
            removed: Contents::new(),
            synced: Contents::new(),
            last: BTreeMap::new(),
            now_ms,
        }
    }

    fn append(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..self.rng.usize(1..40) {
            if self.rng.u8(..8) == 0 {
                self.now_ms += self.rng.i64(1..20_000);
            }
            let late = if self.rng.u8(..10) == 0 { self.rng.i64(0..3 * MINUTE_MS) } else { 0 };
            let bits = match self.rng.u8(..12) {
                0 => STALE_BITS,
                1 => NAN_BITS,
                2 => (-0.0_f64).to_bits(),
                3 => f64::NEG_INFINITY.to_bits(),
                4 => self.rng.u64(..),
                _ => (f64::from(self.rng.u16(..)) / 10.0).to_bits(),
            };
            let labels = name(["up", "down"][self.rng.usize(..2)], self.rng.usize(..6));
            batch.push((labels, sample(self.now_ms - late, f64::from_bits(bits))));
        }
        let min_valid_ms = self.store.min_valid_ms();
        let mut expected = Appended::default();
        for (labels, sample) in &batch {
            let (at_ms, bits) = (sample.at_ms, sample.value.to_bits());
            let last = self.last.get(labels);
            if at_ms < min_valid_ms {
                expected.too_old += 1;
            } else if last.is_some_and(|(last_ms, _)| at_ms < *last_ms) {
                expected.out_of_order += 1;
            } else if last == Some(&(at_ms, bits)) {
                expected.repeated += 1;
            } else if last.is_some_and(|(last_ms, _)| at_ms == *last_ms) {
                expected.conflicting += 1;
            } else {
                expected.accepted += 1;
                self.last.insert(labels.clone(), (at_ms, bits));
                self.all.entry(labels.clone()).or_default().insert(at_ms, bits);
            }
        }
        let done = if self.rng.bool() {
            self.store.append_labels(batch.iter().map(|(labels, sample)| (labels, *sample)))
        } else {
            let resolve = |labels| self.store.resolve(labels).unwrap();
            let refs: Vec<_> = batch.iter().map(|(labels, sample)| (resolve(labels), *sample)).collect();
            self.store.append(refs.iter().map(|(series, sample)| (series, *sample)))
        };
        assert_eq!(done.unwrap(), expected);
    }

    fn sync(&mut self) {
        self.store.sync().unwrap();
        self.synced = self.all.clone();
    }

    /// Retention may take what is old, and nothing else.
    fn after_maintain(&mut self, now_ms: i64) {
        let newest = self.last.values().map(|(at_ms, _)| *at_ms).max().unwrap_or(i64::MIN);
        let kept_ms = newest.min(now_ms).saturating_sub(self.options.retention_ms);
        let found = contents(&self.store);
        assert_within(&found, &self.all, "nobody wrote it");
        let mut must = self.all.clone();
        must.values_mut().for_each(|samples| samples.retain(|at_ms, _| *at_ms >= kept_ms));
        assert_within(&must, &found, "lost in maintain");
        for (labels, mut samples) in std::mem::replace(&mut self.all, found) {
            samples.retain(|at_ms, _| !self.all.get(&labels).is_some_and(|kept| kept.contains_key(at_ms)));
            self.removed.entry(labels).or_default().extend(samples);
        }
        let all = &self.all;
        self.synced.retain(|labels, _| all.contains_key(labels));
        self.synced
            .iter_mut()
            .for_each(|(labels, samples)| samples.retain(|at_ms, _| all[labels].contains_key(at_ms)));
    }

    fn maintain(&mut self) {
        let now_ms = self.now_ms + self.rng.i64(-2 * MINUTE_MS..4 * MINUTE_MS);
        self.store.maintain(now_ms).unwrap();
        self.after_maintain(now_ms);
    }

    fn ask(&mut self) {
        let from_ms = self.now_ms - self.rng.i64(0..30 * MINUTE_MS);
        let to_ms = from_ms + self.rng.i64(0..20 * MINUTE_MS);
        let matchers = match self.rng.u8(..4) {
            0 => vec![],
            1 => vec![Matcher::equal("__name__", "up")],
            2 => {
                let pattern = Matcher::regex("1|[35]").unwrap();
                vec![Matcher { label: "instance".to_owned(), test: Test::Regex(pattern) }]
            }
            _ => vec![
                Matcher { label: "instance".to_owned(), test: Test::NotEqual("2".to_owned()) },
                Matcher {
                    label: "__name__".to_owned(),
                    test: Test::NotRegex(Matcher::regex("d.*").unwrap()),
                },
            ],
        };
        let mut expected = self.all.clone();
        expected.retain(|labels, samples| {
            samples.retain(|at_ms, _| (from_ms..=to_ms).contains(at_ms));
            !samples.is_empty() && matchers.iter().all(|matcher| matcher.accepts(labels))
        });
        assert_same(&contents_of(&self.store, &matchers, from_ms, to_ms), &expected, "asked");
        let total: usize = expected.values().map(BTreeMap::len).sum();
        if total > 0 {
            let ask = |samples_max| self.store.select(&matchers, from_ms, to_ms, samples_max);
            assert!(ask(total).is_ok() && ask(total - 1).is_err());
        }
    }

    fn next_dir(&mut self) -> PathBuf {
        self.dirs += 1;
        self.root.path().join(self.dirs.to_string())
    }

    /// What came back after a crash is what there is now.
    fn accept(&mut self, recovered: &Recovered) {
        assert_eq!((&recovered.damages, recovered.samples_without_series), (&vec![], 0));
        let found = contents(&self.store);
        let mut possible = self.all.clone();
        for (labels, samples) in &self.removed {
            possible.entry(labels.clone()).or_default().extend(samples);
        }
        assert_within(&found, &possible, "nobody wrote it");
        assert_within(&self.synced, &found, "lost although synced");
        self.last.retain(|labels, last| {
            let Some((at_ms, bits)) = found.get(labels).and_then(|samples| samples.last_key_value()) else {
                return false;
            };
            *last = (*at_ms, *bits);
            true
        });
        (self.all, self.synced) = (found.clone(), found);
    }

    /// The process is killed, or the machine, and a part of what was not synced is gone.
    fn crash(&mut self) {
        let dir = self.next_dir();
        copy_dir(&self.store.dir, &dir);
        let (segment, synced, written) = {
            let writer = self.store.writer();
            let path = segment_path(&dir.join(LOG_DIR), writer.log.segment());
            (path.clone(), writer.log.synced_bytes(), std::fs::metadata(path).unwrap().len())
        };
        let cut = self.rng.u64(synced..=written);
        std::fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(cut).unwrap();
        let opened = Store::open(&dir, self.options.clone()).unwrap();
        self.store = opened.store;
        self.accept(&opened.recovered);
    }

    /// The machine stops at some call of a sync or a `maintain`.
    fn stop(&mut self) {
        let dir = self.store.dir.clone();
        let before = self.all.clone();
        *self.store.disk.faults.calls_left.lock().unwrap() = Some(self.rng.u64(..40));
        let now_ms = self.now_ms + self.rng.i64(0..4 * MINUTE_MS);
        if self.store.sync().is_ok() {
            self.synced = before;
        }
        let _ = self.store.maintain(now_ms);
        self.reopen_as(&dir, Disk::default());
        // Retention may have begun.
        let newest = self.last.values().map(|(at_ms, _)| *at_ms).max().unwrap_or(i64::MIN);
        let kept_ms = newest.min(now_ms).saturating_sub(self.options.retention_ms);
        self.synced.values_mut().for_each(|samples| samples.retain(|at_ms, _| *at_ms >= kept_ms));
        self.accept(&Recovered::default());
    }

    fn reopen_as(&mut self, dir: &Path, disk: Disk) {
        // The lock goes with the store.
        let other = self.next_dir();
        self.store = Store::open(&other, self.options.clone()).unwrap().store;
        let opened = Store::open_on(disk, dir, self.options.clone()).unwrap();
        assert_eq!(opened.recovered.damages, []);
        self.store = opened.store;
    }

    /// The disk fills up, and has room again. Nothing is lost, synced or not.
    fn fill_disk(&mut self) {
        *self.store.disk.faults.bytes_left.lock().unwrap() = Some(self.rng.u64(..3_000));
        for _ in 0..self.rng.usize(1..6) {
            self.append();
            let full = |error: &StoreError| matches!(error, StoreError::DiskFull { .. });
            match self.store.sync() {
                Ok(()) => self.synced = self.all.clone(),
                Err(error) => assert!(full(&error), "{error}"),
            }
            let now_ms = self.now_ms + self.rng.i64(0..4 * MINUTE_MS);
            if let Err(error) = self.store.maintain(now_ms) {
                assert!(full(&error), "{error}");
            }
            self.after_maintain(now_ms);
        }
        if self.rng.bool() {
            self.crash();
        } else {
            *self.store.disk.faults.bytes_left.lock().unwrap() = None;
            self.sync();
        }
    }
}

fn tell(seed: u64) {
    let mut story = Story::begin(seed);
    for _ in 0..120 {
        match story.rng.u8(..32) {
            0..16 => story.append(),
            16..20 => story.sync(),
            20..24 => story.maintain(),
            24..28 => story.ask(),
            28 | 29 => story.crash(),
            30 => story.stop(),
            _ => story.fill_disk(),
        }
    }
    story.sync();
    story.maintain();
    story.crash();
    assert_same(&contents(&story.store), &story.all, "at the end");
}

#[test]
fn random_stories_end_as_the_model_says() {
    for seed in 0..40 {
        if let Err(panic) = std::panic::catch_unwind(|| tell(seed)) {
            eprintln!("story {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
