//! From the command line to an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use fairway_api::ApiError;

use crate::args::{Cli, Role, Verb, What};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Output;
use crate::problem::Outcome;
use crate::verb;

pub fn run(args: Vec<OsString>) -> ExitCode {
    match Cli::try_parse_from(&args) {
        Ok(cli) => dispatch(cli),
        Err(error) => refuse(&error, &args).into(),
    }
}

fn dispatch(cli: Cli) -> ExitCode {
    match cli.what {
        What::Verb(verb) => finish(&Context::new(cli.globals), verb).into(),
        What::Role(Role::Proxy(args)) => verb::proxy::run(args),
        What::Role(Role::Shim(args)) => verb::shim::run(&args),
        What::Role(Role::FileServer(args)) => verb::file_server::run(&args),
    }
}

fn finish(cx: &Context, verb: Verb) -> Exit {
    match perform(cx, verb) {
        Ok(exit) => exit,
        Err(problem) => {
            let exit = problem.exit();
            let mut errors = problem.report();
            cx.suggest(&mut errors);
            cx.name_environment(&mut errors);
            cx.out.errors(exit, &errors);
            exit
        }
    }
}

fn perform(cx: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Init(args) => verb::init::run(&args, cx),
        Verb::Validate(args) => verb::validate::run(&args, cx),
        Verb::Doctor(args) => verb::doctor::run(&args, cx),
        Verb::Schema(args) => verb::schema::run(&args, cx),
        Verb::Up(args) => verb::up::run(&args, cx),
        Verb::Plan(args) => verb::plan::run(&args, cx),
        Verb::Deploy(args) => verb::deploy::run(&args, cx),
        Verb::Promote(args) => verb::promote::run(&args, cx),
        Verb::Pause(args) => verb::pause::run(&args, cx),
        Verb::Resume(args) => verb::resume::run(&args, cx),
        Verb::Abort(args) => verb::abort::run(&args, cx),
        Verb::Retry(args) => verb::retry::run(&args, cx),
        Verb::Rollback(args) => verb::rollback::run(&args, cx),
        Verb::Approve(args) => verb::approve::run(&args, cx),
        Verb::Reject(args) => verb::reject::run(&args, cx),
        Verb::Status(args) => verb::status::run(&args, cx),
        Verb::History(args) => verb::history::run(&args, cx),
        Verb::Watch(args) => verb::watch::run(&args, cx),
        Verb::Monitor(args) => verb::monitor::run(&args, cx),
        Verb::Logs(args) => verb::logs::run(&args, cx),
        Verb::Scale(args) => verb::scale::run(&args, cx),
        Verb::Restart(args) => verb::restart::run(&args, cx),
        Verb::Exec(args) => verb::exec::run(&args, cx),
        Verb::Run(args) => verb::run::run(&args, cx),
        Verb::Config(args) => verb::config::run(&args, cx),
        Verb::Secret(args) => verb::secret::run(&args, cx),
        Verb::Certificate(args) => verb::certificate::run(&args, cx),
        Verb::Check(args) => verb::check::run(&args, cx),
        Verb::Smoke(args) => verb::smoke::run(&args, cx),
        Verb::Migrate(args) => verb::migrate::run(&args, cx),
        Verb::Seed(args) => verb::seed::run(&args, cx),
        Verb::Maintenance(args) => verb::maintenance::run(&args, cx),
        Verb::Purge(args) => verb::purge::run(&args, cx),
        Verb::Alert(args) => verb::alert::run(&args, cx),
        Verb::Slo(args) => verb::slo::run(&args, cx),
        Verb::Export(args) => verb::export::run(&args, cx),
        Verb::Gc(args) => verb::gc::run(&args, cx),
        Verb::Down(args) => verb::down::run(&args, cx),
        Verb::Server(args) => verb::server::run(&args, cx),
        Verb::Completions(args) => verb::completions::run(&args, cx),
        Verb::Reference(args) => verb::reference::run(&args, cx),
    }
}

/// Help goes out as it is; a command line that is wrong is told like every other error.
fn refuse(error: &clap::Error, args: &[OsString]) -> Exit {
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return Exit::Done;
    }
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Exit::Usage;
    }
    let code = if kind == ErrorKind::InvalidSubcommand {
        "usage/unknown-verb"
    } else if kind == ErrorKind::UnknownArgument {
        "usage/unknown-option"
    } else if matches!(kind, ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand) {
        "usage/missing"
    } else if kind == ErrorKind::ArgumentConflict {
        "usage/conflict"
    } else {
        "usage/invalid"
    };
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    Output::new(json).errors(Exit::Usage, &[told(error, code)]);
    Exit::Usage
}

fn told(error: &clap::Error, code: &str) -> ApiError {
    let text = error.render().to_string();
    // The first paragraph is the message; tips and usage follow it.
    let message = text.split("\n\n").next().unwrap_or(&text).trim_start_matches("error: ").trim();
    let suggested =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
            .into_iter()
            .find_map(|kind| {
                let value = error.get(kind)?;
                if let ContextValue::String(one) = value {
                    return Some(one.clone());
                }
                if let ContextValue::Strings(many) = value { many.last().cloned() } else { None }
            });
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let hint = match (suggested, usage) {
        (Some(suggested), _) => format!("did you mean {suggested:?}?"),
        (None, Some(usage)) => usage.to_owned(),
        (None, None) => "fairway help".to_owned(),
    };
    ApiError::new(code, message).hint(hint).exit(Exit::Usage.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(args: &[&str]) -> ApiError {
        let error = Cli::try_parse_from(args).unwrap_err();
        told(&error, "usage/x")
    }

    #[test]
    fn a_mistyped_verb_gets_a_suggestion() {
        let error = usage(&["fairway", "deplyo"]);
        assert_eq!(error.message, "unrecognized subcommand 'deplyo'");
        assert_eq!(error.hint.as_deref(), Some("did you mean \"deploy\"?"));
    }

    #[test]
    fn a_missing_argument_shows_how_it_is_written() {
        let error = usage(&["fairway", "scale", "api"]);
        assert!(error.message.contains("<N>"), "{}", error.message);
        assert!(error.hint.unwrap().starts_with("fairway scale"), "usage as the hint");
    }
}
