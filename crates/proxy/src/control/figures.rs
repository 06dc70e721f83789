use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// Which life of the proxy counted: another number means that all counters began at 0 again.
    #[serde(default)]
    pub source: u64,
    pub generation: u64,
    pub uptime_ms: u64,
    pub series: Vec<SeriesStats>,
    /// Requests that were refused before they reached a route, by status.
    pub refused: BTreeMap<u16, u64>,
    pub connections_open: u64,
    pub connections_accepted: u64,
    /// Connections that ended before they spoke TLS.
    #[serde(default)]
    pub handshakes_failed: u64,
    /// Lines that the access log had to drop because its writer did not keep up.
    pub access_log_dropped: u64,
    #[serde(default)]
    pub cache: CacheStats,
}

/// What became of requests on routes that have a cache. Those that it answered say nothing about a version, and are not
/// among its requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStats {
    pub hit: u64,
    /// Sent to the service.
    pub miss: u64,
    /// Answered with what is not fresh any more: while a new one was fetched, or because that failed.
    pub stale: u64,
    /// Neither looked for nor kept.
    pub bypass: u64,
    /// What is kept, with all that keeping it needs.
    pub bytes: u64,
}

impl Stats {
    /// Sums over the routes of one version, without copies of requests: what somebody got an answer to.
    #[must_use]
    pub fn version(&self, service: &str, version: &str) -> SeriesStats {
        self.sum(service, version, |chosen| chosen != Chosen::Mirror)
    }

    /// Sums over the copies of requests that the version got.
    #[must_use]
    pub fn mirrored(&self, service: &str, version: &str) -> SeriesStats {
        self.sum(service, version, |chosen| chosen == Chosen::Mirror)
    }

    /// What the version is judged by.
    #[must_use]
    pub fn arm(&self, service: &str, version: &str) -> Arm {
        Arm::of(&self.sum(service, version, Chosen::is_evidence))
    }

    fn sum(&self, service: &str, version: &str, counts: impl Fn(Chosen) -> bool) -> SeriesStats {
        let mut sum = SeriesStats::new(service, version, "");
        for series in &self.series {
            if series.service == service && series.version == version && counts(series.chosen) {
                sum.add(series);
            }
        }
        sum
    }
}

/// What is needed to judge versions, and nothing else. Counters start at 0 with the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arms {
    /// [`Stats::source`].
    pub source: u64,
    pub generation: u64,
    /// One for each version that a snapshot has or recently had, in the order of service and version.
    pub arms: Vec<Arm>,
}

impl Arms {
    #[must_use]
    pub fn get(&self, service: &str, version: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.service == service && arm.version == version)
    }
}

/// What one version answered, sums over the series that are evidence ([`Chosen::is_evidence`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    pub service: String,
    pub version: String,
    /// Answered requests.
    pub requests: u64,
    /// [`SeriesStats::failed`].
    pub errors: u64,
    /// [`SeriesStats::error_bursts`].
    pub error_bursts: u64,
    /// Requests per bucket, as [`SeriesStats::latency`]; trailing zeros are left out.
    pub latency: Vec<u64>,
    pub latency_sum_us: u64,
    /// Attempts that got no connection to an instance. They are repeated elsewhere, at another version if need be.
    #[serde(default)]
    pub unreached: u64,
    pub in_flight: u64,
    /// [`SeriesStats::given_up`].
    #[serde(default)]
    pub given_up: u64,
}

impl Arm {
    fn of(sum: &SeriesStats) -> Self {
        let mut arm = Self {
            service: sum.service.clone(),
            version: sum.version.clone(),
            requests: sum.requests_total(),
            errors: sum.failed,
            error_bursts: sum.error_bursts,
            latency: sum.latency.clone(),
            latency_sum_us: sum.latency_sum_us,
            unreached: sum.errors.iter().filter(|(cause, _)| cause.is_unreached()).map(|(_, n)| n).sum(),
            in_flight: sum.in_flight,
            given_up: sum.given_up,
        };
        arm.trim();
        arm
    }

    /// Leaves the zeros at the end of the histogram out.
    pub(crate) fn trim(&mut self) {
        let used = self.latency.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
        self.latency.truncate(used);
    }
}

