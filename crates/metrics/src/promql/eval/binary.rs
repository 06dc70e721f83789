//! Operators between two expressions.

use std::collections::{HashMap, HashSet};

use super::column::{ABSENT, Column};
use super::grid::Grid;
use super::matching::{Signatures, makes_new, match_labels, result_labels, show};
use super::{Eval, Names, Run, Val};
use crate::labels::Labels;
use crate::promql::answer::EvalError;
use crate::promql::ast::{Binary, BinaryOp, Expr, Group, Node, Type};
use crate::sample::is_stale;

/// What an operator makes of two floats; nothing when a comparison does not hold.
#[inline]
fn apply(op: BinaryOp, left: f64, right: f64) -> Option<f64> {
    let kept = |holds: bool| holds.then_some(left);
    match op {
        BinaryOp::Add => Some(left + right),
        BinaryOp::Subtract => Some(left - right),
        BinaryOp::Multiply => Some(left * right),
        BinaryOp::Divide => Some(left / right),
        BinaryOp::Modulo => Some(left % right),
        BinaryOp::Power => Some(left.powf(right)),
        BinaryOp::Atan2 => Some(left.atan2(right)),
        BinaryOp::Equal => kept(left == right),
        BinaryOp::NotEqual => kept(left != right),
        BinaryOp::Greater => kept(left > right),
        BinaryOp::Less => kept(left < right),
        BinaryOp::GreaterEqual => kept(left >= right),
        BinaryOp::LessEqual => kept(left <= right),
        // Sets are made of whole elements, and only native histograms are trimmed.
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::TrimUpper | BinaryOp::TrimLower => None,
    }
}

