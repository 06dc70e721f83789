//! The routing snapshot: everything that the proxy knows about the world, replaced as a whole.
//!
//! A snapshot names routes, services, versions and instances. It never names a rollout: whoever decides
//! (the control plane) turns each decision into one snapshot with the next generation number.
//!
//! The JSON form is both the wire form on the control socket and the persisted form. Unknown fields are
//! ignored on purpose, so that a proxy which was rolled back can still load the snapshot that its successor
//! wrote; a field whose absence would be dangerous must therefore come with a new required one.

mod policy;
mod tls;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use policy::{CacheRule, Compress, HeaderChange, Policy, RateKey, RateLimit, RequestLimits, ToHttps};
pub use tls::{Certificate, CertificatePurpose, Tls};
pub use validate::Invalid;

/// One complete routing state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Strictly increasing over the life of one installation. A snapshot with an older generation is
    /// rejected; one with the same generation is accepted only if it is identical.
    pub generation: u64,
    /// Addresses to accept on. An address that is gone from the next snapshot is closed once its in-flight
    /// requests ended.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Services by key, for instance `shop/production/api`.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
    /// Matched by the most specific host first, then by the longest path; the order in the list is
    /// irrelevant, and two routes with the same listener, host and path are invalid.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Answers to `/.well-known/acme-challenge/KEY` on every public listener without TLS (RFC 8555, 8.3). Other keys are
    /// routed as usual.
    #[serde(default)]
    pub http_challenges: BTreeMap<String, String>,
    /// What holds for the process, whatever the listener.
    #[serde(default)]
    pub process: ProcessLimits,
    /// One line for each request in `access.log` beside the snapshot. A proxy that was started with a log of its own
    /// keeps that.
    #[serde(default)]
    pub access_log: bool,
}

/// What one proxy process may take up. `None`: as it was started, see [`crate::Limits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessLimits {
    /// Milliseconds that requests in flight have to end in when the process drains.
    pub drain_ms: Option<u64>,
    /// Milliseconds that a socket which is about to close still accepts.
    pub handshake_ms: Option<u64>,
    /// Open client connections per core.
    pub connections_per_core: Option<u64>,
    /// Of kept answers, with all that keeping them needs. 0: none are kept.
    pub cache_bytes: Option<u64>,
}

/// An address that is accepted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Referred to by [`Route::listener`]; unique in the snapshot.
    pub name: String,
    /// IP and port. Port 0 is refused: nobody could name the address in the next snapshot.
    pub addr: SocketAddr,
    /// Who asks here.
    #[serde(default)]
    pub purpose: Purpose,
    /// `None`: connections are not encrypted.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Every connection begins with a PROXY protocol header, version 1 or 2, that says who the client is.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Peers whose `x-forwarded-*` fields are believed, as `10.0.0.0/8` or an address.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    #[serde(default)]
    pub limits: ListenerLimits,
}

/// What the clients of one listener may do. `None`: as the process has it for all, see [`crate::Limits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerLimits {
    /// Milliseconds for a request's head from its first byte, and for what comes before the first request: a TLS
    /// handshake, a PROXY protocol header.
    pub head_ms: Option<u64>,
    /// Milliseconds that a connection may be open without a request.
    pub idle_ms: Option<u64>,
    /// The same, once the process or the listener drains.
    pub idle_drain_ms: Option<u64>,
    /// Milliseconds that a closing connection is read from.
    pub linger_ms: Option<u64>,
    /// Milliseconds without a byte after which an HTTP/2 client with open streams is asked whether it is there.
    pub ping_ms: Option<u64>,
    /// Milliseconds that it has to answer that.
    pub pong_ms: Option<u64>,
    /// Milliseconds that an HTTP/2 client may take for the last piece of an answer.
    pub tail_ms: Option<u64>,
    /// What a client may send on one HTTP/2 stream before it is taken; 65,535 to 16 MiB. Sixteen times as much on the
    /// whole connection.
    pub window_bytes: Option<u32>,
    /// Connections of one client: an IPv4 address, or the first 64 bits of an IPv6 address, which is what one household
    /// or machine is given. More are closed unanswered and counted as refused with 429. [`Listener::trusted_proxies`]
    /// may have any number. `None`: no limit, because whole companies come from one address.
    pub per_client_max: Option<u32>,
    /// Streams that one HTTP/2 connection may have open.
    pub streams_max: Option<u32>,
    /// HTTP/2 is not offered in the handshake, and refused where a connection begins with it.
    pub http1_only: bool,
}

