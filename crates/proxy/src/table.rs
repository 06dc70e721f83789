//! A snapshot made ready for looking things up. Immutable; shared by all cores.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::balance::Decided;
use crate::control::Chosen;
use crate::endpoint::{Endpoint, Health};
use crate::entrance::Entrances;
use crate::limits::{IDLE_UPSTREAMS_MAX, Limits};
use crate::policy::cache::Space;
use crate::policy::{Limiters, RoutePolicy};
use crate::queue::Queue;
use crate::series::{Name, Series, SeriesBook};
use crate::snapshot::{
    Breaker, Instance, Listener, Maintenance, Match, Purpose, Route, Service, Snapshot, Sticky, Timeouts,
};

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub routes: Vec<RouteTable>,
    /// By the listener's address: a listener that is given another name stays the same.
    sites: BTreeMap<SocketAddr, Site>,
    pub services: Vec<ServiceTable>,
    pub entrances: Entrances,
    /// Of the process.
    pub limits: Limits,
    /// Answers for certificate authorities, by key.
    pub http_challenges: BTreeMap<String, String>,
    /// Every instance, by uid.
    pub endpoints: HashMap<u64, Arc<Endpoint>>,
}

/// The routes of one listener, as indices in [`Table::routes`]. Within each list the longest path comes first.
#[derive(Debug, Default)]
struct Site {
    exact: HashMap<String, Vec<usize>>,
    /// Suffix with its dot; the longest comes first.
    wildcards: Vec<(String, Vec<usize>)>,
    any: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct RouteTable {
    path: String,
    pub strip_prefix: bool,
    pub purpose: Purpose,
    /// Index in [`Table::services`].
    pub service: usize,
    /// Index in [`ServiceTable::versions`].
    pub pin: Option<usize>,
    pub maintenance: Option<Maintenance>,
    pub policy: RoutePolicy,
    /// One per version, in the same order.
    series: Vec<VersionSeries>,
    /// For requests that never got as far as a version.
    pub unserved: Arc<Series>,
    /// For copies; `None` where none are made.
    pub mirrored: Option<Arc<Series>>,
}

#[derive(Debug)]
struct VersionSeries {
    usual: Arc<Series>,
    /// For requests that a match sent here; `None` where that cannot happen or makes no difference.
    matched: Option<Arc<Series>>,
}

#[derive(Debug)]
pub(crate) struct ServiceTable {
    pub key: String,
    /// In the order of names.
    pub versions: Vec<VersionTable>,
    pub sticky: Option<Sticky>,
    pub hold: crate::snapshot::Hold,
    /// Requests being held now, over all cores and snapshots.
    pub held: Arc<AtomicU32>,
    pub breaker: Breaker,
    pub idle_upstreams_max: u32,
    pub timeouts: Timeouts,
    pub retry: crate::snapshot::Retry,
    pub eject: crate::snapshot::Eject,
    pub request_body_bytes_max: u64,
    pub mirror: Option<MirrorTable>,
    pub protocol: crate::snapshot::Protocol,
}

/// Which requests are copied for whom.
#[derive(Debug)]
pub(crate) struct MirrorTable {
    /// Index in [`ServiceTable::versions`].
    pub version: usize,
    pub percent: u32,
    pub unsafe_methods: bool,
    pub timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct VersionTable {
    pub name: String,
    /// For what is kept of its answers.
    pub space: Space,
    pub weight: u32,
    pub matches: Vec<Match>,
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Who waits until [`ServiceTable::breaker`] lets another request in.
    pub queue: Arc<Queue>,
}

/// What survives from one table to the next.
#[derive(Debug)]
pub(crate) struct TableMaker {
    cores: usize,
    next_uid: u64,
    series: Arc<SeriesBook>,
    /// By instance id.
    endpoints: BTreeMap<String, Arc<Endpoint>>,
    held: BTreeMap<String, Arc<AtomicU32>>,
    /// By service and version.
    queues: BTreeMap<(String, String), Arc<Queue>>,
    /// By service and version.
    spaces: BTreeMap<(String, String), Space>,
    next_space: u64,
    limiters: Limiters,
}

impl TableMaker {
    pub(crate) fn new(cores: usize, series: Arc<SeriesBook>) -> Self {
        Self {
            cores,
            next_uid: 1,
            series,
            endpoints: BTreeMap::new(),
            held: BTreeMap::new(),
            queues: BTreeMap::new(),
            spaces: BTreeMap::new(),
            next_space: 0,
            limiters: Limiters::default(),
        }
    }

