//! Work on Fairway itself: `cargo xtask demo`, `cargo xtask test`. Nothing here ships.

mod checks;
mod fault;
mod setup;
mod shell;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Work on Fairway itself.
///
/// On a fresh clone, `cargo xtask demo` shows what Fairway does and `cargo xtask test` proves it.
/// Both set up what is missing.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Test(test::Arguments),
    Tidy(tidy::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.verb {
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Tidy(arguments) => tidy::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprint!("{fault}");
            ExitCode::FAILURE
        }
    }
}
