use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::SendStream;
use http::HeaderMap;

use super::Stopped;
use super::budget::{Budget, EARNED};
use super::fields::{Ending, conclude, trailers};
use crate::codec::{Body, Framing};
use crate::pipe::Pipe;

/// A body that comes out of a pipe as HTTP/1.1 and goes out as HTTP/2.
///
/// Nothing is given to `h2` for which the peer has opened no window: what it does not take stays in the pipe, and holds
/// up whoever writes into it.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Body,
    /// Read from the pipe, framing and all.
    held: BytesMut,
    /// Data that waits for a window.
    data: Bytes,
    trailers: Vec<u8>,
    ending: Ending,
}

impl Outgoing {
    /// `held`: what was read behind the head.
    pub(super) fn new(body: Body, held: BytesMut, ending: Ending) -> Self {
        Self { body, held, data: Bytes::new(), trailers: Vec::new(), ending }
    }

    /// Ends it although it is not complete, if that can be said; otherwise the stream is to be reset.
    pub(super) fn cut(&self, out: &mut SendStream<Bytes>) -> bool {
        if self.ending == Ending::Plain {
            return false;
        }
        let mut trailers = HeaderMap::new();
        conclude(&mut trailers);
        out.send_trailers(trailers).is_ok()
    }

    /// Ready when `h2` has all of it, its end included.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &Pipe,
        out: &mut SendStream<Bytes>,
        budget: &Budget,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            if !self.data.is_empty() {
                out.reserve_capacity(self.data.len());
                if out.capacity() == 0 {
                    match ready!(out.poll_capacity(cx)) {
                        Some(Ok(_)) => continue,
                        Some(Err(_)) | None => return Poll::Ready(Err(Stopped::Peer)),
                    }
                }
                let piece = self.data.split_to(self.data.len().min(out.capacity()));
                let has_trailers = !self.trailers.is_empty() || self.ending == Ending::GrpcStatus;
                let is_last = self.data.is_empty() && self.body.is_done() && !has_trailers;
                pipe.pass_on(piece.len());
                out.send_data(piece, is_last).map_err(|_| Stopped::Peer)?;
                budget.earn(EARNED);
                if is_last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if self.body.is_done() {
                let mut trailers = trailers(&self.trailers);
                if self.ending == Ending::GrpcStatus {
                    conclude(&mut trailers);
                }
                let ended = match trailers.is_empty() {
                    true => out.send_data(Bytes::new(), true),
                    false => out.send_trailers(trailers),
                };
                return Poll::Ready(ended.map_err(|_| Stopped::Peer));
            }
            if self.held.is_empty() {
                match ready!(pipe.poll_fill(cx, &mut self.held)) {
                    Ok(0) if self.body == Body::UntilClose => self.body = Body::Done,
                    Ok(0) | Err(_) => return Poll::Ready(Err(Stopped::Relay)),
                    Ok(_) => {}
                }
                continue;
            }
            let trailers = &mut self.trailers;
            let fed = self.body.feed_with(&mut self.held, Framing::Strip, |b| trailers.push(b));
            // It was written by the relay, which checked it.
            let Ok(fed) = fed else { return Poll::Ready(Err(Stopped::Relay)) };
            self.data = self.held.split_to(fed.pass).freeze();
            self.held.advance(fed.read - fed.pass);
        }
    }
}
