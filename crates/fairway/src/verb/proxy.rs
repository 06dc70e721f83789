//! `fairway proxy`: the data plane, started by the server.

use std::path::PathBuf;
use std::process::ExitCode;

/// The data plane; the server starts it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// State directory of the server
    #[arg(long)]
    state_dir: PathBuf,
}

pub fn run(args: &Args) -> ExitCode {
    fairway_server::run_proxy(&args.state_dir)
}
