//! `fairway retry`

use fairway_api::Command;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::follow;
use crate::problem::Outcome;

/// Try the last rollout that did not complete once more
///
/// The same release, the same bytes: nothing is built again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway retry -e production")]
pub struct Args {
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let accepted = super::send(cx, &client, &target, &Command::Retry).await?;
        if args.detach {
            cx.out.data(&accepted.summary);
            cx.out.result(Exit::Done, &json!(accepted));
            return Ok(Exit::Done);
        }
        follow::rollout(cx, &client, &target, &accepted).await
    })
}
