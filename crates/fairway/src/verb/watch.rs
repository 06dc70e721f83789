//! `fairway watch`

use fairway_api::Accepted;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::follow::{self, Feed};
use crate::problem::{Outcome, ask};

/// Attach to the rollout that is under way, or to what happens, until it ends
///
/// Exits as `fairway deploy` would. Ctrl-C detaches; the server goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway watch -e production")]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        // The position first: what ends after it was read is told by an event after it.
        let seq = ask(client.status()).await?.server.seq;
        let status = ask(client.environment(&target)).await?;
        if let Some(rollout) = &status.rollout {
            let accepted = Accepted {
                seq: seq + 1,
                rollout: Some(rollout.number),
                release: Some(rollout.to.clone()),
                job: None,
                summary: format!(
                    "rollout #{}: {} of {} by {}",
                    rollout.number, rollout.kind, rollout.to, rollout.requested_by
                ),
                warnings: Vec::new(),
            };
            cx.out.progress(&accepted.summary);
            return follow::rollout(cx, &client, &target, &accepted).await;
        }
        cx.out.progress(format!(
            "no rollout is under way in {}; showing what happens (Ctrl-C ends)",
            target.environment
        ));
        let mut feed = Feed::after(&client, &target, seq);
        loop {
            tokio::select! {
                event = feed.next(cx, None) => follow::show(cx, &event?),
                _ = tokio::signal::ctrl_c() => {
                    cx.out.result(Exit::Interrupted, &json!(null));
                    return Ok(Exit::Interrupted);
                }
            }
        }
    })
}