    /// `snapshot` must be valid.
    pub(crate) fn make(&mut self, snapshot: &Snapshot, entrances: Entrances) -> Table {
        let mut table =
            Table { entrances, http_challenges: snapshot.http_challenges.clone(), ..Table::default() };
        let known = std::mem::take(&mut self.endpoints);
        let mut held = std::mem::take(&mut self.held);
        let mut queues = std::mem::take(&mut self.queues);
        let spaces = std::mem::take(&mut self.spaces);
        for (key, service) in &snapshot.services {
            let versions: Vec<VersionTable> = service
                .versions
                .iter()
                .map(|(name, version)| VersionTable {
                    name: name.clone(),
                    space: self.space(key, name, &spaces),
                    weight: version.weight,
                    matches: version.matches.clone(),
                    queue: self.queue(key, name, &mut queues),
                    endpoints: version
                        .instances
                        .iter()
                        .map(|instance| self.endpoint(instance, service, &known))
                        .collect(),
                })
                .collect();
            let held = held.remove(key).unwrap_or_default();
            self.held.insert(key.clone(), Arc::clone(&held));
            let mirror = service.mirror.as_ref().and_then(|mirror| {
                Some(MirrorTable {
                    version: versions.iter().position(|version| version.name == mirror.version)?,
                    percent: mirror.percent,
                    unsafe_methods: mirror.unsafe_methods,
                    timeout: Duration::from_millis(mirror.timeout_ms),
                })
            });
            table.services.push(ServiceTable {
                key: key.clone(),
                versions,
                mirror,
                sticky: service.sticky.clone(),
                hold: service.hold.clone(),
                held,
                breaker: service.breaker,
                idle_upstreams_max: service.idle_upstreams_max.unwrap_or(IDLE_UPSTREAMS_MAX),
                timeouts: service.timeouts.clone(),
                protocol: service.protocol,
                retry: service.retry.clone(),
                eject: service.eject.clone(),
                request_body_bytes_max: service.request_body_bytes_max.unwrap_or(u64::MAX),
            });
        }
        table.endpoints = self.endpoints.values().map(|e| (e.uid, Arc::clone(e))).collect();
        let before = std::mem::take(&mut self.limiters);
        let mut limiters = Limiters::default();
        for route in &snapshot.routes {
            let Some(index) = table.services.iter().position(|service| service.key == route.service) else {
                continue;
            };
            let Some(listener) = snapshot.listeners.iter().find(|l| l.name == route.listener) else {
                continue;
            };
            let policy = RoutePolicy::of(route, &mut limiters, &before);
            let target = &table.services[index];
            let compiled = self.route(route, policy, listener, index, target, snapshot.generation);
            table.sites.entry(listener.addr).or_default().add(route, table.routes.len());
            table.routes.push(compiled);
        }
        for site in table.sites.values_mut() {
            site.sort(&table.routes);
        }
        self.limiters = limiters;
        self.series.trim(snapshot.generation);
        table
    }

    fn space(&mut self, service: &str, version: &str, known: &BTreeMap<(String, String), Space>) -> Space {
        let key = (service.to_owned(), version.to_owned());
        let space = known.get(&key).copied().unwrap_or_else(|| {
            self.next_space += 1;
            Space(self.next_space)
        });
        self.spaces.insert(key, space);
        space
    }

    fn queue(
        &mut self,
        service: &str,
        version: &str,
        known: &mut BTreeMap<(String, String), Arc<Queue>>,
    ) -> Arc<Queue> {
        let key = (service.to_owned(), version.to_owned());
        let queue = known.remove(&key).unwrap_or_default();
        self.queues.insert(key, Arc::clone(&queue));
        queue
    }

