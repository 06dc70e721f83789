use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{Kind, Tls};

/// Above this the single client thread, not the service, would be measured.
const RATE_PER_S_MAX: f64 = 100_000.0;

/// Requests that may wait for a free connection: rate × timeout. Each costs about 100 bytes,
/// so the bound keeps a stalled run under some 100 MB.
const WAITING_MAX: f64 = 1_000_000.0;

/// One connection is one descriptor; the usual hard limit of a process is 65,536 or more.
const CONNECTIONS_MAX: usize = 50_000;

/// What to send, how fast, and for how long. Every field is public; [`Plan::new`] fills in
/// defaults that suit a service on this machine, [`crate::start`] checks the whole.
#[derive(Debug, Clone)]
pub struct Plan {
    pub target: SocketAddr,
    /// Every connection is encrypted.
    pub tls: Option<Tls>,
    /// Value of the `Host` header.
    pub host: String,
    /// Planned requests a second, spaced evenly.
    pub rate_per_s: f64,
    pub until: Until,
    pub mix: Vec<Share>,
    pub body: Body,
    /// Sent with every request, after the headers the client itself needs.
    pub headers: Vec<(String, String)>,
    /// Carries the request's unique id, `<id_prefix>-<number>-<kind>`. With `echo` set the answer must carry it back.
    pub id_header: String,
    /// Fail answers whose `id_header` is not the one that was sent.
    pub echo: bool,
    /// What the ids of one run begin with; the default is different in every run.
    pub id_prefix: String,
    /// Response header that tells which version answered.
    pub version_header: String,
    /// Connections that keep-alive clients hold open between requests. The pool is filled to
    /// this size first and used in turn, so that every connection is idle for a while: that
    /// is where a server that closes idle connections carelessly loses requests.
    pub keep_alive_connections: usize,
    /// Connections of HTTP/2, used in turn; requests share them.
    pub h2_connections: usize,
    /// Requests on the wire at once; those of HTTP/1.1 each on its own connection.
    pub in_flight_max: usize,
    /// From the planned start to the last byte of the answer.
    pub timeout: Duration,
    /// How long the body of a [`Kind::SlowPost`] or [`Kind::H2SlowPost`] is under way. Shorter than `timeout`.
    pub slow_post: Duration,
}

/// When the plan ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Stopped,
    Elapsed(Duration),
}

/// A part of the mix. Shares are interleaved evenly by weight, paths taken in turn.
#[derive(Debug, Clone)]
pub struct Share {
    pub kind: Kind,
    pub weight: u32,
    pub paths: Vec<String>,
}

impl Share {
    pub fn new(kind: Kind, weight: u32, path: &str) -> Share {
        Share { kind, weight, paths: vec![path.to_owned()] }
    }
}

/// Makes the JSON body of a POST from its unique id.
#[derive(Clone)]
pub struct Body(Arc<Build>);

type Build = dyn Fn(&str) -> Vec<u8> + Send + Sync;

impl Body {
    pub fn from_fn(build: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Body {
        Body(Arc::new(build))
    }

    pub(crate) fn build(&self, id: &str) -> Vec<u8> {
        (self.0)(id)
    }
}

impl Default for Body {
    /// `{"id":"…"}`
    fn default() -> Body {
        Body::from_fn(|id| format!("{{\"id\":\"{id}\"}}").into_bytes())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(..)")
    }
}

impl Plan {
    /// 100 requests a second until stopped, half of them on fresh connections, GET of `/`.
    pub fn new(target: SocketAddr) -> Plan {
        Plan {
            target,
            tls: None,
            host: target.to_string(),
            rate_per_s: 100.0,
            until: Until::Stopped,
            mix: vec![Share::new(Kind::KeepAliveGet, 1, "/"), Share::new(Kind::FreshGet, 1, "/")],
            body: Body::default(),
            headers: Vec::new(),
            id_header: "x-request-id".to_owned(),
            echo: false,
            id_prefix: unique_prefix(),
            version_header: "x-shop-version".to_owned(),
            keep_alive_connections: 16,
            h2_connections: 2,
            in_flight_max: 256,
            timeout: Duration::from_secs(10),
            slow_post: Duration::from_secs(1),
        }
    }

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        if !(self.rate_per_s > 0.0 && self.rate_per_s <= RATE_PER_S_MAX) {
            return Err(PlanError::Rate { rate_per_s: self.rate_per_s });
        }
        if self.timeout.is_zero() || self.timeout.as_secs_f64() * self.rate_per_s > WAITING_MAX {
            return Err(PlanError::Timeout { timeout: self.timeout, rate_per_s: self.rate_per_s });
        }
        for (name, value) in [
            ("in_flight_max", self.in_flight_max),
            ("keep_alive_connections", self.keep_alive_connections),
            ("h2_connections", self.h2_connections),
        ] {
            if value == 0 || value > CONNECTIONS_MAX {
                return Err(PlanError::Connections { name, value });
            }
        }
        if self.mix.is_empty() {
            return Err(PlanError::EmptyMix);
        }
        for share in &self.mix {
            if share.kind.is_slow() && self.slow_post >= self.timeout {
                return Err(PlanError::SlowPost { slow_post: self.slow_post, timeout: self.timeout });
            }
            if share.weight == 0 || share.paths.is_empty() {
                return Err(PlanError::EmptyShare { kind: share.kind });
            }
            for path in &share.paths {
                if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(PlanError::Path { path: path.clone() });
                }
            }
        }
        let own = [
            ("host".to_owned(), self.host.clone()),
            (self.id_header.clone(), self.id_prefix.clone()),
            (self.version_header.clone(), String::new()),
        ];
        for (name, value) in own.iter().chain(&self.headers) {
            let name_ok = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&b));
            let value_ok = value.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f));
            if !name_ok || !value_ok {
                return Err(PlanError::Header { name: name.clone() });
            }
        }
        for (name, _) in &self.headers {
            if ["host", "content-length", "transfer-encoding", "connection"]
                .iter()
                .chain([&self.id_header.as_str()])
                .any(|reserved| name.eq_ignore_ascii_case(reserved))
            {
                return Err(PlanError::ReservedHeader { name: name.clone() });
            }
        }
        // Ids are put into JSON strings and header values unescaped.
        let id_ok = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        if self.id_prefix.is_empty() || self.id_prefix.len() > 64 || !self.id_prefix.bytes().all(id_ok) {
            return Err(PlanError::IdPrefix { id_prefix: self.id_prefix.clone() });
        }
        Ok(())
    }
}

