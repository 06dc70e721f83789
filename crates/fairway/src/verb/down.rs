//! `fairway down`

use fairway_api::{Command, EnvironmentStatus};

use crate::confirm;
use crate::context::Context;
use crate::problem::Outcome;
use crate::settle::{Progress, settle};

/// Stop everything that an environment runs
///
/// Requests under way are answered first. The releases and the record stay: `fairway rollback` brings one back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fairway down -e staging")]
pub struct Args {
    /// Do not ask for the environment's name
    #[arg(long)]
    yes: bool,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let what = format!("This stops everything that {} runs.", target.environment);
        confirm::environment(cx, &target.environment, &what, args.yes)?;
        let accepted = super::send(cx, &client, &target, &Command::Down).await?;
        if args.detach {
            cx.out.data(&accepted.summary);
            cx.out.result(crate::exit::Exit::Done, &serde_json::json!(accepted));
            return Ok(crate::exit::Exit::Done);
        }
        settle(cx, &client, &target, &accepted, look).await
    })
}

/// What is left of an environment that was taken down.
pub fn look(status: &EnvironmentStatus) -> Progress {
    let left: Vec<&str> = status
        .services
        .iter()
        .flat_map(|service| &service.instances)
        .map(|instance| instance.id.as_str())
        .collect();
    match left.as_slice() {
        [] => Progress::Done(format!("{} is down", status.environment)),
        [one] => Progress::Waiting(format!("{one} stops")),
        many => Progress::Waiting(format!("{} copies stop", many.len())),
    }
}
