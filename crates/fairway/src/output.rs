//! Data on stdout, progress on stderr; or, with `--json`, one JSON object a line that ends in one `result`.

mod error;
mod paint;
mod table;

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

use fairway_api::ApiError;
use serde::Serialize;
use serde_json::Value;

pub use error::render as render_error;
pub use paint::{Colours, Paint, printable};
pub use table::Table;

use crate::exit::Exit;

/// Where a terminal does not say how wide it is.
const COLUMNS_DEFAULT: usize = 80;

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

/// What stands in the live line, or was the last plain line of a step.
#[derive(Debug, Default)]
struct Step {
    on_screen: bool,
    last: String,
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
        if step.last == text && (step.on_screen || !self.live) {
            return;
        }
        text.clone_into(&mut step.last);
        if self.live {
            step.on_screen = true;
            let mut stderr = io::stderr().lock();
            let shown = paint::cut(text, columns().saturating_sub(1));
            let _ = write!(stderr, "\r\x1b[2K{shown}").and_then(|()| stderr.flush());
        } else {
            drop(step);
            to_stderr(text);
        }
    }

    /// Takes the live line off the screen, before something else is written there.
    pub fn clear(&self) {
        let mut step = self.step.borrow_mut();
        if step.on_screen {
            step.on_screen = false;
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush());
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
                let shown: Vec<String> =
                    errors.iter().map(|error| render_error(error, "error", self.stderr)).collect();
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
                to_stderr(render_error(warning, "warning", self.stderr).trim_end());
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

fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stderr())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(COLUMNS_DEFAULT)
}
