//! Long streams: WebSockets that are echoed, server-sent events, and calls as gRPC makes them. So many are held open at a time; one that has
//! ended is counted by how it ended, and another is opened in its place.
//!
//! An orderly end says that it is one: a close frame (RFC 6455, 5.5.1), the last chunk of a chunked body (RFC 9112, 7.1), or
//! the status behind a call. Everything else is a break. Which orderly ends were due is for the caller to say: [`StreamTally::shortest_us`]
//! tells how soon the first of them came.

mod call;
mod events;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::StartError;
use crate::channel::Channel;
use crate::wire::{Protocol, Tls, Wire};

/// Enough to see every pattern.
const BREAKS_MAX: usize = 1000;

/// A service that refuses everybody must not be asked without a pause.
const OPEN_AGAIN: Duration = Duration::from_millis(20);

/// From the stop until both sides have said goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// One read takes some hundred messages.
const READ_BYTES: usize = 16 * 1024;

/// Which streams to hold.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    pub target: SocketAddr,
    /// Every stream is encrypted.
    pub tls: Option<Tls>,
    /// Value of the `Host` header.
    pub host: String,
    pub websockets: usize,
    pub websocket_path: String,
    /// Between two messages of one WebSocket or call; each must be echoed.
    pub message_every: Duration,
    pub event_streams: usize,
    /// Must send `data: N` with N counting up from any number.
    pub event_path: String,
    /// Calls over HTTP/2, each of them after the other on one connection.
    pub calls: usize,
    /// Must echo what comes, and end with a status.
    pub call_path: String,
    /// What ends in order before it counts as early as well. Streams that only a drain may end last so long at least.
    pub lasts_min: Duration,
    /// A stream on which nothing comes for so long is broken.
    pub quiet_max: Duration,
}

impl StreamPlan {
    /// Four of each, and no calls: they need a service that speaks HTTP/2.
    pub fn new(target: SocketAddr, websocket_path: &str, event_path: &str) -> StreamPlan {
        StreamPlan {
            target,
            tls: None,
            host: target.to_string(),
            websockets: 4,
            websocket_path: websocket_path.to_owned(),
            message_every: Duration::from_millis(100),
            event_streams: 4,
            event_path: event_path.to_owned(),
            calls: 0,
            call_path: String::new(),
            lasts_min: Duration::ZERO,
            quiet_max: Duration::from_secs(10),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    WebSocket,
    Events,
    Call,
}

/// A stream that did not end in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamBreak {
    pub kind: StreamKind,
    /// Since the start of the run.
    pub at_us: u64,
    /// Since it was opened.
    pub lasted_us: u64,
    pub what: String,
}

impl std::fmt::Display for StreamBreak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            StreamKind::WebSocket => "WebSocket",
            StreamKind::Events => "event stream",
            StreamKind::Call => "call",
        };
        let (at, lasted) = (self.at_us as f64 / 1e6, self.lasted_us as f64 / 1e6);
        write!(f, "{at:.3} s: a {kind} of {lasted:.3} s: {}", self.what)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StreamTally {
    /// That were answered as streams.
    pub opened: u64,
    /// By the other side, in order.
    pub ended: u64,
    /// Of these, before [`StreamPlan::lasts_min`].
    pub early: u64,
    /// The shortest of those that ended in order.
    pub shortest_us: Option<u64>,
    pub broken: u64,
    /// Echoes or events.
    pub messages: u64,
    /// Messages under way when the other side ended the stream in order: it has said that it takes no more.
    pub unanswered: u64,
    /// Calls that the server said it had not processed (RFC 9113, section 8.7); another was made in their place.
    pub refused: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    pub websockets: StreamTally,
    pub events: StreamTally,
    pub calls: StreamTally,
    /// What broke or ended early, the first 1,000.
    pub breaks: Vec<StreamBreak>,
}

impl StreamReport {
    pub fn broken(&self) -> u64 {
        self.websockets.broken + self.events.broken + self.calls.broken
    }

    pub fn early(&self) -> u64 {
        self.websockets.early + self.events.early + self.calls.early
    }
}

/// How one stream ended.
#[derive(Debug)]
enum Ending {
    InOrder {
        unanswered: u64,
    },
    Broken {
        what: String,
    },
    /// It never began.
    Refused,
    /// We were told to stop.
    Stopped,
}

/// Streams that are held.
#[derive(Debug)]
pub struct Streams {
    record: Arc<Mutex<Record>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Record {
    started: Instant,
    lasts_min: Duration,
    report: StreamReport,
}

impl Record {
    fn tally(&mut self, kind: StreamKind) -> &mut StreamTally {
        match kind {
            StreamKind::WebSocket => &mut self.report.websockets,
            StreamKind::Events => &mut self.report.events,
            StreamKind::Call => &mut self.report.calls,
        }
    }

