//! `fairway abort`

use fairway_api::Command;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::follow;
use crate::problem::{Outcome, Problem};

/// Undo the rollout that is under way: all traffic back to the version before
///
/// Traffic goes back at once; then the new copies are drained and stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway abort -e production --reason \"checkout is slow\"")]
pub struct Args {
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
        let command = Command::Abort { reason: args.reason.clone() };
        let accepted = super::send(cx, &client, &target, &command).await?;
        if args.detach {
            cx.out.data(&accepted.summary);
            cx.out.result(Exit::Done, &json!(accepted));
            return Ok(Exit::Done);
        }
        match follow::rollout(cx, &client, &target, &accepted).await {
            // It was asked for: that it was undone is the success.
            Err(Problem::Rollout { rollout, .. })
                if matches!(Exit::of_outcome(&rollout.outcome), Exit::RolledBack | Exit::Failed) =>
            {
                let serves = match &rollout.from {
                    Some(from) => format!("; {from} serves"),
                    None => String::new(),
                };
                cx.out.data(format!("rollout #{} of {} is undone{serves}", rollout.number, rollout.to));
                cx.out.result(Exit::Done, &json!(rollout));
                Ok(Exit::Done)
            }
            other => other,
        }
    })
}
