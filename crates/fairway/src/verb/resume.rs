//! `fairway resume`

use fairway_api::Command;

use crate::context::Context;
use crate::problem::Outcome;

/// Let a paused rollout go on
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway resume -e production")]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    super::say(cx, &Command::Resume)
}
