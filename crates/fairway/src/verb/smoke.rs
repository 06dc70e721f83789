//! `fairway smoke`

use fairway_api::JobRequest;

use crate::context::Context;
use crate::job;
use crate::problem::{Outcome, Problem, ask};

/// Run the smoke checks now
///
/// Runs `smoke` of `[release]` against the release that serves; while a rollout is under way, against the version that
/// it brings in, as the rollout itself does before any traffic.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fairway smoke -e production\n  fairway smoke -e production --candidate")]
pub struct Args {
    /// Only against a version that is being brought in; refused when there is none
    #[arg(long)]
    candidate: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        if args.candidate {
            let status = ask(client.environment(&target)).await?;
            if status.rollout.is_none() {
                return Err(Problem::failed(
                    "smoke/no-candidate",
                    "no version is being brought in",
                    format!("fairway smoke -e {} checks the one that serves", target.environment),
                ));
            }
        }
        job::run(cx, &client, &target, &JobRequest::Smoke).await
    })
}
