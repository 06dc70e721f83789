//! Selectors: what storage has, on the steps of a grid or as windows of samples.

use super::column::{ABSENT, Column};
use super::grid::Grid;
use super::window::{Frame, RangeInput, RangeSeries};
use super::{Eval, Names, Run, Val};
use crate::promql::answer::EvalError;
use crate::promql::ast::{
    Arithmetic, At, DurationOp, Edge, Expr, Length, Node, Range, Selector, Shift, Subquery,
};
use crate::sample::{Sample, TimestampMs, is_stale};
use crate::select::Series;

const NS_PER_MS: i64 = 1_000_000;

/// What of a sample becomes the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    Value,
    /// Its time in seconds.
    Time,
    /// The same for `timestamp`, which does not heed an offset next to `@`.
    TimeUnshifted,
}

impl Run<'_> {
    /// In nanoseconds.
    pub(super) fn length(&self, length: &Length) -> Eval<i64> {
        match length {
            Length::Fixed(ns) => Ok(*ns),
            Length::Computed(arithmetic) => {
                let seconds = self.compute(arithmetic)?;
                if !seconds.is_finite() {
                    return Err(EvalError::Duration { what: "NaN or infinity" });
                }
                if seconds.abs() > 9_223_372_036.0 {
                    return Err(EvalError::Duration { what: "a figure out of range" });
                }
                Ok((seconds * 1000.0) as i64 * NS_PER_MS)
            }
        }
    }

    pub(super) fn positive_length(&self, length: &Length) -> Eval<i64> {
        let ns = self.length(length)?;
        if ns <= 0 { Err(EvalError::NoDuration) } else { Ok(ns) }
    }

    /// In seconds.
    fn compute(&self, arithmetic: &Arithmetic) -> Eval<f64> {
        Ok(match arithmetic {
            Arithmetic::Seconds(seconds) => *seconds,
            Arithmetic::Step => self.query_step_ms as f64 / 1000.0,
            Arithmetic::Range => self.query_range_ms as f64 / 1000.0,
            Arithmetic::Negate(inner) => -self.compute(inner)?,
            Arithmetic::Two(op, left, right) => {
                let (left, right) = (self.compute(left)?, self.compute(right)?);
                match op {
                    DurationOp::Add => left + right,
                    DurationOp::Subtract => left - right,
                    DurationOp::Multiply => left * right,
                    DurationOp::Divide if right == 0.0 => {
                        return Err(EvalError::Duration { what: "division by zero" });
                    }
                    DurationOp::Divide => left / right,
                    DurationOp::Modulo if right == 0.0 => {
                        return Err(EvalError::Duration { what: "modulo by zero" });
                    }
                    DurationOp::Modulo => left % right,
                    DurationOp::Power => left.powf(right),
                    DurationOp::Min => left.min(right),
                    DurationOp::Max => left.max(right),
                }
            }
        })
    }

    /// The offset in nanoseconds, and the moment that stands for every step.
    pub(super) fn shift(&self, shift: &Shift) -> Eval<(i64, Option<TimestampMs>)> {
        let offset_ns = shift.offset.as_ref().map_or(Ok(0), |offset| self.length(offset))?;
        let at = shift.at.map(|at| match at {
            At::Ms(ms) => ms,
            At::Start => self.start_ms,
            At::End => self.end_ms,
        });
        Ok((offset_ns, at))
    }

    pub(super) fn fetch(
        &self,
        selector: &Selector,
        from_ms: TimestampMs,
        to_ms: TimestampMs,
    ) -> Eval<Vec<Series>> {
        self.check_stop()?;
        Ok(self.querier.select(&selector.matchers, from_ms, to_ms, self.engine.limits.samples_max)?)
    }

    pub(super) fn select_instant(&self, selector: &Selector, grid: Grid, take: Take) -> Eval<Vec<Column>> {
        if grid.count == 0 {
            return Ok(Vec::new());
        }
        let (offset_ns, at) = self.shift(&selector.shift)?;
        let offset_ms = offset_ns / NS_PER_MS;
        let lookback_ms = self.engine.lookback_ms;
        let first_ms = at.unwrap_or(grid.start_ms).saturating_sub(offset_ms);
        let last_ms = at.unwrap_or(grid.end_ms()).saturating_sub(offset_ms);
        let smoothed = selector.edge == Edge::Smoothed;
        let to_ms = if smoothed { last_ms.saturating_add(lookback_ms) } else { last_ms };
        let series = self.fetch(selector, first_ms.saturating_sub(lookback_ms - 1), to_ms)?;
        self.check_room(series.len(), grid)?;
        // Prometheus reads with the offset, but looks for the time of a sample at `@` without it: what an offset beyond
        // the lookback moved away is not found.
        let heeded_ms = if take == Take::TimeUnshifted && at.is_some() { 0 } else { offset_ms };
        let looked_up = |step_ms: TimestampMs| at.unwrap_or(step_ms).saturating_sub(heeded_ms);
        let mut columns = Vec::with_capacity(series.len());
        for one in series {
            let values = if smoothed {
                interpolated(&one.samples, grid, lookback_ms, looked_up)
            } else {
                latest(&one.samples, grid, lookback_ms, take, looked_up)
            };
            let column = Column { labels: one.labels, drops_name: false, values };
            if !column.is_empty() {
                columns.push(column);
            }
        }
        Ok(columns)
    }

    /// The series of a range vector and the frame that moves over them; nothing when `expr` is none.
    pub(super) fn range_input(&mut self, expr: &Expr, grid: Grid) -> Eval<Option<RangeInput>> {
        if let Node::Range(range) = &expr.bare().node {
            self.of_range(range, grid).map(Some)
        } else if let Node::Subquery(subquery) = &expr.bare().node {
            self.of_subquery(subquery, grid).map(Some)
        } else {
            Ok(None)
        }
    }

    fn of_range(&self, range: &Range, grid: Grid) -> Eval<RangeInput> {
        let range_ns = self.positive_length(&range.range)?;
        let (offset_ns, at) = self.shift(&range.selector.shift)?;
        let edge = range.selector.edge;
        let frame = Frame::new(range_ns, offset_ns, at, edge, self.engine.lookback_ms);
        let (from, to) = frame.reach(grid);
        let series = if grid.count == 0 { Vec::new() } else { self.fetch(&range.selector, from, to)? };
        let series = series
            .into_iter()
            .map(|Series { labels, mut samples }| {
                samples.retain(|sample| !is_stale(sample.value));
                RangeSeries { labels, drops_name: false, samples }
            })
            .collect();
        Ok(RangeInput { frame, series })
    }

    fn of_subquery(&mut self, subquery: &Subquery, grid: Grid) -> Eval<RangeInput> {
        let range_ns = self.positive_length(&subquery.range)?;
        let range_ms = range_ns / NS_PER_MS;
        let (offset_ns, at) = self.shift(&subquery.shift)?;
        let offset_ms = offset_ns / NS_PER_MS;
        let step_ms = match &subquery.step {
            // A step below a millisecond would never end.
            Some(step) => (self.positive_length(step)? / NS_PER_MS).max(1),
            None => self.engine.subquery_step_ms.max(1),
        };
        let first_ms = at.unwrap_or(grid.start_ms).saturating_sub(offset_ms);
        let last_ms = at.unwrap_or(grid.end_ms()).saturating_sub(offset_ms);
        let before = first_ms.saturating_sub(range_ms);
        // Steps lie on multiples, so that the answer does not depend on when it is asked for.
        let mut start_ms = step_ms.saturating_mul(before / step_ms);
        if start_ms <= before {
            start_ms = start_ms.saturating_add(step_ms);
        }
        let frame = Frame::new(range_ns, offset_ns, at, Edge::Plain, self.engine.lookback_ms);
        if grid.count == 0 || start_ms > last_ms {
            return Ok(RangeInput { frame, series: Vec::new() });
        }
        let count = last_ms.abs_diff(start_ms) / step_ms.unsigned_abs() + 1;
        if count > self.engine.limits.samples_max as u64 {
            return Err(EvalError::TooManySamples { limit: self.engine.limits.samples_max });
        }
        let inner = Grid { start_ms, step_ms, count: count as usize };
        let columns = match self.eval(&subquery.inner, inner)? {
            Val::Vector(columns) => columns,
            Val::Scalar(_) | Val::Text(_) => Vec::new(),
        };
        // In Prometheus' storage of such results, series are in the order of their labels too.
        let mut series: Vec<RangeSeries> = columns
            .into_iter()
            .map(|column| RangeSeries {
                samples: column.points(inner).collect(),
                drops_name: column.drops_name,
                labels: column.labels,
            })
            .filter(|series| !series.samples.is_empty())
            .collect();
        if self.engine.names == Names::Immediate {
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(RangeInput { frame, series })
    }
}

