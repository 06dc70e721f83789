//! The proxy is a process of its own that outlives the server. The server finds it, or starts it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fairway_proxy::control::Client;

/// Name of the control socket in the proxy's directory.
pub const SOCKET: &str = "proxy.sock";

/// From its start to its socket: it reads one file and binds.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// Between attempts; doubles up to the maximum, so that a proxy that cannot start does not burn a core.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    pause: Duration,
}

impl Keeper {
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, pause: PAUSE_MIN }
    }

    /// The running proxy, or a new one.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    pub async fn connect(&mut self) -> Result<Client, String> {
        let socket = self.dir.join(SOCKET);
        if let Ok(client) = Client::connect(&socket).await {
            self.pause = PAUSE_MIN;
            return Ok(client);
        }
        let mut child = spawn(&self.dir).map_err(|error| format!("it cannot be started: {error}"))?;
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(client) = Client::connect(&socket).await {
                self.pause = PAUSE_MIN;
                // Reaps it when it ends before this server does.
                tokio::spawn(async move { child.wait().await });
                return Ok(client);
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("it ended while starting ({status}): {}", last_line(&self.dir)));
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("it has not opened {} in {START_TIMEOUT:?}", socket.display()));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// Arguments with which this very program plays another role. The program is found by its open file, so that an
/// upgrade that replaces the file on disk does not mix versions.
#[must_use]
pub fn own_program() -> OsString {
    std::env::current_exe().map_or_else(|_| OsString::from("/proc/self/exe"), PathBuf::into_os_string)
}

fn spawn(dir: &Path) -> std::io::Result<tokio::process::Child> {
    std::fs::create_dir_all(dir)?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("proxy.log"))?;
    let mut command = tokio::process::Command::new(own_program());
    command
        .arg("proxy")
        .arg("--state-dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .kill_on_drop(false);
    // A session of its own: Ctrl-C in the server's terminal must not reach the process that holds the listeners.
    // SAFETY: setsid is async-signal-safe and touches nothing of the parent's memory.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
    command.spawn()
}

fn last_line(dir: &Path) -> String {
    let log = std::fs::read(dir.join("proxy.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    text.lines().last().unwrap_or("it said nothing").to_owned()
}
