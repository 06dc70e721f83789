use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};

use super::State;
use crate::codec::{Body, HeadScan, RequestHead, header_storage};
use crate::h2::Stopped;
use crate::h2::fields::{self, Ending};
use crate::h2::incoming::Incoming;
use crate::h2::outgoing::Outgoing;
use crate::pipe::Pipe;

/// One request to an instance: out of the pipe as the relay writes it, the answer into the pipe.
#[derive(Debug)]
pub(super) struct Requesting {
    pipe: Pipe,
    send: SendRequest<Bytes>,
    state: Rc<State>,
}

/// The answer to an upgrade that the instance does not know: to another protocol than WebSocket, or without RFC 8441.
const NOT_SPOKEN: &[u8] = b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

impl Requesting {
    pub(super) fn new(pipe: Pipe, send: SendRequest<Bytes>, state: Rc<State>) -> Self {
        state.open.set(state.open.get() + 1);
        Self { pipe, send, state }
    }

    pub(super) async fn run(mut self) {
        let mut held = BytesMut::new();
        let mut scan = HeadScan::default();
        let end = loop {
            match scan.request(&held) {
                Ok(Some((_, end))) => break end,
                Ok(None) => {}
                Err(_) => return self.pipe.reset(),
            }
            match poll_fn(|cx| self.pipe.poll_fill(cx, &mut held)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        };
        let Some((mut exchange, mut upload)) = self.begin(&held.split_to(end), held.split_off(0)) else {
            return;
        };
        // Dropping the streams tells the instance that nobody waits any more.
        poll_fn(|cx| exchange.poll(cx, &self.pipe, &self.state, &mut upload)).await;
    }

    /// Sends the head.
    fn begin(&mut self, head: &[u8], behind: BytesMut) -> Option<(Exchange, Option<Upload>)> {
        let mut storage = header_storage();
        let parsed = RequestHead::parse(head, &mut storage).ok();
        let key = parsed.as_ref().filter(|head| head.upgrade.is_some()).map(|head| {
            let is_websocket = head.upgrade.is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"));
            head.named("sec-websocket-key").next().filter(|_| is_websocket)
        });
        let request = match (parsed.as_ref(), key) {
            (Some(_), Some(None)) => return self.answer(NOT_SPOKEN),
            (Some(_), Some(Some(_))) if !self.send.is_extended_connect_protocol_enabled() => {
                return self.answer(NOT_SPOKEN);
            }
            (Some(head), Some(Some(_))) => fields::connect(head),
            (Some(head), None) => fields::request(head),
            (None, _) => None,
        };
        let (Some(request), Some(head)) = (request, parsed) else {
            self.pipe.reset();
            return None;
        };
        let key = key.flatten().map(<[u8]>::to_vec);
        let body = if key.is_some() { Body::UntilClose } else { head.length.body() };
        // Whatever is written after this holds the request; what is acknowledged before it does not.
        let written = self.state.watch.written();
        match self.send.send_request(request, body.is_done()) {
            Ok((response, out)) => {
                let id = response.stream_id().as_u32();
                let is_head = head.method == "HEAD";
                let receiving = Receiving::Head(response);
                let upload = Upload { out, body: Outgoing::new(body, behind, Ending::Plain) };
                let upload = (!body.is_done()).then_some(upload);
                Some((Exchange { id, written, is_head, key, receiving }, upload))
            }
            Err(_) => {
                // The connection is closed, or takes no more streams: nothing was sent.
                self.pipe.refuse();
                None
            }
        }
    }

    /// Answers in the instance's stead.
    fn answer<T>(&self, bytes: &[u8]) -> Option<T> {
        let nobody = Context::from_waker(std::task::Waker::noop());
        // An empty pipe has room for it.
        let _ = self.pipe.poll_write(&nobody, &[std::io::IoSlice::new(bytes)]);
        None
    }
}

impl Drop for Requesting {
    fn drop(&mut self) {
        self.state.end_request();
    }
}

struct Upload {
    out: SendStream<Bytes>,
    body: Outgoing,
}

struct Exchange {
    id: u32,
    /// Bytes of the connection that were written before it.
    written: u64,
    is_head: bool,
    /// Of a WebSocket's client.
    key: Option<Vec<u8>>,
    receiving: Receiving,
}

enum Receiving {
    Head(ResponseFuture),
    Body { body: RecvStream, incoming: Incoming },
}

impl Exchange {
    /// Ready when the answer is in the pipe, or nothing can come of it any more.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &Pipe,
        state: &State,
        upload: &mut Option<Upload>,
    ) -> Poll<()> {
        if pipe.poll_gone(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(Upload { out, body }) = upload {
            match body.poll(cx, pipe, out, &state.watch.budget) {
                Poll::Pending => {}
                // What the instance does not want it may have answered.
                Poll::Ready(Ok(()) | Err(Stopped::Peer)) => *upload = None,
                Poll::Ready(Err(Stopped::Relay)) => {
                    out.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
            }
        }
        match ready!(self.poll_answer(cx, pipe)) {
            Ok(()) => pipe.half_close(),
            Err(error) => {
                let is_refused = error.as_ref().is_some_and(|error| {
                    error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM)
                });
                let is_begun = !matches!(self.receiving, Receiving::Head(_));
                match !is_begun && (is_refused || state.watch.is_unreceived(self.id, self.written)) {
                    true => pipe.refuse(),
                    false => pipe.reset(),
                }
            }
        }
        Poll::Ready(())
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, pipe: &Pipe) -> Poll<Result<(), Option<h2::Error>>> {
        loop {
            match &mut self.receiving {
                Receiving::Head(response) => {
                    if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
                        let mut head = Vec::new();
                        fields::write_response(&interim.into_parts().0, self.is_head, false, &mut head);
                        // What comes before an answer is small, and of use only while there is room for it.
                        let _ = pipe.poll_write(cx, &[std::io::IoSlice::new(&head)]);
                        continue;
                    }
                    let (parts, body) = ready!(Pin::new(response).poll(cx)).map_err(Some)?.into_parts();
                    let mut head = Vec::with_capacity(512);
                    let is_ended = body.is_end_stream();
                    let carrier = match self.key.take() {
                        Some(key) if parts.status.is_success() => {
                            fields::write_upgraded(&parts, &key, &mut head)
                        }
                        Some(_) | None => fields::write_response(&parts, self.is_head, is_ended, &mut head),
                    };
                    let incoming = Incoming::new(head, carrier);
                    self.receiving = Receiving::Body { body, incoming };
                }
                Receiving::Body { body, incoming } => {
                    return incoming.poll(cx, body, pipe, true).map_err(|_| None);
                }
            }
        }
    }
}
