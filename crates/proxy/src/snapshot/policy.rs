//! What a route asks of the edge, beyond leading somewhere. Every field has a default that changes nothing.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Answers 308 to the same address with `https`, on this port when it is not 443. Challenges of a certificate
    /// authority are answered all the same.
    pub https: Option<ToHttps>,
    /// Changes to the header fields of every answer, in this order.
    pub response_headers: Vec<HeaderChange>,
    pub compress: Option<Compress>,
    /// All of them must have room.
    pub rate_limits: Vec<RateLimit>,
    /// The first rule whose path matches.
    pub cache: Vec<CacheRule>,
    pub limits: RequestLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToHttps {
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HeaderChange {
    /// Replaces what the service says.
    Set {
        name: String,
        value: String,
    },
    /// The service knows better.
    Default {
        name: String,
        value: String,
    },
    Remove {
        name: String,
    },
}

/// Compression of answers: gzip, brotli or zstd, as the client prefers. Left alone are answers that are encoded already,
/// that say `no-transform`, event streams, and those without a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compress {
    /// Answers with a `content-length` below it are left alone.
    pub min_bytes: u64,
    /// Media types, `text/*` among them.
    pub types: Vec<String>,
}

/// A token bucket (leaky bucket as a meter, GCRA).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// In the route's label of figures; unique in the route.
    pub name: String,
    pub per: RateKey,
    /// Only requests below this path, as in [`super::Route::path`].
    #[serde(default)]
    pub path: Option<String>,
    pub requests: u32,
    pub within_ms: u64,
    /// Requests that may come at once, beyond the even rate.
    pub burst: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateKey {
    /// By address, IPv6 by /64; behind a trusted proxy by what it forwards.
    Client,
    /// All requests of the route together.
    Route,
    /// By the value of a header field; requests without it count as one.
    Header(String),
}

/// Answers to GET and HEAD that are kept and given again (a shared cache, RFC 9111).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRule {
    /// Below this path, as in [`super::Route::path`].
    pub path: String,
    /// How long an answer without its own `cache-control` is fresh; 0: such answers are not kept.
    pub fresh_ms: u64,
    /// How long a stale answer may stand in while a new one is fetched, and when the service fails.
    pub stale_ms: u64,
}

/// What a request may be at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestLimits {
    /// Longer paths and queries are answered 414. None: as long as a head may be.
    pub target_bytes_max: Option<u32>,
    /// Larger heads are answered 431. None: what one buffer holds.
    pub head_bytes_max: Option<u32>,
    /// More header fields are answered 431. None: what the parser holds.
    pub fields_max: Option<u32>,
}
