//! Waits until an environment has become what a command asked for, where no rollout tells the end.

use std::time::{Duration, Instant};

use fairway_api::client::{Client, Target};
use fairway_api::{Accepted, EnvironmentStatus};
use serde_json::json;

use crate::context::Context;
use crate::duration;
use crate::exit::Exit;
use crate::follow::{self, Feed};
use crate::output::Paint;
use crate::problem::{Outcome, Problem};

/// Copies that start, become ready and drain one after the other; after this a person has to look.
const SETTLE_MAX: Duration = Duration::from_secs(15 * 60);
/// Events wake us at once; this is for what has no event of its own.
const ASK: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub enum Progress {
    Done(String),
    Waiting(String),
    /// It will not get there; with the reason.
    Failed(String),
}

/// Waits, and says that it is done. Ctrl-C detaches.
///
/// # Errors
/// When it does not get there, or the server stays away.
pub async fn settle(
    cx: &Context,
    client: &Client,
    target: &Target,
    accepted: &Accepted,
    look: impl Fn(&EnvironmentStatus) -> Progress,
) -> Outcome {
    let environment = &target.environment;
    let start = Instant::now();
    tokio::select! {
        done = wait(cx, client, target, accepted, look) => {
            let text = done?;
            let word = cx.out.colours().paint(Paint::Good, "done");
            cx.out.data(format!("{word}: {text} ({})", duration::show(start.elapsed())));
            cx.out.result(Exit::Done, &json!(accepted));
            Ok(Exit::Done)
        }
        _ = tokio::signal::ctrl_c() => {
            cx.out.progress(format!("detached: the server goes on; `fairway watch -e {environment}` comes back to it"));
            cx.out.result(Exit::Interrupted, &json!({ "detached": true }));
            Ok(Exit::Interrupted)
        }
    }
}

/// What became of it, in words.
///
/// # Errors
/// When it does not get there, or the server stays away.
pub async fn wait(
    cx: &Context,
    client: &Client,
    target: &Target,
    accepted: &Accepted,
    look: impl Fn(&EnvironmentStatus) -> Progress,
) -> Result<String, Problem> {
    let environment = &target.environment;
    let start = Instant::now();
    let mut feed = Feed::after(client, target, accepted.seq.saturating_sub(1));
    loop {
        let status = follow::patient(cx, || client.environment(target)).await?;
        match look(&status) {
            Progress::Done(text) => return Ok(text),
            Progress::Waiting(text) => cx.out.step(&text),
            Progress::Failed(why) => {
                return Err(Problem::failed(
                    "settle/failed",
                    why,
                    format!("fairway status -e {environment}"),
                ));
            }
        }
        if start.elapsed() > SETTLE_MAX {
            return Err(Problem::Failed {
                code: "settle/timeout",
                what: format!("not there after {}", duration::show(SETTLE_MAX)),
                causes: vec![status.summary],
                lines: Vec::new(),
                hint: Some(format!("the server goes on; fairway status -e {environment}")),
                exit: Exit::Unknown,
            });
        }
        tokio::select! {
            event = feed.next(cx, None) => {
                let event = event?;
                follow::show(cx, &event);
                if event.kind == "restart_abandoned" {
                    let hint = format!("the old copies stay; fairway logs -e {environment}");
                    return Err(Problem::failed("restart/abandoned", event.summary, hint));
                }
            }
            () = tokio::time::sleep(ASK) => {}
        }
    }
}
