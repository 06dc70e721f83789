//! Which elements of two instant vectors belong together.

use std::collections::HashMap;

use super::column::{Column, without_metadata};
use crate::labels::{Labels, NAME};
use crate::promql::ast::{BinaryOp, Group, MatchOn, Matching};
use crate::promql::lex::quote;

/// For each column of both sides, the number of its match group.
pub struct Signatures {
    pub left: Vec<usize>,
    pub right: Vec<usize>,
    pub count: usize,
}

impl Signatures {
    pub fn new(left: &[Column], right: &[Column], on: &MatchOn) -> Self {
        let mut known: HashMap<Labels, usize> = HashMap::new();
        let mut number = |columns: &[Column]| -> Vec<usize> {
            columns
                .iter()
                .map(|column| {
                    let next = known.len();
                    *known.entry(match_labels(&column.labels, on)).or_insert(next)
                })
                .collect()
        };
        let (left, right) = (number(left), number(right));
        Self { left, right, count: known.len() }
    }
}

/// The labels by which an element is matched.
pub fn match_labels(labels: &Labels, on: &MatchOn) -> Labels {
    match on {
        MatchOn::On(names) => labels.filter(|name| names.iter().any(|known| known == name)),
        MatchOn::Ignoring(names) => {
            labels.filter(|name| name != NAME && !names.iter().any(|known| known == name))
        }
    }
}

/// The labels of what two elements make; `many` is of the side that may have several.
pub fn result_labels(
    many: &Labels,
    one: &Labels,
    op: BinaryOp,
    matching: &Matching,
    drops_name: bool,
) -> Labels {
    let mut labels = if drops_name || makes_new(op) { without_metadata(many) } else { many.clone() };
    match &matching.group {
        Group::None => {
            labels = match &matching.labels {
                MatchOn::On(names) => labels.filter(|name| names.iter().any(|known| known == name)),
                MatchOn::Ignoring(names) => labels.filter(|name| !names.iter().any(|known| known == name)),
            };
        }
        Group::Left(include) | Group::Right(include) => {
            for name in include {
                labels = labels.with(name, one.get(name).unwrap_or_default());
            }
        }
    }
    labels
}

/// What arithmetic gives is another metric; what comparisons leave is the same.
pub fn makes_new(op: BinaryOp) -> bool {
    match op {
        BinaryOp::Add
        | BinaryOp::Subtract
        | BinaryOp::Multiply
        | BinaryOp::Divide
        | BinaryOp::Modulo
        | BinaryOp::Power
        | BinaryOp::Atan2 => true,
        BinaryOp::Equal
        | BinaryOp::NotEqual
        | BinaryOp::Greater
        | BinaryOp::Less
        | BinaryOp::GreaterEqual
        | BinaryOp::LessEqual
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Unless
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => false,
    }
}

/// `{__name__="up", job="api"}`: with the name among the labels, as errors show it.
pub fn show(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| {
            let plain = name.bytes().enumerate().all(|(index, byte)| {
                byte == b'_' || byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit())
            });
            let name = if plain { name.to_owned() } else { quote(name) };
            format!("{name}={}", quote(value))
        })
        .collect();
    format!("{{{}}}", pairs.join(", "))
}
