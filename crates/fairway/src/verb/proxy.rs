//! `fairway proxy`: the data plane, started by the server.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// The data plane; the server starts it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// State directory of the server
    #[arg(long)]
    state_dir: PathBuf,
    /// Descriptor of a listening socket of a proxy that died, to go on with
    #[arg(long, value_name = "FD")]
    socket: Vec<RawFd>,
}

pub fn run(args: Args) -> ExitCode {
    fairway_server::run_proxy(&args.state_dir, args.socket)
}
