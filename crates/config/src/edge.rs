//! What happens to requests on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::edge::{
    Breaker, CacheRule, Compress, Edge, EdgeTimeouts, Eject, Hold, RateKey, RateLimit, Retry,
};

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::reader::{Bytes, Reader, Texts};
use crate::tree::Value;

/// What a request head and its first line can have at all: one buffer of the proxy.
const HEAD_BYTES_MAX: u64 = 32 * 1024;
const TARGET_BYTES_MAX: u64 = 8 * 1024;

/// What a compressor makes smaller. Pictures, video and packed fonts are compressed already.
const TYPES: &[&str] = &[
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "application/manifest+json",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/svg+xml",
    "image/bmp",
];

/// The table `edge` of `reader`; `base` holds where it says nothing.
pub(crate) fn read(reader: &Reader<'_>, base: &Edge) -> Edge {
    let Some(edge) = reader.optional_table("edge", &keys::EDGE) else { return base.clone() };
    Edge {
        protocol: base.protocol,
        compress: if edge.has("compress") { compress(&edge) } else { base.compress.clone() },
        security_headers: edge.get("security_headers").unwrap_or(base.security_headers),
        headers: headers(&edge, &base.headers),
        rate_limits: match edge.list_of_tables("rate_limit", &keys::RATE_LIMIT) {
            Some(limits) => limits.iter().filter_map(rate_limit).collect(),
            None => base.rate_limits.clone(),
        },
        cache: match edge.list_of_tables("cache", &keys::CACHE) {
            Some(rules) => rules.iter().map(cache_rule).collect(),
            None => base.cache.clone(),
        },
        body_bytes_max: edge.get("max_body").map(|Bytes(bytes)| bytes).or(base.body_bytes_max),
        head_bytes_max: bounded(&edge, "max_head", HEAD_BYTES_MAX).or(base.head_bytes_max),
        target_bytes_max: bounded(&edge, "max_url", TARGET_BYTES_MAX).or(base.target_bytes_max),
        body_bytes_per_s_min: edge.get("min_rate").or(base.body_bytes_per_s_min),
        fields_max: edge.get("max_fields").or(base.fields_max),
        timeouts: timeouts(&edge, &base.timeouts),
        retry: edge.optional_table("retry", &keys::RETRY).map(|retry| retry_of(&retry)).or(base.retry),
        eject: edge.optional_table("eject", &keys::EJECT).map(|table| eject(&table)).or(base.eject.clone()),
        hold: edge.optional_table("hold", &keys::HOLD).map(|table| hold(&table)).or(base.hold),
        breaker: edge.optional_table("breaker", &keys::BREAKER).map(|table| breaker(&table)).or(base.breaker),
        idle_max: edge.get("max_idle").or(base.idle_max),
    }
}

/// What holds where the file says nothing.
pub(crate) fn defaults() -> Edge {
    Edge { compress: Some(usual()), ..Edge::default() }
}

fn usual() -> Compress {
    Compress { min_bytes: 1024, types: TYPES.iter().map(|one| (*one).to_owned()).collect() }
}

fn compress(edge: &Reader<'_>) -> Option<Compress> {
    let Some(table) = edge.optional_table("compress", &keys::COMPRESS) else {
        return edge.get::<bool>("compress").unwrap_or(true).then(usual);
    };
    let Bytes(min_bytes) = table.fixed("min_size");
    let types =
        table.get("types").map(|Texts(types)| types.iter().map(|one| one.to_ascii_lowercase()).collect());
    Some(Compress { min_bytes, types: types.unwrap_or_else(|| usual().types) })
}

