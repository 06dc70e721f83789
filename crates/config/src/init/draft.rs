//! A project as the importers find it, and the fairway.toml that it makes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fairway_engine::id::{NAME_LEN_MAX, ProjectName};

use crate::keys;
use crate::reader::{quote, toml_key};
use crate::value::command;

/// A key of a source that became one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    pub file: String,
    /// From 1.
    pub line: u32,
    pub key: String,
    /// Where it went: `service.api.command`.
    pub to: String,
}

/// A key of a source that has no place in fairway.toml, or none that can be told from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmapped {
    pub file: String,
    /// From 1.
    pub line: u32,
    pub key: String,
    pub why: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) project: Option<String>,
    pub(super) services: Vec<DraftService>,
    pub(super) expand: Option<Vec<String>>,
    pub(super) seed: Option<Vec<String>>,
    pub(super) notes: Notes,
}

/// What became of each key.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) mapped: Vec<Mapped>,
    pub(super) unmapped: Vec<Unmapped>,
}

impl Notes {
    pub(super) fn mapped(&mut self, file: &str, line: u32, key: impl Into<String>, to: impl Into<String>) {
        self.mapped.push(Mapped { file: file.to_owned(), line, key: key.into(), to: to.into() });
    }

    pub(super) fn unmapped(&mut self, file: &str, line: u32, key: impl Into<String>, why: impl Into<String>) {
        self.unmapped.push(Unmapped { file: file.to_owned(), line, key: key.into(), why: why.into() });
    }

