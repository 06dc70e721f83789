//! YAML as files for Prometheus, Alertmanager and Grafana need it: block style, in the order given.

use std::fmt::Write as _;

/// What is written. Numbers and truths are given as [`Yaml::Plain`].
#[derive(Clone, Debug)]
pub(crate) enum Yaml {
    /// Written as it is: numbers, `true`, `[]`.
    Plain(String),
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
    /// A comment of one or more lines above the value.
    Noted(String, Box<Yaml>),
}

impl Yaml {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn plain(value: impl ToString) -> Self {
        Self::Plain(value.to_string())
    }

    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::Text(text.into())).collect())
    }

    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Yaml)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    pub fn document(&self) -> String {
        let mut out = String::new();
        self.block(&mut out, 0);
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out
    }

    /// Writes a block that begins at the start of a line that is already indented.
    fn block(&self, out: &mut String, indent: usize) {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        pad(out, indent);
                    }
                    let value = noted(value, out, indent);
                    out.push_str(&scalar(key));
                    out.push(':');
                    value.after_key(out, indent);
                }
            }
            Self::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        pad(out, indent);
                    }
                    let item = noted(item, out, indent);
                    out.push_str("- ");
                    item.block(out, indent + 2);
                    if !out.ends_with('\n') {
                        out.push('\n');
                    }
                }
            }
            Self::Noted(..) => noted(self, out, indent).block(out, indent),
            Self::Plain(_) | Self::Text(_) | Self::List(_) | Self::Map(_) => self.flow(out, indent),
        }
    }

    fn after_key(&self, out: &mut String, indent: usize) {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                pad(out, indent + 2);
                self.block(out, indent + 2);
            }
            Self::List(items) if !items.is_empty() => {
                out.push('\n');
                pad(out, indent + 2);
                self.block(out, indent + 2);
            }
            Self::Plain(_) | Self::Text(_) | Self::List(_) | Self::Map(_) | Self::Noted(..) => {
                out.push(' ');
                self.flow(out, indent);
            }
        }
    }

    fn flow(&self, out: &mut String, indent: usize) {
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::Text(text) if literal(text) => {
                out.push_str(if text.ends_with('\n') { "|\n" } else { "|-\n" });
                for line in text.lines() {
                    if !line.is_empty() {
                        pad(out, indent + 2);
                        out.push_str(line);
                    }
                    out.push('\n');
                }
                return;
            }
            Self::Text(text) => out.push_str(&scalar(text)),
            Self::List(_) => out.push_str("[]"),
            Self::Map(_) => out.push_str("{}"),
            Self::Noted(_, inner) => return inner.flow(out, indent),
        }
        out.push('\n');
    }
}

/// Writes the notes above a value and gives the value itself.
fn noted<'a>(mut value: &'a Yaml, out: &mut String, indent: usize) -> &'a Yaml {
    while let Yaml::Noted(note, inner) = value {
        for line in note.lines() {
            let _ = writeln!(out, "# {line}");
            pad(out, indent);
        }
        value = inner;
    }
    value
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Lines that a literal block carries unchanged.
fn literal(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && !text.ends_with("\n\n")
        && text.chars().all(|c| {
            c == '\n'
                || c == '\t'
                || (c >= ' ' && !matches!(c, '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}'))
        })
        && text.lines().all(|line| !line.ends_with([' ', '\t']))
}

/// Plain where no reader can take it for anything else; otherwise in double quotes, whose escapes JSON shares.
fn scalar(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '/' | '$'));
    let plain = first
        && chars.all(|c| {
            c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ' | '$' | '(' | ')' | '@')
        })
        && !text.ends_with(' ')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || matches!(c, '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{Node, Value, read};
    use super::*;

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let entries = entries.iter().map(|entry| format!("{:?}:{}", entry.key, show(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let hard = [
            "",
            " x",
            "x ",
            "a: b",
            "- a",
            "#",
            "a #b",
            "null",
            "yes",
            "5m",
            "1.5",
            "{{ $value }}",
            "a\nb",
            "a\n\nb\n",
            "a \nb",
            "\ttab",
            "line\u{2028}",
            "\u{1}",
            "'q'",
            "\"q\"",
            "\\",
            "ünï",
            "@x",
            "|",
            "a\n",
            "\n",
            "x\r\ny",
            "a\n  b",
        ];
        let yaml = Yaml::map([
            ("list", Yaml::texts(hard)),
            (
                "map",
                Yaml::Map(
                    hard.iter()
                        .enumerate()
                        .map(|(n, text)| (format!("{n}{text}"), Yaml::text(*text)))
                        .collect(),
                ),
            ),
            (
                "deep",
                Yaml::List(vec![
                    Yaml::List(vec![Yaml::texts(["a", "b\nc"])]),
                    Yaml::List(Vec::new()),
                    Yaml::map([("x", Yaml::text("l\nm"))]),
                ]),
            ),
            ("noted", Yaml::Noted("one\ntwo".into(), Box::new(Yaml::map([("n", Yaml::plain(1))])))),
        ]);
        let text = yaml.document();
        let list = hard.map(|text| format!("{text:?}")).join(",");
        let map = hard
            .iter()
            .enumerate()
            .map(|(n, text)| format!("{:?}:{text:?}", format!("{n}{text}")))
            .collect::<Vec<_>>();
        let expect = format!(
            "{{\"list\":[{list}],\"map\":{{{}}},\"deep\":[[[\"a\",\"b\\nc\"]],[],{{\"x\":\"l\\nm\"}}],\"noted\":{{\"n\":\"1\"}}}}",
            map.join(",")
        );
        assert_eq!(show(&read(&text).unwrap_or_else(|error| panic!("{error:?}\n{text}"))), expect, "{text}");
    }
}
