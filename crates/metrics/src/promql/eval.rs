//! Evaluation, column by column: every expression becomes, for each of its series, one value per step.
//!
//! A selector asks its storage once for the whole range; windows then move along each series. What Prometheus decides
//! step by step (matching, duplicates, ranks) is decided step by step here too.

mod aggregate;
mod binary;
mod call;
mod column;
mod figure;
mod grid;
mod histogram;
mod info;
mod labels;
mod matching;
mod notes;
mod ranked;
mod rate;
mod selector;
mod sum;
mod window;

use std::fmt;
use std::sync::Arc;

use column::{Column, Out};
use grid::Grid;
use notes::Notes;

use super::answer::{Answer, Element, EvalError, Value};
use super::ast::{Edge, Expr, Node, Type};
use super::parse::Query;
use crate::sample::{Sample, TimestampMs};
use crate::select::{Querier, Series};

/// Evaluates queries. [`Engine::default`] has Prometheus' defaults.
#[derive(Clone, Debug)]
pub struct Engine {
    pub limits: Limits,
    /// How old a sample may be for an instant selector, in milliseconds.
    pub lookback_ms: i64,
    /// The step of a subquery that names none, in milliseconds: Prometheus' global evaluation interval.
    pub subquery_step_ms: i64,
    pub names: Names,
    /// Asked often during an evaluation: whoever waits may have gone, or its time be over.
    pub stop: Option<Stop>,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            names: Names::default(),
            stop: None,
        }
    }
}

/// The numbers are Prometheus' own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Samples held at once, and those one selector may load.
    pub samples_max: usize,
    /// Points per series of a range query.
    pub steps_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { samples_max: 50_000_000, steps_max: 11_000 }
    }
}

/// When functions and operators that make a new metric take its name away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// At once, as Prometheus does by default.
    #[default]
    Immediate,
    /// From the answer alone: the feature `promql-delayed-name-removal`.
    Delayed,
}

/// Says whether to stop.
#[derive(Clone)]
pub struct Stop(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

impl Engine {
    /// The value at one moment.
    ///
    /// # Errors
    /// What the query runs into; the texts are Prometheus'.
    pub fn instant(
        &self,
        querier: &dyn Querier,
        query: &Query,
        at_ms: TimestampMs,
    ) -> Result<Answer, EvalError> {
        let grid = Grid::instant(at_ms);
        let mut run = Run::new(self, querier, grid, 0);
        let value = if query.ty() == Type::RangeVector {
            run.matrix(query.expr(), grid)?
        } else {
            let out = run.eval(query.expr(), grid)?;
            run.instant_value(out, at_ms)?
        };
        let (warnings, infos) = run.notes.texts(query.text());
        Ok(Answer { value, warnings, infos })
    }

    /// The values from `start_ms` to `end_ms`, both included, every `step_ms`.
    ///
    /// # Errors
    /// As [`Self::instant`]; also for ranges that cannot be, and for range vectors and strings.
    pub fn range(
        &self,
        querier: &dyn Querier,
        query: &Query,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        step_ms: i64,
    ) -> Result<Answer, EvalError> {
        if step_ms <= 0 {
            return Err(EvalError::NoStep { step_ms });
        }
        if end_ms < start_ms {
            return Err(EvalError::EndBeforeStart { start_ms, end_ms });
        }
        let steps = end_ms.abs_diff(start_ms) / step_ms.unsigned_abs();
        if steps > self.limits.steps_max as u64 {
            return Err(EvalError::TooManySteps { steps, limit: self.limits.steps_max });
        }
        if !matches!(query.ty(), Type::Scalar | Type::InstantVector) {
            return Err(EvalError::NotForRange { ty: query.ty() });
        }
        let grid = Grid { start_ms, step_ms, count: steps as usize + 1 };
        let mut run = Run::new(self, querier, grid, step_ms);
        run.query_range_ms = end_ms - start_ms;
        run.end_ms = end_ms;
        let out = run.eval(query.expr(), grid)?;
        let value = run.range_value(out, grid)?;
        let (warnings, infos) = run.notes.texts(query.text());
        Ok(Answer { value, warnings, infos })
    }
}

/// One evaluation of one query.
struct Run<'a> {
    engine: &'a Engine,
    querier: &'a dyn Querier,
    notes: Notes,
    /// Samples held by the results so far.
    held: usize,
    start_ms: TimestampMs,
    /// As asked for, which may lie behind the last step.
    end_ms: TimestampMs,
    /// 0 for an instant query.
    query_step_ms: i64,
    query_range_ms: i64,
}

