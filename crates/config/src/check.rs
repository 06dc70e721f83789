//! The first pass: does every key exist and is every value of the kind that its key takes? It looks at one value at a
//! time; what concerns several is found when the environments are read.

use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::keys;
use crate::span::{ByteRange, Source};
use crate::spec::{Format, Kind, TableSpec};
use crate::suggest::{did_you_mean, listed};
use crate::tree::{Node, Table, Value};
use crate::value::command::{self, NotPlain};
use crate::value::{duration, labels, name, size};

/// Regular expressions in one file. Each takes up to a millisecond to compile, and a megabyte has room for thirty
/// thousand of them.
const EXPRESSIONS_MAX: usize = 500;

/// The largest value of a variable; Linux refuses a single string of the environment over 128 KiB.
const VARIABLE_BYTES_MAX: usize = 128 << 10;

pub(crate) fn check(root: &Table, source: &Source, findings: &mut Findings) {
    Checker { source, findings, expressions: 0 }.table(root, &keys::ROOT, "");
}

/// Checks a value on its own.
pub(crate) fn check_value(node: &Node, kind: &Kind, path: &str, source: &Source, findings: &mut Findings) {
    Checker { source, findings, expressions: 0 }.value(node, kind, path);
}

struct Checker<'a> {
    source: &'a Source,
    findings: &'a mut Findings,
    /// Regular expressions so far.
    expressions: usize,
}

impl Kind {
    /// True when a value of this TOML type may stand here, whatever it says.
    pub(crate) fn takes(&self, value: &Value) -> bool {
        match self {
            Kind::Text(_) | Kind::Duration { .. } | Kind::Size | Kind::Choice(_) => {
                matches!(value, Value::Text(_))
            }
            Kind::Bool | Kind::True => matches!(value, Value::Bool(_)),
            Kind::Integer { .. } => matches!(value, Value::Integer(_)),
            Kind::Number { .. } => matches!(value, Value::Integer(_) | Value::Float { .. }),
            Kind::Command | Kind::CommandWithPort => matches!(value, Value::Text(_) | Value::Array(_)),
            Kind::Variable => !matches!(value, Value::Array(_) | Value::Datetime(_)),
            Kind::List { .. } => matches!(value, Value::Array(_)),
            Kind::Table(_) | Kind::Map { .. } => matches!(value, Value::Table(_)),
            Kind::OneOf(kinds) => kinds.iter().any(|kind| kind.takes(value)),
        }
    }
}

impl Kind {
    /// True when the value is `{ secret = "…" }` and nothing that may stand in the file.
    fn holds_secret(&self) -> bool {
        matches!(self, Kind::Table(table) if table.keys.iter().any(|key| key.name == "secret"))
    }
}

