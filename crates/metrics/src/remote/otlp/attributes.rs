//! Attributes as labels.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{OtlpRefused, names};
use crate::exposition::number;
use crate::labels::{Labels, NAME};
use crate::remote::receive::ReceiveLimits;
use crate::remote::wire::{Malformed, Value, fields};

/// Lists in lists: deeper ones are written as nothing.
const NESTING_MAX: usize = 16;

/// By key, before keys are made names.
#[derive(Debug, Default)]
pub(super) struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// One more `KeyValue`.
    pub(super) fn read(&mut self, message: Value<'_>, limits: &ReceiveLimits) -> Result<(), OtlpRefused> {
        if self.0.len() >= limits.labels_max {
            return Err(OtlpRefused::TooLarge { what: "attributes on a series", limit: limits.labels_max });
        }
        let (mut key, mut value) = ("", String::new());
        for field in fields(message.bytes()?) {
            match field? {
                (1, text) => key = text.text()?,
                (2, any) => value = text_of(any)?,
                _ => {}
            }
        }
        if key.len() > limits.name_bytes_max || value.len() > limits.value_bytes_max {
            return Err(OtlpRefused::TooLarge {
                what: "bytes in an attribute",
                limit: limits.value_bytes_max,
            });
        }
        self.0.insert(key.to_owned(), value);
        Ok(())
    }

    /// By label name. Where two keys come to one name, their values are joined with `;`, in the order of the keys.
    fn named(&self) -> BTreeMap<String, String> {
        let mut named: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in &self.0 {
            let name = names::label(key);
            if name.is_empty() {
                continue;
            }
            let joined = named.get(&name).map(|before| format!("{before};{value}"));
            named.insert(name, joined.unwrap_or_else(|| value.clone()));
        }
        named
    }
}

/// Who reports: what of it goes on every series, and what is told once.
#[derive(Debug)]
pub(super) struct Resource {
    /// `job` and `instance`, as far as known.
    identity: Vec<(&'static str, String)>,
    others: BTreeMap<String, String>,
}

impl Resource {
    pub(super) fn of(mut attributes: Attributes) -> Self {
        let mut take = |key: &str| attributes.0.remove(key);
        let (namespace, name) = (take("service.namespace"), take("service.name"));
        let instance = take("service.instance.id").map(|instance| ("instance", instance));
        let job = name.map(|name| {
            ("job", namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}")))
        });
        Self { identity: job.into_iter().chain(instance).collect(), others: attributes.named() }
    }

    /// A point's labels without the metric's name.
    pub(super) fn labelled(&self, attributes: &Attributes) -> BTreeMap<String, String> {
        let mut named = attributes.named();
        named.extend(self.identity.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        named
    }

    /// The series that tells what no other series does: `None` when there is nothing, or no one to tell it of.
    pub(super) fn target_info(&self) -> Option<Labels> {
        if self.others.is_empty() || self.identity.is_empty() {
            return None;
        }
        let mut named = self.others.clone();
        named.extend(self.identity.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        named.insert(NAME.to_owned(), "target_info".to_owned());
        Some(Labels::new(named))
    }
}

/// An `AnyValue` as a label's value.
fn text_of(any: Value<'_>) -> Result<String, Malformed> {
    let mut text = String::new();
    for field in fields(any.bytes()?) {
        text = match field? {
            (1, value) => value.text()?.to_owned(),
            (2, value) => (value.varint()? != 0).to_string(),
            (3, value) => value.int()?.to_string(),
            (4, value) => number::json(value.double()?),
            (5 | 6, _) => json_of(any, 0)?.to_string(),
            (7, value) => base64(value.bytes()?),
            _ => continue,
        };
    }
    Ok(text)
}

fn json_of(any: Value<'_>, depth: usize) -> Result<Json, Malformed> {
    let mut json = Json::Null;
    if depth > NESTING_MAX {
        return Ok(json);
    }
    for field in fields(any.bytes()?) {
        json = match field? {
            (1, value) => value.text()?.into(),
            (2, value) => (value.varint()? != 0).into(),
            (3, value) => value.int()?.into(),
            (4, value) => value.double()?.into(),
            (5, list) => {
                let items = fields(list.bytes()?).map(|field| json_of(field?.1, depth + 1));
                Json::Array(items.collect::<Result<_, _>>()?)
            }
            (6, map) => {
                let mut object = serde_json::Map::new();
                for field in fields(map.bytes()?) {
                    let (mut key, mut item) = ("", Json::Null);
                    for field in fields(field?.1.bytes()?) {
                        match field? {
                            (1, text) => key = text.text()?,
                            (2, any) => item = json_of(any, depth + 1)?,
                            _ => {}
                        }
                    }
                    object.insert(key.to_owned(), item);
                }
                Json::Object(object)
            }
            (7, value) => base64(value.bytes()?).into(),
            _ => continue,
        };
    }
    Ok(json)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        for place in 0..4 {
            let at = group >> (18 - 6 * place) & 63;
            text.push(if place > chunk.len() { '=' } else { char::from(ALPHABET[at as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_base64() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff\xff", "//8=")]
        {
            assert_eq!(base64(bytes), text);
        }
    }
}
