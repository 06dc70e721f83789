//! `fairway init`: what a directory says about itself, as a fairway.toml, and every key that could not be taken over.

mod cargo_toml;
mod code;
mod compose;
mod dockerfile;
mod draft;
mod env;
mod files;
mod hpa;
mod kubernetes;
mod package_json;
mod procfile;
mod pyproject;
mod static_site;
mod yaml;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use draft::{Mapped, Unmapped};

use crate::diagnostic::Diagnostic;
use crate::project::{FILE_NAME, Project};
use crate::suggest::did_you_mean;
use draft::{Draft, DraftRuns};
use files::Files;

/// What `init` found.
#[derive(Clone, Debug)]
pub struct Detection {
    /// A valid fairway.toml.
    pub toml: String,
    /// Files that it was made from, relative to the directory.
    pub sources: Vec<String>,
    pub mapped: Vec<Mapped>,
    /// Every key of the sources that has no place in it, and why.
    pub unmapped: Vec<Unmapped>,
}

/// A kind of file that `init` reads; `init --from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importer {
    Procfile,
    Compose,
    PackageJson,
    CargoToml,
    Pyproject,
    Kubernetes,
    Static,
}

impl Importer {
    /// In the order in which they are believed: what says how to run the project before what only says how it is made.
    pub const ALL: [Importer; 7] = [
        Importer::Procfile,
        Importer::Compose,
        Importer::Kubernetes,
        Importer::PackageJson,
        Importer::CargoToml,
        Importer::Pyproject,
        Importer::Static,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Importer::Procfile => "procfile",
            Importer::Compose => "compose",
            Importer::PackageJson => "package.json",
            Importer::CargoToml => "cargo",
            Importer::Pyproject => "pyproject",
            Importer::Kubernetes => "kubernetes",
            Importer::Static => "static",
        }
    }
}

impl fmt::Display for Importer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is nothing that can be imported{}", suggestion.as_deref().unwrap_or(""))]
pub struct UnknownImporter {
    pub given: String,
    suggestion: Option<String>,
}

impl FromStr for Importer {
    type Err = UnknownImporter;

    fn from_str(text: &str) -> Result<Self, UnknownImporter> {
        Importer::ALL.into_iter().find(|importer| importer.as_str() == text).ok_or_else(|| UnknownImporter {
            given: text.chars().take(40).collect(),
            suggestion: did_you_mean(text, Importer::ALL.map(Importer::as_str))
                .map(|hint| format!("; {hint}")),
        })
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum DetectError {
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    /// Nothing says what to run. What was read all the same is in `unmapped`.
    #[error(
        "nothing here says what to run: no Procfile, compose file, package.json with a start script, Cargo.toml with a \
         binary, pyproject.toml with a server, Kubernetes manifest with a command, or index.html"
    )]
    Nothing { unmapped: Vec<Unmapped> },
    /// The file that was made is not valid: a fault of the importers, told instead of written.
    #[error("what was found does not make a valid fairway.toml")]
    Invalid { toml: String, diagnostics: Vec<Diagnostic> },
}

/// Looks at a directory. Reads only, and nothing outside of it.
///
/// # Errors
/// When it is no directory, or nothing in it says what to run.
pub fn detect(dir: &Path) -> Result<Detection, DetectError> {
    detect_from(dir, None)
}

/// The same, believing one kind of file only.
///
/// # Errors
/// When it is no directory, or nothing in it says what to run.
pub fn detect_from(dir: &Path, only: Option<Importer>) -> Result<Detection, DetectError> {
    if !dir.is_dir() {
        return Err(DetectError::NotADirectory { path: dir.to_owned() });
    }
    let files = Files::new(dir);
    let mut whole = Draft::default();
    for importer in Importer::ALL.into_iter().filter(|importer| only.is_none_or(|only| only == *importer)) {
        if let Some(draft) = read(importer, &files) {
            take(&mut whole, draft, importer);
        }
    }
    if !whole.has_runnable() && only.is_none() {
        below(&mut whole, &files);
    }
    if !whole.has_runnable() {
        return Err(DetectError::Nothing { unmapped: whole.notes.unmapped });
    }
    whole.project = whole.project.or_else(|| files.own_name().map(|name| draft::project_name(&name)));
    whole.make_names_unique();
    routes(&mut whole);
    let mut sources: Vec<String> = Vec::new();
    for file in whole.notes.mapped.iter().map(|mapped| &mapped.file) {
        if !sources.contains(file) {
            sources.push(file.clone());
        }
    }
    let toml = whole.toml(&sources);
    if let Err(diagnostics) = Project::parse(FILE_NAME, &toml) {
        return Err(DetectError::Invalid { toml, diagnostics });
    }
    Ok(Detection { toml, sources, mapped: whole.notes.mapped, unmapped: whole.notes.unmapped })
}

