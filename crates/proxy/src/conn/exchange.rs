//! One attempt: a request to one instance and its response back, both bodies streaming at the same time.

mod gather;
mod presence;
mod request;
mod response;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::patience::Patience;
use super::request_buffer::{BodyRefusal, RequestBuffer};
use super::taking::Taking;
use crate::buffer::Buffer;
use crate::codec::{BadResponse, HeadScan, MinorVersion};
use crate::deadline::Deadline;
use crate::policy::cache::Watch;
use crate::policy::packer::Packer;
use crate::snapshot::Timeouts;
use crate::stream::Stream;
use crate::worker::{Accepting, Upstream, Worker};
use presence::Presence;
pub(super) use presence::WATCHED_AFTER;
use request::Sending;
pub(super) use response::Wanted;
use response::{ClientFraming, Outgoing, Receiving};

/// What is read of both bodies before other connections have their turn. Some reads: a client that sends as fast as the
/// core reads, or whose chunks are of one byte each, holds up others for a fraction of a millisecond.
const TURN_BYTES: usize = 512 * 1024;

/// What the attempt needs to know about the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub is_head: bool,
    pub is_safe: bool,
    pub version: MinorVersion,
    pub wants_keep_alive: bool,
    pub offers_upgrade: bool,
    pub offers_websocket: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum End {
    /// The response reached the client's kernel. `reusable`: the instance takes another request on the
    /// connection.
    Complete {
        reusable: bool,
    },
    /// The cache has something better for the client, who has got nothing yet.
    Withheld {
        status: u16,
        reusable: bool,
    },
    /// The head of a 101 was passed on; bytes follow in both directions.
    Upgraded,
    /// The instance closed without a byte of an answer. `closed`: in good order (FIN), not by a reset.
    NoResponse {
        closed: bool,
    },
    ResponseTimeout,
    BadResponse(BadResponse),
    /// The response began and cannot be completed.
    Truncated,
    ClientGone,
    ClientTimeout,
    Body(BodyRefusal),
}

#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub worker: &'a Worker,
    pub listener: &'a Accepting,
    pub deadline: &'a Deadline,
    pub client: &'a Stream,
    pub upstream: &'a mut Upstream,
    pub request: &'a mut RequestBuffer,
    /// The rewritten head.
    head: &'a [u8],
    facts: Facts,
    timeouts: &'a Timeouts,
    endpoint: u64,
    body_bytes_max: u64,
    /// Header lines for the response.
    added: &'a [u8],
    wanted: Wanted<'a>,
    /// The answer's compressor.
    packer: Option<Packer>,
    /// What the cache wants of the answer.
    pub watch: Option<Watch>,
    sending: Sending,
    receiving: Receiving,
    response: Option<Buffer>,
    out: Outgoing,
    idle_ms: u64,
    /// With the client, while the instance waits for the rest of its request.
    patience: Patience,
    /// How fast the client takes the answer.
    taking: Taking,
    presence: Presence,
    /// What may still be moved before others have their turn.
    turn_bytes: usize,
    /// When an answer without a natural end began.
    pub stream_since: Option<Instant>,
    /// Bytes of the request that the kernel took.
    pub sent: u64,
    /// Whether the instance answered anything.
    pub answered: bool,
    pub bytes_out: u64,
}

/// What the request's way is paved with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub head: &'a [u8],
    pub added: &'a [u8],
    pub facts: Facts,
    pub timeouts: &'a Timeouts,
    pub endpoint: u64,
    pub body_bytes_max: u64,
    pub wanted: Wanted<'a>,
}

