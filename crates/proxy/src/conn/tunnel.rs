//! An upgraded connection: bytes in both directions until both sides closed.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll};

use super::websocket::{Frames, GOING_AWAY, GOING_AWAY_MASKED};
use crate::buffer::{Buffer, Kind};
use crate::deadline::Deadline;
use crate::stream::Stream;

/// One direction.
#[derive(Debug)]
struct Direction {
    state: State,
    /// For WebSockets: where frames end.
    frames: Option<Frames>,
}

#[derive(Debug)]
enum State {
    /// Nothing read; no buffer held.
    Waiting,
    Holding(Buffer),
    /// The reading side ended, and the writing side was told.
    Closed,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    WebSocket,
    Other,
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TunnelEnd {
    /// Both sides closed, or one broke.
    Closed,
    /// Nothing moved for too long, or the drain's time is over.
    Deadline,
}

#[derive(Debug)]
pub(super) struct Tunnel<'a> {
    pub client: &'a Stream,
    pub upstream: &'a Stream,
    pub deadline: &'a Deadline,
    pub idle_ms: u64,
    up: Direction,
    down: Direction,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl<'a> Tunnel<'a> {
    /// `from_client` and `from_upstream`: what was read already.
    pub(super) fn new(
        protocol: Protocol,
        client: &'a Stream,
        upstream: &'a Stream,
        deadline: &'a Deadline,
        idle_ms: u64,
        from_client: &[u8],
        from_upstream: Option<Buffer>,
    ) -> Self {
        let up = if from_client.is_empty() {
            State::Waiting
        } else {
            let mut buffer = Buffer::take(Kind::LongRequest);
            buffer.space()[..from_client.len()].copy_from_slice(from_client);
            buffer.add(from_client.len());
            State::Holding(buffer)
        };
        let down = from_upstream.map_or(State::Waiting, State::Holding);
        let frames = (protocol == Protocol::WebSocket).then(Frames::new);
        let (up, down) = (Direction { state: up, frames }, Direction { state: down, frames });
        Self { client, upstream, deadline, idle_ms, up, down, bytes_in: 0, bytes_out: 0 }
    }

    /// Tells both sides that this is the end, where that can be put between two frames.
    fn say_goodbye(&self) {
        for (direction, to, frame) in
            [(&self.down, self.client, GOING_AWAY), (&self.up, self.upstream, GOING_AWAY_MASKED)]
        {
            if direction.is_between_frames() {
                to.write_now(frame);
            }
        }
    }

    pub(super) async fn run(&mut self) -> TunnelEnd {
        self.deadline.arm_ms(self.idle_ms);
        poll_fn(|cx| {
            let before = (self.bytes_in, self.bytes_out);
            // An instance that goes before the drain's time is over leaves its goodbye to us.
            let says_goodbye = self.deadline.is_capped() && self.down.frames.is_some();
            let up = self.up.poll(cx, self.client, self.upstream, false, &mut self.bytes_in);
            let down = self.down.poll(cx, self.upstream, self.client, says_goodbye, &mut self.bytes_out);
            if (self.bytes_in, self.bytes_out) != before {
                self.deadline.arm_ms(self.idle_ms);
            }
            match (up, down) {
                (Poll::Ready(Err(Broken)), _) | (_, Poll::Ready(Err(Broken))) => {
                    if says_goodbye {
                        self.say_goodbye();
                    }
                    Poll::Ready(TunnelEnd::Closed)
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(TunnelEnd::Closed),
                (_, _) => self.deadline.poll_passed(cx).map(|_| {
                    self.say_goodbye();
                    TunnelEnd::Deadline
                }),
            }
        })
        .await
    }
}

struct Broken;

impl Direction {
    fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Waiting) && self.frames.is_some_and(|frames| frames.is_between())
    }

    /// Ready when this direction has ended. `breaks`: its end is one of both, and not passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        breaks: bool,
        bytes: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match &mut self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Holding(buffer) => match to.poll_write(cx, &[IoSlice::new(buffer.filled())]) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken)),
                    Poll::Ready(Ok(written)) => {
                        *bytes += written as u64;
                        if let Some(frames) = &mut self.frames {
                            frames.follow(&buffer.filled()[..written]);
                        }
                        buffer.consume(written);
                        if buffer.is_empty() {
                            self.state = State::Waiting;
                        }
                    }
                },
                State::Waiting => {
                    let Poll::Ready(room) = to.poll_room(cx) else { return Poll::Pending };
                    if from.poll_read_ready(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let mut buffer = Buffer::take(Kind::LongRequest);
                    let space = buffer.space();
                    let bytes_max = space.len().min(room);
                    match from.poll_read(cx, &mut space[..bytes_max]) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken)),
                        Poll::Ready(Ok(0)) if breaks => return Poll::Ready(Err(Broken)),
                        Poll::Ready(Ok(0)) => {
                            to.half_close();
                            self.state = State::Closed;
                        }
                        Poll::Ready(Ok(read)) => {
                            buffer.add(read);
                            self.state = State::Holding(buffer);
                        }
                    }
                }
            }
        }
    }
}
