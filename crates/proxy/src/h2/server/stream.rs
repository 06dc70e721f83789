use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use crate::codec::{Body, HeadScan, ResponseHead, header_storage};
use crate::h2::Stopped;
use crate::h2::budget::{EARNED, LARGE};
use crate::h2::fields::{self, Asked, Ending};
use crate::h2::incoming::Incoming;
use crate::h2::outgoing::Outgoing;
use crate::h2::wire::Watch;
use crate::pipe::Pipe;

/// One stream of a client: its request into the pipe, the answer out of it.
#[derive(Debug)]
pub(super) struct Serving {
    pipe: Pipe,
    body: RecvStream,
    incoming: Incoming,
    answer: Answer,
    asked: Asked,
    is_head: bool,
    watch: Rc<Watch>,
    since: Instant,
}

/// A client that waited for so long before it gave up is no flood: it is sent away by its own clock, or by somebody who
/// lost patience. An instance that hangs must not cost its clients the requests that they have elsewhere.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Answer {
    Head { respond: SendResponse<Bytes>, scan: HeadScan, held: BytesMut },
    Body { out: SendStream<Bytes>, body: Outgoing },
    Done,
}

impl Serving {
    pub(super) fn new(
        pipe: Pipe,
        body: RecvStream,
        incoming: Incoming,
        respond: SendResponse<Bytes>,
        asked: Asked,
        is_head: bool,
        watch: Rc<Watch>,
    ) -> Self {
        let answer = Answer::Head { respond, scan: HeadScan::default(), held: BytesMut::new() };
        Self { pipe, body, incoming, answer, asked, is_head, watch, since: Instant::now() }
    }

    /// `relay`: serves the other end of the pipe.
    pub(super) async fn run(mut self, relay: impl Future<Output = ()>) {
        let mut relay = pin!(relay);
        let mut relaying = true;
        let mut uploading = true;
        poll_fn(|cx| {
            if uploading {
                uploading = self.poll_upload(cx);
            }
            if relaying {
                relaying = relay.as_mut().poll(cx).is_pending();
            }
            let was_open = self.is_open();
            match self.poll_answer(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(Stopped::Peer)) => {
                    if self.since.elapsed() >= PATIENCE {
                        self.watch.budget.earn(LARGE);
                    }
                    self.pipe.reset();
                    return Poll::Ready(());
                }
                Poll::Ready(Err(Stopped::Relay)) => {
                    self.reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(());
                }
            }
            if uploading && !was_open && self.is_open() {
                uploading = self.poll_upload(cx);
            }
            Poll::Pending
        })
        .await;
        // What is dropped here tells the client to send no more of its body, and the relay that all of its answer was
        // taken.
        drop(self);
        if relaying {
            relay.await;
        }
    }

    /// Whether the client's bytes may go on: behind an upgrade only once it was agreed to, or they would be read as
    /// another request.
    fn is_open(&self) -> bool {
        match self.answer {
            Answer::Head { .. } => self.asked == Asked::Message,
            Answer::Body { .. } | Answer::Done => true,
        }
    }

    /// Returns whether there is more to come.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> bool {
        let is_open = self.is_open();
        match self.incoming.poll(cx, &mut self.body, &self.pipe, is_open) {
            Poll::Pending => true,
            Poll::Ready(Ok(()) | Err(Stopped::Relay)) => false,
            Poll::Ready(Err(Stopped::Peer)) => {
                self.pipe.reset();
                false
            }
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        if self.pipe.is_broken() {
            return Poll::Ready(Err(Stopped::Relay));
        }
        loop {
            match &mut self.answer {
                Answer::Done => return Poll::Ready(Ok(())),
                Answer::Head { respond, scan, held } => {
                    if respond.poll_reset(cx).is_ready() {
                        return Poll::Ready(Err(Stopped::Peer));
                    }
                    match scan.response(held) {
                        Ok(Some((_, end))) => self.head(end)?,
                        Ok(None) => match ready!(self.pipe.poll_fill(cx, held)) {
                            Ok(1..) => {}
                            Ok(0) | Err(_) => return Poll::Ready(Err(Stopped::Relay)),
                        },
                        Err(_) => return Poll::Ready(Err(Stopped::Relay)),
                    }
                }
                Answer::Body { out, body } => {
                    if out.poll_reset(cx).is_ready() {
                        return Poll::Ready(Err(Stopped::Peer));
                    }
                    return body.poll(cx, &self.pipe, out, &self.watch.budget);
                }
            }
        }
    }

    /// A head is complete in `held`.
    fn head(&mut self, end: usize) -> Result<(), Stopped> {
        let Answer::Head { respond, scan, held } = &mut self.answer else { return Ok(()) };
        let bytes = held.split_to(end);
        let mut storage = header_storage();
        let method = if self.is_head { "HEAD" } else { "GET" };
        let head = ResponseHead::parse(&bytes, &mut storage, method).map_err(|_| Stopped::Relay)?;
        let response = fields::response(&head, self.asked).ok_or(Stopped::Relay)?;
        let body = match (head.status, self.asked) {
            (101, Asked::WebSocket) => Body::UntilClose,
            (101, Asked::Message) => return Err(Stopped::Relay),
            (100..=199, _) => {
                *scan = HeadScan::default();
                return respond.send_informational(response).map_err(|_| Stopped::Peer);
            }
            (_, _) => head.delimiter.body(),
        };
        let is_whole = fields::is_bodiless(head.delimiter) && body.is_done();
        let ending = Ending::of(response.headers());
        let out = respond.send_response(response, is_whole).map_err(|_| Stopped::Peer)?;
        self.watch.budget.earn(EARNED);
        let held = std::mem::take(held);
        self.answer = match is_whole {
            true => Answer::Done,
            false => Answer::Body { out, body: Outgoing::new(body, held, ending) },
        };
        Ok(())
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.answer {
            Answer::Head { respond, .. } => respond.send_reset(reason),
            Answer::Body { out, body } => {
                if !body.cut(out) {
                    out.send_reset(reason);
                }
            }
            Answer::Done => {}
        }
    }
}
