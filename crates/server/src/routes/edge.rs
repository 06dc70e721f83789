//! What a release asks of the edge, in the words of the proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fairway_engine::Environment;
use fairway_engine::edge::{
    self, AcmeChallenge, CertificateSource, Edge, Entrance, Hsts, RateKey, TlsEntrance,
};
use fairway_engine::id::{ReleaseNumber, ServiceName};
use fairway_engine::release::Release;
use fairway_proxy::snapshot::{
    Breaker, CacheRule, Certificate, CertificatePurpose, Compress, Eject, HeaderChange, Hold, Listener,
    ListenerLimits, Policy, ProcessLimits, Protocol, Purpose, RateLimit, RequestLimits, Retry, Service,
    Timeouts, Tls, ToHttps,
};

use crate::certificates::{self, Acme, ChallengeKind, ExternalAccount, Offer, Source, Wanted};

/// What a browser may be told by every site, where the site says nothing else. Of the seeds' set the one that no
/// browser heeds any more (`x-xss-protection`) is left out, and `content-security-policy` is for the project to write.
const SECURITY_HEADERS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=()"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// The release that most requests go to: what it asks of the edge is what holds.
pub(super) fn facing(environment: &Environment) -> Option<&Release> {
    let mut weights: BTreeMap<ReleaseNumber, u32> = BTreeMap::new();
    for service in environment.routes.table.services.values() {
        for (release, version) in &service.versions {
            let weight = weights.entry(*release).or_default();
            *weight = (*weight).max(version.weight);
        }
    }
    // Of two with the same weight the one that was there before.
    let (release, _) = weights.iter().rev().max_by_key(|(_, weight)| **weight)?;
    environment.release(*release)
}

/// As [`facing`], for one service.
pub(super) fn edge_of<'e>(environment: &'e Environment, name: &ServiceName) -> Option<&'e Edge> {
    let versions = &environment.routes.table.services.get(name)?.versions;
    let (release, _) = versions.iter().rev().max_by_key(|(_, version)| version.weight)?;
    Some(&environment.release(*release)?.spec.services.get(name)?.edge)
}

/// What of it belongs to the service.
pub(super) fn shape(service: &mut Service, edge: &Edge) {
    let usual = Timeouts::default();
    let times = &edge.timeouts;
    service.timeouts = Timeouts {
        connect_ms: times.connect_ms.unwrap_or(usual.connect_ms),
        response_head_ms: times.response_ms.unwrap_or(usual.response_head_ms),
        body_bytes_per_s_min: edge.body_bytes_per_s_min.unwrap_or(usual.body_bytes_per_s_min),
        body_idle_ms: times.body_ms.unwrap_or(usual.body_idle_ms),
        upstream_idle_ms: times.idle_ms.unwrap_or(usual.upstream_idle_ms),
        upgrade_idle_ms: times.stream_ms.unwrap_or(usual.upgrade_idle_ms),
        stream_drain_ms: times.drain_ms.unwrap_or(usual.stream_drain_ms),
    };
    if let (Some(mirror), Some(timeout_ms)) = (&mut service.mirror, times.mirror_ms) {
        mirror.timeout_ms = timeout_ms;
    }
    service.protocol = match edge.protocol {
        edge::Protocol::Http1 => Protocol::Http1,
        edge::Protocol::H2c => Protocol::H2c,
    };
    service.request_body_bytes_max = edge.body_bytes_max;
    if let Some(retry) = edge.retry {
        service.retry = Retry { attempts_max: retry.attempts, budget_percent: retry.budget_percent };
    }
    if let Some(hold) = edge.hold {
        service.hold = Hold { max_requests: hold.requests, max_wait_ms: millis(hold.wait) };
    }
    if let Some(breaker) = edge.breaker {
        service.breaker = Breaker { per_instance: breaker.per_copy, requests: breaker.requests };
    }
    service.idle_upstreams_max = edge.idle_max;
    if let Some(eject) = &edge.eject {
        service.eject = Eject {
            connects: eject.connects,
            failures: eject.failures,
            first_ms: millis(eject.first),
            longest_ms: millis(eject.longest),
        };
    }
}

