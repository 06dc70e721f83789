//! `fairway purge`

use fairway_api::{PurgeReport, PurgeRequest};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::problem::{Outcome, Problem};

/// Empty the response cache, and what stands before the environment
///
/// Answers that the proxy has kept are not given any more, and the hook of [deploy.purge] is asked, which empties a CDN
/// as a whole. How the hook fares is shown by `fairway status` and `fairway watch`; who asked, and what came of it, by
/// `fairway history`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway purge -e production\n  fairway purge /assets /index.html -e production\n  fairway purge --service web -e production"
)]
pub struct Args {
    /// Only answers of these paths, and below them
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Only answers of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let request = PurgeRequest { service: args.service.clone(), paths: args.paths.clone() };
        let report = client
            .purge(&target, &request)
            .await
            .map_err(|error| Problem::of_change(error, Some(&target.environment)))?;
        cx.out.data(describe(&report, &target.environment));
        cx.out.result(Exit::Done, &json!(report));
        Ok(Exit::Done)
    })
}

fn describe(report: &PurgeReport, environment: &str) -> String {
    let kept = match report.answers {
        0 => "nothing was kept".to_owned(),
        1 => "1 kept answer is gone".to_owned(),
        count => format!("{count} kept answers are gone"),
    };
    let hook = if report.hook {
        format!("the purge hook is asked: `fairway status -e {environment}` says how that goes")
    } else {
        "there is no [deploy.purge] to ask".to_owned()
    };
    format!("{kept}; {hook}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said() {
        let report = |answers, hook| describe(&PurgeReport { answers, hook, seq: 1 }, "production");
        assert_eq!(report(0, false), "nothing was kept; there is no [deploy.purge] to ask");
        assert!(report(2, true).starts_with("2 kept answers are gone; the purge hook is asked"));
    }
}
