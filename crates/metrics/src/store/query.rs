//! Questions to the store.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::{Block, Entry, Place};
use super::chunk::{Chunk, Garbled};
use super::gather::add_chunk;
use super::head::MemSeries;
use super::matching::Plan;
use super::open::Store;
use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};
use crate::select::{Matcher, Querier, SelectError, Series};

impl From<Garbled> for SelectError {
    fn from(_: Garbled) -> Self {
        Self::Storage { why: "a chunk in memory cannot be read".to_owned() }
    }
}

impl Store {
    /// The head's series that the plan accepts, with their chunks in the range.
    fn head_chunks(
        &self,
        plan: &Plan<'_>,
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Vec<(Arc<MemSeries>, Vec<Arc<Chunk>>)> {
        let found: Vec<Arc<MemSeries>> = {
            let index = self.index();
            let Ok(ids) = plan.find(&*index);
            ids.into_iter().filter_map(|id| index.by_id(id).map(Arc::clone)).collect()
        };
        let with_chunks = found.into_iter().map(|series| {
            let chunks = series.chunks(from_ms, to_ms);
            (series, chunks)
        });
        with_chunks.filter(|(_, chunks)| !chunks.is_empty()).collect()
    }

    /// The names of the labels of all series that the matchers accept and that have a sample in the range, sorted.
    /// Without matchers, of all series of the blocks that have samples in the range, and of the head if it does: no
    /// series is read for that.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<String>, SelectError> {
        if !matchers.is_empty() {
            let series = self.series(matchers, from_ms, to_ms)?;
            return Ok(texts(series.iter().flat_map(Labels::iter).map(|(name, _)| name)));
        }
        let mut names = Vec::new();
        if self.head_overlaps(from_ms, to_ms) {
            names.extend(self.index().label_names().map(str::to_owned));
        }
        for block in self.blocks_in(from_ms, to_ms) {
            names.extend(block.label_names().map(str::to_owned));
        }
        Ok(texts(names.iter().map(String::as_str)))
    }

    /// The values of one label of those series, sorted.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<String>, SelectError> {
        if !matchers.is_empty() {
            let series = self.series(matchers, from_ms, to_ms)?;
            return Ok(texts(series.iter().filter_map(|labels| labels.get(name))));
        }
        let mut values = Vec::new();
        if self.head_overlaps(from_ms, to_ms) {
            values.extend(self.index().label_values(name).map(str::to_owned));
        }
        for block in self.blocks_in(from_ms, to_ms) {
            values.extend(block.label_values(name).map(str::to_owned));
        }
        Ok(texts(values.iter().map(String::as_str)))
    }

    fn head_overlaps(&self, from_ms: TimestampMs, to_ms: TimestampMs) -> bool {
        from_ms <= self.max_ms.load(Ordering::Relaxed) && to_ms >= self.min_valid_ms()
    }

    fn blocks_in(&self, from_ms: TimestampMs, to_ms: TimestampMs) -> Vec<Arc<Block>> {
        self.blocks().iter().filter(|block| block.overlaps(from_ms, to_ms)).map(Arc::clone).collect()
    }
}

/// Sorted, each once.
fn texts<'a>(all: impl Iterator<Item = &'a str>) -> Vec<String> {
    all.collect::<BTreeSet<&str>>().into_iter().map(str::to_owned).collect()
}

/// How many samples may still be found.
#[derive(Debug)]
struct Budget {
    range: (TimestampMs, TimestampMs),
    samples: usize,
    samples_max: usize,
}

impl Budget {
    fn add<E: Into<SelectError>>(
        &mut self,
        into: &mut Vec<Sample>,
        bytes: &[u8],
        count: u16,
        why: impl FnOnce(Garbled) -> E,
    ) -> Result<(), SelectError> {
        let before = into.len();
        add_chunk(into, bytes, count, self.range.0, self.range.1).map_err(|garbled| why(garbled).into())?;
        self.samples += into.len() - before;
        if self.samples > self.samples_max {
            return Err(SelectError::TooManySamples { limit: self.samples_max });
        }
        Ok(())
    }
}

