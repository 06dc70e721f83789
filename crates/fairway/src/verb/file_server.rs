//! `fairway file-server`: serves the static files of one release, started by the server.

use std::path::PathBuf;
use std::process::ExitCode;

/// Serves a directory; the server starts it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to serve
    #[arg(long)]
    dir: PathBuf,
    /// Where to listen, on loopback
    #[arg(long)]
    port: u16,
    /// Answer unknown paths with index.html
    #[arg(long)]
    spa: bool,
}

pub fn run(args: &Args) -> ExitCode {
    fairway_server::run_file_server(&args.dir, args.port, args.spa)
}
