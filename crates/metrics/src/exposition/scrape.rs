//! What a scrape adds to the store: the series that were shown, the markers of those that are not shown any more, and
//! what Fairway says of the scrape itself. Pure: whoever fetched the body brings it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::exposition::format::Format;
use crate::exposition::metadata::Metadata;
use crate::exposition::parse::{Exposed, Exposition, Limits, ParseError, Parser};
use crate::labels::{Labels, NAME};
use crate::sample::{Sample, TimestampMs, stale};

/// How one target is read.
#[derive(Clone, Debug)]
pub struct ScrapeSettings {
    /// On every series of the target, and on those about its scrapes.
    pub labels: Labels,
    /// When a series has a label of that name already: the series keeps it, instead of having it renamed to
    /// `exported_…`.
    pub honor_labels: bool,
    /// Whether a line's own time counts.
    pub honor_timestamps: bool,
    /// Series of one scrape. What is above is dropped and counted; series that were there before stay.
    pub series_per_target_max: usize,
    pub limits: Limits,
    /// For a target that names no format, or one that is not known. Prometheus 3 has none unless told.
    pub fallback_format: Option<Format>,
}

/// Series of one target. A service with more has most likely a label without bound, such as a user or a path.
pub const SERIES_PER_TARGET_MAX: usize = 20_000;

/// A line's own time may be this far ahead of the scrape, as in Prometheus; what is further off would hide all that
/// comes until then.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

impl ScrapeSettings {
    #[must_use]
    pub fn new(labels: Labels) -> Self {
        Self {
            labels,
            honor_labels: false,
            honor_timestamps: true,
            series_per_target_max: SERIES_PER_TARGET_MAX,
            limits: Limits::default(),
            fallback_format: None,
        }
    }

    /// The series' labels with the target's.
    fn labelled(&self, series: &Exposed) -> Labels {
        let shown = &series.labels;
        if self.honor_labels {
            // An empty value is honored too: federated series say so that they have no `instance`.
            let said =
                |name: &str| shown.get(name).is_some() || series.emptied.iter().any(|empty| empty == name);
            let missing = self.labels.pairs().iter().filter(|(name, _)| !said(name));
            return Labels::new(shown.pairs().iter().chain(missing).cloned());
        }
        let mut all: BTreeMap<String, String> =
            shown.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut conflicts = Vec::new();
        for (name, value) in self.labels.iter() {
            if let Some(theirs) = all.insert(name.to_owned(), value.to_owned()) {
                conflicts.push((name, theirs));
            }
        }
        if conflicts.is_empty() {
            return Labels::new(all);
        }
        // Shortest first, so that `a` gets `exported_a` before an `exported_a` of the series is looked at.
        conflicts.sort_by_key(|(name, _)| name.len());
        for (name, theirs) in conflicts {
            let mut renamed = format!("exported_{name}");
            while all.contains_key(&renamed) {
                renamed.insert_str(0, "exported_");
            }
            all.insert(renamed, theirs);
        }
        Labels::new(all)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// No answer, or not the whole of one.
    #[error("{why}")]
    Unreachable { why: String },
    #[error("the target answered with status {status}")]
    Status { status: u16 },
    #[error("the target answers in {content_type:?}, which is no exposition format")]
    ContentType { content_type: String },
    #[error(transparent)]
    Body(#[from] ParseError),
}

/// What one scrape came to.
#[derive(Debug)]
pub struct Scrape {
    /// For the store: the target's series, markers for those that ended, and the series about the scrape.
    pub samples: Vec<(Labels, Sample)>,
    /// By family; empty when the scrape failed.
    pub metadata: BTreeMap<String, Metadata>,
    /// Why `up` is 0.
    pub error: Option<ScrapeError>,
    /// Lines with a value.
    pub scraped: usize,
    /// Series that the last scrape did not have.
    pub added: usize,
    /// Samples of series above the cap. To be told: the target shows more than Fairway keeps.
    pub dropped: usize,
    /// Samples of a series that was there already in the same scrape.
    pub duplicates: usize,
    /// Samples that are too far ahead of their time.
    pub out_of_bounds: usize,
}

/// What to do when a series is not shown any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Mark,
    /// Its samples have times of their own: no one can say when it ended.
    Nothing,
}

/// The series of a target's last scrape.
#[derive(Debug, Default)]
pub struct TargetMemory {
    known: HashMap<Labels, Ending>,
    reported: bool,
}

/// The series about a scrape, in the order in which they are written.
const REPORTS: [&str; 6] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_series_dropped",
];

impl TargetMemory {
    /// A body that came with status 200.
    #[must_use]
    pub fn scraped(
        &mut self,
        settings: &ScrapeSettings,
        body: &[u8],
        content_type: &str,
        at_ms: TimestampMs,
        took: Duration,
    ) -> Scrape {
        let mut scrape = Scrape::empty();
        let result = match Format::of_content_type(content_type).or(settings.fallback_format) {
            Some(format) => self.read(settings, body, format, at_ms, &mut scrape),
            None => Err(ScrapeError::ContentType { content_type: content_type.chars().take(200).collect() }),
        };
        if let Err(error) = result {
            self.fail(at_ms, error, &mut scrape);
        }
        self.report(settings, at_ms, took, &mut scrape);
        scrape
    }