/// The samples of a series so far, with room for more.
fn room(found: &mut HashMap<Labels, Vec<Sample>>, labels: Labels, more: usize) -> &mut Vec<Sample> {
    let samples = found.entry(labels).or_default();
    samples.reserve(more);
    samples
}

impl Querier for Store {
    fn select(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        samples_max: usize,
    ) -> Result<Vec<Series>, SelectError> {
        let plan = Plan::new(matchers);
        // Before the list of blocks is looked at: what leaves the head meanwhile is in a block then.
        let head = self.head_chunks(&plan, from_ms, to_ms);
        let mut found: HashMap<Labels, Vec<Sample>> = HashMap::new();
        let mut budget = Budget { range: (from_ms, to_ms), samples: 0, samples_max };
        for block in self.blocks_in(from_ms, to_ms) {
            let ordinals = plan.find(&*block)?;
            block.entries(&ordinals, |entry| {
                let places = places(&entry, from_ms, to_ms);
                if places.is_empty() {
                    return Ok(());
                }
                let more = places.iter().map(|place| usize::from(place.count)).sum();
                let samples = room(&mut found, entry.labels, more);
                block.read_chunks(&places, |place, bytes| {
                    budget.add(samples, bytes, place.count, |garbled| block.garbled(place, garbled))
                })
            })?;
        }
        for (series, chunks) in head {
            let more = chunks.iter().map(|chunk| usize::from(chunk.count)).sum();
            let samples = room(&mut found, series.labels.clone(), more);
            for chunk in chunks {
                budget.add(samples, &chunk.bytes, chunk.count, |garbled| garbled)?;
            }
        }
        let with_samples = found.into_iter().filter(|(_, samples)| !samples.is_empty());
        let mut series: Vec<Series> =
            with_samples.map(|(labels, samples)| Series { labels, samples }).collect();
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(series)
    }

    fn series(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<Labels>, SelectError> {
        let plan = Plan::new(matchers);
        let mut found = Vec::new();
        let mut scratch = Vec::new();
        for (series, chunks) in self.head_chunks(&plan, from_ms, to_ms) {
            for chunk in chunks {
                let certain = touches(chunk.min_ms, chunk.max_ms, from_ms, to_ms);
                scratch.clear();
                if !certain {
                    add_chunk(&mut scratch, &chunk.bytes, chunk.count, from_ms, to_ms)?;
                }
                if certain || !scratch.is_empty() {
                    found.push(series.labels.clone());
                    break;
                }
            }
        }
        for block in self.blocks_in(from_ms, to_ms) {
            let ordinals = plan.find(&*block)?;
            block.entries(&ordinals, |entry| {
                let places = places(&entry, from_ms, to_ms);
                let mut has = places.iter().any(|place| touches(place.min_ms, place.max_ms, from_ms, to_ms));
                if !has {
                    scratch.clear();
                    block.read_chunks(&places, |place, bytes| {
                        add_chunk(&mut scratch, bytes, place.count, from_ms, to_ms)
                            .map_err(|garbled| SelectError::from(block.garbled(place, garbled)))
                    })?;
                    has = !scratch.is_empty();
                }
                if has {
                    found.push(entry.labels);
                }
                Ok::<(), SelectError>(())
            })?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

fn places(entry: &Entry, from_ms: TimestampMs, to_ms: TimestampMs) -> Vec<Place> {
    entry.chunks.iter().filter(|place| place.overlaps(from_ms, to_ms)).copied().collect()
}

/// Whether the first or the last sample of a chunk is in the range. If neither is, one between may be.
fn touches(min_ms: TimestampMs, max_ms: TimestampMs, from_ms: TimestampMs, to_ms: TimestampMs) -> bool {
    (from_ms..=to_ms).contains(&min_ms) || (from_ms..=to_ms).contains(&max_ms)
}
