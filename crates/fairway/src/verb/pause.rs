//! `fairway pause`

use fairway_api::Command;

use crate::context::Context;
use crate::problem::Outcome;

/// Hold the rollout where it is
///
/// Holds and bakes stand still, the traffic stays as it is split. A failure still undoes the rollout.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway pause -e production")]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    super::say(cx, &Command::Pause)
}
