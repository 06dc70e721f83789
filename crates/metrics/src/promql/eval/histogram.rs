//! Quantiles and fractions of classic histograms: series of counts up to a bound `le`.

use std::collections::HashMap;

use super::column::Column;
use super::figure::open_metrics;
use super::grid::Grid;
use super::labels::text;
use super::notes::Forced;
use super::{Eval, Names, Run, Val, column};
use crate::labels::Labels;
use crate::promql::ast::{Expr, Span};
use crate::sample::TimestampMs;

const LE: &str = "le";

/// Relative differences of counts below this come from rounding.
const ROUNDING: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// The largest value counted.
    bound: f64,
    count: f64,
}

/// The buckets of one histogram: the index of each one's column, by bound.
struct Histogram {
    labels: Labels,
    drops_name: bool,
    columns: Vec<(f64, usize)>,
}

impl Run<'_> {
    /// Groups the buckets; says which series are none.
    fn histograms(&mut self, columns: &[Column], span: Span) -> Vec<Histogram> {
        let mut found: Vec<Histogram> = Vec::new();
        let mut known: HashMap<Labels, usize> = HashMap::new();
        for (index, column) in columns.iter().enumerate() {
            let le = column.labels.get(LE).unwrap_or_default();
            let Ok(bound) = le.parse::<f64>() else {
                let metric = match self.engine.names {
                    Names::Delayed => column.labels.name(),
                    Names::Immediate => "",
                };
                self.notes.bad_bucket(span, metric, le);
                continue;
            };
            let labels = column.labels.filter(|name| name != LE);
            let place = *known.entry(labels.clone()).or_insert_with(|| {
                found.push(Histogram { labels, drops_name: true, columns: Vec::new() });
                found.len() - 1
            });
            found[place].columns.push((bound, index));
        }
        for histogram in &mut found {
            histogram.columns.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        found
    }

    /// One column per histogram from what `of` makes of its buckets at each step.
    fn of_histograms(
        &mut self,
        histograms: &[Histogram],
        columns: &[Column],
        grid: Grid,
        mut of: impl FnMut(&mut Self, &Histogram, usize, &mut Vec<Bucket>) -> f64,
    ) -> Vec<Column> {
        let mut out = Vec::with_capacity(histograms.len());
        let mut buckets = Vec::new();
        for histogram in histograms {
            let mut column = Column::empty(histogram.labels.clone(), histogram.drops_name, grid.count);
            for step in 0..grid.count {
                buckets.clear();
                buckets.extend(histogram.columns.iter().filter_map(|(bound, index)| {
                    columns[*index].at(step).map(|count| Bucket { bound: *bound, count })
                }));
                if !buckets.is_empty() {
                    column.values[step] = of(self, histogram, step, &mut buckets);
                }
            }
            self.drop_name(&mut column);
            out.push(column);
        }
        out
    }

    fn quantiles(
        &mut self,
        histograms: &[Histogram],
        columns: &[Column],
        wanted: &[f64],
        span: Span,
        grid: Grid,
    ) -> Vec<Column> {
        self.of_histograms(histograms, columns, grid, |run, histogram, step, buckets| {
            let (value, forced) = quantile(wanted[step], buckets, grid.at(step));
            if let Some(forced) = forced {
                let metric = match run.engine.names {
                    Names::Delayed => histogram.labels.name(),
                    Names::Immediate => "",
                };
                run.notes.forced_monotonic(span, metric, forced);
            }
            value
        })
    }

    fn check_quantiles(&mut self, wanted: &[f64], arg: &Expr) {
        for quantile in wanted.iter().filter(|quantile| !(0.0..=1.0).contains(*quantile)) {
            self.notes.invalid_quantile(arg.bare().span, *quantile);
        }
    }

    pub(super) fn histogram_quantile(&mut self, args: &[Expr], grid: Grid) -> Eval<Val> {
        let wanted = self.scalars(&args[0], grid)?;
        self.check_quantiles(&wanted, &args[0]);
        let columns = self.columns(&args[1], grid)?;
        let span = args[1].bare().span;
        let histograms = self.histograms(&columns, span);
        let out = self.quantiles(&histograms, &columns, &wanted, span, grid);
        Ok(Val::Vector(self.settle(out, grid)?))
    }

    pub(super) fn histogram_quantiles(&mut self, args: &[Expr], grid: Grid) -> Eval<Val> {
        let [vector, label, wanted @ ..] = args else { return Ok(Val::Vector(Vec::new())) };
        let label = text(label);
        let columns = self.columns(vector, grid)?;
        let span = vector.bare().span;
        let histograms = self.histograms(&columns, span);
        let mut out = self.out(grid);
        for arg in wanted {
            let wanted = self.scalars(arg, grid)?;
            self.check_quantiles(&wanted, arg);
            for column in self.quantiles(&histograms, &columns, &wanted, span, grid) {
                for (step, quantile) in wanted.iter().enumerate() {
                    if let Some(value) = column.at(step) {
                        let labels = column.labels.with(label, &open_metrics(*quantile));
                        let place = out.column(labels, column.drops_name)?;
                        out.put(place, step, value)?;
                    }
                }
            }
        }
        Ok(Val::Vector(self.settle(out.finish(), grid)?))
    }

    pub(super) fn histogram_fraction(&mut self, args: &[Expr], grid: Grid) -> Eval<Val> {
        let lower = self.scalars(&args[0], grid)?;
        let upper = self.scalars(&args[1], grid)?;
        let columns = self.columns(&args[2], grid)?;
        let histograms = self.histograms(&columns, args[2].bare().span);
        let out = self.of_histograms(&histograms, &columns, grid, |_, _, step, buckets| {
            fraction(lower[step], upper[step], buckets)
        });
        Ok(Val::Vector(column::merge(self.settle(out, grid)?)?))
    }
}