/// Whether a step got anywhere.
type Step = Result<Progress, End>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Made,
    /// Wakers are in place.
    Blocked,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        listener: &'a Accepting,
        deadline: &'a Deadline,
        client: &'a Stream,
        upstream: &'a mut Upstream,
        request: &'a mut RequestBuffer,
        terms: Terms<'a>,
    ) -> Self {
        // Calls of gRPC may be open for hours and say little.
        let is_call = upstream.stream.as_pipe().is_some();
        let rate_min = if is_call { 0 } else { terms.timeouts.body_bytes_per_s_min };
        Self {
            worker,
            listener,
            deadline,
            client,
            upstream,
            request,
            head: terms.head,
            facts: terms.facts,
            timeouts: terms.timeouts,
            endpoint: terms.endpoint,
            body_bytes_max: terms.body_bytes_max,
            added: terms.added,
            wanted: terms.wanted,
            packer: None,
            watch: None,
            sending: Sending::Active { head: 0, body: 0 },
            receiving: Receiving::Head(HeadScan::default()),
            response: None,
            out: Outgoing::new(),
            idle_ms: terms.timeouts.body_idle_ms,
            patience: Patience::new(terms.timeouts.body_idle_ms, rate_min),
            taking: Taking::new(rate_min),
            presence: Presence::Assumed,
            turn_bytes: TURN_BYTES,
            stream_since: None,
            sent: 0,
            answered: false,
            bytes_out: 0,
        }
    }

    pub(super) async fn run(&mut self) -> End {
        self.deadline.arm_ms(self.timeouts.body_idle_ms);
        self.watch_later();
        let end = poll_fn(|cx| self.poll(cx)).await;
        self.unwatch();
        end
    }

    /// What the instance sent behind a 101.
    pub(super) fn take_rest(&mut self) -> Option<Buffer> {
        self.response.take().filter(|rest| !rest.is_empty())
    }

    /// Status of the response that the client is getting, and whether its connection stays open.
    pub(super) fn begun(&self) -> Option<(u16, bool)> {
        match self.receiving {
            Receiving::Head(_) => None,
            Receiving::Body { status, keep_alive, .. } => Some((status, keep_alive)),
            Receiving::Upgraded => Some((101, false)),
        }
    }

    /// Whether only a close tells the client that the body is complete: a truncation must then be a reset.
    pub(super) fn ends_by_close(&self) -> bool {
        match self.receiving {
            Receiving::Body { framing, .. } => {
                matches!(framing, ClientFraming::Stripped | ClientFraming::Closing)
            }
            Receiving::Head(_) | Receiving::Upgraded => false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.turn_bytes = TURN_BYTES;
        loop {
            match (self.step_request(cx).and_then(|_| self.step_response(cx)), &self.sending) {
                (Err(end), _) => return Poll::Ready(end),
                // Each goes as far as it can, and the response comes second: it has seen all that the request did.
                (Ok(Progress::Blocked), _) | (Ok(_), Sending::Finished | Sending::Abandoned) => break,
                (Ok(Progress::Made), Sending::Active { .. }) if self.turn_bytes == 0 => break,
                (Ok(Progress::Made), Sending::Active { .. }) => {}
            }
        }
        if self.is_left(cx) {
            return Poll::Ready(End::ClientGone);
        }
        if self.deadline.poll_passed(cx).is_ready() && self.is_taken() {
            self.deadline.arm_ms(self.timeouts.body_idle_ms);
        }
        self.deadline.poll_passed(cx).map(|_| self.timeout())
    }

    /// The client has not taken what there is.
    fn is_held_up(&self) -> bool {
        !self.out.is_empty() || self.client.is_full()
    }

    fn wait_for_client(&mut self) {
        if self.taking.waits(self.client) {
            // An event stream may be quiet for long; its client may not leave what was said.
            self.deadline.arm_ms(self.timeouts.body_idle_ms.min(self.idle_ms));
        }
    }

    /// Whether the client takes the answer that waits for it, although not fast enough for the kernel to ask for more.
    fn is_taken(&mut self) -> bool {
        matches!(self.receiving, Receiving::Body { .. })
            && self.is_held_up()
            && !self.deadline.is_capped()
            && self.taking.is_enough(self.client, self.timeouts.body_idle_ms)
    }

    /// Takes part in the order of connections again, behind those that wait now.
    fn yields(&mut self, cx: &Context<'_>, bytes: usize) -> bool {
        self.turn_bytes = self.turn_bytes.saturating_sub(bytes);
        if self.turn_bytes == 0 {
            cx.waker().wake_by_ref();
        }
        self.turn_bytes == 0
    }

    fn timeout(&self) -> End {
        match (&self.receiving, &self.sending) {
            (Receiving::Head(_), Sending::Active { head, body })
                if *head == self.head.len() && *body == self.request.body().len() =>
            {
                End::ClientTimeout
            }
            (Receiving::Head(_), _) => End::ResponseTimeout,
            (Receiving::Body { .. } | Receiving::Upgraded, _) if !self.is_held_up() => {
                self.end_stream();
                End::Truncated
            }
            (Receiving::Body { .. } | Receiving::Upgraded, _) => End::ClientTimeout,
        }
    }
}
