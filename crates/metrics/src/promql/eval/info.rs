//! `info`: adds the labels of info metrics to the series that share their identifying labels.

use std::collections::HashMap;

use super::column::Column;
use super::grid::Grid;
use super::selector::Take;
use super::{Eval, Run, Val};
use crate::labels::{Labels, NAME};
use crate::promql::answer::EvalError;
use crate::promql::ast::{Edge, Expr, Node, Selector, Shift};
use crate::select::{Matcher, Test};

/// The labels by which series and info metrics belong together.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric meant when none is named.
const DEFAULT_METRIC: &str = "target_info";

impl Run<'_> {
    pub(super) fn info(&mut self, args: &[Expr], grid: Grid) -> Eval<Val> {
        let base = self.columns(&args[0], grid)?;
        let wanted: &[Matcher] = match args.get(1).map(|arg| &arg.node) {
            Some(Node::Selector(selector)) => &selector.matchers,
            Some(_) | None => &[],
        };
        let (names, mut data): (Vec<&Matcher>, Vec<&Matcher>) =
            wanted.iter().partition(|matcher| matcher.label == NAME);
        data.retain(|matcher| !IDENTIFYING.contains(&matcher.label.as_str()));
        let is_info = |labels: &Labels| {
            if names.is_empty() {
                labels.name() == DEFAULT_METRIC
            } else {
                names.iter().all(|matcher| matcher.matches(labels.name()))
            }
        };
        let mut matchers: Vec<Matcher> = names.iter().map(|matcher| (*matcher).clone()).collect();
        if matchers.is_empty() {
            matchers.push(Matcher::equal(NAME, DEFAULT_METRIC));
        }
        matchers.extend(data.iter().map(|matcher| (*matcher).clone()));
        let (shift, edge) = first_selector(&args[0])
            .map_or((Shift::default(), Edge::Plain), |selector| (selector.shift.clone(), Edge::Plain));
        let selector = Selector { matchers, shift, edge };
        let infos = self.select_instant(&selector, grid, Take::Time)?;
        let key = |labels: &Labels| labels.filter(|name| IDENTIFYING.contains(&name));
        let mut by_key: HashMap<Labels, Vec<&Column>> = HashMap::new();
        for info in &infos {
            by_key.entry(key(&info.labels)).or_default().push(info);
        }
        // A series without the labels asked for stays only when their absence was allowed.
        let optional = data.iter().all(|matcher| matcher.matches(""));
        let mut out = self.out(grid);
        for column in &base {
            let own_info = is_info(&column.labels);
            for step in 0..grid.count {
                let Some(value) = column.at(step) else { continue };
                if own_info {
                    let place = out.column(column.labels.clone(), column.drops_name)?;
                    out.put(place, step, value)?;
                    continue;
                }
                let mut labels = column.labels.clone();
                let mut added: Vec<(&str, &str)> = Vec::new();
                // Of each info metric the newest sample counts.
                let mut newest: HashMap<&str, (f64, &Column)> = HashMap::new();
                for info in by_key.get(&key(&column.labels)).into_iter().flatten() {
                    let Some(time) = info.at(step) else { continue };
                    match newest.get(info.labels.name()) {
                        Some((known, _)) if *known > time => {}
                        Some((known, other)) if *known == time => {
                            return Err(EvalError::Info {
                                why: format!(
                                    "found duplicate series for info metric: existing {}, new {}",
                                    other.labels, info.labels
                                ),
                            });
                        }
                        Some(_) | None => {
                            newest.insert(info.labels.name(), (time, info));
                        }
                    }
                }
                for (_, info) in newest.values() {
                    for (name, value) in info.labels.iter() {
                        let asked = data.is_empty() || data.iter().any(|matcher| matcher.label == name);
                        if name == NAME || IDENTIFYING.contains(&name) || !asked {
                            continue;
                        }
                        if column.labels.get(name).is_some() {
                            continue;
                        }
                        if let Some((_, known)) = added.iter().find(|(known, _)| *known == name) {
                            if *known != value {
                                return Err(EvalError::Info { why: format!("conflicting label: {name}") });
                            }
                            continue;
                        }
                        added.push((name, value));
                    }
                }
                if added.is_empty() && !optional && !data_satisfied(&data, &column.labels) {
                    continue;
                }
                for (name, value) in added {
                    labels = labels.with(name, value);
                }
                let place = out.column(labels, column.drops_name)?;
                out.put(place, step, value)?;
            }
        }
        let columns = out.finish();
        Ok(Val::Vector(self.settle(columns, grid)?))
    }
}

fn data_satisfied(data: &[&Matcher], labels: &Labels) -> bool {
    data.iter().all(|matcher| {
        let value = labels.get(&matcher.label).unwrap_or_default();
        matches!(matcher.test, Test::Equal(_) | Test::NotEqual(_) | Test::Regex(_) | Test::NotRegex(_))
            && matcher.matches(value)
    })
}

/// Info series are looked up at the time at which the series are.
fn first_selector(expr: &Expr) -> Option<&Selector> {
    match &expr.bare().node {
        Node::Selector(selector) => Some(selector),
        Node::Range(range) => Some(&range.selector),
        Node::Subquery(subquery) => first_selector(&subquery.inner),
        Node::Call(call) => call.args.iter().find_map(first_selector),
        Node::Aggregate(aggregate) => first_selector(&aggregate.inner),
        Node::Binary(binary) => first_selector(&binary.left),
        Node::Negate(inner) | Node::Plus(inner) | Node::Paren(inner) => first_selector(inner),
        Node::Number(_) | Node::Text(_) => None,
    }
}
