//! Samples come in.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::error::{Refused, StoreError};
use super::head::{MemSeries, Taken};
use super::log::PENDING_BYTES_MAX;
use super::open::{Store, Writer};
use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};

/// A series that is known to the store, for adding to it without looking it up. Stays good for as long as it is kept,
/// and keeps its series in memory for so long: drop those that end.
#[derive(Clone, Debug)]
pub struct SeriesRef(pub(super) Arc<MemSeries>);

impl SeriesRef {
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.0.labels
    }
}

/// What became of the samples of a batch. Each counts in one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    pub accepted: u64,
    /// The series has a newer sample.
    pub out_of_order: u64,
    /// Older than what can still be written: the blocks of that time are closed.
    pub too_old: u64,
    /// The series has this very sample.
    pub repeated: u64,
    /// The series has another value at this time, which stays.
    pub conflicting: u64,
    /// Of a new series, with [`super::Options::series_max`] reached.
    pub too_many_series: u64,
    /// Of a series without labels, or with too long ones.
    pub labels_refused: u64,
}

impl Appended {
    /// Those that are lost: all but the accepted and the repeated.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        let Self { out_of_order, too_old, conflicting, too_many_series, labels_refused, .. } = self;
        out_of_order + too_old + conflicting + too_many_series + labels_refused
    }

    fn count(&mut self, refused: Refused) {
        match refused {
            Refused::TooManySeries { .. } => self.too_many_series += 1,
            Refused::NoLabels | Refused::LabelsTooLong { .. } => self.labels_refused += 1,
        }
    }
}

impl std::ops::AddAssign for Appended {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.out_of_order += other.out_of_order;
        self.too_old += other.too_old;
        self.repeated += other.repeated;
        self.conflicting += other.conflicting;
        self.too_many_series += other.too_many_series;
        self.labels_refused += other.labels_refused;
    }
}

/// Names and values of one series together. Prometheus has no bound; a label of a megabyte is a mistake of its sender,
/// and would be in every answer.
pub(super) const LABELS_BYTES_MAX: usize = 64 << 10;

impl Store {
    /// The series of these labels, made when there is none.
    ///
    /// # Errors
    /// When it would be one too many, or the labels are no name of a series.
    pub fn resolve(&self, labels: &Labels) -> Result<SeriesRef, Refused> {
        self.resolve_with(&mut self.writer(), labels).map(SeriesRef)
    }

    /// The store's own copy of these labels, while it has a series of them in memory. Whoever adds by the copy, with
    /// [`Store::append_labels`], spares the store reading them. It shares its texts with other series, and keeps no
    /// series in memory.
    #[must_use]
    pub fn own_labels(&self, labels: &Labels) -> Option<Labels> {
        self.index().get(labels).map(|series| series.labels.clone())
    }

    /// Adds samples, in the order given. A query sees each from then on; it is safe on disk after [`Store::sync`].
    ///
    /// A sample that cannot be stored is counted and skipped. The iterator must not use the store.
    ///
    /// # Errors
    /// When so much waits for the disk that no more fits into memory; none of the batch is taken then.
    pub fn append<'a>(
        &self,
        samples: impl IntoIterator<Item = (&'a SeriesRef, Sample)>,
    ) -> Result<Appended, StoreError> {
        self.append_each(samples, |store, writer, series| {
            if series.0.store == store.token {
                return Ok(Arc::clone(&series.0));
            }
            // Of a store that was closed since, or of another one.
            store.resolve_with(writer, &series.0.labels)
        })
    }

    /// [`Store::append`] by name: looks each series up, and makes it when there is none.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_labels<'a>(
        &self,
        samples: impl IntoIterator<Item = (&'a Labels, Sample)>,
    ) -> Result<Appended, StoreError> {
        self.append_each(samples, Self::resolve_with)
    }

    fn append_each<S>(
        &self,
        samples: impl IntoIterator<Item = (S, Sample)>,
        find: impl Fn(&Self, &mut Writer, S) -> Result<Arc<MemSeries>, Refused>,
    ) -> Result<Appended, StoreError> {
        if self.writer().log.pending_bytes() >= PENDING_BYTES_MAX {
            self.sync()?;
        }
        let mut writer = self.writer();
        let mut done = Appended::default();
        for (series, sample) in samples {
            match find(self, &mut writer, series) {
                Ok(series) => self.add(&mut writer, &series, sample, &mut done),
                Err(refused) => done.count(refused),
            }
        }
        writer.log.end_batch();
        Ok(done)
    }

    fn add(&self, writer: &mut Writer, series: &MemSeries, sample: Sample, done: &mut Appended) {
        if sample.at_ms < writer.min_valid_ms {
            done.too_old += 1;
            return;
        }
        match series.push(sample, self.options.block_ms) {
            Taken::Added => {
                done.accepted += 1;
                writer.log.sample(series.id, sample);
                self.max_ms.fetch_max(sample.at_ms, Ordering::Relaxed);
            }
            Taken::Repeated => done.repeated += 1,
            Taken::Conflicting => done.conflicting += 1,
            Taken::OutOfOrder => done.out_of_order += 1,
        }
    }

    pub(super) fn resolve_with(
        &self,
        writer: &mut Writer,
        labels: &Labels,
    ) -> Result<Arc<MemSeries>, Refused> {
        let index = self.index();
        if let Some(series) = index.get(labels) {
            return Ok(Arc::clone(series));
        }
        let series_max = self.options.series_max;
        if index.len() >= series_max {
            return Err(Refused::TooManySeries { series_max });
        }
        // Only who holds the writer adds series, so none comes between.
        drop(index);
        if labels.is_empty() {
            return Err(Refused::NoLabels);
        }
        let bytes = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > LABELS_BYTES_MAX {
            return Err(Refused::LabelsTooLong { bytes, bytes_max: LABELS_BYTES_MAX });
        }
        let labels = self.interner.lock().unwrap_or_else(PoisonError::into_inner).labels(labels);
        let series = Arc::new(MemSeries::new(self.token, writer.next_id, labels));
        writer.next_id += 1;
        writer.log.series(series.id, &series.labels);
        self.index_mut().insert(Arc::clone(&series));
        Ok(series)
    }

    /// The earliest time at which a sample can still be written.
    #[must_use]
    pub fn min_valid_ms(&self) -> TimestampMs {
        self.writer().min_valid_ms
    }
}
