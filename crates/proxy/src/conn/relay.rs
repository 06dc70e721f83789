//! A request on its way: route it, find an instance, try, try again where that cannot do harm, answer.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::answer::{self, Answer};
use super::exchange::{End, Exchange, Facts, Terms};
use super::request_buffer::{BodyRefusal, RequestBuffer};
use super::tunnel::{Protocol, Tunnel};
use super::{After, Conn, io};
use crate::accesslog::{Record, now_ms};
use crate::balance::{Choice, Decided, Pick, Routing};
use crate::buffer::{Buffer, HeadBuffer};
use crate::codec::{BodyLength, Field, Forward, Refusal, RequestHead, header_storage};
use crate::control::Cause;
use crate::deadline::{Passed, Phase};
use crate::endpoint::{Endpoint, InFlight};
use crate::limits::HOLD_LOOK;
use crate::series::{Series, SeriesInFlight};
use crate::table::{RouteTable, ServiceTable};
use crate::trace::{REQUEST_ID_BYTES_MAX, hex, is_request_id, is_traceparent};
use crate::worker::{Reuse, Upstream, Worker};

/// The client's request id, or ours.
#[derive(Debug, Clone, Copy)]
struct RequestId {
    bytes: [u8; REQUEST_ID_BYTES_MAX],
    len: usize,
}

