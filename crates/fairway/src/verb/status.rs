//! `fairway status`

mod describe;

use describe::Look;

use std::time::Duration;

use fairway_api::Status;
use fairway_api::client::Client;
use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::exit::Exit;
use crate::follow;
use crate::problem::{Outcome, Problem, ask};

/// A screen that somebody watches; one question costs the server under a millisecond.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What runs where, since when, by whom; and what goes on
///
/// Without -e all environments of the server, in short. What cannot be told is said to be unknown.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway status\n  fairway status -e production --watch\n  fairway status -e production --json"
)]
pub struct Args {
    /// Show it anew every second
    #[arg(short, long)]
    watch: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        if !args.watch {
            return show(cx, &client).await;
        }
        tokio::select! {
            ended = watch(cx, &client) => ended,
            _ = tokio::signal::ctrl_c() => {
                cx.out.result(Exit::Interrupted, &json!(null));
                Ok(Exit::Interrupted)
            }
        }
    })
}

async fn show(cx: &Context, client: &Client) -> Outcome {
    let status = ask(client.status()).await?;
    let shown = wanted(cx, status)?;
    cx.out.data(describe::status(&shown, detailed(cx, &shown), ago::now_ms(), &look(cx)));
    cx.out.result(Exit::Done, &json!(shown));
    Ok(Exit::Done)
}

async fn watch(cx: &Context, client: &Client) -> Outcome {
    loop {
        let status = follow::patient(cx, || client.status()).await?;
        let shown = wanted(cx, status)?;
        cx.out.event("status", &shown);
        let text = describe::status(&shown, detailed(cx, &shown), ago::now_ms(), &look(cx));
        if cx.out.is_live() {
            // Home, the text with the rest of each line erased, and the rest of the screen erased: no flicker.
            cx.out.data(format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n") + "\x1b[K"));
        } else {
            cx.out.data(format!("{} UTC\n{text}\n", ago::utc(ago::now_ms())));
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Only the environments that were asked for.
fn wanted(cx: &Context, mut status: Status) -> Result<Status, Problem> {
    let project = match &cx.globals.project {
        Some(project) => Some(project.clone()),
        None => cx.project_file()?.map(|file| file.project_name()).transpose().ok().flatten(),
    };
    // In a project's directory its environments are meant, unless the server has none of them.
    if let Some(project) = project
        && status.environments.iter().any(|environment| environment.project == project)
    {
        status.environments.retain(|environment| environment.project == project);
    }
    let Some(name) = &cx.globals.env else { return Ok(status) };
    let known: Vec<String> = status.environments.iter().map(|e| e.environment.clone()).collect();
    status.environments.retain(|environment| environment.environment == *name);
    if !status.environments.is_empty() {
        return Ok(status);
    }
    let hint = match known.as_slice() {
        [] => format!("nothing was deployed yet: fairway deploy -e {name}"),
        known => format!("the environments are {}", known.join(", ")),
    };
    Err(Problem::usage("environment/unknown", format!("the server has no environment {name:?}"), hint))
}

fn look(cx: &Context) -> Look {
    Look { columns: cx.out.data_width(), colours: cx.out.colours() }
}

fn detailed(cx: &Context, status: &Status) -> bool {
    cx.globals.env.is_some() || status.environments.len() == 1
}
