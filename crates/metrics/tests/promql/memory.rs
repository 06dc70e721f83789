//! Series in memory.

use std::collections::BTreeMap;

use fairway_metrics::labels::Labels;
use fairway_metrics::sample::{Sample, TimestampMs};
use fairway_metrics::select::{Matcher, Querier, SelectError, Series};

#[derive(Debug, Default)]
pub struct Memory {
    pub series: BTreeMap<Labels, BTreeMap<TimestampMs, f64>>,
}

impl Memory {
    pub fn put(&mut self, labels: &Labels, at_ms: TimestampMs, value: f64) {
        self.series.entry(labels.clone()).or_default().insert(at_ms, value);
    }
}

impl Querier for Memory {
    fn select(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        samples_max: usize,
    ) -> Result<Vec<Series>, SelectError> {
        let mut found = Vec::new();
        let mut left = samples_max;
        for (labels, samples) in &self.series {
            if from_ms > to_ms || !matchers.iter().all(|matcher| matcher.accepts(labels)) {
                continue;
            }
            let samples: Vec<Sample> = samples
                .range(from_ms..=to_ms)
                .map(|(at_ms, value)| Sample { at_ms: *at_ms, value: *value })
                .collect();
            left =
                left.checked_sub(samples.len()).ok_or(SelectError::TooManySamples { limit: samples_max })?;
            if !samples.is_empty() {
                found.push(Series { labels: labels.clone(), samples });
            }
        }
        Ok(found)
    }

    fn series(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<Labels>, SelectError> {
        Ok(self
            .select(matchers, from_ms, to_ms, usize::MAX)?
            .into_iter()
            .map(|series| series.labels)
            .collect())
    }
}
