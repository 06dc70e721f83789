//! HTTP/2 from clients: one connection, of which every stream is served as a connection of HTTP/1.1 with one request.

mod stream;
mod turns;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{Request, Response, StatusCode};

use super::fields::{self, Unfit};
use super::incoming::Incoming;
use super::wire::{PING_BYTES, Role, Watch, Wire};
use crate::codec::REQUEST_HEAD_BYTES_MAX;
use crate::deadline::{Deadline, Phase};
use crate::limits::{
    H2_ANSWER_BYTES_MIN, H2_ANSWERS_BYTES, H2_CONNECTION_WINDOWS, H2_FAULTY_STREAMS_MAX,
    H2_REMEMBERED_RESETS_MAX, H2_SEND_BUFFER_BYTES_MAX, LINGER_BYTES_MAX, Limits,
};
use crate::pipe::{PIPE_BYTES_MAX, Pipe};
use crate::stream::Stream;
use stream::Serving;
use turns::{Order, Turns};

/// What a client that speaks HTTP/2 without being asked begins with (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How the preface looks to a reader of HTTP/1.1.
pub(crate) const PREFACE_HEAD: &[u8] = PREFACE.first_chunk::<18>().expect("24 bytes are more than 18");

/// Whoever serves the streams.
pub(crate) trait Host {
    /// Whether the client is to be sent away, without harm to what is under way.
    fn is_draining(&self) -> bool;

    /// Whether there is room for one more request.
    fn has_room(&self) -> bool;

    /// Serves the one request that comes out of `pipe`.
    fn serve(&self, pipe: Pipe) -> impl Future<Output = ()> + 'static;

    /// A request was answered with this status, or as malformed for 400, without being served.
    fn refused(&self, status: u16);
}

/// Serves a connection until it ends. `before`: what was read from it already.
pub(crate) async fn serve(
    host: impl Host,
    stream: Stream,
    before: Bytes,
    deadline: &Deadline,
    limits: &Limits,
) {
    let stream = Rc::new(stream);
    let (wire, watch) = Wire::new(Rc::clone(&stream), before, Role::Server);
    deadline.enter(Phase::Exchange);
    deadline.arm(limits.head);
    let shaken = deadline.within(builder(limits).handshake::<_, Bytes>(wire)).await;
    if let Ok(Ok(connection)) = shaken {
        let mut session = Session::new(&host, connection, watch, deadline, limits);
        poll_fn(|cx| session.poll(cx)).await;
    }
    linger(&stream, deadline, limits).await;
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.h2_streams_max)
        // Also bounds what CONTINUATION frames may come to, and what a head may unfold to from its compressed form.
        .max_header_list_size(REQUEST_HEAD_BYTES_MAX as u32)
        .initial_window_size(limits.h2_window_bytes)
        .initial_connection_window_size(limits.h2_window_bytes * H2_CONNECTION_WINDOWS)
        .max_send_buffer_size(H2_SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(H2_REMEMBERED_RESETS_MAX)
        .max_pending_accept_reset_streams(H2_REMEMBERED_RESETS_MAX)
        .max_local_error_reset_streams(Some(H2_FAULTY_STREAMS_MAX))
        .enable_connect_protocol();
    builder
}

/// Rule 4, as for HTTP/1.1: a close with unread data would destroy the last answers on their way.
async fn linger(stream: &Stream, deadline: &Deadline, limits: &Limits) {
    stream.half_close();
    deadline.enter(Phase::Exchange);
    deadline.arm(limits.linger);
    let mut left = LINGER_BYTES_MAX;
    let mut buf = vec![0; 16 * 1024];
    let reading = poll_fn(|cx| {
        loop {
            match stream.poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(bytes)) if bytes > 0 && bytes < left => left -= bytes,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(()),
            }
        }
    });
    // Whoever has not closed by then gets the reset.
    let _ = deadline.within(reading).await;
}

struct Session<'a, H> {
    host: &'a H,
    connection: Connection<Wire, Bytes>,
    ping: Option<PingPong>,
    watch: Rc<Watch>,
    deadline: &'a Deadline,
    limits: &'a Limits,
    stage: Stage,
    order: Order,
}

/// What the deadline stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No stream is open.
    Idle,
    /// Streams are open; nothing has moved beyond so many bytes.
    Busy { moved: u64 },
    /// As `Busy`, and the client was asked whether it is there.
    Asked { moved: u64 },
    /// The client was told that the connection ends (rule 6: first without naming a last stream, so that what is on its
    /// way is served).
    Leaving(Left),
    /// Nothing more is read, and the last words are on their way.
    Closing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Streams,
    Nothing,
}

