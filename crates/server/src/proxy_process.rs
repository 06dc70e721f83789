//! The proxy is a process of its own that outlives the server. The server finds it, starts it, or has another program
//! take its sockets over.

mod kept;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fairway_api::ProxyHandover;
use fairway_proxy::control::{Client, Hello};
use fairway_proxy::snapshot::Snapshot;
use kept::Kept;
use rustix::io::FdFlags;

/// Name of the control socket in the proxy's directory.
pub const SOCKET: &str = "proxy.sock";

/// What it writes to its standard output and error.
const LOG: &str = "proxy.log";

/// Where it keeps the snapshot that it serves.
const SNAPSHOT: &str = "snapshot.json";

/// From its start to its socket: it reads one file and binds.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// Enough for the last lines of the proxy's log, of which each is one sentence.
const TAIL_BYTES_MAX: u64 = 16 * 1024;
const LINES_MAX: usize = 20;

/// From the start of a successor until it answers in the place of the one before. That one waits 30 s for it to be ready
/// and 5 s for it to be settled, and then goes on for good: whoever does not serve by now never will.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(45);

/// How long a predecessor may take to answer again when its successor is gone; it is told by the end of a connection.
const RESUME_TIMEOUT: Duration = Duration::from_secs(5);

/// Between attempts; doubles up to the maximum, so that a proxy that cannot start does not burn a core.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whoever starts a proxy in the directory holds the gate: while one takes over from another, the one who only looks
/// for a proxy must not start a third.
#[derive(Clone, Debug)]
pub struct Proxies {
    dir: PathBuf,
    gate: Arc<tokio::sync::Mutex<()>>,
    kept: Kept,
}

/// Why the proxy is the one that it was.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotHandedOver {
    pub why: String,
    /// What the new one wrote before it ended.
    pub last_lines: Vec<String>,
    /// Whether the one before answers as it did.
    pub is_unharmed: bool,
}

impl Proxies {
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, gate: Arc::default(), kept: Kept::default() }
    }

    /// Starts `program` as the proxy, and returns once it has the sockets of the one that runs. None when none runs.
    ///
    /// # Errors
    /// Why it has not. The one before goes on then, as if nothing had happened.
    pub async fn hand_over(&self, program: &Path) -> Result<Option<ProxyHandover>, NotHandedOver> {
        let _gate = self.gate.lock().await;
        let Some(before) = self.who_answers().await else { return Ok(None) };
        let log_length = std::fs::metadata(self.dir.join(LOG)).map_or(0, |log| log.len());
        let started = tokio::time::Instant::now();
        let failed = |why: String, is_unharmed: bool| NotHandedOver {
            why,
            last_lines: tail(&self.dir, log_length),
            is_unharmed,
        };
        let mut child = spawn(&self.dir, program.as_os_str(), &[])
            .map_err(|error| failed(format!("it cannot be started: {error}"), true))?;
        let why = loop {
            if let Some(now) = self.who_answers().await
                && now.source != before.source
            {
                tokio::spawn(async move { child.wait().await });
                let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Ok(Some(ProxyHandover { from_pid: before.pid, to_pid: now.pid, took_ms }));
            }
            if let Ok(Some(status)) = child.try_wait() {
                break format!("it ended before it was ready ({})", how(status));
            }
            if started.elapsed() > HANDOVER_TIMEOUT {
                // Our own child, which nobody waits for any more.
                drop(child.kill().await);
                break format!("it was not ready in {} s", HANDOVER_TIMEOUT.as_secs());
            }
            tokio::time::sleep(POLL_EVERY).await;
        };
        let is_unharmed = self.answers_as_before(&before).await;
        Err(failed(why, is_unharmed))
    }

    /// Ends the proxy, also one that was started a moment ago and does not answer yet.
    pub async fn stop(&self) {
        let _gate = self.gate.lock().await;
        loop {
            if let Ok(client) = Client::connect(&self.dir.join(SOCKET)).await
                && client.shutdown().await.is_ok()
            {
                self.kept.let_go();
                return;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn answers_as_before(&self, before: &Hello) -> bool {
        let until = tokio::time::Instant::now() + RESUME_TIMEOUT;
        while tokio::time::Instant::now() < until {
            if self.who_answers().await.is_some_and(|now| now.source == before.source) {
                return true;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        false
    }

    async fn who_answers(&self) -> Option<Hello> {
        let socket = self.dir.join(SOCKET);
        let connected = Client::connect(&socket);
        Some(tokio::time::timeout(RESUME_TIMEOUT, connected).await.ok()?.ok()?.hello().clone())
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[derive(Debug)]
pub struct Keeper {
    proxies: Proxies,
    pause: Duration,
    /// One that was started and has not answered yet: a second beside it would help nobody.
    starting: Option<tokio::process::Child>,
}

impl Keeper {
    #[must_use]
    pub fn new(proxies: Proxies) -> Self {
        Self { proxies, pause: PAUSE_MIN, starting: None }
    }

    /// The running proxy, or a new one.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    pub async fn connect(&mut self) -> Result<Client, String> {
        let Proxies { dir, gate, kept } = self.proxies.clone();
        let socket = dir.join(SOCKET);
        if let Ok(client) = Client::connect(&socket).await {
            return Ok(self.found(client));
        }
        let _gate = gate.lock().await;
        // One that took over meanwhile may answer by now.
        if let Ok(client) = Client::connect(&socket).await {
            return Ok(self.found(client));
        }
        let mut child = match self.starting.take() {
            Some(child) => child,
            None => spawn(&dir, &own_program(), &kept.sockets())
                .map_err(|error| format!("it cannot be started: {error}"))?,
        };
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(client) = Client::connect(&socket).await {
                self.starting = Some(child);
                return Ok(self.found(client));
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("it ended while starting ({status}): {}", last_line(&dir)));
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
        self.proxies.kept.follow(&self.proxies.dir);
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

/// `sockets`: those of one that died, which go on in this one.
fn spawn(dir: &Path, program: &OsStr, sockets: &[TcpListener]) -> std::io::Result<tokio::process::Child> {
    std::fs::create_dir_all(dir)?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(LOG))?;
    let mut command = tokio::process::Command::new(program);
    command
        .arg("proxy")
        .arg("--state-dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .kill_on_drop(false);
    let sockets: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    for socket in &sockets {
        command.arg("--socket").arg(socket.to_string());
    }
    // A session of its own: Ctrl-C in the server's terminal must not reach the process that holds the listeners.
    // SAFETY: setsid and fcntl are async-signal-safe and touch nothing of the parent's memory. The descriptors are open:
    // they are borrowed until the program runs.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            for socket in &sockets {
                rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(*socket), FdFlags::empty())?;
            }
            Ok(())
        });
    }
    command.spawn()
}

fn last_line(dir: &Path) -> String {
    tail(dir, 0).pop().unwrap_or_else(|| "it said nothing".to_owned())
}

/// The last lines of the log that were written after its first `from` bytes.
fn tail(dir: &Path, from: u64) -> Vec<String> {
    let mut tail = Vec::new();
    // The file grows with the life of the proxy; only its end is of interest.
    let read = std::fs::File::open(dir.join(LOG)).and_then(|mut log| {
        let length = log.metadata()?.len();
        log.seek(std::io::SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX).max(from)))?;
        log.take(TAIL_BYTES_MAX).read_to_end(&mut tail)
    });
    let text = String::from_utf8_lossy(if read.is_ok() { &tail } else { &[] }).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().map(|line| (*line).to_owned()).collect()
}
