//! YAML as the importers need it: nodes that know their line. Bounded in size, depth and number of nodes, because an
//! alias can stand for a hundred times what is written.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Far beyond any compose file; an alias counts as often as it is used.
const NODES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Yaml {
    /// From 1.
    pub(super) line: u32,
    pub(super) value: YamlValue,
}

#[derive(Clone, Debug)]
pub(super) enum YamlValue {
    /// Any scalar, as written; an empty plain one and `null` are `Null`.
    Text(String),
    Null,
    List(Vec<Yaml>),
    /// In the order of the file. A merge key (`<<`) has been merged.
    Map(Vec<(String, u32, Yaml)>),
}

impl Yaml {
    pub(super) fn get(&self, key: &str) -> Option<&Yaml> {
        self.entries().iter().find(|(name, _, _)| name == key).map(|(_, _, value)| value)
    }

    pub(super) fn entries(&self) -> &[(String, u32, Yaml)] {
        if let YamlValue::Map(entries) = &self.value { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Yaml] {
        if let YamlValue::List(items) = &self.value { items } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let YamlValue::Text(text) = &self.value { Some(text) } else { None }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.value, YamlValue::Map(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, YamlValue::List(_))
    }
}

/// The documents of a file.
///
/// # Errors
/// The line and the reason, when it is not YAML or over a bound.
pub(super) fn parse(text: &str) -> Result<Vec<Yaml>, (u32, String)> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut documents = Vec::new();
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::MappingStart(..)
            | Event::SequenceEnd
            | Event::MappingEnd => documents.extend(reader.node(event, line, 0)?),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Yaml>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, u32), (u32, String)> {
        let line = |marker: &saphyr_parser::Marker| u32::try_from(marker.line()).unwrap_or(u32::MAX);
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, 0)),
            Some(Ok((event, span))) => Ok((event, line(&span.start))),
            Some(Err(error)) => Err((line(error.marker()), error.info().to_owned())),
        }
    }

    fn count(&mut self, nodes: usize, line: u32) -> Result<(), (u32, String)> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err((line, format!("the file has more than {NODES_MAX} values, aliases included")));
        }
        Ok(())
    }

    /// None for an event that begins no value.
    fn node(&mut self, event: Event<'a>, line: u32, depth: usize) -> Result<Option<Yaml>, (u32, String)> {
        if depth > DEPTH_MAX {
            return Err((line, format!("values are nested more than {DEPTH_MAX} deep")));
        }
        self.count(1, line)?;
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err((line, "an alias stands inside what it stands for".to_owned()));
                };
                self.count(size(&node), line)?;
                return Ok(Some(Yaml { line, ..node }));
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null");
                (if null { YamlValue::Null } else { YamlValue::Text(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, line) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    items.extend(self.node(event, line, depth + 1)?);
                }
                (YamlValue::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Ok(None),
        };
        let node = Yaml { line, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(Some(node))
    }

    fn map(&mut self, depth: usize) -> Result<YamlValue, (u32, String)> {
        let mut entries: Vec<(String, u32, Yaml)> = Vec::new();
        let mut merged: Vec<(String, u32, Yaml)> = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, line, depth + 1)?;
            let (event, value_line) = self.next()?;
            let value = self.node(event, value_line, depth + 1)?;
            let (Some(key), Some(value)) = (key, value) else { continue };
            let Some(name) = key.text().map(str::to_owned) else { continue };
            if name != "<<" {
                entries.push((name, line, value));
                continue;
            }
            let sources = if value.is_list() { value.items() } else { std::slice::from_ref(&value) };
            merged.extend(sources.iter().flat_map(|source| source.entries().iter().cloned()));
        }
        for entry in merged {
            if !entries.iter().any(|(name, _, _)| *name == entry.0) {
                entries.push(entry);
            }
        }
        Ok(YamlValue::Map(entries))
    }
}

fn size(node: &Yaml) -> usize {
    match &node.value {
        YamlValue::Text(_) | YamlValue::Null => 1,
        YamlValue::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        YamlValue::Map(entries) => 1 + entries.iter().map(|(_, _, value)| size(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines_and_merge_keys_are_merged() {
        let text = "base: &base\n  a: 1\n  b: 2\nuse:\n  <<: *base\n  b: 3\nlist:\n  - x\n  - ~\n";
        let document = parse(text).unwrap().remove(0);
        let using = document.get("use").unwrap();
        assert_eq!(using.get("a").unwrap().text(), Some("1"));
        assert_eq!(using.get("b").unwrap().text(), Some("3"));
        assert_eq!(using.get("b").unwrap().line, 6);
        assert!(matches!(document.get("list").unwrap().items()[1].value, YamlValue::Null));
        assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap().len(), 2);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            laughs.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        assert!(parse(&laughs).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"- ".repeat(10_000)).is_err());
        assert!(parse(&"a: {".repeat(10_000)).is_err());
        assert!(parse("a: &x [*x]").is_err());
        assert!(parse("a: [1").is_err());
        assert!(parse("a: 'x").is_err());
    }
}