impl RequestId {
    fn of(head: &RequestHead<'_, '_>, worker: &Worker) -> Self {
        let mut id = Self { bytes: [0; REQUEST_ID_BYTES_MAX], len: 0 };
        match head.field(Field::RequestId).filter(|value| is_request_id(value)) {
            Some(value) => id.push(value),
            None => {
                id.push(&hex(worker.random.next()));
                id.push(&hex(worker.random.next()));
            }
        }
        id
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What stays true of a request through all attempts.
#[derive(Debug, Clone, Copy)]
struct Known {
    facts: Facts,
    is_idempotent: bool,
    length: BodyLength,
    id: RequestId,
    /// Begun here when the client sent no valid trace; one trace through all attempts.
    new_trace: Option<[u64; 3]>,
}

/// Where a request goes by one routing state.
#[derive(Debug)]
struct Plan {
    routing: Rc<Routing>,
    route: usize,
    service: usize,
    choice: Choice,
    /// The head for the instance.
    head: HeadBuffer,
}

/// Why a request goes nowhere.
#[derive(Debug)]
enum Unplanned {
    /// Index of the route.
    Maintenance(Rc<Routing>, usize),
    /// All versions have weight 0.
    NoVersion(Rc<Routing>, usize),
    NoRoute,
}

impl Plan {
    fn route(&self) -> &RouteTable {
        &self.routing.table.routes[self.route]
    }

    fn service(&self) -> &ServiceTable {
        &self.routing.table.services[self.service]
    }

    fn series(&self, version: usize) -> &Arc<Series> {
        &self.route().series[version]
    }
}

/// What is said about the request in the end.
#[derive(Debug)]
struct Report {
    started: Instant,
    status: u16,
    cause: Option<Cause>,
    bytes_in: u64,
    bytes_out: u64,
    attempts: u32,
    series: Option<Arc<Series>>,
    version: String,
    instance: Option<Arc<Endpoint>>,
}

/// Routes the request whose head is complete in the connection's buffer and passes it on.
pub(super) async fn relay(conn: &mut Conn) -> After {
    let Some(mut request) = conn.request.take() else { return After::Gone };
    let mut report = Report {
        started: Instant::now(),
        status: 0,
        cause: None,
        bytes_in: 0,
        bytes_out: 0,
        attempts: 0,
        series: None,
        version: String::new(),
        instance: None,
    };
    let known = {
        let mut storage = header_storage();
        match RequestHead::parse(request.head(), &mut storage) {
            Ok(head) => Ok(Known::of(&head, &conn.worker)),
            Err(refusal) => Err(refusal),
        }
    };
    let known = match known {
        Ok(known) => known,
        Err(refusal) => {
            return conn.refuse(refusal.status(), &refusal.to_string()).await;
        }
    };
    request.expect_body(known.length.body());
    let mut relay = Relay { conn, known, report: &mut report };
    let after = relay.run(&mut request).await;
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
}

/// How an attempt that got no answer to the client goes on.
enum Verdict {
    Done(After),
    Retry,
}

impl Known {
    fn of(head: &RequestHead<'_, '_>, worker: &Worker) -> Self {
        let traced = head.field(Field::TraceParent).is_some_and(is_traceparent);
        let random = || worker.random.next().max(1);
        Self {
            facts: Facts {
                is_head: head.method == "HEAD",
                version: head.version,
                wants_keep_alive: head.keep_alive,
                offers_upgrade: head.upgrade.is_some(),
                offers_websocket: head.upgrade.is_some_and(|p| p.eq_ignore_ascii_case(b"websocket")),
            },
            is_idempotent: head.is_idempotent(),
            length: head.length,
            id: RequestId::of(head, worker),
            new_trace: (!traced).then(|| [random(), random(), random()]),
        }
    }
}

impl Relay<'_> {
    async fn run(&mut self, request: &mut RequestBuffer) -> After {
        let mut plan = match self.plan(request, None) {
            Ok(plan) => plan,
            Err(unplanned) => return self.unplanned(unplanned, request).await,
        };
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
        plan.routing.earn_retries(plan.service);
        let mut tried: Vec<u64> = Vec::new();
        let mut held: Option<Held> = None;
        let mut fresh_only = false;
        loop {
            let core = self.conn.worker.core;
            let worker = Rc::clone(&self.conn.worker);
            let pick =
                plan.routing.pick(plan.service, plan.choice, &tried, core, &mut || worker.random.next());
            let (version, guard) = match pick {
                Pick::Endpoint { version, guard } => (version, guard),
                Pick::None => {
                    match self.hold(&plan, &mut held).await {
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
                    let others = plan.service().versions[version].endpoints.iter();
                    endpoint.failed(others.filter(|e| e.uid != endpoint.uid).any(|e| e.is_fit()));
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
                        worker.put_idle(endpoint.uid, upstream, plan.service().timeouts.upstream_idle_ms);
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

    /// Routes the request by the current table.
    fn plan(&self, request: &RequestBuffer, before: Option<&str>) -> Result<Plan, Unplanned> {
        let routing = self.conn.worker.routing();
        let mut storage = header_storage();
        // It was parsed before; the bytes are the same.
        let Ok(head) = RequestHead::parse(request.head(), &mut storage) else {
            return Err(Unplanned::NoRoute);
        };
        let table = &routing.table;
        let found = table.route(self.conn.listener.addr, head.host_name(), head.path());
        let Some(index) = found else { return Err(Unplanned::NoRoute) };
        let route = &table.routes[index];
        if route.maintenance.is_some() {
            return Err(Unplanned::Maintenance(routing, index));
        }
        let Some(choice) = routing.choose(route, &head, before) else {
            return Err(Unplanned::NoVersion(routing, index));
        };
        let out = self.head_for_instance(&head, route);
        let service = route.service;
        Ok(Plan { routing, route: index, service, choice, head: out })
    }

    /// Routes again by whatever is current; the version stays if it still can.
    fn plan_again(&self, request: &RequestBuffer, plan: Plan) -> Result<Plan, Unplanned> {
        if self.conn.worker.is_current(&plan.routing) {
            return Ok(plan);
        }
        let before = &plan.service().versions[plan.choice.version].name;
        self.plan(request, Some(before))
    }

    fn head_for_instance(&self, head: &RequestHead<'_, '_>, route: &RouteTable) -> HeadBuffer {
        let mut added = HeadBuffer::take();
        let mut line = |name: &[u8], values: &[&[u8]]| {
            added.extend_from_slice(name);
            for value in values {
                added.extend_from_slice(value);
            }
            added.extend_from_slice(b"\r\n");
        };
        line(b"x-request-id: ", &[self.known.id.as_bytes()]);
        if let Some([high, low, parent]) = self.known.new_trace {
            line(b"traceparent: 00-", &[&hex(high), &hex(low), b"-", &hex(parent), b"-01"]);
        }
        let peer = self.conn.peer_text.as_bytes();
        let trusted = self.conn.worker.shared.trusted_proxies.contains(&self.conn.peer.ip().to_canonical());
        let claimed = |field: Field| head.field(field).filter(|value| trusted && !value.is_empty());
        match claimed(Field::ForwardedFor) {
            Some(before) => line(b"x-forwarded-for: ", &[before, b", ", peer]),
            None => line(b"x-forwarded-for: ", &[peer]),
        }
        line(b"x-forwarded-proto: ", &[claimed(Field::ForwardedProto).unwrap_or(b"http")]);
        if let Some(host) = claimed(Field::ForwardedHost).or(Some(head.host.as_bytes()))
            && !host.is_empty()
        {
            line(b"x-forwarded-host: ", &[host]);
        }
        let mut target = head.target;
        if let Some(prefix) = route.stripped() {
            target = target.strip_prefix(prefix).unwrap_or(target);
            line(b"x-forwarded-prefix: ", &[prefix.as_bytes()]);
        }
        let mut out = HeadBuffer::take();
        head.write(
            &mut out,
            &Forward {
                target_prefix: if target.starts_with('/') || target == "*" { "" } else { "/" },
                target,
                host: head.host,
                keep_trace: self.known.new_trace.is_none(),
                added: &added,
            },
        );
        out
    }

    async fn connect(&self, plan: &Plan, endpoint: &Endpoint, fresh: bool) -> Result<Upstream, Cause> {
        let reuse = if self.known.is_idempotent { Reuse::Freely } else { Reuse::Carefully };
        if !fresh && let Some(upstream) = self.conn.worker.take_idle(endpoint.uid, reuse) {
            return Ok(upstream);
        }
        self.conn.deadline.arm_ms(plan.service().timeouts.connect_ms);
        match self.conn.deadline.within(TcpStream::connect(endpoint.addr)).await {
            Err(Passed) => Err(Cause::ConnectTimeout),
            Ok(Err(_)) => Err(Cause::Connect),
            Ok(Ok(stream)) => {
                endpoint.connected();
                // Fails only on a connection that is gone already; using it will tell.
                let _ = stream.set_nodelay(true);
                Ok(Upstream { stream, written: 0, reused: false })
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
        let added = self.response_lines(plan, version);
        let written_before = upstream.written;
        let terms = Terms {
            head: &plan.head,
            added: &added,
            facts: self.known.facts,
            timeouts: &service.timeouts,
            endpoint: guard.endpoint().uid,
            body_bytes_max: service.request_body_bytes_max,
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
        let end = exchange.run().await;
        let (begun, answered, sent) = (exchange.begun(), exchange.answered, exchange.sent);
        let (ends_by_close, rest) = (exchange.ends_by_close(), exchange.take_rest());
        self.report.bytes_out = exchange.bytes_out;
        self.report.version.clone_from(&service.versions[version].name);
        if let Some((status, _)) = begun {
            self.report.status = status;
        }
        let incomplete = if ends_by_close { After::Reset } else { After::Close };
        let cause = match end {
            End::Complete { reusable } => {
                let keep_alive = begun.is_some_and(|(_, keep_alive)| keep_alive);
                return (Verdict::Done(if keep_alive { After::KeepAlive } else { After::Close }), reusable);
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
                let proven = sent == 0 || (closed && is_unreceived(&upstream.stream, written_before));
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

    /// Header lines that every response gets.
    fn response_lines(&self, plan: &Plan, version: usize) -> HeadBuffer {
        let mut lines = HeadBuffer::take();
        lines.extend_from_slice(b"x-request-id: ");
        lines.extend_from_slice(self.known.id.as_bytes());
        lines.extend_from_slice(b"\r\n");
        let service = plan.service();
        if let Some(sticky) = &service.sticky
            && plan.choice.decided == Decided::Weight
            && version == plan.choice.version
        {
            for part in ["set-cookie: ", &sticky.cookie, "=", &service.versions[version].name] {
                lines.extend_from_slice(part.as_bytes());
            }
            if let Some(seconds) = sticky.max_age_s {
                lines.extend_from_slice(format!("; Max-Age={seconds}").as_bytes());
            }
            lines.extend_from_slice(b"; Path=/; HttpOnly; SameSite=Lax\r\n");
        }
        lines
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

    /// Rule 10: waits for something to change. `Err` when that takes too long or too many wait already.
    async fn hold(&self, plan: &Plan, held: &mut Option<Held>) -> Result<(), Cause> {
        let service = plan.service();
        let waiting = match held {
            Some(waiting) => waiting,
            none => none.insert(Held::begin(service).ok_or(Cause::HoldFull)?),
        };
        let changed = self.conn.worker.shared.changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        // A swap between the choice and this line has notified before we listened.
        if !self.conn.worker.is_current(&plan.routing) {
            return Ok(());
        }
        let left = Duration::from_millis(service.hold.max_wait_ms).saturating_sub(waiting.since.elapsed());
        if left.is_zero() {
            return Err(Cause::NoInstance);
        }
        let _ = tokio::time::timeout(left.min(HOLD_LOOK), changed).await;
        Ok(())
    }

    async fn unplanned(&mut self, unplanned: Unplanned, request: &mut RequestBuffer) -> After {
        match unplanned {
            Unplanned::NoRoute => {
                self.conn.worker.count_refusal(404);
                self.answer(request, 404, "no route leads anywhere from here", None).await
            }
            Unplanned::NoVersion(routing, route) => {
                self.report.series = Some(Arc::clone(&routing.table.routes[route].unserved));
                self.unavailable(request, Cause::NoInstance).await
            }
            Unplanned::Maintenance(routing, route) => {
                let route = &routing.table.routes[route];
                self.report.series = Some(Arc::clone(&route.unserved));
                let Some(page) = &route.maintenance else { return After::Close };
                let added = format!("x-request-id: {}\r\n", self.id_text());
                let answer = Answer {
                    status: page.status,
                    content_type: &page.content_type,
                    body: &page.body,
                    retry_after_s: page.retry_after_s,
                    added: added.as_bytes(),
                };
                self.send(request, &answer).await
            }
        }
    }

    async fn unavailable(&mut self, request: &mut RequestBuffer, cause: Cause) -> After {
        self.report.cause = Some(cause);
        let why = if cause == Cause::HoldFull {
            "too many requests wait for an instance"
        } else {
            "no instance is available"
        };
        self.answer(request, 503, why, Some(RETRY_AFTER_S)).await
    }

    async fn refuse_body(&mut self, request: &mut RequestBuffer, refusal: BodyRefusal) -> After {
        match refusal {
            BodyRefusal::TooLarge => {
                self.fail(request, 413, Cause::BodyTooLarge, &Refusal::BodyTooLarge.to_string()).await
            }
            BodyRefusal::Malformed(error) => {
                self.fail(request, 400, Cause::BadBody, &error.to_string()).await
            }
        }
    }

    async fn fail(&mut self, request: &mut RequestBuffer, status: u16, cause: Cause, why: &str) -> After {
        self.report.cause = Some(cause);
        self.answer(request, status, why, None).await
    }

    async fn answer(
        &mut self,
        request: &mut RequestBuffer,
        status: u16,
        why: &str,
        retry_after_s: Option<u32>,
    ) -> After {
        let id = self.id_text();
        let body = format!("{status} {}: {why}\nrequest {id}\n", answer::reason(status));
        let added = format!("x-request-id: {id}\r\n");
        let mut answer = Answer::plain(status, &body, added.as_bytes());
        answer.retry_after_s = retry_after_s;
        self.send(request, &answer).await
    }

    async fn send(&mut self, request: &mut RequestBuffer, answer: &Answer<'_>) -> After {
        // After a malformed body nobody knows where the next request begins. Otherwise, whether the body is here
        // must be known before the answer says that the connection stays open.
        let keep_alive = answer.status != 400
            && self.known.facts.wants_keep_alive
            && !self.conn.worker.is_draining(&self.conn.listener)
            && request.absorb(u64::MAX).is_ok()
            && request.body_is_complete();
        let deadline = &self.conn.deadline;
        deadline.arm(self.conn.worker.shared.limits.head);
        self.report.status = answer.status;
        let is_head = self.known.facts.is_head;
        match (answer.send(&self.conn.stream, deadline, keep_alive, is_head).await, keep_alive) {
            (true, true) => After::KeepAlive,
            (true, false) => After::Close,
            (false, _) => After::Gone,
        }
    }

    fn id_text(&self) -> String {
        String::from_utf8_lossy(self.known.id.as_bytes()).into_owned()
    }

    /// Counts and logs.
    fn finish(&self, request: &RequestBuffer) {
        let report = &self.report;
        let worker = &self.conn.worker;
        let duration_us = u64::try_from(report.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bytes_in = report.bytes_in + request.body_bytes();
        if let Some(series) = &report.series {
            if report.status != 0 {
                series.request(worker.core, report.status, duration_us);
            }
            if let Some(cause) = report.cause {
                series.error(worker.core, cause);
            }
            series.bytes(worker.core, bytes_in, report.bytes_out);
        }
        if let Some(log) = &worker.shared.access_log {
            let mut storage = header_storage();
            let Ok(head) = RequestHead::parse(request.head(), &mut storage) else { return };
            let (route, service) = report.series.as_ref().map_or(("", ""), |series| series.labels());
            log.write(
                Record {
                    time_ms: now_ms().saturating_sub(duration_us / 1_000),
                    request_id: &self.id_text(),
                    client: self.conn.peer.ip().to_canonical(),
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
                    error: report.cause.map(Cause::name),
                }
                .line(),
            );
        }
    }
}

/// Attempts for a request that provably never arrived. Generous, because each can only fail on another stale or
/// refused connection; bounded, because an instance may close every connection that it accepts.
const PROVEN_ATTEMPTS_MAX: u32 = 10;

/// Seconds after which a client may ask again: about what an instance needs to start.
const RETRY_AFTER_S: u32 = 2;

/// Whether the instance's kernel acknowledged nothing of what was written since.
fn is_unreceived(stream: &TcpStream, written_before: u64) -> bool {
    io::acknowledged(stream).is_some_and(|bytes| bytes <= written_before + 1)
}

/// A place in a service's hold queue.
struct Held {
    places: Arc<AtomicU32>,
    since: Instant,
}

impl Held {
    fn begin(service: &ServiceTable) -> Option<Self> {
        let places = Arc::clone(&service.held);
        if places.fetch_add(1, Ordering::AcqRel) >= service.hold.max_requests {
            places.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self { places, since: Instant::now() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.fetch_sub(1, Ordering::AcqRel);
    }
}