/// What an expression that is no range vector evaluates to.
enum Val {
    /// One value per step, none missing.
    Scalar(Vec<f64>),
    Text(String),
    Vector(Vec<Column>),
}

type Eval<T> = Result<T, EvalError>;

impl<'a> Run<'a> {
    fn new(engine: &'a Engine, querier: &'a dyn Querier, grid: Grid, query_step_ms: i64) -> Self {
        Self {
            engine,
            querier,
            notes: Notes::default(),
            held: 0,
            start_ms: grid.start_ms,
            end_ms: grid.start_ms,
            query_step_ms,
            query_range_ms: 0,
        }
    }

    fn check_stop(&self) -> Eval<()> {
        match &self.engine.stop {
            Some(Stop(stop)) if stop() => Err(EvalError::Stopped),
            Some(_) | None => Ok(()),
        }
    }

    fn hold(&mut self, samples: usize) -> Eval<()> {
        self.held = self.held.saturating_add(samples);
        if self.held > self.engine.limits.samples_max {
            return Err(EvalError::TooManySamples { limit: self.engine.limits.samples_max });
        }
        Ok(())
    }

    /// Refuses columns that would not fit. They keep no times, so that two places take the room of one sample.
    fn check_room(&self, columns: usize, grid: Grid) -> Eval<()> {
        let limit = self.engine.limits.samples_max;
        if columns.saturating_mul(grid.count) > limit.saturating_mul(2) {
            return Err(EvalError::TooManySamples { limit });
        }
        Ok(())
    }

    /// Everything but range vectors, which only [`Self::windows`] and [`Self::matrix`] read.
    fn eval(&mut self, expr: &Expr, grid: Grid) -> Eval<Val> {
        self.check_stop()?;
        let held = self.held;
        let val = if expr.pinned && grid.count > 1 && !matches!(expr.node, Node::Number(_) | Node::Text(_)) {
            self.eval_node(expr, grid.first())?.repeated(grid.count)
        } else {
            self.eval_node(expr, grid)?
        };
        // What the arguments held is gone, what they became is there.
        self.held = held;
        self.hold(val.samples())?;
        Ok(val)
    }

    fn eval_node(&mut self, expr: &Expr, grid: Grid) -> Eval<Val> {
        match &expr.node {
            Node::Number(value) => Ok(Val::Scalar(vec![*value; grid.count])),
            Node::Text(text) => Ok(Val::Text(text.clone())),
            Node::Selector(selector) => {
                Ok(Val::Vector(self.select_instant(selector, grid, selector::Take::Value)?))
            }
            Node::Call(call) => self.call(call, expr.span, grid),
            Node::Aggregate(aggregate) => Ok(Val::Vector(self.aggregate(aggregate, grid)?)),
            Node::Binary(_) => self.binary_chain(expr, grid),
            Node::Negate(inner) => self.negate(inner, grid),
            Node::Plus(inner) | Node::Paren(inner) => self.eval(inner, grid),
            // The type checker lets these stand only where a function reads them, or as the whole of an instant query.
            Node::Range(_) | Node::Subquery(_) => Ok(Val::Vector(Vec::new())),
        }
    }

    /// An instant vector's columns; a scalar's as one without labels.
    fn columns(&mut self, expr: &Expr, grid: Grid) -> Eval<Vec<Column>> {
        Ok(match self.eval(expr, grid)? {
            Val::Vector(columns) => columns,
            Val::Scalar(values) => vec![Column { values, ..Column::default() }],
            Val::Text(_) => Vec::new(),
        })
    }

    fn scalars(&mut self, expr: &Expr, grid: Grid) -> Eval<Vec<f64>> {
        Ok(match self.eval(expr, grid)? {
            Val::Scalar(values) => values,
            Val::Vector(_) | Val::Text(_) => vec![f64::NAN; grid.count],
        })
    }

    fn negate(&mut self, inner: &Expr, grid: Grid) -> Eval<Val> {
        match self.eval(inner, grid)? {
            Val::Scalar(mut values) => {
                values.iter_mut().for_each(|value| *value = -*value);
                Ok(Val::Scalar(values))
            }
            Val::Vector(mut columns) => {
                for column in &mut columns {
                    self.drop_name(column);
                    column.map(|value| -value);
                }
                let columns = match self.engine.names {
                    Names::Immediate => column::merge(columns)?,
                    Names::Delayed => columns,
                };
                Ok(Val::Vector(columns))
            }
            Val::Text(text) => Ok(Val::Text(text)),
        }
    }

