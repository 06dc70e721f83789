//! Whether a file is a Fairway that can go on with this state.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use fairway_api::ApiError;
use fairway_store::database::DATABASE_FILE;
use fairway_store::{LogReader, Snapshots};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::succession::own_words;
use crate::ServerOptions;
use crate::error::StartError;
use crate::record::replay;

/// To print a line.
const VERSION_WITHIN: Duration = Duration::from_secs(10);

/// To replay the log, which takes a second or two when it is long and the disk is busy.
const CHECK_WITHIN: Duration = Duration::from_secs(60);

/// Of what a program printed that is not what was asked for.
const LINES_MAX: usize = 20;

/// The identification, the type and the machine of an ELF file.
const ELF_BYTES: usize = 20;

/// A program that can take over.
#[derive(Debug)]
pub struct Program {
    pub version: String,
}

/// Why a program cannot take over. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("it is not an absolute path on the server's machine")]
    Relative,
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("it is not a file")]
    NotAFile,
    #[error("it is not executable for the user that the server runs as")]
    NotExecutable,
    #[error("it is not a program")]
    NotAProgram,
    #[error("it is for {built_for}, and this machine is {here}")]
    OtherMachine { built_for: String, here: String },
    #[error("it cannot be run")]
    NotRun(#[source] io::Error),
    #[error("it did not end in {} s when asked for {what}", within.as_secs())]
    Hangs { what: &'static str, within: Duration },
    #[error("it does not say that it is Fairway")]
    NotFairway { lines: Vec<String> },
    /// What it says itself.
    #[error("it cannot go on with this state: {}", error.message)]
    Refuses { error: Box<ApiError> },
    #[error("it could not be tried: it ended with {status} and did not say whether it can read the state")]
    NoVerdict { status: String, lines: Vec<String> },
}

impl Unfit {
    #[must_use]
    pub fn to_api(&self, binary: &Path) -> ApiError {
        let code = match self {
            Unfit::Relative | Unfit::Unreadable(_) | Unfit::NotAFile => "upgrade/no-program",
            Unfit::NotExecutable => "upgrade/not-executable",
            Unfit::NotAProgram | Unfit::NotRun(_) | Unfit::NotFairway { .. } => "upgrade/not-fairway",
            Unfit::OtherMachine { .. } => "upgrade/other-machine",
            Unfit::Hangs { .. } | Unfit::NoVerdict { .. } => "upgrade/check",
            Unfit::Refuses { .. } => "upgrade/refuses",
        };
        let mut error = ApiError::new(code, format!("{} cannot take over: {self}", binary.display()));
        error.causes.extend(std::error::Error::source(self).map(ToString::to_string));
        let hint = match self {
            Unfit::NotExecutable => format!("chmod +x {}", binary.display()),
            Unfit::Refuses { error: refused } => {
                error.causes.extend(refused.causes.iter().cloned());
                error.last_lines.clone_from(&refused.last_lines);
                refused.hint.clone().unwrap_or_else(|| "take a version that is not older".to_owned())
            }
            Unfit::NotFairway { lines } | Unfit::NoVerdict { lines, .. } => {
                error.last_lines.clone_from(lines);
                "`--binary PATH` names the program of another version".to_owned()
            }
            Unfit::Relative
            | Unfit::Unreadable(_)
            | Unfit::NotAFile
            | Unfit::NotAProgram
            | Unfit::OtherMachine { .. }
            | Unfit::NotRun(_)
            | Unfit::Hangs { .. } => "`--binary PATH` names the program of another version".to_owned(),
        };
        error.cause("nothing was changed").hint(hint)
    }
}

/// Looks at the file, asks it for its version, and has it try the state as it would be started.
///
/// # Errors
/// What speaks against it.
pub async fn examine(binary: &Path) -> Result<Program, Unfit> {
    look_at(binary)?;
    let said = run(binary, &["--version".into()], "its version", VERSION_WITHIN).await?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let Some(version) = text.strip_prefix("fairway ").filter(|_| said.status.success()) else {
        return Err(Unfit::NotFairway { lines: last_lines(&said) });
    };
    let mut words = own_words();
    words.extend(["--check".into(), "--json".into()]);
    let tried = run(binary, &words, "a check of the state", CHECK_WITHIN).await?;
    judge(&tried)?;
    Ok(Program { version: version.trim().to_owned() })
}

fn look_at(binary: &Path) -> Result<(), Unfit> {
    if !binary.is_absolute() {
        return Err(Unfit::Relative);
    }
    let found = std::fs::metadata(binary).map_err(Unfit::Unreadable)?;
    if !found.is_file() {
        return Err(Unfit::NotAFile);
    }
    if rustix::fs::access(binary, rustix::fs::Access::EXEC_OK).is_err() {
        return Err(Unfit::NotExecutable);
    }
    let head = head_of(binary).map_err(Unfit::Unreadable)?;
    if head.starts_with(b"#!") {
        return Ok(());
    }
    let own = head_of(Path::new("/proc/self/exe")).map_err(Unfit::Unreadable)?;
    match (machine(&head), machine(&own)) {
        (None, _) => Err(Unfit::NotAProgram),
        (Some(other), Some(here)) if other != here => {
            Err(Unfit::OtherMachine { built_for: machine_name(other), here: machine_name(here) })
        }
        (Some(_), _) => Ok(()),
    }
}

fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(ELF_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// `e_machine` of an ELF file (gABI, "ELF Header"), with the width of its addresses.
fn machine(head: &[u8]) -> Option<(u8, u16)> {
    let head: &[u8; ELF_BYTES] = head.try_into().ok()?;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let number = [head[18], head[19]];
    let number = if head[5] == 2 { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) };
    Some((head[4], number))
}

fn machine_name((class, number): (u8, u16)) -> String {
    let known = match (class, number) {
        (2, 62) => "x86_64",
        (_, 3) => "x86",
        (2, 183) => "aarch64",
        (_, 40) => "arm",
        (2, 243) => "riscv64",
        (2, 21) => "powerpc64",
        (2, 22) => "s390x",
        (_, _) => return format!("a machine that ELF numbers {number}"),
    };
    known.to_owned()
}

async fn run(
    binary: &Path,
    words: &[OsString],
    what: &'static str,
    within: Duration,
) -> Result<Output, Unfit> {
    let output = tokio::process::Command::new(binary)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(within, output).await {
        Ok(output) => output.map_err(Unfit::NotRun),
        Err(_) => Err(Unfit::Hangs { what, within }),
    }
}

/// What the last line says, which is the result of every command with `--json`.
fn judge(tried: &Output) -> Result<(), Unfit> {
    #[derive(Deserialize)]
    struct Verdict {
        #[serde(default)]
        result: Value,
        exit: u8,
        #[serde(default)]
        errors: Vec<ApiError>,
    }
    let text = String::from_utf8_lossy(&tried.stdout);
    let last = text.lines().last().unwrap_or_default();
    let no_verdict = || Unfit::NoVerdict { status: tried.status.to_string(), lines: last_lines(tried) };
    let verdict: Verdict = serde_json::from_str(last).map_err(|_| no_verdict())?;
    if let Some(error) = verdict.errors.into_iter().next() {
        return Err(Unfit::Refuses { error: Box::new(error) });
    }
    let has_read = serde_json::from_value::<State>(verdict.result).is_ok();
    if verdict.exit == 0 && tried.status.success() && has_read { Ok(()) } else { Err(no_verdict()) }
}

fn last_lines(output: &Output) -> Vec<String> {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().map(|line| (*line).to_owned()).collect()
}

/// What a check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Number of the last event.
    pub seq: u64,
    pub environments: usize,
}

