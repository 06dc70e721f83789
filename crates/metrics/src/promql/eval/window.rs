//! Functions of the samples in a window that moves along a series.

use super::column::{ABSENT, Column};
use super::grid::Grid;
use super::sum::{Mean, Sum};
use super::{Eval, Names, Run, Val};
use crate::labels::Labels;
use crate::promql::answer::EvalError;
use crate::promql::ast::{Call, Edge, Expr};
use crate::promql::functions::Windowed;
use crate::sample::{Sample, TimestampMs};

const NS_PER_MS: i64 = 1_000_000;

/// Where the window of a step lies.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    range_ns: i64,
    offset_ns: i64,
    /// Stands for every step.
    at_ms: Option<TimestampMs>,
    pub edge: Edge,
    lookback_ms: i64,
}

pub struct RangeInput {
    pub frame: Frame,
    pub series: Vec<RangeSeries>,
}

pub struct RangeSeries {
    pub labels: Labels,
    pub drops_name: bool,
    /// Without stale markers.
    pub samples: Vec<Sample>,
}

/// What a function sees.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Not empty when a function sees it. Of an anchored or smoothed range, also those around it.
    pub samples: &'a [Sample],
    /// Exclusive.
    pub start_ms: TimestampMs,
    pub end_ms: TimestampMs,
    pub range_s: f64,
    /// The step's own time.
    pub now_ms: TimestampMs,
    pub edge: Edge,
    /// Some sample may be lower than the one before it: a counter that began anew. Otherwise none is.
    pub may_fall: bool,
}

impl Frame {
    pub fn new(
        range_ns: i64,
        offset_ns: i64,
        at_ms: Option<TimestampMs>,
        edge: Edge,
        lookback_ms: i64,
    ) -> Self {
        Self { range_ns, offset_ns, at_ms, edge, lookback_ms }
    }

    /// The first excluded and the last included time of a step's window, by which samples are taken.
    fn bounds(&self, now_ms: TimestampMs) -> (TimestampMs, TimestampMs) {
        let end = self.at_ms.unwrap_or(now_ms).saturating_sub(self.offset_ns / NS_PER_MS);
        let start = end.saturating_sub(self.range_ns / NS_PER_MS);
        match self.edge {
            Edge::Plain => (start, end),
            Edge::Anchored => (start.saturating_sub(self.lookback_ms), end),
            Edge::Smoothed => (start.saturating_sub(self.lookback_ms), end.saturating_add(self.lookback_ms)),
        }
    }

    /// The times that the windows of a grid reach, both included.
    pub fn reach(&self, grid: Grid) -> (TimestampMs, TimestampMs) {
        let (first, _) = self.bounds(grid.start_ms);
        let (_, last) = self.bounds(grid.end_ms());
        (first.saturating_add(1), last)
    }

    fn view<'a>(&self, samples: &'a [Sample], now_ms: TimestampMs) -> Window<'a> {
        let reference = self.at_ms.unwrap_or(now_ms);
        Window {
            samples,
            // Range and offset are added before they are cut to milliseconds.
            start_ms: reference.saturating_sub(self.range_ns.saturating_add(self.offset_ns) / NS_PER_MS),
            end_ms: reference.saturating_sub(self.offset_ns / NS_PER_MS),
            range_s: (self.range_ns / 1_000_000_000) as f64 + (self.range_ns % 1_000_000_000) as f64 / 1e9,
            now_ms,
            edge: self.edge,
            may_fall: true,
        }
    }

    pub fn window<'a>(&self, samples: &'a [Sample], now_ms: TimestampMs) -> Window<'a> {
        let (after, to) = self.bounds(now_ms);
        let low = samples.partition_point(|sample| sample.at_ms <= after);
        let high = samples.partition_point(|sample| sample.at_ms <= to).max(low);
        self.view(&samples[low..high], now_ms)
    }

    /// The windows of all steps, found by moving on from one to the next. Each sample is in many windows, and counters
    /// seldom fall: where they do is found on the way, so that not every window has to be searched.
    fn windows<'a>(self, samples: &'a [Sample], grid: Grid) -> impl Iterator<Item = Window<'a>> {
        let (mut low, mut high) = (0, 0);
        // The last sample before `high` that is lower than the one before it.
        let mut fall = 0;
        grid.times().map(move |now_ms| {
            let (after, to) = self.bounds(now_ms);
            while samples.get(low).is_some_and(|sample| sample.at_ms <= after) {
                low += 1;
            }
            high = high.max(low);
            while samples.get(high).is_some_and(|sample| sample.at_ms <= to) {
                if high > low && samples[high].value < samples[high - 1].value {
                    fall = high;
                }
                high += 1;
            }
            Window { may_fall: fall > low, ..self.view(&samples[low..high], now_ms) }
        })
    }
}

