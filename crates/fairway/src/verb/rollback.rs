//! `fairway rollback`

use fairway_api::Command;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::follow;
use crate::problem::Outcome;

/// Go back to an earlier release, without a build
///
/// To the release before while it is still warm, this is one change of the route table. It never asks back: undoing
/// must be quick. Without a release it goes to what the serving one replaced; `fairway history` lists the others.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway rollback -e production\n  fairway rollback r41 -e production --reason \"orders fail\""
)]
pub struct Args {
    /// Where to, such as r12 [default: the release before]
    release: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let command = Command::Rollback { release: args.release.clone(), reason: args.reason.clone() };
        let accepted = super::send(cx, &client, &target, &command).await?;
        if args.detach {
            cx.out.data(&accepted.summary);
            cx.out.result(Exit::Done, &json!(accepted));
            return Ok(Exit::Done);
        }
        follow::rollout(cx, &client, &target, &accepted).await
    })
}
