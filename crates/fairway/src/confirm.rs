//! Asks before a change that a tired person may not mean.

use std::io::{self, BufRead, IsTerminal};

use crate::context::Context;
use crate::output::Paint;
use crate::problem::Problem;

/// Asks for the environment's name. `yes` is `--yes`.
///
/// # Errors
/// When it is not given, or when there is nobody to ask.
pub fn environment(cx: &Context, environment: &str, what: &str, yes: bool) -> Result<(), Problem> {
    if yes || !cx.asks_for_confirmation(environment) {
        return Ok(());
    }
    if cx.out.is_json() || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Problem::NotConfirmed { environment: environment.to_owned() });
    }
    let name = cx.out.progress_colours().paint(Paint::Bold, environment);
    eprint!("{what}\nType the environment's name to go on ({name}): ");
    if read_line() == environment { Ok(()) } else { Err(Problem::Declined) }
}

/// Asks yes or no; no when nothing is typed.
///
/// # Errors
/// When the answer is no, or when there is nobody to ask.
pub fn question(cx: &Context, question: &str, yes: bool) -> Result<(), Problem> {
    if yes {
        return Ok(());
    }
    if cx.out.is_json() || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Problem::NotConfirmed { environment: question.trim_end_matches('?').to_owned() });
    }
    eprint!("{question} [y/N] ");
    if matches!(read_line().as_str(), "y" | "yes") { Ok(()) } else { Err(Problem::Declined) }
}

/// Standard input as a line of text without echo, for a secret.
///
/// # Errors
/// When there is no terminal.
pub fn hidden(prompt: &str) -> io::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    eprint!("{prompt}");
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    eprintln!();
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn read_line() -> String {
    let mut line = String::new();
    // At the end of input nothing was confirmed, and an empty answer says so.
    let _ = io::stdin().lock().read_line(&mut line);
    line.trim().to_owned()
}
