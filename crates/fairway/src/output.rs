//! Data on stdout, progress on stderr; or, with `--json`, one JSON object a line that ends in one `result`.

mod error;
mod paint;
mod table;
mod wrap;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use fairway_api::ApiError;
use serde::Serialize;
use serde_json::Value;

pub use error::render as render_error;
pub use paint::{Colours, Paint, cut, printable, width};
pub use table::Table;
pub use wrap::{fold, wrap};

use crate::exit::Exit;

/// Where a terminal does not say how wide and how high it is.
const COLUMNS_DEFAULT: usize = 80;
const ROWS_DEFAULT: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Human,
    Json,
}

#[derive(Debug)]
pub struct Output {
    mode: Mode,
    stdout: Colours,
    stderr: Colours,
    /// Whether stderr is a terminal on which a line can be written over.
    live: bool,
    step: RefCell<Step>,
}

/// What stands in the live lines, or was the last plain line of a step.
#[derive(Debug, Default)]
struct Step {
    /// How wide each line on the screen is; none when nothing stands there.
    drawn: Vec<usize>,
    last: String,
}

impl Step {
    /// The live lines over what stands there, in one piece so that nothing flickers: each line is written over its
    /// predecessor, and only what is left of that is erased. The cursor stays at the end of the last line.
    fn draw(&mut self, before: &str, columns: usize, rows: usize) -> String {
        let mut text = self.rewind(columns);
        for line in before.lines() {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        // One less each: a line that fills the last column, or the last row, would make the terminal scroll.
        let (columns, rows) = (columns.saturating_sub(1).max(1), rows.saturating_sub(1).max(1));
        let lines: Vec<String> = self.last.lines().take(rows).map(|line| cut(line, columns)).collect();
        self.drawn = lines.iter().map(|line| width(line)).collect();
        let _ = write!(text, "{}\x1b[K\x1b[J", lines.join("\x1b[K\n"));
        text
    }

    /// To the start of the first live line. A terminal that became narrower has broken the longer lines.
    fn rewind(&mut self, columns: usize) -> String {
        let rows: usize = self.drawn.drain(..).map(|line| line.max(1).div_ceil(columns.max(1))).sum();
        match rows.saturating_sub(1) {
            0 => "\r".to_owned(),
            up => format!("\x1b[{up}A\r"),
        }
    }
}

impl Output {
    #[must_use]
    pub fn new(json: bool) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            mode: if json { Mode::Json } else { Mode::Human },
            stdout: Colours::of(io::stdout().is_terminal() && !dumb),
            stderr: Colours::of(stderr_is_terminal && !dumb),
            live: stderr_is_terminal && !dumb && !json,
            step: RefCell::default(),
        }
    }

    #[must_use]
    pub fn is_json(&self) -> bool {
        self.mode == Mode::Json
    }

    /// Whether a line can be written over, and so is worth being written often.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Colours of what is printed with [`Output::data`].
    #[must_use]
    pub fn colours(&self) -> Colours {
        self.stdout
    }

    /// Colours of what is printed with [`Output::progress`] and [`Output::step`].
    #[must_use]
    pub fn progress_colours(&self) -> Colours {
        self.stderr
    }

    /// The answer to what was asked, for people. With `--json` the result says it instead.
    pub fn data(&self, text: impl AsRef<str>) {
        if self.mode == Mode::Human {
            self.clear();
            to_stdout(text.as_ref());
        }
    }

    /// The answer as it is, without a line end: generated files, the output of a command.
    pub fn raw(&self, bytes: &[u8]) {
        self.clear();
        let mut stdout = io::stdout().lock();
        quit_when_nobody_reads(stdout.write_all(bytes).and_then(|()| stdout.flush()));
    }

    /// What goes on, once: stays on the screen.
    pub fn progress(&self, text: impl AsRef<str>) {
        match self.mode {
            Mode::Human => {
                self.clear();
                to_stderr(text.as_ref());
            }
            Mode::Json => self.event("progress", &text.as_ref()),
        }
    }

    /// What goes on just now: written over by the next one on a terminal, otherwise a line each time it changes.
    pub fn step(&self, text: &str) {
        if self.mode == Mode::Json {
            return;
        }
        let mut step = self.step.borrow_mut();
        if step.last == text && (!step.drawn.is_empty() || !self.live) {
            return;
        }
        text.clone_into(&mut step.last);
        if self.live {
            self.redraw(&mut step, "");
        } else {
            drop(step);
            to_stderr(text);
        }
    }

    /// As [`Output::progress`], for people: the live lines stay, below it.
    pub fn above(&self, text: &str) {
        let mut step = self.step.borrow_mut();
        if step.drawn.is_empty() {
            drop(step);
            to_stderr(text);
        } else {
            self.redraw(&mut step, text);
        }
    }

    fn redraw(&self, step: &mut Step, before: &str) {
        let (columns, rows) = size(io::stderr()).unwrap_or((COLUMNS_DEFAULT, ROWS_DEFAULT));
        let text = step.draw(before, columns, rows);
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// How wide the live lines can be.
    #[must_use]
    pub fn live_width(&self) -> usize {
        size(io::stderr()).map_or(COLUMNS_DEFAULT, |(columns, _)| columns).saturating_sub(1)
    }

    /// How wide data may be: what goes into a file or a pipe is not broken, so that `grep` finds it.
    #[must_use]
    pub fn data_width(&self) -> usize {
        if !io::stdout().is_terminal() {
            return usize::MAX;
        }
        size(io::stdout()).map_or(COLUMNS_DEFAULT, |(columns, _)| columns)
    }

    /// As [`Output::data_width`], of errors and progress.
    fn error_width(&self) -> usize {
        if io::stderr().is_terminal() { self.live_width() } else { usize::MAX }
    }

    /// Takes the live lines off the screen, before something else is written there.
    pub fn clear(&self) {
        let mut step = self.step.borrow_mut();
        if !step.drawn.is_empty() {
            let columns = size(io::stderr()).map_or(COLUMNS_DEFAULT, |(columns, _)| columns);
            let text = step.rewind(columns);
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{text}\x1b[J").and_then(|()| stderr.flush());
        }
    }

    /// One line of `--json`; nothing without it.
    pub fn event(&self, kind: &str, data: &impl Serialize) {
        if self.mode == Mode::Json {
            to_stdout(&json_line(&EventLine { event: kind, data }));
        }
    }

    /// The last line of `--json`; nothing without it.
    pub fn result(&self, exit: Exit, data: &Value) {
        self.clear();
        if self.mode == Mode::Json {
            to_stdout(&json_line(&ResultLine { result: data, exit: exit.code(), errors: &[] }));
        }
    }

    /// What went wrong: for people on stderr, or as the `result`.
    pub fn errors(&self, exit: Exit, errors: &[ApiError]) {
        self.clear();
        match self.mode {
            Mode::Human => {
                let shown: Vec<String> = errors
                    .iter()
                    .map(|error| render_error(error, "error", self.error_width(), self.stderr))
                    .collect();
                to_stderr(shown.join("\n").trim_end());
            }
            Mode::Json => {
                to_stdout(&json_line(&ResultLine { result: &Value::Null, exit: exit.code(), errors }));
            }
        }
    }

    pub fn warning(&self, warning: &ApiError) {
        match self.mode {
            Mode::Human => {
                self.clear();
                to_stderr(render_error(warning, "warning", self.error_width(), self.stderr).trim_end());
            }
            Mode::Json => self.event("warning", warning),
        }
    }
}

/// Every line of `--json` but the last.
#[derive(Serialize)]
struct EventLine<'a, T> {
    event: &'a str,
    data: &'a T,
}

