//! `fairway shim`: the supervisor of one instance, started by the server.

use std::path::PathBuf;
use std::process::ExitCode;

/// The supervisor of one instance; the server starts it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the instance
    #[arg(long)]
    dir: PathBuf,
}

pub fn run(args: &Args) -> ExitCode {
    fairway_server::run_shim(&args.dir)
}
