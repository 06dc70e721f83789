use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::budget::{Budget, LARGE, SMALL};
use crate::stream::Stream;

/// What HTTP/2 is spoken over: the connection, with bytes that were read before, and with an eye on the frames that
/// come in.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Rc<Stream>,
    before: Bytes,
    frames: Frames,
    watch: Rc<Watch>,
}

/// What is known of a connection without asking `h2`.
#[derive(Debug)]
pub(super) struct Watch {
    pub budget: Budget,
    role: Role,
    /// Bytes in both directions; says whether anything moves.
    moved: Cell<u64>,
    written: Cell<u64>,
    /// The peer does too much besides its requests. Nothing more is read.
    flooded: Cell<bool>,
    settings_seen: Cell<bool>,
    /// The last stream of ours that the peer has acted upon, or may act upon, as it said when it went away.
    last_stream: Cell<Option<u32>>,
    /// The peer closed in good order, and its kernel had acknowledged so many bytes of ours.
    ended: Cell<Option<Option<u64>>>,
}

/// What a ping moves by itself.
pub(super) const PING_BYTES: u64 = 9 + 8;

/// Which side we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
}

impl Watch {
    fn new(role: Role) -> Self {
        Self {
            budget: Budget::new(),
            role,
            moved: Cell::new(0),
            written: Cell::new(0),
            flooded: Cell::new(false),
            settings_seen: Cell::new(false),
            last_stream: Cell::new(None),
            ended: Cell::new(None),
        }
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved.get()
    }

    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    pub(super) fn settings_seen(&self) -> bool {
        self.settings_seen.get()
    }

    /// Whether the peer has said that it goes away.
    pub(super) fn is_going(&self) -> bool {
        self.last_stream.get().is_some() || self.ended.get().is_some()
    }

    /// Whether it is proven that the peer did not act upon our stream `id`, whose first frame was not written before
    /// `written` bytes of the connection were.
    pub(super) fn is_unreceived(&self, id: u32, written: u64) -> bool {
        let is_above = self.last_stream.get().is_some_and(|last| id > last);
        // Linux counts the SYN as one byte.
        let is_unread = self.ended.get().flatten().is_some_and(|acknowledged| acknowledged <= written + 1);
        is_above || is_unread
    }

    fn frame(&self, kind: u8, flags: u8, length: u32) {
        const ACK_OR_END_STREAM: u8 = 1;
        let cost = match (kind, flags & ACK_OR_END_STREAM) {
            (kind::DATA, 0) if length == 0 => SMALL,
            // Bodies are held up by windows, requests by the limit of streams, and both are what we are here for.
            (kind::DATA | kind::HEADERS, _) => 0,
            (kind::SETTINGS | kind::PING, ACK_OR_END_STREAM) => SMALL,
            (kind::SETTINGS | kind::PING | kind::RST_STREAM | kind::GOAWAY, _) => LARGE,
            (_, _) => SMALL,
        };
        if kind == kind::SETTINGS {
            self.settings_seen.set(true);
        }
        // Instances are ours: what they do besides answering is our own fault.
        if cost > 0 && self.role == Role::Server && self.budget.spend(cost).is_err() {
            self.flooded.set(true);
        }
    }
}

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
}

