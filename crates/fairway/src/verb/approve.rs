//! `fairway approve`

use fairway_api::Command;

use crate::context::Context;
use crate::problem::Outcome;

/// Approve the rollout that waits for it
///
/// Whoever asked for the rollout, or wrote part of it, cannot approve it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway approve -e production")]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    super::say(cx, &Command::Approve)
}
