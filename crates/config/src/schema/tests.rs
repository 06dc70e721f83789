use super::*;
use crate::diagnostic::Findings;
use crate::span::Source;
use crate::tree;

const SHOP: &str = include_str!("../../tests/fixtures/shop/fairway.toml");
const WATCHED: &str = include_str!("../../tests/fixtures/watched.toml");
const EVERYTHING: &str = include_str!("../../tests/fixtures/everything.toml");

fn json_of_tree(value: &tree::Value) -> Value {
    match value {
        tree::Value::Text(text) | tree::Value::Datetime(text) => json!(text),
        tree::Value::Integer(number) => json!(number),
        tree::Value::Float { number, .. } => json!(number),
        tree::Value::Bool(bool) => json!(bool),
        tree::Value::Array(items) => items.iter().map(|item| json_of_tree(&item.value)).collect(),
        tree::Value::Table(table) => Value::Object(object(table)),
    }
}

fn object(table: &tree::Table) -> Map<String, Value> {
    table.entries.iter().map(|(key, entry)| (key.clone(), json_of_tree(&entry.node.value))).collect()
}

fn document(text: &str) -> Value {
    let table = tree::parse(&Source::new("f", text), &mut Findings::default()).unwrap();
    Value::Object(object(&table))
}

/// As much of JSON schema as ours uses; a word that it does not know fails the test.
fn errors(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    // First, because the other words take the type for granted here.
    if let Some(rule) = schema.get("type") {
        let is = |name: &Value| match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64(),
            "number" => value.is_number(),
            other => panic!("{other}"),
        };
        if !rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is)) {
            return vec![format!("{path}: type")];
        }
    }
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            // Regular expressions are left to the editors; each is held to be no stricter than the reader elsewhere.
            "$schema" | "title" | "description" | "default" | "$defs" | "pattern" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                found.extend(errors(root, &root["$defs"][name], value, path));
                continue;
            }
            "type" => {}
            "const" => {
                if rule != value {
                    found.push(format!("{path}: const"));
                }
            }
            "enum" => {
                if !rule.as_array().unwrap().contains(value) {
                    found.push(format!("{path}: enum"));
                }
            }
            "minimum" => {
                if value.as_f64() < rule.as_f64() {
                    found.push(format!("{path}: minimum"));
                }
            }
            "maximum" => {
                if value.as_f64() > rule.as_f64() {
                    found.push(format!("{path}: maximum"));
                }
            }
            "minLength" => {
                if value.as_str().unwrap().is_empty() {
                    found.push(format!("{path}: minLength"));
                }
            }
            "minItems" => {
                if value.as_array().unwrap().is_empty() {
                    found.push(format!("{path}: minItems"));
                }
            }
            "maxItems" => assert!(value.as_array().unwrap().len() <= 10_000),
            "maxProperties" => assert!(value.as_object().unwrap().len() <= 10_000),
            "items" => {
                for item in value.as_array().unwrap() {
                    found.extend(errors(root, rule, item, path));
                }
                continue;
            }
            "anyOf" => {
                if !rule.as_array().unwrap().iter().any(|rule| errors(root, rule, value, path).is_empty()) {
                    found.push(format!("{path}: anyOf"));
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.get(key.as_str().unwrap()).is_none() {
                        found.push(format!("{path}: required"));
                    }
                }
            }
            "properties" => {
                for (key, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        found.extend(errors(root, rule, value, &format!("{path}.{key}")));
                    }
                }
                continue;
            }
            "propertyNames" => {}
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (key, value) in value.as_object().unwrap() {
                    if known.is_some_and(|known| known.contains_key(key)) {
                        continue;
                    }
                    if *rule == Value::Bool(false) {
                        found.push(format!("{path}.{key}: unknown"));
                    } else {
                        found.extend(errors(root, rule, value, &format!("{path}.{key}")));
                    }
                }
                continue;
            }
            other => panic!("the schema says {other:?}, and this test does not know it"),
        }
    }
    found
}

fn check(text: &str) -> Vec<String> {
    let schema = json_schema();
    errors(&schema, &schema, &document(text), "")
}

#[test]
fn sound_files_are_sound_by_the_schema() {
    assert_eq!(check(SHOP), Vec::<String>::new());
    assert_eq!(check(EVERYTHING), Vec::<String>::new());
    assert_eq!(check(WATCHED), Vec::<String>::new());
}

#[test]
fn what_the_reader_refuses_by_type_the_schema_refuses() {
    let head = "version = 1\nproject = \"p\"\n";
    for bad in [
        "service.a.comand = \"x\"",
        "service.a.command = 3",
        "service.a.command = []",
        "service.a.command = [\"a\", { ref = \"api.url\" }]",
        "service.a.port = 70000",
        "service.a.ready.notify = false",
        "service.a.stop.signal = \"KILL\"",
        "deploy.strategy = \"yolo\"",
        "deploy.steps = [{ hold = \"5m\" }]",
        "vars.A = [1]",
        "vars.A = { ref = \"a\", secret = \"b\" }",
        "env.dev.project = \"x\"",
        "service.a.autoscale.max = 101",
        "service.a.autoscale.behavior.scaleUp.selectPolicy = \"max\"",
        "deploy.steps = [{ weight = 5, mirror = 101 }]",
        "deploy.triggers.p95 = \"3s\"",
        "deploy.gates = [{ max = [] }]",
        "metrics.rules = \"a.yml\"",
        "alerts.channels.a.slack = \"https://hooks.slack.com/services/x\"",
        "alerts.channels.a.email.tls = \"ssl\"",
        "alerts.routes = [{ chanels = [] }]",
        "probe.a.status = 99",
        "slo.a.availability = 99.9",
        "limits = 1",
    ] {
        assert!(!check(&format!("{head}{bad}\n")).is_empty(), "{bad} is sound by the schema");
    }
    assert!(!check("project = \"p\"").is_empty());
}

#[test]
fn the_schema_has_every_key_and_no_other() {
    let schema = json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    assert_eq!(definitions.len(), keys::TABLES.len());
    for table in keys::TABLES {
        let mut known: Vec<&str> = table.names().collect();
        known.sort_unstable();
        let described: Vec<&str> =
            definitions[table.name]["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(known, described, "{}", table.name);
        for (key, schema) in definitions[table.name]["properties"].as_object().unwrap() {
            assert!(!schema["description"].as_str().unwrap().is_empty(), "{key}");
        }
    }
}
