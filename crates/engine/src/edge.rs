//! What a release asks of the edge. Data only: the engine carries it, and the proxy acts on it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::service::EnvValue;
use crate::time::duration_ms;

/// How public requests come in, beyond the address. Belongs to an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entrance {
    pub tls: Option<TlsEntrance>,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Networks whose `x-forwarded-*` fields are believed, and who may introduce others by PROXY protocol.
    pub trusted_proxies: Vec<String>,
    pub connections: Connections,
    pub process: Process,
}

/// What the whole proxy of a machine may take up; none: as the proxy has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub drain_ms: Option<u64>,
    pub handshake_ms: Option<u64>,
    pub connections_per_core: Option<u64>,
    pub cache_bytes: Option<u64>,
    pub access_log: bool,
}

/// What clients may do with their connections; none: as the proxy has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    pub head_ms: Option<u64>,
    pub idle_ms: Option<u64>,
    pub idle_drain_ms: Option<u64>,
    pub linger_ms: Option<u64>,
    pub ping_ms: Option<u64>,
    pub pong_ms: Option<u64>,
    pub tail_ms: Option<u64>,
    pub window_bytes: Option<u32>,
    pub per_client_max: Option<u32>,
    pub streams_max: Option<u32>,
    /// HTTP/2 is neither offered nor taken.
    pub http1_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsEntrance {
    /// `0.0.0.0:443`
    pub address: String,
    pub certificate: CertificateSource,
    /// Requests without TLS are sent to the same address with it.
    pub redirect: bool,
    pub hsts: Option<Hsts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CertificateSource {
    /// From an authority, by RFC 8555, for every host of the environment.
    Acme {
        directory: String,
        contact: Option<String>,
        challenge: AcmeChallenge,
        /// PEM file with the certificates that are believed when the authority is asked; none: the machine's.
        roots: Option<String>,
        /// Whether the hosts are asked from here first.
        preflight: bool,
        /// An account that was opened with the authority beforehand; none: anybody may open one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<ExternalAccount>,
    },
    /// PEM files on the machine.
    Files { chain: String, key: String },
    /// Made here; browsers warn of it.
    SelfSigned,
}

/// What ties our account to one that the authority knows already (RFC 8555, section 7.3.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAccount {
    pub key_id: String,
    /// The MAC key, in base64 as authorities hand it out.
    pub hmac: EnvValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcmeChallenge {
    Http01,
    TlsAlpn01,
}

/// `strict-transport-security`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hsts {
    #[serde(with = "duration_ms")]
    pub max_age: Duration,
    pub subdomains: bool,
    pub preload: bool,
}

/// What happens to the requests of one service on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Edge {
    pub protocol: Protocol,
    /// None: answers pass as they are.
    pub compress: Option<Compress>,
    /// The usual set of security headers, where the service sends none of its own.
    pub security_headers: bool,
    /// Fields of every answer; none: the field is removed.
    pub headers: BTreeMap<String, Option<String>>,
    pub rate_limits: Vec<RateLimit>,
    pub cache: Vec<CacheRule>,
    /// Largest request body in bytes; none: no limit.
    pub body_bytes_max: Option<u64>,
    pub target_bytes_max: Option<u32>,
    pub head_bytes_max: Option<u32>,
    pub fields_max: Option<u32>,
    /// Below it a request body is no progress; 0: any byte is.
    pub body_bytes_per_s_min: Option<u64>,
    pub timeouts: EdgeTimeouts,
    pub retry: Option<Retry>,
    pub eject: Option<Eject>,
    pub hold: Option<Hold>,
    pub breaker: Option<Breaker>,
    /// Unused connections to each copy, per core.
    pub idle_max: Option<u32>,
}

/// Requests in flight; none: any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    pub per_copy: Option<u32>,
    pub requests: Option<u32>,
}

/// What a service's copies speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, as gRPC needs it.
    H2c,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compress {
    pub min_bytes: u64,
    /// Media types; `text/*` is all of a kind.
    pub types: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    pub requests: u32,
    #[serde(with = "duration_ms")]
    pub within: Duration,
    pub per: RateKey,
    /// Below this path only.
    pub path: Option<String>,
    /// Requests that may come at once.
    pub burst: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateKey {
    Client,
    Route,
    Header(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRule {
    pub path: String,
    /// For answers that do not say it themselves.
    #[serde(with = "duration_ms")]
    pub fresh: Duration,
    /// How long a stale answer may stand in.
    #[serde(with = "duration_ms")]
    pub stale: Duration,
}

/// None: the proxy's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeTimeouts {
    pub connect_ms: Option<u64>,
    pub response_ms: Option<u64>,
    pub body_ms: Option<u64>,
    pub stream_ms: Option<u64>,
    pub idle_ms: Option<u64>,
    pub drain_ms: Option<u64>,
    pub mirror_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub attempts: u32,
    pub budget_percent: u32,
}

/// When a copy that fails is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eject {
    /// Failed connections in a row.
    pub connects: u32,
    /// Answers of 500 and above in a row; 0: they eject nobody.
    pub failures: u32,
    #[serde(with = "duration_ms")]
    pub first: Duration,
    #[serde(with = "duration_ms")]
    pub longest: Duration,
}

/// Requests that wait because no copy is there at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub requests: u32,
    #[serde(with = "duration_ms")]
    pub wait: Duration,
}
