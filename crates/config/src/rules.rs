//! The rule files that `[metrics]` names: read where the project is, checked again where the release is made.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fairway_engine::monitoring::RuleFile;

use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::environment::Environment;
use crate::metrics::RulePattern;
use crate::project::Project;
use crate::value::path::{matches, part_matches, relative};

/// The largest files of rules that are generated have some 200 KiB; what is larger is something else.
pub const RULE_FILE_BYTES_MAX: usize = 512 << 10;

/// Together. The text is part of the release, and every release is kept on the record for good.
pub const RULES_BYTES_MAX: usize = 1 << 20;

/// A project with more has a directory of something else under its pattern.
pub const RULE_FILES_MAX: usize = 100;

/// Entries of one directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

impl Project {
    /// The rule files of an environment, read below the project's `root`, each once and in the order of their paths.
    ///
    /// # Errors
    /// An environment that does not exist, a pattern that nothing matches, a file that is too large, no text, or
    /// outside of the project.
    pub fn rule_files(&self, environment: &str, root: &Path) -> Result<Vec<RuleFile>, Vec<Diagnostic>> {
        let mut findings = Findings::default();
        let files = read(self.environment(environment)?, root, &mut findings);
        if findings.has_errors() { Err(findings.finish()) } else { Ok(files) }
    }

    /// Whether `files` are the rule files that the environment names: what came over the network instead of from the
    /// disk. The contents are judged by the parser of rules.
    ///
    /// # Errors
    /// An environment that does not exist, a pattern without a file, a file without a pattern, and what is over a
    /// bound.
    pub fn check_rules(&self, environment: &str, files: &[RuleFile]) -> Result<(), Vec<Diagnostic>> {
        let patterns = &self.environment(environment)?.monitoring.metrics.rules;
        let mut findings = Findings::default();
        let mut seen = BTreeSet::new();
        for file in files {
            let shown: String = file.path.chars().take(200).collect();
            let is_plain = relative(&file.path).is_ok_and(|path| path == file.path);
            if !is_plain || !patterns.iter().any(|one| matches(&one.pattern, &file.path)) {
                let message = format!("the rule file {shown:?} is not one that the file names");
                findings.push(Diagnostic::error(code::RULE_FILE, message));
            }
            if !seen.insert(&file.path) {
                let message = format!("the rule file {shown:?} is there twice");
                findings.push(Diagnostic::error(code::RULE_FILE, message));
            }
            if file.text.len() > RULE_FILE_BYTES_MAX {
                findings.push(Diagnostic::error(code::RULE_FILE, too_large(&shown)));
            }
        }
        for one in patterns {
            if !files.iter().any(|file| matches(&one.pattern, &file.path)) {
                findings.push(no_match(one));
            }
        }
        if let Some(diagnostic) = together(files) {
            findings.push(diagnostic);
        }
        if findings.has_errors() { Err(findings.finish()) } else { Ok(()) }
    }
}

/// What is wrong is in the findings.
pub(crate) fn read(environment: &Environment, root: &Path, findings: &mut Findings) -> Vec<RuleFile> {
    let mut files: Vec<RuleFile> = Vec::new();
    for one in &environment.monitoring.metrics.rules {
        let mut paths = Vec::new();
        find(root, "", &one.pattern, &mut paths);
        if paths.is_empty() {
            findings.push(no_match(one));
        }
        for path in paths {
            if files.iter().any(|file| file.path == path) {
                continue;
            }
            match text(root, &path) {
                Ok(text) => files.push(RuleFile { path, text }),
                Err(why) => {
                    findings.push(Diagnostic::error(code::RULE_FILE, why).at(one.at.clone()));
                }
            }
            if let Some(diagnostic) = together(&files) {
                findings.push(diagnostic.at(one.at.clone()));
                return files;
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn no_match(pattern: &RulePattern) -> Diagnostic {
    let message = format!("there is no rule file {:?}", pattern.pattern);
    Diagnostic::error(code::RULE_FILE, message)
        .at(pattern.at.clone())
        .hint("paths are relative to the directory of the file")
}

fn too_large(path: &str) -> String {
    format!("the rule file {path} is over {} KiB", RULE_FILE_BYTES_MAX >> 10)
}

fn together(files: &[RuleFile]) -> Option<Diagnostic> {
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    if files.len() <= RULE_FILES_MAX && bytes <= RULES_BYTES_MAX {
        return None;
    }
    let message = format!(
        "the rule files are more than {RULE_FILES_MAX}, or over {} KiB together",
        RULES_BYTES_MAX >> 10
    );
    let hint = "they become part of every release; name only those that this project needs";
    Some(Diagnostic::error(code::RULE_FILE, message).hint(hint))
}

/// Paths of files below `root/below` that the pattern says, sorted. Stops soon after there are too many.
fn find(root: &Path, below: &str, pattern: &str, found: &mut Vec<String>) {
    let (part, rest) = match pattern.split_once('/') {
        Some((part, rest)) => (part, Some(rest)),
        None => (pattern, None),
    };
    let names =
        if part.contains(['*', '?']) { names(&root.join(below), part) } else { vec![part.to_owned()] };
    for name in names {
        if found.len() > RULE_FILES_MAX {
            return;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        match rest {
            Some(rest) => find(root, &path, rest, found),
            None if root.join(&path).is_file() => found.push(path),
            None => {}
        }
    }
}

fn names(directory: &Path, pattern: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .take(ENTRIES_MAX)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| part_matches(pattern, name))
        .collect();
    names.sort();
    names
}

fn text(root: &Path, path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the rule file {path} cannot be read: {error}");
    let inside = |path: PathBuf| -> std::io::Result<bool> {
        Ok(path.canonicalize()?.starts_with(root.canonicalize()?))
    };
    // A link could bring any file of this machine into the release, where others read it.
    if !inside(root.join(path)).map_err(failed)? {
        return Err(format!("the rule file {path} is a link that leads out of the project"));
    }
    let mut bytes = Vec::new();
    let limit = RULE_FILE_BYTES_MAX as u64 + 1;
    fs::File::open(root.join(path))
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > RULE_FILE_BYTES_MAX {
        return Err(too_large(path));
    }
    String::from_utf8(bytes).map_err(|_| format!("the rule file {path} is not text"))
}
