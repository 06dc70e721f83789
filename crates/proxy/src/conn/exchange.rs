//! One attempt: a request to one instance and its response back, both bodies streaming at the same time.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::patience::Patience;
use super::request_buffer::{BodyRefusal, RequestBuffer};
use super::taking::Taking;
use crate::buffer::{Buffer, HeadBuffer, Kind};
use crate::codec::{
    BadResponse, Body, Delimiter, Framing, HeadScan, MinorVersion, Reply, ResponseHead, header_storage,
};
use crate::deadline::{Deadline, Phase};
use crate::policy::RoutePolicy;
use crate::policy::cache::{Watch, Way};
use crate::policy::coding::{Coding, Packing};
use crate::policy::packer::Packer;
use crate::snapshot::Timeouts;
use crate::stream::Stream;
use crate::worker::{Accepting, Upstream, Worker};

/// Bodies up to this are copied behind their head: one piece to send costs less than the copy.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// What is read of both bodies before other connections have their turn. Some reads: a client that sends as fast as the
/// core reads, or whose chunks are of one byte each, holds up others for a fraction of a millisecond.
const TURN_BYTES: usize = 512 * 1024;

/// What the attempt needs to know about the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub is_head: bool,
    pub version: MinorVersion,
    pub wants_keep_alive: bool,
    pub offers_upgrade: bool,
    pub offers_websocket: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum End {
    /// The response reached the client's kernel. `reusable`: the instance takes another request on the
    /// connection.
    Complete {
        reusable: bool,
    },
    /// The cache has something better for the client, who has got nothing yet.
    Withheld {
        status: u16,
        reusable: bool,
    },
    /// The head of a 101 was passed on; bytes follow in both directions.
    Upgraded,
    /// The instance closed without a byte of an answer. `closed`: in good order (FIN), not by a reset.
    NoResponse {
        closed: bool,
    },
    ResponseTimeout,
    BadResponse(BadResponse),
    /// The response began and cannot be completed.
    Truncated,
    ClientGone,
    ClientTimeout,
    Body(BodyRefusal),
}

#[derive(Debug)]
enum Sending {
    /// Up to here head and buffered body were sent.
    Active {
        head: usize,
        body: usize,
    },
    Finished,
    /// The instance takes no more; it may have answered already.
    Abandoned,
}

#[derive(Debug)]
enum Receiving {
    Head(HeadScan),
    Body {
        body: Body,
        framing: ClientFraming,
        status: u16,
        /// The client's connection stays open.
        keep_alive: bool,
        /// The instance's connection stays open.
        reusable: bool,
    },
    Upgraded,
}

/// Without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How the client learns where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientFraming {
    /// As the instance framed it.
    Same,
    /// The instance chunked it, the client is too old for that: data only, then close.
    Stripped,
    /// The instance ends it by closing: chunked for the client, so that a truncation shows.
    Chunked,
    /// The instance ends it by closing, and so do we.
    Closing,
    /// It goes through a compressor, and is chunked.
    Packed,
}

/// Bytes for the client that were not yet taken.
#[derive(Debug)]
struct Outgoing {
    head: HeadBuffer,
    head_sent: usize,
    /// In the response buffer.
    body: Range<usize>,
    tail: &'static [u8],
    /// To be taken off the response buffer when all is sent.
    consumed: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.head_sent == self.head.len() && self.body.is_empty() && self.tail.is_empty()
    }

    fn advance(&mut self, mut bytes: usize) {
        let head = bytes.min(self.head.len() - self.head_sent);
        self.head_sent += head;
        bytes -= head;
        let body = bytes.min(self.body.len());
        self.body.start += body;
        self.tail = &self.tail[bytes - body..];
    }
}

#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub worker: &'a Worker,
    pub listener: &'a Accepting,
    pub deadline: &'a Deadline,
    pub client: &'a Stream,
    pub upstream: &'a mut Upstream,
    pub request: &'a mut RequestBuffer,
    /// The rewritten head.
    head: &'a [u8],
    facts: Facts,
    timeouts: &'a Timeouts,
    endpoint: u64,
    body_bytes_max: u64,
    /// Header lines for the response.
    added: &'a [u8],
    wanted: Wanted<'a>,
    /// The answer's compressor.
    packer: Option<Packer>,
    /// What the cache wants of the answer.
    pub watch: Option<Watch>,
    sending: Sending,
    receiving: Receiving,
    response: Option<Buffer>,
    out: Outgoing,
    idle_ms: u64,
    /// With the client, while the instance waits for the rest of its request.
    patience: Patience,
    /// How fast the client takes the answer.
    taking: Taking,
    /// What may still be moved before others have their turn.
    turn_bytes: usize,
    /// When an answer without a natural end began.
    pub stream_since: Option<Instant>,
    /// Bytes of the request that the kernel took.
    pub sent: u64,
    /// Whether the instance answered anything.
    pub answered: bool,
    pub bytes_out: u64,
}

