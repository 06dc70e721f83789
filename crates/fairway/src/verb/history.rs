//! `fairway history`

use fairway_api::{ReleaseInfo, RolloutInfo};
use serde_json::json;

use crate::ago;
use crate::context::Context;
use crate::duration;
use crate::exit::Exit;
use crate::output::{Colours, Paint, Table, printable};
use crate::problem::{Outcome, ask};

/// Rollouts that are over, newest first
///
/// `*` marks a release that `fairway rollback` can go to.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway history -e production\n  fairway history -e production --since 2d"
)]
pub struct Args {
    /// How many at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Only those that ended within this time, such as 2d
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    since: Option<std::time::Duration>,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let mut history = ask(client.history(&target)).await?;
        let status = ask(client.environment(&target)).await?;
        let now = ago::now_ms();
        let from = args.since.map_or(0, |since| now.saturating_sub(since.as_millis() as u64));
        history.retain(|rollout| rollout.ended_ms >= from);
        history.sort_by_key(|rollout| std::cmp::Reverse(rollout.number));
        history.truncate(args.limit);
        if history.is_empty() {
            cx.out.progress(format!("no rollout of {} is over", target.environment));
        } else {
            cx.out.data(table(&history, &status.retained, now, cx.out.colours()));
        }
        cx.out.result(Exit::Done, &json!(history));
        Ok(Exit::Done)
    })
}

fn table(history: &[RolloutInfo], retained: &[ReleaseInfo], now_ms: u64, colours: Colours) -> String {
    let mut table = Table::default();
    for rollout in history {
        let mark = if retained.iter().any(|release| release.name == rollout.to) { "*" } else { "" };
        let outcome = match Exit::of_outcome(&rollout.outcome) {
            Exit::Done => colours.paint(Paint::Good, &rollout.outcome),
            Exit::Superseded => colours.paint(Paint::Dim, &rollout.outcome),
            Exit::Failed
            | Exit::Usage
            | Exit::Findings
            | Exit::Denied
            | Exit::RolledBack
            | Exit::Unknown
            | Exit::Interrupted
            | Exit::OfCommand(_) => colours.paint(Paint::Bad, &rollout.outcome),
        };
        let why = rollout.cause.as_ref().or(rollout.reason.as_ref()).or(rollout.title.as_ref());
        table.row([
            format!("#{}", rollout.number),
            format!("{}{mark}", rollout.to),
            rollout.kind.clone(),
            rollout.strategy.clone(),
            outcome,
            ago::ago(rollout.ended_ms, now_ms),
            duration::show_ms(rollout.requested_ms, rollout.ended_ms),
            rollout.requested_by.clone(),
            why.map(|text| printable(text)).unwrap_or_default(),
        ]);
    }
    table.render()
}