impl Wire {
    pub(super) fn new(stream: Rc<Stream>, before: Bytes, role: Role) -> (Self, Rc<Watch>) {
        let watch = Rc::new(Watch::new(role));
        let frames = match role {
            Role::Server => Frames::Skip { left: super::server::PREFACE.len() as u32 },
            Role::Client => Frames::START,
        };
        (Self { stream, before, frames, watch: Rc::clone(&watch) }, watch)
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.watch.moved.set(self.watch.moved.get() + *bytes as u64);
            self.watch.written.set(self.watch.written.get() + *bytes as u64);
        }
        result
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watch.flooded.get() {
            // Whoever polls the connection looks at the flag next.
            return Poll::Pending;
        }
        let read = if this.before.is_empty() {
            let space = buf.initialize_unfilled();
            let read = ready!(this.stream.poll_read(cx, space))?;
            if read == 0 && !space.is_empty() {
                this.watch.ended.set(Some(this.stream.acknowledged()));
            }
            this.frames.follow(&space[..read], &this.watch);
            buf.advance(read);
            read
        } else {
            let read = this.before.len().min(buf.remaining());
            this.frames.follow(&this.before[..read], &this.watch);
            buf.put_slice(&this.before[..read]);
            this.before.advance(read);
            read
        };
        this.watch.moved.set(this.watch.moved.get() + read as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote(self.stream.poll_write(cx, &[IoSlice::new(buf)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wrote(self.stream.poll_write(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is the kernel's.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.half_close();
        Poll::Ready(Ok(()))
    }
}

/// Where frames begin and end (RFC 9113, section 4.1). Payloads are not looked at, but for the first word of a GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frames {
    Header { bytes: [u8; 9], len: u8 },
    Skip { left: u32 },
    LastStream { bytes: [u8; 4], len: u8, left: u32 },
}

impl Frames {
    const START: Self = Self::Header { bytes: [0; 9], len: 0 };

    fn follow(&mut self, mut data: &[u8], watch: &Watch) {
        while !data.is_empty() {
            match self {
                Self::Skip { left } => {
                    let here = data.len().min(*left as usize);
                    *left -= here as u32;
                    data = &data[here..];
                    if *left == 0 {
                        *self = Self::START;
                    }
                }
                Self::Header { bytes, len } => {
                    let at = usize::from(*len);
                    let here = data.len().min(bytes.len() - at);
                    bytes[at..at + here].copy_from_slice(&data[..here]);
                    *len += here as u8;
                    data = &data[here..];
                    if at + here == bytes.len() {
                        let [a, b, c, kind, flags, ..] = *bytes;
                        let length = u32::from_be_bytes([0, a, b, c]);
                        watch.frame(kind, flags, length);
                        *self = match (kind, length) {
                            (_, 0) => Self::START,
                            (kind::GOAWAY, 8..) => Self::LastStream { bytes: [0; 4], len: 0, left: length },
                            (_, left) => Self::Skip { left },
                        };
                    }
                }
                Self::LastStream { bytes, len, left } => {
                    bytes[usize::from(*len)] = data[0];
                    *len += 1;
                    *left -= 1;
                    data = &data[1..];
                    if *len == 4 {
                        let last = u32::from_be_bytes(*bytes) & 0x7fff_ffff;
                        // A later one may only be lower; whoever says otherwise is not believed.
                        watch
                            .last_stream
                            .set(Some(watch.last_stream.get().map_or(last, |old| old.min(last))));
                        *self = Self::Skip { left: *left };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::RESERVE;
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 0]);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn a_goaway_is_found_wherever_the_bytes_are_split() {
        let goaway = |last: u32| frame(kind::GOAWAY, 0, &[&last.to_be_bytes()[..], &[0; 4], b"why"].concat());
        let bytes = [
            frame(kind::SETTINGS, 0, &[]),
            frame(kind::DATA, 0, &[7; 300]),
            goaway(0x8000_0005),
            frame(kind::PING, 0, &[7; 8]),
            goaway(9),
        ]
        .concat();
        for step in 1..bytes.len() {
            let (watch, mut frames) = (Watch::new(Role::Client), Frames::START);
            for part in bytes.chunks(step) {
                frames.follow(part, &watch);
            }
            assert_eq!(frames, Frames::START);
            assert!(watch.settings_seen());
            assert!(!watch.is_unreceived(5, 0) && watch.is_unreceived(7, 0), "step {step}");
        }
    }

    #[test]
    fn a_flood_of_frames_of_any_kind_exhausts_the_budget() {
        for (name, kind, flags, payload) in [
            ("settings", kind::SETTINGS, 0, &[][..]),
            ("settings acks", kind::SETTINGS, 1, &[]),
            ("pings", kind::PING, 0, &[0; 8]),
            ("pongs", kind::PING, 1, &[0; 8]),
            ("resets", kind::RST_STREAM, 0, &[0; 4]),
            ("priorities", 2, 0, &[0; 5]),
            ("window updates", 8, 0, &[0; 4]),
            ("continuations", 9, 0, &[]),
            ("empty data", kind::DATA, 0, &[]),
            ("unknown", 0xbb, 0, &[]),
        ] {
            let (watch, mut frames) = (Watch::new(Role::Server), Frames::START);
            let one = frame(kind, flags, payload);
            for count in 0.. {
                frames.follow(&one, &watch);
                if watch.is_flooded() {
                    assert!(count >= RESERVE / LARGE, "{name}: {count}");
                    break;
                }
                assert!(count < 2 * RESERVE, "{name} go on for ever");
            }
        }
    }

    #[test]
    fn requests_and_bodies_cost_nothing() {
        let (watch, mut frames) = (Watch::new(Role::Server), Frames::START);
        for _ in 0..2 * RESERVE {
            frames.follow(&frame(kind::HEADERS, 5, &[0x82]), &watch);
            frames.follow(&frame(kind::DATA, 0, &[1]), &watch);
            frames.follow(&frame(kind::DATA, 1, &[]), &watch);
        }
        assert!(!watch.is_flooded());
    }
}
