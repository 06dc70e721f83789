//! Where a request goes by the current table, and what its heads look like on the way.

use std::rc::Rc;
use std::sync::Arc;

use super::Relay;
use super::admit::Refused;
use super::copy::Copyable;
use crate::balance::{Choice, Decided, Routing};
use crate::buffer::HeadBuffer;
use crate::codec::{BodyLength, Field, Forward, RequestHead, header_storage};
use crate::conn::Client;
use crate::conn::exchange::Facts;
use crate::conn::request_buffer::RequestBuffer;
use crate::policy::coding::Coding;
use crate::series::Series;
use crate::snapshot::Purpose;
use crate::table::{RouteTable, ServiceTable, Table};
use crate::trace::{REQUEST_ID_BYTES_MAX, hex, is_request_id, is_traceparent};
use crate::worker::Worker;

/// The client's request id, or ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestId {
    pub(super) bytes: [u8; REQUEST_ID_BYTES_MAX],
    pub(super) len: usize,
}

impl RequestId {
    pub(super) fn of(head: &RequestHead<'_, '_>, worker: &Worker) -> Self {
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

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What stays true of a request through all attempts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) facts: Facts,
    pub(super) is_idempotent: bool,
    pub(super) copyable: Copyable,
    pub(super) length: BodyLength,
    pub(super) id: RequestId,
    /// Whether the client itself spoke TLS, with us or with a trusted proxy before us.
    pub(super) came_by_https: bool,
    /// Begun here when the client sent no valid trace; one trace through all attempts.
    pub(super) new_trace: Option<[u64; 3]>,
}

impl Known {
    pub(super) fn of(head: &RequestHead<'_, '_>, client: &Client, worker: &Worker) -> Self {
        let traced = head.field(Field::TraceParent).is_some_and(is_traceparent);
        let random = || worker.random.next().max(1);
        Self {
            facts: Facts {
                is_head: head.method == "HEAD",
                is_safe: head.is_safe(),
                version: head.version,
                wants_keep_alive: head.keep_alive,
                offers_upgrade: head.upgrade.is_some(),
                offers_websocket: head.upgrade.is_some_and(|p| p.eq_ignore_ascii_case(b"websocket")),
            },
            is_idempotent: head.is_idempotent(),
            copyable: Copyable::of(head),
            length: head.length,
            id: RequestId::of(head, worker),
            came_by_https: client.came_by_https(head),
            new_trace: (!traced).then(|| [random(), random(), random()]),
        }
    }
}

/// Where a request goes by one routing state.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) routing: Rc<Routing>,
    pub(super) route: usize,
    pub(super) service: usize,
    pub(super) choice: Choice,
    /// How the client likes answers compressed, where the route compresses.
    pub(super) accepts: Option<Coding>,
    /// The head for the instance.
    pub(super) head: HeadBuffer,
}

/// Why a request goes nowhere.
#[derive(Debug)]
pub(super) enum Unplanned {
    /// Index of the route.
    Maintenance(Rc<Routing>, usize),
    /// All versions have weight 0.
    NoVersion(Rc<Routing>, usize),
    NoRoute,
    /// Index of the route, and where the request is to come back to.
    ToHttps(Rc<Routing>, usize, String),
    /// The answer for a certificate authority.
    Challenge(String),
    /// Index of the route.
    Refused(Rc<Routing>, usize, Refused),
}

impl Plan {
    pub(super) fn route(&self) -> &RouteTable {
        &self.routing.table.routes[self.route]
    }

    pub(super) fn service(&self) -> &ServiceTable {
        &self.routing.table.services[self.service]
    }

    /// Whether others wait until there is room for one more request.
    pub(super) fn has_queue(&self) -> bool {
        let service = self.service();
        !service.breaker.is_off() && !service.versions[self.choice.version].queue.is_empty()
    }

    /// Whether another instance of the version can take over.
    pub(super) fn others_fit(&self, version: usize, uid: u64) -> bool {
        let instances = self.service().versions[version].endpoints.iter();
        instances.filter(|endpoint| endpoint.uid != uid).any(|endpoint| endpoint.is_fit())
    }

    pub(super) fn series(&self, version: usize) -> &Arc<Series> {
        self.route().series(version, self.choice.decided)
    }
}