/// Time and process id: two runs against one database must not share ids, or the second
/// would be taken for doubled requests of the first.
fn unique_prefix() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!("{now:x}-{:x}", std::process::id())
}

/// A plan that cannot be carried out; nothing was sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error("rate of {rate_per_s} requests a second: give more than 0 and at most {max}", max = RATE_PER_S_MAX)]
    Rate { rate_per_s: f64 },
    #[error(
        "timeout of {timeout:?} at {rate_per_s} requests a second: give more than 0, and timeout × rate at most {max}",
        max = WAITING_MAX
    )]
    Timeout { timeout: Duration, rate_per_s: f64 },
    #[error("a body that takes {slow_post:?} never arrives within the timeout of {timeout:?}")]
    SlowPost { slow_post: Duration, timeout: Duration },
    #[error("{name} = {value}: give 1 to {max}", max = CONNECTIONS_MAX)]
    Connections { name: &'static str, value: usize },
    #[error("the mix is empty")]
    EmptyMix,
    #[error("the share {kind:?} has no weight or no paths")]
    EmptyShare { kind: Kind },
    #[error("the path {path:?} does not start with / or has characters that a request line cannot carry")]
    Path { path: String },
    #[error("the header {name:?} has a name or value that HTTP does not allow")]
    Header { name: String },
    #[error("the header {name:?} is set by the client itself")]
    ReservedHeader { name: String },
    #[error("the id prefix {id_prefix:?}: give 1 to 64 of letters, digits and -_.:")]
    IdPrefix { id_prefix: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Plan), expect: Result<(), PlanError>) {
        let mut plan = Plan::new("127.0.0.1:1".parse().unwrap());
        change(&mut plan);
        assert_eq!(plan.check(), expect);
    }

    #[test]
    fn default_plan_is_valid() {
        check(|_| {}, Ok(()));
    }

    #[test]
    fn bad_plans_are_refused() {
        check(|p| p.rate_per_s = 0.0, Err(PlanError::Rate { rate_per_s: 0.0 }));
        check(|p| p.rate_per_s = f64::INFINITY, Err(PlanError::Rate { rate_per_s: f64::INFINITY }));
        check(
            |p| p.timeout = Duration::ZERO,
            Err(PlanError::Timeout { timeout: Duration::ZERO, rate_per_s: 100.0 }),
        );
        check(
            |p| {
                p.slow_post = p.timeout;
                p.mix.push(Share::new(Kind::SlowPost, 1, "/"));
            },
            Err(PlanError::SlowPost { slow_post: Duration::from_secs(10), timeout: Duration::from_secs(10) }),
        );
        check(|p| p.in_flight_max = 0, Err(PlanError::Connections { name: "in_flight_max", value: 0 }));
        check(|p| p.mix.clear(), Err(PlanError::EmptyMix));
        check(|p| p.mix[1].weight = 0, Err(PlanError::EmptyShare { kind: Kind::FreshGet }));
        check(|p| p.mix[0].paths[0] = "x".into(), Err(PlanError::Path { path: "x".into() }));
        check(|p| p.mix[0].paths[0] = "/ x".into(), Err(PlanError::Path { path: "/ x".into() }));
        check(|p| p.host = "a\r\nb: c".into(), Err(PlanError::Header { name: "host".into() }));
        check(
            |p| p.headers.push(("Content-Length".into(), "1".into())),
            Err(PlanError::ReservedHeader { name: "Content-Length".into() }),
        );
        check(|p| p.id_prefix = "\"".into(), Err(PlanError::IdPrefix { id_prefix: "\"".into() }));
    }

    #[test]
    fn nan_rate_is_refused() {
        let mut plan = Plan::new("127.0.0.1:1".parse().unwrap());
        plan.rate_per_s = f64::NAN;
        assert!(matches!(plan.check(), Err(PlanError::Rate { .. })));
    }

    #[test]
    fn default_body_carries_the_id() {
        assert_eq!(Body::default().build("a-1"), br#"{"id":"a-1"}"#);
    }
}
