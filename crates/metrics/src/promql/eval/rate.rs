//! Slopes: `rate`, `increase`, `delta` and their kin.

use super::window::Window;
use crate::promql::ast::Edge;
use crate::sample::{Sample, TimestampMs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    CounterPerSecond,
    Counter,
    Gauge,
}

/// How much a window's samples grew, extrapolated to its ends.
///
/// When the first or last sample lies nearer to its end than 1.1 times the mean distance of samples, the growth reaches
/// to that end; otherwise the series is taken to begin or end half a distance off. A counter does not begin below zero.
pub fn rate(window: &Window<'_>, of: Of) -> Option<f64> {
    if window.edge != Edge::Plain {
        return extended(window, of);
    }
    let [first, .., last] = window.samples else { return None };
    let mut grown = last.value - first.value;
    if of != Of::Gauge && window.may_fall {
        for pair in window.samples.windows(2) {
            if pair[1].value < pair[0].value {
                grown += pair[0].value;
            }
        }
    }
    let seconds = |to: TimestampMs, from: TimestampMs| to.saturating_sub(from) as f64 / 1000.0;
    let mut before = seconds(first.at_ms, window.start_ms);
    let mut after = seconds(window.end_ms, last.at_ms);
    let sampled = seconds(last.at_ms, first.at_ms);
    let distance = sampled / (window.samples.len() - 1) as f64;
    let near = distance * 1.1;
    if before >= near {
        before = distance / 2.0;
    }
    if of != Of::Gauge {
        let to_zero =
            if grown > 0.0 && first.value >= 0.0 { sampled * (first.value / grown) } else { before };
        if to_zero < before {
            before = to_zero;
        }
    }
    if after >= near {
        after = distance / 2.0;
    }
    let mut factor = (sampled + before + after) / sampled;
    if of == Of::CounterPerSecond {
        factor /= window.range_s;
    }
    Some(grown * factor)
}

/// The difference of the last two samples, per second for a counter.
pub fn last_two(window: &Window<'_>, counter: bool) -> Option<f64> {
    let [.., before, last] = window.samples else { return None };
    if !counter {
        return Some(last.value - before.value);
    }
    let grown = if last.value < before.value { last.value } else { last.value - before.value };
    Some(grown / (last.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0))
}

/// The value at a time between two samples. A counter that fell began anew at zero.
pub fn interpolate(before: Sample, after: Sample, at_ms: TimestampMs, counter: bool) -> f64 {
    let from = if counter && after.value < before.value { 0.0 } else { before.value };
    from + (after.value - from) * (at_ms - before.at_ms) as f64 / (after.at_ms - before.at_ms) as f64
}

/// The samples of an anchored or smoothed range, with the values at its two ends.
pub fn with_ends(window: &Window<'_>) -> Vec<Sample> {
    let samples = window.samples;
    let smoothed = window.edge == Edge::Smoothed;
    let Some(mut last) = samples.len().checked_sub(1) else { return Vec::new() };
    let first = samples[..last].partition_point(|sample| sample.at_ms <= window.start_ms).saturating_sub(1);
    if smoothed {
        last = samples[..last].partition_point(|sample| sample.at_ms < window.end_ms);
    }
    if samples[last].at_ms <= window.start_ms {
        return Vec::new();
    }
    let (left, right) = ends(window, first, last, false);
    let inside =
        samples.iter().filter(|sample| sample.at_ms > window.start_ms && sample.at_ms < window.end_ms);
    let mut list = vec![Sample { at_ms: window.start_ms, value: left }];
    list.extend(inside);
    list.push(Sample { at_ms: window.end_ms, value: right });
    list
}

/// The values at both ends of a range, given the samples nearest to them.
fn ends(window: &Window<'_>, first: usize, last: usize, counter: bool) -> (f64, f64) {
    let samples = window.samples;
    let smoothed = window.edge == Edge::Smoothed;
    let left = if smoothed && samples[first].at_ms < window.start_ms {
        interpolate(samples[first], samples[first + 1], window.start_ms, counter)
    } else {
        samples[first].value
    };
    let right = if smoothed && last > 0 && samples[last].at_ms > window.end_ms {
        interpolate(samples[last - 1], samples[last], window.end_ms, counter)
    } else {
        samples[last].value
    };
    (left, right)
}

/// Of an anchored or smoothed range: from the value at its begin to that at its end, without extrapolation.
fn extended(window: &Window<'_>, of: Of) -> Option<f64> {
    let samples = window.samples;
    let smoothed = window.edge == Edge::Smoothed;
    let counter = of != Of::Gauge;
    let mut last = samples.len().checked_sub(1)?;
    let mut first =
        samples[..last].partition_point(|sample| sample.at_ms <= window.start_ms).saturating_sub(1);
    if smoothed {
        last = samples[..last].partition_point(|sample| sample.at_ms < window.end_ms);
    }
    if samples[last].at_ms <= window.start_ms || (smoothed && samples[first].at_ms > window.end_ms) {
        return None;
    }
    let (left, right) = ends(window, first, last, counter);
    let mut grown = right - left;
    if counter {
        if samples[first].at_ms <= window.start_ms {
            first += 1;
        }
        let end = if samples[last].at_ms >= window.end_ms { last } else { last + 1 };
        let mut before = left;
        let mut corrected = 0.0;
        for sample in samples.get(first..end).unwrap_or_default() {
            if sample.value < before {
                corrected += before;
            }
            before = sample.value;
        }
        if right < before {
            corrected += before;
        }
        grown += corrected;
    }
    Some(if of == Of::CounterPerSecond { grown / window.range_s } else { grown })
}
