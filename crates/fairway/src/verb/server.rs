//! `fairway server`

mod install;
mod upgrade;

use std::net::SocketAddr;

use fairway_server::ServerOptions;
use serde_json::json;

use crate::context::Context;
use crate::endpoint;
use crate::exit::Exit;
use crate::problem::{Outcome, Problem};

/// Run the server, install it as a service of the system, or upgrade it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway server run\n  fairway server run --state ./state --listen 127.0.0.1:7480\n  fairway server run --listen 127.0.0.1:7480 --take-samples\n  sudo fairway server install\n  fairway server install --print\n  sudo fairway server upgrade"
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
        /// Answer /metrics and Prometheus' API here too, to whoever can connect; commands stay on the socket in the
        /// state directory
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
        /// Take samples there as well (remote write, OTLP). Gates, alerts and autoscaling go by them, and every user of
        /// this machine can send some: only where all of them may decide about a release
        #[arg(long, requires = "listen")]
        take_samples: bool,
        /// Whether this program could go on with the state; reads it, and changes nothing
        #[arg(long, hide = true)]
        check: bool,
        /// What the program before this one left open
        #[arg(long, hide = true, value_name = "JSON")]
        handed: Option<String>,
        /// What to watch instead of serving
        #[arg(long, hide = true, value_name = "JSON")]
        guarding: Option<String>,
    },
    /// Go on with another version of Fairway, without losing a connection
    ///
    /// The new program is tried first. The proxy hands its sockets over: the new one serves before the old one stops
    /// accepting, and what is under way there ends in its own time. Then the server becomes the new program; services
    /// and rollouts go on. Where something fails or crashes, the old version goes on.
    #[command(
        after_help = "Examples:\n  sudo fairway server upgrade\n  fairway server upgrade --binary ./fairway-0.2.0"
    )]
    Upgrade(upgrade::Args),
    /// Write a systemd unit, and start it: for the machine as root, otherwise for you
    Install(install::Args),
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    match &args.what {
        What::Run { listen, take_samples, check, handed, guarding } => {
            if let Some(address) = listen.filter(|address| *take_samples && !address.ip().is_loopback()) {
                return Err(Problem::usage(
                    "server/take-samples",
                    format!("samples are not taken on {address}: nobody is asked there who they are"),
                    "listen on 127.0.0.1; a proxy or a tunnel that knows its clients can pass them on",
                ));
            }
            let state_dir = cx.globals.state.clone().unwrap_or_else(endpoint::default_state_dir);
            let handed = handed.clone();
            let guarding = guarding.clone();
            let options =
                ServerOptions { state_dir, listen: *listen, take_samples: *take_samples, handed, guarding };
            if *check {
                let state = fairway_server::check(&options);
                let state = state.map_err(|error| Problem::Refused(Box::new(error.0)))?;
                cx.out
                    .data(format!("{} events of {} environments can be read", state.seq, state.environments));
                cx.out.result(Exit::Done, &json!(state));
                return Ok(Exit::Done);
            }
            fairway_server::run(&options).map_err(|error| Problem::Refused(Box::new(error.0)))?;
            cx.out.result(Exit::Done, &json!(null));
            Ok(Exit::Done)
        }
        What::Install(args) => install::run(args, cx),
        What::Upgrade(args) => upgrade::run(args, cx),
    }
}
