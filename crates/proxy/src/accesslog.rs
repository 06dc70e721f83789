//! One JSON line per request. Off by default; when on, a full disk or a slow reader costs lines, never requests.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::SystemTime;

/// Where access log lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    #[default]
    Off,
    Stdout,
    /// Appended to; created when missing.
    File(PathBuf),
}

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

/// Starts the writer. It ends, with everything written, when the last handle is gone.
pub(crate) fn start(log: &AccessLog) -> io::Result<Option<(AccessLogHandle, std::thread::JoinHandle<()>)>> {
    let out: Box<dyn Write + Send> = match log {
        AccessLog::Off => return Ok(None),
        AccessLog::Stdout => Box::new(io::stdout()),
        AccessLog::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    };
    let (lines, queue) = sync_channel(QUEUE_LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let handle = AccessLogHandle { lines, dropped: Arc::clone(&dropped) };
    let thread = std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || write(&queue, BufWriter::with_capacity(256 * 1024, out), &dropped))?;
    Ok(Some((handle, thread)))
}

fn write(queue: &Receiver<String>, mut out: BufWriter<Box<dyn Write + Send>>, dropped: &AtomicU64) {
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
    pub(crate) fn refused(client: std::net::IpAddr, status: u16, why: &'a str) -> Self {
        Self {
            time_ms: now_ms(),
            request_id: "",
            client,
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
        let Some((handle, thread)) = start(&AccessLog::File("/dev/full".into())).unwrap() else {
            panic!("the log is on")
        };
        handle.write("x\n".into());
        let dropped = Arc::clone(&handle.dropped);
        drop(handle);
        thread.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}
