use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::snapshot::{Invalid, Snapshot};

/// One line from a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Chosen by the client; comes back with the answer.
    pub seq: u64,
    pub ask: Ask,
}

/// One line from the proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The question that this answers; `None` for events and for the greeting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    pub say: Say,
}

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Serve this from now on. Answered by `Applied` or `Rejected`.
    Apply { snapshot: Box<Snapshot> },
    /// Answered by `Stats`.
    Stats,
    /// The same figures as Prometheus text. Answered by `Metrics`.
    Metrics,
    /// Requests in flight on one instance. Answered by `InFlight`.
    InFlight { instance: String },
    /// Answered by `Pong`.
    Ping,
    /// Stop accepting, drain, exit. Answered by `ShuttingDown`.
    Shutdown,
}

/// What the proxy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// First line on every connection.
    Hello(Hello),
    /// The snapshot is durable, and every core routes by it.
    Applied(Applied),
    /// The snapshot was not taken over; the previous one still serves.
    Rejected(Rejected),
    Stats(Box<Stats>),
    Metrics {
        text: String,
    },
    /// 0 for instances that the proxy does not know (any more). While a predecessor of the process drains,
    /// removed instances have at least 1: it may still be using them.
    InFlight {
        instance: String,
        count: u64,
    },
    Pong,
    ShuttingDown,
    /// The line was not understood; the connection stays open.
    BadRequest {
        problem: String,
    },
    Event(Event),
}

/// Who the client is talking to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub pid: u32,
    /// Generation that is being served; 0 when there never was a snapshot.
    pub generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Of the refused snapshot.
    pub generation: u64,
    /// Still being served.
    pub current: u64,
    pub reason: RejectReason,
}

/// Why a snapshot was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RejectReason {
    #[error("a newer generation is being served")]
    OlderGeneration,
    #[error("the same generation is being served with other content")]
    SameGenerationDifferent,
    #[error("the snapshot is invalid: {}", list(problems))]
    Invalid { problems: Vec<Invalid> },
    #[error("listener {listener:?}: cannot listen on {addr}: {message}")]
    Bind { listener: String, addr: SocketAddr, errno: Option<i32>, message: String },
    #[error("the snapshot could not be made durable: {message}")]
    Persist { errno: Option<i32>, message: String },
    #[error("the proxy is draining and takes no snapshot over any more")]
    Draining,
    /// Try again: within half a minute either this process or its successor will take it.
    #[error("the proxy is handing over to its successor")]
    HandingOver,
}

fn list(problems: &[Invalid]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Something happened. Sent to every client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The instance was removed by a snapshot, nothing is in flight on it and no connection to it is open.
    /// Said once per removal; ask `InFlight` when it may have been missed.
    Drained { instance: String },
    /// The instance began or ceased to be fit for traffic.
    Health { instance: String, healthy: bool, reason: String },
    /// So many events were dropped because they were not read fast enough.
    Missed { count: u64 },
}

/// Upper bounds of the latency buckets in microseconds (OpenTelemetry's, 5 ms to 10 s); one more bucket takes
/// what is above.
pub const LATENCY_BOUNDS_US: [u64; 14] = [
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

/// All figures of one proxy process. Counters start at 0 with the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub pid: u32,
    pub generation: u64,
    pub uptime_ms: u64,
    pub series: Vec<SeriesStats>,
    /// Requests that were refused before they reached a route, by status.
    pub refused: BTreeMap<u16, u64>,
    pub connections_open: u64,
    pub connections_accepted: u64,
    /// Lines that the access log had to drop because its writer did not keep up.
    pub access_log_dropped: u64,
}

impl Stats {
    /// Sums over the routes of one version.
    #[must_use]
    pub fn version(&self, service: &str, version: &str) -> SeriesStats {
        let mut sum = SeriesStats::new(service, version, "");
        for series in self.series.iter().filter(|s| s.service == service && s.version == version) {
            sum.add(series);
        }
        sum
    }
}