impl<'a, H: Host> Session<'a, H> {
    fn new(
        host: &'a H,
        mut connection: Connection<Wire, Bytes>,
        watch: Rc<Watch>,
        deadline: &'a Deadline,
        limits: &'a Limits,
    ) -> Self {
        let ping = connection.ping_pong();
        deadline.enter(Phase::Multiplexed);
        deadline.arm(limits.idle);
        let (stage, order) = (Stage::Idle, Order::default());
        let mut session = Self { host, connection, ping, watch, deadline, limits, stage, order };
        if session.host.is_draining() {
            session.leave();
        }
        session
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.order.0.renew(cx);
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.open(request, respond);
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if self.watch.is_flooded() && self.stage != Stage::Closing {
                self.close(Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            if let Some(ping) = &mut self.ping {
                // That something arrived is seen by the bytes; this makes the next ping possible.
                let _ = ping.poll_pong(cx);
            }
            self.look();
            if self.deadline.poll_passed(cx).is_pending() {
                return Poll::Pending;
            }
            if self.passed() == Passed::End {
                return Poll::Ready(());
            }
        }
    }

    /// Sets the deadline by what the connection does now.
    fn look(&mut self) {
        let has_streams = self.connection.has_streams();
        let moved = self.watch.moved();
        match self.stage {
            Stage::Idle if has_streams => self.enter(Stage::Busy { moved }),
            Stage::Busy { .. } | Stage::Asked { .. } if !has_streams => self.enter(Stage::Idle),
            Stage::Busy { moved: then } | Stage::Asked { moved: then } if moved > then => {
                self.enter(Stage::Busy { moved });
            }
            Stage::Leaving(Left::Streams) if !has_streams => self.enter(Stage::Leaving(Left::Nothing)),
            Stage::Leaving(Left::Nothing) if has_streams => self.enter(Stage::Leaving(Left::Streams)),
            Stage::Idle | Stage::Busy { .. } | Stage::Asked { .. } | Stage::Leaving(_) | Stage::Closing => {}
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.deadline.arm(match stage {
            Stage::Idle => self.limits.idle,
            Stage::Busy { .. } => self.limits.h2_ping,
            Stage::Asked { .. } => self.limits.h2_pong,
            Stage::Leaving(Left::Streams) => self.limits.drain,
            Stage::Leaving(Left::Nothing) => self.limits.idle_drain,
            Stage::Closing => self.limits.linger,
        });
    }

    fn passed(&mut self) -> Passed {
        match self.stage {
            // A drain brings the deadline of these forward.
            Stage::Idle => self.leave(),
            Stage::Busy { .. } | Stage::Asked { .. } if self.host.is_draining() => self.leave(),
            Stage::Busy { moved } => {
                let asked = self.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
                self.enter(match asked {
                    true => Stage::Asked { moved: moved + PING_BYTES },
                    false => Stage::Busy { moved },
                });
            }
            Stage::Leaving(Left::Streams) => self.close(Reason::NO_ERROR),
            Stage::Asked { .. } | Stage::Leaving(Left::Nothing) | Stage::Closing => return Passed::End,
        }
        Passed::GoesOn
    }

    fn leave(&mut self) {
        self.connection.graceful_shutdown();
        // Another drain changes nothing any more.
        self.deadline.enter(Phase::Exchange);
        let left = if self.connection.has_streams() { Left::Streams } else { Left::Nothing };
        self.enter(Stage::Leaving(left));
    }

    fn close(&mut self, reason: Reason) {
        self.connection.abrupt_shutdown(reason);
        self.deadline.enter(Phase::Exchange);
        self.enter(Stage::Closing);
    }

    fn open(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if !self.host.has_room() {
            // It was not looked at, so the client may send it again.
            respond.send_reset(Reason::REFUSED_STREAM);
            return self.host.refused(503);
        }
        let (parts, body) = request.into_parts();
        let mut head = Vec::with_capacity(512);
        let written = fields::asked(&parts).and_then(|asked| {
            let carrier = fields::write_request(&parts, asked, body.is_end_stream(), &mut head)?;
            Ok((asked, carrier))
        });
        let (asked, carrier) = match written {
            Ok(written) => written,
            Err(Unfit::Malformed(_)) => {
                respond.send_reset(Reason::PROTOCOL_ERROR);
                return self.host.refused(400);
            }
            Err(Unfit::NotImplemented(_)) => {
                let mut answer = Response::new(());
                *answer.status_mut() = StatusCode::NOT_IMPLEMENTED;
                // Fails only when the stream is gone.
                let _ = respond.send_response(answer, true);
                return self.host.refused(501);
            }
        };
        // The watch is held by every stream, and by this session.
        let share = H2_ANSWERS_BYTES / Rc::strong_count(&self.watch);
        let (near, far) = Pipe::pair_within(share.clamp(H2_ANSWER_BYTES_MIN, PIPE_BYTES_MAX));
        let is_head = parts.method == http::Method::HEAD;
        let incoming = Incoming::new(head, carrier);
        let serving = Serving::new(far, body, incoming, respond, asked, is_head, Rc::clone(&self.watch));
        tokio::task::spawn_local(Turns::take(&self.order.0, serving.run(self.host.serve(near))));
    }
}

/// What a deadline that passed leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    GoesOn,
    End,
}
