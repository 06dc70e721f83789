//! The file as a tree of values, each with its place. Overlays are merged on this tree, so that every value of the
//! result still knows where it was written.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::span::{ByteRange, Source};

/// A file larger than this is refused unread: the largest hand-written ones have a few thousand lines, and every
/// environment holds a merged copy.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Deeper than any key that exists (`env.X.service.Y.ready.http` is 6). The TOML parser has its own limit of 80;
/// this one keeps our recursion as shallow as the format.
const DEPTH_MAX: usize = 16;

/// Which part of the file a value comes from: 0 is the file itself, n the n-th environment of an `extends` chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Layer(pub(crate) u16);

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: ByteRange,
    pub(crate) layer: Layer,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    /// `text` is what was written: `1.50` as the value of a variable stays `1.50`.
    Float {
        number: f64,
        text: String,
    },
    Bool(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key_at: ByteRange,
    pub(crate) node: Node,
}

impl Value {
    /// What it is, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float { .. } => "a float",
            Value::Bool(_) => "a boolean",
            Value::Datetime(_) => "a date or time",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    pub(crate) fn as_table(&self) -> Option<&Table> {
        if let Value::Table(table) = self { Some(table) } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&[Node]> {
        if let Value::Array(array) = self { Some(array) } else { None }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries.get(key).map(|entry| &entry.node)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Tables deep-merge, everything else replaces. What comes from `over` belongs to `layer` afterwards.
    pub(crate) fn overlay(&mut self, over: &Table, layer: Layer) {
        for (key, entry) in &over.entries {
            match (self.entries.get_mut(key), &entry.node.value) {
                (Some(Entry { node: Node { value: Value::Table(into), .. }, .. }), Value::Table(from)) => {
                    into.overlay(from, layer);
                }
                (_, Value::Text(_) | Value::Integer(_) | Value::Float { .. } | Value::Bool(_))
                | (_, Value::Datetime(_) | Value::Array(_) | Value::Table(_)) => {
                    let mut entry = entry.clone();
                    entry.node.stamp(layer);
                    self.entries.insert(key.clone(), entry);
                }
            }
        }
    }
}

impl Node {
    fn stamp(&mut self, layer: Layer) {
        self.layer = layer;
        match &mut self.value {
            Value::Array(array) => array.iter_mut().for_each(|node| node.stamp(layer)),
            Value::Table(table) => table.entries.values_mut().for_each(|entry| entry.node.stamp(layer)),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float { .. }
            | Value::Bool(_)
            | Value::Datetime(_) => {}
        }
    }
}

/// Reads TOML. None when the text is not TOML at all, with the reasons in `findings`.
pub(crate) fn parse(source: &Source, findings: &mut Findings) -> Option<Table> {
    let text = source.text();
    if text.len() > FILE_BYTES_MAX {
        findings.push(
            Diagnostic::error(code::TOO_LARGE, format!("the file has {} bytes", text.len()))
                .hint(format!("{FILE_BYTES_MAX} bytes (1 MiB) are the limit; is this the right file?")),
        );
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return convert(table.get_ref(), source, 0, findings);
    }
    // The parser goes on after an error and may report what only follows from it: one error a line is enough.
    let mut lines = std::collections::BTreeSet::new();
    for error in errors {
        let span = source.span(error.span().unwrap_or(0..0));
        if lines.insert(span.line) {
            let message = format!("this is not TOML: {}", error.message());
            let hint = if error.message().contains("duplicate key") {
                "a key or table may be written once; merge the two"
            } else {
                "text stands in \"quotes\", lists in [ ], tables below a [name] line; https://toml.io shows it all"
            };
            findings.push(Diagnostic::error(code::SYNTAX, message).at(span).hint(hint));
        }
    }
    None
}

fn convert(table: &DeTable<'_>, source: &Source, depth: usize, findings: &mut Findings) -> Option<Table> {
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        let node = convert_value(value.get_ref(), value.span(), source, depth + 1, findings)?;
        entries.insert(key.get_ref().to_string(), Entry { key_at: key.span().into(), node });
    }
    Some(Table { entries })
}

fn convert_value(
    value: &DeValue<'_>,
    at: Range<usize>,
    source: &Source,
    depth: usize,
    findings: &mut Findings,
) -> Option<Node> {
    if depth > DEPTH_MAX {
        findings.push(
            Diagnostic::error(code::TOO_DEEP, format!("values are nested more than {DEPTH_MAX} deep"))
                .at(source.span(at))
                .hint("no key of fairway.toml is that deep"),
        );
        return None;
    }
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let Ok(number) = i64::from_str_radix(integer.as_str(), integer.radix()) else {
                findings.push(
                    Diagnostic::error(code::OUT_OF_RANGE, "the number does not fit into 64 bits")
                        .at(source.span(at)),
                );
                return None;
            };
            Value::Integer(number)
        }
        DeValue::Float(float) => {
            let text = float.as_str().to_owned();
            Value::Float { number: text.parse().unwrap_or(f64::NAN), text }
        }
        DeValue::Boolean(bool) => Value::Bool(*bool),
        DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
        DeValue::Array(array) => Value::Array(
            array
                .iter()
                .map(|item| convert_value(item.get_ref(), item.span(), source, depth + 1, findings))
                .collect::<Option<_>>()?,
        ),
        DeValue::Table(table) => Value::Table(convert(table, source, depth, findings)?),
    };
    Some(Node { at: at.into(), layer: Layer::default(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Result<Table, Vec<Diagnostic>> {
        let mut findings = Findings::default();
        let table = parse(&Source::new("f", text), &mut findings);
        table.ok_or_else(|| findings.finish())
    }

    #[test]
    fn tables_merge_deep_and_arrays_replace() {
        let mut base = tree("a = [1, 2]\n[t]\nx = 1\ny = 2\n").unwrap();
        let over = tree("a = [3]\nt.y = 5\n").unwrap();
        base.overlay(&over, Layer(2));
        assert_eq!(base.get("a").unwrap().value.as_array().unwrap().len(), 1);
        let t = base.get("t").unwrap().value.as_table().unwrap();
        assert!(matches!(t.get("x").unwrap(), Node { layer: Layer(0), value: Value::Integer(1), .. }));
        assert!(matches!(t.get("y").unwrap(), Node { layer: Layer(2), value: Value::Integer(5), .. }));
    }

    #[test]
    fn nesting_bombs_are_refused_with_a_place() {
        for (open, close) in [("[", "]"), ("{a = ", "}")] {
            for depth in [DEPTH_MAX + 1, 70, 1000, 100_000] {
                let text = format!("a = {}1{}", open.repeat(depth), close.repeat(depth));
                let problems = tree(&text).unwrap_err();
                assert!(problems.iter().any(|p| p.span.is_some()), "{depth} levels of {open:?}");
            }
        }
        assert!(tree(&format!("{}b = 1", "a.".repeat(100_000))).is_err());
        assert!(tree(&format!("[{}b]", "a.".repeat(100_000))).is_err());
    }

    #[test]
    fn a_huge_file_is_refused_unread() {
        let problems = tree(&"#".repeat(FILE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(problems[0].code, code::TOO_LARGE);
    }

    #[test]
    fn one_error_a_line_is_told() {
        let problems = tree("a = 1 b = 2\nc = \nd = \"x").unwrap_err();
        let lines: Vec<u32> = problems.iter().map(|p| p.span.as_ref().unwrap().line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }

    #[test]
    fn a_number_over_64_bits_has_a_place() {
        let problems = tree("a = 99999999999999999999").unwrap_err();
        assert_eq!(problems[0].code, code::OUT_OF_RANGE);
    }
}
