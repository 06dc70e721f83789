//! A project: a fairway.toml that has been found sound in every environment.

use std::cell::RefCell;
use std::collections::BTreeMap;

use fairway_engine::id::{EnvironmentName, ProjectName};

use crate::artifact::{ArtifactKey, ArtifactRequest};
use crate::check;
use crate::code;
use crate::diagnostic::{Diagnostic, Findings};
use crate::environment::{self, Environment};
use crate::overlay;
use crate::reader::Setting;
use crate::span::Source;
use crate::suggest::{listed, nearest};
use crate::tree;

/// The name of the file in a project's root.
pub const FILE_NAME: &str = "fairway.toml";

#[derive(Clone, Debug)]
pub struct Project {
    name: ProjectName,
    source: Source,
    environments: BTreeMap<EnvironmentName, Environment>,
    warnings: Vec<Diagnostic>,
}

impl Project {
    /// Reads and validates the text of a fairway.toml in every one of its environments. `file` is the name that
    /// places are shown with.
    ///
    /// # Errors
    /// Everything that is wrong with the file, in its order, at most `DIAGNOSTICS_MAX`.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let source = Source::new(file, text);
        let mut findings = Findings::default();
        let Some(root) = tree::parse(&source, &mut findings) else { return Err(findings.finish()) };
        check::check(&root, &source, &mut findings);
        // Each environment would be read with as many entries again.
        if findings.has(code::TOO_MANY) {
            return Err(findings.finish());
        }
        let overlays = overlay::overlays(&root, &source, &mut findings);
        let findings = RefCell::new(findings);
        let environments: BTreeMap<_, _> = overlays
            .merged()
            .map(|(name, merged)| (name.clone(), environment::read(name, &merged, &source, &findings)))
            .collect();
        let findings = findings.into_inner();
        let name = root.get("project").and_then(|node| ProjectName::new(node.value.as_text()?).ok());
        match name {
            Some(name) if !findings.has_errors() => {
                Ok(Self { name, source, environments, warnings: findings.finish() })
            }
            Some(_) | None => Err(findings.finish()),
        }
    }

    #[must_use]
    pub fn name(&self) -> &ProjectName {
        &self.name
    }

    /// The text that the project was read from, for `render`.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What is not wrong and yet not as it should be.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// At least one.
    pub fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.environments.values()
    }

    /// # Errors
    /// When there is no such environment, with the nearest one that there is.
    pub fn environment(&self, name: &str) -> Result<&Environment, Vec<Diagnostic>> {
        if let Some((_, environment)) = self.environments.iter().find(|(known, _)| known.as_str() == name) {
            return Ok(environment);
        }
        let known = || self.environments.keys().map(EnvironmentName::as_str);
        let hint = match nearest(name, known()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the environments are {}", listed(known())),
        };
        let message = format!("there is no environment {:?}", name.chars().take(60).collect::<String>());
        Err(vec![Diagnostic::error(code::UNKNOWN_ENVIRONMENT, message).hint(hint)])
    }

    /// What a release of an environment captures, and what must be built before.
    ///
    /// # Errors
    /// When there is no such environment.
    pub fn artifacts(&self, environment: &str) -> Result<Vec<ArtifactRequest>, Vec<Diagnostic>> {
        let environment = self.environment(environment)?;
        let mut requests: BTreeMap<&ArtifactKey, ArtifactRequest> = BTreeMap::new();
        let request = |key: &ArtifactKey| ArtifactRequest {
            key: key.clone(),
            dir: key.as_str().to_owned(),
            builds: Vec::new(),
            at: None,
        };
        for capture in environment.services.values().filter_map(|service| service.runs.capture()) {
            let request = requests.entry(&capture.key).or_insert_with(|| request(&capture.key));
            request.at.get_or_insert_with(|| capture.at.clone());
            if let Some(build) = &capture.build {
                let same = |other: &&crate::artifact::Build| {
                    other.command == build.command && other.dir == build.dir
                };
                if request.builds.iter().find(same).is_none() {
                    request.builds.push(build.clone());
                }
            }
        }
        for job in environment.jobs() {
            let request = requests.entry(&job.artifact).or_insert_with(|| request(&job.artifact));
            request.at.get_or_insert_with(|| job.at.clone());
        }
        Ok(requests.into_values().collect())
    }

    /// Every value of an environment with where it came from, table by table. Secrets are shown as
    /// references: their values are not known here.
    ///
    /// # Errors
    /// When there is no such environment.
    pub fn resolved_with_origin(&self, environment: &str) -> Result<&[Setting], Vec<Diagnostic>> {
        Ok(&self.environment(environment)?.settings)
    }
}
