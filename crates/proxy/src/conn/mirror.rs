//! Copies of requests for a version that is being tried out: sent beside the original, the answer thrown away.
//!
//! A copy is a task of its own with a place, a deadline and an instance of its own. Nothing waits for it: when there is
//! no place or no instance it is dropped and counted, and when its instance is removed it is cut: a drain that waited
//! for an answer which nobody reads would delay the way back to the old version. A process that ends waits for no copy.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::balance::{Choice, Decided, Pick, Routing};
use crate::buffer::{Buffer, Kind};
use crate::codec::{Body, Framing, HeadScan, ResponseHead, header_storage};
use crate::control::Cause;
use crate::endpoint::InFlight;
use crate::h2::client::Target;
use crate::series::{Series, SeriesInFlight};
use crate::snapshot::Protocol;
use crate::stream::Stream;
use crate::worker::{Reuse, Upstream, Worker};

/// Copies under way per core. Each holds up to 64 KiB of request and 128 KiB of answer, together 12 MiB. A version that
/// does not keep up with so many would not keep up with more, and dropping shows it.
const COPIES_MAX: usize = 64;

/// What is read of an answer before the connection is closed: status and time are known, and the rest of a download is
/// of no use to anybody.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Says on a copy that it is one, so that the version can leave out what must not happen twice.
const MARK: &[u8] = b"x-fairway-mirror: 1\r\n\r\n";

/// The copies of one core.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    under_way: Cell<usize>,
    look: Notify,
}

impl Copies {
    /// Instances were removed: every copy looks whether its own is still there.
    pub(crate) fn look(&self) {
        self.look.notify_waiters();
    }
}

/// A request, ready to be sent once more.
#[derive(Debug)]
pub(super) struct Copy {
    bytes: Vec<u8>,
    body_bytes: usize,
    pub is_head: bool,
    /// Its method is safe: it may be sent again when the connection was stale.
    pub is_safe: bool,
    /// Whose failure it is, if it fails.
    pub client: IpAddr,
}

impl Copy {
    /// `head`: complete, as an instance gets it.
    pub(super) fn new(head: &[u8], body: &[u8], client: IpAddr) -> Self {
        let fields = head.strip_suffix(b"\r\n").unwrap_or(head);
        let mut bytes = Vec::with_capacity(fields.len() + MARK.len() + body.len());
        bytes.extend_from_slice(fields);
        bytes.extend_from_slice(MARK);
        bytes.extend_from_slice(body);
        Self { bytes, body_bytes: body.len(), is_head: false, is_safe: false, client }
    }
}

/// Sends a copy of a request of `route`, or counts it as dropped.
pub(super) fn send(worker: &Rc<Worker>, routing: &Routing, route: usize, copy: Copy) {
    let route = &routing.table.routes[route];
    let service = &routing.table.services[route.service];
    let (Some(series), Some(mirror)) = (&route.mirrored, &service.mirror) else { return };
    let choice = Choice { version: mirror.version, decided: Decided::Pin };
    let has_place = worker.copies.under_way.get() < COPIES_MAX;
    let pick = match has_place {
        true => routing.pick(route.service, choice, &[], worker.core, &mut || worker.random.next()),
        false => Pick::None,
    };
    let guard = match pick {
        // The table may be older than the removal of the instance.
        Pick::Endpoint { guard, .. } if worker.has_endpoint(guard.endpoint().uid) => guard,
        Pick::Endpoint { .. } | Pick::None | Pick::Full => return series.dropped(worker.core),
    };
    let sending = Sending {
        place: Place::take(worker),
        series: Arc::clone(series),
        timeout: mirror.timeout,
        idle_ms: service.timeouts.upstream_idle_ms,
        idle_max: service.idle_upstreams_max,
        protocol: service.protocol,
        copy,
        status: 0,
        bytes_out: 0,
        guard,
    };
    tokio::task::spawn_local(sending.run());
}

#[derive(Debug)]
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Self {
        let under_way = &worker.copies.under_way;
        under_way.set(under_way.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let under_way = &self.0.copies.under_way;
        under_way.set(under_way.get() - 1);
    }
}

#[derive(Debug)]
struct Sending {
    place: Place,
    series: Arc<Series>,
    timeout: Duration,
    idle_ms: u64,
    idle_max: u32,
    protocol: Protocol,
    copy: Copy,
    /// 0 until there is one.
    status: u16,
    bytes_out: u64,
    guard: InFlight,
}

/// How a copy ended.
enum End {
    Answered,
    Failed(Cause),
    /// We stopped it.
    Cut,
}

impl Sending {
    async fn run(mut self) {
        let started = Instant::now();
        let worker = Rc::clone(&self.place.0);
        let _counted = SeriesInFlight::begin(&self.series, worker.core);
        let uid = self.guard.endpoint().uid;
        let timeout = self.timeout;
        let end = tokio::select! {
            biased;
            () = unwanted(&worker, uid) => End::Cut,
            ended = tokio::time::timeout(timeout, self.attempts(&worker)) => match ended {
                Ok(Ok(())) => End::Answered,
                Ok(Err(cause)) => End::Failed(cause),
                Err(_) => End::Failed(Cause::ResponseTimeout),
            },
        };
        self.count(worker.core, &end, started.elapsed());
    }

