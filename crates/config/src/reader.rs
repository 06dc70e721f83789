//! The second pass: values of a merged table, taken by key. Each read knows its key's entry in the table of keys (the
//! default comes from there) and leaves a line for `config --resolved`.

mod from_value;

use std::cell::RefCell;
use std::fmt::Write as _;

use fairway_engine::id::EnvironmentName;

pub(crate) use from_value::{Amount, Bytes, FromValue, Statuses, Texts, Words};

use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::environment;
use crate::span::{ByteRange, Source, Span};
use crate::spec::{Absent, KeySpec, TableSpec};
use crate::tree::{Entry, Layer, Node, Table, Value};

/// A resolved value with where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `service.api.stop.timeout`
    pub key: String,
    /// In the notation of the file. A secret is shown as its reference: its value is never read here.
    pub value: String,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(Span),
    /// Written in `[env.NAME]`, for this environment or for one that it extends.
    Overlay {
        environment: EnvironmentName,
        span: Span,
    },
}

/// What reading one environment shares.
pub(crate) struct Context<'a> {
    pub(crate) source: &'a Source,
    pub(crate) environment: &'a EnvironmentName,
    /// `Layer(n)` is the n-th of these, counted from 1.
    pub(crate) layers: &'a [EnvironmentName],
    pub(crate) findings: &'a RefCell<Findings>,
    pub(crate) settings: RefCell<Vec<Setting>>,
    /// Which keys were asked for, so that a test can tell that none of the table is dead.
    #[cfg(test)]
    pub(crate) asked: RefCell<std::collections::BTreeSet<(&'static str, &'static str)>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        source: &'a Source,
        environment: &'a EnvironmentName,
        layers: &'a [EnvironmentName],
        findings: &'a RefCell<Findings>,
    ) -> Self {
        Self {
            source,
            environment,
            layers,
            findings,
            settings: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    pub(crate) fn push(&self, diagnostic: Diagnostic) {
        self.findings.borrow_mut().push(diagnostic);
    }

    pub(crate) fn push_at(&self, diagnostic: Diagnostic, at: ByteRange) {
        self.push(diagnostic.at(self.source.span(at)));
    }

    /// True in the environment of a developer, where nobody waits and nothing is public.
    pub(crate) fn is_dev(&self) -> bool {
        environment::is_dev(self.environment.as_str())
    }

    pub(crate) fn is_production(&self) -> bool {
        matches!(self.environment.as_str(), "production" | "prod")
    }

    fn origin(&self, node: &Node) -> Origin {
        let span = self.source.span(node.at);
        match usize::from(node.layer.0).checked_sub(1).and_then(|index| self.layers.get(index)) {
            None => Origin::File(span),
            Some(environment) => Origin::Overlay { environment: environment.clone(), span },
        }
    }

    pub(crate) fn record(&self, key: String, node: &Node) {
        self.record_as(key, show(&node.value), node);
    }

    /// Records that the value is there, and shows something else.
    pub(crate) fn record_as(&self, key: String, value: String, node: &Node) {
        let setting = Setting { key, value, origin: self.origin(node) };
        self.settings.borrow_mut().push(setting);
    }

    pub(crate) fn record_default(&self, key: String, value: String) {
        self.settings.borrow_mut().push(Setting { key, value, origin: Origin::Default });
    }
}

/// A table that may not be there; then every key has its default.
pub(crate) struct Reader<'a> {
    pub(crate) cx: &'a Context<'a>,
    spec: &'static TableSpec,
    table: Option<&'a Table>,
    /// The place of the table, or of what stands for it.
    pub(crate) at: ByteRange,
    path: String,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        cx: &'a Context<'a>,
        spec: &'static TableSpec,
        table: Option<&'a Table>,
        at: ByteRange,
        path: String,
    ) -> Self {
        let reader = Self { cx, spec, table, at, path };
        if let Some(table) = table {
            for key in spec.keys.iter().filter(|key| key.absent == Absent::Required) {
                if table.get(key.name).is_none() {
                    reader.missing(key);
                }
            }
        }
        reader
    }

    fn missing(&self, key: &KeySpec) {
        let place = if self.path.is_empty() { "the file" } else { &self.path };
        let diagnostic = Diagnostic::error(code::MISSING_KEY, format!("{place} has no {}", key.name))
            .hint(format!("add {} = {}", key.name, key.example));
        if self.path.is_empty() { self.cx.push(diagnostic) } else { self.cx.push_at(diagnostic, self.at) }
    }

    fn spec_of(&self, key: &str) -> &'static KeySpec {
        let spec =
            self.spec.key(key).expect("keys are read by the names of their table, and a test reads them all");
        #[cfg(test)]
        self.cx.asked.borrow_mut().insert((self.spec.name, spec.name));
        spec
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// True when the key is written, even with a value that is refused elsewhere.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.spec_of(key);
        self.table.is_some_and(|table| table.get(key).is_some())
    }

    /// True when the table has a key that does not exist: something that seems missing may be a slip in its name.
    pub(crate) fn has_unknown(&self) -> bool {
        self.table.is_some_and(|table| table.keys().any(|key| self.spec.key(key).is_none()))
    }

    pub(crate) fn layer(&self, key: &str) -> Option<Layer> {
        Some(self.table?.get(key)?.layer)
    }

    /// The place of a value, or of the table when it is not there.
    pub(crate) fn value_at(&self, key: &str) -> ByteRange {
        self.table.and_then(|table| table.get(key)).map_or(self.at, |node| node.at)
    }

    pub(crate) fn key_at(&self, key: &str) -> ByteRange {
        self.table.and_then(|table| table.entries.get(key)).map_or(self.at, |entry| entry.key_at)
    }

    /// A value of a type that the key takes.
    pub(crate) fn node(&self, key: &str) -> Option<&'a Node> {
        let spec = self.spec_of(key);
        self.table?.get(key).filter(|node| spec.kind.takes(&node.value))
    }

    /// The value, or the default of the table of keys.
    pub(crate) fn get<T: FromValue>(&self, key: &str) -> Option<T> {
        let spec = self.spec_of(key);
        if let Some(node) = self.node(key) {
            self.cx.record(self.path_of(key), node);
            if let Some(value) = T::from_value(&node.value) {
                return Some(value);
            }
        }
        let Absent::Default(text) = spec.absent else { return None };
        let value = default_value(text);
        if !self.has(key) {
            self.cx.record_default(self.path_of(key), show(&value));
        }
        T::from_value(&value)
    }

    /// For keys with a default in the table of keys.
    pub(crate) fn fixed<T: FromValue>(&self, key: &str) -> T {
        self.get(key).expect("the default in the table of keys is of the key's kind; a test reads them all")
    }

    /// The default of the table of keys, where there is no table to read.
    pub(crate) fn default_of<T: FromValue>(&self, key: &str) -> T {
        match self.spec_of(key).absent {
            Absent::Default(text) => T::from_value(&default_value(text)),
            Absent::Required | Absent::Words(_) => None,
        }
        .expect("the default in the table of keys is of the key's kind; a test reads them all")
    }

    /// For keys whose default depends on something else.
    pub(crate) fn get_or<T: FromValue>(
        &self,
        key: &str,
        default: impl FnOnce() -> T,
        show: impl Fn(&T) -> String,
    ) -> T {
        if let Some(value) = self.get(key) {
            return value;
        }
        let value = default();
        if !self.has(key) {
            self.cx.record_default(self.path_of(key), show(&value));
        }
        value
    }

    /// A table below this one; when it is not there, one that has every default.
    pub(crate) fn table(&self, key: &str, spec: &'static TableSpec) -> Reader<'a> {
        let node = self.node(key);
        let table = node.and_then(|node| node.value.as_table());
        // A table with a header of its own begins there; the key says better than the header what is meant.
        let at = if table.is_some() { self.key_at(key) } else { self.at };
        Reader::new(self.cx, spec, table, at, self.path_of(key))
    }

    pub(crate) fn optional_table(&self, key: &str, spec: &'static TableSpec) -> Option<Reader<'a>> {
        self.node(key)?.value.as_table()?;
        Some(self.table(key, spec))
    }

    pub(crate) fn list_of_tables(&self, key: &str, spec: &'static TableSpec) -> Option<Vec<Reader<'a>>> {
        let items = self.node(key)?.value.as_array()?;
        let reader = |(index, item): (usize, &'a Node)| {
            let table = item.value.as_table()?;
            Some(Reader::new(self.cx, spec, Some(table), item.at, format!("{}[{index}]", self.path_of(key))))
        };
        Some(items.iter().enumerate().filter_map(reader).collect())
    }

    /// The tables under names of the user's.
    pub(crate) fn map_of_tables(&self, key: &str, spec: &'static TableSpec) -> Vec<(&'a str, Reader<'a>)> {
        let path = self.path_of(key);
        let reader = |(name, entry): (&'a str, &'a Entry)| {
            let table = entry.node.value.as_table()?;
            let path = format!("{path}.{}", toml_key(name));
            Some((name, Reader::new(self.cx, spec, Some(table), entry.key_at, path)))
        };
        self.entries(key).filter_map(reader).collect()
    }

    /// Tells that something is missing, unless a slip in its name has been told.
    pub(crate) fn lacks(&self, what: &str, hint: &str) {
        if !self.has_unknown() {
            let message = format!("{} has no {what}", self.path);
            self.cx.push_at(Diagnostic::error(code::MISSING_KEY, message).hint(hint), self.at);
        }
    }

    /// The entries of a table whose keys are the user's.
    pub(crate) fn entries(&self, key: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        self.node(key)
            .and_then(|node| node.value.as_table())
            .into_iter()
            .flat_map(|table| table.entries.iter().map(|(name, entry)| (name.as_str(), entry)))
    }

    /// Refuses keys that have no meaning beside `chosen`. One that an overlay inherits is no mistake: the overlay has
    /// chosen otherwise and could not take it away.
    pub(crate) fn refuse_beside(&self, chosen: &str, keys: &[&str], why: &str) {
        for key in keys {
            if self.has(key) && self.layer(key) >= self.layer(chosen) {
                self.refuse(key, why);
            }
        }
    }

    /// Refuses a key that has no meaning here, wherever it comes from.
    pub(crate) fn refuse(&self, key: &str, why: &str) {
        let message = format!("{} has no meaning {why}", self.path_of(key));
        let diagnostic = Diagnostic::error(code::CONFLICT, message).hint(format!("remove {key}"));
        self.cx.push_at(diagnostic, self.key_at(key));
    }

    /// The one of several keys that is there. An overlay chooses anew; two in the same layer are refused.
    pub(crate) fn one_of(&self, keys: &[&'static str]) -> Option<&'static str> {
        let layer = keys.iter().filter(|key| self.has(key)).map(|key| self.layer(key)).max()?;
        let present: Vec<&'static str> =
            keys.iter().copied().filter(|key| self.layer(key) == layer).collect();
        if let [first, second, ..] = present.as_slice() {
            let message = format!("{first} and {second} exclude each other in {}", self.path);
            self.cx.push(
                Diagnostic::error(code::CONFLICT, message)
                    .at(self.cx.source.span(self.key_at(second)))
                    .related(self.cx.source.span(self.key_at(first)), "the other one"),
            );
        }
        present.first().copied()
    }
}

pub(crate) fn default_value(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) => Value::Integer(number),
        Err(_) => match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => match text.parse::<f64>() {
                // A word such as "inf" is one too.
                Ok(number) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                    Value::Float { number, text: text.to_owned() }
                }
                Ok(_) | Err(_) => Value::Text(text.to_owned()),
            },
        },
    }
}

/// A value in the notation of the file, on one line.
pub(crate) fn show(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Text(text) => out.push_str(&quote(text)),
        Value::Integer(number) => {
            let _ = write!(out, "{number}");
        }
        Value::Float { text, .. } => out.push_str(text),
        Value::Bool(bool) => {
            let _ = write!(out, "{bool}");
        }
        Value::Datetime(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_value(out, &item.value);
            }
            out.push(']');
        }
        Value::Table(table) => {
            out.push_str("{ ");
            for (index, (key, entry)) in table.entries.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                out.push_str(&toml_key(key));
                out.push_str(" = ");
                write_value(out, &entry.node.value);
            }
            out.push_str(" }");
        }
    }
}

/// A TOML basic string.
pub(crate) fn quote(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// A TOML key, in quotes only when it must be.
pub(crate) fn toml_key(key: &str) -> String {
    toml_edit::Key::new(key).to_string()
}
