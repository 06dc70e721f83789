//! Calls of functions.

use super::column::{ABSENT, Column};
use super::figure::{go_max, go_min};
use super::grid::Grid;
use super::selector::Take;
use super::{Eval, Run, Val};
use crate::labels::Labels;
use crate::promql::ast::{Call, Expr, Node, Span};
use crate::promql::date::Moment;
use crate::promql::functions::{Body, Other};
use crate::select::{Matcher, Test};

impl Run<'_> {
    pub(super) fn call(&mut self, call: &Call, span: Span, grid: Grid) -> Eval<Val> {
        match call.function.body {
            Body::Window(id) => self.windows(id, call, grid),
            Body::Math(function) => self.each(&call.args[0], grid, |_| function),
            Body::Date(function) => match call.args.first() {
                Some(arg) => self.each(arg, grid, |_| move |value| function(Moment::of_value(value))),
                None => {
                    let values = grid.times().map(|at_ms| function(Moment::of_ms(at_ms))).collect();
                    Ok(Val::Vector(vec![Column { values, ..Column::default() }]))
                }
            },
            Body::Other(id) => self.other(id, call, span, grid),
        }
    }

    fn other(&mut self, id: Other, call: &Call, span: Span, grid: Grid) -> Eval<Val> {
        let args = &call.args;
        match id {
            Other::Time => Ok(Val::Scalar(grid.times().map(|at_ms| at_ms as f64 / 1000.0).collect())),
            Other::Pi => Ok(Val::Scalar(vec![std::f64::consts::PI; grid.count])),
            Other::Start => Ok(Val::Scalar(vec![self.start_ms as f64 / 1000.0; grid.count])),
            Other::End => Ok(Val::Scalar(vec![self.end_ms as f64 / 1000.0; grid.count])),
            Other::Step => Ok(Val::Scalar(vec![self.query_step_ms as f64 / 1000.0; grid.count])),
            Other::Range => Ok(Val::Scalar(vec![self.query_range_ms as f64 / 1000.0; grid.count])),
            Other::MaxOf => self.two_scalars(args, grid, go_max),
            Other::MinOf => self.two_scalars(args, grid, go_min),
            Other::Scalar => self.scalar(&args[0], grid),
            Other::Vector => {
                let values = self.scalars(&args[0], grid)?;
                Ok(Val::Vector(vec![Column { values, ..Column::default() }]))
            }
            Other::Absent => {
                let columns = self.columns(&args[0], grid)?;
                Ok(Val::Vector(self.absent(&args[0], &columns, grid)))
            }
            Other::Timestamp => self.timestamp(&args[0], grid),
            // Times at which series began are not kept: as in Prometheus without that feature, there is no answer.
            Other::StartTimestamp => Ok(Val::Vector(Vec::new())),
            Other::Clamp => {
                let low = self.scalars(&args[1], grid)?;
                let high = self.scalars(&args[2], grid)?;
                self.clamp(&args[0], grid, |step| (low[step], high[step]))
            }
            Other::ClampMin => {
                let low = self.scalars(&args[1], grid)?;
                self.clamp(&args[0], grid, |step| (low[step], f64::INFINITY))
            }
            Other::ClampMax => {
                let high = self.scalars(&args[1], grid)?;
                self.clamp(&args[0], grid, |step| (f64::NEG_INFINITY, high[step]))
            }
            Other::Round => {
                let nearest = match args.get(1) {
                    Some(arg) => self.scalars(arg, grid)?,
                    None => vec![1.0; grid.count],
                };
                self.each(&args[0], grid, |step| {
                    let inverse = 1.0 / nearest[step];
                    move |value: f64| (value * inverse + 0.5).floor() / inverse
                })
            }
            Other::Sort | Other::SortDesc | Other::SortByLabel | Other::SortByLabelDesc => {
                if grid.count > 1 {
                    self.notes.sort_in_range(span);
                }
                self.sort(id, args, grid)
            }
            Other::LabelReplace => self.label_replace(args, grid),
            Other::LabelJoin => self.label_join(args, grid),
            Other::HistogramQuantile => self.histogram_quantile(args, grid),
            Other::HistogramQuantiles => self.histogram_quantiles(args, grid),
            Other::HistogramFraction => self.histogram_fraction(args, grid),
            // Of native histograms alone, which samples here never are.
            Other::HistogramAvg
            | Other::HistogramCount
            | Other::HistogramStddev
            | Other::HistogramStdvar
            | Other::HistogramSum => {
                self.columns(&args[0], grid)?;
                Ok(Val::Vector(Vec::new()))
            }
            Other::Info => self.info(args, grid),
        }
    }

    /// Changes each value by what `change` gives for its step; the name goes.
    fn each<F: Fn(f64) -> f64>(&mut self, arg: &Expr, grid: Grid, change: impl Fn(usize) -> F) -> Eval<Val> {
        let mut columns = self.columns(arg, grid)?;
        for column in &mut columns {
            self.drop_name(column);
            for (step, value) in column.values.iter_mut().enumerate() {
                if !crate::sample::is_stale(*value) {
                    *value = change(step)(*value);
                }
            }
        }
        Ok(Val::Vector(self.settle(columns, grid)?))
    }

    fn clamp(&mut self, arg: &Expr, grid: Grid, bounds: impl Fn(usize) -> (f64, f64)) -> Eval<Val> {
        let mut columns = self.columns(arg, grid)?;
        for column in &mut columns {
            self.drop_name(column);
            for (step, value) in column.values.iter_mut().enumerate() {
                if crate::sample::is_stale(*value) {
                    continue;
                }
                let (low, high) = bounds(step);
                *value = if high < low { ABSENT } else { go_max(low, go_min(high, *value)) };
            }
        }
        columns.retain(|column| !column.is_empty());
        Ok(Val::Vector(self.settle(columns, grid)?))
    }

    fn two_scalars(&mut self, args: &[Expr], grid: Grid, join: impl Fn(f64, f64) -> f64) -> Eval<Val> {
        let left = self.scalars(&args[0], grid)?;
        let right = self.scalars(&args[1], grid)?;
        Ok(Val::Scalar(left.into_iter().zip(right).map(|(left, right)| join(left, right)).collect()))
    }

    fn scalar(&mut self, arg: &Expr, grid: Grid) -> Eval<Val> {
        let columns = self.columns(arg, grid)?;
        let value = |step: usize| {
            let mut there = columns.iter().filter_map(|column| column.at(step));
            match (there.next(), there.next()) {
                (Some(only), None) => only,
                (Some(_) | None, _) => f64::NAN,
            }
        };
        Ok(Val::Scalar((0..grid.count).map(value).collect()))
    }

    /// Of a bare selector, the time of the sample itself; of anything else, that of the evaluation.
    fn timestamp(&mut self, arg: &Expr, grid: Grid) -> Eval<Val> {
        let mut columns = if let Node::Selector(selector) = &arg.bare().node {
            self.select_instant(selector, grid, Take::TimeUnshifted)?
        } else {
            let mut columns = self.columns(arg, grid)?;
            for column in &mut columns {
                for (step, value) in column.values.iter_mut().enumerate() {
                    if !crate::sample::is_stale(*value) {
                        *value = grid.at(step) as f64 / 1000.0;
                    }
                }
            }
            columns
        };
        for column in &mut columns {
            self.drop_name(column);
        }
        Ok(Val::Vector(self.settle(columns, grid)?))
    }

    /// 1 where none of `columns` has a value.
    pub(super) fn absent(&self, arg: &Expr, columns: &[Column], grid: Grid) -> Vec<Column> {
        let mut values = vec![1.0; grid.count];
        for column in columns {
            for (step, value) in values.iter_mut().enumerate() {
                if column.at(step).is_some() {
                    *value = ABSENT;
                }
            }
        }
        let column = Column { labels: absent_labels(arg), drops_name: false, values };
        if column.is_empty() { Vec::new() } else { vec![column] }
    }
}

/// The labels that a selector fixes by equality, each once.
fn absent_labels(arg: &Expr) -> Labels {
    let matchers = arg.bare().node.selector().map_or(&[][..], |selector| &selector.matchers);
    let mut list: Vec<(&str, &str)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for Matcher { label, test } in matchers.iter().filter(|matcher| matcher.label != crate::labels::NAME) {
        match test {
            Test::Equal(value) if !seen.contains(&label.as_str()) => {
                list.push((label, value));
                seen.push(label);
            }
            Test::Equal(_) | Test::NotEqual(_) | Test::Regex(_) | Test::NotRegex(_) => {
                list.retain(|(known, _)| known != label);
            }
        }
    }
    Labels::new(list)
}
