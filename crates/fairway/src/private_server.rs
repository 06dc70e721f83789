//! The server of one working tree, with its state in `.fairway/`: started by `fairway up`, and stopped by it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fairway_api::client::{Client, Endpoint};
use fairway_server::SOCKET_NAME;
use rustix::fs::FlockOperation;

use crate::endpoint::{PRIVATE_DIR, is_live};
use crate::problem::Problem;

/// A server opens its log and its socket in some tens of milliseconds; replaying a long log takes a second or two.
const START_MAX: Duration = Duration::from_secs(20);
/// It stops accepting and syncs its log; the apps are down by then.
const STOP_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 20;
/// The end of the log that is looked at for the reason of a failed start.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// Held by the one `fairway up` of a working tree. The lock is the kernel's: it is gone with the process, however
/// that ends.
#[derive(Debug)]
pub struct PrivateServer {
    state: PathBuf,
    _lock: File,
    server: Server,
}

#[derive(Debug)]
enum Server {
    Started(Child),
    /// An `up` that was killed left it behind.
    Found,
}

impl PrivateServer {
    /// # Errors
    /// When another `up` runs here, or the server does not start.
    pub fn start(root: &Path) -> Result<Self, Problem> {
        let state = root.join(PRIVATE_DIR);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Problem::Write { path, source }
        };
        // As the server makes it: services with users of their own walk through it, only the owner reads it.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&state).map_err(failed(&state))?;
        // State is not source.
        let ignore = state.join(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(failed(&ignore))?;
        }
        let lock = lock(&state.join("up.lock"))?;
        if is_live(&state.join(SOCKET_NAME)) {
            return Ok(Self { state, _lock: lock, server: Server::Found });
        }
        let child = spawn(&state)?;
        let mut private = Self { state, _lock: lock, server: Server::Started(child) };
        private.wait_until_ready()?;
        Ok(private)
    }

    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(Endpoint::Unix(self.state.join(SOCKET_NAME)))
    }

    /// Whether it was there already.
    #[must_use]
    pub fn was_found(&self) -> bool {
        matches!(self.server, Server::Found)
    }

    fn wait_until_ready(&mut self) -> Result<(), Problem> {
        let start = Instant::now();
        let socket = self.state.join(SOCKET_NAME);
        loop {
            if is_live(&socket) {
                return Ok(());
            }
            let ended = match &mut self.server {
                Server::Started(child) => child.try_wait().ok().flatten(),
                Server::Found => None,
            };
            if let Some(status) = ended {
                return Err(self.not_started(format!("it ended with {status}")));
            }
            if start.elapsed() > START_MAX {
                self.stop(None);
                return Err(self.not_started(format!("it did not answer within {} s", START_MAX.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn not_started(&self, cause: String) -> Problem {
        Problem::Failed {
            code: "up/server",
            what: "the private server did not start".to_owned(),
            causes: vec![cause],
            lines: last_lines(&self.state.join("server.log")),
            hint: Some("fairway doctor".to_owned()),
            exit: crate::exit::Exit::Failed,
        }
    }

    /// Asks it to end and waits for that. `pid` is what the server says of itself, for one that was found.
    pub fn stop(&mut self, pid: Option<u32>) {
        let own = match &self.server {
            Server::Started(child) => Some(child.id()),
            Server::Found => pid,
        };
        let pid = own.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        let Some(pid) = pid else { return };
        // It answered on its socket a moment ago, or is our child: the number cannot be a stranger's.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            let ended = match &mut self.server {
                Server::Started(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                Server::Found => rustix::process::test_kill_process(pid).is_err(),
            };
            if ended {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn lock(path: &Path) -> Result<File, Problem> {
    let failed = |source: std::io::Error| Problem::Write { path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(path).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Problem::Failed {
            code: "up/running",
            what: "another `fairway up` runs in this project".to_owned(),
            causes: Vec::new(),
            lines: Vec::new(),
            hint: Some("`fairway status` shows what it runs; there is no lock file to delete".to_owned()),
            exit: crate::exit::Exit::Superseded,
        }),
        Err(error) => Err(failed(error.into())),
    }
}

fn spawn(state: &Path) -> Result<Child, Problem> {
    use std::os::unix::process::CommandExt;
    let path = state.join("server.log");
    let failed = |source| Problem::Write { path: path.clone(), source };
    let log = File::create(&path).map_err(failed)?;
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    Command::new(&program)
        .args(["server", "run", "--state"])
        .arg(state)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        // Ctrl-C is for `up`, which stops the server when the apps are down.
        .process_group(0)
        .spawn()
        .map_err(|source| Problem::Spawn {
            command: vec![program.display().to_string()],
            dir: state.to_owned(),
            source,
        })
}

fn last_lines(path: &Path) -> Vec<String> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_up_is_refused_and_the_lock_goes_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up.lock");
        let first = lock(&path).unwrap();
        assert_eq!(lock(&path).unwrap_err().exit().code(), 7);
        drop(first);
        lock(&path).unwrap();
    }

    #[test]
    fn only_the_last_lines_of_a_log_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, text).unwrap();
        let lines = last_lines(&path);
        assert_eq!((lines.len(), lines[19].as_str()), (20, "line 4999"));
        assert!(last_lines(&dir.path().join("none")).is_empty());
    }
}
