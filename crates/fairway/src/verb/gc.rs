//! `fairway gc`

use fairway_api::GcReport;
use serde_json::json;

use crate::confirm;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Table;
use crate::problem::{Outcome, Problem};

/// Remove what no release needs any more; shows what and why first
///
/// Nothing that runs, is warm, or that a rollback can go to is ever removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fairway gc --dry-run\n  fairway gc --yes")]
pub struct Args {
    /// Show what would be removed, and why
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let found = client.gc(true).await.map_err(Problem::of_query)?;
        if found.items.is_empty() {
            cx.out.progress("nothing to remove");
            cx.out.result(Exit::Done, &json!(found));
            return Ok(Exit::Done);
        }
        cx.out.data(describe(&found));
        if args.dry_run {
            cx.out.result(Exit::Done, &json!(found));
            return Ok(Exit::Done);
        }
        confirm::question(cx, &format!("Remove {} items?", found.items.len()), args.yes)?;
        let done = client.gc(false).await.map_err(|error| Problem::of_change(error, None))?;
        cx.out.progress(format!("removed {} items, {} freed", done.items.len(), bytes(done.bytes)));
        cx.out.result(Exit::Done, &json!(done));
        Ok(Exit::Done)
    })
}

fn describe(report: &GcReport) -> String {
    let mut table = Table::default();
    for item in &report.items {
        table.row([item.what.clone(), bytes(item.bytes), item.why.clone()]);
    }
    format!("{}\n{} items, {}", table.render(), report.items.len(), bytes(report.bytes))
}

/// `1.5 MiB`
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(3 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
        );
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
