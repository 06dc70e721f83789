//! `fairway seed`

use fairway_api::JobRequest;

use crate::context::Context;
use crate::job;
use crate::problem::Outcome;

/// Fill the environment with its seed data; refused in production
///
/// Runs `seed` of `[release]` with the environment of the release that serves.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway seed -e staging")]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        job::run(cx, &client, &target, &JobRequest::Seed).await
    })
}