/// What of it belongs to a route. `hsts`: only over TLS, where browsers heed it.
pub(super) fn policy(edge: &Edge, https: Option<ToHttps>, hsts: Option<&Hsts>) -> Policy {
    let mut changes = Vec::new();
    for (name, value) in &edge.headers {
        let name = name.clone();
        changes.push(match value.clone() {
            Some(value) => HeaderChange::Set { name, value },
            None => HeaderChange::Remove { name },
        });
    }
    let is_said = |name: &str| edge.headers.contains_key(name);
    if edge.security_headers {
        let usual = SECURITY_HEADERS.iter().filter(|(name, _)| !is_said(name));
        changes.extend(
            usual.map(|(name, value)| HeaderChange::Default { name: (*name).into(), value: (*value).into() }),
        );
    }
    if let Some(hsts) = hsts
        && !is_said("strict-transport-security")
    {
        let value = format!(
            "max-age={}{}{}",
            hsts.max_age.as_secs(),
            if hsts.subdomains { "; includeSubDomains" } else { "" },
            if hsts.preload { "; preload" } else { "" }
        );
        changes.push(HeaderChange::Set { name: "strict-transport-security".to_owned(), value });
    }
    let rate = |(index, limit): (usize, &edge::RateLimit)| RateLimit {
        name: index.to_string(),
        per: match &limit.per {
            RateKey::Client => fairway_proxy::snapshot::RateKey::Client,
            RateKey::Route => fairway_proxy::snapshot::RateKey::Route,
            RateKey::Header(name) => fairway_proxy::snapshot::RateKey::Header(name.clone()),
        },
        path: limit.path.clone(),
        requests: limit.requests,
        within_ms: millis(limit.within),
        burst: limit.burst,
    };
    let cache = |rule: &edge::CacheRule| CacheRule {
        path: rule.path.clone(),
        fresh_ms: millis(rule.fresh),
        stale_ms: millis(rule.stale),
    };
    Policy {
        https,
        response_headers: changes,
        compress: edge
            .compress
            .as_ref()
            .map(|compress| Compress { min_bytes: compress.min_bytes, types: compress.types.clone() }),
        rate_limits: edge.rate_limits.iter().enumerate().map(rate).collect(),
        cache: edge.cache.iter().map(cache).collect(),
        limits: RequestLimits {
            target_bytes_max: edge.target_bytes_max,
            head_bytes_max: edge.head_bytes_max,
            fields_max: edge.fields_max,
        },
    }
}

/// Every host that the environment answers for; for one without hosts, names that lead to the machine itself.
pub(super) fn hosts(environment: &Environment, release: &Release) -> BTreeSet<String> {
    let routes = environment.routes.table.services.values().filter_map(|service| service.route.as_ref());
    let own = release.spec.listen.host.clone();
    let mut hosts: BTreeSet<String> = routes
        .filter_map(|route| route.host.clone())
        .chain(own)
        .map(|host| host.to_ascii_lowercase())
        .collect();
    if hosts.is_empty() {
        hosts.insert("localhost".to_owned());
        let tls = release.spec.entrance.tls.as_ref();
        let address: Option<SocketAddr> = tls.and_then(|tls| tls.address.parse().ok());
        hosts.extend(
            address
                .map(|address| address.ip())
                .filter(|ip: &IpAddr| !ip.is_unspecified())
                .map(|ip| ip.to_string()),
        );
    }
    hosts
}

/// The certificates that an environment wants. One for each host: a host that fails keeps no other waiting.
pub(super) fn wanted(environment: &Environment) -> Vec<Wanted> {
    let Some(release) = facing(environment) else { return Vec::new() };
    let Some(tls) = &release.spec.entrance.tls else { return Vec::new() };
    let hosts = hosts(environment, release);
    let key = environment.key.to_string();
    match &tls.certificate {
        CertificateSource::Acme { directory, contact, challenge, roots, preflight, account } => {
            let acme = Acme {
                directory: directory.clone(),
                contact: contact.clone(),
                challenges: vec![match challenge {
                    AcmeChallenge::Http01 => ChallengeKind::Http01,
                    AcmeChallenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
                }],
                roots: roots.as_ref().map(Into::into),
                preflight: *preflight,
                account: account.as_ref().map(|account| ExternalAccount {
                    environment: environment.key.clone(),
                    key_id: account.key_id.clone(),
                    hmac: account.hmac.clone(),
                }),
            };
            hosts
                .into_iter()
                .map(|host| Wanted::new(key.clone(), [host], Source::Acme(acme.clone())))
                .collect()
        }
        CertificateSource::Files { chain, key: file } => {
            vec![Wanted::new(key, hosts, Source::Files { chain: chain.into(), key: file.into() })]
        }
        CertificateSource::SelfSigned => vec![Wanted::new(key, hosts, Source::SelfSigned)],
    }
}

/// The listener for encrypted requests, with the certificates for its hosts.
pub(super) fn tls_listener(
    tls: &TlsEntrance,
    hosts: &BTreeSet<String>,
    entrance: &Entrance,
    offer: &Offer,
) -> Option<Listener> {
    let address: SocketAddr = tls.address.parse().ok()?;
    let mut listener = listener(address, entrance);
    let ours = offer.certificates.iter().filter(|one| one.names.iter().any(|name| hosts.contains(name)));
    listener.tls = Some(Tls { certificates: ours.map(certificate).collect() });
    Some(listener)
}

