//! What the values of the file are read as.

use std::time::Duration;

use crate::tree::Value;
use crate::value::{command, duration, size};

/// What a value is read as. None when it is refused by the first pass: it has been told there.
pub(crate) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_text().map(str::to_owned)
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Bool(bool) = value { Some(*bool) } else { None }
    }
}

impl FromValue for u64 {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Integer(number) = value { u64::try_from(*number).ok() } else { None }
    }
}

impl FromValue for u32 {
    fn from_value(value: &Value) -> Option<Self> {
        u64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for u16 {
    fn from_value(value: &Value) -> Option<Self> {
        u64::from_value(value)?.try_into().ok().filter(|port| *port > 0)
    }
}

impl FromValue for f64 {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(number) => Some(*number as f64),
            Value::Float { number, .. } => number.is_finite().then_some(*number),
            Value::Text(_) | Value::Bool(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
        }
    }
}

impl FromValue for Duration {
    fn from_value(value: &Value) -> Option<Self> {
        duration::parse(value.as_text()?).ok()
    }
}

/// Texts, of which a single one needs no brackets.
pub(crate) struct Texts(pub(crate) Vec<String>);

impl FromValue for Texts {
    fn from_value(value: &Value) -> Option<Self> {
        list(value).map(Self)
    }
}

/// Status codes, of which a single one needs no brackets.
pub(crate) struct Statuses(pub(crate) Vec<u16>);

impl FromValue for Statuses {
    fn from_value(value: &Value) -> Option<Self> {
        list(value).map(Self)
    }
}

fn list<T: FromValue>(value: &Value) -> Option<Vec<T>> {
    match value.as_array() {
        Some(items) => items.iter().map(|item| T::from_value(&item.value)).collect(),
        None => Some(vec![T::from_value(value)?]),
    }
}

/// A number, or a time where it is written as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Amount {
    Number(f64),
    Time(Duration),
}

impl Amount {
    /// A plain number is one of seconds.
    pub(crate) fn seconds(self) -> f64 {
        match self {
            Amount::Number(number) => number,
            Amount::Time(time) => time.as_secs_f64(),
        }
    }
}

impl FromValue for Amount {
    fn from_value(value: &Value) -> Option<Self> {
        Duration::from_value(value).map(Amount::Time).or_else(|| f64::from_value(value).map(Amount::Number))
    }
}

/// A size in bytes.
pub(crate) struct Bytes(pub(crate) u64);

impl FromValue for Bytes {
    fn from_value(value: &Value) -> Option<Self> {
        size::parse(value.as_text()?).ok().map(Self)
    }
}

/// The words of a command.
pub(crate) struct Words(pub(crate) Vec<String>);

impl FromValue for Words {
    fn from_value(value: &Value) -> Option<Self> {
        let words = match value {
            Value::Text(text) => command::split(text).ok()?,
            Value::Array(words) => {
                words.iter().map(|word| word.value.as_text().map(str::to_owned)).collect::<Option<_>>()?
            }
            Value::Integer(_)
            | Value::Float { .. }
            | Value::Bool(_)
            | Value::Datetime(_)
            | Value::Table(_) => {
                return None;
            }
        };
        if words.is_empty() { None } else { Some(Self(words)) }
    }
}