/// After how many samples to ask whether to stop: some milliseconds.
const SAMPLES_PER_CHECK: usize = 1 << 18;

impl Run<'_> {
    /// Evaluates a function with a range vector among its arguments.
    pub(super) fn windows(&mut self, id: Windowed, call: &Call, grid: Grid) -> Eval<Val> {
        let Some((range_arg, rest)) = split_range(&call.args) else { return Ok(Val::Vector(Vec::new())) };
        let Some(input) = self.range_input(range_arg, grid)? else { return Ok(Val::Vector(Vec::new())) };
        let mut params = Vec::with_capacity(rest.len());
        for arg in &rest {
            params.push(self.scalars(arg, grid)?);
        }
        check_edge(id, call.function.name, input.frame.edge)?;
        self.check_room(input.series.len(), grid)?;
        let keeps_name = matches!(id, Windowed::LastOverTime | Windowed::FirstOverTime);
        let mut columns = Vec::with_capacity(input.series.len());
        let mut scratch = Vec::new();
        let mut since_check = 0;
        for series in &input.series {
            let mut values = Vec::with_capacity(grid.count);
            for (step, window) in input.frame.windows(&series.samples, grid).enumerate() {
                since_check += 1 + window.samples.len();
                if since_check > SAMPLES_PER_CHECK {
                    since_check = 0;
                    self.check_stop()?;
                }
                if window.samples.is_empty() {
                    values.push(ABSENT);
                    continue;
                }
                let param = |index: usize| params.get(index).and_then(|list| list.get(step)).copied();
                if id == Windowed::QuantileOverTime
                    && let Some(quantile) = param(0)
                    && !(0.0..=1.0).contains(&quantile)
                {
                    self.notes.invalid_quantile(call.args[0].bare().span, quantile);
                }
                values.push(of_window(id, &window, param(0), param(1), &mut scratch)?.unwrap_or(ABSENT));
            }
            let mut column = Column { labels: series.labels.clone(), drops_name: series.drops_name, values };
            if column.is_empty() {
                continue;
            }
            if matches!(id, Windowed::Rate | Windowed::Increase) {
                self.note_counter(range_arg, &series.labels);
            }
            if !keeps_name || column.drops_name {
                self.drop_name(&mut column);
            }
            self.hold(column.samples())?;
            columns.push(column);
        }
        if id == Windowed::AbsentOverTime {
            return Ok(Val::Vector(self.absent(range_arg, &columns, grid)));
        }
        if self.engine.names == Names::Immediate && super::column::has_twins(&columns) {
            return Err(EvalError::SameLabels);
        }
        Ok(Val::Vector(columns))
    }

    fn note_counter(&mut self, arg: &Expr, labels: &Labels) {
        let name = labels.name();
        if !name.is_empty() && !["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.ends_with(end))
        {
            self.notes.not_a_counter(arg.bare().span, name);
        }
    }
}

/// The range vector among the arguments, and the others.
pub fn split_range(args: &[Expr]) -> Option<(&Expr, Vec<&Expr>)> {
    let index = args.iter().position(|arg| arg.ty == crate::promql::ast::Type::RangeVector)?;
    let rest = args.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, arg)| arg).collect();
    Some((&args[index], rest))
}

