//! The newest samples, in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chunk::{Chunk, Open};
use super::matching::{Candidates, LabelIndex};
use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};

/// One series. The writer adds to it, readers take chunks out; each holds its lock for less than a microsecond.
#[derive(Debug)]
pub(super) struct MemSeries {
    /// Which store it belongs to: a name may be kept longer than the store is open.
    pub store: u64,
    pub id: u64,
    pub labels: Labels,
    data: Mutex<Data>,
}

#[derive(Debug, Default)]
struct Data {
    /// Oldest first.
    sealed: Vec<Arc<Chunk>>,
    open: Option<Open>,
    /// Time and bits of the newest sample, also when its chunk is in a block by now.
    last: Option<(TimestampMs, u64)>,
}

/// What became of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Added,
    Repeated,
    Conflicting,
    OutOfOrder,
}

impl MemSeries {
    pub fn new(store: u64, id: u64, labels: Labels) -> Self {
        Self { store, id, labels, data: Mutex::default() }
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        // Nothing in here panics between two states.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No chunk reaches beyond a multiple of `block_ms`, so that blocks take whole chunks.
    pub fn push(&self, sample: Sample, block_ms: i64) -> Taken {
        let mut data = self.data();
        if let Some((last_ms, value)) = data.last {
            if sample.at_ms < last_ms {
                return Taken::OutOfOrder;
            }
            if sample.at_ms == last_ms {
                return if sample.value.to_bits() == value { Taken::Repeated } else { Taken::Conflicting };
            }
        }
        data.last = Some((sample.at_ms, sample.value.to_bits()));
        let period = |ms: TimestampMs| ms.div_euclid(block_ms);
        match &mut data.open {
            Some(open) if !open.is_full() && period(open.min_ms()) == period(sample.at_ms) => {
                open.push(sample)
            }
            open => {
                if let Some(full) = open.replace(Open::new(sample)) {
                    data.sealed.push(Arc::new(full.seal()));
                }
            }
        }
        Taken::Added
    }

    /// Puts back what a checkpoint holds. Only before anything else was added.
    pub fn restore(&self, chunk: Chunk, last: (TimestampMs, u64)) {
        let mut data = self.data();
        data.last = Some(last);
        data.sealed.push(Arc::new(chunk));
    }

    /// The chunks with samples in the range, oldest first.
    pub fn chunks(&self, from_ms: TimestampMs, to_ms: TimestampMs) -> Vec<Arc<Chunk>> {
        let data = self.data();
        let sealed = data.sealed.iter().filter(|chunk| chunk.overlaps(from_ms, to_ms)).map(Arc::clone);
        let mut chunks: Vec<_> = sealed.collect();
        let open = data.open.as_ref().filter(|open| open.min_ms() <= to_ms);
        if let Some(open) = open
            && data.last.is_some_and(|(last_ms, _)| last_ms >= from_ms)
        {
            chunks.push(Arc::new(open.snapshot()));
        }
        chunks
    }

    /// The oldest sample that memory holds.
    pub fn min_ms(&self) -> Option<TimestampMs> {
        let data = self.data();
        data.sealed.first().map(|chunk| chunk.min_ms).or(data.open.as_ref().map(Open::min_ms))
    }

    /// All chunks, and the newest sample.
    pub fn state(&self) -> (Vec<Arc<Chunk>>, Option<(TimestampMs, u64)>) {
        let data = self.data();
        let open = data.open.iter().map(|open| Arc::new(open.snapshot()));
        (data.sealed.iter().map(Arc::clone).chain(open).collect(), data.last)
    }

    /// Samples and bytes of the chunks.
    pub fn size(&self) -> (u64, u64) {
        let data = self.data();
        let open = data.open.iter().map(|open| (open.count(), open.bytes_len()));
        let sealed = data.sealed.iter().map(|chunk| (chunk.count, chunk.bytes.len()));
        sealed.chain(open).fold((0, 0), |(samples, bytes), (count, length)| {
            (samples + u64::from(count), bytes + length as u64)
        })
    }

    /// Forgets chunks that end before `ms`. Says whether none is left.
    pub fn drop_before(&self, ms: TimestampMs) -> bool {
        let mut data = self.data();
        data.sealed.retain(|chunk| chunk.max_ms >= ms);
        if data.last.is_some_and(|(last_ms, _)| last_ms < ms) {
            data.open = None;
        }
        data.sealed.is_empty() && data.open.is_none()
    }
}

/// Finds series by what their labels are.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_labels: HashMap<Labels, Arc<MemSeries>>,
    /// By where the series' own labels lie: whoever has those is spared reading them. Nothing else can lie there while
    /// the series is kept.
    by_address: HashMap<usize, Arc<MemSeries>, BuildHasherDefault<AddressHasher>>,
    by_id: BTreeMap<u64, Arc<MemSeries>>,
    /// Label, value, ids in rising order.
    postings: HashMap<Arc<str>, BTreeMap<Arc<str>, Vec<u64>>>,
}

