//! `fairway reject`

use fairway_api::Command;

use crate::context::Context;
use crate::problem::Outcome;

/// Refuse the rollout that waits for an approval; it ends
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway reject -e production --reason \"not before the sale ends\"")]
pub struct Args {
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    super::say(cx, &Command::Reject { reason: args.reason.clone() })
}
