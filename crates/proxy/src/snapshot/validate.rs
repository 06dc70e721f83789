use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{HeaderChange, Match, RateKey, Route, Service, Snapshot};
use crate::entrance::Network;

/// Why a snapshot cannot be served. A snapshot with any of these is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Invalid {
    #[error("listener {name:?} is there twice")]
    DuplicateListener { name: String },
    #[error("address {addr} is listened on twice")]
    DuplicateAddress { addr: SocketAddr },
    #[error("listener {name:?} has port 0")]
    PortZero { name: String },
    #[error("listener {name:?}: {problem}")]
    Listener { name: String, problem: String },
    #[error("route {route} names the unknown listener {listener:?}")]
    UnknownListener { route: String, listener: String },
    #[error("route {route} names the unknown service {service:?}")]
    UnknownService { route: String, service: String },
    #[error("route {route} is pinned to the unknown version {version:?}")]
    UnknownVersion { route: String, version: String },
    #[error("route {route} is there twice")]
    DuplicateRoute { route: String },
    #[error(
        "route {route}: the path must begin with '/', must not end with one and holds visible ASCII only"
    )]
    Path { route: String },
    #[error("route {route}: {host:?} is not a host name")]
    Host { route: String, host: String },
    #[error("route {route}: {problem}")]
    Maintenance { route: String, problem: String },
    #[error("route {route}: {problem}")]
    Policy { route: String, problem: String },
    #[error("instance {id:?} is there twice")]
    DuplicateInstance { id: String },
    #[error("service {service:?}: {problem}")]
    Service { service: String, problem: String },
    #[error("{problem}")]
    Process { problem: String },
}

/// Weights are added up per service in 64 bits; this keeps every sum far from overflow.
const WEIGHT_MAX: u32 = 1_000_000;

/// From what every HTTP/2 connection begins with to what the window of the whole connection has room for sixteen times.
const H2_WINDOW_BYTES: std::ops::RangeInclusive<u32> = 65_535..=16 * 1024 * 1024;