/// Buckets of one bound become one. They come sorted.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
}

fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < epsilon * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < epsilon
}

/// Raises counts below that of a smaller bucket, and levels those that differ by rounding alone.
fn make_monotonic(buckets: &mut [Bucket], at_ms: TimestampMs) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut before = buckets.first()?.count;
    for bucket in buckets.iter_mut().skip(1) {
        let count = bucket.count;
        if count == before {
            continue;
        }
        if almost_equal(before, count, ROUNDING) {
            bucket.count = before;
        } else if count < before {
            bucket.count = before;
            let known = forced.get_or_insert(Forced {
                from: bucket.bound,
                to: bucket.bound,
                difference: 0.0,
                first_ms: at_ms,
                last_ms: at_ms,
                count: 1,
            });
            known.from = known.from.min(bucket.bound);
            known.to = known.to.max(bucket.bound);
            known.difference = known.difference.max(before - count);
        } else {
            before = count;
        }
    }
    forced
}

/// Linear within a bucket; the lowest begins at 0 unless its bound is not above that; of the one without a bound, its
/// begin is taken.
fn quantile(wanted: f64, buckets: &mut Vec<Bucket>, at_ms: TimestampMs) -> (f64, Option<Forced>) {
    if wanted.is_nan() {
        return (f64::NAN, None);
    }
    if wanted < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if wanted > 1.0 {
        return (f64::INFINITY, None);
    }
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let forced = make_monotonic(buckets, at_ms);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = wanted * observations;
    // The first that reaches the rank; a count of NaN never does.
    let index = buckets[..last].partition_point(|bucket| bucket.count < rank || bucket.count.is_nan());
    if index == last {
        return (buckets[last - 1].bound, forced);
    }
    if index == 0 && buckets[0].bound <= 0.0 {
        return (buckets[0].bound, forced);
    }
    let (mut start, end, mut count) = (0.0, buckets[index].bound, buckets[index].count);
    if index > 0 {
        start = buckets[index - 1].bound;
        count -= buckets[index - 1].count;
        rank -= buckets[index - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// How much of all that was counted lies between two values.
fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let total = buckets.last().map_or(0.0, |last| last.count);
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank_of = |value: f64| {
        let mut rank = 0.0;
        let mut start = if buckets[0].bound <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
        for bucket in buckets.iter() {
            if start >= value {
                return rank;
            }
            if bucket.bound > value {
                // In a bucket without a begin nothing can be told.
                if start == f64::NEG_INFINITY {
                    return bucket.count;
                }
                return rank + (bucket.count - rank) * (value - start) / (bucket.bound - start);
            }
            rank = bucket.count;
            start = bucket.bound;
        }
        total
    };
    let capped = |rank: f64| if rank > total { total } else { rank };
    (capped(rank_of(upper)) - capped(rank_of(lower))) / total
}