fn read(importer: Importer, files: &Files) -> Option<Draft> {
    match importer {
        Importer::Procfile => Some(procfile::read(&files.read("Procfile")?)),
        Importer::Compose => {
            let file = compose::NAMES.iter().find_map(|name| files.read(name))?;
            Some(compose::read(&file, files))
        }
        Importer::PackageJson => package_json::read(files),
        Importer::CargoToml => cargo_toml::read(files),
        Importer::Pyproject => pyproject::read(files),
        Importer::Kubernetes => kubernetes::read(files),
        Importer::Static => static_site::read(files),
    }
}

/// The first that says what to run is believed. Of the later ones are taken: backing services, what the first leaves
/// open, and the list of what is not taken over.
fn take(whole: &mut Draft, mut draft: Draft, importer: Importer) {
    let decided = whole.has_runnable();
    whole.project = whole.project.take().or(draft.project.take());
    whole.expand = whole.expand.take().or(draft.expand.take());
    whole.seed = whole.seed.take().or(draft.seed.take());
    for service in draft.services {
        let backing = matches!(service.runs, DraftRuns::Uses(_));
        let known = whole.services.iter().any(|known| known.name == service.name);
        if !decided || (backing && !known) {
            whole.services.push(service);
            continue;
        }
        let prefix = format!("service.{}.", service.name);
        let lost: Vec<Mapped> =
            draft.notes.mapped.extract_if(.., |mapped| mapped.to.starts_with(&prefix)).collect();
        if importer == Importer::Static {
            continue;
        }
        for Mapped { file, line, key, .. } in lost {
            whole.notes.unmapped(
                &file,
                line,
                key,
                "another file says what runs; start from this one with --from",
            );
        }
    }
    whole.notes.extend(draft.notes);
}

/// A directory without anything of its own may hold a project in each of those below.
fn below(whole: &mut Draft, files: &Files) {
    for name in files.directories() {
        let Some(below) = files.below(&name) else { continue };
        let mut found = code::detect(&below);
        for service in &mut found.services {
            // `web` says nothing when there is one in each directory.
            let own = draft::service_name(&name, "service");
            if found.notes.mapped.iter().all(|mapped| mapped.file.starts_with(&name)) && service.name == "web"
            {
                for mapped in &mut found.notes.mapped {
                    mapped.to = mapped.to.replace("service.web.", &format!("service.{own}."));
                }
                service.name = own;
            }
            // Two of them cannot both have the root.
            service.public |= service.route.take().is_some();
        }
        whole.services.append(&mut found.services);
        whole.seed = whole.seed.take().or(found.seed);
        whole.notes.extend(found.notes);
    }
}

/// A path for everything that is to be reached from outside: the root for one of them, by its name or because it is the
/// only one, and its own name for each of the others. No two have the same.
fn routes(whole: &mut Draft) {
    const FRONTS: [&str; 8] = ["web", "frontend", "front", "www", "site", "ui", "client", "app"];
    let is_static = |runs: &DraftRuns| matches!(runs, DraftRuns::Static { .. });
    let mut taken: Vec<String> = Vec::new();
    for service in &mut whole.services {
        match &service.route {
            Some(route) if !taken.contains(route) => taken.push(route.clone()),
            Some(_) => {
                service.route = None;
                service.public = true;
            }
            None => {}
        }
    }
    let open: Vec<usize> = (0..whole.services.len())
        .filter(|index| {
            let service = &whole.services[*index];
            let listens = service.port.is_some() || is_static(&service.runs);
            let runs = !matches!(service.runs, DraftRuns::Uses(_));
            service.route.is_none() && service.public && listens && runs
        })
        .collect();
    let front = open
        .iter()
        .find(|index| FRONTS.contains(&whole.services[**index].name.as_str()))
        .or_else(|| open.iter().find(|index| is_static(&whole.services[**index].runs)))
        .or_else(|| open.first());
    let front = front.copied().filter(|_| !taken.contains(&"/".to_owned()));
    for index in open {
        let service = &mut whole.services[index];
        let route = if front == Some(index) { "/".to_owned() } else { format!("/{}", service.name) };
        if !taken.contains(&route) {
            taken.push(route.clone());
            service.route_is_guess = route != "/";
            service.route = Some(route);
        }
    }
}