    fn endpoint(
        &mut self,
        instance: &Instance,
        service: &Service,
        known: &BTreeMap<String, Arc<Endpoint>>,
    ) -> Arc<Endpoint> {
        let endpoint = match known.get(&instance.id) {
            Some(endpoint) if endpoint.addr == instance.addr => Arc::clone(endpoint),
            Some(_) | None => {
                let health = if service.health.is_some() { Health::Unchecked } else { Health::Healthy };
                let uid = self.next_uid;
                self.next_uid += 1;
                Arc::new(Endpoint::new(uid, instance.id.clone(), instance.addr, self.cores, health))
            }
        };
        if service.health.is_none() {
            // Checks that were switched off can no longer bring it back.
            endpoint.set_health(Health::Healthy);
        }
        self.endpoints.insert(instance.id.clone(), Arc::clone(&endpoint));
        endpoint
    }

    fn route(
        &self,
        route: &Route,
        policy: RoutePolicy,
        listener: &Listener,
        service: usize,
        target: &ServiceTable,
        generation: u64,
    ) -> RouteTable {
        let pin = route.pin.as_ref().and_then(|pin| target.versions.iter().position(|v| v.name == *pin));
        let usual = match (listener.purpose, pin) {
            (Purpose::Preview, _) => Chosen::Preview,
            (Purpose::Public | Purpose::Internal, Some(_)) => Chosen::Only,
            (Purpose::Public | Purpose::Internal, None) => Chosen::Weight,
        };
        let series = |version: &str, chosen: Chosen| {
            let (service, version) = (target.key.clone(), version.to_owned());
            self.series.series(Name { service, version, route: route.label(), chosen }, generation)
        };
        let of_version = |version: &VersionTable| VersionSeries {
            usual: series(&version.name, usual),
            matched: (usual == Chosen::Weight && !version.matches.is_empty())
                .then(|| series(&version.name, Chosen::Match)),
        };
        let mirror = target.mirror.as_ref().filter(|_| listener.purpose == Purpose::Public);
        RouteTable {
            path: route.path.clone(),
            strip_prefix: route.strip_prefix && route.path != "/",
            purpose: listener.purpose,
            service,
            pin,
            maintenance: route.maintenance.clone(),
            policy,
            series: target.versions.iter().map(of_version).collect(),
            unserved: series("", usual),
            mirrored: mirror.map(|to| series(&target.versions[to.version].name, Chosen::Mirror)),
        }
    }
}

impl Site {
    fn add(&mut self, route: &Route, compiled: usize) {
        match route.host.as_deref().map(str::to_ascii_lowercase) {
            None => self.any.push(compiled),
            Some(host) => match host.strip_prefix('*') {
                None => self.exact.entry(host).or_default().push(compiled),
                Some(suffix) => match self.wildcards.iter_mut().find(|(known, _)| known == suffix) {
                    Some((_, routes)) => routes.push(compiled),
                    None => self.wildcards.push((suffix.to_owned(), vec![compiled])),
                },
            },
        }
    }

    fn sort(&mut self, routes: &[RouteTable]) {
        let longest_first = |indices: &mut Vec<usize>| {
            indices.sort_by_key(|index| std::cmp::Reverse(routes[*index].path.len()));
        };
        longest_first(&mut self.any);
        self.exact.values_mut().for_each(longest_first);
        self.wildcards.iter_mut().for_each(|(_, routes)| longest_first(routes));
        self.wildcards.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    }
}

impl ServiceTable {
    /// Whether its breaker lets no other request in.
    pub(crate) fn is_full(&self) -> bool {
        self.breaker.requests.is_some_and(|most| {
            let endpoints = self.versions.iter().flat_map(|version| &version.endpoints);
            endpoints.map(|endpoint| endpoint.in_flight()).sum::<u64>() >= u64::from(most)
        })
    }
}

impl Table {
    /// One for each version.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = Space> {
        self.services.iter().flat_map(|service| &service.versions).map(|version| version.space)
    }

    /// Whether the version is still there.
    pub(crate) fn has_space(&self, space: Space) -> bool {
        self.spaces().any(|known| known == space)
    }

