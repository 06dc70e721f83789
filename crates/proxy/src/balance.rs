//! Which version, and which instance of it. One core's view: nothing here is shared.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::codec::RequestHead;
use crate::endpoint::{Endpoint, Health, InFlight};
use crate::limits::RETRY_RESERVE;
use crate::snapshot::Match;
use crate::table::{RouteTable, ServiceTable, Table, VersionTable};

/// A table with the state that choosing from it needs.
#[derive(Debug)]
pub(crate) struct Routing {
    pub table: Arc<Table>,
    services: Vec<ServiceState>,
}

#[derive(Debug)]
struct ServiceState {
    shares: RefCell<Shares>,
    /// Repeats of sent requests that are still allowed.
    retries: Cell<f64>,
    /// Hundredths of a copy that the mirroring version is owed.
    copies: Cell<u32>,
}

/// Smooth weighted round robin, as nginx has it: over any `sum of weights` requests each version gets exactly
/// its weight, spread evenly.
#[derive(Debug, Default)]
struct Shares {
    /// How much each version is owed; sums to 0.
    owed: Vec<i64>,
}

impl Shares {
    fn next(&mut self, versions: &[VersionTable]) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut total = 0;
        for (index, version) in versions.iter().enumerate() {
            if version.weight > 0 {
                self.owed[index] += i64::from(version.weight);
                total += i64::from(version.weight);
                if best.is_none_or(|best| self.owed[index] > self.owed[best]) {
                    best = Some(index);
                }
            }
        }
        let best = best?;
        self.owed[best] -= total;
        Some(best)
    }
}

/// How a version was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    /// By the route, which leads nowhere else: no other version will do.
    Pin,
    /// By what the tester sent: no other version will do.
    Match,
    /// By the visitor's cookie.
    Sticky,
    /// By weight.
    Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Index in [`ServiceTable::versions`].
    pub version: usize,
    pub decided: Decided,
}

/// Result of looking for an instance.
#[derive(Debug)]
pub(crate) enum Pick {
    Endpoint {
        version: usize,
        guard: InFlight,
    },
    /// None now; there may be one after a swap, a health check or a while.
    None,
    /// Every one that could be asked has as many requests as it may have.
    Full,
}

impl Routing {
    /// What versions are owed is carried over by name: with swaps every few requests a version of weight 1
    /// would otherwise never get its turn.
    pub(crate) fn new(table: Arc<Table>, before: Option<&Self>) -> Self {
        let services = table
            .services
            .iter()
            .map(|service| {
                let old = before.and_then(|before| before.state(&service.key));
                let owed = service
                    .versions
                    .iter()
                    .map(|version| match old {
                        // Nothing is owed by or to a version that gets nothing: or the debt would come due
                        // with its next weight.
                        Some((table, state)) if version.weight > 0 => state.owed(table, &version.name),
                        Some(_) | None => 0,
                    })
                    .collect();
                let mut shares = Shares { owed };
                shares.settle(&service.versions);
                ServiceState {
                    shares: RefCell::new(shares),
                    retries: Cell::new(old.map_or(RETRY_RESERVE, |(_, state)| state.retries.get())),
                    copies: Cell::new(old.map_or(0, |(_, state)| state.copies.get())),
                }
            })
            .collect();
        Self { table, services }
    }

    fn state(&self, key: &str) -> Option<(&ServiceTable, &ServiceState)> {
        let index = self.table.services.iter().position(|service| service.key == key)?;
        Some((&self.table.services[index], &self.services[index]))
    }

