//! `fairway check`

use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table};
use crate::problem::{Outcome, ask};

/// Probe everything now: every copy, every route, the proxy
///
/// Asks instead of remembering. Exits with 1 when a probe fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway check -e production")]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let results = ask(client.check(&target)).await?;
        let colours = cx.out.colours();
        let mut table = Table::default();
        for result in &results {
            let word =
                if result.ok { colours.paint(Paint::Good, "ok") } else { colours.paint(Paint::Bad, "fail") };
            table.row([word, result.what.clone(), result.detail.clone()]);
        }
        let failed = results.iter().filter(|result| !result.ok).count();
        let exit = if failed == 0 { Exit::Done } else { Exit::Failed };
        if results.is_empty() {
            cx.out.progress(format!("{} runs nothing that could be probed", target.environment));
        } else {
            cx.out.data(table.render());
        }
        if failed > 0 {
            cx.out.progress(format!(
                "{failed} of {} probes failed; fairway status -e {}",
                results.len(),
                target.environment
            ));
        }
        cx.out.result(exit, &json!(results));
        Ok(exit)
    })
}
