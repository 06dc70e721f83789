//! Aggregations over series.

use std::collections::HashMap;

use super::column::{ABSENT, Column};
use super::figure::{go_f, go_g, go_max, go_min};
use super::grid::Grid;
use super::sum::{Mean, Sum};
use super::{Eval, Run, window};
use crate::labels::{Labels, NAME};
use crate::promql::answer::EvalError;
use crate::promql::ast::{Aggregate, AggregateOp, Grouping, Node};
use crate::promql::lex::quote;

/// The parameter at each step, with its bounds over all of them.
#[derive(Debug)]
pub struct Param {
    pub values: Vec<f64>,
    pub min: f64,
    pub max: f64,
    pub has_nan: bool,
}

impl Param {
    /// Bounds of a parameter that can change begin at the outermost finite floats, so that NaN is one only of a
    /// constant.
    fn new(values: Vec<f64>, constant: bool) -> Self {
        let has_nan = values.iter().any(|value| value.is_nan());
        let (min, max) = if constant {
            let value = values.first().copied().unwrap_or_default();
            (value, value)
        } else {
            (values.iter().copied().fold(f64::MAX, go_min), values.iter().copied().fold(f64::MIN, go_max))
        };
        Self { values, min, max, has_nan }
    }
}

/// Which group each column belongs to, and the labels of the groups.
pub struct Groups {
    pub of_column: Vec<usize>,
    pub labels: Vec<Labels>,
}

impl Groups {
    pub fn new(columns: &[Column], grouping: &Grouping) -> Self {
        let mut groups = Self { of_column: Vec::with_capacity(columns.len()), labels: Vec::new() };
        let mut known: HashMap<Labels, usize> = HashMap::new();
        for column in columns {
            let labels = group_labels(&column.labels, grouping);
            let next = groups.labels.len();
            let group = *known.entry(labels.clone()).or_insert(next);
            if group == next {
                groups.labels.push(labels);
            }
            groups.of_column.push(group);
        }
        groups
    }
}

fn group_labels(labels: &Labels, grouping: &Grouping) -> Labels {
    match grouping {
        Grouping::By(names) if names.is_empty() => Labels::default(),
        Grouping::By(names) => labels.filter(|name| names.iter().any(|known| known == name)),
        Grouping::Without(names) => {
            labels.filter(|name| name != NAME && !names.iter().any(|known| known == name))
        }
    }
}

/// What one group has gathered at one step.
#[derive(Clone, Copy, Debug)]
enum Gathered {
    Sum(Sum),
    Mean(Mean),
    One(f64),
    Count(f64),
    /// Welford's: how many, their mean, the sum of squares.
    Spread {
        count: f64,
        mean: f64,
        squares: f64,
    },
}

impl Gathered {
    fn first(op: AggregateOp, value: f64) -> Self {
        match op {
            AggregateOp::Sum => Self::Sum(Sum { sum: value, lost: 0.0 }),
            AggregateOp::Avg => Self::Mean(Mean::of(value)),
            AggregateOp::Group => Self::One(1.0),
            AggregateOp::Count => Self::Count(1.0),
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                let squares = if value.is_finite() { 0.0 } else { f64::NAN };
                Self::Spread { count: 1.0, mean: value, squares }
            }
            AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::TopK
            | AggregateOp::BottomK
            | AggregateOp::CountValues
            | AggregateOp::Quantile
            | AggregateOp::LimitK
            | AggregateOp::LimitRatio => Self::One(value),
        }
    }

    fn with(self, op: AggregateOp, value: f64) -> Self {
        match self {
            Self::Sum(sum) => Self::Sum(sum.plus(value)),
            Self::Mean(mean) => Self::Mean(mean.with(value)),
            Self::Count(count) => Self::Count(count + 1.0),
            Self::One(best) => {
                let better = match op {
                    AggregateOp::Min => best > value || best.is_nan(),
                    AggregateOp::Max => best < value || best.is_nan(),
                    AggregateOp::Sum
                    | AggregateOp::Avg
                    | AggregateOp::Count
                    | AggregateOp::Group
                    | AggregateOp::Stddev
                    | AggregateOp::Stdvar
                    | AggregateOp::TopK
                    | AggregateOp::BottomK
                    | AggregateOp::CountValues
                    | AggregateOp::Quantile
                    | AggregateOp::LimitK
                    | AggregateOp::LimitRatio => false,
                };
                Self::One(if better { value } else { best })
            }
            Self::Spread { count, mean, squares } => {
                let count = count + 1.0;
                let delta = value - mean;
                let mean = mean + delta / count;
                Self::Spread { count, mean, squares: squares + delta * (value - mean) }
            }
        }
    }

    fn value(self, op: AggregateOp) -> f64 {
        match self {
            Self::Sum(sum) => sum.total(),
            Self::Mean(mean) => mean.value(),
            Self::One(value) | Self::Count(value) => value,
            Self::Spread { count, squares, .. } if op == AggregateOp::Stddev => (squares / count).sqrt(),
            Self::Spread { count, squares, .. } => squares / count,
        }
    }
}

