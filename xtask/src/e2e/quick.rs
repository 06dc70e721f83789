//! A person in a hurry: commands one right after the other, and several at once.

use std::path::Path;

use super::notes::Notes;
use crate::checks::Count;
use crate::fault::{Context, Done};
use crate::home::{Home, Show, free_address, get};

const ROUNDS: u32 = 6;

pub fn run(fairway: &Path) -> Count {
    let mut count = Count::default();
    count.check(&format!("{ROUNDS} deploys and as many rollbacks without a pause"), || in_a_row(fairway));
    count.check("four deploys at once: one is left, the others say by whom they were superseded", || {
        at_once(fairway)
    });
    count
}

fn world(fairway: &Path) -> Done<(Home, Notes)> {
    let mut home = Home::new(fairway, Show::Nothing)?;
    home.start_server()?;
    let notes = Notes::write(home.path().join("notes"), free_address()?)?;
    home.must(notes.directory(), &["deploy", "-e", "dev"])?;
    Ok((home, notes))
}

fn say(notes: &Notes, words: &str) -> Done {
    notes.change("[env.dev]", &format!("[vars]\nWORDS = \"{words}\"\n[env.dev]"))
}

/// What one rollout leaves behind, a listener that closes or a copy that drains, must not be in the way of the next.
fn in_a_row(fairway: &Path) -> Done<Vec<String>> {
    let (home, notes) = world(fairway)?;
    let mut findings = Vec::new();
    for round in 1..=ROUNDS {
        let words = format!("round {round}");
        say(&notes, &words)?;
        home.must(notes.directory(), &["deploy", "-e", "dev"])?;
        let serves = get(notes.address(), "/")?.body;
        if serves != words {
            findings.push(format!("after the deploy of {words:?}, {serves:?} serves"));
        }
        home.must(notes.directory(), &["rollback", "-e", "dev"])?;
        let serves = get(notes.address(), "/")?.body;
        if serves != "notes" {
            findings.push(format!("after the rollback from {words:?}, {serves:?} serves"));
        }
    }
    Ok(findings)
}

fn at_once(fairway: &Path) -> Done<Vec<String>> {
    let (home, notes) = world(fairway)?;
    let mut children = Vec::new();
    for number in 1..=4 {
        // Each from a directory of its own, as four people would.
        let directory = home.path().join(format!("person-{number}"));
        let theirs = Notes::write(directory, notes.address())?;
        say(&theirs, &format!("person {number}"))?;
        let mut command = home.command(theirs.directory(), &["deploy", "-e", "dev", "--json"]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        children.push(command.spawn().context("deploy")?);
    }
    let mut codes = Vec::new();
    for child in children {
        codes.push(child.wait_with_output().context("deploy")?.status.code());
    }
    let mut findings = Vec::new();
    let done = codes.iter().filter(|code| **code == Some(0)).count();
    if done == 0 || codes.iter().any(|code| ![Some(0), Some(7)].contains(code)) {
        findings.push(format!("exit codes {codes:?}: 0 for those that came to serve, 7 for the superseded"));
    }
    let (web, api) = (get(notes.address(), "/")?.body, get(notes.address(), "/api")?.body);
    if web != api || !web.starts_with("person ") {
        findings.push(format!("{web:?} and {api:?} serve"));
    }
    Ok(findings)
}
