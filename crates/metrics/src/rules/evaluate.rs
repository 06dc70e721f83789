//! The seam between rules and whoever answers PromQL.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::labels::{Labels, NAME};
use crate::promql::{Engine, EvalError, Query, Value};
use crate::sample::{Sample, TimestampMs};
use crate::select::{Matcher, Querier, SelectError, Series, Test};

/// One element of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub labels: Labels,
    pub value: f64,
}

/// One sample that belongs into the store.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub labels: Labels,
    pub sample: Sample,
}

#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error(transparent)]
    Query(#[from] EvalError),
    #[error("rule result is not a vector or scalar")]
    NotVector,
    /// Whoever was asked elsewhere did not answer, or not in a way that can be read.
    #[error("{why}")]
    Source { why: String },
}

/// Answers the queries of rules. The built-in answer is [`Local`]; a Prometheus elsewhere is another one.
pub trait Evaluate {
    /// A scalar counts as a vector of one element without labels.
    ///
    /// # Errors
    /// When there is no answer. The rule then keeps the state that it has.
    fn instant(&mut self, query: &Query, at_ms: TimestampMs) -> Result<Vec<Found>, EvaluateError>;

    /// What a rule gave, so that the next rule of the group sees it.
    fn record(&mut self, samples: &[Recorded]);

    /// Since any fixed moment; for the `evaluationTime` that is shown. No time passes where nobody measures.
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Queries answered here, over a store and what the rules of this evaluation have given so far.
pub struct Local<'a> {
    engine: &'a Engine,
    seen: Overlay<'a>,
    elapsed: Option<&'a dyn Fn() -> Duration>,
}

impl std::fmt::Debug for Local<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl<'a> Local<'a> {
    #[must_use]
    pub fn new(querier: &'a dyn Querier, engine: &'a Engine) -> Self {
        Self { engine, seen: Overlay { below: querier, above: BTreeMap::new() }, elapsed: None }
    }

    /// With a monotonic clock.
    #[must_use]
    pub fn timed(mut self, elapsed: &'a dyn Fn() -> Duration) -> Self {
        self.elapsed = Some(elapsed);
        self
    }
}

impl Evaluate for Local<'_> {
    fn instant(&mut self, query: &Query, at_ms: TimestampMs) -> Result<Vec<Found>, EvaluateError> {
        match self.engine.instant(&self.seen, query, at_ms)?.value {
            Value::Vector(elements) => Ok(elements
                .into_iter()
                .map(|element| Found { labels: element.labels, value: element.sample.value })
                .collect()),
            Value::Scalar(sample) => Ok(vec![Found { labels: Labels::default(), value: sample.value }]),
            Value::Text { .. } | Value::Matrix(_) => Err(EvaluateError::NotVector),
        }
    }

    fn record(&mut self, samples: &[Recorded]) {
        for recorded in samples {
            let of_name = self.seen.above.entry(recorded.labels.name().to_owned()).or_default();
            of_name.entry(recorded.labels.clone()).or_default().push(recorded.sample);
        }
    }

    fn elapsed(&self) -> Duration {
        self.elapsed.map_or(Duration::ZERO, |elapsed| elapsed())
    }
}

/// A store with a few newer samples above it.
struct Overlay<'a> {
    below: &'a dyn Querier,
    /// By the metric's name: a group of hundreds of rules must not look through all that they gave for each.
    above: BTreeMap<String, BTreeMap<Labels, Vec<Sample>>>,
}

impl Overlay<'_> {
    fn matching(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> impl Iterator<Item = (&Labels, Vec<Sample>)> {
        let named = matchers.iter().find_map(|matcher| match &matcher.test {
            Test::Equal(name) if matcher.label == NAME => Some(name.clone()),
            Test::Equal(_) | Test::NotEqual(_) | Test::Regex(_) | Test::NotRegex(_) => None,
        });
        let of_names = match &named {
            Some(name) => self.above.range(name.clone()..=name.clone()),
            None => self.above.range::<String, _>(..),
        };
        of_names.flat_map(|(_, series)| series).filter_map(move |(labels, samples)| {
            if !matchers.iter().all(|matcher| matcher.accepts(labels)) {
                return None;
            }
            let samples: Vec<Sample> =
                samples.iter().filter(|sample| (from_ms..=to_ms).contains(&sample.at_ms)).copied().collect();
            (!samples.is_empty()).then_some((labels, samples))
        })
    }
}

impl Querier for Overlay<'_> {
    fn select(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
        samples_max: usize,
    ) -> Result<Vec<Series>, SelectError> {
        let mut found = self.below.select(matchers, from_ms, to_ms, samples_max)?;
        if self.above.is_empty() {
            return Ok(found);
        }
        for (labels, samples) in self.matching(matchers, from_ms, to_ms) {
            match found.binary_search_by(|series| series.labels.cmp(labels)) {
                Ok(index) => {
                    for sample in samples {
                        let known = &mut found[index].samples;
                        match known.binary_search_by_key(&sample.at_ms, |sample| sample.at_ms) {
                            Ok(place) => known[place] = sample,
                            Err(place) => known.insert(place, sample),
                        }
                    }
                }
                Err(index) => found.insert(index, Series { labels: labels.clone(), samples }),
            }
        }
        if found.iter().map(|series| series.samples.len()).sum::<usize>() > samples_max {
            return Err(SelectError::TooManySamples { limit: samples_max });
        }
        Ok(found)
    }

    fn series(
        &self,
        matchers: &[Matcher],
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Result<Vec<Labels>, SelectError> {
        let mut found = self.below.series(matchers, from_ms, to_ms)?;
        found.extend(self.matching(matchers, from_ms, to_ms).map(|(labels, _)| labels.clone()));
        found.sort();
        found.dedup();
        Ok(found)
    }
}
