//! `fairway reference`: the reference of the command line, for docs/reference/cli.md.

use crate::context::Context;
use crate::exit::Exit;
use crate::problem::Outcome;
use crate::reference;

/// Print the reference of the command line as Markdown
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, cx: &Context) -> Outcome {
    cx.out.raw(reference::markdown().as_bytes());
    Ok(Exit::Done)
}
