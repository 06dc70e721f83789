//! `fairway config`

use std::path::Path;

use fairway_config::{EditRefused, Origin, Setting};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table};
use crate::problem::{Outcome, Problem};

/// fairway.toml: get, set, unset, list, and where each value came from
///
/// `set` and `unset` change the file and nothing else: comments and order stay, and what comes out is valid. The next
/// deploy takes it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway config get service.api.replicas -e production\n  fairway config set service.api.replicas 4 -e production\n  fairway config list -e production --resolved"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// One value as it holds in the environment
    Get {
        /// Such as service.api.replicas
        key: String,
    },
    /// Give a key a value in the file; with -e for that environment only
    Set {
        /// Such as service.api.replicas
        key: String,
        /// In the notation of the file; quotes around text may be left out
        value: String,
    },
    /// Take a key out of the file; with -e that environment's own
    Unset {
        /// Such as service.api.replicas
        key: String,
    },
    /// All values that hold in the environment
    List {
        /// With where each came from, defaults too
        #[arg(long)]
        resolved: bool,
    },
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    match &args.what {
        What::Get { key } => get(cx, key),
        What::Set { key, value } => {
            edit(cx, key, |file, text, key| fairway_config::set(file, text, key, value))
        }
        What::Unset { key } => edit(cx, key, fairway_config::unset),
        What::List { resolved } => list(cx, *resolved),
    }
}

fn get(cx: &Context, key: &str) -> Outcome {
    let project = cx.need_project_file()?.load()?;
    let environment = cx.environment(&project)?;
    let settings = settings(&project, environment.name.as_str())?;
    let below = format!("{key}.");
    let found: Vec<&Setting> =
        settings.iter().filter(|one| one.key == key || one.key.starts_with(&below)).collect();
    match found.as_slice() {
        [] => Err(Problem::usage(
            "config/no-such-key",
            format!("{key} has no value in {}", environment.name),
            format!("fairway config list -e {} --resolved", environment.name),
        )),
        [one] if one.key == key => {
            cx.out.data(&one.value);
            cx.out.result(
                Exit::Done,
                &json!({ "key": one.key, "value": one.value, "origin": origin(&one.origin) }),
            );
            Ok(Exit::Done)
        }
        many => {
            show(cx, many, false);
            Ok(Exit::Done)
        }
    }
}

fn list(cx: &Context, resolved: bool) -> Outcome {
    let project = cx.need_project_file()?.load()?;
    let environment = cx.environment(&project)?;
    let settings = settings(&project, environment.name.as_str())?;
    let shown: Vec<&Setting> =
        settings.iter().filter(|one| resolved || one.origin != Origin::Default).collect();
    show(cx, &shown, resolved);
    Ok(Exit::Done)
}

fn settings<'a>(project: &'a fairway_config::Project, environment: &str) -> Result<&'a [Setting], Problem> {
    project
        .resolved_with_origin(environment)
        .map_err(|diagnostics| Problem::Config { diagnostics, file: Box::new(project.source().clone()) })
}

fn show(cx: &Context, settings: &[&Setting], with_origin: bool) {
    let mut table = Table::default();
    for one in settings {
        let value = format!("{} = {}", one.key, one.value);
        let from = cx.out.colours().paint(Paint::Dim, &origin(&one.origin));
        if with_origin { table.row([value, from]) } else { table.row([value]) }
    }
    cx.out.data(table.render());
    let all: Vec<_> = settings
        .iter()
        .map(|one| json!({ "key": one.key, "value": one.value, "origin": origin(&one.origin) }))
        .collect();
    cx.out.result(Exit::Done, &json!(all));
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File(span) => span.to_string(),
        Origin::Overlay { environment, span } => format!("{span} (env.{environment})"),
    }
}

fn edit(
    cx: &Context,
    key: &str,
    change: impl Fn(&str, &str, &str) -> Result<String, EditRefused>,
) -> Outcome {
    let file = cx.need_project_file()?;
    let text = file.text()?;
    let key = match &cx.globals.env {
        Some(environment) => format!("env.{environment}.{key}"),
        None => key.to_owned(),
    };
    let changed = change(&file.shown(), &text, &key).map_err(|refused| Problem::Config {
        diagnostics: refused.diagnostics,
        file: Box::new(refused.text),
    })?;
    if changed == text {
        cx.out.progress(format!("{}: nothing changed", file.shown()));
    } else {
        replace(&file.path, &changed)?;
        cx.out.progress(format!("{}: {key} changed; the next deploy takes it", file.shown()));
    }
    cx.out.result(Exit::Done, &json!({ "key": key, "changed": changed != text }));
    Ok(Exit::Done)
}

/// All or nothing: a full disk must not leave half a file.
fn replace(path: &Path, text: &str) -> Result<(), Problem> {
    use std::io::Write;
    let failed = |source| Problem::Write { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&beside)?;
        file.set_permissions(std::fs::metadata(path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&beside);
        failed(source)
    })
}
