//! docs/reference is written by the binary itself, and so are the verdicts on the examples.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{bounds, events};
use crate::exported;
use crate::fault::{Context, Done, Fault};
use crate::workspace;

/// Page, and the command line that writes it.
const PAGES: &[(&str, &[&str])] = &[("cli", &["reference"]), ("config", &["schema", "--reference"])];

fn directory() -> PathBuf {
    workspace::root().join("docs").join("reference")
}

/// Every page with its text.
fn pages(fairway: &Path) -> Done<Vec<(&'static str, String)>> {
    let mut pages =
        vec![("bounds", bounds::page()?), ("events", events::page()?), ("metrics", exported::page())];
    for (name, arguments) in PAGES {
        pages.push((name, printed(fairway, arguments)?));
    }
    Ok(pages)
}

fn printed(fairway: &Path, arguments: &[&str]) -> Done<String> {
    let line = format!("fairway {}", arguments.join(" "));
    let output = Command::new(fairway).args(arguments).stdin(Stdio::null()).output().context(&line)?;
    if !output.status.success() {
        return Err(Fault::new(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    String::from_utf8(output.stdout).context(line)
}

pub fn write(fairway: &Path) -> Done {
    std::fs::create_dir_all(directory()).context("docs/reference")?;
    for (name, text) in pages(fairway)? {
        let path = directory().join(format!("{name}.md"));
        std::fs::write(&path, text).context(path.display())?;
        println!("wrote docs/reference/{name}.md");
    }
    Ok(())
}

pub fn check(fairway: &Path) -> Done<Vec<String>> {
    let mut findings = exported::check_source()?;
    for (name, text) in pages(fairway)? {
        let path = directory().join(format!("{name}.md"));
        if std::fs::read_to_string(&path).unwrap_or_default() != text {
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
