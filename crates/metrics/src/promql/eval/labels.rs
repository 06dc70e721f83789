//! `label_replace`, `label_join`, and the sorts.

use std::cmp::Ordering;

use super::grid::Grid;
use super::{Eval, Run, Val, column};
use crate::labels::{Labels, NAME};
use crate::promql::answer::EvalError;
use crate::promql::ast::{Expr, Node};
use crate::promql::functions::Other;
use crate::promql::regex_go;

/// Larger compiled expressions are refused, as those of matchers are.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// The text of a string argument: the type checker lets only literals through.
pub fn text(arg: &Expr) -> &str {
    if let Node::Text(text) = &arg.bare().node { text } else { "" }
}

impl Run<'_> {
    pub(super) fn label_replace(&mut self, args: &[Expr], grid: Grid) -> Eval<Val> {
        let [vector, target, replacement, source, pattern] = args else { return Ok(Val::Vector(Vec::new())) };
        let (target, replacement) = (text(target), text(replacement));
        let (source, pattern) = (text(source), text(pattern));
        let compiled = regex_go::translate(pattern).ok().and_then(|pattern| {
            let anchored = format!("^(?s:{pattern})$");
            regex::RegexBuilder::new(&anchored).size_limit(REGEX_BYTES_MAX).build().ok()
        });
        let Some(compiled) = compiled else { return Err(EvalError::Pattern { pattern: pattern.to_owned() }) };
        if target.is_empty() {
            return Err(EvalError::DestinationLabel { function: "label_replace", name: target.to_owned() });
        }
        let mut columns = self.columns(vector, grid)?;
        for column in &mut columns {
            let Some(captures) = compiled.captures(column.labels.get(source).unwrap_or_default()) else {
                continue;
            };
            let mut value = String::new();
            captures.expand(replacement, &mut value);
            column.labels = column.labels.with(target, &value);
            if target == NAME {
                column.drops_name = false;
            }
        }
        Ok(Val::Vector(column::merge(columns)?))
    }

    pub(super) fn label_join(&mut self, args: &[Expr], grid: Grid) -> Eval<Val> {
        let [vector, target, separator, sources @ ..] = args else { return Ok(Val::Vector(Vec::new())) };
        let (target, separator) = (text(target), text(separator));
        for source in sources {
            if text(source).is_empty() {
                return Err(EvalError::SourceLabel { function: "label_join", name: String::new() });
            }
        }
        if target.is_empty() {
            return Err(EvalError::DestinationLabel { function: "label_join", name: String::new() });
        }
        let mut columns = self.columns(vector, grid)?;
        for column in &mut columns {
            let values: Vec<&str> =
                sources.iter().map(|source| column.labels.get(text(source)).unwrap_or_default()).collect();
            let value = values.join(separator);
            column.labels = column.labels.with(target, &value);
            if target == NAME {
                column.drops_name = false;
            }
        }
        Ok(Val::Vector(column::merge(columns)?))
    }

    pub(super) fn sort(&mut self, id: Other, args: &[Expr], grid: Grid) -> Eval<Val> {
        let mut columns = self.columns(&args[0], grid)?;
        // The series of a range are in the order of their labels; one that begins later has nothing to sort by.
        if grid.count > 1 {
            return Ok(Val::Vector(self.settle(columns, grid)?));
        }
        columns.retain(|column| column.at(0).is_some());
        let names: Vec<&str> = args[1..].iter().map(text).collect();
        let by_value = |a: &column::Column, b: &column::Column, descending: bool| {
            let (Some(a), Some(b)) = (a.at(0), b.at(0)) else { return Ordering::Equal };
            // NaN goes last either way.
            match (a.is_nan(), b.is_nan()) {
                (false, false) if descending => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
                (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
                (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
            }
        };
        if id == Other::Sort {
            columns.sort_by(|a, b| by_value(a, b, false));
        } else if id == Other::SortDesc {
            columns.sort_by(|a, b| by_value(a, b, true));
        } else if id == Other::SortByLabel {
            columns.sort_by(|a, b| by_labels(&a.labels, &b.labels, &names));
        } else {
            columns.sort_by(|a, b| by_labels(&b.labels, &a.labels, &names));
        }
        Ok(Val::Vector(self.settle(columns, grid)?))
    }
}

fn by_labels(a: &Labels, b: &Labels, names: &[&str]) -> Ordering {
    names
        .iter()
        .map(|name| natural(a.get(name).unwrap_or_default(), b.get(name).unwrap_or_default()))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.cmp(b))
}

/// The order in which people put names with figures in them: `node2` before `node10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    loop {
        let (Some(a_part), Some(b_part)) = (chunk(a_rest), chunk(b_rest)) else {
            return a_rest.len().cmp(&b_rest.len()).then_with(|| a.cmp(b));
        };
        let figures = a_part.as_bytes()[0].is_ascii_digit() && b_part.as_bytes()[0].is_ascii_digit();
        let order = if figures {
            let (a_figure, b_figure) = (a_part.trim_start_matches('0'), b_part.trim_start_matches('0'));
            a_figure.len().cmp(&b_figure.len()).then_with(|| a_figure.cmp(b_figure)).then_with(|| {
                // With equal figures, the one with fewer zeros before it comes first.
                a_part.len().cmp(&b_part.len())
            })
        } else {
            a_part.cmp(b_part)
        };
        if order.is_ne() {
            return order;
        }
        a_rest = &a_rest[a_part.len()..];
        b_rest = &b_rest[b_part.len()..];
    }
}

/// The digits, or what is none, at the begin.
fn chunk(text: &str) -> Option<&str> {
    let digits = text.bytes().next()?.is_ascii_digit();
    let end = text.find(|char: char| char.is_ascii_digit() != digits).unwrap_or(text.len());
    Some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_in_names_count_by_their_value() {
        let mut names = ["node10", "node9", "node", "node09", "a", "node1b", "node1a", "10", "9"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["9", "10", "a", "node", "node1a", "node1b", "node9", "node09", "node10"]);
    }
}
