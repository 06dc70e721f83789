//! Environments that share an address, or say something of the one proxy that they all share: what then holds for both
//! is said to whoever deploys, and in status.

use std::collections::BTreeSet;
use std::fmt;

use fairway_engine::Environment;
use fairway_engine::edge::{Connections, Entrance, Process};
use fairway_engine::id::EnvironmentKey;
use fairway_engine::release::{Listen, ReleaseSpec};
use fairway_engine::service::RouteSpec;

use super::edge;

/// What an environment asks of its addresses.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    listen: &'a Listen,
    entrance: &'a Entrance,
}

impl<'a> Asked<'a> {
    fn of(spec: &'a ReleaseSpec) -> Self {
        Self { listen: &spec.listen, entrance: &spec.entrance }
    }

    fn addresses(&self) -> BTreeSet<&'a str> {
        let tls = self.entrance.tls.as_ref().map(|tls| tls.address.as_str());
        tls.into_iter().chain([self.listen.address.as_str()]).collect()
    }

    fn speaks_tls_on(&self, address: &str) -> bool {
        self.entrance.tls.as_ref().is_some_and(|tls| tls.address == address)
    }
}

/// A sentence for each thing that holds for `key` with this release because of another environment, or the other way
/// round.
#[must_use]
pub fn of_release<'a>(
    key: &EnvironmentKey,
    spec: &ReleaseSpec,
    environments: impl IntoIterator<Item = &'a Environment>,
) -> Vec<String> {
    let ours = Asked::of(spec);
    let mut found = Vec::new();
    for other in environments.into_iter().filter(|other| other.key != *key) {
        let Some(release) = edge::facing(other) else { continue };
        conflicts(ours, &other.key, Asked::of(&release.spec), &mut found);
    }
    found
}

/// As [`of_release`], of what serves.
#[must_use]
pub fn of_environment<'a>(
    environment: &Environment,
    environments: impl IntoIterator<Item = &'a Environment>,
) -> Vec<String> {
    let release = edge::facing(environment);
    release.map(|release| of_release(&environment.key, &release.spec, environments)).unwrap_or_default()
}

/// A public route that another environment has already: the proxy could not tell whose a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenRoute {
    pub by: EnvironmentKey,
    pub address: String,
    /// None: requests for every host.
    pub host: Option<String>,
    pub path: String,
}

impl fmt::Display for TakenRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, address, host, path } = self;
        let host = host.as_deref().unwrap_or("every host");
        write!(f, "{by} has {path} at {address} already, for {host}")
    }
}

/// The first public route of `spec` that another environment has.
#[must_use]
pub fn taken_route<'a>(
    key: &EnvironmentKey,
    spec: &ReleaseSpec,
    environments: impl IntoIterator<Item = &'a Environment>,
) -> Option<TakenRoute> {
    let host = |route: &RouteSpec, listen: &Listen| {
        route.host.as_ref().or(listen.host.as_ref()).map(|host| host.to_ascii_lowercase())
    };
    let wanted: BTreeSet<_> = spec
        .services
        .values()
        .filter_map(|service| service.route.as_ref())
        .map(|route| (host(route, &spec.listen), route.path.as_str()))
        .collect();
    environments.into_iter().filter(|other| other.key != *key).find_map(|other| {
        let asked = Asked::of(&edge::facing(other)?.spec);
        let ours = Asked::of(spec).addresses();
        let address = asked.addresses().into_iter().find(|address| ours.contains(address))?.to_owned();
        let listen = other.routes.table.listen.as_ref()?;
        let routes = other.routes.table.services.values().filter_map(|service| service.route.as_ref());
        let theirs = routes.map(|route| (host(route, listen), route.path.as_str()));
        let (host, path) = theirs.into_iter().find(|route| wanted.contains(route))?;
        Some(TakenRoute { by: other.key.clone(), address, host, path: path.to_owned() })
    })
}

fn conflicts(ours: Asked<'_>, other: &EnvironmentKey, theirs: Asked<'_>, found: &mut Vec<String>) {
    for address in ours.addresses().intersection(&theirs.addresses()) {
        let mut say = |what: &str| found.push(format!("{address} is shared with {other}: {what}"));
        let who = |is_ours: bool| if is_ours { "this environment asks" } else { "the other asks" };
        if ours.speaks_tls_on(address) != theirs.speaks_tls_on(address) {
            let who = who(ours.speaks_tls_on(address));
            say(&format!("{who} for TLS there, and requests without it are answered for neither"));
        }
        let (one, two) = (ours.entrance, theirs.entrance);
        if one.proxy_protocol != two.proxy_protocol {
            let who = who(one.proxy_protocol);
            say(&format!("{who} for the PROXY protocol, and connections without it are refused for both"));
        }
        let trusted = |entrance: &Entrance| entrance.trusted_proxies.iter().cloned().collect::<BTreeSet<_>>();
        if trusted(one) != trusted(two) {
            say("trusted_proxies differ, and whoever one of them trusts is believed for both");
        }
        let limits = differing(&one.connections, &two.connections);
        if !limits.is_empty() {
            say(&format!("connections differ, and the stricter limit holds for both: {}", limits.join(", ")));
        }
    }
    let process = differing_process(&ours.entrance.process, &theirs.entrance.process);
    if !process.is_empty() {
        let what = process.join(", ");
        found.push(format!("the proxy is shared with {other}, and the larger value holds for both: {what}"));
    }
}