    fn ended(&mut self, kind: StreamKind, opened: Instant, ending: Ending) {
        let lasted = opened.elapsed();
        let lasted_us = micros(lasted);
        let is_early = lasted < self.lasts_min;
        let at_us = micros(self.started.elapsed());
        match ending {
            Ending::Stopped => {}
            Ending::Refused => self.tally(kind).refused += 1,
            Ending::InOrder { unanswered } => {
                let tally = self.tally(kind);
                tally.ended += 1;
                tally.early += u64::from(is_early);
                tally.unanswered += unanswered;
                tally.shortest_us = Some(tally.shortest_us.map_or(lasted_us, |before| before.min(lasted_us)));
                if is_early {
                    let what = "it ended in order, but early".to_owned();
                    self.keep(StreamBreak { kind, at_us, lasted_us, what });
                }
            }
            Ending::Broken { what } => {
                self.tally(kind).broken += 1;
                self.keep(StreamBreak { kind, at_us, lasted_us, what });
            }
        }
    }

    fn keep(&mut self, what: StreamBreak) {
        if self.report.breaks.len() < BREAKS_MAX {
            self.report.breaks.push(what);
        }
    }
}

/// Opens the streams on a thread of their own and returns at once.
///
/// # Errors
/// When the system gives no thread or event queue.
pub fn start_streams(plan: StreamPlan) -> Result<Streams, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = StreamReport {
        websockets: StreamTally::default(),
        events: StreamTally::default(),
        calls: StreamTally::default(),
        breaks: Vec::new(),
    };
    let record = Arc::new(Mutex::new(Record { started: Instant::now(), lasts_min: plan.lasts_min, report }));
    let (stop, stopped) = watch::channel(false);
    let plan = Arc::new(plan);
    let of_thread = Arc::clone(&record);
    let thread = std::thread::Builder::new().name("streams".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut slots = JoinSet::new();
            let kinds = std::iter::repeat_n(StreamKind::WebSocket, plan.websockets)
                .chain(std::iter::repeat_n(StreamKind::Events, plan.event_streams))
                .chain(std::iter::repeat_n(StreamKind::Call, plan.calls));
            for kind in kinds {
                slots.spawn(hold(kind, Arc::clone(&plan), Arc::clone(&of_thread), stopped.clone()));
            }
            slots.join_all().await;
        });
    })?;
    Ok(Streams { record, stop, thread: Some(thread) })
}

impl Streams {
    pub fn snapshot(&self) -> StreamReport {
        lock(&self.record).report.clone()
    }

    /// Says goodbye on each, and reports.
    pub fn stop(mut self) -> StreamReport {
        self.end();
        lock(&self.record).report.clone()
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.end();
    }
}

/// One place: a stream after the other.
async fn hold(
    kind: StreamKind,
    plan: Arc<StreamPlan>,
    record: Arc<Mutex<Record>>,
    mut stopped: watch::Receiver<bool>,
) {
    let channel = Channel::new(plan.target, plan.tls.clone());
    while !*stopped.borrow() {
        let opened = Instant::now();
        let ending = match kind {
            StreamKind::WebSocket => websocket::hold(&plan, &record, &mut stopped).await,
            StreamKind::Events => events::hold(&plan, &record, &mut stopped).await,
            StreamKind::Call => call::hold(&channel, &plan, &record, &mut stopped).await,
        };
        let needs_pause = matches!(ending, Ending::Broken { .. } | Ending::Refused);
        lock(&record).ended(kind, opened, ending);
        if needs_pause {
            tokio::time::sleep(OPEN_AGAIN).await;
        }
    }
}

/// Connects, asks, and reads the answer's head. The second value is what came behind it.
async fn open(plan: &StreamPlan, request: &str, expected: &str) -> Result<(Wire, Vec<u8>), String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asked = async {
        let opened = Wire::open(plan.target, plan.tls.as_ref(), Protocol::Http1).await;
        let mut stream = opened.map_err(|error| format!("connect: {error}"))?;
        let text = |error: io::Error| format!("before an answer: {error}");
        stream.write_all(request.as_bytes()).await.map_err(text)?;
        stream.flush().await.map_err(text)?;
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                if !head.starts_with(expected) {
                    let first = head.lines().next().unwrap_or_default();
                    return Err(format!("answered {first:?} instead of {expected:?}"));
                }
                return Ok((stream, bytes.split_off(end + 4)));
            }
            let read = stream.read_buf(&mut bytes).await.map_err(text)?;
            if read == 0 || bytes.len() > 64 * 1024 {
                return Err("closed before an answer".to_owned());
            }
        }
    };
    match tokio::time::timeout(plan.quiet_max, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer in {:?}", plan.quiet_max)),
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    // Counters stay usable after a panic elsewhere: no update leaves them half done.
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