/// Figures of one (service, version, route).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesStats {
    pub service: String,
    /// Empty for requests that never got as far as a version.
    pub version: String,
    /// [`crate::snapshot::Route::label`].
    pub route: String,
    /// Answered requests by the class of the status that the client got.
    pub requests: BTreeMap<StatusClass, u64>,
    /// Failures by cause. A failed attempt that was repeated with success counts here and not in
    /// `requests` of class 5xx.
    pub errors: BTreeMap<Cause, u64>,
    /// Requests per bucket, not cumulative: `LATENCY_BOUNDS_US` and one more. From the request's first byte
    /// to the response's last.
    pub latency: Vec<u64>,
    pub latency_sum_us: u64,
    /// Upgraded connections included.
    pub in_flight: u64,
    /// Request bodies, and what clients sent on upgraded connections.
    pub bytes_in: u64,
    /// Response bodies, and what instances sent on upgraded connections.
    pub bytes_out: u64,
}

impl SeriesStats {
    #[must_use]
    pub fn new(service: &str, version: &str, route: &str) -> Self {
        Self {
            service: service.to_owned(),
            version: version.to_owned(),
            route: route.to_owned(),
            latency: vec![0; LATENCY_BOUNDS_US.len() + 1],
            ..Self::default()
        }
    }

    /// All answered requests.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Adds the figures of `other`; names stay.
    pub fn add(&mut self, other: &Self) {
        for (class, n) in &other.requests {
            *self.requests.entry(*class).or_default() += n;
        }
        for (cause, n) in &other.errors {
            *self.errors.entry(*cause).or_default() += n;
        }
        self.latency.resize(LATENCY_BOUNDS_US.len() + 1, 0);
        for (sum, n) in self.latency.iter_mut().zip(&other.latency) {
            *sum += n;
        }
        self.latency_sum_us += other.latency_sum_us;
        self.in_flight += other.in_flight;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// First digit of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StatusClass {
    /// 101 only: other informational responses do not end a request.
    #[serde(rename = "1xx")]
    Informational,
    #[serde(rename = "2xx")]
    Success,
    #[serde(rename = "3xx")]
    Redirect,
    #[serde(rename = "4xx")]
    ClientError,
    #[serde(rename = "5xx")]
    ServerError,
}

impl StatusClass {
    pub const ALL: [Self; 5] =
        [Self::Informational, Self::Success, Self::Redirect, Self::ClientError, Self::ServerError];

    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            0..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// Why an attempt or a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// No connection to the instance.
    Connect,
    ConnectTimeout,
    /// The instance closed the connection before it answered.
    NoResponse,
    ResponseTimeout,
    /// The instance's answer breaks HTTP.
    BadResponse,
    /// The instance's answer ended early.
    Truncated,
    /// No instance within the hold time.
    NoInstance,
    /// The hold queue was full.
    HoldFull,
    /// The client went away.
    ClientClosed,
    /// The client was too slow.
    ClientTimeout,
    /// The client's body breaks HTTP.
    BadBody,
    BodyTooLarge,
}

impl Cause {
    pub const ALL: [Self; 12] = [
        Self::Connect,
        Self::ConnectTimeout,
        Self::NoResponse,
        Self::ResponseTimeout,
        Self::BadResponse,
        Self::Truncated,
        Self::NoInstance,
        Self::HoldFull,
        Self::ClientClosed,
        Self::ClientTimeout,
        Self::BadBody,
        Self::BodyTooLarge,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::NoResponse => "no_response",
            Self::ResponseTimeout => "response_timeout",
            Self::BadResponse => "bad_response",
            Self::Truncated => "truncated",
            Self::NoInstance => "no_instance",
            Self::HoldFull => "hold_full",
            Self::ClientClosed => "client_closed",
            Self::ClientTimeout => "client_timeout",
            Self::BadBody => "bad_body",
            Self::BodyTooLarge => "body_too_large",
        }
    }
}
