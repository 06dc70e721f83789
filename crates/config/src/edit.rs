//! `config set` and `config unset`: one value of the file changes, and nothing else does: comments, order and
//! formatting stay. What comes out has been validated.

use toml_edit::{Decor, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

use crate::check;
use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::keys;
use crate::project::Project;
use crate::span::Source;
use crate::spec::{Kind, TableSpec};
use crate::suggest::{did_you_mean, listed};
use crate::tree;

/// Why a change was not made. The places are in `text`, which is the changed text when the change itself is what
/// makes it wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", diagnostics.first().map_or("refused", |diagnostic| diagnostic.message.as_str()))]
pub struct EditRefused {
    pub diagnostics: Vec<Diagnostic>,
    pub text: Source,
}

/// The text of the file with `key` (`env.production.service.api.replicas`) set to `value`. The value is in the
/// notation of the file; quotes around a string may be left out.
///
/// # Errors
/// When the key does not exist, the value is not of its kind, or the result is not valid.
pub fn set(file: &str, text: &str, key: &str, value: &str) -> Result<String, EditRefused> {
    let original = Original { file, text };
    let path = original.path(key)?;
    let kind = original.kind_of(&path)?;
    let value = value_of(value, kind);
    let mut document = document(file, text)?;
    let (last, parents) = path.split_last().expect("a key has at least one part");
    let mut parent = document.as_item_mut();
    for part in parents {
        parent = descend(parent, part).ok_or_else(|| original.refused(not_a_table(part)))?;
    }
    let inline = parent.is_inline_table();
    let table = parent.as_table_like_mut().expect("descend returns tables only, and the root is one");
    match table.get_mut(last.get()) {
        Some(Item::Value(old)) => {
            let mut new = value;
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        Some(other) => *other = Item::Value(value),
        None => {
            let mut value = value;
            // In braces the blank before the closing one belongs to the last value: it must stay the last thing.
            if inline && let Some((_, Item::Value(before))) = table.iter_mut().last() {
                let suffix = before.decor().suffix().cloned();
                before.decor_mut().set_suffix("");
                *value.decor_mut() = Decor::new(" ", suffix.unwrap_or_default());
            }
            table.insert(last.get(), Item::Value(value));
        }
    }
    original.validated(&document)
}

/// The text of the file without `key`. A comment right above the key goes with it; one that a blank line separates
/// from it stays.
///
/// # Errors
/// When the key is not there, or the result is not valid.
pub fn unset(file: &str, text: &str, key: &str) -> Result<String, EditRefused> {
    let original = Original { file, text };
    let path = original.path(key)?;
    let mut document = document(file, text)?;
    let (last, parents) = path.split_last().expect("a key has at least one part");
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for part in parents {
        let hint = absent_hint(part.get(), table);
        table = table
            .get_mut(part.get())
            .and_then(Item::as_table_like_mut)
            .ok_or_else(|| original.refused(absent(key, hint)))?;
    }
    if !table.contains_key(last.get()) {
        let hint = absent_hint(last.get(), table);
        return Err(original.refused(absent(key, hint)));
    }
    keep_comment(table, last.get());
    table.remove(last.get());
    original.validated(&document)
}

/// The file before the change.
struct Original<'a> {
    file: &'a str,
    text: &'a str,
}

impl Original<'_> {
    fn refused(&self, diagnostic: Diagnostic) -> EditRefused {
        EditRefused { diagnostics: vec![diagnostic], text: Source::new(self.file, self.text) }
    }

    fn validated(&self, document: &DocumentMut) -> Result<String, EditRefused> {
        let mut text = document.to_string();
        // The writer knows neither; a file that had them keeps them, or its every line would have changed.
        if self.text.contains("\r\n") {
            text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        }
        if self.text.starts_with('\u{feff}') && !text.starts_with('\u{feff}') {
            text.insert(0, '\u{feff}');
        }
        match Project::parse(self.file, &text) {
            Ok(_) => Ok(text),
            Err(diagnostics) => Err(EditRefused { diagnostics, text: Source::new(self.file, &text) }),
        }
    }

    fn path(&self, key: &str) -> Result<Vec<Key>, EditRefused> {
        Key::parse(key).ok().filter(|path| !path.is_empty()).ok_or_else(|| {
            let shown: String = key.chars().take(80).collect();
            self.refused(
                Diagnostic::error(code::SYNTAX, format!("{shown:?} is not a key"))
                    .hint("write the parts with dots between them: service.api.replicas"),
            )
        })
    }

    /// What the key takes, by the table of keys.
    fn kind_of(&self, path: &[Key]) -> Result<&'static Kind, EditRefused> {
        enum Place {
            Table(&'static TableSpec),
            Kind(&'static Kind),
        }
        let mut place = Place::Table(&keys::ROOT);
        for (index, part) in path.iter().enumerate() {
            let shown = || path[..index].iter().map(Key::get).collect::<Vec<_>>().join(".");
            let spec = match place {
                Place::Table(spec) => spec,
                Place::Kind(Kind::Map { of, .. }) => {
                    place = Place::Kind(of);
                    continue;
                }
                Place::Kind(kind) => table_of(kind).ok_or_else(|| {
                    self.refused(
                        Diagnostic::error(code::UNKNOWN_KEY, format!("{} has no keys below it", shown()))
                            .hint(format!("it takes {}", kind.expected())),
                    )
                })?,
            };
            let key = spec.key(part.get()).ok_or_else(|| {
                let place =
                    if index == 0 { "at the top of the file".to_owned() } else { format!("in {}", shown()) };
                let message =
                    format!("unknown key {:?} {place}", part.get().chars().take(60).collect::<String>());
                let hint = did_you_mean(part.get(), spec.names())
                    .unwrap_or_else(|| format!("the keys there are {}", listed(spec.names())));
                self.refused(Diagnostic::error(code::UNKNOWN_KEY, message).hint(hint))
            })?;
            place = Place::Kind(&key.kind);
        }
        match place {
            Place::Kind(kind) => Ok(kind),
            Place::Table(_) => Err(self.refused(Diagnostic::error(code::UNKNOWN_KEY, "the key is empty"))),
        }
    }
}

fn document(file: &str, text: &str) -> Result<DocumentMut, EditRefused> {
    // Our own reader first: it has the limits and the better words.
    let source = Source::new(file, text);
    let mut findings = Findings::default();
    if tree::parse(&source, &mut findings).is_none() {
        return Err(EditRefused { diagnostics: findings.finish(), text: source });
    }
    text.parse().map_err(|error: toml_edit::TomlError| EditRefused {
        diagnostics: vec![Diagnostic::error(code::SYNTAX, error.message().to_owned())],
        text: source,
    })
}

fn table_of(kind: &'static Kind) -> Option<&'static TableSpec> {
    match kind {
        Kind::Table(spec) => Some(spec),
        Kind::OneOf(kinds) => kinds.iter().find_map(table_of),
        Kind::Text(_)
        | Kind::Bool
        | Kind::True
        | Kind::Integer { .. }
        | Kind::Number { .. }
        | Kind::Duration { .. }
        | Kind::Size
        | Kind::Choice(_)
        | Kind::Command
        | Kind::CommandWithPort
        | Kind::Variable
        | Kind::List { .. }
        | Kind::Map { .. } => None,
    }
}

/// In the notation of the file when that is of the kind, otherwise a string. What is of no kind is left to the
/// validation, which says what is expected.
fn value_of(text: &str, kind: &Kind) -> Value {
    let written = text.trim().parse::<Value>().ok().map(|mut value| {
        value.decor_mut().clear();
        value
    });
    let takes = |value: &Value| {
        let source = Source::new("value", &format!("x = {value}"));
        let mut findings = Findings::default();
        let table = tree::parse(&source, &mut findings);
        let node = table.as_ref().and_then(|table| table.get("x"));
        node.is_some_and(|node| {
            check::check_value(node, kind, "x", &source, &mut findings);
            kind.takes(&node.value)
        })
    };
    let takes_text = kind.takes(&tree::Value::Text(String::new()));
    match written {
        Some(value) if takes(&value) || !takes_text => value,
        Some(_) | None => Value::from(text),
    }
}

/// The table below `key`, made when it is not there in the style of what is around it.
fn descend<'a>(parent: &'a mut Item, key: &Key) -> Option<&'a mut Item> {
    let inline = parent.is_inline_table();
    let dotted = parent.as_table().is_some_and(Table::is_dotted);
    let table = parent.as_table_like_mut()?;
    if !table.contains_key(key.get()) {
        let new = if inline {
            Item::Value(Value::InlineTable(InlineTable::new()))
        } else {
            let mut new = Table::new();
            new.set_dotted(dotted);
            new.set_implicit(!dotted);
            Item::Table(new)
        };
        table.insert(key.get(), new);
    }
    table.get_mut(key.get()).filter(|item| item.is_table_like())
}