    /// Chooses a version for a request. `before`: the version that the same request had in an earlier table.
    pub(crate) fn choose(
        &self,
        route: &RouteTable,
        head: &RequestHead<'_, '_>,
        before: Option<&str>,
    ) -> Option<Choice> {
        let service = &self.table.services[route.service];
        if let Some(version) = route.pin {
            return Some(Choice { version, decided: Decided::Pin });
        }
        if let Some(version) = service.versions.iter().position(|version| is_match(version, head)) {
            return Some(Choice { version, decided: Decided::Match });
        }
        let weighty = |name: &[u8]| {
            service.versions.iter().position(|version| version.weight > 0 && version.name.as_bytes() == name)
        };
        if let Some(sticky) = &service.sticky
            && let Some(version) = head.cookie(&sticky.cookie).and_then(weighty)
        {
            return Some(Choice { version, decided: Decided::Sticky });
        }
        let version = match before.and_then(|name| weighty(name.as_bytes())) {
            Some(version) => version,
            None => self.services[route.service].shares.borrow_mut().next(&service.versions)?,
        };
        Some(Choice { version, decided: Decided::Weight })
    }

    /// Chooses an instance that is not in `tried` and counts the request in, in one step: no swap can come
    /// between. Of two random candidates the less busy one (Mitzenmacher, 2001).
    pub(crate) fn pick(
        &self,
        service: usize,
        choice: Choice,
        tried: &[u64],
        core: usize,
        random: &mut impl FnMut() -> u64,
    ) -> Pick {
        let service = &self.table.services[service];
        let versions = &service.versions;
        let most = service.breaker.per_instance.map_or(u64::MAX, u64::from);
        let is_bounded = !service.breaker.is_off();
        if service.is_full() {
            return Pick::Full;
        }
        let mut from = |version: usize| {
            let endpoint = pick_endpoint(&versions[version].endpoints, tried, most, core, random)?;
            let wakes = is_bounded.then_some(&versions[version].queue);
            Some(Pick::Endpoint { version, guard: InFlight::begin(endpoint, core, wakes) })
        };
        if let Some(pick) = from(choice.version) {
            return pick;
        }
        let is_full = |version: &VersionTable| {
            let usable = |e: &&Arc<Endpoint>| e.health() != Health::Unchecked && !tried.contains(&e.uid);
            version.endpoints.iter().filter(usable).any(|endpoint| endpoint.in_flight() >= most)
        };
        let nobody = if is_full(&versions[choice.version]) { Pick::Full } else { Pick::None };
        match choice.decided {
            Decided::Pin | Decided::Match => nobody,
            // The share of a version without any usable instance goes to the others: exact weights are worth
            // less than the request.
            Decided::Sticky | Decided::Weight => (0..versions.len())
                .filter(|version| *version != choice.version && versions[*version].weight > 0)
                .find_map(from)
                .unwrap_or(nobody),
        }
    }

    /// Whether this one of the requests that can be copied is copied: of any 100, exactly `percent` are.
    pub(crate) fn take_copy(&self, service: usize) -> bool {
        let Some(mirror) = &self.table.services[service].mirror else { return false };
        let copies = &self.services[service].copies;
        let owed = copies.get() + mirror.percent;
        copies.set(owed % 100);
        owed >= 100
    }

    /// Counts a request towards the retry budget.
    pub(crate) fn earn_retries(&self, service: usize) {
        let share = f64::from(self.table.services[service].retry.budget_percent) / 100.0;
        let retries = &self.services[service].retries;
        // Ten reserves: a quiet hour must not save up for a storm.
        retries.set((retries.get() + share).min(RETRY_RESERVE * 10.0));
    }

    /// Takes one repeat of a sent request out of the budget.
    pub(crate) fn spend_retry(&self, service: usize) -> bool {
        let retries = &self.services[service].retries;
        let left = retries.get() - 1.0;
        if left < 0.0 {
            return false;
        }
        retries.set(left);
        true
    }
}

impl ServiceState {
    fn owed(&self, table: &ServiceTable, version: &str) -> i64 {
        let index = table.versions.iter().position(|known| known.name == version);
        index.map_or(0, |index| self.shares.borrow().owed[index])
    }
}