    fn count(&self, core: usize, end: &End, took: Duration) {
        let series = &self.series;
        match (end, self.status) {
            (End::Cut, _) | (End::Failed(_), 0) => series.unanswered(core),
            (End::Answered | End::Failed(_), status) => {
                series.request(core, status, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
        }
        let failed = match end {
            End::Cut => false,
            End::Answered => self.status >= 500,
            End::Failed(cause) => {
                series.error(core, *cause);
                // Whoever answers for longer than we listen has answered.
                self.status == 0 || self.status >= 500 || *cause == Cause::Truncated
            }
        };
        if failed {
            series.failed(core, self.copy.client);
        }
        series.bytes(core, self.copy.body_bytes as u64, self.bytes_out);
    }

    async fn attempts(&mut self, worker: &Worker) -> Result<(), Cause> {
        let uid = self.guard.endpoint().uid;
        if self.protocol == Protocol::H2c {
            let addr = self.guard.endpoint().addr;
            let target = Target { addr, idle_ms: self.idle_ms, limits: &worker.shared.limits };
            let opened = worker.upstreams.open(uid, true, false, target).await.map_err(|_| Cause::Connect)?;
            let stream = Stream::Pipe(opened.pipe);
            return self.attempt(worker, Upstream { stream, written: 0, reused: opened.reused }).await;
        }
        // What may not be done twice gets a connection that cannot be stale.
        let idle = if self.copy.is_safe { worker.take_idle(uid, Reuse::Freely) } else { None };
        if let Some(upstream) = idle {
            match self.attempt(worker, upstream).await {
                Err(Cause::NoResponse) => {}
                ended => return ended,
            }
        }
        let stream = Stream::connect(self.guard.endpoint().addr).await.map_err(|_| Cause::Connect)?;
        self.attempt(worker, Upstream { stream, written: 0, reused: false }).await
    }

    async fn attempt(&mut self, worker: &Worker, mut upstream: Upstream) -> Result<(), Cause> {
        let mut sent = 0;
        while sent < self.copy.bytes.len() {
            let rest = [IoSlice::new(&self.copy.bytes[sent..])];
            match poll_fn(|cx| upstream.stream.poll_write(cx, &rest)).await {
                Ok(bytes) => sent += bytes,
                // It may have answered before it closed.
                Err(_) => break,
            }
        }
        upstream.written += sent as u64;
        let complete = sent == self.copy.bytes.len();
        let reusable = self.answer(&upstream.stream).await?;
        if reusable && complete {
            worker.put_idle(self.guard.endpoint().uid, upstream, self.idle_ms, self.idle_max);
        }
        Ok(())
    }

    /// Reads an answer; says whether the connection can be used again.
    async fn answer(&mut self, stream: &Stream) -> Result<bool, Cause> {
        // No buffer while waiting.
        let readable = poll_fn(|cx| stream.poll_read_ready(cx)).await;
        readable.map_err(|_| Cause::NoResponse)?;
        let mut buffer = Buffer::take(Kind::Response);
        let mut scan = HeadScan::default();
        let (mut body, reusable) = loop {
            if let Some((_, end)) = scan.response(buffer.filled()).map_err(|_| Cause::BadResponse)? {
                let head = self.head(&buffer.filled()[..end])?;
                buffer.consume(end);
                match head {
                    Head::Interim => scan = HeadScan::default(),
                    Head::Stream => return Ok(false),
                    Head::Final { body, reusable } => break (body, reusable),
                }
                continue;
            }
            let had_some = !buffer.is_empty();
            match poll_fn(|cx| stream.poll_read(cx, buffer.space())).await {
                Ok(bytes @ 1..) => buffer.add(bytes),
                Ok(0) | Err(_) if had_some => return Err(Cause::BadResponse),
                Ok(0) | Err(_) => return Err(Cause::NoResponse),
            }
        };
        let mut read = 0;
        loop {
            let fed = body.feed(buffer.filled_mut(), Framing::Keep).map_err(|_| Cause::Truncated)?;
            buffer.consume(fed.read);
            read += fed.read;
            self.bytes_out = read as u64;
            if body.is_done() {
                // Bytes behind the answer were not asked for.
                return Ok(reusable && buffer.is_empty());
            }
            if read > ANSWER_BYTES_MAX {
                return Ok(false);
            }
            match poll_fn(|cx| stream.poll_read(cx, buffer.space())).await {
                Ok(bytes @ 1..) => buffer.add(bytes),
                Ok(0) if body == Body::UntilClose => return Ok(false),
                Ok(0) | Err(_) => return Err(Cause::Truncated),
            }
        }
    }

    fn head(&mut self, head: &[u8]) -> Result<Head, Cause> {
        let mut storage = header_storage();
        let method = if self.copy.is_head { "HEAD" } else { "GET" };
        let head = ResponseHead::parse(head, &mut storage, method).map_err(|_| Cause::BadResponse)?;
        match head.status {
            // Nothing was offered to switch to.
            101 => return Err(Cause::BadResponse),
            100..=199 => return Ok(Head::Interim),
            status => self.status = status,
        }
        Ok(match head.is_stream {
            true => Head::Stream,
            false => Head::Final { body: head.delimiter.body(), reusable: head.keep_alive },
        })
    }
}

/// What a head of an answer says about what follows.
enum Head {
    /// Another head.
    Interim,
    /// Events for somebody who is not there.
    Stream,
    Final {
        body: Body,
        reusable: bool,
    },
}

/// Returns when a copy for the endpoint is to be cut.
async fn unwanted(worker: &Worker, endpoint: u64) {
    loop {
        let mut look = std::pin::pin!(worker.copies.look.notified());
        look.as_mut().enable();
        if !worker.has_endpoint(endpoint) {
            return;
        }
        look.await;
    }
}
