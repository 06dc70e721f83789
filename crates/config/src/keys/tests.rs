use std::cell::RefCell;
use std::collections::BTreeSet;

use super::*;
use crate::check;
use crate::diagnostic::Findings;
use crate::environment;
use crate::overlay;
use crate::reader::Context;
use crate::span::Source;
use crate::spec::Absent;
use crate::tree::{self, Node, Value};

const EVERYTHING: &str = include_str!("../../tests/fixtures/everything.toml");

fn tree_of(text: &str) -> (Source, tree::Table) {
    let source = Source::new("fairway.toml", text);
    let mut findings = Findings::default();
    let table = tree::parse(&source, &mut findings).unwrap_or_else(|| panic!("{text}: {findings:?}"));
    (source, table)
}

/// What the second pass asks for when it reads `text` in every environment.
fn asked(text: &str) -> BTreeSet<(&'static str, &'static str)> {
    let (source, root) = tree_of(text);
    let findings = RefCell::new(Findings::default());
    let overlays = overlay::overlays(&root, &source, &mut findings.borrow_mut());
    let mut asked = BTreeSet::new();
    for (name, merged) in overlays.merged() {
        let cx = Context::new(&source, name, &merged.layers, &findings);
        environment::read_in(&cx, &merged);
        asked.extend(cx.asked.into_inner());
    }
    assert!(!findings.borrow().has_errors(), "{findings:?}");
    asked
}

#[test]
fn no_key_is_accepted_and_then_ignored() {
    let asked = asked(EVERYTHING);
    // Read by the overlay and by the project, not by an environment; the rest of an environment's keys are the root's.
    let elsewhere = [("project", "version"), ("project", "project"), ("project", "env")];
    for table in TABLES.iter().filter(|table| table.name != "environment") {
        for key in table.keys {
            let known =
                asked.contains(&(table.name, key.name)) || elsewhere.contains(&(table.name, key.name));
            assert!(known, "{}.{} is accepted and nothing reads it", table.name, key.name);
        }
    }
    for key in ENVIRONMENT.keys.iter().filter(|key| key.name != "extends") {
        assert!(ROOT.key(key.name).is_some(), "env.X.{} is accepted and nothing reads it", key.name);
    }
}

#[test]
fn every_table_that_a_key_takes_is_listed() {
    fn tables(kind: &Kind, found: &mut BTreeSet<&'static str>) {
        match kind {
            Kind::Table(table) => {
                found.insert(table.name);
            }
            Kind::List { of, .. } | Kind::Map { of, .. } => tables(of, found),
            Kind::OneOf(kinds) => kinds.iter().for_each(|kind| tables(kind, found)),
            Kind::Text(_)
            | Kind::Bool
            | Kind::True
            | Kind::Integer { .. }
            | Kind::Number { .. }
            | Kind::Duration { .. }
            | Kind::Size
            | Kind::Choice(_)
            | Kind::Command
            | Kind::CommandWithPort
            | Kind::Variable => {}
        }
    }
    let mut found = BTreeSet::from([ROOT.name]);
    TABLES.iter().flat_map(|table| table.keys).for_each(|key| tables(&key.kind, &mut found));
    let listed: BTreeSet<&str> = TABLES.iter().map(|table| table.name).collect();
    assert_eq!(found, listed);
    assert_eq!(listed.len(), TABLES.len(), "two tables of one name");
}

#[test]
fn examples_and_defaults_are_of_their_keys_kind() {
    for table in TABLES {
        for key in table.keys {
            let good = |text: &str| {
                let (source, table) = tree_of(&format!("x = {text}"));
                let mut findings = Findings::default();
                check::check_value(table.get("x").unwrap(), &key.kind, "x", &source, &mut findings);
                assert!(!findings.has_errors(), "{}: {findings:?}", key.name);
            };
            good(key.example);
            if let Absent::Default(text) = key.absent {
                let value = crate::reader::default_value(text);
                let node = Node { at: (0..0).into(), layer: tree::Layer::default(), value };
                assert!(key.kind.takes(&node.value), "{}.{}: {text}", table.name, key.name);
                let source = Source::new("default", "");
                let mut findings = Findings::default();
                check::check_value(&node, &key.kind, "x", &source, &mut findings);
                assert!(!findings.has_errors(), "{}: {findings:?}", key.name);
                assert!(!matches!(&node.value, Value::Text(text) if text.is_empty()));
            }
            assert!(
                key.doc.ends_with('.') && !key.doc.is_empty(),
                "{}.{} has no sentence",
                table.name,
                key.name
            );
        }
    }
}