fn check_edge(id: Windowed, function: &'static str, edge: Edge) -> Eval<()> {
    match edge {
        Edge::Plain => Ok(()),
        Edge::Anchored
            if matches!(
                id,
                Windowed::Resets | Windowed::Changes | Windowed::Rate | Windowed::Increase | Windowed::Delta
            ) =>
        {
            Ok(())
        }
        Edge::Smoothed if matches!(id, Windowed::Rate | Windowed::Increase | Windowed::Delta) => Ok(()),
        Edge::Anchored => Err(EvalError::Edge {
            edge: "anchored",
            allowed: "changes, delta, increase, rate, resets",
            function,
        }),
        Edge::Smoothed => {
            Err(EvalError::Edge { edge: "smoothed", allowed: "delta, increase, rate", function })
        }
    }
}

fn of_window(
    id: Windowed,
    window: &Window<'_>,
    first: Option<f64>,
    second: Option<f64>,
    scratch: &mut Vec<f64>,
) -> Eval<Option<f64>> {
    let samples = window.samples;
    let values = || samples.iter().map(|sample| sample.value);
    let seconds = |sample: &Sample| sample.at_ms as f64 / 1000.0;
    Ok(match id {
        Windowed::Rate => super::rate::rate(window, super::rate::Of::CounterPerSecond),
        Windowed::Increase => super::rate::rate(window, super::rate::Of::Counter),
        Windowed::Delta => super::rate::rate(window, super::rate::Of::Gauge),
        Windowed::Irate => super::rate::last_two(window, true),
        Windowed::Idelta => super::rate::last_two(window, false),
        Windowed::Resets => window.anchored().map(|samples| pairs(samples, |before, now| now < before)),
        Windowed::Changes => window
            .anchored()
            .map(|samples| pairs(samples, |before, now| now != before && !(now.is_nan() && before.is_nan()))),
        Windowed::SumOverTime => {
            let sum = values().fold(Sum::default(), Sum::plus);
            Some(if sum.sum.is_infinite() { sum.sum } else { sum.total() })
        }
        Windowed::AvgOverTime => samples.split_first().map(|(first, rest)| {
            rest.iter().fold(Mean::of(first.value), |mean, sample| mean.with(sample.value)).value()
        }),
        Windowed::CountOverTime => Some(samples.len() as f64),
        Windowed::MinOverTime => extreme(samples, |now, best| now < best).map(|sample| sample.value),
        Windowed::MaxOverTime => extreme(samples, |now, best| now > best).map(|sample| sample.value),
        Windowed::TsOfMinOverTime => last_extreme(samples, |now, best| now <= best).as_ref().map(seconds),
        Windowed::TsOfMaxOverTime => last_extreme(samples, |now, best| now >= best).as_ref().map(seconds),
        Windowed::TsOfFirstOverTime => samples.first().map(seconds),
        Windowed::TsOfLastOverTime => samples.last().map(seconds),
        Windowed::FirstOverTime => samples.first().map(|sample| sample.value),
        Windowed::LastOverTime => samples.last().map(|sample| sample.value),
        Windowed::PresentOverTime | Windowed::AbsentOverTime => Some(1.0),
        Windowed::StddevOverTime => Some(variance(samples).sqrt()),
        Windowed::StdvarOverTime => Some(variance(samples)),
        Windowed::QuantileOverTime => {
            scratch.clear();
            scratch.extend(values());
            first.map(|wanted| quantile(wanted, scratch))
        }
        Windowed::MadOverTime => {
            scratch.clear();
            scratch.extend(values());
            if scratch.iter().any(|value| value.is_nan()) {
                return Ok(Some(f64::NAN));
            }
            let median = quantile(0.5, scratch);
            scratch.iter_mut().for_each(|value| *value = (*value - median).abs());
            Some(quantile(0.5, scratch))
        }
        Windowed::Deriv => {
            samples.first().filter(|_| samples.len() > 1).map(|first| regression(samples, first.at_ms).0)
        }
        Windowed::PredictLinear => first.filter(|_| samples.len() > 1).map(|ahead_s| {
            let (slope, intercept) = regression(samples, window.now_ms);
            slope * ahead_s + intercept
        }),
        Windowed::DoubleExponentialSmoothing => {
            smoothed(samples, first.unwrap_or(f64::NAN), second.unwrap_or(f64::NAN))?
        }
    })
}

