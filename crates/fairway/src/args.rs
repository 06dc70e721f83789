//! The command line as it was typed. Nothing is looked up here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::verb;

/// Carries a project from commit to production, and keeps it healthy there.
#[derive(Debug, Parser)]
#[command(
    name = "fairway",
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Start here:\n  \
        fairway init                     write fairway.toml for the project in this directory\n  \
        fairway up                       run it for development, reload on change\n  \
        fairway deploy -e production     build, migrate, roll; undone by itself when it goes wrong\n  \
        fairway status                   what runs where, since when, by whom\n  \
        fairway rollback -e production   back to the release before, without a build\n\n\
        Exit codes: 0 done, 1 failed and nothing changed, 2 usage or configuration, 3 findings or changes,\n\
        4 denied or approval needed, 5 rolled back, 6 outcome unknown, 7 superseded, 130 interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub what: What,
}

const HEADING: &str = "Options of every verb";

#[derive(Clone, Debug, Default, Args)]
pub struct Globals {
    /// Where the project is; its fairway.toml is looked for here and above [default: here]
    #[arg(short = 'C', long, global = true, value_name = "DIR", help_heading = HEADING)]
    pub project_dir: Option<PathBuf>,
    /// The configuration, when it is not fairway.toml in the project
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    pub file: Option<PathBuf>,
    /// The project, where there is no fairway.toml to tell its name
    #[arg(long, global = true, value_name = "NAME", env = "FAIRWAY_PROJECT", hide_env_values = true, help_heading = HEADING)]
    pub project: Option<String>,
    /// The environment; never production unless you say so
    #[arg(short, long, global = true, value_name = "ENV", env = "FAIRWAY_ENV", hide_env_values = true, help_heading = HEADING)]
    pub env: Option<String>,
    /// The server: http://HOST:PORT or the path of its socket
    #[arg(long, global = true, value_name = "URL|SOCKET", env = "FAIRWAY_SERVER", hide_env_values = true, help_heading = HEADING)]
    pub server: Option<String>,
    /// The state directory of the server
    #[arg(long, global = true, value_name = "DIR", env = "FAIRWAY_STATE", hide_env_values = true, help_heading = HEADING)]
    pub state: Option<PathBuf>,
    /// Print JSON, one object a line, the last one the result
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum What {
    #[command(flatten)]
    Verb(Verb),
    #[command(flatten)]
    Role(Role),
}

/// In the order in which a project meets them.
#[derive(Debug, Subcommand)]
pub enum Verb {
    Init(verb::init::Args),
    Validate(verb::validate::Args),
    Doctor(verb::doctor::Args),
    Schema(verb::schema::Args),
    Up(verb::up::Args),

    Plan(verb::plan::Args),
    Deploy(verb::deploy::Args),
    Promote(verb::promote::Args),
    Pause(verb::pause::Args),
    Resume(verb::resume::Args),
    Abort(verb::abort::Args),
    Retry(verb::retry::Args),
    Rollback(verb::rollback::Args),
    Approve(verb::approve::Args),
    Reject(verb::reject::Args),

    Status(verb::status::Args),
    History(verb::history::Args),
    Watch(verb::watch::Args),
    Monitor(verb::monitor::Args),
    Logs(verb::logs::Args),

    Scale(verb::scale::Args),
    Restart(verb::restart::Args),
    Exec(verb::exec::Args),
    Run(verb::run::Args),
    Config(verb::config::Args),
    Secret(verb::secret::Args),
    Certificate(verb::certificate::Args),
    Check(verb::check::Args),
    Smoke(verb::smoke::Args),
    Migrate(verb::migrate::Args),
    Seed(verb::seed::Args),
    Maintenance(verb::maintenance::Args),
    Purge(verb::purge::Args),
    Alert(verb::alert::Args),
    Slo(verb::slo::Args),
    Export(verb::export::Args),
    Gc(verb::gc::Args),
    Down(verb::down::Args),

    Server(verb::server::Args),
    Completions(verb::completions::Args),

    #[command(hide = true)]
    Reference(verb::reference::Args),
}

/// What the same binary is in other processes. The server starts them; people do not.
#[derive(Debug, Subcommand)]
pub enum Role {
    #[command(hide = true)]
    Proxy(verb::proxy::Args),
    #[command(hide = true)]
    Shim(verb::shim::Args),
    #[command(hide = true)]
    FileServer(verb::file_server::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_says_what_it_does_and_shows_an_example() {
        let mut cli = Cli::command();
        cli.build();
        for verb in cli.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
            let name = verb.get_name();
            assert!(verb.get_about().is_some(), "{name} has no help");
            let after = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains(&format!("fairway {name}")), "{name} has no example");
        }
    }

    #[test]
    fn every_option_and_argument_says_what_it_is() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} of {} has no help", arg.get_id(), command.get_name());
            }
            command.get_subcommands().filter(|c| c.get_name() != "help").for_each(check);
        }
        let mut cli = Cli::command();
        cli.build();
        check(&cli);
    }
}
