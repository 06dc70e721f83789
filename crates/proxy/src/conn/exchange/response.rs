//! The way back: the head as the client is to have it, then the body, whole or not at all.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll};
use std::time::Instant;

use super::gather::gather;
use super::request::Sending;
use super::{End, Exchange, Progress, Step};
use crate::buffer::{Buffer, HeadBuffer, Kind};
use crate::codec::{
    BadResponse, Body, Delimiter, Framing, HeadScan, MinorVersion, Reply, ResponseHead, header_storage,
};
use crate::deadline::Phase;
use crate::policy::RoutePolicy;
use crate::policy::cache::Way;
use crate::policy::coding::{Coding, Packing};
use crate::policy::packer::Packer;

/// Bodies up to this are copied behind their head: one piece to send costs less than the copy.
pub(super) const COPY_BYTES_MAX: usize = 4 * 1024;

/// Without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[derive(Debug)]
pub(super) enum Receiving {
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

/// How the client learns where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientFraming {
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
pub(super) struct Outgoing {
    head: HeadBuffer,
    head_sent: usize,
    /// In the response buffer.
    body: Range<usize>,
    tail: &'static [u8],
    /// To be taken off the response buffer when all is sent.
    consumed: usize,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self { head: HeadBuffer::later(), head_sent: 0, body: 0..0, tail: b"", consumed: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
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

/// What is to become of the answer.
#[derive(Debug, Clone, Copy)]
pub(in crate::conn) struct Wanted<'a> {
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

impl Exchange<'_> {
    pub(super) fn step_response(&mut self, cx: &mut Context<'_>) -> Step {
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
                Poll::Ready(Err(_)) => return Err(self.broken()),
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
        if let Receiving::Body { body: Body::Length { left }, .. } = self.receiving
            && self.client.as_pipe().is_none()
        {
            gather(&self.upstream.stream, buffer, left);
        }
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

    fn broken(&self) -> End {
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

    /// An event stream that a drain ends gets the last chunk, where one can begin: to its client it has ended, and was
    /// not cut off (rule 7). It has no length that it could fall short of.
    pub(super) fn end_stream(&self) {
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
