//! Variables of services and jobs: plain values, secrets, and typed references.

use std::collections::BTreeMap;

use fairway_engine::id::ServiceName;
use fairway_engine::service::{EnvValue, Reference};

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::reader::{Context, Reader};
use crate::span::{ByteRange, Span};
use crate::suggest::{listed, nearest};
use crate::tree::{Node, Value};

/// The value of a variable before the versions of secrets are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub value: VariableValue,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariableValue {
    Literal(String),
    Secret { name: String },
    Ref(Reference),
}

impl Variable {
    /// The value as a release holds it.
    ///
    /// # Errors
    /// When the secret has no value.
    pub(crate) fn resolve(
        &self,
        environment: &str,
        secrets: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<EnvValue, Box<Diagnostic>> {
        match &self.value {
            VariableValue::Literal(text) => Ok(EnvValue::Literal(text.clone())),
            VariableValue::Ref(reference) => Ok(EnvValue::Ref(reference.clone())),
            VariableValue::Secret { name } => match secrets(name) {
                Some(version) => Ok(EnvValue::Secret { name: name.clone(), version }),
                None => {
                    let message = format!("the secret {name:?} has no value in {environment}");
                    Err(Box::new(
                        Diagnostic::error(code::MISSING_SECRET, message)
                            .at(self.at.clone())
                            .hint(format!("fairway secret set {name} -e {environment}")),
                    ))
                }
            },
        }
    }
}

/// What other parts of the file may say about a service, known before any of them is read.
#[derive(Clone, Debug)]
pub(crate) struct Roster(pub(crate) BTreeMap<String, Shape>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) backing: bool,
    pub(crate) listens: bool,
}

impl Roster {
    /// From the entries of `service`, whatever their state.
    pub(crate) fn of(root: &Reader<'_>) -> Self {
        let shape = |node: &Node| {
            let layer = |key| Some(node.value.as_table()?.get(key)?.layer);
            // As `Reader::one_of` chooses: an overlay's choice counts.
            let backing = layer("uses").is_some() && layer("uses") >= layer("command").max(layer("static"));
            let listens = ["uses", "port", "static"].iter().any(|key| layer(key).is_some());
            Shape { backing, listens }
        };
        Self(root.entries("service").map(|(name, entry)| (name.to_owned(), shape(&entry.node))).collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The name of a service of the project; tells when there is none.
    pub(crate) fn service(&self, cx: &Context<'_>, name: &str, at: ByteRange) -> Option<ServiceName> {
        if self.0.contains_key(name) {
            return ServiceName::new(name).ok();
        }
        let hint = match nearest(name, self.names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the services are {}", listed(self.names())),
        };
        cx.push_at(
            Diagnostic::error(code::UNKNOWN_SERVICE, format!("there is no service {name:?}")).hint(hint),
            at,
        );
        None
    }
}

/// The variables under `key`, laid over `base`.
pub(crate) fn read(
    reader: &Reader<'_>,
    key: &str,
    base: &BTreeMap<String, Variable>,
    roster: &Roster,
) -> BTreeMap<String, Variable> {
    let mut variables = base.clone();
    let path = reader.path_of(key);
    for (name, entry) in reader.entries(key) {
        let cx = reader.cx;
        let key = format!("{path}.{}", crate::reader::toml_key(name));
        let plain_secret =
            entry.node.value.as_text().is_some_and(|text| crate::value::name::looks_secret(name, text));
        if plain_secret {
            cx.record_as(key, "(hidden: it looks like a secret)".to_owned(), &entry.node);
        } else {
            cx.record(key, &entry.node);
        }
        // What a developer's machine uses protects nothing.
        if plain_secret && !cx.is_dev() {
            let message = format!("{name} looks like a secret, and everybody who has the file can read it");
            let secret = name.to_ascii_lowercase();
            let hint = format!(
                "{name} = {{ secret = \"{secret}\" }}, and fairway secret set {secret} -e {}",
                cx.environment
            );
            cx.push_at(Diagnostic::warning(code::PLAIN_SECRET, message).hint(hint), entry.node.at);
        }
        if let Some(value) = value(cx, &entry.node, roster) {
            variables.insert(name.to_owned(), Variable { value, at: cx.source.span(entry.node.at) });
        }
    }
    variables
}

fn value(cx: &Context<'_>, node: &Node, roster: &Roster) -> Option<VariableValue> {
    Some(match &node.value {
        Value::Text(text) => VariableValue::Literal(text.clone()),
        Value::Integer(number) => VariableValue::Literal(number.to_string()),
        Value::Float { text, .. } => VariableValue::Literal(text.clone()),
        Value::Bool(bool) => VariableValue::Literal(bool.to_string()),
        Value::Datetime(_) | Value::Array(_) => return None,
        // More than one key was refused by the first pass.
        Value::Table(table) if table.entries.len() != 1 => return None,
        Value::Table(table) => {
            if let Some(secret) = table.get("secret") {
                VariableValue::Secret { name: secret.value.as_text()?.to_owned() }
            } else {
                let node = table.get("ref")?;
                VariableValue::Ref(reference(cx, node.value.as_text()?, node.at, roster)?)
            }
        }
    })
}

fn reference(cx: &Context<'_>, text: &str, at: ByteRange, roster: &Roster) -> Option<Reference> {
    match text {
        "data.dir" => return Some(Reference::DataDir),
        "public.url" => return Some(Reference::PublicUrl),
        "release" => return Some(Reference::Release),
        _ => {}
    }
    let unknown = |message: String, hint: String| {
        cx.push_at(Diagnostic::error(code::UNKNOWN_REFERENCE, message).hint(hint), at);
        None
    };
    if text == "port" {
        return unknown(
            "a variable cannot refer to the port".to_owned(),
            "the port is in PORT; port = { number = …, env = \"NAME\" } changes the variable".to_owned(),
        );
    }
    if let Some((name, "url")) = text.split_once('.')
        && let Some(shape) = roster.0.get(name)
    {
        let service = ServiceName::new(name).ok()?;
        return match shape {
            Shape { backing: true, .. } => Some(Reference::BackingUrl { service }),
            Shape { listens: true, .. } => Some(Reference::ServiceUrl { service }),
            Shape { .. } => unknown(
                format!("{name} has no URL: it listens on no port"),
                format!("give [service.{name}] a port"),
            ),
        };
    }
    let known: Vec<String> = roster
        .0
        .iter()
        .filter(|(_, shape)| shape.listens)
        .map(|(name, _)| format!("{name}.url"))
        .chain(["data.dir", "public.url", "release"].map(str::to_owned))
        .collect();
    let known = known.iter().map(String::as_str);
    let hint = match nearest(text, known.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("references are {}", listed(known)),
    };
    let shown: String = text.chars().take(60).collect();
    unknown(format!("there is nothing to refer to as {shown:?}"), hint)
}
