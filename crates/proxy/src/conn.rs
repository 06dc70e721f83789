//! A client connection, from accept to close.

mod answer;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod mirror;
mod patience;
mod proxy_protocol;
mod relay;
mod request_buffer;
mod streams;
mod taking;
mod tunnel;
mod warm;
mod websocket;
mod welcome;

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::accesslog::Record;
use crate::codec::{Field, Refusal, RequestHead, tokens};
use crate::deadline::{Passed, Phase, Registered};
use crate::entrance::Entrance;
use crate::limits::{LINGER_BYTES_MAX, Limits};
use crate::stream::Stream;
use crate::worker::{Accepting, Worker};
use answer::Answer;
use request_buffer::RequestBuffer;
use warm::Warm;
pub(crate) use welcome::welcome;

/// What happens to the connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It waits for the next request.
    KeepAlive,
    /// The answer said that the connection ends.
    Close,
    /// The answer is incomplete in a way that only a reset shows.
    Reset,
    /// The other side is gone.
    Gone,
    /// The client began to speak HTTP/2.
    Http2,
}

/// What the wait for a head led to.
#[derive(Debug)]
enum Next {
    Head,
    Refused(Refusal),
    /// The head did not arrive in time.
    TooSlow,
    /// No request came in a moment; one may come later.
    Quiet,
    /// No request came, or the client closed.
    Nothing,
    /// Others need the room.
    Displaced,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: IpAddr,
    /// `address` as text.
    text: String,
    /// Whether it came by TLS.
    secure: bool,
    /// Which version of it, in the words of the access log.
    tls: Option<&'static str>,
    /// By which it came.
    entrance: Option<Arc<Entrance>>,
    /// Whether what it forwards about others is believed.
    trusted: bool,
}

impl Client {
    fn new(peer: SocketAddr, entrance: Option<Arc<Entrance>>) -> Self {
        let address = peer.ip().to_canonical();
        let secure = entrance.as_ref().is_some_and(|entrance| entrance.tls.is_some());
        let trusted = entrance.as_ref().is_some_and(|entrance| entrance.trusts(address));
        Self { address, text: address.to_string(), secure, tls: None, entrance, trusted }
    }

    /// Whether the client itself spoke TLS, with us or with a trusted proxy before us.
    fn came_by_https(&self, head: &RequestHead<'_, '_>) -> bool {
        // Of several proxies the first one saw the client.
        let forwarded = || {
            let first = head.field(Field::ForwardedProto).and_then(|value| tokens(value).next());
            first.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
        };
        self.secure || (self.trusted && forwarded())
    }

    /// What it may do. `usual`: for one that came by a listener that is going, of which nothing more is known.
    fn limits<'l>(&'l self, usual: &'l Limits) -> &'l Limits {
        self.entrance.as_ref().map_or(usual, |entrance| &entrance.limits)
    }

    fn may_speak_http2(&self) -> bool {
        !self.entrance.as_ref().is_some_and(|entrance| entrance.http1_only)
    }

    fn scheme(&self) -> &'static [u8] {
        if self.secure { b"https" } else { b"http" }
    }
}

#[derive(Debug)]
struct Conn {
    worker: Rc<Worker>,
    listener: Rc<Accepting>,
    stream: Stream,
    client: Client,
    deadline: Registered,
    /// Held while anything of a request is here.
    request: Option<RequestBuffer>,
}

/// What a wait for the next request led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// There is something to read.
    Ready,
    /// Nothing came in time.
    Passed,
    /// Others need the room.
    Displaced,
}

/// What requests led to.
#[derive(Debug)]
enum Served {
    /// None came for a moment.
    Quiet,
    Ended,
    /// The client began to speak HTTP/2.
    Http2,
}

/// After a request the next one is waited for so long with everything in place that requests need: some KiB, which cost
/// a tenth of a microsecond to get again. Clients in the middle of something come sooner. Longer, and many connections
/// that come together would all hold theirs at once, which the heap keeps.
const AT_HAND: Duration = Duration::from_millis(100);

/// Says no to a connection on which nothing but this can be said.
async fn turn_away(
    worker: Rc<Worker>,
    listener: Rc<Accepting>,
    stream: Stream,
    client: Client,
    deadline: Registered,
    why: &'static str,
) {
    deadline.enter(Phase::Exchange);
    let mut conn = Conn { worker, listener, stream, client, deadline, request: None };
    if conn.refuse(400, why).await == After::Close {
        conn.linger().await;
    }
}

async fn serve(
    worker: Rc<Worker>,
    listener: Rc<Accepting>,
    stream: Stream,
    client: Client,
    deadline: Registered,
) {
    let mut conn = Conn { worker, listener, stream, client, deadline, request: None };
    conn.deadline.enter(Phase::Idle);
    let mut waited = Duration::ZERO;
    loop {
        match conn.wait(conn.idle().saturating_sub(waited)).await {
            Wait::Ready => {}
            Wait::Passed => return Box::pin(conn.linger()).await,
            // At once: to linger is to keep the room.
            Wait::Displaced => return,
        }
        match Warm::new(conn.requests(waited.is_zero())).await {
            Served::Quiet => waited = AT_HAND,
            Served::Ended => return,
            Served::Http2 => return streams::switch(conn).await,
        }
    }
}

impl Conn {
    fn limits(&self) -> &Limits {
        self.client.limits(&self.worker.shared.limits)
    }

    /// How long a connection without a request stays.
    fn idle(&self) -> Duration {
        let Limits { idle, idle_drain, .. } = *self.limits();
        if self.worker.is_draining(&self.listener) { idle_drain.min(idle) } else { idle }
    }