impl Run<'_> {
    /// Long chains lean to the left: they are walked in a loop, not by recursion.
    pub(super) fn binary_chain(&mut self, expr: &Expr, grid: Grid) -> Eval<Val> {
        let mut chain = Vec::new();
        let mut at = expr;
        while let Node::Binary(binary) = &at.node {
            chain.push((at, &**binary));
            at = &binary.left;
            if at.pinned != expr.pinned {
                break;
            }
        }
        let mut value = self.eval(at, grid)?;
        for (expr, binary) in chain.into_iter().rev() {
            self.check_stop()?;
            let held = self.held;
            let right = self.eval(&binary.right, grid)?;
            let left_type = binary.left.ty;
            value = self.binary(binary, value, right, left_type, grid)?;
            self.held = held;
            self.hold(value.samples())?;
            debug_assert!(matches!(expr.node, Node::Binary(_)), "the chain holds operators alone");
        }
        Ok(value)
    }

    fn binary(&mut self, binary: &Binary, left: Val, right: Val, left_type: Type, grid: Grid) -> Eval<Val> {
        match (left, right) {
            (Val::Scalar(left), Val::Scalar(right)) => Ok(Val::Scalar(
                left.into_iter().zip(right).map(|(left, right)| scalar(binary.op, left, right)).collect(),
            )),
            (Val::Vector(columns), Val::Scalar(scalars)) => {
                self.with_scalar(binary, columns, &scalars, false, grid).map(Val::Vector)
            }
            (Val::Scalar(scalars), Val::Vector(columns)) => {
                self.with_scalar(binary, columns, &scalars, true, grid).map(Val::Vector)
            }
            (Val::Vector(left), Val::Vector(right)) if binary.op.is_set() => {
                self.set(binary, &left, &right, grid).map(Val::Vector)
            }
            (Val::Vector(left), Val::Vector(right)) => {
                self.vectors(binary, &left, &right, grid).map(Val::Vector)
            }
            // Texts are no operands: the type checker says so.
            (Val::Text(_), _) | (_, Val::Text(_)) => {
                debug_assert_ne!(left_type, Type::String, "checked when parsed");
                Ok(Val::Vector(Vec::new()))
            }
        }
    }

    fn with_scalar(
        &mut self,
        binary: &Binary,
        mut columns: Vec<Column>,
        scalars: &[f64],
        scalar_first: bool,
        grid: Grid,
    ) -> Eval<Vec<Column>> {
        let op = binary.op;
        for column in &mut columns {
            if makes_new(op) || binary.returns_bool {
                self.drop_name(column);
            }
            for (value, scalar) in column.values.iter_mut().zip(scalars) {
                if is_stale(*value) {
                    continue;
                }
                let element = *value;
                let result =
                    if scalar_first { apply(op, *scalar, element) } else { apply(op, element, *scalar) };
                *value = match result {
                    Some(_) if binary.returns_bool => 1.0,
                    None if binary.returns_bool => 0.0,
                    // A comparison leaves the element's value, wherever it stands.
                    Some(_) if op.compares() => element,
                    Some(result) => result,
                    None if matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower) => ABSENT,
                    None => ABSENT,
                };
            }
        }
        columns.retain(|column| !column.is_empty());
        self.settle(columns, grid)
    }

    fn set(&mut self, binary: &Binary, left: &[Column], right: &[Column], grid: Grid) -> Eval<Vec<Column>> {
        let signatures = Signatures::new(left, right, &binary.matching.labels);
        let mut out = self.out(grid);
        let mut places: HashMap<(bool, usize), usize> = HashMap::new();
        let mut present = vec![false; signatures.count];
        for step in 0..grid.count {
            self.check_stop()?;
            present.fill(false);
            let looked_at =
                if binary.op == BinaryOp::Or { (left, &signatures.left) } else { (right, &signatures.right) };
            for (column, signature) in looked_at.0.iter().zip(looked_at.1) {
                if column.at(step).is_some() {
                    present[*signature] = true;
                }
            }
            for (index, column) in left.iter().enumerate() {
                let Some(value) = column.at(step) else { continue };
                let matched = present[signatures.left[index]];
                if binary.op == BinaryOp::Or || matched == (binary.op == BinaryOp::And) {
                    let place = place_of(&mut places, (true, index), &mut out, column)?;
                    out.put(place, step, value)?;
                }
            }
            if binary.op != BinaryOp::Or {
                continue;
            }
            for (index, column) in right.iter().enumerate() {
                let Some(value) = column.at(step) else { continue };
                if !present[signatures.right[index]] {
                    let place = place_of(&mut places, (false, index), &mut out, column)?;
                    out.put(place, step, value)?;
                }
            }
        }
        self.settle(out.finish(), grid)
    }

    fn vectors(
        &mut self,
        binary: &Binary,
        left: &[Column],
        right: &[Column],
        grid: Grid,
    ) -> Eval<Vec<Column>> {
        let signatures = Signatures::new(left, right, &binary.matching.labels);
        // From here on, `many` is the side that may have several elements for one of the other.
        let swapped = matches!(binary.matching.group, Group::Right(_));
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        let (many_groups, one_groups) = if swapped {
            (&signatures.right, &signatures.left)
        } else {
            (&signatures.left, &signatures.right)
        };
        let (fill_left, fill_right) = binary.matching.fill;
        let mut join =
            Join { binary, swapped, out: self.out(grid), known: HashMap::new(), names: self.engine.names };
        let one_to_one = matches!(binary.matching.group, Group::None);
        let mut of_group: Vec<Option<usize>> = vec![None; signatures.count];
        let mut taken = vec![false; signatures.count];
        let mut seen: HashSet<(usize, Labels)> = HashSet::new();
        for step in 0..grid.count {
            self.check_stop()?;
            let there = |columns: &[Column]| columns.iter().any(|column| column.at(step).is_some());
            let (many_there, one_there) = (there(many), there(one));
            let filled = fill_left.is_some() || fill_right.is_some();
            if !(many_there && one_there || filled && (many_there || one_there)) {
                continue;
            }
            of_group.fill(None);
            taken.fill(false);
            seen.clear();
            for (index, column) in one.iter().enumerate() {
                if column.at(step).is_none() {
                    continue;
                }
                let place = &mut of_group[one_groups[index]];
                if let Some(other) = *place {
                    let mut series = [show(&column.labels), show(&one[other].labels)];
                    series.sort();
                    return Err(EvalError::ManyToMany {
                        group: show(&match_labels(&column.labels, &binary.matching.labels)),
                        side: if swapped { "left" } else { "right" },
                        series,
                    });
                }
                *place = Some(index);
            }
            for (index, column) in many.iter().enumerate() {
                let Some(value) = column.at(step) else { continue };
                let group = many_groups[index];
                // `fill_right` fills the side that is looked up, whichever it is.
                let (other, key) = match of_group[group] {
                    Some(other) => (one[other].values[step], Other::Column(other)),
                    None => match fill_right {
                        Some(fill) => (fill, Other::FilledOne),
                        None => continue,
                    },
                };
                let one_labels = || match key {
                    Other::Column(other) => one[other].labels.clone(),
                    Other::FilledOne => match_labels(&column.labels, &binary.matching.labels),
                };
                let (place, labels) = join.place((Some(index), key), &column.labels, one_labels)?;
                if one_to_one {
                    if taken[group] {
                        return Err(EvalError::ManyToOne);
                    }
                } else if !seen.insert((group, labels)) {
                    return Err(EvalError::GroupingNotUnique);
                }
                taken[group] = true;
                join.put(place, step, value, other)?;
            }
            let Some(fill) = fill_left else { continue };
            for (index, column) in one.iter().enumerate() {
                let Some(value) = column.at(step) else { continue };
                if taken[one_groups[index]] {
                    continue;
                }
                let many_labels = match_labels(&column.labels, &binary.matching.labels);
                let (place, _) =
                    join.place((None, Other::Column(index)), &many_labels, || column.labels.clone())?;
                join.put(place, step, fill, value)?;
            }
        }
        self.settle(join.out.finish(), grid)
    }
}

