//! YAML whose nodes know their place. Bounded in size, depth and number of nodes, because an alias can stand for a
//! hundred times what is written.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

/// Far beyond any rule file; an alias counts as often as it is used.
const NODES_MAX: usize = 200_000;
/// A rule file nests five deep; the reader recurses once a level.
const DEPTH_MAX: usize = 32;

/// Both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    /// A scalar as it is written, whatever type YAML would guess.
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; no two keys are equal.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

impl Node {
    /// The name of the kind in the words of Prometheus' reader.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "!!null",
            Value::Text(_) => "!!str",
            Value::List(_) => "!!seq",
            Value::Map(_) => "!!map",
        }
    }
}

/// The first document of a file; null when the file is empty.
pub(super) fn read(text: &str) -> Result<Node, (Place, String)> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    loop {
        let (event, place) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(Node { place, value: Value::Null }),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::MappingStart(..)
            | Event::SequenceEnd
            | Event::MappingEnd => {
                let node = reader.node(event, place, 0)?;
                reader.finish()?;
                return Ok(node);
            }
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Place), (Place, String)> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Place::default())),
            Some(Ok((event, span))) => Ok((event, place(&span.start))),
            Some(Err(error)) => Err((place(error.marker()), format!("yaml: {}", error.info()))),
        }
    }

    /// What follows must be readable too: a file that is cut off must not count as a shorter one.
    fn finish(&mut self) -> Result<(), (Place, String)> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(_), place) => {
                    return Err((place, "yaml: a rule file is one document".to_owned()));
                }
                _ => {}
            }
        }
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), (Place, String)> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err((place, format!("yaml: more than {NODES_MAX} values, aliases included")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, place: Place, depth: usize) -> Result<Node, (Place, String)> {
        if depth > DEPTH_MAX {
            return Err((place, format!("yaml: values are nested more than {DEPTH_MAX} deep")));
        }
        self.count(1, place)?;
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err((place, "yaml: an alias stands inside what it stands for".to_owned()));
                };
                self.count(size(&node), place)?;
                return Ok(Node { place, ..node });
            }
            Event::Scalar(text, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (if null { Value::Null } else { Value::Text(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, place) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    items.push(self.node(event, place, depth + 1)?);
                }
                (Value::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err((place, "yaml: a value is missing".to_owned())),
        };
        let node = Node { place, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Value, (Place, String)> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, place) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = match self.node(event, place, depth + 1)?.value {
                Value::Text(key) => key,
                Value::Null | Value::List(_) | Value::Map(_) => {
                    return Err((place, "yaml: a key must be a text".to_owned()));
                }
            };
            let (event, value_place) = self.next()?;
            let value = self.node(event, value_place, depth + 1)?;
            if key == "<<" {
                let sources = if let Value::List(items) = value.value { items } else { vec![value] };
                merged.extend(sources.into_iter().flat_map(|source| match source.value {
                    Value::Map(entries) => entries,
                    Value::Null | Value::Text(_) | Value::List(_) => Vec::new(),
                }));
                continue;
            }
            if let Some(line) = known.insert(key.clone(), place.line) {
                return Err((place, format!("mapping key \"{key}\" already defined at line {line}")));
            }
            entries.push(Entry { key, place, value });
        }
        for entry in merged {
            if known.insert(entry.key.clone(), entry.place.line).is_none() {
                entries.push(entry);
            }
        }
        Ok(Value::Map(entries))
    }
}

/// The parser counts columns from 0.
fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Text(_) => 1,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str, expect: &str) {
        let (place, message) = read(text).unwrap_err();
        assert_eq!(format!("{place}: {message}"), expect);
    }

    #[test]
    fn values_know_their_place() {
        let node = read("groups:\n- name: a\n  rules: []\n").unwrap();
        let Value::Map(entries) = &node.value else { panic!("a map") };
        let Value::List(groups) = &entries[0].value.value else { panic!("a list") };
        let Value::Map(group) = &groups[0].value else { panic!("a map") };
        assert_eq!((entries[0].place.to_string(), group[0].place.to_string()), ("1:1".into(), "2:3".into()));
        assert_eq!(group[0].value.place.to_string(), "2:9");
    }

    #[test]
    fn what_is_twice_cut_off_or_too_much_is_refused() {
        fails("a: 1\nb: 2\na: 3\n", "3:1: mapping key \"a\" already defined at line 1");
        fails("a: 1\n---\nb: 2\n", "2:1: yaml: a rule file is one document");
        assert!(read("a: [1").is_err());
        assert!(read("a: 'x").is_err());
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&"- ".repeat(10_000)).is_err());
        assert!(read("a: &x [*x]").is_err());
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            laughs.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        assert!(read(&laughs).is_err());
        assert!(matches!(read("").unwrap().value, Value::Null));
    }
}
