//! `fairway resume`

use fairway_api::Command;

use crate::context::Context;
use crate::problem::Outcome;

/// Let a paused rollout go on
///
/// One that is paused because it could not be judged is given another hold to be judged in; `fairway promote` goes on
/// without.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway resume -e production")]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    super::say(cx, &Command::Resume)
}
