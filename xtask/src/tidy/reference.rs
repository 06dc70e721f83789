//! docs/reference is written by the binary itself, and so are the verdicts on the examples.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fault::{Context, Done, Fault};
use crate::workspace;

/// What `fairway reference` writes.
const PAGES: &[&str] = &["cli", "config", "events"];

fn directory() -> PathBuf {
    workspace::root().join("docs").join("reference")
}

fn page(fairway: &Path, name: &str) -> Done<String> {
    let output = Command::new(fairway)
        .args(["reference", name])
        // Help is wrapped to the terminal's width otherwise.
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .context(format!("cannot run {}", fairway.display()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Fault::new(format!("fairway reference {name}: {why}")));
    }
    String::from_utf8(output.stdout).context(format!("fairway reference {name}"))
}

pub fn write(fairway: &Path) -> Done {
    std::fs::create_dir_all(directory()).context("docs/reference")?;
    for name in PAGES {
        let path = directory().join(format!("{name}.md"));
        std::fs::write(&path, page(fairway, name)?).context(path.display())?;
        println!("wrote docs/reference/{name}.md");
    }
    Ok(())
}

pub fn check(fairway: &Path) -> Done<Vec<String>> {
    let mut findings = Vec::new();
    for name in PAGES {
        let path = directory().join(format!("{name}.md"));
        if std::fs::read_to_string(&path).unwrap_or_default() != page(fairway, name)? {
            findings.push(format!("docs/reference/{name}.md is out of date: run `cargo xtask tidy --write`"));
        }
    }
    Ok(findings)
}

/// Examples are what people copy: each that has a fairway.toml must be without a finding.
pub fn check_examples(fairway: &Path) -> Done<Vec<String>> {
    let mut findings = Vec::new();
    let mut seen = 0;
    let examples = workspace::root().join("examples");
    for example in std::fs::read_dir(&examples).context("examples")?.flatten() {
        if !example.path().join("fairway.toml").is_file() {
            continue;
        }
        seen += 1;
        let output = Command::new(fairway)
            .arg("validate")
            .current_dir(example.path())
            .stdin(Stdio::null())
            .output()
            .context(format!("cannot run {}", fairway.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            findings.push(format!("{}: {said}", example.path().display()));
        }
    }
    if seen == 0 {
        findings.push("there is no example with a fairway.toml".to_owned());
    }
    Ok(findings)
}
