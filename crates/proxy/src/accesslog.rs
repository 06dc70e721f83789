//! One JSON line per request. Off by default; when on, a full disk or a slow reader costs lines, never requests.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

/// Where access log lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    #[default]
    Off,
    Stdout,
    /// Appended to; created when missing. At 256 MiB it is renamed to the same name with `.1`, in whose place there may be
    /// one from before.
    File(PathBuf),
}

/// A file of the log: a day of ten requests per second. With the one before it is twice that on the disk.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Lines on their way to the writer: a second of a busy core, some MiB.
const QUEUE_LINES_MAX: usize = 16_384;

#[derive(Debug, Clone)]
pub(crate) struct AccessLogHandle {
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

impl AccessLogHandle {
    pub(crate) fn write(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The log of a process, and whether it is on.
#[derive(Debug)]
pub(crate) struct Switch {
    is_on: AtomicBool,
    /// Said when the process was started: no snapshot changes it.
    is_fixed: bool,
    /// What a snapshot switches on.
    path: PathBuf,
    handle: OnceLock<AccessLogHandle>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Switch {
    /// `path`: where lines go that a snapshot asks for.
    pub(crate) fn new(log: &AccessLog, path: PathBuf) -> io::Result<Self> {
        let out = match log {
            AccessLog::Off => None,
            AccessLog::Stdout => Some(Out::Stdout(io::stdout())),
            AccessLog::File(path) => Some(Out::File(LogFile::open(path, FILE_BYTES_MAX)?)),
        };
        let is_fixed = out.is_some();
        let switch = Self {
            is_on: AtomicBool::new(is_fixed),
            is_fixed,
            path,
            handle: OnceLock::new(),
            writer: Mutex::default(),
        };
        out.map(|out| switch.start(out)).transpose()?;
        Ok(switch)
    }

    pub(crate) fn get(&self) -> Option<&AccessLogHandle> {
        if self.is_on.load(Ordering::Relaxed) { self.handle.get() } else { None }
    }

    /// What cannot be opened costs lines and no request, and is tried again with the next snapshot.
    pub(crate) fn switch(&self, on: bool) {
        if self.is_fixed {
            return;
        }
        if on && self.handle.get().is_none() {
            let started =
                LogFile::open(&self.path, FILE_BYTES_MAX).and_then(|file| self.start(Out::File(file)));
            if let Err(error) = started {
                eprintln!("fairway proxy: access log {}: {error}", self.path.display());
            }
        }
        self.is_on.store(on, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.handle.get().map_or(0, AccessLogHandle::dropped)
    }

    /// The thread that ends, with everything written, when this is gone.
    pub(crate) fn take_writer(&self) -> Option<std::thread::JoinHandle<()>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn start(&self, out: Out) -> io::Result<()> {
        let (lines, queue) = sync_channel(QUEUE_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let handle = AccessLogHandle { lines, dropped: Arc::clone(&dropped) };
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&queue, BufWriter::with_capacity(256 * 1024, out), &dropped))?;
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        // Only the thread that decides starts it, and only once.
        let _ = self.handle.set(handle);
        Ok(())
    }
}

#[derive(Debug)]
enum Out {
    Stdout(io::Stdout),
    File(LogFile),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(_) => Ok(()),
        }
    }
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    /// The buffer before it hands over whole lines, so that no line is in two files.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.bytes > self.bytes_max && self.file.metadata()?.is_file() {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            std::fs::rename(&self.path, before)?;
            *self = Self::open(&self.path, self.bytes_max)?;
        }
        let written = self.file.write(lines)?;
        self.bytes += written as u64;
        Ok(written)
    }
}

fn write(queue: &Receiver<String>, mut out: BufWriter<Out>, dropped: &AtomicU64) {
    while let Ok(line) = queue.recv() {
        let mut lost = u64::from(out.write_all(line.as_bytes()).is_err());
        while let Ok(line) = queue.try_recv() {
            lost += u64::from(out.write_all(line.as_bytes()).is_err());
        }
        lost += u64::from(out.flush().is_err());
        if lost > 0 {
            dropped.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// What a line says.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Record<'a> {
    /// Milliseconds since 1970, of the request's first byte.
    pub time_ms: u64,
    pub request_id: &'a str,
    pub client: std::net::IpAddr,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`; empty when it was not understood.
    pub protocol: &'static str,
    /// `TLSv1.3`, `TLSv1.2`; absent without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'static str>,
    pub method: &'a str,
    pub host: &'a str,
    pub target: &'a str,
    pub status: u16,
    pub duration_us: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub route: &'a str,
    pub service: &'a str,
    pub version: &'a str,
    pub instance: &'a str,
    pub attempts: u32,
    /// What became of it in the cache, on a route that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<&'a str>,
    /// [`crate::control::Cause`], or why the request was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> Record<'a> {
    /// A request that was refused before it was understood.
    pub(crate) fn refused(
        client: std::net::IpAddr,
        tls: Option<&'static str>,
        status: u16,
        why: &'a str,
    ) -> Self {
        Self {
            time_ms: now_ms(),
            request_id: "",
            client,
            protocol: "",
            tls,
            method: "",
            host: "",
            target: "",
            status,
            duration_us: 0,
            bytes_in: 0,
            bytes_out: 0,
            route: "",
            service: "",
            version: "",
            instance: "",
            attempts: 0,
            cache: None,
            error: Some(why),
        }
    }

    pub(crate) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("strings and numbers always serialize");
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_full_costs_lines_and_says_so() {
        let log = Switch::new(&AccessLog::File("/dev/full".into()), PathBuf::new()).unwrap();
        log.get().unwrap().write("x\n".into());
        let (dropped, writer) = (Arc::clone(&log.get().unwrap().dropped), log.take_writer().unwrap());
        drop(log);
        writer.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_log_can_be_switched_on_and_off_and_on_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = Switch::new(&AccessLog::Off, path.clone()).unwrap();
        assert!(log.get().is_none() && !path.exists());
        for (on, line) in [(true, "a\n"), (false, "b\n"), (true, "c\n")] {
            log.switch(on);
            if let Some(log) = log.get() {
                log.write(line.to_owned());
            }
        }
        let writer = log.take_writer().unwrap();
        drop(log);
        writer.join().unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a\nc\n");
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not there").join("access.log");
        let log = Switch::new(&AccessLog::Off, path.clone()).unwrap();
        log.switch(true);
        assert!(log.get().is_none());
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        log.switch(true);
        assert!(log.get().is_some());
    }

    #[test]
    fn a_log_takes_two_files_at_most_and_breaks_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut file = LogFile::open(&path, 10).unwrap();
        for n in 0..10 {
            assert_eq!(file.write(format!("line {n}\n").as_bytes()).unwrap(), 7);
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("access.log.1"), "line 6\nline 7\n");
        assert_eq!(read("access.log"), "line 8\nline 9\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