pub(super) fn listener(address: SocketAddr, entrance: &Entrance) -> Listener {
    // A field that is added has to be passed on.
    let edge::Connections {
        head_ms,
        idle_ms,
        idle_drain_ms,
        linger_ms,
        ping_ms,
        pong_ms,
        tail_ms,
        window_bytes,
        per_client_max,
        streams_max,
        http1_only,
    } = entrance.connections;
    Listener {
        proxy_protocol: entrance.proxy_protocol,
        trusted_proxies: entrance.trusted_proxies.clone(),
        limits: ListenerLimits {
            head_ms,
            idle_ms,
            idle_drain_ms,
            linger_ms,
            ping_ms,
            pong_ms,
            tail_ms,
            window_bytes,
            per_client_max,
            streams_max,
            http1_only,
        },
        ..Listener::new(address.to_string(), address, Purpose::Public)
    }
}

/// Whether a host can be asked over TLS already: before that nobody is sent there.
///
/// `own`: all hosts of the environment, one of which has to do where a route has none. Somebody else's certificate is no
/// reason to send anybody to an address that has none yet.
pub(super) fn has_certificate(host: Option<&str>, own: &BTreeSet<String>, offer: &Offer) -> bool {
    let is_asked =
        |name: &String| host.map_or_else(|| own.contains(name), |host| name.eq_ignore_ascii_case(host));
    offer
        .certificates
        .iter()
        .any(|one| one.purpose == certificates::Purpose::Serving && one.names.iter().any(is_asked))
}

fn certificate(offered: &certificates::Certificate) -> Certificate {
    // A certificate for the machine itself is shown to whoever asks by any other name: it is for trying out.
    let is_local = offered.names.iter().any(|name| name == "localhost");
    Certificate {
        names: if is_local { Vec::new() } else { offered.names.clone() },
        chain: offered.chain.clone(),
        key: offered.key.clone(),
        digest: offered.digest.clone(),
        purpose: match offered.purpose {
            certificates::Purpose::Serving => CertificatePurpose::Serving,
            certificates::Purpose::AcmeTlsAlpn => CertificatePurpose::AcmeTlsAlpn,
        },
    }
}

/// Two environments on one address: what either wants of the connections holds, the stricter limit, and the certificates are put together.
pub(super) fn merge(into: &mut Listener, other: &Listener) {
    into.proxy_protocol |= other.proxy_protocol;
    let (ours, theirs) = (into.limits, other.limits);
    into.limits = ListenerLimits {
        head_ms: stricter(ours.head_ms, theirs.head_ms),
        idle_ms: stricter(ours.idle_ms, theirs.idle_ms),
        idle_drain_ms: stricter(ours.idle_drain_ms, theirs.idle_drain_ms),
        linger_ms: stricter(ours.linger_ms, theirs.linger_ms),
        ping_ms: stricter(ours.ping_ms, theirs.ping_ms),
        pong_ms: stricter(ours.pong_ms, theirs.pong_ms),
        tail_ms: stricter(ours.tail_ms, theirs.tail_ms),
        window_bytes: stricter(ours.window_bytes, theirs.window_bytes),
        per_client_max: stricter(ours.per_client_max, theirs.per_client_max),
        streams_max: stricter(ours.streams_max, theirs.streams_max),
        http1_only: ours.http1_only || theirs.http1_only,
    };
    for network in &other.trusted_proxies {
        if !into.trusted_proxies.contains(network) {
            into.trusted_proxies.push(network.clone());
        }
    }
    match (&mut into.tls, &other.tls) {
        (Some(into), Some(other)) => {
            for certificate in &other.certificates {
                if !into.certificates.contains(certificate) {
                    into.certificates.push(certificate.clone());
                }
            }
        }
        (Some(_), None) | (None, None) => {}
        (into @ None, Some(other)) => *into = Some(other.clone()),
    }
}

/// What an environment asks of the whole proxy.
pub(super) fn process(asked: &edge::Process) -> ProcessLimits {
    let edge::Process { drain_ms, handshake_ms, connections_per_core, cache_bytes, access_log: _ } = *asked;
    ProcessLimits { drain_ms, handshake_ms, connections_per_core, cache_bytes }
}

/// All environments share the process: nobody gets less than was asked for. `None` is less than anything.
pub(super) fn larger(one: ProcessLimits, other: ProcessLimits) -> ProcessLimits {
    ProcessLimits {
        drain_ms: one.drain_ms.max(other.drain_ms),
        handshake_ms: one.handshake_ms.max(other.handshake_ms),
        connections_per_core: one.connections_per_core.max(other.connections_per_core),
        cache_bytes: one.cache_bytes.max(other.cache_bytes),
    }
}

fn stricter<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (only, None) | (None, only) => only,
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
