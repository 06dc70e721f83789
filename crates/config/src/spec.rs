//! The shape of the file as data: one table of keys that the parser, the JSON schema and the reference all read,
//! so that none of them can know a key that the others do not.

use std::time::Duration;

/// A table of the file.
#[derive(Debug)]
pub(crate) struct TableSpec {
    /// Unique; the name of the definition in the JSON schema.
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [KeySpec],
}

#[derive(Debug)]
pub(crate) struct KeySpec {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) absent: Absent,
    pub(crate) doc: &'static str,
    /// A TOML value.
    pub(crate) example: &'static str,
}

/// What holds when the key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    Required,
    /// A default in the notation of the file; the reader takes it from here.
    Default(&'static str),
    /// Depends on something else, or means that the thing is not there at all.
    Words(&'static str),
}

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    Text(&'static Format),
    Bool,
    /// Only `true`: the key is a mark, and its absence says no.
    True,
    Integer {
        min: i64,
        max: i64,
    },
    /// Integer or float.
    Number {
        min: f64,
        max: f64,
    },
    Duration {
        min: Duration,
    },
    Size,
    Choice(&'static [&'static str]),
    /// A string that is split into words, or an array of words.
    Command,
    /// A command whose words may be `{ ref = "port" }`.
    CommandWithPort,
    /// The value of a variable: string, number, boolean, reference or secret.
    Variable,
    List {
        of: &'static Kind,
        max: usize,
    },
    Table(&'static TableSpec),
    /// A table whose keys are names chosen by the user.
    Map {
        key: &'static Format,
        of: &'static Kind,
        max: usize,
    },
    /// One of several, told apart by their TOML type.
    OneOf(&'static [Kind]),
}

/// What a string must look like.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) code: &'static str,
    pub(crate) check: fn(&str) -> Result<(), String>,
    /// For the JSON schema; never stricter than `check`.
    pub(crate) pattern: Option<&'static str>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub(crate) const fn key(
    name: &'static str,
    kind: Kind,
    absent: Absent,
    example: &'static str,
    doc: &'static str,
) -> KeySpec {
    KeySpec { name, kind, absent, doc, example }
}

impl TableSpec {
    pub(crate) fn key(&self, name: &str) -> Option<&KeySpec> {
        self.keys.iter().find(|key| key.name == name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

impl Kind {
    /// What is expected, for people: "a string or an array".
    pub(crate) fn expected(&self) -> String {
        match self {
            Kind::Text(format) => format.expected.to_owned(),
            Kind::Bool => "true or false".to_owned(),
            Kind::True => "true".to_owned(),
            Kind::Integer { min, max } if *max >= i64::from(u32::MAX) => format!("an integer from {min}"),
            Kind::Integer { min, max } => format!("an integer from {min} to {max}"),
            Kind::Number { min, max } => format!("a number from {min} to {max}"),
            Kind::Duration { .. } => crate::value::duration::EXPECTED.to_owned(),
            Kind::Size => crate::value::size::EXPECTED.to_owned(),
            Kind::Choice(choices) => {
                let all: Vec<String> = choices.iter().map(|choice| format!("{choice:?}")).collect();
                all.join(" or ")
            }
            Kind::Command => "a command: a string or an array of words".to_owned(),
            Kind::CommandWithPort => {
                "a command: a string or an array of words, of which some may be { ref = \"port\" }".to_owned()
            }
            Kind::Variable => {
                "a string, a number, a boolean, { ref = \"…\" } or { secret = \"…\" }".to_owned()
            }
            Kind::List { of, .. } => format!("an array, each item {}", of.expected()),
            Kind::Table(table) => {
                let keys: Vec<&str> = table.names().collect();
                format!("a table with {}", keys.join(", "))
            }
            Kind::Map { key, of, .. } => format!("a table of {} = {}", key.name, of.expected()),
            Kind::OneOf(kinds) => {
                let all: Vec<String> = kinds.iter().map(Kind::expected).collect();
                all.join(", or ")
            }
        }
    }
}
