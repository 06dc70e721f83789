//! A series of a result: one value, or none, for each step.

use std::collections::HashMap;

use super::Eval;
use super::grid::Grid;
use crate::labels::{Labels, NAME};
use crate::promql::answer::EvalError;
use crate::sample::{STALE_BITS, Sample, is_stale};

/// Stands where a step has no value. No value of a result has these bits: selectors leave markers out, and arithmetic
/// does not make them.
pub const ABSENT: f64 = f64::from_bits(STALE_BITS);

#[derive(Clone, Debug, Default)]
pub struct Column {
    pub labels: Labels,
    /// Its name does not fit any more and goes, at the latest, from the answer.
    pub drops_name: bool,
    pub values: Vec<f64>,
}

impl Column {
    pub fn empty(labels: Labels, drops_name: bool, count: usize) -> Self {
        Self { labels, drops_name, values: vec![ABSENT; count] }
    }

    #[inline]
    pub fn at(&self, step: usize) -> Option<f64> {
        self.values.get(step).copied().filter(|value| !is_stale(*value))
    }

    pub fn samples(&self) -> usize {
        self.values.iter().filter(|value| !is_stale(**value)).count()
    }

    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|value| is_stale(*value))
    }

    /// Changes the values that are there.
    pub fn map(&mut self, change: impl Fn(f64) -> f64) {
        for value in &mut self.values {
            if !is_stale(*value) {
                *value = change(*value);
            }
        }
    }

    pub fn points(&self, grid: Grid) -> impl Iterator<Item = Sample> {
        self.values
            .iter()
            .enumerate()
            .filter(|(_, value)| !is_stale(**value))
            .map(move |(step, value)| Sample { at_ms: grid.at(step), value: *value })
    }
}

/// The labels that describe a metric and not what it is of: name, type and unit.
pub fn is_metadata(label: &str) -> bool {
    matches!(label, NAME | "__type__" | "__unit__")
}

pub fn without_metadata(labels: &Labels) -> Labels {
    labels.filter(|name| !is_metadata(name))
}

pub fn drop_names(columns: &mut [Column]) {
    for column in columns.iter_mut().filter(|column| column.drops_name) {
        column.labels = without_metadata(&column.labels);
    }
}

pub fn has_twins(columns: &[Column]) -> bool {
    if columns.len() < 2 {
        return false;
    }
    let mut seen = std::collections::HashSet::with_capacity(columns.len());
    columns.iter().filter(|column| !column.is_empty()).any(|column| !seen.insert(&column.labels))
}

/// Joins columns of the same labels. Both having a value at one step is an error.
pub fn merge(columns: Vec<Column>) -> Eval<Vec<Column>> {
    if !has_twins(&columns) {
        return Ok(columns);
    }
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    let mut known: HashMap<Labels, usize> = HashMap::with_capacity(columns.len());
    for column in columns {
        if column.is_empty() {
            continue;
        }
        let Some(index) = known.get(&column.labels) else {
            known.insert(column.labels.clone(), merged.len());
            merged.push(column);
            continue;
        };
        for (value, other) in merged[*index].values.iter_mut().zip(&column.values) {
            if is_stale(*other) {
                continue;
            }
            if !is_stale(*value) {
                return Err(EvalError::SameLabels);
            }
            *value = *other;
        }
    }
    Ok(merged)
}

/// Collects what an operation puts out step by step.
pub struct Out {
    count: usize,
    /// Of an instant, results of the same labels stay apart; of a range, they share a column.
    apart: bool,
    samples_max: usize,
    columns: Vec<Column>,
    known: HashMap<Labels, usize>,
}

impl Out {
    pub fn new(count: usize, apart: bool, samples_max: usize) -> Self {
        Self { count, apart, samples_max, columns: Vec::new(), known: HashMap::new() }
    }

    /// The column for these labels.
    ///
    /// # Errors
    /// When columns take the room of more samples than are allowed.
    pub fn column(&mut self, labels: Labels, drops_name: bool) -> Eval<usize> {
        if !self.apart
            && let Some(index) = self.known.get(&labels)
        {
            return Ok(*index);
        }
        let index = self.columns.len();
        if (index + 1).saturating_mul(self.count) > self.samples_max.saturating_mul(2) {
            return Err(EvalError::TooManySamples { limit: self.samples_max });
        }
        if !self.apart {
            self.known.insert(labels.clone(), index);
        }
        self.columns.push(Column::empty(labels, drops_name, self.count));
        Ok(index)
    }

    pub fn put(&mut self, column: usize, step: usize, value: f64) -> Eval<()> {
        let place = &mut self.columns[column].values[step];
        if !is_stale(*place) {
            return Err(EvalError::SameLabels);
        }
        *place = value;
        Ok(())
    }

    /// One more of what a column counts.
    pub fn count_up(&mut self, column: usize, step: usize) {
        let place = &mut self.columns[column].values[step];
        *place = if is_stale(*place) { 1.0 } else { *place + 1.0 };
    }

    pub fn finish(self) -> Vec<Column> {
        self.columns.into_iter().filter(|column| !column.is_empty()).collect()
    }
}
