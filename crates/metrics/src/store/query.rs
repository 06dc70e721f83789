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

/// The series that a query finds, numbered as they are found.
#[derive(Debug, Default)]
struct Found {
    numbers: HashMap<Labels, usize>,
    /// By number: how many samples its chunks hold at most, and those that were read.
    series: Vec<(usize, Vec<Sample>)>,
}

impl Found {
    fn number(&mut self, labels: Labels) -> usize {
        let next = self.series.len();
        let number = *self.numbers.entry(labels).or_insert(next);
        if number == next {
            self.series.push((0, Vec::new()));
        }
        number
    }

    /// Made in its size as soon as it is needed: one that grows is copied, and memory that is new is slow.
    fn samples(&mut self, number: usize) -> &mut Vec<Sample> {
        let (room, samples) = &mut self.series[number];
        if samples.capacity() == 0 {
            samples.reserve_exact(*room);
        }
        samples
    }

    /// Those with samples, in the order of their labels.
    fn into_series(mut self) -> Vec<Series> {
        let mut series: Vec<Series> = self
            .numbers
            .into_iter()
            .map(|(labels, number)| Series { labels, samples: std::mem::take(&mut self.series[number].1) })
            .filter(|series| !series.samples.is_empty())
            .collect();
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        series
    }
}

/// The chunks of one block that a query reads, in the order in which they lie, and the numbers of their series.
#[derive(Debug)]
struct Wanted {
    block: Arc<Block>,
    places: Vec<Place>,
    series: Vec<usize>,
}

impl Store {
    /// Where the blocks' chunks in the range are. None is read, so that each list of samples can be made in its size,
    /// and neighbours be read at once.
    fn wanted(
        &self,
        plan: &Plan<'_>,
        budget: &Budget,
        found: &mut Found,
    ) -> Result<Vec<Wanted>, SelectError> {
        let (from_ms, to_ms) = budget.range;
        let mut all = Vec::new();
        let mut samples = 0_usize;
        for block in self.blocks_in(from_ms, to_ms) {
            let ordinals = plan.find(&*block)?;
            let (mut places, mut series) = (Vec::new(), Vec::new());
            block.entries(&ordinals, |entry| {
                let mut within =
                    entry.chunks.iter().filter(|place| place.overlaps(from_ms, to_ms)).peekable();
                if within.peek().is_none() {
                    return Ok(());
                }
                let number = found.number(entry.labels);
                for place in within {
                    let count = usize::from(place.count);
                    found.series[number].0 += count;
                    if place.min_ms >= from_ms && place.max_ms <= to_ms {
                        samples += count;
                    }
                    places.push(*place);
                    series.push(number);
                }
                // The list alone could fill the memory. What is read is counted for itself: of two places, as there may
                // be for one sample, it counts once.
                if samples / 2 > budget.samples_max {
                    return Err(SelectError::TooManySamples { limit: budget.samples_max });
                }
                Ok(())
            })?;
            all.push(Wanted { block, places, series });
        }
        Ok(all)
    }
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
        let mut budget = Budget { range: (from_ms, to_ms), samples: 0, samples_max };
        let mut found = Found::default();
        let wanted = self.wanted(&plan, &budget, &mut found)?;
        let head: Vec<_> = head
            .into_iter()
            .map(|(series, chunks)| {
                let number = found.number(series.labels.clone());
                found.series[number].0 += chunks.iter().map(|chunk| usize::from(chunk.count)).sum::<usize>();
                (number, chunks)
            })
            .collect();
        for Wanted { block, places, series } in wanted {
            let mut numbers = series.into_iter();
            block.read_chunks(&places, |place, bytes| {
                let Some(number) = numbers.next() else { return Ok(()) };
                let samples = found.samples(number);
                budget.add(samples, bytes, place.count, |garbled| block.garbled(place, garbled))
            })?;
        }
        for (number, chunks) in head {
            let samples = found.samples(number);
            for chunk in chunks {
                budget.add(samples, &chunk.bytes, chunk.count, |garbled| garbled)?;
            }
        }
        Ok(found.into_series())
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
