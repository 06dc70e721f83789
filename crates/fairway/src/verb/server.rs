//! `fairway server`

mod install;

use std::net::SocketAddr;

use fairway_server::ServerOptions;
use serde_json::json;

use crate::context::Context;
use crate::endpoint;
use crate::exit::Exit;
use crate::problem::{Outcome, Problem};

/// Run the server, or install it as a service of the system
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway server run\n  fairway server run --state ./state --listen 127.0.0.1:7480\n  sudo fairway server install\n  fairway server install --print"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Run the server in the foreground; SIGTERM ends it, what it runs goes on
    ///
    /// Its state is in --state [default: /var/lib/fairway for root, otherwise $XDG_STATE_HOME/fairway].
    Run {
        /// Answer GET /metrics here too, besides the socket in the state directory
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Write a systemd unit, and start it: for the machine as root, otherwise for you
    Install(install::Args),
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    match &args.what {
        What::Run { listen } => {
            let state_dir = cx.globals.state.clone().unwrap_or_else(endpoint::default_state_dir);
            let options = ServerOptions { state_dir, listen: *listen };
            fairway_server::run(&options).map_err(|error| Problem::Refused(Box::new(error.0)))?;
            cx.out.result(Exit::Done, &json!(null));
            Ok(Exit::Done)
        }
        What::Install(args) => install::run(args, cx),
    }
}