/// The output's column for one of an input.
fn place_of(
    places: &mut HashMap<(bool, usize), usize>,
    key: (bool, usize),
    out: &mut super::Out,
    column: &Column,
) -> Eval<usize> {
    if let Some(place) = places.get(&key) {
        return Ok(*place);
    }
    let place = out.column(column.labels.clone(), column.drops_name)?;
    places.insert(key, place);
    Ok(place)
}

/// What an element is matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Other {
    Column(usize),
    FilledOne,
}

/// The results of pairs of elements.
struct Join<'a> {
    binary: &'a Binary,
    swapped: bool,
    out: super::Out,
    known: HashMap<(Option<usize>, Other), (usize, Labels)>,
    names: Names,
}

impl Join<'_> {
    fn place(
        &mut self,
        key: (Option<usize>, Other),
        many: &Labels,
        one: impl FnOnce() -> Labels,
    ) -> Eval<(usize, Labels)> {
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let drops = self.names == Names::Immediate && self.binary.returns_bool;
        let labels = result_labels(many, &one(), self.binary.op, &self.binary.matching, drops);
        let place = (self.out.column(labels.clone(), self.binary.returns_bool)?, labels);
        self.known.insert(key, place.clone());
        Ok(place)
    }

    fn put(&mut self, place: usize, step: usize, many: f64, one: f64) -> Eval<()> {
        let (left, right) = if self.swapped { (one, many) } else { (many, one) };
        match apply(self.binary.op, left, right) {
            _ if matches!(self.binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower) => Ok(()),
            Some(_) if self.binary.returns_bool => self.out.put(place, step, 1.0),
            None if self.binary.returns_bool => self.out.put(place, step, 0.0),
            Some(value) => self.out.put(place, step, value),
            None => Ok(()),
        }
    }
}

/// Between scalars a comparison says whether it holds.
fn scalar(op: BinaryOp, left: f64, right: f64) -> f64 {
    match apply(op, left, right) {
        Some(_) if op.compares() => 1.0,
        Some(value) => value,
        None => 0.0,
    }
}
