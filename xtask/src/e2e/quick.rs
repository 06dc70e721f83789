//! A person in a hurry: commands one right after the other, and several at once.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

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
    count.check("a deploy that somebody watches ends well although the server dies under it", || {
        watched(fairway)
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
        command.stdin(Stdio::null()).stdout(Stdio::piped());
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

/// The command that waits for the end comes back to the next server, and what it says is so.
fn watched(fairway: &Path) -> Done<Vec<String>> {
    let (mut home, notes) = world(fairway)?;
    let mut findings = Vec::new();
    for after_ms in [60, 150, 250, 400] {
        let words = format!("killed after {after_ms} ms");
        say(&notes, &words)?;
        let mut command = home.command(notes.directory(), &["deploy", "-e", "dev"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().context("deploy")?;
        std::thread::sleep(Duration::from_millis(after_ms));
        home.kill_server()?;
        std::thread::sleep(Duration::from_millis(200));
        home.start_server()?;
        let output = child.wait_with_output().context("deploy")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let serves = get(notes.address(), "/")?.body;
        let is_so = match output.status.code() {
            Some(0) => serves == words,
            // Nothing was changed, or it is not known: killed before or while the command was put on the record.
            Some(1 | 6) => true,
            Some(_) | None => false,
        };
        if !is_so {
            findings.push(format!("{words}: {}, {serves:?} serves:\n{said}", output.status));
        }
    }
    Ok(findings)
}
