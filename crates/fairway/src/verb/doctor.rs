//! `fairway doctor`

mod certificates;
mod kernel;
mod place;
mod ports;
mod project;
mod server;

use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table, printable};
use crate::problem::Outcome;

/// Look at what Fairway needs: file, host, ports, disk, names, commands, server, certificates
///
/// Each line is ok, warn or fail, with what to do. Exits with 1 when a line fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fairway doctor\n  fairway doctor -e production --fix")]
pub struct Args {
    /// Repair what is safe to repair
    #[arg(long)]
    fix: bool,
    /// Warnings fail
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    Warn,
    Fail,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub level: Level,
    pub what: String,
    pub detail: String,
    pub hint: Option<String>,
}

impl Finding {
    #[must_use]
    pub fn new(level: Level, what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level, what: what.into(), detail: detail.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let mut findings = kernel::look();
    let known = server::look(cx);
    findings.extend(place::look(cx, args.fix)?);
    findings.extend(known.findings);
    findings.extend(project::look(cx, known.status.as_ref()));
    let environment = cx.globals.env.as_deref();
    findings.extend(certificates::look(known.status.as_ref(), environment, ago::now_ms()));
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    let limit = if args.strict { Level::Warn } else { Level::Fail };
    let exit = if worst >= limit { Exit::Failed } else { Exit::Done };
    show(cx, &findings);
    cx.out.result(exit, &json!(findings));
    Ok(exit)
}

fn show(cx: &Context, findings: &[Finding]) {
    let colours = cx.out.colours();
    let mut table = Table::default();
    for finding in findings {
        let (word, paint) = match finding.level {
            Level::Ok => ("ok", Paint::Good),
            Level::Warn => ("warn", Paint::Warn),
            Level::Fail => ("fail", Paint::Bad),
        };
        table.row([colours.paint(paint, word), finding.what.clone(), printable(&finding.detail)]);
        if let Some(hint) = &finding.hint {
            table.row([
                String::new(),
                String::new(),
                colours.paint(Paint::Dim, &format!("hint: {}", printable(hint))),
            ]);
        }
    }
    cx.out.data(table.render());
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    cx.out.progress(format!(
        "{} ok, {} to look at, {} failed",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    ));
}
