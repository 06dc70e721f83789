//! A request on its way: route it, find an instance, try, try again where that cannot do harm, answer.

mod admit;
mod answers;
mod cached;
mod client;
mod copy;
mod hold;
mod plan;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::{End, Exchange, Terms, Wanted};
use super::request_buffer::{BodyRefusal, RequestBuffer};
use super::tunnel::{Protocol, Tunnel};
use super::{After, Conn};
use crate::accesslog::{Record, now_ms};
use crate::balance::Pick;
use crate::balance::Routing;
use crate::buffer::Buffer;
use crate::codec::{BodyLength, Framing, MinorVersion, Refusal, RequestHead, header_storage};
use crate::control::Cause;
use crate::deadline::{Passed, Phase};
use crate::endpoint::{Endpoint, InFlight};
use crate::h2::client::Target;
use crate::h2::server::PREFACE_HEAD;
use crate::policy::cache::Outcome;
use crate::series::{Series, SeriesInFlight};
use crate::snapshot;
use crate::stream::Stream;
use crate::worker::{Reuse, Upstream};
use cached::Caching;
use copy::Waiting;
use hold::{For, Held};
use plan::{Known, Plan, Unplanned};

/// What is said about the request in the end.
#[derive(Debug)]
struct Report {
    started: Instant,
    /// When an answer without a natural end began: how long it goes on is the client's wish, and says nothing about
    /// how fast the version is.
    stream_since: Option<Instant>,
    status: u16,
    /// The status of a failure that the client did not get to see.
    withheld: Option<u16>,
    /// What became of it in the cache.
    cached: Option<Outcome>,
    /// No instance was asked: it says nothing about the version.
    is_from_cache: bool,
    cause: Option<Cause>,
    bytes_in: u64,
    bytes_out: u64,
    attempts: u32,
    series: Option<Arc<Series>>,
    /// For the access log, and empty without one.
    version: String,
    instance: Option<Arc<Endpoint>>,
}

/// Routes the request whose head is complete in the connection's buffer and passes it on.
pub(super) async fn relay(conn: &mut Conn) -> After {
    let Some(mut request) = conn.request.take() else { return After::Gone };
    let mut report = Report {
        started: Instant::now(),
        stream_since: None,
        status: 0,
        withheld: None,
        cached: None,
        is_from_cache: false,
        cause: None,
        bytes_in: 0,
        bytes_out: 0,
        attempts: 0,
        series: None,
        version: String::new(),
        instance: None,
    };
    let parsed = {
        let mut storage = header_storage();
        match RequestHead::parse(request.head(), &mut storage) {
            Ok(head) => {
                let known = Known::of(&head, &conn.client, &conn.worker);
                let relay = Relay::new(conn, known, &mut report);
                Ok((known, relay.plan_for(&head, request.head().len(), None)))
            }
            Err(refusal) => Err(refusal),
        }
    };
    let (known, plan) = match parsed {
        Ok(parsed) => parsed,
        Err(Refusal::Version) if request.head() == PREFACE_HEAD && conn.stream.as_pipe().is_none() => {
            conn.request = Some(request);
            return After::Http2;
        }
        Err(refusal) => {
            return conn.refuse(refusal.status(), &refusal.to_string()).await;
        }
    };
    let is_http2 = conn.stream.as_pipe().is_some();
    request.expect_body(known.length.body(), if is_http2 { Framing::KeepTrailers } else { Framing::Keep });
    let mut relay = Relay::new(conn, known, &mut report);
    let after = relay.run(&mut request, plan).await;
    relay.copy_late(&request);
    relay.finish(&request);
    // Ends that leave unread bytes of this request behind close the connection, so the next one is clean.
    if after == After::KeepAlive {
        request.finish();
    }
    conn.request = Some(request);
    after
}

struct Relay<'c> {
    conn: &'c mut Conn,
    known: Known,
    report: &'c mut Report,
    /// A copy for the mirroring version, until the body is here.
    waiting: Option<Waiting>,
    /// The route, where it changes the header fields of answers: ours are no exception.
    dressed_by: Option<(Rc<Routing>, usize)>,
    /// On a route that has a cache, where it did not answer.
    caching: Option<Caching>,
}

