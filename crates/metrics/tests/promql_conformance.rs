//! Prometheus' own cases, and ours in the same format.
//!
//! `FAIRWAY_PROMQL_CASES=dir` runs all `.test` files of another directory too.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod promql;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use promql::run::{Outcome, run};
use promql::script::read;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn outcomes(directory: &Path) -> Vec<(String, Outcome)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    paths.sort();
    let mut list = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let commands = read(&fs::read_to_string(&path).unwrap());
        list.extend(run(&commands).into_iter().map(|outcome| (name.clone(), outcome)));
    }
    list
}

fn failures(outcomes: &[(String, Outcome)]) -> Vec<String> {
    outcomes
        .iter()
        .filter_map(|(file, outcome)| {
            let why = outcome.result.as_ref().err()?;
            let native = if outcome.native { " [native]" } else { "" };
            Some(format!("{file}:{}{native} {}\n    {why}", outcome.line, outcome.query))
        })
        .collect()
}

/// `file:line reason` per line.
fn expected_failures() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("expected_failures.txt")).unwrap();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (place, reason) = line.split_once(' ').unwrap();
            assert_eq!(reason, "native histogram", "{place}: no other reason is one");
            place.to_owned()
        })
        .collect()
}

#[test]
fn the_cases_of_prometheus_pass_but_for_those_of_native_histograms() {
    let outcomes = outcomes(&root().join("promql"));
    assert!(outcomes.len() > 300, "{} cases", outcomes.len());
    let expected = expected_failures();
    let mut wrong = Vec::new();
    for (file, outcome) in &outcomes {
        let place = format!("{file}:{}", outcome.line);
        match (&outcome.result, expected.contains(&place)) {
            (Ok(()), false) => {}
            (Ok(()), true) => wrong.push(format!("{place} passes: take it off the list")),
            (Err(_), true) if outcome.native => {}
            (Err(why), true) => wrong.push(format!("{place} has no native histogram, yet fails: {why}")),
            (Err(why), false) => wrong.push(format!("{place} {}\n    {why}", outcome.query)),
        }
    }
    let places: BTreeSet<String> =
        outcomes.iter().map(|(file, outcome)| format!("{file}:{}", outcome.line)).collect();
    wrong.extend(expected.difference(&places).map(|place| format!("{place} is no case")));
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
}

#[test]
fn our_own_cases_pass() {
    let outcomes = outcomes(&root().join("own"));
    let failures = failures(&outcomes);
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), outcomes.len(), failures.join("\n"));
}

#[test]
fn the_cases_of_a_named_directory_pass() {
    let Some(directory) = std::env::var_os("FAIRWAY_PROMQL_CASES") else {
        println!("skipped: FAIRWAY_PROMQL_CASES names no directory");
        return;
    };
    let outcomes = outcomes(Path::new(&directory));
    let (native, failures): (Vec<String>, Vec<String>) =
        failures(&outcomes).into_iter().partition(|failure| failure.contains(" [native] "));
    println!("{} cases, {} skipped for native histograms", outcomes.len(), native.len());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), outcomes.len(), failures.join("\n"));
}
