//! The JSON schema of fairway.toml, for editors, made of the table of keys.

use serde_json::{Map, Value, json};

use crate::keys;
use crate::spec::{Absent, Format, KeySpec, Kind, TableSpec};
use crate::tree;

/// JSON schema (2020-12) of the file. What overlays may leave out is not required here: `validate` checks each
/// environment after it has been merged.
#[must_use]
pub fn json_schema() -> Value {
    let definitions: Map<String, Value> =
        keys::TABLES.iter().map(|table| (table.name.to_owned(), table_schema(table))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fairway.toml",
        "description": format!("Version {} of the file.", keys::VERSION),
        "$ref": format!("#/$defs/{}", keys::ROOT.name),
        "$defs": definitions,
    })
}

fn table_schema(table: &TableSpec) -> Value {
    let properties: Map<String, Value> =
        table.keys.iter().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    // Tables merge, so that a part of one is enough in an overlay; the file itself and the items of lists never do.
    if [&keys::ROOT, &keys::STEP, &keys::MATCH].iter().any(|whole| whole.name == table.name) {
        let required: Vec<&str> =
            table.keys.iter().filter(|key| key.absent == Absent::Required).map(|key| key.name).collect();
        schema["required"] = json!(required);
    }
    schema
}

fn key_schema(key: &KeySpec) -> Value {
    let mut schema = kind_schema(&key.kind);
    let mut description = key.doc.to_owned();
    match key.absent {
        Absent::Required => description.push_str(" Required."),
        Absent::Default(text) => {
            schema["default"] = json_of(text);
        }
        Absent::Words(words) => {
            description.push_str(" Default: ");
            description.push_str(words);
            description.push('.');
        }
    }
    schema["description"] = Value::String(description);
    schema
}

fn json_of(default: &str) -> Value {
    match crate::reader::default_value(default) {
        tree::Value::Integer(number) => json!(number),
        tree::Value::Float { number, .. } => json!(number),
        tree::Value::Bool(bool) => json!(bool),
        tree::Value::Text(_) | tree::Value::Datetime(_) | tree::Value::Array(_) | tree::Value::Table(_) => {
            json!(default)
        }
    }
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Text(format) => text_schema(format),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::True => json!({ "const": true }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Number { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Duration { .. } => json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w))+$" }),
        Kind::Size => json!({ "type": "string", "pattern": "^[0-9]+[A-Za-z]{1,3}$" }),
        Kind::Choice(choices) => json!({ "enum": choices }),
        Kind::Command => command_schema(json!({ "type": "string" })),
        Kind::CommandWithPort => command_schema(
            json!({ "anyOf": [{ "type": "string" }, object_of("ref", json!({ "const": "port" }))] }),
        ),
        Kind::Variable => json!({ "anyOf": [
            { "type": ["string", "number", "boolean"] },
            object_of(keys::REFERENCE_KEYS[0], json!({ "type": "string" })),
            object_of(keys::REFERENCE_KEYS[1], json!({ "type": "string" })),
        ] }),
        Kind::List { of, max } => json!({ "type": "array", "items": kind_schema(of), "maxItems": max }),
        Kind::Table(table) => json!({ "$ref": format!("#/$defs/{}", table.name) }),
        Kind::Map { key, of, max } => json!({
            "type": "object",
            "propertyNames": text_schema(key),
            "additionalProperties": kind_schema(of),
            "maxProperties": max,
        }),
        Kind::OneOf(kinds) => json!({ "anyOf": kinds.iter().map(kind_schema).collect::<Vec<_>>() }),
    }
}

fn text_schema(format: &Format) -> Value {
    match format.pattern {
        Some(pattern) => json!({ "type": "string", "pattern": pattern }),
        None => json!({ "type": "string" }),
    }
}

fn command_schema(word: Value) -> Value {
    json!({ "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "items": word, "minItems": 1 }] })
}

fn object_of(key: &str, value: Value) -> Value {
    json!({
        "type": "object",
        "properties": { key: value },
        "required": [key],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests;