impl State {
    /// Reads the state as a start would, beside a server that has it and goes on writing.
    ///
    /// # Errors
    /// What a start would end with.
    pub fn read(options: &ServerOptions) -> Result<State, StartError> {
        let log = LogReader::open(&options.state_dir.join(DATABASE_FILE))?;
        let (state, seq) = replay(&log, &Snapshots::open(&options.state_dir.join("snapshots"))?)?;
        Ok(State { seq, environments: state.environments.len() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn unfit(bytes: &[u8], mode: u32) -> Unfit {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fairway");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        look_at(&path).unwrap_err()
    }

    fn elf(class: u8, machine: u16) -> Vec<u8> {
        let mut head = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
        head.resize(18, 0);
        head.extend(machine.to_le_bytes());
        head
    }

    #[test]
    fn what_no_machine_of_this_kind_can_run_is_refused_before_it_is_run() {
        assert!(matches!(unfit(b"hello", 0o755), Unfit::NotAProgram));
        assert!(matches!(unfit(b"", 0o755), Unfit::NotAProgram));
        assert!(matches!(unfit(b"\x7fELF", 0o755), Unfit::NotAProgram), "a torn copy");
        assert!(matches!(unfit(b"#!/bin/sh\n", 0o644), Unfit::NotExecutable));
        let Unfit::OtherMachine { built_for, .. } = unfit(&elf(2, 22), 0o755) else { panic!() };
        assert_eq!(built_for, "s390x");
        let Unfit::OtherMachine { built_for, .. } = unfit(&elf(1, 9999), 0o755) else { panic!() };
        assert_eq!(built_for, "a machine that ELF numbers 9999");
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        assert!(matches!(look_at(Path::new("fairway")), Err(Unfit::Relative)));
        assert!(matches!(look_at(Path::new("/no/such/fairway")), Err(Unfit::Unreadable(_))));
        assert!(matches!(look_at(Path::new("/tmp")), Err(Unfit::NotAFile)));
        look_at(&std::env::current_exe().unwrap()).unwrap();
    }

    fn tried(stdout: &str, code: i32) -> Output {
        Output {
            status: std::os::unix::process::ExitStatusExt::from_raw(code << 8),
            stdout: stdout.into(),
            stderr: b"it said\n".to_vec(),
        }
    }

    #[test]
    fn only_a_program_that_has_read_the_state_is_let_on() {
        judge(&tried("{\"result\":{\"seq\":7,\"environments\":1},\"exit\":0}\n", 0)).unwrap();
        for (text, code) in [
            ("", 0),
            ("ready\n", 0),
            ("{\"result\":null,\"exit\":0}\n", 0),
            ("{\"result\":{\"seq\":7,\"environments\":1},\"exit\":0}\n", 1),
        ] {
            let Err(Unfit::NoVerdict { lines, .. }) = judge(&tried(text, code)) else { panic!("{text:?}") };
            assert_eq!(lines.last().unwrap(), "it said");
        }
    }

    #[test]
    fn what_it_says_against_the_state_is_passed_on() {
        let error = ApiError::new("server/log", "the log cannot be opened").cause("newer").hint("start that");
        let line = serde_json::json!({ "result": null, "exit": 1, "errors": [error] }).to_string();
        let refused = judge(&tried(&line, 1)).unwrap_err().to_api(Path::new("/new"));
        assert_eq!(refused.code, "upgrade/refuses");
        assert_eq!(
            refused.message,
            "/new cannot take over: it cannot go on with this state: the log cannot be opened"
        );
        assert_eq!(refused.causes, ["newer", "nothing was changed"]);
        assert_eq!(refused.hint.as_deref(), Some("start that"));
    }
}