/// How an attempt that got no answer to the client goes on.
enum Verdict {
    Done(After),
    Retry,
}

impl<'c> Relay<'c> {
    fn new(conn: &'c mut Conn, known: Known, report: &'c mut Report) -> Self {
        Self { conn, known, report, waiting: None, dressed_by: None, caching: None }
    }
}

impl Relay<'_> {
    async fn run(&mut self, request: &mut RequestBuffer, plan: Result<Plan, Unplanned>) -> After {
        let mut plan = match plan {
            Ok(plan) => plan,
            Err(unplanned) => return self.unplanned(unplanned, request).await,
        };
        self.dress(&plan.routing, plan.route);
        let bytes_max = plan.service().request_body_bytes_max;
        if let BodyLength::Known(bytes) = self.known.length
            && bytes > bytes_max
        {
            self.report.series = Some(Arc::clone(plan.series(plan.choice.version)));
            return self.fail(request, 413, Cause::BodyTooLarge, &Refusal::BodyTooLarge.to_string()).await;
        }
        if let Err(refusal) = request.absorb(bytes_max) {
            self.report.series = Some(Arc::clone(plan.series(plan.choice.version)));
            return self.refuse_body(request, refusal).await;
        }
        if !plan.route().policy.cache.is_empty()
            // On the heap: what it needs would otherwise be part of every connection.
            && let Some(after) = Box::pin(self.cached(request, &plan)).await
        {
            return after;
        }
        plan.routing.earn_retries(plan.service);
        self.copy(request, &plan);
        let mut tried: Vec<u64> = Vec::new();
        let mut held: Option<Held> = None;
        let mut fresh_only = false;
        loop {
            let core = self.conn.worker.core;
            let worker = Rc::clone(&self.conn.worker);
            // Whoever waits behind the breaker goes first.
            let is_queued = held.as_ref().is_some_and(Held::is_queued);
            let pick = match !is_queued && plan.has_queue() {
                true => Pick::Full,
                false => {
                    plan.routing.pick(plan.service, plan.choice, &tried, core, &mut || worker.random.next())
                }
            };
            let (version, guard) = match pick {
                Pick::Endpoint { version, guard } => (version, guard),
                nobody @ (Pick::None | Pick::Full) => {
                    if self.caching.is_some()
                        && let Some(after) = Box::pin(self.stand_in(request, None)).await
                    {
                        return after;
                    }
                    let what = if matches!(nobody, Pick::Full) { For::Room } else { For::Instance };
                    match self.hold(request, &plan, &mut held, what).await {
                        Ok(()) => tried.clear(),
                        Err(cause) => {
                            self.report.series = Some(Arc::clone(plan.series(plan.choice.version)));
                            return self.unavailable(request, cause).await;
                        }
                    }
                    match self.plan_again(request, plan) {
                        Ok(next) => plan = next,
                        Err(unplanned) => return self.unplanned(unplanned, request).await,
                    }
                    continue;
                }
            };
            let endpoint = Arc::clone(guard.endpoint());
            let series = Arc::clone(plan.series(version));
            let mut upstream = match self.connect(&plan, &endpoint, fresh_only).await {
                Ok(upstream) => upstream,
                Err(cause) => {
                    endpoint.failed(&plan.service().eject, || plan.others_fit(version, endpoint.uid));
                    series.error(core, cause);
                    tried.push(endpoint.uid);
                    continue;
                }
            };
            // Rule 8: the instance may have been removed while we connected.
            if !worker.has_endpoint(endpoint.uid) {
                drop((upstream, guard));
                match self.plan_again(request, plan) {
                    Ok(next) => plan = next,
                    Err(unplanned) => return self.unplanned(unplanned, request).await,
                }
                continue;
            }
            drop(held.take());
            self.report.attempts += 1;
            self.report.series = Some(Arc::clone(&series));
            self.report.instance = Some(Arc::clone(&endpoint));
            let reused = upstream.reused;
            match self.attempt(request, &plan, version, &guard, &mut upstream).await {
                (Verdict::Done(after), reusable) => {
                    if reusable {
                        let service = plan.service();
                        let (idle_ms, most) = (service.timeouts.upstream_idle_ms, service.idle_upstreams_max);
                        worker.put_idle(endpoint.uid, upstream, idle_ms, most);
                    }
                    return after;
                }
                (Verdict::Retry, _) => {
                    // A connection that went stale says nothing about its instance; a fresh one does.
                    fresh_only = true;
                    if !reused {
                        tried.push(endpoint.uid);
                    }
                    if !worker.is_current(&plan.routing) {
                        drop(guard);
                        match self.plan_again(request, plan) {
                            Ok(next) => plan = next,
                            Err(unplanned) => return self.unplanned(unplanned, request).await,
                        }
                    }
                }
            }
        }
    }

    async fn connect(&self, plan: &Plan, endpoint: &Endpoint, fresh: bool) -> Result<Upstream, Cause> {
        if plan.service().protocol == snapshot::Protocol::H2c {
            // On the heap, because most services have no use for the room.
            return Box::pin(self.connect_http2(plan, endpoint, fresh)).await;
        }
        let reuse = if self.known.is_idempotent { Reuse::Freely } else { Reuse::Carefully };
        if !fresh && let Some(upstream) = self.conn.worker.take_idle(endpoint.uid, reuse) {
            return Ok(upstream);
        }
        self.conn.deadline.arm_ms(plan.service().timeouts.connect_ms);
        match self.conn.deadline.within(Stream::connect(endpoint.addr)).await {
            Err(Passed) => Err(Cause::ConnectTimeout),
            Ok(Err(_)) => Err(Cause::Connect),
            Ok(Ok(stream)) => {
                endpoint.connected();
                Ok(Upstream { stream, written: 0, reused: false })
            }
        }
    }

    async fn connect_http2(&self, plan: &Plan, endpoint: &Endpoint, fresh: bool) -> Result<Upstream, Cause> {
        let worker = &self.conn.worker;
        let timeouts = &plan.service().timeouts;
        let target =
            Target { addr: endpoint.addr, idle_ms: timeouts.upstream_idle_ms, limits: &worker.shared.limits };
        let opening = worker.upstreams.open(endpoint.uid, worker.has_endpoint(endpoint.uid), fresh, target);
        self.conn.deadline.arm_ms(timeouts.connect_ms);
        match self.conn.deadline.within(opening).await {
            Err(Passed) => Err(Cause::ConnectTimeout),
            Ok(Err(_)) => Err(Cause::Connect),
            Ok(Ok(opened)) => {
                // A stream more on a connection that is there says nothing about new ones.
                if !opened.reused {
                    endpoint.connected();
                }
                Ok(Upstream { stream: Stream::Pipe(opened.pipe), written: 0, reused: opened.reused })
            }
        }
    }

    /// One attempt, and what follows from its end. The second value: the connection can be used again.
    async fn attempt(
        &mut self,
        request: &mut RequestBuffer,
        plan: &Plan,
        version: usize,
        guard: &InFlight,
        upstream: &mut Upstream,
    ) -> (Verdict, bool) {
        let worker = Rc::clone(&self.conn.worker);
        let core = worker.core;
        let series = plan.series(version);
        let _counted = SeriesInFlight::begin(series, core);
        let service = plan.service();
        let mut added = self.response_lines(plan, version);
        let watch = self.take_watch(plan, version, &mut added);
        let rewritten = watch.as_ref().and_then(|watch| watch.rewritten(&plan.head));
        let written_before = upstream.written;
        let terms = Terms {
            head: rewritten.as_ref().unwrap_or(&plan.head),
            added: &added,
            facts: self.known.facts,
            timeouts: &service.timeouts,
            endpoint: guard.endpoint().uid,
            body_bytes_max: service.request_body_bytes_max,
            wanted: Wanted { policy: &plan.route().policy, accepts: plan.accepts },
        };
        let mut exchange = Exchange::new(
            &worker,
            &self.conn.listener,
            &self.conn.deadline,
            &self.conn.stream,
            upstream,
            request,
            terms,
        );
        exchange.watch = watch;
        let end = exchange.run().await;
        let (begun, answered, sent) = (exchange.begun(), exchange.answered, exchange.sent);
        let (ends_by_close, rest) = (exchange.ends_by_close(), exchange.take_rest());
        let watch = exchange.watch.take();
        self.report.bytes_out = exchange.bytes_out;
        self.report.stream_since = exchange.stream_since;
        if worker.shared.access_log.get().is_some() {
            self.report.version.clone_from(&service.versions[version].name);
        }
        if let Some((status, _)) = begun {
            self.report.status = status;
        }
        self.put_watch(watch);
        // What the client broke says nothing about the instance.
        let judged = match end {
            End::Complete { .. } | End::Truncated | End::Upgraded => begun.map(|(status, _)| status >= 500),
            End::Withheld { status, .. } => Some(status >= 500),
            End::NoResponse { .. } => (!upstream.reused).then_some(true),
            End::ResponseTimeout | End::BadResponse(_) => Some(true),
            End::ClientGone | End::ClientTimeout | End::Body(_) => None,
        };
        if let Some(failed) = judged {
            let endpoint = guard.endpoint();
            endpoint.answered(failed, &service.eject, || plan.others_fit(version, endpoint.uid));
        }
        // Whoever takes nothing would not take the rest of a stream either.
        let is_stuck = matches!(end, End::ClientTimeout) && self.conn.stream.as_pipe().is_some();
        let incomplete = if ends_by_close || is_stuck { After::Reset } else { After::Close };
        let cause = match end {
            End::Complete { reusable } => {
                let keep_alive = begun.is_some_and(|(_, keep_alive)| keep_alive);
                return (Verdict::Done(if keep_alive { After::KeepAlive } else { After::Close }), reusable);
            }
            End::Withheld { status, reusable } => {
                return (Verdict::Done(Box::pin(self.withheld(request, status)).await), reusable);
            }
            End::Upgraded => {
                self.tunnel(request, plan, guard, upstream, rest).await;
                return (Verdict::Done(After::Close), false);
            }
            End::ClientGone => {
                self.report.cause = Some(Cause::ClientClosed);
                return (Verdict::Done(After::Gone), false);
            }
            End::Body(refusal) if begun.is_none() => {
                return (Verdict::Done(self.refuse_body(request, refusal).await), false);
            }
            End::Body(BodyRefusal::Malformed(_)) => Cause::BadBody,
            End::Body(BodyRefusal::TooLarge) => Cause::BodyTooLarge,
            End::ClientTimeout if begun.is_none() => {
                let why = "the request body did not arrive in time";
                return (Verdict::Done(self.fail(request, 408, Cause::ClientTimeout, why).await), false);
            }
            End::ClientTimeout => Cause::ClientTimeout,
            End::Truncated => Cause::Truncated,
            End::NoResponse { closed } => {
                let proven = sent == 0 || (closed && upstream.stream.is_unreceived_beyond(written_before));
                if self.may_repeat(request, plan, proven, answered) {
                    series.error(core, Cause::NoResponse);
                    return (Verdict::Retry, false);
                }
                Cause::NoResponse
            }
            End::ResponseTimeout => {
                let why = "the instance did not answer in time";
                return (Verdict::Done(self.fail(request, 504, Cause::ResponseTimeout, why).await), false);
            }
            End::BadResponse(problem) => {
                let why = format!("the instance answered, but {problem}");
                return (Verdict::Done(self.fail(request, 502, Cause::BadResponse, &why).await), false);
            }
        };
        if begun.is_some() {
            self.report.cause = Some(cause);
            return (Verdict::Done(incomplete), false);
        }
        let why = "the instance closed the connection without an answer";
        (Verdict::Done(self.fail(request, 502, cause, why).await), false)
    }

    /// Rule 5: again when it provably was not received; otherwise only what does no harm twice.
    fn may_repeat(&self, request: &RequestBuffer, plan: &Plan, proven: bool, answered: bool) -> bool {
        if answered || !request.can_replay() {
            return false;
        }
        if proven {
            return self.report.attempts < PROVEN_ATTEMPTS_MAX;
        }
        self.known.is_idempotent
            && self.report.attempts < plan.service().retry.attempts_max
            && plan.routing.spend_retry(plan.service)
    }

    async fn tunnel(
        &mut self,
        request: &RequestBuffer,
        plan: &Plan,
        guard: &InFlight,
        upstream: &Upstream,
        rest: Option<Buffer>,
    ) {
        let timeouts = &plan.service().timeouts;
        let endpoint = guard.endpoint().uid;
        let deadline = &self.conn.deadline;
        deadline.enter(Phase::Stream { endpoint, drain_ms: timeouts.stream_drain_ms });
        let worker = &self.conn.worker;
        let protocol = if self.known.facts.offers_websocket { Protocol::WebSocket } else { Protocol::Other };
        let mut tunnel = Tunnel::new(
            protocol,
            &self.conn.stream,
            &upstream.stream,
            deadline,
            timeouts.upgrade_idle_ms,
            request.rest(),
            rest,
        );
        // The instance may have been removed, or a drain begun, while the upgrade was answered.
        worker.deadlines.drain_streams(|endpoint| !worker.has_endpoint(endpoint));
        if worker.is_draining(&self.conn.listener) {
            deadline.cap_ms(timeouts.stream_drain_ms);
        }
        let _ = tunnel.run().await;
        self.report.bytes_in = tunnel.bytes_in;
        self.report.bytes_out += tunnel.bytes_out;
    }

    /// Whether an answer that ended early may have ended by a drain: then it says nothing about the version.
    fn was_cut(&self) -> bool {
        let worker = &self.conn.worker;
        let is_gone =
            self.report.instance.as_ref().is_some_and(|endpoint| !worker.has_endpoint(endpoint.uid));
        is_gone || worker.is_draining(&self.conn.listener)
    }

    /// Counts and logs.
    fn finish(&self, request: &RequestBuffer) {
        let report = &self.report;
        let worker = &self.conn.worker;
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let duration_us = micros(report.started.elapsed());
        let latency_us = report.stream_since.map_or(duration_us, |begun| micros(begun - report.started));
        let bytes_in = report.bytes_in + request.body_bytes();
        if let Some(outcome) = report.cached {
            worker.shared.cache.count(outcome);
        }
        if let Some(series) = report.series.as_ref().filter(|_| !report.is_from_cache) {
            let status = report.withheld.unwrap_or(report.status);
            if status == 0 {
                series.unanswered(worker.core);
                let is_over = report.cause == Some(Cause::ClientClosed) && request.body_is_complete();
                if is_over && report.started.elapsed() >= GIVEN_UP_AFTER {
                    series.given_up(worker.core);
                }
            } else {
                series.request(worker.core, status, latency_us);
            }
            if let Some(cause) = report.cause {
                series.error(worker.core, cause);
            }
            if status >= 500 || (report.cause == Some(Cause::Truncated) && !self.was_cut()) {
                series.failed(worker.core, self.client(request));
            }
            series.bytes(worker.core, bytes_in, report.bytes_out);
        }
        if let Some(log) = worker.shared.access_log.get() {
            let mut storage = header_storage();
            let Ok(head) = RequestHead::parse(request.head(), &mut storage) else { return };
            let (route, service) = report.series.as_ref().map_or(("", ""), |series| series.labels());
            log.write(
                Record {
                    time_ms: now_ms().saturating_sub(duration_us / 1_000),
                    request_id: &self.id_text(),
                    client: self.conn.client.address,
                    protocol: match (self.conn.stream.as_pipe(), head.version) {
                        (Some(_), _) => "HTTP/2",
                        (None, MinorVersion::One) => "HTTP/1.1",
                        (None, MinorVersion::Zero) => "HTTP/1.0",
                    },
                    tls: self.conn.client.tls,
                    method: head.method,
                    host: head.host,
                    target: head.target,
                    status: report.status,
                    duration_us,
                    bytes_in,
                    bytes_out: report.bytes_out,
                    route,
                    service,
                    version: &report.version,
                    instance: report.instance.as_ref().map_or("", |endpoint| &endpoint.id),
                    attempts: report.attempts,
                    cache: report.cached.map(Outcome::name),
                    error: report.cause.map(Cause::name),
                }
                .line(),
            );
        }
    }
}

/// What a client gives up sooner says nothing about the version: people change their minds, and pages cancel what they
/// do not need any more. Half of what a client of HTTP/1 is trusted to be there for, so that all of theirs count.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(500);

/// Attempts for a request that provably never arrived. Generous, because each can only fail on another stale or
/// refused connection; bounded, because an instance may close every connection that it accepts.
const PROVEN_ATTEMPTS_MAX: u32 = 10;
