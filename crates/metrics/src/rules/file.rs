//! Rule files as Prometheus reads them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::emit::Yaml;
use super::span;
use super::template::Template;
use super::yaml::{self, Entry, Node, Place, Value};
use crate::labels::NAME;
use crate::promql::{self, Query};

#[derive(Clone, Debug)]
pub struct RuleFile {
    pub name: String,
    /// As it was read, comments and all.
    pub text: String,
    pub groups: Vec<GroupSpec>,
}

#[derive(Clone, Debug)]
pub struct GroupSpec {
    pub name: String,
    /// None: the server's.
    pub interval: Option<Duration>,
    /// How far in the past queries look.
    pub query_offset: Option<Duration>,
    /// Most series or alerts that one rule may give; 0 for no limit.
    pub limit: usize,
    /// Of every rule that does not set them itself.
    pub labels: BTreeMap<String, String>,
    pub rules: Vec<RuleSpec>,
}

#[derive(Clone, Debug)]
pub struct RuleSpec {
    pub query: Query,
    /// Of the rule alone, without those of its group.
    pub labels: BTreeMap<String, Template>,
    pub kind: RuleKind,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub enum RuleKind {
    Record { series: String },
    Alert { name: String, hold: Duration, keep_firing: Duration, annotations: BTreeMap<String, Template> },
}

impl RuleSpec {
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Record { series } => series,
            RuleKind::Alert { name, .. } => name,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub message: String,
}

/// Everything that is wrong with a file, in Prometheus' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    pub file: String,
    pub problems: Vec<Problem>,
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}: {}", self.file, problem.place, problem.message)?;
        }
        Ok(())
    }
}

impl RuleFile {
    /// `name` is what people know the file by.
    ///
    /// # Errors
    /// All that is wrong with it; a file with one bad rule gives no rule.
    pub fn parse(name: &str, text: &str) -> Result<Self, LoadError> {
        let mut reader = Reader { problems: Vec::new() };
        let groups = match yaml::read(text) {
            Ok(document) => reader.file(&document),
            Err((place, message)) => {
                reader.problems.push(Problem { place, message });
                Vec::new()
            }
        };
        if reader.problems.is_empty() {
            return Ok(Self { name: name.to_owned(), text: text.to_owned(), groups });
        }
        Err(LoadError { file: name.to_owned(), problems: reader.problems })
    }

    /// Without the alerts of these names. The text loses its comments when one goes.
    #[must_use]
    pub fn without(mut self, names: &[String]) -> Self {
        let goes = |rule: &RuleSpec| matches!(&rule.kind, RuleKind::Alert { name, .. } if names.iter().any(|unwanted| unwanted == name));
        if self.groups.iter().any(|group| group.rules.iter().any(goes)) {
            for group in &mut self.groups {
                group.rules.retain(|rule| !goes(rule));
            }
            self.groups.retain(|group| !group.rules.is_empty());
            self.text = write(&self.groups);
        }
        self
    }
}

/// As a rule file.
#[must_use]
pub fn write(groups: &[GroupSpec]) -> String {
    let groups = groups.iter().map(|group| {
        let mut entries = vec![("name", Yaml::text(&group.name))];
        entries.extend(group.interval.map(|length| ("interval", Yaml::text(span::show(length)))));
        entries.extend(group.query_offset.map(|length| ("query_offset", Yaml::text(span::show(length)))));
        if group.limit > 0 {
            entries.push(("limit", Yaml::plain(group.limit)));
        }
        if !group.labels.is_empty() {
            let labels = group.labels.iter().map(|(name, value)| (name.clone(), Yaml::text(value)));
            entries.push(("labels", Yaml::map(labels)));
        }
        entries.push(("rules", Yaml::List(group.rules.iter().map(write_rule).collect())));
        Yaml::map(entries)
    });
    Yaml::map([("groups", Yaml::List(groups.collect()))]).document()
}

fn write_rule(rule: &RuleSpec) -> Yaml {
    let templates = |templates: &BTreeMap<String, Template>| {
        Yaml::map(templates.iter().map(|(name, template)| (name.clone(), Yaml::text(template.text()))))
    };
    let query = Yaml::text(rule.query.text());
    let mut entries = Vec::new();
    match &rule.kind {
        RuleKind::Record { series } => entries.extend([("record", Yaml::text(series)), ("expr", query)]),
        RuleKind::Alert { name, hold, keep_firing, .. } => {
            entries.extend([("alert", Yaml::text(name)), ("expr", query)]);
            for (key, length) in [("for", hold), ("keep_firing_for", keep_firing)] {
                if !length.is_zero() {
                    entries.push((key, Yaml::text(span::show(*length))));
                }
            }
        }
    }
    if !rule.labels.is_empty() {
        entries.push(("labels", templates(&rule.labels)));
    }
    if let RuleKind::Alert { annotations, .. } = &rule.kind
        && !annotations.is_empty()
    {
        entries.push(("annotations", templates(annotations)));
    }
    Yaml::map(entries)
}

