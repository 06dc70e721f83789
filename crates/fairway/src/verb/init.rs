//! `fairway init`

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use fairway_config::{DetectError, Detection, Importer, Unmapped, detect_from};
use fairway_config::{FILE_NAME, Source};
use serde_json::{Value, json};

use crate::context::{Context, shown};
use crate::exit::Exit;
use crate::output::{Paint, Table, printable};
use crate::problem::{Outcome, Problem};

/// Write fairway.toml for the project in this directory
///
/// Reads what the project has (Procfile, compose file, package.json, Cargo.toml, pyproject.toml, Kubernetes
/// manifests) and lists every key of it that could not be taken over.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fairway init\n  fairway init --from compose --force")]
pub struct Args {
    /// Believe only this: procfile, compose, kubernetes, package.json, cargo, pyproject or static
    #[arg(long, value_name = "SOURCE")]
    from: Option<Importer>,
    /// Write over a fairway.toml that is there
    #[arg(long)]
    force: bool,
    /// Show it, and write nothing
    #[arg(long)]
    print: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let dir = cx.start_dir();
    let path = cx.globals.file.clone().map_or_else(|| dir.join(FILE_NAME), |file| dir.join(file));
    // Said before anything is read: with this there is nothing to find out.
    if path.exists() && !args.force && !args.print {
        return Err(exists(&path));
    }
    let found = detect_from(&dir, args.from).map_err(|error| problem(error, &path))?;
    if args.print {
        cx.out.data(found.toml.trim_end());
    } else {
        write(&path, &found.toml, args.force)?;
        let word = cx.out.colours().paint(Paint::Good, "wrote");
        cx.out.data(format!("{word} {} from {}", shown(&path), found.sources.join(", ")));
    }
    tell(cx, &found);
    cx.out.result(Exit::Done, &result(&found));
    Ok(Exit::Done)
}

fn exists(path: &Path) -> Problem {
    Problem::usage(
        "init/exists",
        format!("{} is there already", shown(path)),
        "`fairway validate` checks it; --force writes over it, --print shows what would be written",
    )
}

/// Without `--force` never over a file, not even over one that appeared a moment ago.
fn write(path: &Path, text: &str, force: bool) -> Result<(), Problem> {
    let mut options = OpenOptions::new();
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let file = options.write(true).open(path);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists(path)),
        other => other.map_err(|source| Problem::Write { path: path.to_owned(), source })?,
    };
    file.write_all(text.as_bytes()).map_err(|source| Problem::Write { path: path.to_owned(), source })
}

fn tell(cx: &Context, found: &Detection) {
    if !found.unmapped.is_empty() {
        let word = cx.out.progress_colours().paint(Paint::Warn, "not taken over:");
        cx.out.progress(word);
        cx.out.progress(unmapped(&found.unmapped));
    }
    cx.out.progress("next: look at it, then `fairway up`");
}

fn unmapped(list: &[Unmapped]) -> String {
    let mut table = Table::indented(2);
    for one in list {
        table.row([format!("{}:{}", one.file, one.line), printable(&one.key), printable(&one.why)]);
    }
    table.render()
}

fn result(found: &Detection) -> Value {
    let unmapped: Vec<Value> = found
        .unmapped
        .iter()
        .map(|one| json!({ "file": one.file, "line": one.line, "key": one.key, "why": one.why }))
        .collect();
    let mapped: Vec<Value> = found
        .mapped
        .iter()
        .map(|one| json!({ "file": one.file, "line": one.line, "key": one.key, "to": one.to }))
        .collect();
    json!({ "toml": found.toml, "sources": found.sources, "mapped": mapped, "unmapped": unmapped })
}

fn problem(error: DetectError, path: &Path) -> Problem {
    let message = error.to_string();
    match error {
        DetectError::NotADirectory { .. } => {
            Problem::usage("init/no-directory", message, "-C DIR says where the project is")
        }
        DetectError::Nothing { unmapped: list } => {
            let read = if list.is_empty() {
                Vec::new()
            } else {
                vec![format!("read all the same:\n{}", unmapped(&list))]
            };
            Problem::Failed {
                code: "init/nothing",
                what: message,
                causes: read,
                lines: Vec::new(),
                hint: Some("write a Procfile with one line for each service, such as `web: bin/server`, and try again".to_owned()),
                exit: Exit::Usage,
            }
        }
        DetectError::Invalid { toml, diagnostics } => {
            Problem::Config { diagnostics, file: Box::new(Source::new(&shown(path), &toml)) }
        }
    }
}