impl Listener {
    /// One that is not encrypted.
    #[must_use]
    pub fn new(name: impl Into<String>, addr: SocketAddr, purpose: Purpose) -> Self {
        let (tls, proxy_protocol, trusted_proxies) = (None, false, Vec::new());
        let limits = ListenerLimits::default();
        Self { name: name.into(), addr, purpose, tls, proxy_protocol, trusted_proxies, limits }
    }
}

/// Who asks at a listener; decides what its figures are evidence of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Visitors.
    #[default]
    Public,
    /// Services that call each other.
    Internal,
    /// Checks and people who try a version out before visitors get it.
    Preview,
}

/// Which requests go to which service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Name of a listener of the same snapshot.
    pub listener: String,
    /// `None`: any host. `example.com`: that host, without port, letter case ignored.
    /// `*.example.com`: every name below it, not `example.com` itself.
    #[serde(default)]
    pub host: Option<String>,
    /// Prefix that ends on a segment boundary: `/api` matches `/api`, `/api/x` and `/api?q`, not `/apix`.
    /// Begins with `/`; a trailing `/` other than in `/` itself is refused.
    pub path: String,
    /// Takes `path` off before the request is passed on; the service finds it in `x-forwarded-prefix`.
    #[serde(default)]
    pub strip_prefix: bool,
    /// Key in [`Snapshot::services`].
    pub service: String,
    /// Version name: every request of this route goes to that version, whatever its weight (a preview
    /// route, or one by which the services of one release call each other).
    #[serde(default)]
    pub pin: Option<String>,
    /// When set, the route answers by itself and no instance sees the request.
    #[serde(default)]
    pub maintenance: Option<Maintenance>,
    #[serde(default)]
    pub policy: Policy,
}

/// The answer of a route under maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// 200 to 599; usually 503.
    pub status: u16,
    /// Sent as it is.
    pub body: String,
    /// Value of `content-type`.
    #[serde(default = "defaults::maintenance_content_type")]
    pub content_type: String,
    /// Seconds, for the `retry-after` header.
    #[serde(default)]
    pub retry_after_s: Option<u32>,
}

/// A set of versions that answer for the same thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// By version name, for instance `r3`.
    pub versions: BTreeMap<String, Version>,
    /// Keeps one visitor on one version.
    #[serde(default)]
    pub sticky: Option<Sticky>,
    /// Active checks. `None`: instances are taken to be healthy until requests say otherwise.
    #[serde(default)]
    pub health: Option<ActiveHealth>,
    /// What happens to a request for which there is no instance at this moment.
    #[serde(default)]
    pub hold: Hold,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When a failed attempt may be repeated.
    #[serde(default)]
    pub retry: Retry,
    /// Largest request body in bytes; larger ones are answered 413. `None`: no limit.
    #[serde(default)]
    pub request_body_bytes_max: Option<u64>,
    /// A version that gets copies of requests.
    #[serde(default)]
    pub mirror: Option<Mirror>,
    /// What its instances speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// When an instance that fails is left alone for a while.
    #[serde(default)]
    pub eject: Eject,
    #[serde(default)]
    pub breaker: Breaker,
    /// Unused connections kept per instance and core. `None`: 256.
    #[serde(default)]
    pub idle_upstreams_max: Option<u32>,
}

/// How many requests instances may have in flight; the others wait in the hold queue, and are answered 503 with
/// `retry-after` when that is full or takes too long (Envoy's circuit breakers, HAProxy's `maxconn`). Upgraded
/// connections and event streams count for as long as they are open. `None`: no limit.
///
/// Cores count without asking each other: two that let one more in at the same moment are one over the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// On one instance.
    pub per_instance: Option<u32>,
    /// On all instances of the service together.
    pub requests: Option<u32>,
}