impl Relay<'_> {
    /// Routes the request by the current table.
    pub(super) fn plan(&self, request: &RequestBuffer, before: Option<&str>) -> Result<Plan, Unplanned> {
        let mut storage = header_storage();
        // It was parsed before; the bytes are the same.
        match RequestHead::parse(request.head(), &mut storage) {
            Ok(head) => self.plan_for(&head, request.head().len(), before),
            Err(_) => Err(Unplanned::NoRoute),
        }
    }

    /// As [`Self::plan`], for a head that is at hand.
    pub(super) fn plan_for(
        &self,
        head: &RequestHead<'_, '_>,
        head_bytes: usize,
        before: Option<&str>,
    ) -> Result<Plan, Unplanned> {
        let routing = self.conn.worker.routing();
        let table = &routing.table;
        if let Some(answer) = self.challenge(head, table) {
            return Err(Unplanned::Challenge(answer));
        }
        let found = table.route(self.conn.listener.addr, head.host_name(), head.path());
        let Some(index) = found else { return Err(Unplanned::NoRoute) };
        let route = &table.routes[index];
        if let Some(to) = route.policy.https
            && !self.known.came_by_https
        {
            if head.host_name().is_empty() {
                return Err(Unplanned::NoRoute);
            }
            let target = if head.target.starts_with('/') { head.target } else { "/" };
            let port = if to.port == 443 { String::new() } else { format!(":{}", to.port) };
            let location = format!("https://{}{port}{target}", head.host_name());
            return Err(Unplanned::ToHttps(routing, index, location));
        }
        if route.maintenance.is_some() {
            return Err(Unplanned::Maintenance(routing, index));
        }
        // A request that is routed again has been admitted.
        if before.is_none()
            && let Err(refused) = self.admit(head, head_bytes, route)
        {
            return Err(Unplanned::Refused(Rc::clone(&routing), index, refused));
        }
        let Some(choice) = routing.choose(route, head, before) else {
            return Err(Unplanned::NoVersion(routing, index));
        };
        let out = self.head_for_instance(head, route);
        let service = route.service;
        let compresses = route.policy.compress.is_some();
        let accepts = compresses.then(|| Coding::preferred(head.named("accept-encoding"))).flatten();
        Ok(Plan { routing, route: index, service, choice, accepts, head: out })
    }

    /// What an authority that asks for a proof gets to read (RFC 8555, 8.3).
    fn challenge(&self, head: &RequestHead<'_, '_>, table: &Table) -> Option<String> {
        if table.http_challenges.is_empty() || self.conn.client.secure {
            return None;
        }
        let token = head.path().strip_prefix("/.well-known/acme-challenge/")?;
        let is_public =
            self.conn.client.entrance.as_ref().is_some_and(|entrance| entrance.purpose == Purpose::Public);
        table.http_challenges.get(token).filter(|_| is_public).cloned()
    }

    /// Routes again by whatever is current; the version stays if it still can.
    pub(super) fn plan_again(&self, request: &RequestBuffer, plan: Plan) -> Result<Plan, Unplanned> {
        if self.conn.worker.is_current(&plan.routing) {
            return Ok(plan);
        }
        let before = &plan.service().versions[plan.choice.version].name;
        self.plan(request, Some(before))
    }

    pub(super) fn head_for_instance(&self, head: &RequestHead<'_, '_>, route: &RouteTable) -> HeadBuffer {
        let stripped = route.stripped();
        let target = stripped.and_then(|prefix| head.target.strip_prefix(prefix)).unwrap_or(head.target);
        let forward = Forward {
            target_prefix: if target.starts_with('/') || target == "*" { "" } else { "/" },
            target,
            host: head.host,
            keep_trace: self.known.new_trace.is_none(),
            keep_mark: route.purpose == Purpose::Internal,
        };
        let mut out = HeadBuffer::take();
        head.write(&mut out, &forward, |out| {
            let mut write = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
            write(&[b"x-request-id: ", self.known.id.as_bytes(), b"\r\n"]);
            if let Some([high, low, parent]) = self.known.new_trace {
                write(&[b"traceparent: 00-", &hex(high), &hex(low), b"-", &hex(parent), b"-01\r\n"]);
            }
            let client = &self.conn.client;
            let claimed = |field: Field| {
                let claimed = if client.trusted { head.field(field) } else { None };
                claimed.filter(|value| !value.is_empty())
            };
            let before = claimed(Field::ForwardedFor);
            let (before, comma): (&[u8], &[u8]) = before.map_or((b"", b""), |before| (before, b", "));
            let scheme = claimed(Field::ForwardedProto).unwrap_or(client.scheme());
            write(&[b"x-forwarded-for: ", before, comma, client.text.as_bytes()]);
            write(&[b"\r\nx-forwarded-proto: ", scheme, b"\r\n"]);
            if let Some(host) = claimed(Field::ForwardedHost).or(Some(head.host.as_bytes()))
                && !host.is_empty()
            {
                write(&[b"x-forwarded-host: ", host, b"\r\n"]);
            }
            if let Some(prefix) = stripped {
                write(&[b"x-forwarded-prefix: ", prefix.as_bytes(), b"\r\n"]);
            }
        });
        out
    }

    /// Header lines that every response gets.
    pub(super) fn response_lines(&self, plan: &Plan, version: usize) -> HeadBuffer {
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
            lines.extend_from_slice(b"; Path=/; HttpOnly; SameSite=Lax");
            lines.extend_from_slice(if self.known.came_by_https { b"; Secure\r\n" } else { b"\r\n" });
        }
        lines
    }
}