/// What the request's way is paved with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub head: &'a [u8],
    pub added: &'a [u8],
    pub facts: Facts,
    pub timeouts: &'a Timeouts,
    pub endpoint: u64,
    pub body_bytes_max: u64,
    pub wanted: Wanted<'a>,
}

/// What is to become of the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub policy: &'a RoutePolicy,
    /// How the client likes answers compressed.
    pub accepts: Option<Coding>,
}

impl Wanted<'_> {
    /// Whether the answer is compressed; then its compressor is there.
    fn packing(
        &self,
        head: &ResponseHead<'_, '_>,
        request: &[u8],
        framing: ClientFraming,
        version: MinorVersion,
        packer: &mut Option<Packer>,
    ) -> (ClientFraming, Packing) {
        let Some(compressible) = &self.policy.compress else { return (framing, Packing::Never) };
        // Clients of HTTP/1.0 do not know chunks.
        let accepts = self.accepts.filter(|_| version == MinorVersion::One);
        match compressible.packing(head, request, accepts) {
            // The head says what a body would be, and there is none.
            packing @ Packing::With(_) if head.delimiter == Delimiter::None => (framing, packing),
            Packing::With(coding) => match Packer::new(coding) {
                Ok(new) => {
                    *packer = Some(new);
                    (ClientFraming::Packed, Packing::With(coding))
                }
                // No memory for it: the answer goes as it is.
                Err(_) => (framing, Packing::Varies),
            },
            packing @ (Packing::Varies | Packing::Unchanged | Packing::Never) => (framing, packing),
        }
    }
}