/// How the version of a request was chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// By the weights, or by the cookie that keeps a visitor where the weights once put them.
    #[default]
    Weight,
    /// By a header or a cookie that testers send.
    Match,
    /// The route leads to this version only, as those do by which the services of one release call each other.
    Only,
    /// The request came in by a preview listener.
    Preview,
    /// It is a copy, and nobody sees the answer.
    Mirror,
}

impl Chosen {
    pub const ALL: [Self; 5] = [Self::Weight, Self::Match, Self::Only, Self::Preview, Self::Mirror];

    /// Whether such requests say how good a version is in comparison with others. Testers do what visitors do not,
    /// previews are checks, and what a copy makes of a second execution is nobody's fault.
    #[must_use]
    pub fn is_evidence(self) -> bool {
        match self {
            Self::Weight | Self::Only => true,
            Self::Match | Self::Preview | Self::Mirror => false,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Match => "match",
            Self::Only => "only",
            Self::Preview => "preview",
            Self::Mirror => "mirror",
        }
    }
}

/// Figures of one (service, version, route, way of choosing).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesStats {
    pub service: String,
    /// Empty for requests that never got as far as a version.
    pub version: String,
    /// [`crate::snapshot::Route::label`].
    pub route: String,
    #[serde(default)]
    pub chosen: Chosen,
    /// Answered requests by the class of the status that the client got.
    pub requests: BTreeMap<StatusClass, u64>,
    /// Failures by cause. A failed attempt that was repeated with success counts here and not in
    /// `requests` of class 5xx.
    pub errors: BTreeMap<Cause, u64>,
    /// Requests to which nobody got a status: a client that broke its upload off, a copy that failed or was cut.
    #[serde(default)]
    pub unanswered: u64,
    /// Those of them of which the instance had everything, and that their clients gave up half a second or more after
    /// they had begun.
    #[serde(default)]
    pub given_up: u64,
    /// Requests that failed: a status of 5xx, an answer that ended early, and a copy that got no answer. A client
    /// that went away is not the version's failure.
    #[serde(default)]
    pub failed: u64,
    /// The same, but all failures of one client within one second count once. A client is an IPv4 address or an
    /// IPv6 /64. At most 1,024 clients are told apart; beyond that this counts too few, never too many.
    #[serde(default)]
    pub error_bursts: u64,
    /// Copies that were not sent: no place for one more, or no instance.
    #[serde(default)]
    pub dropped: u64,
    /// Requests per bucket, not cumulative: `LATENCY_BOUNDS_US` and one more. From the request's first byte
    /// to the response's last; for upgraded connections and event streams, which are counted when they end, to
    /// the response's head.
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
        self.unanswered += other.unanswered;
        self.given_up += other.given_up;
        self.failed += other.failed;
        self.error_bursts += other.error_bursts;
        self.dropped += other.dropped;
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
    /// No instance within the hold time, or before the client had enough of it.
    NoInstance,
    /// The hold queue was full.
    HoldFull,
    /// As many requests were in flight as may be, for longer than a request is held or its client waits, or
    /// with the hold queue full.
    Breaker,
    /// The client went away.
    ClientClosed,
    /// The client was too slow.
    ClientTimeout,
    /// The client's body breaks HTTP.
    BadBody,
    BodyTooLarge,
}

impl Cause {
    pub const ALL: [Self; 13] = [
        Self::Connect,
        Self::ConnectTimeout,
        Self::NoResponse,
        Self::ResponseTimeout,
        Self::BadResponse,
        Self::Truncated,
        Self::NoInstance,
        Self::HoldFull,
        Self::Breaker,
        Self::ClientClosed,
        Self::ClientTimeout,
        Self::BadBody,
        Self::BodyTooLarge,
    ];

    /// Whether there was no connection: a failure of an attempt and of no request, as another instance is asked then,
    /// whatever the request is.
    #[must_use]
    pub fn is_unreached(self) -> bool {
        match self {
            Self::Connect | Self::ConnectTimeout => true,
            Self::NoResponse
            | Self::ResponseTimeout
            | Self::BadResponse
            | Self::Truncated
            | Self::NoInstance
            | Self::HoldFull
            | Self::Breaker
            | Self::ClientClosed
            | Self::ClientTimeout
            | Self::BadBody
            | Self::BodyTooLarge => false,
        }
    }

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
            Self::Breaker => "breaker",
            Self::ClientClosed => "client_closed",
            Self::ClientTimeout => "client_timeout",
            Self::BadBody => "bad_body",
            Self::BodyTooLarge => "body_too_large",
        }
    }
}
