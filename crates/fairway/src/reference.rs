//! The reference of the command line as Markdown, made from the command line itself.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

use crate::args::Cli;

#[must_use]
pub fn markdown() -> String {
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut text = String::from("# Command line\n\n");
    let _ = writeln!(text, "`fairway VERB [SERVICE] -e ENV`. Data goes to stdout, progress to stderr.\n");
    text.push_str("## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for (code, meaning) in EXIT_CODES {
        let _ = writeln!(text, "| {code} | {meaning} |");
    }
    text.push_str("\n## Options of every verb\n\n");
    options(&mut text, cli.get_arguments().filter(|arg| arg.is_global_set()));
    text.push_str("\n## Verbs\n\n| verb | purpose |\n|---|---|\n");
    for verb in verbs(&cli) {
        let name = verb.get_name();
        let _ = writeln!(text, "| [`{name}`](#fairway-{name}) | {} |", about(verb));
    }
    for verb in verbs(&cli) {
        section(&mut text, verb, &format!("fairway {}", verb.get_name()), 2);
    }
    text
}

const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "failed, nothing was changed"),
    ("2", "the command line or fairway.toml is wrong"),
    ("3", "findings or changes, where `--exit-code` asked for it"),
    ("4", "denied, or an approval is needed"),
    ("5", "rolled back, the version before serves"),
    ("6", "the outcome is not known"),
    ("7", "superseded or locked by a newer one"),
    ("130", "interrupted; what runs on the server goes on"),
];

fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn section(text: &mut String, command: &Command, name: &str, depth: usize) {
    let _ = writeln!(text, "\n{} {name}\n", "#".repeat(depth));
    let long = command.get_long_about().map_or_else(|| about(command), ToString::to_string);
    let _ = writeln!(text, "{long}\n");
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(text, "```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    options(text, command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help"));
    if let Some(after) = command.get_after_help().map(ToString::to_string) {
        let _ = writeln!(text, "\n```text\n{}\n```", after.trim_end());
    }
    for verb in verbs(command) {
        section(text, verb, &format!("{name} {}", verb.get_name()), depth + 1);
    }
}

fn options<'a>(text: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let args: Vec<&Arg> = args.filter(|arg| !arg.is_hide_set()).collect();
    if args.is_empty() {
        return;
    }
    text.push_str("| option | meaning |\n|---|---|\n");
    for arg in args {
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string);
        let help = help.unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let env = match arg.get_env() {
            Some(env) => format!(" (`{}`)", env.to_string_lossy()),
            None => String::new(),
        };
        let _ = writeln!(text, "| `{}` | {help}{env} |", spelled(arg).replace('|', "\\|"));
    }
}

fn spelled(arg: &Arg) -> String {
    let value = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>();
    let takes = arg.get_num_args().is_some_and(|range| range.takes_values());
    let value = if takes && !value.is_empty() { format!(" {}", value.join(" ")) } else { String::new() };
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}{value}"),
        (None, Some(long)) => format!("--{long}{value}"),
        (Some(short), None) => format!("-{short}{value}"),
        (None, None) if arg.is_required_set() => value.trim().to_owned(),
        (None, None) => format!("[{}]", value.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_section_with_options_and_an_example() {
        let text = markdown();
        for verb in verbs(&Cli::command()) {
            assert!(text.contains(&format!("\n## fairway {}\n", verb.get_name())), "{}", verb.get_name());
        }
        assert!(text.contains("| `--exit-code` |"), "options of a verb");
        assert!(text.contains("`FAIRWAY_ENV`"), "variables of options");
        assert!(text.contains("### fairway server install"), "verbs below a verb");
        assert!(!text.contains("file-server"), "roles are not for people");
        assert!(!text.contains('\x1b'), "no colours in a file");
    }
}