impl Breaker {
    pub(crate) fn is_off(self) -> bool {
        self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge; what gRPC needs.
    H2c,
}

/// Outlier ejection: passive signals that take an instance out of the choice, for a while and never the last one.
///
/// Each signal is ended by its own opposite: a connection that succeeds says nothing about answers. While fewer than half
/// of a version's instances are fit, by checks and signals together, all that were checked get requests: then the signals
/// are more likely wrong than the instances, and the few that are left would drown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Eject {
    /// Failed connections in a row.
    pub connects: u32,
    /// Answers of 500 and above, or none, in a row. 0: answers eject nobody.
    pub failures: u32,
    /// Milliseconds of the first ejection; each one after another within the same time doubles it.
    pub first_ms: u64,
    pub longest_ms: u64,
}

impl Default for Eject {
    fn default() -> Self {
        // Connections: three, so that one lost packet ejects nobody; the pause is short because the next request is the
        // probe. Answers: what a service says is its own business unless asked for.
        Self { connects: 3, failures: 0, first_ms: 5_000, longest_ms: 60_000 }
    }
}

/// Copies of requests for a version that is being tried out. Nobody sees the answers, and nothing about a copy can
/// delay or fail its original.
///
/// Copied are requests of [`Purpose::Public`] listeners that another version of the service answers. Never copied are
/// bodies without `content-length` or too large for one buffer of 64 KiB together with their head, offers to upgrade,
/// and requests with `expect`. A copy has the header `x-fairway-mirror: 1`, which no client can send past us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// A version of the same service.
    pub version: String,
    /// Of the requests that can be copied, 1 to 100.
    pub percent: u32,
    /// Copies other methods than GET, HEAD and OPTIONS too: what they do is then done twice.
    #[serde(default)]
    pub unsafe_methods: bool,
    /// Milliseconds for one whole copy, connecting included.
    #[serde(default = "defaults::mirror_timeout_ms")]
    pub timeout_ms: u64,
}

/// One version of a service: the instances of one release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Share of the requests that no match and no cookie decided, relative to the sum over all versions.
    /// 0: only matches and pins lead here.
    pub weight: u32,
    /// Any of them sends a request here, before weights are asked. Between versions the order of names
    /// decides.
    #[serde(default)]
    pub matches: Vec<Match>,
    /// May be empty while instances are being replaced; requests are then held.
    #[serde(default)]
    pub instances: Vec<Instance>,
}

/// A condition on a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Match {
    /// A header field with exactly this value. The name's letter case is ignored.
    Header { name: String, value: String },
    /// A cookie with exactly this value.
    Cookie { name: String, value: String },
}

/// A process that answers requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Unique in the snapshot, and never given to another process: events and drain refer to it.
    pub id: String,
    /// Where it listens, without TLS. What it speaks is [`Service::protocol`].
    pub addr: SocketAddr,
}

/// Keeps a visitor on the version that the first request got.
///
/// The cookie holds the version's name. It is honoured while that version has a weight above 0, and replaced
/// otherwise; weights therefore decide about *new* visitors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// Cookie name.
    pub cookie: String,
    /// Seconds that the browser keeps it. `None`: until the browser is closed.
    #[serde(default)]
    pub max_age_s: Option<u32>,
}

/// Active health checks: `GET path` on every instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveHealth {
    /// Path and query. Any answer from 200 to 399 passes.
    pub path: String,
    /// Milliseconds from the end of one check to the start of the next.
    #[serde(default = "defaults::health_interval_ms")]
    pub interval_ms: u64,
    /// Milliseconds for one whole check.
    #[serde(default = "defaults::health_timeout_ms")]
    pub timeout_ms: u64,
    /// Passed checks in a row that make a failed instance healthy again. A new instance needs one.
    #[serde(default = "defaults::health_rise")]
    pub rise: u32,
    /// Failed checks in a row that make a healthy instance unhealthy.
    #[serde(default = "defaults::health_fall")]
    pub fall: u32,
}

