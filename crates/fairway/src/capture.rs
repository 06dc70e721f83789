//! From the working tree to a deploy request: build, capture, upload.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::process::Stdio;

use fairway_api::client::Client;
use fairway_api::{DeployRequest, RuleText};
use fairway_config::{ArtifactRequest, Build, Environment, Project};
use fairway_server::upload;
use tokio::process::Command;

use crate::context::{Context, ProjectFile};
use crate::git;
use crate::problem::Problem;

/// Everything that a deploy needs, with the builds run and the artifacts on the server.
///
/// # Errors
/// When a build fails, or an artifact cannot be captured.
pub async fn prepare(
    cx: &Context,
    client: &Client,
    file: &ProjectFile,
    project: &Project,
    environment: &Environment,
) -> Result<DeployRequest, Problem> {
    let config_error =
        |diagnostics| Problem::Config { diagnostics, file: Box::new(project.source().clone()) };
    let requests = project.artifacts(environment.name.as_str()).map_err(config_error)?;
    // Before the builds: a rule file that is not there should not cost a build.
    let rules = project.rule_files(environment.name.as_str(), &file.root).map_err(config_error)?;
    // All builds run before the first capture: one artifact may contain another.
    for build in distinct(&requests) {
        run(cx, file, build).await?;
    }
    let mut artifacts = BTreeMap::new();
    for request in &requests {
        cx.out.step(&format!("capturing {}", request.dir));
        let digest = upload::push(client, &file.root, &file.root.join(&request.dir))
            .await
            .map_err(|error| Problem::Refused(Box::new(error)))?;
        artifacts.insert(request.key.as_str().to_owned(), digest);
    }
    cx.out.clear();
    Ok(DeployRequest {
        config: project.source().text().to_owned(),
        config_path: file.shown(),
        artifacts,
        rules: rules.into_iter().map(|rules| RuleText { path: rules.path, text: rules.text }).collect(),
        source: git::source(&file.root).await,
        strategy: None,
        reason: None,
        if_release: None,
        wait: false,
        development: false,
    })
}

/// Each build once, in order.
fn distinct(requests: &[ArtifactRequest]) -> Vec<&Build> {
    let mut builds: Vec<&Build> = Vec::new();
    for build in requests.iter().flat_map(|request| &request.builds) {
        if !builds.iter().any(|known| known.command == build.command && known.dir == build.dir) {
            builds.push(build);
        }
    }
    builds
}

async fn run(cx: &Context, file: &ProjectFile, build: &Build) -> Result<(), Problem> {
    let dir = file.root.join(&build.dir);
    let spawn_error = |source| Problem::Spawn { command: build.command.clone(), dir: dir.clone(), source };
    let place = if build.dir == "." { String::new() } else { format!(" (in {})", build.dir) };
    cx.out.progress(format!("building: {}{place}", build.command.join(" ")));
    let Some((program, args)) = build.command.split_first() else { return Ok(()) };
    // What the build prints is progress, not data.
    let stderr = || std::io::stderr().as_fd().try_clone_to_owned().map_err(spawn_error);
    let status = Command::new(program)
        .args(args)
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(stderr()?)
        .stderr(stderr()?)
        .kill_on_drop(true)
        .status()
        .await
        .map_err(spawn_error)?;
    if status.success() {
        return Ok(());
    }
    Err(Problem::Build { command: build.command.clone(), dir, how: status.to_string() })
}
