//! Data points as samples.

use std::collections::BTreeMap;

use super::attributes::Attributes;
use super::{Metric, OtlpRefused, Reader, at_ms};
use crate::exposition::number;
use crate::labels::{Labels, NAME};
use crate::remote::wire::{Value, fields};
use crate::sample::{Sample, TimestampMs, stale};

/// The flag that says that there is no value: the series ended.
const NO_RECORDED_VALUE: u64 = 1;

/// What every kind of point has.
#[derive(Default)]
struct Common {
    attributes: Attributes,
    at_ms: TimestampMs,
    ended: bool,
}

impl Common {
    /// The marker instead of the value where there is none.
    fn sample(&self, value: f64) -> Sample {
        Sample { at_ms: self.at_ms, value: if self.ended { stale() } else { value } }
    }
}

fn named(base: &BTreeMap<String, String>, name: &str, suffix: &str, extra: Option<(&str, &str)>) -> Labels {
    let base = base.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let name = format!("{name}{suffix}");
    Labels::new(base.chain(extra).chain([(NAME, name.as_str())]))
}

#[allow(clippy::cast_precision_loss)]
impl Reader<'_> {
    pub(super) fn number(&mut self, metric: &Metric<'_>, point: Value<'_>) -> Result<(), OtlpRefused> {
        let mut common = Common::default();
        let mut number = None;
        for field in fields(point.bytes()?) {
            match field? {
                (3, time) => common.at_ms = at_ms(time.fixed()?),
                (4, value) => number = Some(value.double()?),
                (6, value) => number = Some(value.fixed()?.cast_signed() as f64),
                (7, attribute) => common.attributes.read(attribute, self.limits)?,
                (8, flags) => common.ended = flags.varint()? & NO_RECORDED_VALUE != 0,
                _ => {}
            }
        }
        if number.is_none() && !common.ended {
            self.otlp.refuse(1, || format!("a point of {:?} has no value", metric.name));
            return Ok(());
        }
        if !self.is_timed(metric, &common) {
            return Ok(());
        }
        let base = metric.resource.labelled(&common.attributes);
        self.keep(named(&base, &metric.name, "", None), common.sample(number.unwrap_or_default()))
    }

    pub(super) fn histogram(&mut self, metric: &Metric<'_>, point: Value<'_>) -> Result<(), OtlpRefused> {
        let mut common = Common::default();
        let (mut count, mut sum) = (0, None);
        let (mut counts, mut bounds): (Vec<u64>, Vec<f64>) = (Vec::new(), Vec::new());
        for field in fields(point.bytes()?) {
            match field? {
                (3, time) => common.at_ms = at_ms(time.fixed()?),
                (4, value) => count = value.fixed()?,
                (5, value) => sum = Some(value.double()?),
                (6, values) => counts.extend(values.fixed_items()?),
                (7, values) => bounds.extend(values.fixed_items()?.map(f64::from_bits)),
                (9, attribute) => common.attributes.read(attribute, self.limits)?,
                (10, flags) => common.ended = flags.varint()? & NO_RECORDED_VALUE != 0,
                _ => {}
            }
        }
        if !self.is_timed(metric, &common) {
            return Ok(());
        }
        let base = metric.resource.labelled(&common.attributes);
        if let Some(sum) = sum {
            self.keep(named(&base, &metric.name, "_sum", None), common.sample(sum))?;
        }
        self.keep(named(&base, &metric.name, "_count", None), common.sample(count as f64))?;
        let mut cumulative: u64 = 0;
        for (bound, count) in bounds.iter().zip(&counts) {
            cumulative = cumulative.saturating_add(*count);
            let le = number::plain(*bound);
            self.keep(
                named(&base, &metric.name, "_bucket", Some(("le", &le))),
                common.sample(cumulative as f64),
            )?;
        }
        self.keep(named(&base, &metric.name, "_bucket", Some(("le", "+Inf"))), common.sample(count as f64))
    }

    pub(super) fn summary(&mut self, metric: &Metric<'_>, point: Value<'_>) -> Result<(), OtlpRefused> {
        let mut common = Common::default();
        let (mut count, mut sum) = (0, 0.0);
        let mut quantiles = Vec::new();
        for field in fields(point.bytes()?) {
            match field? {
                (3, time) => common.at_ms = at_ms(time.fixed()?),
                (4, value) => count = value.fixed()?,
                (5, value) => sum = value.double()?,
                (6, message) => {
                    let (mut quantile, mut value) = (0.0, 0.0);
                    for field in fields(message.bytes()?) {
                        match field? {
                            (1, number) => quantile = number.double()?,
                            (2, number) => value = number.double()?,
                            _ => {}
                        }
                    }
                    if quantiles.len() >= self.limits.samples_max {
                        return Err(OtlpRefused::TooLarge {
                            what: "quantiles",
                            limit: self.limits.samples_max,
                        });
                    }
                    quantiles.push((quantile, value));
                }
                (7, attribute) => common.attributes.read(attribute, self.limits)?,
                (8, flags) => common.ended = flags.varint()? & NO_RECORDED_VALUE != 0,
                _ => {}
            }
        }
        if !self.is_timed(metric, &common) {
            return Ok(());
        }
        let base = metric.resource.labelled(&common.attributes);
        self.keep(named(&base, &metric.name, "_sum", None), common.sample(sum))?;
        self.keep(named(&base, &metric.name, "_count", None), common.sample(count as f64))?;
        for (quantile, value) in quantiles {
            let quantile = number::plain(quantile);
            self.keep(named(&base, &metric.name, "", Some(("quantile", &quantile))), common.sample(value))?;
        }
        Ok(())
    }

    /// A point without a time would be one of 1970.
    fn is_timed(&mut self, metric: &Metric<'_>, common: &Common) -> bool {
        if common.at_ms == 0 {
            self.otlp.refuse(1, || format!("a point of {:?} has no time", metric.name));
        }
        common.at_ms != 0
    }
}
