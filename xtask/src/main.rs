//! Work on Fairway itself: `cargo xtask demo`, `cargo xtask test`. Nothing here ships.

mod bench;
mod checks;
mod demo;
mod e2e;
mod exported;
mod fault;
mod fuzz;
mod home;
mod setup;
mod shell;
mod sim;
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
    Demo(demo::Arguments),
    Test(test::Arguments),
    E2e(e2e::Arguments),
    Sim(sim::Arguments),
    Fuzz(fuzz::Arguments),
    Bench(bench::Arguments),
    Tidy(tidy::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.verb {
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::E2e(arguments) => e2e::run(&arguments),
        Verb::Sim(arguments) => sim::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Tidy(arguments) => tidy::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            home::wait_if_interrupted();
            eprint!("{fault}");
            ExitCode::FAILURE
        }
    }
}
