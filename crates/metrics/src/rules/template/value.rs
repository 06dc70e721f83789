//! What a template computes with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::number;
use crate::labels::Labels;

#[derive(Clone, Debug)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Labels(Labels),
    /// One element of a query's answer.
    Sample(Labels, f64),
    List(Arc<[Value]>),
    /// `args`, `externalLabels`.
    Map(Arc<BTreeMap<String, Value>>),
    /// `.`: labels, external labels, external address, value.
    Root(Arc<[Value; 4]>),
}

impl Value {
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// The name of the type as Go prints it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Labels(_) => "map[string]string",
            Self::Sample(..) => "*template.sample",
            Self::List(_) => "template.queryResult",
            Self::Map(_) => "map[string]interface {}",
            Self::Root(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; \
                              ExternalURL string; Value interface {} }"
            }
        }
    }

    /// What `if` goes by.
    pub fn holds(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(truth) => *truth,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Labels(labels) => !labels.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Sample(..) | Self::Root(_) => true,
        }
    }

    pub fn field(&self, name: &str) -> Result<Self, String> {
        let found = match self {
            Self::Labels(labels) => Some(Self::text(labels.get(name).unwrap_or_default())),
            // A missing key of a map of texts is the empty text.
            Self::Map(map) => Some(map.get(name).cloned().unwrap_or(Self::text(""))),
            Self::Sample(labels, value) => match name {
                "Labels" => Some(Self::Labels(labels.clone())),
                "Value" => Some(Self::Float(*value)),
                _ => None,
            },
            Self::Root(parts) => ["Labels", "ExternalLabels", "ExternalURL", "Value"]
                .iter()
                .position(|known| *known == name)
                .map(|index| parts[index].clone()),
            Self::Nil => return Err(format!("nil data; no entry for key {name:?}")),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::List(_) => None,
        };
        found.ok_or_else(|| format!("can't evaluate field {name} in type {}", self.kind()))
    }

    /// As `%v` prints it.
    pub fn show(&self) -> String {
        match self {
            Self::Nil => "<nil>".to_owned(),
            Self::Bool(truth) => truth.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number::shortest(*number),
            Self::Text(text) => text.to_string(),
            Self::Labels(labels) => entries(labels.iter().map(|(name, value)| (name, value.to_owned()))),
            Self::Sample(labels, value) => format!("{labels} => {}", number::shortest(*value)),
            Self::List(list) => {
                let shown: Vec<String> = list.iter().map(Self::show).collect();
                format!("[{}]", shown.join(" "))
            }
            Self::Map(map) => entries(map.iter().map(|(name, value)| (name.as_str(), value.show()))),
            Self::Root(parts) => {
                let shown: Vec<String> = parts.iter().map(Self::show).collect();
                format!("{{{}}}", shown.join(" "))
            }
        }
    }

    /// Numbers, and texts that are numbers, as Prometheus' functions take them.
    pub fn number(&self) -> Result<f64, String> {
        match self {
            Self::Int(number) => Ok(*number as f64),
            Self::Float(number) => Ok(*number),
            Self::Text(text) => match text.trim_start_matches('+').parse() {
                Ok(number) => Ok(number),
                Err(_) => Err(format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
            },
            Self::Nil
            | Self::Bool(_)
            | Self::Labels(_)
            | Self::Sample(..)
            | Self::List(_)
            | Self::Map(_)
            | Self::Root(_) => Err(format!("can't convert {} to float", self.kind())),
        }
    }
}

fn entries<'a>(entries: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut text = String::from("map[");
    for (index, (name, value)) in entries.enumerate() {
        let _ = write!(text, "{}{name}:{value}", if index > 0 { " " } else { "" });
    }
    text.push(']');
    text
}
