use crate::buffer::{Buffer, Kind};
use crate::codec::{Body, BodyError, Framing, HeadScan, Refusal};

/// What a client sent: a head, the part of its body that is here, and whatever follows.
///
/// Layout: `[head][body, checked][next request …]`. Head and body stay until the response begins, so that the
/// request can be routed and sent again; once a body has filled the buffer its beginning is given up.
#[derive(Debug)]
pub(super) struct RequestBuffer {
    buffer: Buffer,
    scan: HeadScan,
    head: std::ops::Range<usize>,
    body: Body,
    framing: Framing,
    body_end: usize,
    /// Where the next request begins, once the body is complete.
    next: usize,
    replay: Replay,
    body_bytes: u64,
    /// Of `body_bytes` what is no framing: a limit holds for a body, however it is cut into chunks.
    data_bytes: u64,
}

/// Whether the whole request, as far as it arrived, is still here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replay {
    Whole,
    Lost,
}

/// Why a body is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyRefusal {
    Malformed(BodyError),
    TooLarge,
}

impl RequestBuffer {
    pub(super) fn new() -> Self {
        Self {
            buffer: Buffer::take(Kind::Request),
            scan: HeadScan::default(),
            head: 0..0,
            body: Body::Done,
            framing: Framing::Keep,
            body_end: 0,
            next: 0,
            replay: Replay::Whole,
            body_bytes: 0,
            data_bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn space(&mut self) -> &mut [u8] {
        self.buffer.grow_if_full();
        self.buffer.space()
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.buffer.add(bytes);
    }

    /// Whether a head is complete.
    pub(super) fn find_head(&mut self) -> Result<bool, Refusal> {
        match self.scan.request(self.buffer.filled())? {
            None => Ok(false),
            Some((start, end)) => {
                self.head = start..end;
                self.body_end = end;
                self.next = end;
                Ok(true)
            }
        }
    }

    pub(super) fn head(&self) -> &[u8] {
        self.buffer.bytes(self.head.clone())
    }

    /// Says what body follows the head, and what is kept of its chunks.
    pub(super) fn expect_body(&mut self, body: Body, framing: Framing) {
        self.body = body;
        self.framing = framing;
    }

    /// Checks what arrived behind the body so far.
    pub(super) fn absorb(&mut self, bytes_max: u64) -> Result<(), BodyRefusal> {
        if self.body.is_done() {
            return Ok(());
        }
        let from = self.body_end;
        let fresh = self.buffer.bytes_mut(from..self.buffer.range().end);
        let fed = self.body.feed(fresh, self.framing).map_err(BodyRefusal::Malformed)?;
        self.body_end = from + fed.pass;
        self.body_bytes += fed.pass as u64;
        self.data_bytes += fed.data;
        if self.body.is_done() {
            self.next = from + fed.read;
        } else {
            self.buffer.truncate_to(self.body_end);
        }
        if self.data_bytes > bytes_max { Err(BodyRefusal::TooLarge) } else { Ok(()) }
    }

    /// The body as far as it is here.
    pub(super) fn body(&self) -> &[u8] {
        self.buffer.bytes(self.head.end..self.body_end)
    }

    pub(super) fn body_is_complete(&self) -> bool {
        self.body.is_done()
    }

    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Gives the part of the body that was sent up, if there is no room for more.
    /// Returns whether it did.
    pub(super) fn make_room(&mut self) -> bool {
        if !self.space().is_empty() {
            return false;
        }
        self.replay = Replay::Lost;
        self.body_end = self.head.end;
        self.buffer.truncate_to(self.body_end);
        true
    }

    /// Whether the request can be sent again from its beginning.
    pub(super) fn can_replay(&self) -> bool {
        self.replay == Replay::Whole
    }

    /// Everything from the head on.
    pub(super) fn all(&self) -> &[u8] {
        self.buffer.bytes(self.head.start..self.buffer.range().end)
    }

    /// What arrived behind the request.
    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.bytes(self.next..self.buffer.range().end)
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Forgets the request. What follows it moves to the front.
    pub(super) fn finish(&mut self) {
        self.buffer.consume(self.next);
        self.buffer.compact();
        self.scan = HeadScan::default();
        self.head = 0..0;
        self.body = Body::Done;
        self.body_end = 0;
        self.next = 0;
        self.replay = Replay::Whole;
        self.body_bytes = 0;
        self.data_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Chunked;

    fn push(buffer: &mut RequestBuffer, bytes: &[u8]) {
        buffer.space()[..bytes.len()].copy_from_slice(bytes);
        buffer.add(bytes.len());
    }

    #[test]
    fn a_pipelined_request_behind_a_chunked_body_with_extensions_is_found() {
        let mut buffer = RequestBuffer::new();
        push(&mut buffer, b"\r\nPOST / HTTP/1.1\r\n\r\n3;ext\r\nabc\r\n0\r\nX: y\r\n\r\nGET /next");
        assert!(buffer.find_head().unwrap());
        assert_eq!(buffer.head(), b"POST / HTTP/1.1\r\n\r\n");
        buffer.expect_body(Body::Chunked(Chunked::default()), Framing::Keep);
        buffer.absorb(u64::MAX).unwrap();
        assert!(buffer.body_is_complete());
        assert_eq!(buffer.body(), b"3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(buffer.rest(), b"GET /next");
        buffer.finish();
        assert!(!buffer.find_head().unwrap());
        push(&mut buffer, b" HTTP/1.1\r\n\r\n");
        assert!(buffer.find_head().unwrap());
        assert_eq!(buffer.head(), b"GET /next HTTP/1.1\r\n\r\n");
        buffer.finish();
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_limit_is_for_the_data_and_not_for_the_framing_of_chunks() {
        let body = b"3\r\nabc\r\n1;ext\r\nd\r\n0\r\n\r\n";
        for (bytes_max, answer) in [(4, Ok(())), (3, Err(BodyRefusal::TooLarge))] {
            let mut buffer = RequestBuffer::new();
            push(&mut buffer, b"POST / HTTP/1.1\r\n\r\n");
            assert!(buffer.find_head().unwrap());
            buffer.expect_body(Body::Chunked(Chunked::default()), Framing::Keep);
            push(&mut buffer, body);
            assert_eq!(buffer.absorb(bytes_max), answer);
        }
    }

    #[test]
    fn a_body_larger_than_the_buffer_loses_its_replay_and_nothing_else() {
        let mut buffer = RequestBuffer::new();
        push(&mut buffer, b"POST / HTTP/1.1\r\n\r\n");
        assert!(buffer.find_head().unwrap());
        let total = 1_000_000u64;
        buffer.expect_body(Body::length(total), Framing::Keep);
        let mut sent = 0u64;
        let mut part = 0;
        while !buffer.body_is_complete() {
            let room =
                buffer.space().len().min(7_000).min(usize::try_from(total - buffer.body_bytes()).unwrap());
            buffer.add(room);
            buffer.absorb(u64::MAX).unwrap();
            sent += (buffer.body().len() - part) as u64;
            part = buffer.body().len();
            if buffer.make_room() {
                part = 0;
            }
        }
        assert_eq!(sent, total);
        assert!(!buffer.can_replay());
        assert_eq!(buffer.absorb(10), Ok(()), "a complete body is not judged again");
    }
}
