//! `fairway run`

use fairway_api::JobRequest;

use crate::context::Context;
use crate::job;
use crate::problem::Outcome;

/// Run a command once, with the environment of the release that serves
///
/// It runs on the server beside the services, with their variables and secrets. Its exit code is passed on.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway run -e staging -- bin/report --today\n  fairway run api -e production -- python3 manage.py shell -c 'print(1)'"
)]
pub struct Args {
    /// Whose variables and files it gets [default: those of the release]
    service: Option<String>,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let request = JobRequest::OneOff { service: args.service.clone(), command: args.command.clone() };
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        job::run(cx, &client, &target, &request).await
    })
}
