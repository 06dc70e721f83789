use std::io::{IoSlice, Write as _};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::RecvStream;

use super::Stopped;
use super::fields::{Carrier, write_trailers};
use crate::pipe::Pipe;

/// A body that comes from HTTP/2 and goes into a pipe as HTTP/1.1.
///
/// The peer's window is opened again only by what the pipe took, so that the relay's pace is the peer's.
#[derive(Debug)]
pub(super) struct Incoming {
    carrier: Carrier,
    state: State,
    /// A head, then chunk sizes, then the end of the chunks with the trailers.
    front: Vec<u8>,
    sent: usize,
    data: Bytes,
    tail: &'static [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    /// The last bytes are in `front`.
    Last,
}

impl Incoming {
    /// `head` goes before the body.
    pub(super) fn new(head: Vec<u8>, carrier: Carrier) -> Self {
        let state = if carrier == Carrier::Nothing { State::Last } else { State::Data };
        Self { carrier, state, front: head, sent: 0, data: Bytes::new(), tail: b"" }
    }

    /// Ready when the body is complete and the pipe has all of it. A tunnel's pipe is then closed this way.
    /// `is_open`: the body may follow the head; until then only the head is written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RecvStream,
        pipe: &Pipe,
        is_open: bool,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            ready!(self.poll_flush(cx, body, pipe))?;
            match self.state {
                // Whoever says otherwise later polls again.
                State::Data | State::Trailers if !is_open => return Poll::Pending,
                State::Data => match ready!(body.poll_data(cx)) {
                    Some(Ok(data)) => self.take(data),
                    Some(Err(_)) => return Poll::Ready(Err(Stopped::Peer)),
                    None => self.state = State::Trailers,
                },
                State::Trailers => {
                    let trailers = match ready!(body.poll_trailers(cx)) {
                        Ok(trailers) => trailers,
                        Err(_) => return Poll::Ready(Err(Stopped::Peer)),
                    };
                    self.state = State::Last;
                    if self.carrier == Carrier::Chunked {
                        self.front.extend_from_slice(b"0\r\n");
                        if let Some(trailers) = trailers {
                            write_trailers(&trailers, &mut self.front);
                        }
                        self.front.extend_from_slice(b"\r\n");
                    }
                }
                State::Last => {
                    if self.carrier == Carrier::Raw {
                        pipe.half_close();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn take(&mut self, data: Bytes) {
        if self.carrier == Carrier::Chunked && !data.is_empty() {
            write!(self.front, "{:x}\r\n", data.len()).expect("memory can be written to");
            self.tail = b"\r\n";
        }
        self.data = data;
    }

    /// Ready when the pipe has everything that is here.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RecvStream,
        pipe: &Pipe,
    ) -> Poll<Result<(), Stopped>> {
        while self.sent < self.front.len() || !self.data.is_empty() || !self.tail.is_empty() {
            let slices =
                [IoSlice::new(&self.front[self.sent..]), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            let Ok(mut written) = ready!(pipe.poll_write(cx, &slices)) else {
                return Poll::Ready(Err(Stopped::Relay));
            };
            let front = written.min(self.front.len() - self.sent);
            self.sent += front;
            written -= front;
            let data = written.min(self.data.len());
            self.data.advance(data);
            self.tail = &self.tail[written - data..];
            if data > 0 {
                // Fails only when the stream is gone, which the next look at it tells.
                let _ = body.flow_control().release_capacity(data);
            }
        }
        self.front.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}
