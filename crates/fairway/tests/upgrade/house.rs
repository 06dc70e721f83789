//! A server with its proxy in a directory of their own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For what takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const FAIRWAY: &str = env!("CARGO_BIN_EXE_fairway");

/// What starts the server, and may start it again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    Shell,
    /// Tells the process what systemd tells its own; the test starts it again.
    Systemd,
}

pub struct House {
    pub dir: tempfile::TempDir,
    pub server: Child,
}

impl House {
    pub fn new() -> Self {
        Self::with(&[])
    }

    pub fn with(options: &[&str]) -> Self {
        Self::started_by(Starter::Shell, options)
    }

    pub fn started_by(starter: Starter, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = start(dir.path(), starter, options);
        let house = Self { dir, server };
        house.await_proxy();
        house
    }

    /// As systemd does when it has ended.
    pub fn start_again(&mut self, starter: Starter) {
        self.server.wait().unwrap();
        self.server = start(self.dir.path(), starter, &[]);
    }

    pub fn await_proxy(&self) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.status().filter(|status| status["proxy"]["is"] == "serving") {
                return status;
            }
            assert!(Instant::now() < until, "{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(FAIRWAY);
        command.args(words).arg("--json").current_dir(self.dir.path()).env("FAIRWAY_STATE", self.state());
        command.env_remove("FAIRWAY_SERVER").stdin(Stdio::null());
        command
    }

    pub fn fairway(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What the server says of itself.
    pub fn status(&self) -> Option<Value> {
        let said = last_line(&self.fairway(&["status"]));
        said["result"]["server"].is_object().then(|| said["result"]["server"].clone())
    }

    pub fn upgrade(&self, program: &Path) -> Ended {
        let output = self.fairway(&["server", "upgrade", "--binary", program.to_str().unwrap()]);
        Ended { code: output.status.code().unwrap(), said: last_line(&output) }
    }

    /// A program that does `before` and is this very Fairway otherwise.
    pub fn program(&self, before: &str) -> PathBuf {
        let path = self.dir.path().join("next");
        self.file(&path, &format!("#!/bin/sh\n{before}\nexec {FAIRWAY} \"$@\"\n"), 0o755);
        path
    }

    pub fn file(&self, path: &Path, text: &str, mode: u32) {
        // Under another name first: a file that is still open for writing cannot be run.
        let beside = self.dir.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::set_permissions(&beside, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    /// Server and proxy are the same processes, and they serve.
    pub fn is_as_before(&self, before: &Value) {
        let now = self.status().unwrap();
        assert_eq!((&now["pid"], &now["started_ms"]), (&before["pid"], &before["started_ms"]));
        assert_eq!(now["proxy"]["pid"], before["proxy"]["pid"], "{}", self.log());
        assert_eq!(now["proxy"]["is"], "serving");
    }

    /// Everything that runs for this directory.
    pub fn processes(&self) -> Vec<(Pid, String)> {
        let dir = self.dir.path().to_str().unwrap();
        let found = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let words = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            words.contains(dir).then_some((Pid::from_raw(pid)?, words))
        });
        found.collect()
    }
}

fn start(dir: &Path, starter: Starter, options: &[&str]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("server.log")).unwrap();
    let mut command = match starter {
        Starter::Shell => Command::new(FAIRWAY),
        Starter::Systemd => {
            let mut shell = Command::new("sh");
            shell.args(["-c", "export SYSTEMD_EXEC_PID=$$; exec \"$@\"", "sh", FAIRWAY]);
            shell
        }
    };
    command.args(["server", "run", "--state"]).arg(dir.join("state")).args(options);
    command.env_remove("SYSTEMD_EXEC_PID");
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

impl Drop for House {
    fn drop(&mut self) {
        // What serves may be another process than the one that was started.
        let serves = self.status().and_then(|status| i32::try_from(status["pid"].as_i64()?).ok());
        let own = self.server.id().cast_signed();
        for pid in
            [Some(own), serves.filter(|pid| *pid != own)].into_iter().flatten().filter_map(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.server.wait();
        // Nothing is deployed, so that the proxy ends with the server.
        let until = Instant::now() + PATIENCE;
        let mut left = self.processes();
        while !left.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
            left = self.processes();
        }
        for (pid, _) in &left {
            let _ = kill_process(*pid, Signal::KILL);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "still there: {left:?}\n{}", self.log());
        }
    }
}

pub struct Ended {
    pub code: i32,
    pub said: Value,
}

impl Ended {
    pub fn is(&self, code: i32, error: &str) -> &Self {
        assert_eq!(
            (self.code, self.said["errors"][0]["code"].as_str()),
            (code, Some(error)),
            "{}",
            self.said
        );
        self
    }

    pub fn says(&self, text: &str) {
        assert!(self.said.to_string().contains(text), "{text:?} is not in {}", self.said);
    }
}

pub fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap()
}