/// References to a series that the index itself holds.
const OWN_REFERENCES: usize = 3;

fn address(labels: &Labels) -> usize {
    labels.pairs().as_ptr().addr()
}

/// Of addresses, which nobody outside chooses: one multiplication spreads them over all bits (Knuth, "The Art of Computer
/// Programming", volume 3, 6.4: multiplicative hashing), and the high ones are brought down to where tables look.
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, number: usize) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Index {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn get(&self, labels: &Labels) -> Option<&Arc<MemSeries>> {
        self.by_address.get(&address(labels)).or_else(|| self.by_labels.get(labels))
    }

    pub fn by_id(&self, id: u64) -> Option<&Arc<MemSeries>> {
        self.by_id.get(&id)
    }

    pub fn all_series(&self) -> Vec<Arc<MemSeries>> {
        self.by_id.values().map(Arc::clone).collect()
    }

    /// Ids rise from one call to the next, except while a log is read.
    pub fn insert(&mut self, series: Arc<MemSeries>) {
        for (name, value) in series.labels.pairs() {
            let values = match self.postings.get_mut(name) {
                Some(values) => values,
                None => self.postings.entry(Arc::clone(name)).or_default(),
            };
            let ids = match values.get_mut(value) {
                Some(ids) => ids,
                None => values.entry(Arc::clone(value)).or_default(),
            };
            match ids.last() {
                Some(last) if *last > series.id => {
                    let place = ids.partition_point(|id| *id < series.id);
                    ids.insert(place, series.id);
                }
                Some(_) | None => ids.push(series.id),
            }
        }
        self.by_labels.insert(series.labels.clone(), Arc::clone(&series));
        self.by_address.insert(address(&series.labels), Arc::clone(&series));
        self.by_id.insert(series.id, series);
    }

    /// Removes those of `candidates` that nobody else refers to, and gives their number.
    ///
    /// The caller keeps others from adding to series meanwhile. Each of `candidates` is the caller's one reference.
    pub fn remove_unused(&mut self, candidates: Vec<Arc<MemSeries>>) -> usize {
        let mut dead = HashSet::new();
        let mut touched: HashSet<(Arc<str>, Arc<str>)> = HashSet::new();
        for series in candidates {
            if Arc::strong_count(&series) > OWN_REFERENCES + 1 {
                continue;
            }
            dead.insert(series.id);
            touched.extend(series.labels.pairs().iter().cloned());
            self.by_labels.remove(&series.labels);
            self.by_address.remove(&address(&series.labels));
            self.by_id.remove(&series.id);
        }
        for (name, value) in touched {
            let Some(values) = self.postings.get_mut(&name) else { continue };
            if let Some(ids) = values.get_mut(&value) {
                ids.retain(|id| !dead.contains(id));
                if ids.is_empty() {
                    values.remove(&value);
                }
            }
            if values.is_empty() {
                self.postings.remove(&name);
            }
        }
        dead.len()
    }

    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        self.postings.keys().map(|name| &**name)
    }

    pub fn label_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.postings.get(name).into_iter().flat_map(|values| values.keys()).map(|value| &**value)
    }
}

impl LabelIndex for Index {
    type Id = u64;
    type Error = std::convert::Infallible;

    fn all(&self) -> Vec<u64> {
        self.by_id.keys().copied().collect()
    }

    fn lists(
        &self,
        label: &str,
        candidates: &Candidates,
        accept: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Vec<u64>>, Self::Error> {
        let Some(values) = self.postings.get(label) else { return Ok(Vec::new()) };
        let accepted = |(value, ids): (&Arc<str>, &Vec<u64>)| accept(value).then(|| ids.clone());
        Ok(match candidates {
            Candidates::All => values.iter().filter_map(accepted).collect(),
            Candidates::These(wanted) => wanted
                .iter()
                .filter_map(|value| values.get_key_value(value.as_str()))
                .filter_map(accepted)
                .collect(),
            Candidates::Prefixes(prefixes) => prefixes
                .iter()
                .flat_map(|prefix| {
                    values
                        .range::<str, _>((
                            std::ops::Bound::Included(prefix.as_str()),
                            std::ops::Bound::Unbounded,
                        ))
                        .take_while(move |(value, _)| value.starts_with(prefix.as_str()))
                })
                .filter_map(accepted)
                .collect(),
        })
    }
}
