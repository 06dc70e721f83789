//! `fairway validate`

use std::path::Path;

use fairway_api::ApiError;
use fairway_config::Project;
use fairway_server::validate;
use serde_json::json;

use crate::context::{Context, find_environment};
use crate::exit::Exit;
use crate::output::Paint;
use crate::problem::{Outcome, of_diagnostics};

/// Check fairway.toml, in all of its environments
///
/// Every problem is shown with its place and with what to do, those of queries and rule files included. Nothing but the
/// file and the rule files that it names is looked at; `fairway doctor` looks at the machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fairway validate\n  fairway validate --strict")]
pub struct Args {
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let file = cx.need_project_file()?;
    let project = file.load()?;
    // All are looked at, but a name that is none must not be said to be valid.
    if let Some(name) = &cx.globals.env {
        find_environment(&project, name)?;
    }
    let warnings = of_diagnostics(project.warnings(), project.source());
    if args.strict && !warnings.is_empty() {
        cx.out.errors(Exit::Usage, &warnings);
        return Ok(Exit::Usage);
    }
    let errors = environments(&project, &file.root);
    if !errors.is_empty() {
        cx.out.errors(Exit::Usage, &errors);
        return Ok(Exit::Usage);
    }
    for warning in &warnings {
        cx.out.warning(warning);
    }
    let environments: Vec<&str> =
        project.environments().map(|environment| environment.name.as_str()).collect();
    let services: std::collections::BTreeSet<&str> = project
        .environments()
        .flat_map(|environment| environment.services.keys().map(|name| name.as_str()))
        .collect();
    let word = cx.out.colours().paint(Paint::Good, "valid");
    cx.out.data(format!(
        "{}: {word}; project {} with {} in {}",
        file.shown(),
        project.name().as_str(),
        services.iter().copied().collect::<Vec<_>>().join(", "),
        environments.join(", ")
    ));
    cx.out.result(
        Exit::Done,
        &json!({ "project": project.name().as_str(), "environments": environments, "services": services }),
    );
    Ok(Exit::Done)
}

/// What a deploy to any of the environments would be refused for. What is wrong for all of them is said once.
fn environments(project: &Project, root: &Path) -> Vec<ApiError> {
    let mut errors: Vec<ApiError> = Vec::new();
    for environment in project.environments() {
        if let Err(error) = validate::environment(project, environment.name.as_str(), root)
            && !errors.contains(&error)
        {
            errors.push(error);
        }
    }
    errors
}