/// Go's names of the types, as they stand in Prometheus' messages.
const FILE: &str = "rulefmt.RuleGroups";
const GROUP: &str = "rulefmt.RuleGroup";
const RULE: &str = "rulefmt.Rule";

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn fails(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into() });
    }

    fn wrong_kind(&mut self, node: &Node, wanted: &str) {
        self.fails(node.place, format!("cannot unmarshal {} into {wanted}", node.kind()));
    }

    fn unknown(&mut self, entry: &Entry, within: &str) {
        self.fails(entry.place, format!("field {} not found in type {within}", entry.key));
    }

    fn file(&mut self, document: &Node) -> Vec<GroupSpec> {
        let mut groups = Vec::new();
        let entries = match &document.value {
            Value::Null => return groups,
            Value::Map(entries) => entries,
            Value::Text(_) | Value::List(_) => {
                self.wrong_kind(document, FILE);
                return groups;
            }
        };
        let mut names = HashSet::new();
        for entry in entries {
            match &*entry.key {
                "groups" => {
                    for node in self.list(&entry.value, "[]rulefmt.RuleGroup") {
                        let Some(group) = self.group(node) else { continue };
                        if !names.insert(group.name.clone()) {
                            let name = &group.name;
                            self.fails(
                                node.place,
                                format!("groupname: {name:?} is repeated in the same file"),
                            );
                        }
                        groups.push(group);
                    }
                }
                _ => self.unknown(entry, FILE),
            }
        }
        groups
    }

    fn list<'a>(&mut self, node: &'a Node, wanted: &str) -> &'a [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            Value::Text(_) | Value::Map(_) => {
                self.wrong_kind(node, wanted);
                &[]
            }
        }
    }

    fn text(&mut self, node: &Node) -> String {
        match &node.value {
            Value::Text(text) => text.clone(),
            Value::Null => String::new(),
            Value::List(_) | Value::Map(_) => {
                self.wrong_kind(node, "string");
                String::new()
            }
        }
    }

    fn length(&mut self, node: &Node) -> Option<Duration> {
        if matches!(node.value, Value::Null) {
            return None;
        }
        let text = self.text(node);
        span::parse(&text).map_err(|why| self.fails(node.place, why)).ok()
    }

    fn texts(&mut self, node: &Node) -> Vec<(String, String, Place)> {
        match &node.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), self.text(&entry.value), entry.value.place))
                .collect(),
            Value::Text(_) | Value::List(_) => {
                self.wrong_kind(node, "map[string]string");
                Vec::new()
            }
        }
    }

    fn group(&mut self, node: &Node) -> Option<GroupSpec> {
        let Value::Map(entries) = &node.value else {
            self.wrong_kind(node, GROUP);
            return None;
        };
        let mut group = GroupSpec {
            name: String::new(),
            interval: None,
            query_offset: None,
            limit: 0,
            labels: BTreeMap::new(),
            rules: Vec::new(),
        };
        let mut rules = None;
        for entry in entries {
            match &*entry.key {
                "name" => group.name = self.text(&entry.value),
                "interval" => group.interval = self.length(&entry.value).filter(|length| !length.is_zero()),
                "query_offset" => group.query_offset = self.length(&entry.value),
                "limit" => {
                    let text = self.text(&entry.value);
                    match text.parse() {
                        Ok(limit) => group.limit = limit,
                        Err(_) => {
                            self.fails(entry.value.place, format!("cannot unmarshal !!str `{text}` into int"))
                        }
                    }
                }
                "labels" => {
                    for (name, value, place) in self.texts(&entry.value) {
                        if name.is_empty() || name == NAME {
                            self.fails(place, format!("invalid label name: {name}"));
                        }
                        group.labels.insert(name, value);
                    }
                }
                "rules" => rules = Some(&entry.value),
                _ => self.unknown(entry, GROUP),
            }
        }
        if group.name.is_empty() {
            self.fails(node.place, "Groupname must not be empty");
        }
        // After the rest, because messages about rules name the group.
        let rules = rules.map_or(&[][..], |node| self.list(node, "[]rulefmt.Rule"));
        for (index, rule) in rules.iter().enumerate() {
            let before = self.problems.len();
            let (rule, name) = self.rule(rule);
            for problem in &mut self.problems[before..] {
                problem.message =
                    format!("group {:?}, rule {}, {name:?}: {}", group.name, index + 1, problem.message);
            }
            group.rules.extend(rule);
        }
        Some(group)
    }

    fn rule(&mut self, node: &Node) -> (Option<RuleSpec>, String) {
        let Value::Map(entries) = &node.value else {
            self.wrong_kind(node, RULE);
            return (None, String::new());
        };
        let mut raw = Raw::default();
        for entry in entries {
            let value = &entry.value;
            match &*entry.key {
                "record" => raw.record = Some((self.text(value), value.place)),
                "alert" => raw.alert = Some((self.text(value), value.place)),
                "expr" => raw.expr = Some((self.text(value), value.place)),
                "for" => raw.hold = self.length(value).unwrap_or_default(),
                "keep_firing_for" => raw.keep_firing = self.length(value).unwrap_or_default(),
                "labels" => raw.labels = self.texts(value),
                "annotations" => raw.annotations = self.texts(value),
                _ => self.unknown(entry, RULE),
            }
        }
        for given in [&mut raw.record, &mut raw.alert, &mut raw.expr] {
            given.take_if(|(text, _)| text.is_empty());
        }
        let name =
            raw.alert.as_ref().or(raw.record.as_ref()).map(|(name, _)| name.clone()).unwrap_or_default();
        (self.checked(raw, node.place), name)
    }

    fn checked(&mut self, raw: Raw, place: Place) -> Option<RuleSpec> {
        let query = match &raw.expr {
            None => {
                self.fails(place, "field 'expr' must be set in rule");
                None
            }
            Some((text, place)) => promql::parse(text)
                .map_err(|error| self.fails(*place, format!("could not parse expression: {error}")))
                .ok(),
        };
        let labels = self.labels(&raw);
        let kind = match (raw.record, raw.alert) {
            (Some(_), Some((_, place))) => {
                self.fails(place, "only one of 'record' and 'alert' must be set");
                return None;
            }
            (None, None) => {
                self.fails(place, "one of 'record' or 'alert' must be set");
                return None;
            }
            (Some((series, place)), None) => {
                for (given, field) in [
                    (!raw.annotations.is_empty(), "annotations"),
                    (!raw.hold.is_zero(), "for"),
                    (!raw.keep_firing.is_zero(), "keep_firing_for"),
                ] {
                    if given {
                        self.fails(place, format!("invalid field '{field}' in recording rule"));
                    }
                }
                if series.contains(['{', '}']) {
                    let why = "braces present in the recording rule name; should it be in expr?";
                    self.fails(place, format!("{why}: {series}"));
                }
                RuleKind::Record { series }
            }
            (None, Some((name, _))) => {
                let annotations = self.templates(&name, "annotation", raw.annotations);
                RuleKind::Alert { name, hold: raw.hold, keep_firing: raw.keep_firing, annotations }
            }
        };
        let owner = match &kind {
            RuleKind::Record { series } => series.clone(),
            RuleKind::Alert { name, .. } => name.clone(),
        };
        let labels = match kind {
            RuleKind::Alert { .. } => self.templates(&owner, "label", labels),
            // Labels of recordings are no templates: braces stay braces.
            RuleKind::Record { .. } => {
                labels.into_iter().map(|(name, value, _)| (name, Template::literal(&value))).collect()
            }
        };
        Some(RuleSpec { query: query?, labels, kind, place })
    }

    fn labels(&mut self, raw: &Raw) -> Vec<(String, String, Place)> {
        for (name, _, place) in &raw.labels {
            if name.is_empty() || name == NAME {
                self.fails(*place, format!("invalid label name: {name}"));
            }
        }
        raw.labels.clone()
    }

    fn templates(
        &mut self,
        alert: &str,
        what: &str,
        texts: Vec<(String, String, Place)>,
    ) -> BTreeMap<String, Template> {
        let mut templates = BTreeMap::new();
        for (name, text, place) in texts {
            match Template::parse(&text) {
                Ok(template) => {
                    templates.insert(name, template);
                }
                Err(why) => self.fails(place, format!("{what} {name:?}: template: __alert_{alert}:{why}")),
            }
        }
        templates
    }
}

#[derive(Default)]
struct Raw {
    record: Option<(String, Place)>,
    alert: Option<(String, Place)>,
    expr: Option<(String, Place)>,
    hold: Duration,
    keep_firing: Duration,
    labels: Vec<(String, String, Place)>,
    annotations: Vec<(String, String, Place)>,
}