impl Snapshot {
    /// Every problem, not only the first: whoever reads the refusal repairs them at once.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut found = Vec::new();
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for listener in &self.listeners {
            if !names.insert(listener.name.as_str()) {
                found.push(Invalid::DuplicateListener { name: listener.name.clone() });
            }
            if !addresses.insert(listener.addr) {
                found.push(Invalid::DuplicateAddress { addr: listener.addr });
            }
            if listener.addr.port() == 0 {
                found.push(Invalid::PortZero { name: listener.name.clone() });
            }
            let limits = &listener.limits;
            let times = [limits.head_ms, limits.idle_ms, limits.ping_ms, limits.pong_ms, limits.tail_ms];
            if times.contains(&Some(0)) || [limits.per_client_max, limits.streams_max].contains(&Some(0)) {
                let problem = "a limit of 0 would keep everybody out".to_owned();
                found.push(Invalid::Listener { name: listener.name.clone(), problem });
            }
            if limits.window_bytes.is_some_and(|bytes| !H2_WINDOW_BYTES.contains(&bytes)) {
                let problem = "a window is 65,535 bytes to 16 MiB".to_owned();
                found.push(Invalid::Listener { name: listener.name.clone(), problem });
            }
            for network in &listener.trusted_proxies {
                if network.parse::<Network>().is_err() {
                    let problem = format!("{network:?} is no network and no address");
                    found.push(Invalid::Listener { name: listener.name.clone(), problem });
                }
            }
        }
        if self.process.connections_per_core == Some(0) {
            found.push(Invalid::Process { problem: "no connection could be accepted".to_owned() });
        }
        let mut instances = BTreeSet::new();
        for (key, service) in &self.services {
            check_service(key, service, &mut found);
            for instance in service.versions.values().flat_map(|version| &version.instances) {
                if !instances.insert(instance.id.as_str()) {
                    found.push(Invalid::DuplicateInstance { id: instance.id.clone() });
                }
            }
        }
        let mut seen = BTreeSet::new();
        for route in &self.routes {
            if !seen.insert((
                route.listener.as_str(),
                route.host.as_deref().map(str::to_ascii_lowercase),
                route.path.as_str(),
            )) {
                found.push(Invalid::DuplicateRoute { route: route.label() });
            }
            if !names.contains(route.listener.as_str()) {
                found.push(Invalid::UnknownListener {
                    route: route.label(),
                    listener: route.listener.clone(),
                });
            }
            check_route(route, self.services.get(&route.service), &mut found);
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

impl Route {
    /// How logs, metrics and errors name the route: `host/path`, with `*` for any host.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}{}", self.host.as_deref().unwrap_or("*"), self.path)
    }
}

fn check_route(route: &Route, service: Option<&Service>, found: &mut Vec<Invalid>) {
    let label = || route.label();
    match (service, &route.pin) {
        (None, _) => {
            found.push(Invalid::UnknownService { route: label(), service: route.service.clone() });
        }
        (Some(service), Some(pin)) if !service.versions.contains_key(pin) => {
            found.push(Invalid::UnknownVersion { route: label(), version: pin.clone() });
        }
        (Some(_), _) => {}
    }
    let visible = route.path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
    if !route.path.starts_with('/') || (route.path.len() > 1 && route.path.ends_with('/')) || !visible {
        found.push(Invalid::Path { route: label() });
    }
    if let Some(host) = &route.host {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let bracketed = address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if name.is_empty() || !(plain || bracketed) {
            found.push(Invalid::Host { route: label(), host: host.clone() });
        }
    }
    check_policy(route, found);
    if let Some(page) = &route.maintenance {
        if !(200..=599).contains(&page.status) || matches!(page.status, 204 | 205 | 304) {
            found.push(Invalid::Maintenance {
                route: label(),
                problem: format!("status {} cannot carry a page", page.status),
            });
        }
        if !is_field_value(&page.content_type) {
            found.push(Invalid::Maintenance {
                route: label(),
                problem: "content_type is not a header value".to_owned(),
            });
        }
    }
}

/// They say where a message ends, or belong to one connection: to set them is to break the message.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn check_policy(route: &Route, found: &mut Vec<Invalid>) {
    let mut problem = |problem: String| found.push(Invalid::Policy { route: route.label(), problem });
    let policy = &route.policy;
    for change in &policy.response_headers {
        let (name, value) = match change {
            HeaderChange::Set { name, value } | HeaderChange::Default { name, value } => {
                (name, value.as_str())
            }
            HeaderChange::Remove { name } => (name, ""),
        };
        let is_framing = FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name));
        if !is_token(name) || is_framing || !is_field_value(value) {
            problem(format!(
                "{name:?} is no header field that can be set, or has a value that none can have"
            ));
        }
    }
    let mut names = BTreeSet::new();
    for rate in &policy.rate_limits {
        if !names.insert(rate.name.as_str()) {
            problem(format!("the rate limit {:?} is there twice", rate.name));
        }
        if [u64::from(rate.requests), rate.within_ms, u64::from(rate.burst)].contains(&0) {
            problem(format!("the rate limit {:?} has requests, within_ms or burst of 0", rate.name));
        }
        if let RateKey::Header(name) = &rate.per
            && !is_token(name)
        {
            problem(format!("the rate limit {:?} is for {name:?}, which is no header field", rate.name));
        }
    }
    let paths = policy.rate_limits.iter().filter_map(|rate| rate.path.as_ref());
    for path in paths.chain(policy.cache.iter().map(|rule| &rule.path)) {
        if !path.starts_with('/') {
            problem(format!("{path:?} is no path"));
        }
    }
    if policy.https.is_some_and(|https| https.port == 0) {
        problem("requests are sent to port 0 for TLS".to_owned());
    }
}