    pub(super) fn extend(&mut self, other: Notes) {
        self.mapped.extend(other.mapped);
        self.unmapped.extend(other.unmapped);
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct DraftService {
    pub(super) name: String,
    pub(super) runs: DraftRuns,
    pub(super) dir: Option<String>,
    pub(super) workdir: Option<String>,
    pub(super) build: Option<DraftBuild>,
    pub(super) port: Option<u16>,
    pub(super) route: Option<String>,
    pub(super) replicas: Option<u32>,
    /// The inside of the braces.
    pub(super) autoscale: Option<String>,
    pub(super) after: Vec<String>,
    pub(super) env: BTreeMap<String, DraftValue>,
    /// The inside of the braces.
    pub(super) ready: Option<String>,
    pub(super) live: Option<String>,
    pub(super) stop: Option<String>,
    pub(super) limits: Option<String>,
    pub(super) restart: Option<String>,
    pub(super) user: Option<String>,
    /// The outside should reach it, though no path is known.
    pub(super) public: bool,
    /// No file says which path goes where.
    pub(super) route_is_guess: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) enum DraftRuns {
    /// Not known yet: another importer may say.
    #[default]
    Unknown,
    Command(Vec<Word>),
    Static {
        dir: String,
        spa: bool,
    },
    Uses(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Text(String),
    Port,
}

#[derive(Clone, Debug)]
pub(super) struct DraftBuild {
    pub(super) run: Vec<String>,
    pub(super) artifact: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DraftValue {
    Text(String),
    Secret(String),
    Ref(String),
}

/// A command line of another tool: words when it is plain, otherwise a shell is asked for by name.
pub(super) fn words(line: &str) -> Vec<Word> {
    plain_words(line).into_iter().map(Word::Text).collect()
}

pub(super) fn plain_words(line: &str) -> Vec<String> {
    command::split(line).unwrap_or_else(|_| vec!["sh".to_owned(), "-c".to_owned(), line.trim().to_owned()])
}

/// A name of ours, as near as possible to one of theirs; `fallback` when nothing of it can be kept.
pub(super) fn service_name(theirs: &str, fallback: &str) -> String {
    let name = plain_name(theirs);
    if (keys::SERVICE_NAME.check)(&name).is_ok() {
        return name;
    }
    let with_prefix = format!("{fallback}-{name}");
    let name: String = with_prefix.chars().take(NAME_LEN_MAX).collect();
    let name = name.trim_end_matches('-');
    if (keys::SERVICE_NAME.check)(name).is_ok() { name.to_owned() } else { fallback.to_owned() }
}

pub(super) fn project_name(theirs: &str) -> String {
    // `@scope/name` of npm
    let name = plain_name(theirs.rsplit('/').next().unwrap_or(theirs));
    if ProjectName::new(&name).is_ok() { name } else { "project".to_owned() }
}

fn plain_name(theirs: &str) -> String {
    let name: String = theirs
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphabetic())
        .take(NAME_LEN_MAX)
        .collect();
    name.trim_end_matches('-').to_owned()
}

impl Draft {
    pub(super) fn has_runnable(&self) -> bool {
        self.services.iter().any(|service| !matches!(service.runs, DraftRuns::Unknown | DraftRuns::Uses(_)))
    }

    /// Services of one name cannot be told apart in our file.
    pub(super) fn make_names_unique(&mut self) {
        let mut taken: Vec<String> = Vec::new();
        for service in &mut self.services {
            let mut name = service.name.clone();
            let mut number = 2;
            while taken.contains(&name) {
                let stem: String = service.name.chars().take(NAME_LEN_MAX - 4).collect();
                name = format!("{}-{number}", stem.trim_end_matches('-'));
                number += 1;
            }
            service.name.clone_from(&name);
            taken.push(name);
        }
    }

    pub(super) fn toml(&self, sources: &[String]) -> String {
        let mut out = format!("# Written by `fairway init` from {}.\n", sources.join(", "));
        let _ =
            write!(out, "version = 1\nproject = {}\n", quote(self.project.as_deref().unwrap_or("project")));
        if self.expand.is_some() || self.seed.is_some() {
            out.push_str("\n[release]\n");
            for (key, command) in [("expand", &self.expand), ("seed", &self.seed)] {
                if let Some(command) = command {
                    let _ = writeln!(out, "{key} = {}", list(command));
                }
            }
        }
        for service in &self.services {
            service.write(&mut out);
        }
        out
    }
}

fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(", "))
}

impl DraftService {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "\n[service.{}]\n", toml_key(&self.name));
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key} = {value}");
        };
        if let Some(dir) = self.dir.as_deref().filter(|dir| *dir != ".") {
            line("dir", quote(dir));
        }
        if let Some(build) = &self.build {
            match &build.artifact {
                Some(artifact) => {
                    line(
                        "build",
                        format!("{{ run = {}, artifact = {} }}", list(&build.run), quote(artifact)),
                    );
                }
                None => line("build", list(&build.run)),
            }
        }
        match &self.runs {
            DraftRuns::Command(words) => {
                let words: Vec<String> = words
                    .iter()
                    .map(|word| match word {
                        Word::Text(text) => quote(text),
                        Word::Port => "{ ref = \"port\" }".to_owned(),
                    })
                    .collect();
                line("command", format!("[{}]", words.join(", ")));
            }
            DraftRuns::Static { dir, spa } => {
                line("static", format!("{{ dir = {}, spa = {spa} }}", quote(dir)));
            }
            DraftRuns::Uses(engine) => line("uses", quote(engine)),
            DraftRuns::Unknown => {}
        }
        if let Some(workdir) = self.workdir.as_deref().filter(|workdir| *workdir != ".") {
            line("workdir", quote(workdir));
        }
        if let Some(port) = self.port {
            line("port", port.to_string());
        }
        if let Some(route) = &self.route {
            let guess =
                if self.route_is_guess { " # a guess: no file says which path goes here" } else { "" };
            line("route", quote(route) + guess);
        }
        if let Some(replicas) = self.replicas {
            line("replicas", replicas.to_string());
        }
        if !self.after.is_empty() {
            line("after", list(&self.after));
        }
        let tables = [
            ("autoscale", &self.autoscale),
            ("ready", &self.ready),
            ("live", &self.live),
            ("stop", &self.stop),
            ("restart", &self.restart),
            ("limits", &self.limits),
        ];
        for (key, inside) in tables {
            if let Some(inside) = inside {
                line(key, format!("{{ {inside} }}"));
            }
        }
        if let Some(user) = &self.user {
            line("user", quote(user));
        }
        if !self.env.is_empty() {
            let _ = write!(out, "\n[service.{}.env]\n", toml_key(&self.name));
            for (name, value) in &self.env {
                let value = match value {
                    DraftValue::Text(text) => quote(text),
                    DraftValue::Secret(name) => format!("{{ secret = {} }}", quote(name)),
                    DraftValue::Ref(target) => format!("{{ ref = {} }}", quote(target)),
                };
                let _ = writeln!(out, "{} = {value}", toml_key(name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_become_names_of_ours() {
        assert_eq!(service_name("Web_Front", "service"), "web-front");
        assert_eq!(service_name("data", "service"), "service-data");
        assert_eq!(service_name("2fa", "service"), "fa");
        assert_eq!(service_name("___", "service"), "service");
        assert_eq!(service_name(&"x".repeat(80), "service").len(), NAME_LEN_MAX);
        assert_eq!(service_name("ÄÖ", "service"), "service");
        assert_eq!(project_name("@acme/Shop"), "shop");
        assert_eq!(project_name("/"), "project");
    }

    #[test]
    fn a_line_that_needs_a_shell_asks_for_one() {
        assert_eq!(plain_words("bin/web --port $PORT"), ["sh", "-c", "bin/web --port $PORT"]);
        assert_eq!(plain_words("bin/web 'a b'"), ["bin/web", "a b"]);
    }
}