impl Checker<'_> {
    fn push(&mut self, diagnostic: Diagnostic, at: ByteRange) {
        self.findings.push(diagnostic.at(self.source.span(at)));
    }

    fn bad(&mut self, code: &'static str, path: &str, expected: &str, why: &str, at: ByteRange) {
        self.push(Diagnostic::error(code, format!("{path} is not {expected}: {why}")), at);
    }

    fn table(&mut self, table: &Table, spec: &TableSpec, path: &str) {
        for (name, entry) in &table.entries {
            // A suggestion for each of fifty thousand keys would take seconds, and nobody would see it.
            if self.findings.is_full() {
                self.findings.more();
                return;
            }
            let below = if path.is_empty() { shown(name) } else { format!("{path}.{}", shown(name)) };
            match spec.key(name) {
                Some(key) => {
                    let before = self.findings.count();
                    self.value(&entry.node, &key.kind, &below);
                    // Whatever is wrong with a value, one that is right helps.
                    self.findings.hint_since(before, || format!("for example {name} = {}", key.example));
                }
                None => {
                    let place =
                        if path.is_empty() { "at the top of the file" } else { &format!("in {path}") };
                    let message = format!("unknown key {} {place}", shown_text(name));
                    self.push(
                        Diagnostic::error(code::UNKNOWN_KEY, message).hint(unknown_key_hint(name, spec)),
                        entry.key_at,
                    );
                }
            }
        }
    }

    fn value(&mut self, node: &Node, kind: &Kind, path: &str) {
        if kind.holds_secret() && matches!(node.value, Value::Text(_)) && !kind.takes(&node.value) {
            return self.plain_secret(path, node.at);
        }
        if !kind.takes(&node.value) {
            let message = format!("{path} is {}, expected {}", node.value.kind(), kind.expected());
            let hint = wrong_type_hint(&node.value, kind);
            return self.push(Diagnostic::error(code::WRONG_TYPE, message).hint_if(hint), node.at);
        }
        match (kind, &node.value) {
            (Kind::Text(format), Value::Text(text)) => self.format(text, format, path, node.at),
            (Kind::Duration { min }, Value::Text(text)) => match duration::parse(text) {
                Err(why) => self.bad(code::BAD_VALUE, path, duration::EXPECTED, &why, node.at),
                Ok(given) if given < *min => {
                    let message = format!("{path} must be at least {}", duration::show(*min));
                    self.push(Diagnostic::error(code::OUT_OF_RANGE, message), node.at);
                }
                Ok(_) => {}
            },
            (Kind::Size, Value::Text(text)) => match size::parse(text) {
                Err(why) => self.bad(code::BAD_VALUE, path, size::EXPECTED, &why, node.at),
                Ok(0) => {
                    self.push(
                        Diagnostic::error(code::OUT_OF_RANGE, format!("{path} must be more than 0")),
                        node.at,
                    );
                }
                Ok(_) => {}
            },
            (Kind::Choice(choices), Value::Text(text)) if !choices.contains(&text.as_str()) => {
                let message = format!("{path} is {text:?}, expected {}", kind.expected());
                let hint = did_you_mean(text, choices.iter().copied());
                self.push(Diagnostic::error(code::BAD_VALUE, message).hint_if(hint), node.at);
            }
            (Kind::True, Value::Bool(false)) => {
                let message = format!("{path} can only be true");
                let hint = "leave the key out instead";
                self.push(Diagnostic::error(code::BAD_VALUE, message).hint(hint), node.at);
            }
            (Kind::Integer { min, max }, Value::Integer(number)) if !(min..=max).contains(&number) => {
                if path == "version" {
                    return self.version(*number, node.at);
                }
                let message = format!("{path} is {number}, expected {}", kind.expected());
                self.push(Diagnostic::error(code::OUT_OF_RANGE, message), node.at);
            }
            (Kind::Number { min, max }, value) => {
                let number = match value {
                    Value::Integer(number) => *number as f64,
                    Value::Float { number, .. } => *number,
                    Value::Text(_)
                    | Value::Bool(_)
                    | Value::Datetime(_)
                    | Value::Array(_)
                    | Value::Table(_) => f64::NAN,
                };
                if !(*min..=*max).contains(&number) {
                    let message = format!("{path} is out of range, expected {}", kind.expected());
                    self.push(Diagnostic::error(code::OUT_OF_RANGE, message), node.at);
                }
            }
            (Kind::Command, _) => self.command(node, path, false),
            (Kind::CommandWithPort, _) => self.command(node, path, true),
            (Kind::Variable, _) => self.variable(node, path),
            (Kind::List { of, max }, Value::Array(items)) => {
                if items.len() > *max {
                    let message = format!("{path} has {} items, {max} are the limit", items.len());
                    return self.push(Diagnostic::error(code::TOO_MANY, message), node.at);
                }
                for item in items {
                    self.value(item, of, path);
                }
            }
            (Kind::Table(spec), Value::Table(table)) => self.table(table, spec, path),
            (Kind::Map { key, of, max }, Value::Table(table)) => {
                if table.entries.len() > *max {
                    let message = format!("{path} has {} entries, {max} are the limit", table.entries.len());
                    return self.push(Diagnostic::error(code::TOO_MANY, message), node.at);
                }
                for (name, entry) in &table.entries {
                    self.format(name, key, path, entry.key_at);
                    self.value(&entry.node, of, &format!("{path}.{}", shown(name)));
                }
            }
            (Kind::OneOf(kinds), value) => {
                if let Some(kind) = kinds.iter().find(|kind| kind.takes(value)) {
                    self.value(node, kind, path);
                }
            }
            // `takes` has sorted out the types; what is left is a value that its kind accepts as it is.
            (
                Kind::Text(_)
                | Kind::Bool
                | Kind::True
                | Kind::Integer { .. }
                | Kind::Duration { .. }
                | Kind::Size
                | Kind::Choice(_)
                | Kind::List { .. }
                | Kind::Table(_)
                | Kind::Map { .. },
                _,
            ) => {}
        }
    }

    /// A secret itself where its name belongs.
    fn plain_secret(&mut self, path: &str, at: ByteRange) {
        let message = format!("{path} stands in plain text, and everybody who has the file can read it");
        let mut parts = path.rsplit('.').filter(|part| *part != "secret");
        let key = parts.next().unwrap_or("alerts");
        let owner = parts.next().unwrap_or("alerts");
        let secret: String = format!("{owner}_{key}")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .collect();
        let hint =
            format!("{key} = {{ secret = {secret:?} }}, and fairway secret set {secret} -e ENVIRONMENT");
        self.push(Diagnostic::error(code::PLAIN_SECRET, message).hint(hint), at);
    }

    fn format(&mut self, text: &str, format: &Format, path: &str, at: ByteRange) {
        // Whoever copies the value instead of its name: it must not be repeated.
        if format.name == keys::SECRET_FORMAT && (text.contains("://") || text.len() > 64) {
            return self.plain_secret(path, at);
        }
        if format.name == keys::MATCH_FORMAT && labels::is_expression(text) {
            self.expressions += 1;
            if self.expressions > EXPRESSIONS_MAX {
                if self.expressions == EXPRESSIONS_MAX + 1 {
                    let message = format!("the file has more than {EXPRESSIONS_MAX} regular expressions");
                    let hint = "one with a|b says as much as two";
                    self.push(Diagnostic::error(code::TOO_MANY, message).hint(hint), at);
                }
                return;
            }
        }
        if let Err(why) = (format.check)(text) {
            let message = format!("{} is not {}: {why}", shown_text(text), format.expected);
            let message = if path.is_empty() { message } else { format!("{path}: {message}") };
            self.push(Diagnostic::error(format.code, message).hint_if(name_hint(text, format)), at);
        }
    }

    fn version(&mut self, number: i64, at: ByteRange) {
        let message = format!("this program reads version {} of the file, not {number}", keys::VERSION);
        let hint = if number > keys::VERSION { "use a newer fairway" } else { "write version = 1" };
        self.push(Diagnostic::error(code::VERSION, message).hint(hint), at);
    }

    fn command(&mut self, node: &Node, path: &str, with_port: bool) {
        match &node.value {
            Value::Text(text) => {
                if let Err(error) = command::split(text) {
                    let hint = match error {
                        NotPlain::NeedsShell(_) => {
                            format!(
                                "a shell must be asked for by name: [\"sh\", \"-c\", {}]",
                                shown_text(text)
                            )
                        }
                        NotPlain::Empty => "name a program: [\"bin/api\"]".to_owned(),
                        NotPlain::Broken(_) => {
                            "an array of words needs no quoting: [\"bin/api\", \"--name\"]".to_owned()
                        }
                    };
                    let message = format!("{path} cannot run as it is: {error}");
                    self.push(Diagnostic::error(code::COMMAND, message).hint(hint), node.at);
                }
            }
            Value::Array(words) => {
                if words.is_empty() || words.len() > command::WORDS_MAX {
                    let why = if words.is_empty() { "it is empty" } else { "it has too many words" };
                    let message = format!("{path} cannot run: {why}");
                    return self.push(Diagnostic::error(code::COMMAND, message), node.at);
                }
                for (index, word) in words.iter().enumerate() {
                    self.word(word, index, path, with_port);
                }
            }
            Value::Integer(_)
            | Value::Float { .. }
            | Value::Bool(_)
            | Value::Datetime(_)
            | Value::Table(_) => {}
        }
    }

    fn word(&mut self, word: &Node, index: usize, path: &str, with_port: bool) {
        match &word.value {
            Value::Text(text) if text.contains('\0') => {
                let message = format!("a word of {path} has a NUL character");
                self.push(Diagnostic::error(code::COMMAND, message), word.at);
            }
            Value::Text(text) if index == 0 && text.trim().is_empty() => {
                let message = format!("{path} cannot run: its first word is empty");
                self.push(Diagnostic::error(code::COMMAND, message), word.at);
            }
            Value::Text(_) => {}
            Value::Table(table) if table.keys().eq(["ref"]) => {
                let known = table.get("ref").and_then(|node| node.value.as_text()) == Some("port");
                if !with_port || index == 0 || !known {
                    let message = format!("a word of {path} refers to something that a command cannot have");
                    let hint = if with_port {
                        "{ ref = \"port\" } is the only reference in a command, after its first word; the others go into env"
                    } else {
                        "references go into env"
                    };
                    self.push(Diagnostic::error(code::UNKNOWN_REFERENCE, message).hint(hint), word.at);
                }
            }
            Value::Table(table) if table.keys().any(|key| key == "secret") => {
                let message = format!("a word of {path} is a secret, and everybody can read a command line");
                self.push(
                    Diagnostic::error(code::BAD_VALUE, message).hint("put the secret into env"),
                    word.at,
                );
            }
            Value::Integer(_)
            | Value::Float { .. }
            | Value::Bool(_)
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_) => {
                let message = format!("a word of {path} is {}, expected a string", word.value.kind());
                let hint = matches!(word.value, Value::Integer(_) | Value::Float { .. } | Value::Bool(_))
                    .then(|| "put it in quotes".to_owned());
                self.push(Diagnostic::error(code::WRONG_TYPE, message).hint_if(hint), word.at);
            }
        }
    }

    fn variable(&mut self, node: &Node, path: &str) {
        match &node.value {
            Value::Text(text) => {
                if text.contains('\0') {
                    let message = format!("{path} has a NUL character");
                    self.push(Diagnostic::error(code::BAD_VALUE, message), node.at);
                }
                if text.len() > VARIABLE_BYTES_MAX {
                    let message = format!("{path} is longer than a variable may be (128 KiB)");
                    self.push(Diagnostic::error(code::OUT_OF_RANGE, message), node.at);
                }
            }
            Value::Table(table) => self.reference(table, node, path),
            Value::Integer(_)
            | Value::Float { .. }
            | Value::Bool(_)
            | Value::Datetime(_)
            | Value::Array(_) => {}
        }
    }

    fn reference(&mut self, table: &Table, node: &Node, path: &str) {
        for (key, entry) in &table.entries {
            if !keys::REFERENCE_KEYS.contains(&key.as_str()) {
                let message = format!("unknown key {key:?} in {path}");
                let hint = did_you_mean(key, keys::REFERENCE_KEYS)
                    .unwrap_or_else(|| "a value is { ref = \"…\" } or { secret = \"…\" }".to_owned());
                self.push(Diagnostic::error(code::UNKNOWN_KEY, message).hint(hint), entry.key_at);
                return;
            }
            let Some(text) = entry.node.value.as_text() else {
                let message = format!("{path}.{key} is {}, expected a string", entry.node.value.kind());
                self.push(Diagnostic::error(code::WRONG_TYPE, message), entry.node.at);
                return;
            };
            if key == "secret"
                && let Err(why) = name::secret(text)
            {
                let message = format!("{} is not the name of a secret: {why}", shown_text(text));
                self.push(Diagnostic::error(code::BAD_NAME, message), entry.node.at);
            }
        }
        if table.entries.len() != 1 {
            let message = format!("{path} must have exactly one of ref and secret");
            self.push(Diagnostic::error(code::CONFLICT, message), node.at);
        }
    }
}

