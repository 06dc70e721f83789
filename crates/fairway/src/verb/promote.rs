//! `fairway promote`

use fairway_api::Command;

use crate::context::Context;
use crate::problem::Outcome;

/// Move the rollout on to its next step
///
/// Ends the hold of the current step, or the wait for a promotion. A rollout that is paused because it could not be
/// judged goes on without that evidence. Readiness and deadlines hold all the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fairway promote -e production\n  fairway promote -e production --full")]
pub struct Args {
    /// Skip the steps that are left: all traffic to the new version
    #[arg(long)]
    full: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    super::say(cx, &Command::Promote { full: args.full })
}