impl<'a> Window<'a> {
    /// Those that count for `resets` and `changes`: of an anchored range also the last one before it, provided that
    /// there is one in it.
    fn anchored(&self) -> Option<&'a [Sample]> {
        match self.edge {
            Edge::Plain | Edge::Smoothed => Some(self.samples),
            Edge::Anchored => {
                let inside = self.samples.partition_point(|sample| sample.at_ms <= self.start_ms);
                (inside < self.samples.len()).then(|| &self.samples[inside.saturating_sub(1)..])
            }
        }
    }
}

fn pairs(samples: &[Sample], counts: impl Fn(f64, f64) -> bool) -> f64 {
    samples.windows(2).filter(|pair| counts(pair[0].value, pair[1].value)).count() as f64
}

/// The first of the best; NaN only when nothing else is there.
fn extreme(samples: &[Sample], better: impl Fn(f64, f64) -> bool) -> Option<Sample> {
    samples
        .iter()
        .copied()
        .reduce(|best, now| if better(now.value, best.value) || best.value.is_nan() { now } else { best })
}

/// The last of the best.
fn last_extreme(samples: &[Sample], as_good: impl Fn(f64, f64) -> bool) -> Option<Sample> {
    extreme(samples, as_good)
}

fn variance(samples: &[Sample]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, Sum::default(), Sum::default());
    for sample in samples {
        count += 1.0;
        let delta = sample.value - mean.total();
        mean = mean.plus(delta / count);
        squares = squares.plus(delta * (sample.value - mean.total()));
    }
    squares.total() / count
}

/// With linear interpolation between two values. Sorts them, NaN first.
pub fn quantile(wanted: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || wanted.is_nan() {
        return f64::NAN;
    }
    if wanted < 0.0 {
        return f64::NEG_INFINITY;
    }
    if wanted > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let last = values.len() - 1;
    let rank = wanted * last as f64;
    let lower = (rank.floor().max(0.0) as usize).min(last);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[(lower + 1).min(last)] * weight
}

/// Least squares: the slope per second, and the value at `intercept_ms`.
fn regression(samples: &[Sample], intercept_ms: TimestampMs) -> (f64, f64) {
    let first = samples[0].value;
    if samples.iter().skip(1).all(|sample| sample.value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut x_sum, mut y_sum, mut xy_sum, mut xx_sum) =
        (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for sample in samples {
        let x = sample.at_ms.wrapping_sub(intercept_ms) as f64 / 1e3;
        x_sum = x_sum.plus(x);
        y_sum = y_sum.plus(sample.value);
        xy_sum = xy_sum.plus(x * sample.value);
        xx_sum = xx_sum.plus(x * x);
    }
    let count = samples.len() as f64;
    let (x_sum, y_sum) = (x_sum.total(), y_sum.total());
    let covariance = xy_sum.total() - x_sum * y_sum / count;
    let variance = xx_sum.total() - x_sum * x_sum / count;
    let slope = covariance / variance;
    (slope, y_sum / count - slope * x_sum / count)
}

/// Holt's double exponential smoothing.
fn smoothed(samples: &[Sample], smoothing: f64, trend: f64) -> Eval<Option<f64>> {
    for (which, short, value) in [("smoothing", "sf", smoothing), ("trend", "tf", trend)] {
        if value <= 0.0 || value >= 1.0 {
            return Err(EvalError::Smoothing { which, short, value });
        }
    }
    let [first, second, ..] = samples else { return Ok(None) };
    let (mut before, mut level) = (0.0, first.value);
    let mut slope = second.value - first.value;
    for (index, sample) in samples.iter().enumerate().skip(1) {
        if index > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * sample.value + (1.0 - smoothing) * (level + slope);
        before = level;
        level = next;
    }
    Ok(Some(level))
}
