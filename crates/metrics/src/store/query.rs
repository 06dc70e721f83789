//! Questions to the store.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

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
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<String>, SelectError> {
        let series = self.series(matchers, from_ms, to_ms)?;
        let names: BTreeSet<&str> = series.iter().flat_map(Labels::iter).map(|(name, _)| name).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
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
        let series = self.series(matchers, from_ms, to_ms)?;
        let values: BTreeSet<&str> = series.iter().filter_map(|labels| labels.get(name)).collect();
        Ok(values.into_iter().map(str::to_owned).collect())
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
        let head = self.head_chunks(&plan, from_ms, to_ms);
        let mut found: HashMap<Labels, Vec<Sample>> = HashMap::new();
        let mut total = 0;
        for (series, chunks) in head {
            let samples = found.entry(series.labels.clone()).or_default();
            for chunk in chunks {
                let before = samples.len();
                add_chunk(samples, &chunk.bytes, chunk.count, from_ms, to_ms)?;
                total += samples.len() - before;
                if total > samples_max {
                    return Err(SelectError::TooManySamples { limit: samples_max });
                }
            }
        }
        let mut series: Vec<Series> = found
            .into_iter()
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(labels, samples)| Series { labels, samples })
            .collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(series)
    }

    fn series(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<Labels>, SelectError> {
        let series = self.select(matchers, from_ms, to_ms, usize::MAX)?;
        Ok(series.into_iter().map(|series| series.labels).collect())
    }
}