fn not_a_table(key: &Key) -> Diagnostic {
    Diagnostic::error(
        code::WRONG_TYPE,
        format!("{} has a value of its own, so nothing can be set below it", key.get()),
    )
    .hint("unset it first, or write the whole as a table in braces")
}

fn absent(key: &str, hint: String) -> Diagnostic {
    Diagnostic::error(code::UNKNOWN_KEY, format!("{key} is not set in the file")).hint(hint)
}

fn absent_hint(part: &str, table: &dyn TableLike) -> String {
    let there: Vec<String> = table.iter().map(|(name, _)| name.to_owned()).collect();
    let there = there.iter().map(String::as_str);
    did_you_mean(part, there.clone()).unwrap_or_else(|| format!("set there: {}", listed(there)))
}

/// Hands what stands above the key, up to the last blank line, to the entry after it.
fn keep_comment(table: &mut dyn TableLike, key: &str) {
    let prefix_of = |table: &dyn TableLike, key: &str| -> Option<String> {
        let decor = match table.get(key)? {
            Item::Table(table) => table.decor(),
            Item::None | Item::Value(_) | Item::ArrayOfTables(_) => table.key(key)?.leaf_decor(),
        };
        Some(decor.prefix()?.as_str()?.to_owned())
    };
    let Some(prefix) = prefix_of(table, key) else { return };
    let Some(end) = prefix.rfind("\n\n") else { return };
    let kept = prefix[..end + 2].to_owned();
    if !kept.contains('#') {
        return;
    }
    let Some(next) = table.iter().map(|(name, _)| name.to_owned()).skip_while(|name| name != key).nth(1)
    else {
        return;
    };
    let together = kept + prefix_of(table, &next).unwrap_or_default().trim_start_matches('\n');
    if let Some(Item::Table(next)) = table.get_mut(&next) {
        next.decor_mut().set_prefix(together);
    } else if let Some(mut next) = table.key_mut(&next) {
        next.leaf_decor_mut().set_prefix(together);
    }
}

#[cfg(test)]
mod tests;