/// The last sample of each step, unless it is too old or says that the series ended.
fn latest(
    samples: &[Sample],
    grid: Grid,
    lookback_ms: i64,
    take: Take,
    looked_up: impl Fn(TimestampMs) -> TimestampMs,
) -> Vec<f64> {
    let mut behind = 0;
    grid.times()
        .map(|step_ms| {
            let now_ms = looked_up(step_ms);
            while samples.get(behind).is_some_and(|sample| sample.at_ms <= now_ms) {
                behind += 1;
            }
            match behind.checked_sub(1).and_then(|index| samples.get(index)) {
                Some(sample)
                    if sample.at_ms > now_ms.saturating_sub(lookback_ms) && !is_stale(sample.value) =>
                {
                    match take {
                        Take::Value => sample.value,
                        Take::Time | Take::TimeUnshifted => sample.at_ms as f64 / 1000.0,
                    }
                }
                Some(_) | None => ABSENT,
            }
        })
        .collect()
}

/// Between the samples before and after each step, both within the lookback.
fn interpolated(
    samples: &[Sample],
    grid: Grid,
    lookback_ms: i64,
    looked_up: impl Fn(TimestampMs) -> TimestampMs,
) -> Vec<f64> {
    let samples: Vec<Sample> = samples.iter().copied().filter(|sample| !is_stale(sample.value)).collect();
    grid.times()
        .map(|step_ms| {
            let now_ms = looked_up(step_ms);
            let from = samples.partition_point(|sample| sample.at_ms <= now_ms.saturating_sub(lookback_ms));
            let to = samples.partition_point(|sample| sample.at_ms <= now_ms.saturating_add(lookback_ms));
            let near = &samples[from..to];
            let next = near.partition_point(|sample| sample.at_ms < now_ms);
            match (next.checked_sub(1).and_then(|index| near.get(index)), near.get(next)) {
                (_, Some(exact)) if exact.at_ms == now_ms => exact.value,
                (Some(before), Some(after)) => super::rate::interpolate(*before, *after, now_ms, false),
                (Some(before), None) => before.value,
                (None, _) => ABSENT,
            }
        })
        .collect()
}