    async fn wait(&self, patience: Duration) -> Wait {
        self.deadline.arm(patience);
        match self.deadline.within(poll_fn(|cx| self.stream.poll_read_ready(cx))).await {
            Ok(_) => Wait::Ready,
            Err(Passed) if self.deadline.is_displaced() => Wait::Displaced,
            Err(Passed) => Wait::Passed,
        }
    }

    /// Serves one request after the other until none comes.
    async fn requests(&mut self, mut is_first: bool) -> Served {
        loop {
            let after = match self.next_head().await {
                Next::Head => relay::relay(self).await,
                Next::Refused(refusal) => self.refuse(refusal.status(), &refusal.to_string()).await,
                Next::TooSlow => self.refuse(408, "the request head did not arrive in time").await,
                Next::Quiet => return Served::Quiet,
                Next::Nothing => After::Close,
                Next::Displaced => After::Gone,
            };
            match after {
                // More requests were sent than waited for: those of others come between them, or whoever sends a thousand
                // at once has the core for as long as they take.
                After::KeepAlive if self.request.as_ref().is_some_and(|rest| !rest.is_empty()) => {
                    tokio::task::yield_now().await;
                }
                After::KeepAlive => {}
                After::Close => {
                    self.linger().await;
                    return Served::Ended;
                }
                After::Reset => {
                    self.stream.reset_on_close();
                    return Served::Ended;
                }
                After::Gone => return Served::Ended,
                After::Http2 if is_first && self.client.may_speak_http2() => return Served::Http2,
                After::Http2 => {
                    let why = match self.client.may_speak_http2() {
                        true => "HTTP/2 begins with a connection",
                        false => "HTTP/2 is not spoken at this address",
                    };
                    self.refuse(505, why).await;
                    self.linger().await;
                    return Served::Ended;
                }
            }
            is_first = false;
        }
    }

    /// Waits for a complete head in `request`.
    async fn next_head(&mut self) -> Next {
        let head = self.limits().head;
        if self.request.as_ref().is_some_and(RequestBuffer::is_empty) {
            self.request = None;
        }
        let mut is_ready = false;
        if self.request.is_none() {
            self.deadline.enter(Phase::Idle);
            let idle = self.idle();
            match self.wait(idle.min(AT_HAND)).await {
                Wait::Ready => is_ready = true,
                Wait::Passed if idle > AT_HAND => return Next::Quiet,
                Wait::Passed => return Next::Nothing,
                Wait::Displaced => return Next::Displaced,
            }
        }
        self.deadline.enter(Phase::Arriving);
        self.deadline.arm(head);
        let request = self.request.get_or_insert_with(RequestBuffer::new);
        loop {
            match request.find_head() {
                Err(refusal) => {
                    self.deadline.enter(Phase::Exchange);
                    return Next::Refused(refusal);
                }
                Ok(true) => {
                    self.deadline.enter(Phase::Exchange);
                    return Next::Head;
                }
                Ok(false) => {}
            }
            let read = poll_fn(|cx| match std::mem::take(&mut is_ready) {
                true => self.stream.poll_read_known(cx, request.space()),
                false => self.stream.poll_read(cx, request.space()),
            });
            match self.deadline.within(read).await {
                Err(Passed) if self.deadline.is_displaced() => return Next::Displaced,
                Err(Passed) if request.is_empty() => return Next::Nothing,
                Err(Passed) => {
                    self.deadline.enter(Phase::Exchange);
                    return Next::TooSlow;
                }
                Ok(Err(_)) => return Next::Nothing,
                // Half a head and then nothing: nobody waits for an answer to that.
                Ok(Ok(0)) => return Next::Nothing,
                Ok(Ok(bytes)) => request.add(bytes),
            }
        }
    }

    /// Answers a request that cannot be trusted far enough to be routed, counts and logs it.
    async fn refuse(&self, status: u16, why: &str) -> After {
        self.worker.count_refusal(status);
        if let Some(log) = self.worker.shared.access_log.get() {
            log.write(Record::refused(self.client.address, self.client.tls, status, why).line());
        }
        let body = format!("{status} {}: {why}\n", answer::reason(status));
        self.deadline.arm(self.limits().head);
        match Answer::plain(status, &body, b"").send(&self.stream, &self.deadline, false, false).await {
            true => After::Close,
            false => After::Gone,
        }
    }

    /// Rule 4: closing with unread data makes the kernel send a reset, which destroys the answer on its way.
    /// So: end our side, then read a bounded rest until the client closes too.
    async fn linger(&mut self) {
        self.stream.half_close();
        if let Some(pipe) = self.stream.as_pipe() {
            // Nothing is lost to unread data here. What the client has not taken yet has nobody else to wait for it.
            self.request = None;
            self.deadline.arm(self.limits().h2_tail);
            if self.deadline.within(poll_fn(|cx| pipe.poll_gone(cx))).await.is_err() {
                pipe.reset();
            }
            return;
        }
        self.deadline.arm(self.limits().linger);
        let mut request = self.request.take().unwrap_or_else(RequestBuffer::new);
        request.reset();
        let mut left = LINGER_BYTES_MAX;
        let stream = &self.stream;
        let reading = poll_fn(|cx| {
            loop {
                match stream.poll_read(cx, request.space()) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(bytes)) if bytes > 0 && bytes < left => left -= bytes,
                    Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(()),
                }
            }
        });
        // Whoever has not closed by then gets the reset.
        let _ = self.deadline.within(reading).await;
    }
}
