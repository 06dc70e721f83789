//! `fairway maintenance`

use fairway_api::Command;
use serde_json::json;

use crate::confirm;
use crate::context::Context;
use crate::exit::Exit;
use crate::problem::Outcome;

/// Show a maintenance page in place of the application
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway maintenance on -e production --message \"Back at 14:00 UTC\"\n  fairway maintenance off -e production"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Answer every request with 503 and a page
    On {
        /// What the page says
        #[arg(long, value_name = "TEXT", default_value = "We are back shortly.")]
        message: String,
        /// Do not ask for the environment's name
        #[arg(long)]
        yes: bool,
    },
    /// Serve again
    Off,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let What::On { message, yes } = &args.what else {
        return super::say(cx, &Command::MaintenanceOff);
    };
    cx.block_on(async {
        let client = cx.client()?;
        let target = cx.target(&client).await?;
        let what = format!("Visitors of {} will see only the maintenance page.", target.environment);
        confirm::environment(cx, &target.environment, &what, *yes)?;
        let command = Command::MaintenanceOn { message: message.clone() };
        let accepted = super::send(cx, &client, &target, &command).await?;
        cx.out.data(&accepted.summary);
        cx.out.result(Exit::Done, &json!(accepted));
        Ok(Exit::Done)
    })
}