impl Run<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, grid: Grid) -> Eval<Vec<Column>> {
        match aggregate.op {
            AggregateOp::CountValues => self.count_values(aggregate, grid),
            AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK => {
                let param = self.param(aggregate, grid)?;
                let columns = self.columns(&aggregate.inner, grid)?;
                if param.max < 1.0 {
                    return Ok(Vec::new());
                }
                if param.has_nan {
                    return Err(EvalError::ParameterNan { what: "Parameter" });
                }
                // The bounds of 64 bits; from these on a count is none.
                if param.min <= -9_223_372_036_854_775_808.0 {
                    return Err(EvalError::ParameterRange { value: go_g(param.min), way: "underflows" });
                }
                if param.max >= 9_223_372_036_854_775_808.0 {
                    return Err(EvalError::ParameterRange { value: go_g(param.max), way: "overflows" });
                }
                self.rank(aggregate.op, columns, &aggregate.grouping, &param, grid)
            }
            AggregateOp::LimitRatio => {
                let param = self.param(aggregate, grid)?;
                let columns = self.columns(&aggregate.inner, grid)?;
                if param.max == 0.0 && param.min == 0.0 {
                    return Ok(Vec::new());
                }
                if param.has_nan {
                    return Err(EvalError::ParameterNan { what: "Ratio" });
                }
                if let Some(arg) = &aggregate.param {
                    let span = arg.bare().span;
                    if param.max > 1.0 {
                        self.notes.invalid_ratio(span, param.max, 1.0);
                    }
                    if param.min < -1.0 {
                        self.notes.invalid_ratio(span, param.min, -1.0);
                    }
                }
                Ok(self.limit_ratio(columns, &param))
            }
            AggregateOp::Quantile => self.quantile_of(aggregate, grid),
            AggregateOp::Sum
            | AggregateOp::Avg
            | AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Count
            | AggregateOp::Group
            | AggregateOp::Stddev
            | AggregateOp::Stdvar => {
                let columns = self.columns(&aggregate.inner, grid)?;
                Ok(gather(aggregate.op, &columns, &Groups::new(&columns, &aggregate.grouping), grid))
            }
        }
    }

    fn param(&mut self, aggregate: &Aggregate, grid: Grid) -> Eval<Param> {
        let Some(param) = &aggregate.param else { return Ok(Param::new(vec![0.0; grid.count], true)) };
        let constant = matches!(param.bare().node, Node::Number(_));
        Ok(Param::new(self.scalars(param, grid)?, constant))
    }

    fn quantile_of(&mut self, aggregate: &Aggregate, grid: Grid) -> Eval<Vec<Column>> {
        let param = self.param(aggregate, grid)?;
        let columns = self.columns(&aggregate.inner, grid)?;
        if let Some(arg) = &aggregate.param {
            let span = arg.bare().span;
            if param.has_nan {
                self.notes.invalid_quantile(span, f64::NAN);
            }
            if param.max > 1.0 {
                self.notes.invalid_quantile(span, param.max);
            }
            if param.min < 0.0 {
                self.notes.invalid_quantile(span, param.min);
            }
        }
        let groups = Groups::new(&columns, &aggregate.grouping);
        let mut out = new_columns(&groups, grid);
        let mut values: Vec<Vec<f64>> = vec![Vec::new(); groups.labels.len()];
        for step in 0..grid.count {
            values.iter_mut().for_each(Vec::clear);
            for (column, group) in columns.iter().zip(&groups.of_column) {
                if let Some(value) = column.at(step) {
                    values[*group].push(value);
                    out[*group].drops_name |= column.drops_name;
                }
            }
            for (values, out) in values.iter_mut().zip(&mut out) {
                if !values.is_empty() {
                    out.values[step] = window::quantile(param.values[step], values);
                }
            }
        }
        out.retain(|column| !column.is_empty());
        Ok(out)
    }

    fn count_values(&mut self, aggregate: &Aggregate, grid: Grid) -> Eval<Vec<Column>> {
        let label = aggregate.param.as_ref().map_or("", super::labels::text);
        if label.is_empty() {
            return Err(EvalError::CountValuesLabel { name: quote(label) });
        }
        let grouping = match &aggregate.grouping {
            Grouping::By(names) => {
                let mut names = names.clone();
                names.push(label.to_owned());
                Grouping::By(names)
            }
            Grouping::Without(names) => Grouping::Without(names.clone()),
        };
        let columns = self.columns(&aggregate.inner, grid)?;
        let mut out = super::Out::new(grid.count, false, self.engine.limits.samples_max);
        for column in &columns {
            // The last value and its place: values often stay.
            let mut last: Option<(u64, usize)> = None;
            for step in 0..grid.count {
                let Some(value) = column.at(step) else { continue };
                let place = match last {
                    Some((bits, place)) if bits == value.to_bits() => place,
                    Some(_) | None => {
                        let labels = group_labels(&column.labels.with(label, &go_f(value)), &grouping);
                        out.column(labels, false)?
                    }
                };
                last = Some((value.to_bits(), place));
                out.count_up(place, step);
            }
            self.check_stop()?;
        }
        Ok(out.finish())
    }
}

fn new_columns(groups: &Groups, grid: Grid) -> Vec<Column> {
    groups.labels.iter().map(|labels| Column::empty(labels.clone(), false, grid.count)).collect()
}

fn gather(op: AggregateOp, columns: &[Column], groups: &Groups, grid: Grid) -> Vec<Column> {
    let mut members: Vec<Vec<&Column>> = vec![Vec::new(); groups.labels.len()];
    for (column, group) in columns.iter().zip(&groups.of_column) {
        members[*group].push(column);
    }
    let mut row: Vec<Option<Gathered>> = Vec::with_capacity(grid.count);
    let mut out = new_columns(groups, grid);
    for (out, members) in out.iter_mut().zip(members) {
        row.clear();
        row.resize(grid.count, None);
        for column in members {
            out.drops_name |= column.drops_name;
            for (step, place) in row.iter_mut().enumerate() {
                let Some(value) = column.at(step) else { continue };
                *place = Some(match *place {
                    None => Gathered::first(op, value),
                    Some(gathered) => gathered.with(op, value),
                });
            }
        }
        for (value, gathered) in out.values.iter_mut().zip(&row) {
            *value = gathered.map_or(ABSENT, |gathered| gathered.value(op));
        }
    }
    out.retain(|column| !column.is_empty());
    out
}