/// The last line of `--json`.
#[derive(Serialize)]
struct ResultLine<'a> {
    result: &'a Value,
    exit: u8,
    #[serde(skip_serializing_if = "<[ApiError]>::is_empty")]
    errors: &'a [ApiError],
}

fn json_line(line: &impl Serialize) -> String {
    // Only a map whose keys are no text, or a value that refuses, could fail; ours are wire types.
    serde_json::to_string(line)
        .unwrap_or_else(|error| format!("{{\"result\":null,\"exit\":1,\"bug\":{:?}}}", error.to_string()))
}

fn to_stdout(text: &str) {
    let mut stdout = io::stdout().lock();
    quit_when_nobody_reads(writeln!(stdout, "{text}"));
}

fn to_stderr(text: &str) {
    // Without a stderr there is nobody to tell that there is no stderr.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// `fairway logs | head` ends quietly when `head` does.
fn quit_when_nobody_reads(written: io::Result<()>) {
    if let Err(error) = written {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Failed };
        std::process::exit(exit.code().into());
    }
}

/// Columns and rows.
fn size(terminal: impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    let known = size.ws_col > 0 && size.ws_row > 0;
    known.then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_lines_are_written_over_and_what_is_left_is_erased() {
        let mut step = Step { last: "one\ntwo".to_owned(), ..Step::default() };
        assert_eq!(step.draw("", 80, 24), "\rone\x1b[K\ntwo\x1b[K\x1b[J");
        step.last = "three".to_owned();
        assert_eq!(step.draw("", 80, 24), "\x1b[1A\rthree\x1b[K\x1b[J");
        assert_eq!(step.draw("event", 80, 24), "\revent\x1b[K\nthree\x1b[K\x1b[J", "it stays below");
        assert_eq!(step.rewind(80), "\r");
        assert_eq!(step.drawn.len(), 0);
    }

    #[test]
    fn live_lines_fit_the_terminal_and_are_found_again_when_it_shrinks() {
        let mut step = Step { last: "abcdefghij\nx\ny\nz".to_owned(), ..Step::default() };
        assert_eq!(step.draw("", 8, 3), "\rabcdef…\x1b[K\nx\x1b[K\x1b[J");
        assert_eq!(step.rewind(4), "\x1b[2A\r", "seven columns are two rows of four");
        assert!(step.draw("", 0, 0).ends_with("…\x1b[K\x1b[J"), "a terminal without a size does no harm");
    }
}