fn check_service(key: &str, service: &Service, found: &mut Vec<Invalid>) {
    let mut problem = |text: &str| {
        found.push(Invalid::Service { service: key.to_owned(), problem: text.to_owned() });
    };
    if service.versions.values().any(|version| version.weight > WEIGHT_MAX) {
        problem("a weight is above 1,000,000");
    }
    for (name, version) in &service.versions {
        if name.is_empty() || !name.bytes().all(is_cookie_octet) {
            problem("a version name must be usable as a cookie value");
        }
        for condition in &version.matches {
            let ok = match condition {
                Match::Header { name, value } => is_token(name) && is_field_value(value),
                Match::Cookie { name, value } => is_token(name) && value.bytes().all(is_cookie_octet),
            };
            if !ok {
                problem("a match has a name or value that no request can have");
            }
        }
    }
    if service.sticky.as_ref().is_some_and(|sticky| !is_token(&sticky.cookie)) {
        problem("the sticky cookie's name is not a token");
    }
    if let Some(health) = &service.health {
        if !health.path.starts_with('/') || !health.path.bytes().all(|b| b.is_ascii_graphic()) {
            problem("the health path must begin with '/' and hold visible ASCII only");
        }
        if health.rise == 0 || health.fall == 0 || health.interval_ms == 0 || health.timeout_ms == 0 {
            problem("health rise, fall, interval_ms and timeout_ms must be above 0");
        }
    }
    if let Some(mirror) = &service.mirror {
        if !service.versions.contains_key(&mirror.version) {
            problem("the mirror names an unknown version");
        }
        if !(1..=100).contains(&mirror.percent) {
            problem("mirror.percent must be 1 to 100");
        }
        if mirror.timeout_ms == 0 {
            problem("mirror.timeout_ms must be above 0");
        }
    }
    let t = &service.timeouts;
    if [t.connect_ms, t.response_head_ms, t.body_idle_ms, t.upgrade_idle_ms].contains(&0) {
        problem("a timeout of 0 would fail every request");
    }
    if service.eject.connects == 0 || service.eject.first_ms == 0 {
        problem("eject.connects and eject.first_ms must be above 0");
    }
    if service.retry.attempts_max == 0 {
        problem("retry.attempts_max counts the first attempt and must be at least 1");
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(crate::codec::is_tchar)
}

fn is_field_value(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

fn is_cookie_octet(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::super::*;

    fn snapshot() -> Snapshot {
        serde_json::from_str(
            r#"{"generation":1,
                "listeners":[{"name":"web","addr":"127.0.0.1:8080"}],
                "services":{"shop/production/api":{"versions":{"r1":{"weight":100,
                    "instances":[{"id":"api-r1-1","addr":"127.0.0.1:9001"}]}}}},
                "routes":[{"listener":"web","path":"/","service":"shop/production/api"}]}"#,
        )
        .unwrap()
    }

    fn check(change: impl FnOnce(&mut Snapshot), expect: &str) {
        let mut changed = snapshot();
        change(&mut changed);
        let found = match changed.validate() {
            Ok(()) => "ok".to_owned(),
            Err(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn every_reason_is_named() {
        check(|_| {}, "ok");
        check(|s| s.listeners.clear(), "route */ names the unknown listener \"web\"");
        check(|s| s.services.clear(), "route */ names the unknown service \"shop/production/api\"");
        check(|s| s.routes[0].pin = Some("r9".into()), "route */ is pinned to the unknown version \"r9\"");
        check(|s| s.listeners[0].addr.set_port(0), "listener \"web\" has port 0");
        check(
            |s| s.listeners[0].limits.per_client_max = Some(0),
            "listener \"web\": a limit of 0 would keep everybody out",
        );
        check(|s| s.routes.push(s.routes[0].clone()), "route */ is there twice");
        check(
            |s| s.routes[0].path = "/a/".into(),
            "route */a/: the path must begin with '/', must not end with one and holds visible ASCII only",
        );
        check(|s| s.routes[0].host = Some("a b".into()), "route a b/: \"a b\" is not a host name");
        check(
            |s| {
                let versions = &mut s.services.values_mut().next().unwrap().versions;
                let twin = versions["r1"].clone();
                versions.insert("r2".into(), twin);
            },
            "instance \"api-r1-1\" is there twice",
        );
        check(
            |s| s.services.values_mut().next().unwrap().retry.attempts_max = 0,
            "service \"shop/production/api\": retry.attempts_max counts the first attempt and must be at least 1",
        );
        let mirror = |text: &'static str| {
            move |s: &mut Snapshot| {
                let service = s.services.values_mut().next().unwrap();
                service.mirror = Some(serde_json::from_str(text).unwrap());
            }
        };
        check(mirror(r#"{"version":"r1","percent":100}"#), "ok");
        check(
            mirror(r#"{"version":"r9","percent":0,"timeout_ms":0}"#),
            "service \"shop/production/api\": the mirror names an unknown version; \
             service \"shop/production/api\": mirror.percent must be 1 to 100; \
             service \"shop/production/api\": mirror.timeout_ms must be above 0",
        );
    }

    #[test]
    fn a_policy_that_would_break_messages_is_refused() {
        let policy = |text: &'static str| {
            move |s: &mut Snapshot| s.routes[0].policy = serde_json::from_str(text).unwrap()
        };
        check(
            policy(
                r#"{"https":{"port":443},"response_headers":[{"kind":"set","name":"x-a","value":"b c"},
                    {"kind":"remove","name":"Server"}],"cache":[{"path":"/","fresh_ms":0,"stale_ms":0}],
                    "rate_limits":[{"name":"0","per":"client","requests":1,"within_ms":1,"burst":1}]}"#,
            ),
            "ok",
        );
        for bad in [
            r#"{"response_headers":[{"kind":"set","name":"x-a","value":"b\r\nset-cookie: c=1"}]}"#,
            r#"{"response_headers":[{"kind":"default","name":"x-a: b\r\nc","value":""}]}"#,
            r#"{"response_headers":[{"kind":"remove","name":""}]}"#,
            r#"{"response_headers":[{"kind":"set","name":"Content-Length","value":"0"}]}"#,
            r#"{"rate_limits":[{"name":"0","per":"client","requests":0,"within_ms":1,"burst":1}]}"#,
            r#"{"rate_limits":[{"name":"0","per":{"header":"a b"},"requests":1,"within_ms":1,"burst":1}]}"#,
            r#"{"rate_limits":[{"name":"0","per":"route","requests":1,"within_ms":1,"burst":1},
                {"name":"0","per":"client","requests":1,"within_ms":1,"burst":1}]}"#,
            r#"{"cache":[{"path":"","fresh_ms":0,"stale_ms":0}]}"#,
            r#"{"https":{"port":0}}"#,
        ] {
            let mut changed = snapshot();
            policy(bad)(&mut changed);
            let found = changed.validate().expect_err(bad);
            assert!(matches!(found.as_slice(), [Invalid::Policy { .. }]), "{bad}: {found:?}");
        }
        let eject = |s: &mut Snapshot| s.services.values_mut().next().unwrap().eject.connects = 0;
        check(eject, "service \"shop/production/api\": eject.connects and eject.first_ms must be above 0");
        check(
            |s| s.routes[0].host = Some("[a\r\nb]".into()),
            "route [a\r\nb]/: \"[a\\r\\nb]\" is not a host name",
        );
    }

    #[test]
    fn hosts_that_differ_in_case_only_are_the_same_route() {
        check(
            |s| {
                s.routes[0].host = Some("Example.com".into());
                let mut twin = s.routes[0].clone();
                twin.host = Some("example.COM".into());
                s.routes.push(twin);
            },
            "route example.COM/ is there twice",
        );
    }

    #[test]
    fn a_snapshot_survives_json() {
        let before = snapshot();
        let after: Snapshot = serde_json::from_slice(&serde_json::to_vec(&before).unwrap()).unwrap();
        assert_eq!(before, after);
        assert_eq!(after.services["shop/production/api"].hold, Hold::default());
    }
}