fn headers(edge: &Reader<'_>, base: &BTreeMap<String, Option<String>>) -> BTreeMap<String, Option<String>> {
    let mut headers = base.clone();
    for (name, entry) in edge.entries("headers") {
        edge.cx.record(format!("{}.{name}", edge.path_of("headers")), &entry.node);
        let name = name.to_ascii_lowercase();
        // They say where a message ends, or belong to one connection: to change them is to break the message.
        if matches!(
            name.as_str(),
            "connection"
                | "content-length"
                | "transfer-encoding"
                | "trailer"
                | "upgrade"
                | "te"
                | "keep-alive"
                | "proxy-connection"
        ) {
            let message = format!("{name} belongs to the connection and cannot be set");
            let diagnostic = Diagnostic::error(code::BAD_VALUE, message).hint("remove it");
            edge.cx.push_at(diagnostic, entry.key_at);
            continue;
        }
        match &entry.node.value {
            Value::Text(text) => drop(headers.insert(name, Some(text.clone()))),
            Value::Bool(false) => drop(headers.insert(name, None)),
            Value::Bool(true) => {
                let message = format!("{name} = true says no value");
                let hint = "write the value, or false to remove what the service sends";
                edge.cx.push_at(Diagnostic::error(code::BAD_VALUE, message).hint(hint), entry.node.at);
            }
            // The first pass has told.
            Value::Integer(_)
            | Value::Float { .. }
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_) => {}
        }
    }
    headers
}

fn rate_limit(table: &Reader<'_>) -> Option<RateLimit> {
    let requests = table.get("requests")?;
    let per: Option<String> = table.get("per");
    let header: Option<String> = table.get("header");
    if header.is_some() && per.is_some() {
        table.refuse("per", "beside header");
    }
    let per = match (header, per.as_deref()) {
        (Some(name), _) => RateKey::Header(name.to_ascii_lowercase()),
        (None, Some("route")) => RateKey::Route,
        (None, Some(_) | None) => RateKey::Client,
    };
    Some(RateLimit {
        requests,
        within: table.fixed("within"),
        per,
        path: table.get("path"),
        burst: table.get_or("burst", || requests, u32::to_string),
    })
}

fn cache_rule(table: &Reader<'_>) -> CacheRule {
    CacheRule { path: table.fixed("path"), fresh: table.fixed("fresh"), stale: table.fixed("stale") }
}

fn bounded(edge: &Reader<'_>, key: &str, most: u64) -> Option<u32> {
    let Bytes(bytes) = edge.get(key)?;
    if bytes == 0 || bytes > most {
        let message = format!("{} must be 1 byte to {} KiB", edge.path_of(key), most / 1024);
        edge.cx.push_at(
            Diagnostic::error(code::BAD_VALUE, message).hint("leave it out for the most"),
            edge.value_at(key),
        );
        return None;
    }
    u32::try_from(bytes).ok()
}

fn timeouts(edge: &Reader<'_>, base: &EdgeTimeouts) -> EdgeTimeouts {
    let Some(table) = edge.optional_table("timeouts", &keys::TIMEOUTS) else { return base.clone() };
    let millis = |key: &str, base: Option<u64>| {
        let given = table.get::<Duration>(key);
        given.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).or(base)
    };
    EdgeTimeouts {
        connect_ms: millis("connect", base.connect_ms),
        response_ms: millis("response", base.response_ms),
        body_ms: millis("body", base.body_ms),
        stream_ms: millis("stream", base.stream_ms),
        idle_ms: millis("idle", base.idle_ms),
        drain_ms: millis("drain", base.drain_ms),
        mirror_ms: millis("mirror", base.mirror_ms),
    }
}

fn retry_of(table: &Reader<'_>) -> Retry {
    Retry { attempts: table.fixed("attempts"), budget_percent: table.fixed("budget") }
}

fn eject(table: &Reader<'_>) -> Eject {
    let (first, longest) = (table.fixed("first"), table.fixed("longest"));
    if first > longest {
        let message = format!("{} is shorter than {}", table.path_of("longest"), table.path_of("first"));
        let said = if table.has("longest") { "longest" } else { "first" };
        let hint = "make longest at least as long as first";
        table.cx.push_at(Diagnostic::error(code::BAD_VALUE, message).hint(hint), table.value_at(said));
    }
    Eject { connects: table.fixed("connects"), failures: table.fixed("failures"), first, longest }
}

fn breaker(table: &Reader<'_>) -> Breaker {
    Breaker { per_copy: table.get("per_copy"), requests: table.get("requests") }
}

fn hold(table: &Reader<'_>) -> Hold {
    Hold { requests: table.fixed("requests"), wait: table.fixed("wait") }
}