    fn drop_name(&self, column: &mut Column) {
        column.drops_name = true;
        if self.engine.names == Names::Immediate {
            column.labels = column::without_metadata(&column.labels);
        }
    }

    /// The end of an operation that may have given two series the same labels: in a range, those that never meet
    /// become one.
    fn settle(&self, columns: Vec<Column>, grid: Grid) -> Eval<Vec<Column>> {
        if grid.count > 1 {
            return column::merge(columns);
        }
        if self.engine.names == Names::Immediate && column::has_twins(&columns) {
            return Err(EvalError::SameLabels);
        }
        Ok(columns)
    }

    fn out(&self, grid: Grid) -> Out {
        Out::new(grid.count, grid.count == 1, self.engine.limits.samples_max)
    }

    fn instant_value(&self, val: Val, at_ms: TimestampMs) -> Eval<Value> {
        Ok(match val {
            Val::Scalar(values) => {
                Value::Scalar(Sample { at_ms, value: values.first().copied().unwrap_or(f64::NAN) })
            }
            Val::Text(text) => Value::Text { at_ms, text },
            Val::Vector(mut columns) => {
                columns.retain(|column| column.at(0).is_some());
                if self.engine.names == Names::Delayed {
                    column::drop_names(&mut columns);
                    if column::has_twins(&columns) {
                        return Err(EvalError::SameLabels);
                    }
                }
                let element = |column: Column| {
                    let value = column.at(0)?;
                    Some(Element { labels: column.labels, sample: Sample { at_ms, value } })
                };
                Value::Vector(columns.into_iter().filter_map(element).collect())
            }
        })
    }

    fn range_value(&self, val: Val, grid: Grid) -> Eval<Value> {
        let mut columns = match val {
            Val::Scalar(values) => vec![Column { values, ..Column::default() }],
            Val::Vector(columns) => columns,
            Val::Text(_) => return Err(EvalError::NotForRange { ty: Type::String }),
        };
        if self.engine.names == Names::Delayed {
            column::drop_names(&mut columns);
            columns = column::merge(columns)?;
        }
        let mut series: Vec<Series> = columns
            .into_iter()
            .map(|column| Series { samples: column.points(grid).collect(), labels: column.labels })
            .filter(|series| !series.samples.is_empty())
            .collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Value::Matrix(series))
    }

    /// A range vector as the whole of an instant query.
    fn matrix(&mut self, expr: &Expr, grid: Grid) -> Eval<Value> {
        let Some(input) = self.range_input(expr, grid)? else { return Ok(Value::Matrix(Vec::new())) };
        let mut columns = Vec::new();
        for series in input.series {
            let window = input.frame.window(&series.samples, grid.start_ms);
            if !window.samples.is_empty() {
                let labels = match (self.engine.names, series.drops_name) {
                    (Names::Delayed, true) => column::without_metadata(&series.labels),
                    (Names::Delayed, false) | (Names::Immediate, _) => series.labels.clone(),
                };
                let samples = match window.edge {
                    Edge::Plain => window.samples.to_vec(),
                    Edge::Anchored | Edge::Smoothed => rate::with_ends(&window),
                };
                if !samples.is_empty() {
                    columns.push(Series { labels, samples });
                }
            }
        }
        self.hold(columns.iter().map(|series| series.samples.len()).sum())?;
        columns.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Value::Matrix(columns))
    }
}

impl Val {
    fn samples(&self) -> usize {
        match self {
            Self::Scalar(values) => values.len(),
            Self::Text(_) => 0,
            Self::Vector(columns) => columns.iter().map(Column::samples).sum(),
        }
    }

    fn repeated(self, count: usize) -> Self {
        match self {
            Self::Scalar(values) => Self::Scalar(vec![values.first().copied().unwrap_or(f64::NAN); count]),
            Self::Text(text) => Self::Text(text),
            Self::Vector(columns) => Self::Vector(
                columns
                    .into_iter()
                    .map(|column| {
                        let value = column.values.first().copied().unwrap_or(column::ABSENT);
                        Column { values: vec![value; count], ..column }
                    })
                    .collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