impl Shares {
    /// After versions came or went, what is owed no longer sums to 0, and debts from other weights may be more
    /// than a whole round. The difference is taken from the heaviest version, which notices least.
    fn settle(&mut self, versions: &[VersionTable]) {
        let total: i64 = versions.iter().map(|version| i64::from(version.weight)).sum();
        for owed in &mut self.owed {
            *owed = (*owed).clamp(-total, total);
        }
        let sum: i64 = self.owed.iter().sum();
        let heaviest = (0..versions.len()).max_by_key(|index| versions[*index].weight);
        if let Some(heaviest) = heaviest {
            self.owed[heaviest] -= sum;
        }
    }
}

fn is_match(version: &VersionTable, head: &RequestHead<'_, '_>) -> bool {
    version.matches.iter().any(|condition| match condition {
        Match::Header { name, value } => head.named(name).any(|found| found == value.as_bytes()),
        Match::Cookie { name, value } => head.cookie(name) == Some(value.as_bytes()),
    })
}

fn pick_endpoint<'e>(
    endpoints: &'e [Arc<Endpoint>],
    tried: &[u64],
    most: u64,
    core: usize,
    random: &mut impl FnMut() -> u64,
) -> Option<&'e Arc<Endpoint>> {
    let has_room = |endpoint: &Endpoint| most == u64::MAX || endpoint.in_flight() < most;
    if let [only] = endpoints {
        let usable = only.health() != Health::Unchecked && !tried.contains(&only.uid) && has_room(only);
        return usable.then_some(only);
    }
    let checked = endpoints.iter().filter(|e| e.health() != Health::Unchecked).count();
    let fit = endpoints.iter().filter(|e| e.is_fit()).count();
    // Panic: when most are down, the checks are more likely wrong than the instances, and the few that are left
    // would drown. Then all are used.
    let panic = fit * 2 < checked;
    let usable = |endpoint: &Endpoint| {
        let fit = if panic { endpoint.health() != Health::Unchecked } else { endpoint.is_fit() };
        fit && !tried.contains(&endpoint.uid) && has_room(endpoint)
    };
    let mut candidates = endpoints.iter().filter(|e| usable(e)).count();
    if candidates == 0 {
        // Every fit one was tried: the unfit ones are the last resort before holding.
        let last =
            |e: &&Arc<Endpoint>| e.health() != Health::Unchecked && !tried.contains(&e.uid) && has_room(e);
        return endpoints.iter().find(last);
    }
    let nth = |n: usize| endpoints.iter().filter(|e| usable(e)).nth(n);
    let index = |bits: u64, n: usize| (((bits & 0xffff_ffff) * n as u64) >> 32) as usize;
    let bits = random();
    let first = index(bits, candidates);
    if candidates == 1 {
        return nth(first);
    }
    candidates -= 1;
    let mut second = index(bits >> 32, candidates);
    if second >= first {
        second += 1;
    }
    let (a, b) = (nth(first)?, nth(second)?);
    Some(if b.in_flight_on(core) < a.in_flight_on(core) { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::header_storage;
    use crate::entrance::Entrances;
    use crate::series::SeriesBook;
    use crate::snapshot::Snapshot;
    use crate::table::TableMaker;

    fn snapshot(versions: &str) -> Snapshot {
        serde_json::from_str(&format!(
            r#"{{"generation":1,"listeners":[{{"name":"web","addr":"127.0.0.1:1"}}],
                "services":{{"s":{{"sticky":{{"cookie":"side"}},"versions":{versions}}}}},
                "routes":[{{"listener":"web","path":"/","service":"s"}}]}}"#
        ))
        .unwrap()
    }

    fn routing(versions: &str, before: Option<&Routing>) -> Routing {
        let table =
            TableMaker::new(1, Arc::new(SeriesBook::new(1))).make(&snapshot(versions), Entrances::new());
        Routing::new(Arc::new(table), before)
    }

    fn choose(routing: &Routing, fields: &str) -> String {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut storage = header_storage();
        let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap();
        let route = &routing.table.routes[routing.table.route(([127, 0, 0, 1], 1).into(), "a", "/").unwrap()];
        let choice = routing.choose(route, &head, None).unwrap();
        format!("{} {:?}", routing.table.services[0].versions[choice.version].name, choice.decided)
    }

    #[test]
    fn weights_are_exact() {
        let routing =
            routing(r#"{"a":{"weight":90},"b":{"weight":7},"c":{"weight":3},"d":{"weight":0}}"#, None);
        for _ in 0..5 {
            let mut counts = [0; 4];
            for _ in 0..100 {
                let chosen = choose(&routing, "");
                counts[usize::from(chosen.as_bytes()[0] - b'a')] += 1;
            }
            assert_eq!(counts, [90, 7, 3, 0]);
        }
    }

    #[test]
    fn weights_stay_exact_when_every_request_meets_a_new_snapshot() {
        let versions = r#"{"a":{"weight":99},"b":{"weight":1}}"#;
        let mut current = routing(versions, None);
        let mut canary = 0;
        for _ in 0..1_000 {
            canary += usize::from(choose(&current, "").starts_with('b'));
            current = routing(versions, Some(&current));
        }
        assert_eq!(canary, 10);
    }

    #[test]
    fn copies_are_exact_through_every_snapshot() {
        let routing = |percent: u32, before: Option<&Routing>| {
            let mut snapshot = snapshot(r#"{"a":{"weight":1},"b":{"weight":0}}"#);
            let mirror = format!(r#"{{"version":"b","percent":{percent}}}"#);
            snapshot.services.get_mut("s").unwrap().mirror = Some(serde_json::from_str(&mirror).unwrap());
            snapshot.validate().unwrap();
            let table = TableMaker::new(1, Arc::new(SeriesBook::new(1))).make(&snapshot, Entrances::new());
            Routing::new(Arc::new(table), before)
        };
        for percent in [1, 7, 50, 99, 100] {
            let mut current = routing(percent, None);
            let mut copies = 0;
            for _ in 0..300 {
                copies += u32::from(current.take_copy(0));
                current = routing(percent, Some(&current));
            }
            assert_eq!(copies, 3 * percent);
        }
    }

    #[test]
    fn a_version_at_weight_0_owes_and_is_owed_nothing() {
        let before = routing(r#"{"a":{"weight":50},"b":{"weight":50}}"#, None);
        choose(&before, "");
        let off = routing(r#"{"a":{"weight":100},"b":{"weight":0}}"#, Some(&before));
        for _ in 0..200 {
            assert_eq!(choose(&off, ""), "a Weight");
        }
        let again = routing(r#"{"a":{"weight":50},"b":{"weight":50}}"#, Some(&off));
        let b = (0..100).filter(|_| choose(&again, "").starts_with('b')).count();
        assert!((49..=51).contains(&b), "{b}");
    }

    #[test]
    fn matches_come_before_cookies_and_cookies_before_weights() {
        let routing = routing(
            r#"{"a":{"weight":100},"b":{"weight":0,"matches":[{"kind":"header","name":"X-Canary","value":"1"},
                {"kind":"cookie","name":"tester","value":"yes"}]},"c":{"weight":1}}"#,
            None,
        );
        assert_eq!(choose(&routing, "x-canary: 1\r\nCookie: side=c\r\n"), "b Match");
        assert_eq!(choose(&routing, "x-canary: 2\r\n"), "a Weight");
        assert_eq!(choose(&routing, "Cookie: x=1; tester=yes\r\n"), "b Match");
        assert_eq!(choose(&routing, "Cookie: side=c\r\n"), "c Sticky");
        assert_eq!(choose(&routing, "Cookie: side=b\r\n"), "a Weight", "b has no weight any more");
        assert_eq!(choose(&routing, "Cookie: side=zzz\r\n"), "a Weight");
    }

    fn endpoints(healths: &[Health]) -> Vec<Arc<Endpoint>> {
        let make = |(i, health): (usize, &Health)| {
            Arc::new(Endpoint::new(i as u64, i.to_string(), ([127, 0, 0, 1], 1).into(), 1, *health))
        };
        healths.iter().enumerate().map(make).collect()
    }

    fn picked(endpoints: &[Arc<Endpoint>], tried: &[u64]) -> Vec<u64> {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29)
        };
        let mut found: Vec<u64> = (0..200)
            .filter_map(|_| pick_endpoint(endpoints, tried, u64::MAX, 0, &mut random).map(|e| e.uid))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn unfit_instances_get_nothing_until_most_are_unfit() {
        use Health::{Healthy, Unchecked, Unhealthy};
        let check = |healths: &[Health], tried: &[u64], expect: &[u64]| {
            assert_eq!(picked(&endpoints(healths), tried), expect, "{healths:?} {tried:?}");
        };
        check(&[Healthy, Healthy, Healthy], &[], &[0, 1, 2]);
        check(&[Healthy, Unhealthy, Healthy], &[], &[0, 2]);
        check(&[Healthy, Unhealthy], &[], &[0]);
        check(&[Healthy, Unhealthy, Unhealthy], &[], &[0, 1, 2]);
        check(&[Healthy, Unchecked, Unchecked, Unchecked], &[], &[0]);
        check(&[Unchecked, Unchecked], &[], &[]);
        check(&[Unchecked], &[], &[]);
        check(&[Unhealthy], &[], &[0]);
        check(&[Healthy, Unhealthy], &[0], &[1]);
        check(&[Healthy, Healthy], &[0, 1], &[]);
    }

    /// What becomes of a version of which most instances fail: no signal ejects the last one that is fit, and when
    /// fewer than half are fit all are used, for then the signals are more likely wrong than the instances, and the few
    /// would drown.
    #[test]
    fn ejections_leave_one_and_beyond_half_of_them_all_are_used() {
        let eject = crate::snapshot::Eject { failures: 1, ..Default::default() };
        let all = endpoints(&[Health::Healthy; 4]);
        let fail = |index: usize| {
            let others_fit = || all.iter().any(|other| other.uid != index as u64 && other.is_fit());
            all[index].answered(true, &eject, others_fit);
        };
        fail(0);
        assert_eq!(picked(&all, &[]), [1, 2, 3]);
        fail(1);
        assert_eq!(picked(&all, &[]), [2, 3], "half of them are enough");
        fail(2);
        assert_eq!(picked(&all, &[]), [0, 1, 2, 3], "one of four would drown");
        (0..100).for_each(|_| fail(3));
        assert!(all[3].is_fit(), "the last one is never ejected");
        // Of two one is half.
        let two = endpoints(&[Health::Healthy; 2]);
        two[0].answered(true, &eject, || two[1].is_fit());
        two[1].answered(true, &eject, || two[0].is_fit());
        assert_eq!(picked(&two, &[]), [1]);
        assert_eq!(picked(&two, &[1]), [0], "where the fit one was tried, the other is better than none");
    }

    #[test]
    fn the_less_busy_of_two_is_taken() {
        let endpoints = endpoints(&[Health::Healthy, Health::Healthy]);
        let _busy = InFlight::begin(&endpoints[0], 0, None);
        assert_eq!(picked(&endpoints, &[]), [1]);
    }

    #[test]
    fn a_version_without_instances_gives_its_share_to_the_others() {
        let routing = routing(
            r#"{"a":{"weight":50},"b":{"weight":50,"instances":[{"id":"b1","addr":"127.0.0.1:1"}]}}"#,
            None,
        );
        let pick = |decided| routing.pick(0, Choice { version: 0, decided }, &[], 0, &mut || 0);
        assert!(matches!(pick(Decided::Weight), Pick::Endpoint { version: 1, .. }));
        assert!(matches!(pick(Decided::Match), Pick::None));
    }

    #[test]
    fn the_retry_budget_runs_out_and_is_earned_again() {
        let routing = routing(r#"{"a":{"weight":1}}"#, None);
        assert_eq!((0..100).filter(|_| routing.spend_retry(0)).count(), 10);
        for _ in 0..6 {
            routing.earn_retries(0);
        }
        assert_eq!((0..100).filter(|_| routing.spend_retry(0)).count(), 1);
    }
}
