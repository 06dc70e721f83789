//! `info`: adds the labels of info metrics to the series that share their identifying labels.

use std::collections::{BTreeSet, HashMap};

use super::column::Column;
use super::grid::Grid;
use super::matching::show;
use super::selector::Take;
use super::{Eval, Run, Val};
use crate::labels::{Labels, NAME};
use crate::promql::answer::EvalError;
use crate::promql::ast::{Edge, Expr, Length, Node, Selector, Shift};
use crate::select::{Matcher, Test};

/// The labels by which series and info metrics belong together.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric meant when none is named.
const DEFAULT_METRIC: &str = "target_info";

/// What the second argument asks for.
struct Asked {
    names: Vec<Matcher>,
    /// Of all other labels. When there are any, these labels alone are added.
    data: Vec<Matcher>,
}

impl Asked {
    fn new(arg: Option<&Expr>) -> Self {
        let matchers: &[Matcher] = match arg.map(|arg| &arg.node) {
            Some(Node::Selector(selector)) => &selector.matchers,
            Some(_) | None => &[],
        };
        let (mut names, data): (Vec<Matcher>, Vec<Matcher>) =
            matchers.iter().cloned().partition(|matcher| matcher.label == NAME);
        if names.is_empty() {
            names.push(Matcher::equal(NAME, DEFAULT_METRIC));
        } else if names.iter().all(|matcher| matches!(matcher.test, Test::NotEqual(_) | Test::NotRegex(_))) {
            // What a metric is not called says little: the rest has to look like one of info.
            if let Ok(pattern) = Matcher::regex(".+_info") {
                names.push(Matcher { label: NAME.to_owned(), test: Test::Regex(pattern) });
            }
        }
        Self { names, data }
    }

    fn is_info(&self, labels: &Labels) -> bool {
        self.names.iter().all(|matcher| matcher.matches(labels.name()))
    }

    fn adds(&self, label: &str) -> bool {
        label != NAME && (self.data.is_empty() || self.data.iter().any(|matcher| matcher.label == label))
    }

    /// A series without info stays only when nothing was asked of it.
    fn is_optional(&self) -> bool {
        self.data.iter().all(|matcher| matcher.matches(""))
    }
}