/// Whether a step got anywhere.
type Step = Result<Progress, End>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Made,
    /// Wakers are in place.
    Blocked,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        listener: &'a Accepting,
        deadline: &'a Deadline,
        client: &'a Stream,
        upstream: &'a mut Upstream,
        request: &'a mut RequestBuffer,
        terms: Terms<'a>,
    ) -> Self {
        // Calls of gRPC may be open for hours and say little.
        let is_call = upstream.stream.as_pipe().is_some();
        let rate_min = if is_call { 0 } else { terms.timeouts.body_bytes_per_s_min };
        Self {
            worker,
            listener,
            deadline,
            client,
            upstream,
            request,
            head: terms.head,
            facts: terms.facts,
            timeouts: terms.timeouts,
            endpoint: terms.endpoint,
            body_bytes_max: terms.body_bytes_max,
            added: terms.added,
            wanted: terms.wanted,
            packer: None,
            watch: None,
            sending: Sending::Active { head: 0, body: 0 },
            receiving: Receiving::Head(HeadScan::default()),
            response: None,
            out: Outgoing { head: HeadBuffer::later(), head_sent: 0, body: 0..0, tail: b"", consumed: 0 },
            idle_ms: terms.timeouts.body_idle_ms,
            patience: Patience::new(terms.timeouts.body_idle_ms, rate_min),
            taking: Taking::new(rate_min),
            turn_bytes: TURN_BYTES,
            stream_since: None,
            sent: 0,
            answered: false,
            bytes_out: 0,
        }
    }

    pub(super) async fn run(&mut self) -> End {
        self.deadline.arm_ms(self.timeouts.body_idle_ms);
        poll_fn(|cx| self.poll(cx)).await
    }

    /// What the instance sent behind a 101.
    pub(super) fn take_rest(&mut self) -> Option<Buffer> {
        self.response.take().filter(|rest| !rest.is_empty())
    }

    /// Status of the response that the client is getting, and whether its connection stays open.
    pub(super) fn begun(&self) -> Option<(u16, bool)> {
        match self.receiving {
            Receiving::Head(_) => None,
            Receiving::Body { status, keep_alive, .. } => Some((status, keep_alive)),
            Receiving::Upgraded => Some((101, false)),
        }
    }

    /// Whether only a close tells the client that the body is complete: a truncation must then be a reset.
    pub(super) fn ends_by_close(&self) -> bool {
        match self.receiving {
            Receiving::Body { framing, .. } => {
                matches!(framing, ClientFraming::Stripped | ClientFraming::Closing)
            }
            Receiving::Head(_) | Receiving::Upgraded => false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.turn_bytes = TURN_BYTES;
        loop {
            match (self.step_request(cx).and_then(|_| self.step_response(cx)), &self.sending) {
                (Err(end), _) => return Poll::Ready(end),
                // Each goes as far as it can, and the response comes second: it has seen all that the request did.
                (Ok(Progress::Blocked), _) | (Ok(_), Sending::Finished | Sending::Abandoned) => break,
                (Ok(Progress::Made), Sending::Active { .. }) if self.turn_bytes == 0 => break,
                (Ok(Progress::Made), Sending::Active { .. }) => {}
            }
        }
        // A client of HTTP/2 says when it does not wait any more, whatever it is that takes so long.
        if self.client.as_pipe().is_some_and(|pipe| pipe.poll_gone(cx).is_ready()) {
            return Poll::Ready(End::ClientGone);
        }
        if self.deadline.poll_passed(cx).is_ready() && self.is_taken() {
            self.deadline.arm_ms(self.timeouts.body_idle_ms);
        }
        self.deadline.poll_passed(cx).map(|_| self.timeout())
    }

    /// The client has not taken what there is.
    fn is_held_up(&self) -> bool {
        !self.out.is_empty() || self.client.is_full()
    }

    fn wait_for_client(&mut self) {
        if self.taking.waits(self.client) {
            // An event stream may be quiet for long; its client may not leave what was said.
            self.deadline.arm_ms(self.timeouts.body_idle_ms.min(self.idle_ms));
        }
    }

    /// Whether the client takes the answer that waits for it, although not fast enough for the kernel to ask for more.
    fn is_taken(&mut self) -> bool {
        matches!(self.receiving, Receiving::Body { .. })
            && self.is_held_up()
            && !self.deadline.is_capped()
            && self.taking.is_enough(self.client, self.timeouts.body_idle_ms)
    }

    /// Takes part in the order of connections again, behind those that wait now.
    fn yields(&mut self, cx: &Context<'_>, bytes: usize) -> bool {
        self.turn_bytes = self.turn_bytes.saturating_sub(bytes);
        if self.turn_bytes == 0 {
            cx.waker().wake_by_ref();
        }
        self.turn_bytes == 0
    }

    fn timeout(&self) -> End {
        match (&self.receiving, &self.sending) {
            (Receiving::Head(_), Sending::Active { head, body })
                if *head == self.head.len() && *body == self.request.body().len() =>
            {
                End::ClientTimeout
            }
            (Receiving::Head(_), _) => End::ResponseTimeout,
            (Receiving::Body { .. } | Receiving::Upgraded, _) if !self.is_held_up() => {
                self.end_stream();
                End::Truncated
            }
            (Receiving::Body { .. } | Receiving::Upgraded, _) => End::ClientTimeout,
        }
    }

    /// An event stream that a drain ends gets the last chunk, where one can begin: to its client it has ended, and was
    /// not cut off (rule 7). It has no length that it could fall short of.
    fn end_stream(&self) {
        let Receiving::Body { body, framing, .. } = &self.receiving else { return };
        let can_begin = match framing {
            ClientFraming::Same => body.is_between_chunks(),
            ClientFraming::Chunked => true,
            ClientFraming::Stripped | ClientFraming::Closing | ClientFraming::Packed => false,
        };
        if can_begin && self.stream_since.is_some() && self.deadline.is_capped() {
            self.client.write_now(LAST_CHUNK);
        }
    }

    fn step_request(&mut self, cx: &mut Context<'_>) -> Step {
        let mut progress = Progress::Blocked;
        while let Sending::Active { head, body } = &mut self.sending {
            let slices = [IoSlice::new(&self.head[*head..]), IoSlice::new(&self.request.body()[*body..])];
            if slices.iter().any(|slice| !slice.is_empty()) {
                match self.upstream.stream.poll_write(cx, &slices) {
                    Poll::Pending => return Ok(progress),
                    Poll::Ready(Err(_)) => self.sending = Sending::Abandoned,
                    Poll::Ready(Ok(bytes)) => {
                        let of_head = bytes.min(self.head.len() - *head);
                        *head += of_head;
                        *body += bytes - of_head;
                        self.sent += bytes as u64;
                        self.upstream.written += bytes as u64;
                        self.deadline.arm_ms(self.idle_ms);
                    }
                }
                progress = Progress::Made;
                continue;
            }
            if self.request.body_is_complete() {
                self.sending = Sending::Finished;
                if matches!(self.receiving, Receiving::Head(_)) {
                    self.deadline.arm_ms(self.timeouts.response_head_ms);
                }
                return Ok(Progress::Made);
            }
            if self.request.make_room() {
                *body = 0;
            }
            match self.client.poll_read(cx, self.request.space()) {
                Poll::Pending => {
                    // An instance that has begun to answer does not wait.
                    if matches!(self.receiving, Receiving::Head(_))
                        && let Some(left_ms) = self.patience.wait(self.worker.deadlines.now_ms())
                    {
                        self.deadline.arm_ms(left_ms);
                    }
                    return Ok(progress);
                }
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::ClientGone),
                Poll::Ready(Ok(bytes)) => {
                    self.request.add(bytes);
                    self.patience.got(bytes, self.worker.deadlines.now_ms());
                    self.request.absorb(self.body_bytes_max).map_err(End::Body)?;
                    self.deadline.arm_ms(self.idle_ms);
                    if self.yields(cx, bytes) {
                        return Ok(Progress::Blocked);
                    }
                    progress = Progress::Made;
                }
            }
        }
        Ok(progress)
    }

    fn step_response(&mut self, cx: &mut Context<'_>) -> Step {
        let mut progress = Progress::Blocked;
        loop {
            if !self.out.is_empty() {
                let body = self.response.as_ref().map_or(&[][..], |b| b.bytes(self.out.body.clone()));
                let slices = [
                    IoSlice::new(&self.out.head[self.out.head_sent..]),
                    IoSlice::new(body),
                    IoSlice::new(self.out.tail),
                ];
                match self.client.poll_write(cx, &slices) {
                    Poll::Pending => {
                        self.wait_for_client();
                        return Ok(progress);
                    }
                    Poll::Ready(Err(_)) => return Err(End::ClientGone),
                    Poll::Ready(Ok(bytes)) => {
                        self.out.advance(bytes);
                        self.taking.moved();
                        // Early words of an instance are not its answer: it has as long for that as it had before.
                        let is_early = matches!(self.receiving, Receiving::Head(_));
                        if !is_early || matches!(self.sending, Sending::Active { .. }) {
                            self.deadline.arm_ms(self.idle_ms);
                        }
                        progress = Progress::Made;
                    }
                }
                continue;
            }
            self.settle();
            match self.receiving {
                Receiving::Upgraded => return Err(End::Upgraded),
                Receiving::Body { body: Body::Done, .. } => return Err(self.complete()),
                Receiving::Body { .. } if self.response.is_some() => {
                    self.feed()?;
                    continue;
                }
                Receiving::Body { .. } | Receiving::Head(_) => {}
            }
            if self.head()? {
                continue;
            }
            // What cannot be passed on is left with the instance: a hundred streams of one client that reads nothing would
            // hold a buffer each.
            let Poll::Ready(room) = self.client.poll_room(cx) else {
                self.wait_for_client();
                return Ok(progress);
            };
            // No buffer while waiting: a thousand quiet connections would hold 128 MiB.
            if self.upstream.stream.poll_read_ready(cx).is_pending() {
                return Ok(progress);
            }
            let buffer = self.response.get_or_insert_with(|| Buffer::take(Kind::Response));
            let space = buffer.space();
            let bytes_max = space.len().min(room);
            let read = self.upstream.stream.poll_read_known(cx, &mut space[..bytes_max]);
            if buffer.is_empty() && !matches!(read, Poll::Ready(Ok(1..))) {
                self.response = None;
            }
            match read {
                Poll::Pending => return Ok(progress),
                Poll::Ready(Ok(0)) => self.end_of_stream()?,
                Poll::Ready(Err(error)) => return Err(self.broken(&error)),
                Poll::Ready(Ok(bytes)) => {
                    if let Some(buffer) = &mut self.response {
                        buffer.add(bytes);
                    }
                    self.answered = true;
                    // An instance that sends its head byte by byte does not get more time for it.
                    if !matches!(self.receiving, Receiving::Head(_)) {
                        self.deadline.arm_ms(self.idle_ms);
                    }
                    if self.yields(cx, bytes) {
                        return Ok(Progress::Blocked);
                    }
                }
            }
            progress = Progress::Made;
        }
    }

    /// Everything for the client was taken: frees what it occupied.
    fn settle(&mut self) {
        if self.out.head_sent > 0 {
            self.out.head.clear();
            self.out.head_sent = 0;
        }
        if self.out.consumed > 0
            && let Some(buffer) = &mut self.response
        {
            buffer.consume(self.out.consumed);
        }
        self.out.consumed = 0;
        if self.response.as_ref().is_some_and(Buffer::is_empty) {
            self.response = None;
        }
    }

    /// Looks for a head; says whether there was one.
    fn head(&mut self) -> Result<bool, End> {
        let (Receiving::Head(scan), Some(buffer)) = (&mut self.receiving, &mut self.response) else {
            return Ok(false);
        };
        let end = match scan.response(buffer.filled()) {
            Err(_) => return Err(End::BadResponse(BadResponse::Head)),
            Ok(None) => return Ok(false),
            Ok(Some((_, end))) => end,
        };
        let mut storage = header_storage();
        let method = if self.facts.is_head { "HEAD" } else { "GET" };
        let head =
            ResponseHead::parse(&buffer.filled()[..end], &mut storage, method).map_err(End::BadResponse)?;
        // The rest of an unfinished request body would be taken for the next request.
        let keep_alive = self.facts.wants_keep_alive
            && self.request.body_is_complete()
            && !self.worker.is_draining(self.listener);
        let framing = match (head.delimiter, self.facts.version) {
            (Delimiter::None | Delimiter::Length(_), _) => ClientFraming::Same,
            (Delimiter::Chunked, MinorVersion::One) => ClientFraming::Same,
            (Delimiter::Chunked, MinorVersion::Zero) => ClientFraming::Stripped,
            (Delimiter::Close, MinorVersion::One) => ClientFraming::Chunked,
            (Delimiter::Close, MinorVersion::Zero) => ClientFraming::Closing,
        };
        let keep_alive = keep_alive && !matches!(framing, ClientFraming::Stripped | ClientFraming::Closing);
        let reply = Reply {
            version: self.facts.version,
            keep_alive,
            added: self.added,
            request_id: self.added,
            changes: &[],
            packing: Packing::Never,
        };
        match head.status {
            101 if !self.facts.offers_upgrade => return Err(End::BadResponse(BadResponse::Upgrade)),
            101 => {
                head.write(self.out.head.now(), &reply);
                self.receiving = Receiving::Upgraded;
                self.stream_since = Some(Instant::now());
            }
            // HTTP/1.0 clients do not know informational responses.
            100..=199 => {
                if self.facts.version == MinorVersion::One {
                    head.write(self.out.head.now(), &reply);
                }
                *scan = HeadScan::default();
            }
            status => {
                if let Some(watch) = &mut self.watch
                    && watch.head(&head, self.request.head()) == Way::Withheld
                {
                    let reusable = head.keep_alive
                        && head.delimiter == Delimiter::None
                        && matches!(self.sending, Sending::Finished)
                        && buffer.filled().len() == end;
                    return Err(End::Withheld { status, reusable });
                }
                let (framing, packing) = self.wanted.packing(
                    &head,
                    self.request.head(),
                    framing,
                    self.facts.version,
                    &mut self.packer,
                );
                let reply = Reply { packing, changes: &self.wanted.policy.changes, ..reply };
                head.write(self.out.head.now(), &reply);
                let body = head.delimiter.body();
                let reusable = head.keep_alive;
                if head.is_stream {
                    self.stream_since = Some(Instant::now());
                    self.idle_ms = self.timeouts.upgrade_idle_ms;
                    let drain_ms = self.timeouts.stream_drain_ms;
                    self.deadline.enter(Phase::Stream { endpoint: self.endpoint, drain_ms });
                    // The instance may have been removed while it thought about its answer.
                    let worker = self.worker;
                    worker.deadlines.drain_streams(|endpoint| !worker.has_endpoint(endpoint));
                }
                self.receiving = Receiving::Body { body, framing, status, keep_alive, reusable };
                self.deadline.arm_ms(self.idle_ms);
            }
        }
        buffer.consume(end);
        if matches!(self.receiving, Receiving::Body { .. }) && !buffer.is_empty() {
            // Head and the beginning of the body leave in one write. Nothing of either has left yet, so a body that is
            // broken already need not look like one that was cut.
            if self.feed().is_err() {
                self.out.head.clear();
                (self.packer, self.stream_since) = (None, None);
                self.receiving = Receiving::Head(HeadScan::default());
                return Err(End::BadResponse(BadResponse::Body));
            }
        }
        Ok(true)
    }

    /// Makes what is in the response buffer ready for the client.
    fn feed(&mut self) -> Result<(), End> {
        let (Receiving::Body { body, framing, .. }, Some(buffer)) = (&mut self.receiving, &mut self.response)
        else {
            return Ok(());
        };
        let keep = match framing {
            ClientFraming::Stripped => Framing::Strip,
            ClientFraming::Same if self.client.as_pipe().is_some() => Framing::KeepTrailers,
            ClientFraming::Packed => Framing::Strip,
            ClientFraming::Same | ClientFraming::Chunked | ClientFraming::Closing => Framing::Keep,
        };
        let start = buffer.range().start;
        let fed = body.feed(buffer.filled_mut(), keep).map_err(|_| End::Truncated)?;
        if let Some(watch) = &mut self.watch {
            watch.body(&buffer.filled()[..fed.pass], keep != Framing::Strip, body.is_done());
        }
        if let Some(packer) = &mut self.packer {
            let is_done = body.is_done();
            let packed = pack(packer, &buffer.filled()[..fed.pass], is_done, &mut self.out.head);
            self.bytes_out += packed.map_err(|_| End::Truncated)? as u64;
            buffer.consume(fed.read);
            return Ok(());
        }
        self.bytes_out += fed.pass as u64;
        if !self.out.head.is_empty() && fed.pass <= COPY_BYTES_MAX && *framing != ClientFraming::Chunked {
            self.out.head.extend_from_slice(&buffer.filled()[..fed.pass]);
            buffer.consume(fed.read);
            return Ok(());
        }
        self.out.body = start..start + fed.pass;
        self.out.consumed = fed.read;
        if *framing == ClientFraming::Chunked && fed.pass > 0 {
            use std::io::Write as _;
            write!(*self.out.head, "{:x}\r\n", fed.pass).expect("memory can be written to");
            self.out.tail = b"\r\n";
        }
        Ok(())
    }

    fn end_of_stream(&mut self) -> Result<(), End> {
        match &mut self.receiving {
            Receiving::Head(_) if self.answered => Err(End::BadResponse(BadResponse::Head)),
            Receiving::Head(_) => Err(End::NoResponse { closed: true }),
            Receiving::Body { body: body @ Body::UntilClose, framing, .. } => {
                *body = Body::Done;
                if let Some(packer) = &mut self.packer {
                    pack(packer, b"", true, &mut self.out.head).map_err(|_| End::Truncated)?;
                } else if *framing == ClientFraming::Chunked {
                    self.out.head.extend_from_slice(b"0\r\n\r\n");
                }
                Ok(())
            }
            Receiving::Body { .. } | Receiving::Upgraded => Err(self.cut_off()),
        }
    }

    fn broken(&self, _error: &io::Error) -> End {
        match self.receiving {
            Receiving::Head(_) if self.answered => End::BadResponse(BadResponse::Head),
            Receiving::Head(_) => End::NoResponse { closed: false },
            Receiving::Body { .. } | Receiving::Upgraded => self.cut_off(),
        }
    }

    /// The instance went within an answer. One that goes before the drain's time is over has ended its event streams:
    /// on a busy machine it may be told to stop before this core comes to do that.
    fn cut_off(&self) -> End {
        if !self.is_held_up() {
            self.end_stream();
        }
        End::Truncated
    }

    fn complete(&self) -> End {
        let all_sent = matches!(self.sending, Sending::Finished);
        // Bytes behind the response were not asked for: whose answer are they?
        let nothing_left = self.response.is_none();
        match self.receiving {
            Receiving::Body { reusable, .. } => {
                End::Complete { reusable: reusable && all_sent && nothing_left }
            }
            Receiving::Head(_) | Receiving::Upgraded => End::Complete { reusable: false },
        }
    }
}

/// Adds what `data` packs to as one chunk, and the last chunk when it is the end; says how many bytes of body that is.
fn pack(packer: &mut Packer, data: &[u8], is_end: bool, out: &mut Vec<u8>) -> io::Result<usize> {
    let mut packed = Vec::new();
    if !data.is_empty() {
        packer.pack(data, &mut packed)?;
    }
    if is_end {
        packer.finish(&mut packed)?;
    }
    if !packed.is_empty() {
        use std::io::Write as _;
        write!(out, "{:x}\r\n", packed.len())?;
        out.extend_from_slice(&packed);
        out.extend_from_slice(b"\r\n");
    }
    if is_end {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    Ok(packed.len())
}
