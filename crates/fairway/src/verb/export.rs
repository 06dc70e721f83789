//! `fairway export`

use std::fs;
use std::path::{Component, Path, PathBuf};

use fairway_api::Exported;
use fairway_server::export::{self, Problems, What};
use serde_json::json;

use crate::context::{Context, shown};
use crate::exit::Exit;
use crate::problem::{Outcome, Problem, ask};

/// Write alerts, routes and dashboards for Prometheus, Alertmanager or Grafana
///
/// Without an environment: what every project has. With one: also its own rules, objectives and routes, as fairway.toml
/// says; without a fairway.toml the server is asked. No file holds a secret; what has to be put in place by hand is
/// listed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway export prometheus -e production --out monitoring\n  fairway export grafana --out monitoring\n  fairway export alertmanager -e production"
)]
pub struct Args {
    /// For which program
    #[arg(value_enum)]
    what: Program,
    /// Where the files go; those that are there are overwritten
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Program {
    /// Rule files and what to scrape
    Prometheus,
    /// Dashboards, and how Grafana finds them and its data source
    Grafana,
    /// Channels, routes and inhibition
    Alertmanager,
}

impl Program {
    fn what(self) -> What {
        match self {
            Program::Prometheus => What::Prometheus,
            Program::Grafana => What::Grafana,
            Program::Alertmanager => What::Alertmanager,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Program::Prometheus => "prometheus",
            Program::Grafana => "grafana",
            Program::Alertmanager => "alertmanager",
        }
    }
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let exported = exported(args.what, cx)?;
    let mut written = Vec::new();
    for file in &exported.files {
        written.push(write(&args.out, &file.path, &file.text)?);
    }
    cx.out.data(written.iter().map(|path| shown(path)).collect::<Vec<_>>().join("\n"));
    for secret in &exported.secrets {
        cx.out.progress(format!("put {} into {}", secret.what, secret.path));
    }
    for step in &exported.steps {
        cx.out.progress(format!("then: {step}"));
    }
    cx.out.result(
        Exit::Done,
        &json!({ "files": written, "secrets": exported.secrets, "steps": exported.steps }),
    );
    Ok(Exit::Done)
}

fn exported(program: Program, cx: &Context) -> Result<Exported, Problem> {
    let rules = |problems: Vec<String>| Problem::Failed {
        code: "export/rules",
        what: "rules cannot be exported".to_owned(),
        causes: problems,
        lines: Vec::new(),
        hint: Some("nothing was written; correct the rule file".to_owned()),
        exit: Exit::Usage,
    };
    let file = if cx.globals.env.is_some() { cx.project_file()? } else { None };
    if cx.globals.env.is_none() {
        return export::files(program.what(), None).map_err(rules);
    }
    let Some(file) = file else {
        return cx.block_on(async {
            let client = cx.client()?;
            let target = cx.target(&client).await?;
            ask(client.export(&target, program.name())).await
        });
    };
    let project = file.load()?;
    let environment = cx.environment(&project)?.name.as_str();
    export::project(program.what(), &project, environment, &file.root).map_err(|problems| match problems {
        Problems::Config(diagnostics) => {
            Problem::Config { diagnostics, file: Box::new(project.source().clone()) }
        }
        Problems::Rules(problems) => rules(problems),
    })
}

/// What a server says is a path is not one that leads out of the directory.
fn write(dir: &Path, path: &str, text: &str) -> Result<PathBuf, Problem> {
    let relative = Path::new(path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Problem::failed(
            "export/path",
            format!("{path:?} would be written elsewhere"),
            "nothing more was written",
        ));
    }
    let path = dir.join(relative);
    let failed = |source| Problem::Write { path: path.clone(), source };
    fs::create_dir_all(path.parent().unwrap_or(dir)).map_err(failed)?;
    fs::write(&path, text).map_err(failed)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        for bad in ["../x", "/x", "a/../../x"] {
            assert!(write(&inner, bad, "x").is_err(), "{bad}");
        }
        assert!(!dir.path().join("x").exists());
        let path = write(&inner, "a/b.yml", "x").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "x");
    }
}
