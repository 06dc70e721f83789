//! OTLP metrics in: `ExportMetricsServiceRequest` as samples, by the rules of Prometheus' own receiver.
//!
//! The field numbers are those of `opentelemetry/proto/metrics/v1/metrics.proto`, 1.x.

mod attributes;
mod names;
mod points;

use std::io::Read as _;

use crate::exposition::metadata::{Metadata, MetricType};
use crate::labels::{Labels, NAME};
use crate::remote::receive::{Answer, ReceiveLimits, ReceivedSeries};
use crate::remote::wire::{Malformed, Value, fields, put_bytes, put_int};
use crate::sample::{Sample, TimestampMs};

use self::attributes::{Attributes, Resource};
use self::names::Kind;

/// What a request held.
#[derive(Debug, Default)]
pub struct Otlp {
    pub series: Vec<ReceivedSeries>,
    /// By family's name; a family may be there more than once.
    pub metadata: Vec<(String, Metadata)>,
    /// Data points that were not taken: delta temporality, exponential histograms, points that cannot be.
    pub points_refused: usize,
    /// Why the first of them was not.
    pub problem: Option<String>,
}

/// A request of which nothing is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpRefused {
    #[error("unsupported content type {content_type:?}: OTLP is read as application/x-protobuf")]
    ContentType { content_type: String },
    #[error("{encoding:?} is not an encoding that is read here")]
    Encoding { encoding: String },
    #[error("the body cannot be decompressed")]
    Compression,
    #[error("the request has more than {limit} {what}")]
    TooLarge { what: &'static str, limit: usize },
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl OtlpRefused {
    #[must_use]
    pub fn answer(&self) -> Answer {
        let status = match self {
            Self::ContentType { .. } | Self::Encoding { .. } => 415,
            Self::TooLarge { .. } => 413,
            Self::Compression | Self::Malformed(_) => 400,
        };
        Answer { status, headers: Vec::new(), body: self.to_string() }
    }
}

impl Otlp {
    #[must_use]
    pub fn samples(&self) -> usize {
        self.series.iter().map(|series| series.samples.len()).sum()
    }

    /// An `ExportMetricsServiceResponse`, to be answered with status 200 as `application/x-protobuf`: with what was
    /// not taken, if anything, as its partial success. `store_refused` are the points that the store would not have.
    #[must_use]
    pub fn response(&self, store_refused: usize) -> Vec<u8> {
        let refused = self.points_refused + store_refused;
        let mut out = Vec::new();
        if refused > 0 {
            let mut partial = Vec::new();
            put_int(&mut partial, 1, i64::try_from(refused).unwrap_or(i64::MAX));
            let why = self.problem.as_deref().unwrap_or("the samples are too old or were there already");
            put_bytes(&mut partial, 2, why.as_bytes());
            put_bytes(&mut out, 1, &partial);
        }
        out
    }

    fn refuse(&mut self, points: usize, why: impl FnOnce() -> String) {
        self.points_refused += points;
        self.problem.get_or_insert_with(why);
    }
}

/// Reads a request to `/v1/metrics` or `/api/v1/otlp/v1/metrics`. A header that is not there is the empty text.
///
/// # Errors
/// When nothing of the request can be taken.
pub fn decode(
    content_type: &str,
    content_encoding: &str,
    body: &[u8],
    limits: &ReceiveLimits,
) -> Result<Otlp, OtlpRefused> {
    if content_type.split(';').next().map(str::trim) != Some("application/x-protobuf") {
        return Err(OtlpRefused::ContentType { content_type: content_type.to_owned() });
    }
    if body.len() > limits.bytes_max {
        return Err(OtlpRefused::TooLarge { what: "bytes", limit: limits.bytes_max });
    }
    let unpacked;
    let plain = match content_encoding.to_ascii_lowercase().as_str() {
        "" | "identity" => body,
        // What the OpenTelemetry collector sends unless told otherwise.
        "gzip" => {
            unpacked = gunzip(body, limits.bytes_max)?;
            &unpacked
        }
        _ => return Err(OtlpRefused::Encoding { encoding: content_encoding.to_owned() }),
    };
    let mut reader = Reader { limits, samples: 0, label_bytes: 0, otlp: Otlp::default() };
    for field in fields(plain) {
        if let (1, resource_metrics) = field? {
            reader.resource_metrics(resource_metrics)?;
        }
    }
    Ok(reader.otlp)
}

fn gunzip(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, OtlpRefused> {
    let mut plain = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut unpacking = flate2::read::GzDecoder::new(body).take(limit);
    unpacking.read_to_end(&mut plain).map_err(|_| OtlpRefused::Compression)?;
    if plain.len() > bytes_max {
        return Err(OtlpRefused::TooLarge { what: "bytes", limit: bytes_max });
    }
    Ok(plain)
}

struct Reader<'a> {
    limits: &'a ReceiveLimits,
    samples: usize,
    /// Of all labels made so far: a short point may have a long name.
    label_bytes: usize,
    otlp: Otlp,
}

/// Labels may take this many times the memory that the request may have.
const LABELS_FACTOR_MAX: usize = 4;

/// A metric while its points are read.
struct Metric<'a> {
    name: String,
    resource: &'a Resource,
}