/// A key as it is written: in quotes when it is not a bare one, and never endless.
fn shown(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare && name.len() <= 64 { name.to_owned() } else { shown_text(name) }
}

fn shown_text(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    if text.chars().count() <= SHOWN_MAX {
        format!("{text:?}")
    } else {
        format!("{:?}…", text.chars().take(SHOWN_MAX).collect::<String>())
    }
}

fn unknown_key_hint(name: &str, spec: &TableSpec) -> String {
    let alias = keys::ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, hint)| (*hint).to_owned());
    let elsewhere = || {
        let table = keys::TABLES.iter().find(|table| table.key(name).is_some())?;
        Some(format!("{name} is a key of {}", keys::place(table)))
    };
    alias
        .or_else(|| did_you_mean(name, spec.names()))
        .or_else(elsewhere)
        .unwrap_or_else(|| format!("the keys here are {}", listed(spec.names())))
}

fn wrong_type_hint(value: &Value, kind: &Kind) -> Option<String> {
    let takes_text = kind.takes(&Value::Text(String::new()));
    match value {
        Value::Integer(number) if matches!(kind, Kind::Duration { .. }) => {
            Some(format!("with its unit and in quotes: \"{number}s\""))
        }
        Value::Integer(number) if matches!(kind, Kind::Size) => {
            Some(format!("with its unit and in quotes: \"{number}M\""))
        }
        Value::Integer(_) | Value::Float { .. } | Value::Bool(_) | Value::Datetime(_) if takes_text => {
            Some("put it in quotes".to_owned())
        }
        Value::Text(text) if text.parse::<i64>().is_ok() && kind.takes(&Value::Integer(0)) => {
            Some(format!("without quotes: {text}"))
        }
        Value::Text(text) if matches!(text.as_str(), "true" | "false") && kind.takes(&Value::Bool(true)) => {
            Some(format!("without quotes: {text}"))
        }
        Value::Text(text) if matches!(kind, Kind::List { .. }) => {
            Some(format!("in brackets: [{}]", shown_text(text)))
        }
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float { .. }
        | Value::Bool(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => None,
    }
}

/// A name that would do, when only its letters are wrong.
fn name_hint(text: &str, format: &Format) -> Option<String> {
    if !matches!(format.name, "NAME" | "SERVICE" | "ENVIRONMENT") || format.code != code::BAD_NAME {
        return None;
    }
    let better: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(fairway_engine::id::NAME_LEN_MAX)
        .collect();
    let better = better.trim_matches(|c: char| c == '-');
    ((format.check)(better).is_ok() && better != text).then(|| format!("{better:?} would do"))
}
