//! `fairway server install`: a systemd unit.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::context::Context;
use crate::endpoint;
use crate::exit::Exit;
use crate::problem::{Outcome, Problem};

const UNIT: &str = "fairway.service";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show the unit, and write nothing
    #[arg(long)]
    print: bool,
}

/// For whom the unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Machine,
    User,
}

pub fn run(args: &Args, cx: &Context) -> Outcome {
    let scope = if rustix::process::geteuid().is_root() { Scope::Machine } else { Scope::User };
    let program = std::env::current_exe()
        .map_err(|source| Problem::Read { path: PathBuf::from("/proc/self/exe"), source })?;
    let state = cx.globals.state.clone().unwrap_or_else(endpoint::default_state_dir);
    let state = std::path::absolute(&state).unwrap_or(state);
    let text = unit(scope, &program, &state);
    if args.print {
        cx.out.raw(text.as_bytes());
        return Ok(Exit::Done);
    }
    let path = directory(scope)?.join(UNIT);
    write(&path, &text)?;
    cx.out.progress(format!("wrote {}", path.display()));
    let is_running = Path::new("/run/systemd/system").is_dir();
    if is_running {
        systemctl(scope, &["daemon-reload"])?;
        systemctl(scope, &["enable", "--now", UNIT])?;
        cx.out.data(format!("the server runs, with its state in {}", state.display()));
    } else {
        cx.out.data("systemd does not run here; the unit starts with the next boot that has it");
    }
    cx.out.result(Exit::Done, &json!({ "unit": path, "state": state, "started": is_running }));
    Ok(Exit::Done)
}

fn directory(scope: Scope) -> Result<PathBuf, Problem> {
    if scope == Scope::Machine {
        return Ok(PathBuf::from("/etc/systemd/system"));
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home).ok_or_else(|| {
        Problem::failed(
            "server/install",
            "there is no home directory to write the unit to",
            "sudo fairway server install",
        )
    })?;
    Ok(config.join("systemd/user"))
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let failed = |source| Problem::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

fn systemctl(scope: Scope, args: &[&str]) -> Result<(), Problem> {
    let mut command = Command::new("systemctl");
    if scope == Scope::User {
        command.arg("--user");
    }
    let output = command.args(args).output().map_err(|source| Problem::Spawn {
        command: vec!["systemctl".to_owned()],
        dir: PathBuf::from("/"),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Problem::Failed {
        code: "server/systemctl",
        what: format!("systemctl {} failed", args.join(" ")),
        causes: vec![String::from_utf8_lossy(&output.stderr).trim().to_owned()],
        lines: Vec::new(),
        hint: Some("journalctl -u fairway".to_owned()),
        exit: Exit::Failed,
    })
}

/// `KillMode=process` is what lets apps and proxy outlive the server; `Delegate=yes` is what lets limits be enforced.
fn unit(scope: Scope, program: &Path, state: &Path) -> String {
    let (wanted_by, home) = match scope {
        Scope::Machine => ("multi-user.target", "Wants=network-online.target\nAfter=network-online.target\n"),
        Scope::User => ("default.target", ""),
    };
    format!(
        "[Unit]
Description=Fairway control plane
{home}
[Service]
Type=simple
ExecStart={} server run --state {}
Restart=always
RestartSec=1
KillMode=process
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy={wanted_by}
",
        quoted(program),
        quoted(state)
    )
}

/// A word of a unit: quoted where it has blanks, with `%` and `$` kept from systemd's own use of them.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-%$+:@".contains(c)) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_of_the_unit_leaves_the_apps_alone() {
        let text = unit(Scope::Machine, Path::new("/usr/bin/fairway"), Path::new("/var/lib/fairway"));
        for line in [
            "ExecStart=/usr/bin/fairway server run --state /var/lib/fairway",
            "KillMode=process",
            "Delegate=yes",
            "Restart=always",
            "WantedBy=multi-user.target",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}");
        }
    }

    #[test]
    fn a_path_with_blanks_stays_one_word() {
        assert_eq!(quoted(Path::new("/a b/\"c\"")), "\"/a b/\\\"c\\\"\"");
        assert_eq!(quoted(Path::new("/a%b$c")), "/a%%b$$c");
    }
}