/// The keys of which both say something else.
fn differing(one: &Connections, other: &Connections) -> Vec<&'static str> {
    let Connections {
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
    } = *one;
    let large = |value: Option<u32>| value.map(u64::from);
    let pairs = [
        ("head", head_ms, other.head_ms),
        ("idle", idle_ms, other.idle_ms),
        ("idle_drain", idle_drain_ms, other.idle_drain_ms),
        ("linger", linger_ms, other.linger_ms),
        ("ping", ping_ms, other.ping_ms),
        ("pong", pong_ms, other.pong_ms),
        ("tail", tail_ms, other.tail_ms),
        ("window", large(window_bytes), large(other.window_bytes)),
        ("max_per_client", large(per_client_max), large(other.per_client_max)),
        ("max_streams", large(streams_max), large(other.streams_max)),
        ("http2", Some(u64::from(!http1_only)), Some(u64::from(!other.http1_only))),
    ];
    different(&pairs)
}

fn differing_process(one: &Process, other: &Process) -> Vec<&'static str> {
    // The log is for whoever asks for it, and says of each request whose it is.
    let Process { drain_ms, handshake_ms, connections_per_core, cache_bytes, access_log: _ } = *one;
    let pairs = [
        ("drain", drain_ms, other.drain_ms),
        ("handshake", handshake_ms, other.handshake_ms),
        ("max_connections", connections_per_core, other.connections_per_core),
        ("cache", cache_bytes, other.cache_bytes),
    ];
    different(&pairs)
}

/// One that is said by one of them alone holds for both as well.
fn different(pairs: &[(&'static str, Option<u64>, Option<u64>)]) -> Vec<&'static str> {
    pairs.iter().filter(|(_, one, other)| one != other).map(|(name, _, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, key, release};

    const LISTEN: &str = "127.0.0.1:8080";

    fn told(change: impl FnOnce(&mut ReleaseSpec)) -> Vec<String> {
        let world = World::deployed(&key("dev"), release(LISTEN));
        let mut ours = release(LISTEN);
        change(&mut ours);
        of_release(&key("staging"), &ours, [world.of(&key("dev"))])
    }

    #[test]
    fn what_holds_for_both_is_said() {
        assert_eq!(told(|_| {}), [""; 0]);
        let check = |change: fn(&mut ReleaseSpec), expect: &str| {
            let told = told(change);
            assert!(told.len() == 1 && told[0].ends_with(expect), "{told:?}");
            assert!(told[0].contains("shop/dev"), "{told:?}");
        };
        check(|ours| ours.entrance.proxy_protocol = true, "connections without it are refused for both");
        check(
            |ours| ours.entrance.trusted_proxies = vec!["10.0.0.0/8".into()],
            "whoever one of them trusts is believed for both",
        );
        check(
            |ours| {
                ours.entrance.connections.idle_ms = Some(1);
                ours.entrance.connections.window_bytes = Some(1);
            },
            "the stricter limit holds for both: idle, window",
        );
        check(|ours| ours.entrance.process.cache_bytes = Some(1), "the larger value holds for both: cache");
    }

    #[test]
    fn a_route_that_another_environment_has_is_found_before_the_proxy_refuses_it() {
        let (dev, staging) = (key("dev"), key("staging"));
        let world = World::deployed(&dev, release(LISTEN));
        let taken = |key: &EnvironmentKey, change: fn(&mut ReleaseSpec)| {
            let mut ours = release(LISTEN);
            change(&mut ours);
            taken_route(key, &ours, [world.of(&dev)]).map(|taken| taken.to_string())
        };
        let text = "shop/dev has /api at 127.0.0.1:8080 already, for every host";
        assert_eq!(taken(&staging, |_| {}).as_deref(), Some(text));
        assert_eq!(taken(&dev, |_| {}), None, "its own");
        assert_eq!(taken(&staging, |ours| ours.listen.host = Some("a.example".into())), None);
        assert_eq!(taken(&staging, |ours| ours.listen.address = "127.0.0.1:8081".into()), None);
        let paths = |ours: &mut ReleaseSpec| {
            for service in ours.services.values_mut() {
                service.route.as_mut().unwrap().path.insert_str(0, "/other");
            }
        };
        assert_eq!(taken(&staging, paths), None);
    }

    #[test]
    fn a_host_is_the_same_in_capitals() {
        let with_host = |host: &str| {
            let mut spec = release(LISTEN);
            spec.listen.host = Some(host.to_owned());
            spec
        };
        let world = World::deployed(&key("dev"), with_host("shop.example"));
        let found = taken_route(&key("staging"), &with_host("Shop.Example"), [world.of(&key("dev"))]);
        assert_eq!(found.unwrap().host.as_deref(), Some("shop.example"));
    }

    #[test]
    fn environments_on_addresses_of_their_own_share_the_proxy_alone() {
        let told = told(|ours| {
            ours.listen.address = "127.0.0.1:8081".into();
            ours.entrance.proxy_protocol = true;
            ours.entrance.connections.idle_ms = Some(1);
            ours.entrance.process.access_log = true;
        });
        assert_eq!(told, [""; 0]);
    }
}