impl Reader<'_> {
    fn resource_metrics(&mut self, message: Value<'_>) -> Result<(), OtlpRefused> {
        let message = message.bytes()?;
        let mut attributes = Attributes::default();
        for field in fields(message) {
            if let (1, resource) = field? {
                for field in fields(resource.bytes()?) {
                    if let (1, attribute) = field? {
                        attributes.read(attribute, self.limits)?;
                    }
                }
            }
        }
        let resource = Resource::of(attributes);
        let mut latest_ms = None;
        for field in fields(message) {
            let (2, scope) = field? else { continue };
            for field in fields(scope.bytes()?) {
                if let (2, metric) = field? {
                    let before = self.otlp.series.len();
                    self.metric(metric, &resource)?;
                    let new = self.otlp.series.get(before..).unwrap_or_default();
                    let times = new.iter().flat_map(|series| &series.samples).map(|sample| sample.at_ms);
                    latest_ms = latest_ms.max(times.max());
                }
            }
        }
        if let (Some(at_ms), Some(labels)) = (latest_ms, resource.target_info()) {
            self.keep(labels, Sample { at_ms, value: 1.0 })?;
        }
        Ok(())
    }

    fn metric(&mut self, message: Value<'_>, resource: &Resource) -> Result<(), OtlpRefused> {
        let (mut name, mut help, mut unit) = ("", "", "");
        let mut data = None;
        for field in fields(message.bytes()?) {
            match field? {
                (1, text) => name = text.text()?,
                (2, text) => help = text.text()?,
                (3, text) => unit = text.text()?,
                (tag @ (5 | 7 | 9 | 10 | 11), points) => data = Some((tag, points.bytes()?)),
                _ => {}
            }
        }
        let Some((tag, data)) = data else {
            self.otlp.refuse(0, || format!("metric {name:?} has no data"));
            return Ok(());
        };
        let (mut temporality, mut monotonic, mut points) = (CUMULATIVE, false, 0);
        let has_temporality = matches!(tag, 7 | 9 | 10);
        if has_temporality {
            temporality = 0;
        }
        for field in fields(data) {
            match field? {
                (1, _) => points += 1,
                (2, value) if has_temporality => temporality = value.varint()?,
                (3, value) if tag == 7 => monotonic = value.varint()? != 0,
                _ => {}
            }
        }
        if temporality != CUMULATIVE {
            self.otlp.refuse(points, || format!("metric {name:?} is not cumulative: delta cannot be kept"));
            return Ok(());
        }
        if tag == 10 {
            self.otlp
                .refuse(points, || format!("metric {name:?} is an exponential histogram, which is not kept"));
            return Ok(());
        }
        let (kind, described) = match tag {
            5 => (Kind::Gauge, MetricType::Gauge),
            7 if monotonic => (Kind::Counter, MetricType::Counter),
            7 => (Kind::Other, MetricType::Gauge),
            9 => (Kind::Other, MetricType::Histogram),
            _ => (Kind::Other, MetricType::Summary),
        };
        let built = names::metric(name, unit, kind);
        if built.is_empty() || built.len() > self.limits.name_bytes_max {
            self.otlp.refuse(points, || "a metric has no name, or one that is too long".to_owned());
            return Ok(());
        }
        let described = Metadata { kind: described, help: help.to_owned(), unit: unit.to_owned() };
        self.otlp.metadata.push((built.clone(), described));
        let metric = Metric { name: built, resource };
        for field in fields(data) {
            if let (1, point) = field? {
                match tag {
                    5 | 7 => self.number(&metric, point)?,
                    9 => self.histogram(&metric, point)?,
                    _ => self.summary(&metric, point)?,
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, labels: Labels, sample: Sample) -> Result<(), OtlpRefused> {
        self.samples += 1;
        if self.samples > self.limits.samples_max {
            return Err(OtlpRefused::TooLarge { what: "samples", limit: self.limits.samples_max });
        }
        debug_assert!(labels.get(NAME).is_some(), "every series of a request is named");
        // Points of one series come one after the other, if there are several at all.
        match self.otlp.series.last_mut() {
            Some(last) if last.labels == labels => last.samples.push(sample),
            Some(_) | None => {
                self.label_bytes +=
                    labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                let too_large = |what, limit| Err(OtlpRefused::TooLarge { what, limit });
                if self.label_bytes > LABELS_FACTOR_MAX * self.limits.bytes_max {
                    return too_large("bytes in labels", LABELS_FACTOR_MAX * self.limits.bytes_max);
                }
                if self.otlp.series.len() >= self.limits.series_max {
                    return too_large("series", self.limits.series_max);
                }
                self.otlp.series.push(ReceivedSeries { labels, samples: vec![sample] });
            }
        }
        Ok(())
    }
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;

/// The time of a point, of nanoseconds.
fn at_ms(nanoseconds: u64) -> TimestampMs {
    // A 64th of what an i64 holds: it always fits.
    (nanoseconds / 1_000_000).cast_signed()
}

#[cfg(test)]
mod tests;
