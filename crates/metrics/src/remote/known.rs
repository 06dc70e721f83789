//! The names of series by the bytes in which they come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::labels::Labels;
use crate::sample::TimestampMs;

/// What all names together may take: those of half a million series with labels as services have them. The series
/// themselves take four times as much in the store. Names beyond it are taken apart each time, which is slower and no
/// more.
const BYTES_MAX: usize = 128 << 20;

/// Longer names are rare, and few of them would push out many others.
const NAME_BYTES_MAX: usize = 4 << 10;

/// What is not used between two such moments is forgotten: series that ended, or come more seldom than anybody scrapes.
const FORGET_EVERY_MS: i64 = 10 * 60 * 1000;

/// Names that were taken apart and found good. Only whoever meets a new one waits for others.
#[derive(Debug, Default)]
pub(super) struct Known(RwLock<Names>);

#[derive(Debug, Default)]
struct Names {
    by_bytes: HashMap<Box<[u8]>, Name>,
    /// What they take, about.
    bytes: usize,
    /// Rises with each moment of forgetting.
    round: u64,
    round_began_ms: TimestampMs,
}

#[derive(Debug)]
struct Name {
    /// Whoever keeps the series has these too.
    labels: Labels,
    /// The round in which it was found last.
    used: AtomicU64,
}

/// What one request knows, and what it meets.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    names: RwLockReadGuard<'a, Names>,
    new: Vec<(Box<[u8]>, Labels)>,
    new_bytes: usize,
}

/// A place in the map, of which up to half are empty, and the bytes.
fn room(bytes: &[u8]) -> usize {
    96 + bytes.len()
}

impl Known {
    pub fn seen(&self) -> Seen<'_> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Seen { names, new: Vec::new(), new_bytes: 0 }
    }

    /// What [`Seen`] met, once it is gone. Of these, names for which `own` has labels are remembered, with those.
    pub fn learn(&self, mut new: Vec<(Box<[u8]>, Labels)>, own: impl Fn(&Labels) -> Option<Labels>) {
        new.retain_mut(|(_, labels)| own(labels).map(|kept| *labels = kept).is_some());
        if new.is_empty() {
            return;
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (bytes, labels) in new {
            let room = room(&bytes);
            // Another request may have brought it, or filled the room, meanwhile.
            if names.bytes + room > BYTES_MAX || names.by_bytes.contains_key(&bytes) {
                continue;
            }
            names.bytes += room;
            let used = AtomicU64::new(names.round);
            names.by_bytes.insert(bytes, Name { labels, used });
        }
    }

    /// To be called before each request; does something once in a while.
    pub fn forget_unused(&self, now_ms: TimestampMs) {
        // Also when the clock was set back.
        let is_due = |names: &Names| names.round_began_ms.abs_diff(now_ms) >= FORGET_EVERY_MS.unsigned_abs();
        if !is_due(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !is_due(&names) {
            return;
        }
        let Names { by_bytes, bytes, round, round_began_ms } = &mut *names;
        by_bytes.retain(|name, Name { used, .. }| {
            let kept = *used.get_mut() == *round;
            if !kept {
                *bytes -= room(name);
            }
            kept
        });
        by_bytes.shrink_to_fit();
        *round += 1;
        *round_began_ms = now_ms;
    }
}

impl Seen<'_> {
    pub fn find(&self, bytes: &[u8]) -> Option<Labels> {
        let Name { labels, used } = self.names.by_bytes.get(bytes)?;
        used.store(self.names.round, Ordering::Relaxed);
        Some(labels.clone())
    }

    /// Remembers a name that was taken apart, if there is room.
    pub fn add(&mut self, bytes: &[u8], labels: &Labels) {
        let room = room(bytes);
        if bytes.len() > NAME_BYTES_MAX || self.names.bytes + self.new_bytes + room > BYTES_MAX {
            return;
        }
        self.new_bytes += room;
        self.new.push((bytes.into(), labels.clone()));
    }

    pub fn into_new(self) -> Vec<(Box<[u8]>, Labels)> {
        self.new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(known: &Known, name: &str) {
        let mut seen = known.seen();
        if seen.find(name.as_bytes()).is_none() {
            seen.add(name.as_bytes(), &Labels::new([("__name__", name), ("job", "api")]));
        }
        known.learn(seen.into_new(), |labels| Some(labels.clone()));
    }

    fn knows(known: &Known, name: &str) -> bool {
        known.0.read().unwrap().by_bytes.contains_key(name.as_bytes())
    }

    #[test]
    fn a_name_that_comes_again_is_kept_and_one_that_does_not_is_forgotten() {
        let known = Known::default();
        known.forget_unused(FORGET_EVERY_MS);
        meet(&known, "ended");
        meet(&known, "lasts");
        assert_eq!(known.seen().find(b"lasts").unwrap().to_string(), r#"lasts{job="api"}"#);
        for round in 2..5 {
            known.forget_unused(round * FORGET_EVERY_MS);
            known.forget_unused(round * FORGET_EVERY_MS + 1);
            assert_eq!((knows(&known, "ended"), knows(&known, "lasts")), (round == 2, true));
            meet(&known, "lasts");
        }
        // The clock was set back by a day; then nothing comes for two rounds.
        for at_ms in [-100, -99] {
            known.forget_unused(at_ms * FORGET_EVERY_MS);
        }
        let names = known.0.read().unwrap();
        assert_eq!((names.by_bytes.len(), names.bytes), (0, 0));
    }

    #[test]
    fn a_name_is_remembered_with_the_labels_of_whoever_keeps_the_series() {
        let known = Known::default();
        let own = Labels::new([("__name__", "kept")]);
        let mut seen = known.seen();
        for name in ["kept", "refused"] {
            seen.add(name.as_bytes(), &Labels::new([("__name__", name)]));
        }
        known.learn(seen.into_new(), |labels| (*labels == own).then(|| own.clone()));
        assert!(std::ptr::eq(known.seen().find(b"kept").unwrap().pairs(), own.pairs()));
        assert_eq!(known.seen().find(b"refused"), None);
    }

    #[test]
    fn there_is_a_bound_and_what_is_beyond_it_is_not_remembered() {
        let known = Known::default();
        meet(&known, &"x".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(known.0.read().unwrap().by_bytes.len(), 0);
        let one = room(b"12345678");
        known.0.write().unwrap().bytes = BYTES_MAX - 2 * one;
        // Two requests at one time, each of which finds room for two.
        let news = [0, 2].map(|first| {
            let mut seen = known.seen();
            for number in first..first + 3 {
                let name = format!("{number:08}");
                seen.add(name.as_bytes(), &Labels::new([("__name__", name.as_str()), ("job", "api")]));
            }
            seen.into_new()
        });
        assert_eq!(news.each_ref().map(Vec::len), [2, 2]);
        news.into_iter().for_each(|new| known.learn(new, |labels| Some(labels.clone())));
        assert_eq!(known.0.read().unwrap().by_bytes.len(), 2);
        assert!(knows(&known, "00000000") && knows(&known, "00000001"));
    }
}
