//! `fairway smoke`

use fairway_api::JobRequest;

use crate::context::Context;
use crate::job;
use crate::problem::Outcome;

/// Run the smoke checks against the release that serves
///
/// Runs `smoke` of `[release]`. A rollout runs the same checks against the new version before any traffic.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway smoke -e production")]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        job::run(cx, &client, &target, &JobRequest::Smoke).await
    })
}