    /// The route for a host (without port) and a path (without query): the most specific host that has a
    /// matching path, and of its paths the longest.
    /// An index in [`Table::routes`].
    pub(crate) fn route(&self, listener: SocketAddr, host: &str, path: &str) -> Option<usize> {
        let site = self.sites.get(&listener)?;
        let find =
            |indices: &[usize]| indices.iter().copied().find(|index| self.routes[*index].matches(path));
        if !site.exact.is_empty() || !site.wildcards.is_empty() {
            let lower;
            let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
                lower = host.to_ascii_lowercase();
                lower.as_str()
            } else {
                host
            };
            if let Some(found) = site.exact.get(host).and_then(|indices| find(indices)) {
                return Some(found);
            }
            let below = |suffix: &String| host.len() > suffix.len() && host.ends_with(suffix.as_str());
            let mut wildcards = site.wildcards.iter().filter(|(suffix, _)| below(suffix));
            if let Some(found) = wildcards.find_map(|(_, indices)| find(indices)) {
                return Some(found);
            }
        }
        find(&site.any)
    }
}

/// Whether a path lies below a prefix that ends on a segment's boundary.
pub(crate) fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl RouteTable {
    fn matches(&self, path: &str) -> bool {
        is_below(path, &self.path)
    }

    /// Where a request to the version is counted.
    pub(crate) fn series(&self, version: usize, decided: Decided) -> &Arc<Series> {
        let of_version = &self.series[version];
        match decided {
            Decided::Match => of_version.matched.as_ref().unwrap_or(&of_version.usual),
            Decided::Pin | Decided::Sticky | Decided::Weight => &of_version.usual,
        }
    }

    /// The prefix that is taken off, if any.
    pub(crate) fn stripped(&self) -> Option<&str> {
        self.strip_prefix.then_some(self.path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Policy;

    fn table(routes: &[(&str, &str)]) -> Table {
        let mut snapshot: Snapshot = serde_json::from_str(
            r#"{"generation":1,"listeners":[{"name":"web","addr":"127.0.0.1:1"}],
                "services":{"s":{"versions":{"r1":{"weight":1}}}}}"#,
        )
        .unwrap();
        for (host, path) in routes {
            snapshot.routes.push(Route {
                listener: "web".into(),
                host: (*host != "*").then(|| (*host).to_owned()),
                path: (*path).into(),
                strip_prefix: false,
                service: "s".into(),
                pin: None,
                maintenance: None,
                policy: Policy::default(),
            });
        }
        snapshot.validate().unwrap();
        TableMaker::new(1, Arc::new(SeriesBook::new(1))).make(&snapshot, Entrances::new())
    }

    #[test]
    fn the_most_specific_route_wins() {
        let table = table(&[
            ("*", "/"),
            ("*", "/api"),
            ("*", "/api/v2"),
            ("a.example", "/x"),
            ("*.example", "/"),
            ("*.b.example", "/"),
        ]);
        let check = |host: &str, path: &str, expect: &str| {
            let found = table
                .route(([127, 0, 0, 1], 1).into(), host, path)
                .map_or("none", |at| table.routes[at].unserved.labels().0);
            assert_eq!(found, expect, "{host} {path}");
        };
        check("h", "/", "*/");
        check("h", "/api", "*/api");
        check("h", "/api/", "*/api");
        check("h", "/apix", "*/");
        check("h", "/api/v2/x", "*/api/v2");
        check("h", "/api/v20", "*/api");
        check("a.example", "/x/y", "a.example/x");
        check("A.Example", "/x", "a.example/x");
        check("a.example", "/y", "*.example/");
        check("c.b.example", "/y", "*.b.example/");
        check("example", "/y", "*/");
        check("", "*", "*/");
        assert!(table.route(([127, 0, 0, 1], 2).into(), "h", "/").is_none());
    }

    #[test]
    fn an_instance_that_stays_keeps_its_counts_and_one_that_moved_does_not() {
        let snapshot = |addr: &str| -> Snapshot {
            serde_json::from_str(&format!(
                r#"{{"generation":1,"services":{{"s":{{"versions":{{"r1":{{"weight":1,
                    "instances":[{{"id":"i","addr":"{addr}"}}]}}}}}}}}}}"#
            ))
            .unwrap()
        };
        let mut maker = TableMaker::new(1, Arc::new(SeriesBook::new(1)));
        let uid = |table: &Table| *table.endpoints.keys().next().unwrap();
        let first = uid(&maker.make(&snapshot("127.0.0.1:1"), Entrances::new()));
        assert_eq!(uid(&maker.make(&snapshot("127.0.0.1:1"), Entrances::new())), first);
        assert_ne!(uid(&maker.make(&snapshot("127.0.0.1:2"), Entrances::new())), first);
    }
}
