//! Fairway carries a project from commit to production, and keeps it healthy there.

mod ago;
mod app;
mod args;
mod capture;
mod changes;
mod confirm;
mod context;
mod duration;
mod endpoint;
mod evidence;
mod exit;
mod follow;
mod git;
mod job;
mod ladder;
mod output;
mod private_server;
mod problem;
mod reference;
mod settle;
mod verb;

fn main() -> std::process::ExitCode {
    app::run(std::env::args_os().collect())
}
