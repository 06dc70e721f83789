//! What a deploy would say of fairway.toml and its rule files, without a server.

use std::path::Path;

use fairway_api::ApiError;
use fairway_config::{Diagnostic, Inputs, Project};
use fairway_engine::id::{EnvironmentKey, TreeDigest};
use fairway_engine::release::{ReleaseSpec, Source};

use crate::api::{check_monitoring, config_error};

/// The release that an environment would get, but for its files and the versions of its secrets: nothing that can be
/// judged or exported without a server depends on them.
///
/// # Errors
/// What is wrong with the file, or with finding the rule files.
pub fn spec(project: &Project, environment: &str, root: &Path) -> Result<ReleaseSpec, Vec<Diagnostic>> {
    let artifacts = project.artifacts(environment)?;
    let nothing = || TreeDigest("0".repeat(64).into());
    let inputs = Inputs {
        artifacts: artifacts.into_iter().map(|one| (one.key, nothing())).collect(),
        secrets: &|_| Some(1),
        source: Source { commit: None, branch: None, title: None, dirty: false, authors: Vec::new() },
        strategy: None,
    };
    let mut spec = project.resolve(environment, &inputs)?;
    spec.monitoring.rules = project.rule_files(environment, root)?;
    Ok(spec)
}

/// The environment with its project.
///
/// # Errors
/// When the file has no such environment.
pub fn key(project: &Project, environment: &str) -> Result<EnvironmentKey, Vec<Diagnostic>> {
    Ok(EnvironmentKey {
        project: project.name().clone(),
        environment: project.environment(environment)?.name.clone(),
    })
}

/// Queries of gates, objectives and autoscaling, rule files, and names of built-in alerts.
///
/// # Errors
/// What `fairway plan` and `fairway deploy` would be refused for, in the same words.
pub fn environment(project: &Project, environment: &str, root: &Path) -> Result<(), ApiError> {
    let told = |found: Vec<Diagnostic>| config_error(&found, project.warnings(), project.source().text());
    let key = key(project, environment).map_err(told)?;
    let spec = spec(project, environment, root).map_err(told)?;
    check_monitoring(project, &key, &spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(settings: &str, rules: &str) -> Result<(), ApiError> {
        let text = format!(
            "version = 1\nproject = \"shop\"\n[service.api]\ncommand = [\"bin/api\"]\nport = 4000\nroute = \"/\"\n\
             env.TOKEN = {{ secret = \"token\" }}\n[env.dev]\n[env.dev.metrics]\nrules = [\"own.yml\"]\n{settings}"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("own.yml"), rules).unwrap();
        environment(&Project::parse("fairway.toml", &text).unwrap(), "dev", dir.path())
    }

    #[test]
    fn queries_and_rule_files_are_judged_as_by_a_deploy() {
        validated("", "groups: []\n").unwrap();
        let gate = "[env.dev.deploy]\ngates = [{ query = \"sum(rate(x[5m])\", max = 1 }]\n";
        let error = validated(gate, "groups: []\n").unwrap_err();
        assert_eq!((error.code.as_str(), error.span.unwrap().line), ("deploy/bad-query", 12));
        let bad = "groups:\n- name: own\n  rules:\n  - alert: Slow\n    expr: up ==\n";
        let error = validated("", bad).unwrap_err();
        let span = error.span.unwrap();
        assert_eq!((error.code.as_str(), span.file.as_str(), span.line), ("deploy/bad-rules", "own.yml", 5));
    }
}
