//! Groups over a store in memory.

mod life;
mod load;
mod scenario;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::labels::{Labels, NAME};
use crate::promql::Engine;
use crate::sample::{Sample, TimestampMs};
use crate::select::{Matcher, Querier, SelectError, Series, Test};

type OfName = BTreeMap<Labels, BTreeMap<TimestampMs, f64>>;

/// Series in memory; it can be told to fail.
#[derive(Default)]
pub(crate) struct Memory {
    /// By the metric's name.
    series: RefCell<BTreeMap<String, OfName>>,
    broken: std::cell::Cell<bool>,
}

impl Memory {
    pub(crate) fn add(&self, labels: Labels, at_ms: TimestampMs, value: f64) {
        let mut series = self.series.borrow_mut();
        series.entry(labels.name().to_owned()).or_default().entry(labels).or_default().insert(at_ms, value);
    }

    fn keep(&self, samples: &[Recorded]) {
        for recorded in samples {
            self.add(recorded.labels.clone(), recorded.sample.at_ms, recorded.sample.value);
        }
    }

    /// As of `at_ms`, kept.
    pub(crate) fn evaluate(&self, group: &mut Group, at_ms: TimestampMs) -> Evaluation {
        let engine = Engine::default();
        let evaluation = group.evaluate(&mut Local::new(self, &engine), at_ms);
        self.keep(&evaluation.samples);
        evaluation
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
        if self.broken.get() {
            return Err(SelectError::Storage { why: "the disk is gone".to_owned() });
        }
        let mut found = Vec::new();
        let named = matchers.iter().find_map(|matcher| match &matcher.test {
            Test::Equal(name) if matcher.label == NAME => Some(name.clone()),
            Test::Equal(_) | Test::NotEqual(_) | Test::Regex(_) | Test::NotRegex(_) => None,
        });
        let series = self.series.borrow();
        let of_names = series.iter().filter(|(name, _)| named.as_ref().is_none_or(|named| named == *name));
        for (labels, samples) in of_names.flat_map(|(_, of_name)| of_name) {
            if !matchers.iter().all(|matcher| matcher.accepts(labels)) {
                continue;
            }
            let samples: Vec<Sample> = samples
                .range(from_ms..=to_ms)
                .map(|(at_ms, value)| Sample { at_ms: *at_ms, value: *value })
                .collect();
            if !samples.is_empty() {
                found.push(Series { labels: labels.clone(), samples });
            }
        }
        found.sort_by(|a: &Series, b| a.labels.cmp(&b.labels));
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
        Ok(self
            .select(matchers, from_ms, to_ms, usize::MAX)?
            .into_iter()
            .map(|series| series.labels)
            .collect())
    }
}

fn groups(text: &str) -> Vec<Group> {
    let file = RuleFile::parse("test.yml", text).unwrap_or_else(|error| panic!("{error}"));
    let around = Arc::new(Surroundings::default());
    file.groups.into_iter().map(|spec| Group::new("test.yml", spec, Arc::clone(&around))).collect()
}

fn group(rules: &str) -> Group {
    groups(&format!("groups:\n- name: g\n  rules:\n{rules}")).remove(0)
}