impl Run<'_> {
    pub(super) fn info(&mut self, args: &[Expr], grid: Grid) -> Eval<Val> {
        let asked = Asked::new(args.get(1));
        let base = self.columns(&args[0], grid)?;
        let infos = self.info_series(&asked, &base, &args[0], grid)?;
        let groups: Vec<Labels> = infos.iter().map(|info| group(&info.labels, info.labels.name())).collect();
        let names: BTreeSet<&str> = infos.iter().map(|info| info.labels.name()).collect();
        let mut out = self.out(grid);
        let mut newest: HashMap<&Labels, (f64, usize)> = HashMap::new();
        let optional = asked.is_optional();
        let enriched: Vec<bool> = base.iter().map(|column| !asked.is_info(&column.labels)).collect();
        let wanted: Vec<Vec<Labels>> = base
            .iter()
            .map(|column| names.iter().map(|name| group(&column.labels, name)).collect())
            .collect();
        for step in 0..grid.count {
            self.check_stop()?;
            newest.clear();
            for (index, info) in infos.iter().enumerate() {
                let Some(time) = info.at(step) else { continue };
                match newest.get(&groups[index]) {
                    Some((known, _)) if *known > time => {}
                    Some((known, other)) if *known == time => {
                        let (existing, new) = (show(&infos[*other].labels), show(&info.labels));
                        let (existing_ms, new_ms) = (known * 1000.0, time * 1000.0);
                        return Err(EvalError::Info {
                            why: format!(
                                "found duplicate series for info metric: existing {existing} @ {existing_ms}, new {new} \
                                 @ {new_ms}"
                            ),
                        });
                    }
                    Some(_) | None => {
                        newest.insert(&groups[index], (time, index));
                    }
                }
            }
            for (index, column) in base.iter().enumerate() {
                let Some(value) = column.at(step) else { continue };
                let mut labels = column.labels.clone();
                if enriched[index] {
                    let found: Vec<&Column> = wanted[index]
                        .iter()
                        .filter_map(|group| newest.get(group).map(|(_, info)| &infos[*info]))
                        .collect();
                    if found.is_empty() && !optional {
                        continue;
                    }
                    labels = joined(&asked, &column.labels, &found)?;
                }
                let place = out.column(labels, column.drops_name)?;
                out.put(place, step, value)?;
            }
        }
        Ok(Val::Vector(out.finish()))
    }

    /// The times of the samples of the info series that belong to any of the others.
    fn info_series(&self, asked: &Asked, base: &[Column], first: &Expr, grid: Grid) -> Eval<Vec<Column>> {
        let mut known: Vec<(&str, BTreeSet<&str>)> = Vec::new();
        for name in IDENTIFYING {
            let values: BTreeSet<&str> = base
                .iter()
                .filter(|column| !asked.is_info(&column.labels))
                .filter_map(|column| column.labels.get(name))
                .collect();
            if !values.is_empty() {
                known.push((name, values));
            }
        }
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let matchers = asked.data.iter().chain(&asked.names).cloned().collect();
        let shift = first_shift(first, &[]).unwrap_or_default();
        let shift = self.whole_shift(&shift)?;
        let selector = Selector { matchers, shift, edge: Edge::Plain };
        let mut infos = self.select_instant(&selector, grid, Take::Time)?;
        infos.retain(|info| {
            known
                .iter()
                .all(|(name, values)| info.labels.get(name).is_some_and(|value| values.contains(value)))
        });
        Ok(infos)
    }

    /// The moment and the sum of the offsets of a selector and the subqueries around it, from the inside to the first
    /// that is pinned.
    fn whole_shift(&self, shifts: &[Shift]) -> Eval<Shift> {
        let mut offset_ns = 0_i64;
        let mut at = None;
        for shift in shifts {
            let (own_ns, _) = self.shift(shift)?;
            offset_ns = offset_ns.saturating_add(own_ns);
            if shift.at.is_some() {
                at = shift.at;
                break;
            }
        }
        Ok(Shift { at, offset: Some(Length::Fixed(offset_ns)) })
    }
}

/// By which an info series and others belong together.
fn group(labels: &Labels, name: &str) -> Labels {
    labels.filter(|label| IDENTIFYING.contains(&label)).with(NAME, name)
}

fn joined(asked: &Asked, own: &Labels, infos: &[&Column]) -> Eval<Labels> {
    let mut added: Vec<(&str, &str)> = Vec::new();
    for (name, value) in infos.iter().flat_map(|info| info.labels.iter()).filter(|(name, _)| asked.adds(name))
    {
        match added.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if *known != value => {
                return Err(EvalError::Info { why: format!("conflicting label: {name}") });
            }
            Some(_) => {}
            None if own.get(name).is_some() => {}
            None => added.push((name, value)),
        }
    }
    Ok(Labels::new(own.iter().chain(added)))
}

/// The shift of the first selector in an expression, and those of the subqueries around it, from the inside.
fn first_shift(expr: &Expr, around: &[&Shift]) -> Option<Vec<Shift>> {
    let all = |own: &Shift| Some(std::iter::once(own).chain(around.iter().rev().copied()).cloned().collect());
    match &expr.bare().node {
        Node::Selector(selector) => all(&selector.shift),
        Node::Range(range) => all(&range.selector.shift),
        Node::Subquery(subquery) => {
            let mut around = around.to_vec();
            around.push(&subquery.shift);
            first_shift(&subquery.inner, &around)
        }
        Node::Call(call) => call.args.iter().find_map(|arg| first_shift(arg, around)),
        Node::Aggregate(aggregate) => first_shift(&aggregate.inner, around)
            .or_else(|| aggregate.param.as_ref().and_then(|param| first_shift(param, around))),
        Node::Binary(binary) => {
            first_shift(&binary.left, around).or_else(|| first_shift(&binary.right, around))
        }
        Node::Negate(inner) | Node::Plus(inner) | Node::Paren(inner) => first_shift(inner, around),
        Node::Number(_) | Node::Text(_) => None,
    }
}
