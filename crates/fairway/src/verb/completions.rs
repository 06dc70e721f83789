//! `fairway completions`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::problem::Outcome;

/// Print the completions for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fairway completions bash > /etc/bash_completion.d/fairway\n  fairway completions fish > ~/.config/fish/completions/fairway.fish"
)]
pub struct Args {
    /// Which shell
    shell: Shell,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fairway", &mut script);
    cx.out.raw(&script);
    Ok(Exit::Done)
}
