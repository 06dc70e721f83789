//! The proxy is a process of its own that outlives the server. The server finds it, or starts it.

use std::ffi::OsString;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fairway_proxy::control::Client;
use fairway_proxy::snapshot::Snapshot;

/// Name of the control socket in the proxy's directory.
pub const SOCKET: &str = "proxy.sock";

/// Where it keeps the snapshot that it serves.
const SNAPSHOT: &str = "snapshot.json";

/// From its start to its socket: it reads one file and binds.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// Enough for the last line of the proxy's log, which is one sentence.
const LINE_BYTES_MAX: u64 = 4096;

/// Between attempts; doubles up to the maximum, so that a proxy that cannot start does not burn a core.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    pause: Duration,
    /// One that was started and has not answered yet: a second beside it would help nobody.
    starting: Option<tokio::process::Child>,
}

impl Keeper {
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, pause: PAUSE_MIN, starting: None }
    }

    /// The running proxy, or a new one.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    pub async fn connect(&mut self) -> Result<Client, String> {
        let socket = self.dir.join(SOCKET);
        if let Ok(client) = Client::connect(&socket).await {
            return Ok(self.found(client));
        }
        let mut child = match self.starting.take() {
            Some(child) => child,
            None => spawn(&self.dir).map_err(|error| format!("it cannot be started: {error}"))?,
        };
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(client) = Client::connect(&socket).await {
                self.starting = Some(child);
                return Ok(self.found(client));
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("it ended while starting ({status}): {}", last_line(&self.dir)));
            }
            if tokio::time::Instant::now() > deadline {
                self.starting = Some(child);
                return Err(format!("it has not opened {} in {START_TIMEOUT:?}", socket.display()));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    fn found(&mut self, client: Client) -> Client {
        self.pause = PAUSE_MIN;
        if let Some(mut child) = self.starting.take() {
            // Reaps it when it ends before this server does.
            tokio::spawn(async move { child.wait().await });
        }
        client
    }

    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// What the proxy of this directory was last told to serve; none where there is nothing that can be read.
#[must_use]
pub fn saved_snapshot(dir: &Path) -> Option<Snapshot> {
    serde_json::from_slice(&std::fs::read(dir.join(SNAPSHOT)).ok()?).ok()
}

/// The program that plays another role: this very one. Where its file was replaced on disk, as an upgrade does, the
/// kernel still has it.
#[must_use]
pub fn own_program() -> OsString {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path.into_os_string(),
        Ok(_) | Err(_) => OsString::from("/proc/self/exe"),
    }
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
    let mut tail = Vec::new();
    // The file grows with the life of the proxy; only its end is of interest.
    let read = std::fs::File::open(dir.join("proxy.log")).and_then(|mut log| {
        let length = log.metadata()?.len();
        log.seek(std::io::SeekFrom::Start(length.saturating_sub(LINE_BYTES_MAX)))?;
        log.take(LINE_BYTES_MAX).read_to_end(&mut tail)
    });
    let text = String::from_utf8_lossy(if read.is_ok() { &tail } else { &[] }).into_owned();
    text.lines().last().unwrap_or("it said nothing").to_owned()
}