/// The bounded queue for requests that find no instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Requests that may wait at the same time, over all cores. 0 switches holding off.
    #[serde(default = "defaults::hold_max_requests")]
    pub max_requests: u32,
    /// Milliseconds that one request waits at most before it is answered 503.
    #[serde(default = "defaults::hold_max_wait_ms")]
    pub max_wait_ms: u64,
}

impl Default for Hold {
    fn default() -> Self {
        Self { max_requests: defaults::hold_max_requests(), max_wait_ms: defaults::hold_max_wait_ms() }
    }
}

/// Milliseconds everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// To connect to an instance.
    pub connect_ms: u64,
    /// From the end of the request to the response's head.
    pub response_head_ms: u64,
    /// Without any progress in a request or response body.
    pub body_idle_ms: u64,
    /// What counts as progress of a request body that its instance waits for, in bytes per second: waiting for the client
    /// uses `body_idle_ms` up, and what arrives at this rate earns it back. And what a client must take of an answer that
    /// waits for it, over each `body_idle_ms`. 0: any byte counts as much as all of it, as it does with instances that speak
    /// HTTP/2, whose calls may be open for hours and say little.
    pub body_bytes_per_s_min: u64,
    /// After which an unused connection to an instance is closed. Must be below the instance's own idle
    /// timeout, or it closes the connection in the moment in which a request is sent.
    pub upstream_idle_ms: u64,
    /// Without any byte in either direction of an upgraded connection (WebSocket).
    pub upgrade_idle_ms: u64,
    /// How long upgraded connections and event streams may outlive the removal of their instance.
    pub stream_drain_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // A listening process on a reachable machine answers a SYN in microseconds, and a lost SYN is
            // sent again after one second: this allows for one loss and still leaves time for another try.
            connect_ms: 2_000,
            // What nginx and most applications take as the longest reasonable request.
            response_head_ms: 60_000,
            body_idle_ms: 60_000,
            // The slowest mobile networks carry twenty times as much: who sends less does it on purpose, a byte now and
            // then, and holds one of the instance's workers for each such request.
            body_bytes_per_s_min: 64,
            // Node closes idle connections after 5 s, the shortest default among common servers.
            upstream_idle_ms: 4_000,
            // Longer than the 30 to 60 s at which WebSocket libraries ping.
            upgrade_idle_ms: 600_000,
            stream_drain_ms: 30_000,
        }
    }
}

/// When a failed attempt is repeated.
///
/// A request that provably did not reach an instance is always tried again, on another one if there is one.
/// The rest of this is about requests that were sent and got no answer; only idempotent ones are repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Attempts for one request, the first included.
    pub attempts_max: u32,
    /// Repeats of sent requests as a percentage of all requests, so that repeats cannot multiply the load on
    /// a service that is going down.
    pub budget_percent: u32,
}

impl Default for Retry {
    fn default() -> Self {
        // 20 % is the budget that Finagle and linkerd settled on.
        Self { attempts_max: 3, budget_percent: 20 }
    }
}

mod defaults {
    // The last bound of the latency histogram: what takes longer is "too slow" whatever it would say in the end.
    pub fn mirror_timeout_ms() -> u64 {
        10_000
    }
    pub fn maintenance_content_type() -> String {
        "text/plain; charset=utf-8".to_owned()
    }
    pub fn health_interval_ms() -> u64 {
        2_000
    }
    pub fn health_timeout_ms() -> u64 {
        1_000
    }
    pub fn health_rise() -> u32 {
        2
    }
    pub fn health_fall() -> u32 {
        3
    }
    // A held request is one connection and one buffer: 1,024 of them are 64 MiB at most.
    pub fn hold_max_requests() -> u32 {
        1_024
    }
    // Long enough for an instance to be replaced, short enough that clients with 10 s timeouts see our answer.
    pub fn hold_max_wait_ms() -> u64 {
        5_000
    }
}