    /// No body came.
    #[must_use]
    pub fn failed(
        &mut self,
        settings: &ScrapeSettings,
        error: ScrapeError,
        at_ms: TimestampMs,
        took: Duration,
    ) -> Scrape {
        let mut scrape = Scrape::empty();
        self.fail(at_ms, error, &mut scrape);
        self.report(settings, at_ms, took, &mut scrape);
        scrape
    }

    /// The target is no target any more: markers for all of its series, those about its scrapes among them.
    #[must_use]
    pub fn gone(&mut self, settings: &ScrapeSettings, at_ms: TimestampMs) -> Vec<(Labels, Sample)> {
        let mut samples = Vec::new();
        self.end_all(at_ms, &mut samples);
        if std::mem::take(&mut self.reported) {
            let ended = Sample { at_ms, value: stale() };
            samples.extend(REPORTS.map(|name| (settings.labels.with(NAME, name), ended)));
        }
        samples
    }

    fn read(
        &mut self,
        settings: &ScrapeSettings,
        body: &[u8],
        format: Format,
        at_ms: TimestampMs,
        scrape: &mut Scrape,
    ) -> Result<(), ScrapeError> {
        let mut seen: HashMap<Labels, Ending> = HashMap::with_capacity(self.known.len());
        let mut kept: Vec<(Labels, Sample)> = Vec::with_capacity(self.known.len() + REPORTS.len());
        // New ones wait until it is known how much room the old ones leave: an explosion of series must not push
        // out those that dashboards and alerts look at.
        let mut new: Vec<(usize, Labels, Sample)> = Vec::new();
        let mut new_series = 0;
        for entry in Parser::new(body, format, settings.limits) {
            let Some(shown) = Exposition::note(&mut scrape.metadata, entry?) else { continue };
            scrape.scraped += 1;
            let own_ms = shown.at_ms.filter(|_| settings.honor_timestamps);
            let sample = Sample { at_ms: own_ms.unwrap_or(at_ms), value: shown.value };
            if sample.at_ms > at_ms.saturating_add(AHEAD_MS_MAX) {
                scrape.out_of_bounds += 1;
                continue;
            }
            let labels = settings.labelled(&shown);
            let again = seen.contains_key(&labels);
            if again && own_ms.is_none() {
                scrape.duplicates += 1;
                continue;
            }
            let old = self.known.contains_key(&labels);
            if !again {
                if !old && new_series == settings.series_per_target_max {
                    scrape.dropped += 1;
                    continue;
                }
                new_series += usize::from(!old);
                let ending = if own_ms.is_some() { Ending::Nothing } else { Ending::Mark };
                seen.insert(labels.clone(), ending);
            }
            if old {
                kept.push((labels, sample));
            } else {
                new.push((new_series, labels, sample));
            }
        }
        let room = settings.series_per_target_max.saturating_sub(seen.len() - new_series);
        for (number, labels, sample) in new {
            if number <= room {
                kept.push((labels, sample));
            } else {
                scrape.dropped += 1;
                seen.remove(&labels);
            }
        }
        scrape.added = new_series.min(room);
        scrape.samples = kept;
        let ended = self.known.drain().filter(|(labels, _)| !seen.contains_key(labels));
        let marker = Sample { at_ms, value: stale() };
        let marked = ended.filter(|(_, ending)| *ending == Ending::Mark).map(|(labels, _)| (labels, marker));
        scrape.samples.extend(marked);
        self.known = seen;
        Ok(())
    }

    /// A scrape that is half right is all wrong: nothing of it counts, and every series ends.
    fn fail(&mut self, at_ms: TimestampMs, error: ScrapeError, scrape: &mut Scrape) {
        scrape.error = Some(error);
        scrape.metadata.clear();
        scrape.samples.clear();
        self.end_all(at_ms, &mut scrape.samples);
    }

    fn end_all(&mut self, at_ms: TimestampMs, samples: &mut Vec<(Labels, Sample)>) {
        let marker = Sample { at_ms, value: stale() };
        let marked = self.known.drain().filter(|(_, ending)| *ending == Ending::Mark);
        samples.extend(marked.map(|(labels, _)| (labels, marker)));
    }

    fn report(&mut self, settings: &ScrapeSettings, at_ms: TimestampMs, took: Duration, scrape: &mut Scrape) {
        self.reported = true;
        let kept = scrape.scraped - scrape.dropped;
        #[allow(clippy::cast_precision_loss)]
        let values = [
            if scrape.error.is_none() { 1.0 } else { 0.0 },
            took.as_secs_f64(),
            scrape.scraped as f64,
            if scrape.error.is_none() { kept as f64 } else { 0.0 },
            scrape.added as f64,
            scrape.dropped as f64,
        ];
        let named = REPORTS.into_iter().zip(values);
        scrape
            .samples
            .extend(named.map(|(name, value)| (settings.labels.with(NAME, name), Sample { at_ms, value })));
    }
}

impl Scrape {
    fn empty() -> Self {
        Self {
            samples: Vec::new(),
            metadata: BTreeMap::new(),
            error: None,
            scraped: 0,
            added: 0,
            dropped: 0,
            duplicates: 0,
            out_of_bounds: 0,
        }
    }
}

#[cfg(test)]
mod tests;
