//! `fairway file-server`: serves the static files of one release, started by the server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Serves a directory; the server starts it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to serve: the site that this document describes
    #[arg(long, value_name = "FILE")]
    site: Option<PathBuf>,
    /// What to serve: every file of a directory
    #[arg(long, required_unless_present = "site", conflicts_with = "site")]
    dir: Option<PathBuf>,
    /// Where to listen, on loopback
    #[arg(long)]
    port: u16,
    /// Answer visits to unknown paths with index.html
    #[arg(long, conflicts_with = "site")]
    spa: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let source = args.site.as_deref().or(args.dir.as_deref()).unwrap_or_else(|| Path::new("."));
    fairway_server::run_file_server(source, args.port, args.spa)
}
