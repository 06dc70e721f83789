//! Runs the steps that are programs of their own, echoing what it runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::fault::{Context, Done, Fault};

/// The command line as one could type it.
pub fn shown(command: &Command) -> String {
    let word = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let mut line = word(command.get_program());
    if let Some(name) = std::path::Path::new(command.get_program()).file_name() {
        line = word(name);
    }
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&word(argument));
    }
    line
}

/// Runs to the end with the terminal's output and no input. Fails when the program does.
pub fn run(command: &mut Command) -> Done {
    announce(command);
    let status = command.stdin(Stdio::null()).status().context(shown(command))?;
    if status.success() { Ok(()) } else { Err(Fault::new(format!("{} ended with {status}", shown(command)))) }
}

/// The same, with what it prints on stderr: our stdout may be read by a program.
pub fn aside(command: &mut Command) -> Done {
    run(command.stdout(std::io::stderr()))
}

pub fn announce(command: &Command) {
    eprintln!("$ {}", shown(command));
}

/// Runs to the end, passes on everything that it prints as it comes, and gives each line to `watch` as well.
pub fn watched(command: &mut Command, watch: &(dyn Fn(&str) + Sync)) -> Done<bool> {
    announce(command);
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(shown(command))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        if let Some(out) = out {
            scope.spawn(|| pass_on(out, &mut std::io::stdout(), watch));
        }
        if let Some(err) = err {
            scope.spawn(|| pass_on(err, &mut std::io::stderr(), watch));
        }
    });
    let status = child.wait().context(shown(command))?;
    if !status.success() {
        eprintln!("{} ended with {status} after {:.0} s", shown(command), started.elapsed().as_secs_f64());
    }
    Ok(status.success())
}

fn pass_on(from: impl Read, to: &mut dyn Write, watch: &(dyn Fn(&str) + Sync)) {
    each_line(from, &mut |line| {
        watch(&without_colour(line));
        // A reader that went away ends the passing on, not the run.
        drop(to.write_all(line.as_bytes()).and_then(|()| to.flush()));
    });
}

/// Each line as it comes, with its end; what is not UTF-8 is replaced.
pub fn each_line(from: impl Read, take: &mut dyn FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        take(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

/// Without the escape sequences that colour a terminal (`ESC [ … letter`).
pub fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.trim_end().chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_could_type_it() {
        let mut command = Command::new("/usr/bin/env");
        command.args(["A=1", "it's", "", "x y"]);
        assert_eq!(shown(&command), r"env A=1 'it'\''s' '' 'x y'");
    }

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(
            without_colour("\u{1b}[32;1m  Summary\u{1b}[0m [1s] 3 passed\n"),
            "  Summary [1s] 3 passed"
        );
    }

    #[test]
    fn every_line_of_both_streams_is_seen() {
        let seen = std::sync::Mutex::new(Vec::new());
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let ok = watched(&mut command, &|line| seen.lock().unwrap().push(line.to_owned())).unwrap();
        assert!(!ok);
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert_eq!(seen, ["one", "two"]);
    }
}
