//! Which route table an environment ought to have now.

use std::collections::BTreeMap;

use crate::capacity::floor;
use crate::environment::{Environment, Power, count};
use crate::id::{InstanceId, ReleaseNumber, ServiceName};
use crate::instance::Address;
use crate::rollout::{Phase, Rollout, RolloutKind, StepState};
use crate::routes::{RouteTable, ServiceRoute, VersionRoute};
use crate::strategy::{Match, Strategy};

impl Environment {
    /// The table that follows from releases, rollout and instances. It names only instances that proved ready;
    /// suspect ones only where no ready one of their version is left.
    #[must_use]
    pub fn desired_table(&self) -> RouteTable {
        if let Power::Down { .. } = self.power {
            return RouteTable { maintenance: self.maintenance.clone(), ..RouteTable::default() };
        }
        let share = self.rollout.as_ref().map_or(0, |rollout| self.share_of_new(rollout));
        let facing = self.facing_release(share);
        let services = self
            .services()
            .into_iter()
            .filter_map(|service| {
                let versions = self.versions(&service, share)?;
                let spec = self.spec_for_route(&service, facing)?;
                Some((service, ServiceRoute { route: spec.route.clone(), versions }))
            })
            .collect();
        RouteTable {
            listen: facing
                .and_then(|release| self.release(release))
                .map(|release| release.spec.listen.clone()),
            services,
            preview: self.preview(),
            maintenance: self.maintenance.clone(),
        }
    }

    /// Percent of public traffic that the new version gets now. Less than the step's weight for as long as the copies
    /// for it are not ready: capacity comes first, traffic after it.
    fn share_of_new(&self, rollout: &Rollout) -> u32 {
        let weight = rollout.weight();
        match rollout.phase {
            Phase::Shifting { state: StepState::Raising, .. }
                if !rollout.is_rolling() && !self.can_take_traffic(rollout) =>
            {
                // What it has it keeps: a copy that falters on the way must not send everybody back and forth.
                let has = self
                    .routes
                    .table
                    .services
                    .keys()
                    .filter(|service| rollout.from.is_none_or(|from| self.takes(from, service)))
                    .map(|service| self.routes.table.weight(service, rollout.to))
                    .max();
                weight.min(has.unwrap_or(0))
            }
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => weight,
        }
    }

    /// The release that most visitors see: its listener and its routes are the ones that hold.
    fn facing_release(&self, share: u32) -> Option<ReleaseNumber> {
        let Some(rollout) = &self.rollout else { return self.stable };
        match rollout.phase {
            // Nothing is left to listen for when a first deploy has failed.
            Phase::Aborting { .. } => rollout.from,
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing => {
                if share >= 100 {
                    Some(rollout.to)
                } else {
                    rollout.from.or(Some(rollout.to))
                }
            }
        }
    }

    fn spec_for_route(
        &self,
        service: &ServiceName,
        facing: Option<ReleaseNumber>,
    ) -> Option<&crate::service::ServiceSpec> {
        let rollout = self.rollout.as_ref().map(|rollout| rollout.to);
        [facing, rollout, self.stable]
            .into_iter()
            .flatten()
            .chain(self.active_releases())
            .chain(self.instances.keys().filter(|id| id.service == *service).map(|id| id.release))
            .filter_map(|release| self.service(release, service))
            .find(|spec| spec.takes_requests())
    }

    /// Until the rollout is over, so that the switch itself is the last table that it needs.
    fn preview(&self) -> Option<ReleaseNumber> {
        self.rollout.as_ref().filter(|rollout| self.is_shown(rollout)).map(|rollout| rollout.to)
    }

    fn versions(&self, service: &ServiceName, share: u32) -> Option<BTreeMap<ReleaseNumber, VersionRoute>> {
        let mut weights = self.weights(service, share);
        let mut copies: BTreeMap<ReleaseNumber, BTreeMap<InstanceId, Address>> =
            weights.keys().map(|release| (*release, self.routable(*release, service))).collect();
        let has_copies =
            |release: &ReleaseNumber| copies.get(release).is_some_and(|copies| !copies.is_empty());

        let lost: u32 =
            weights.iter().filter(|(release, _)| !has_copies(release)).map(|(_, weight)| *weight).sum();
        let largest = |weights: &BTreeMap<ReleaseNumber, u32>, only: &dyn Fn(&ReleaseNumber) -> bool| {
            let shares = weights.iter().filter(|(release, weight)| **weight > 0 && only(release));
            shares.max_by_key(|(_, weight)| **weight).map(|(release, _)| *release)
        };
        let mut waits = None;
        if lost > 0 {
            if let Some(heir) = largest(&weights, &has_copies) {
                for (release, weight) in &mut weights {
                    if !has_copies(release) {
                        *weight = 0;
                    }
                }
                *weights.entry(heir).or_insert(0) += lost;
            } else {
                // Nobody who should serve can: better an older or a leaving copy than an error. Where there is none
                // either, the version stays in the table without copies, and requests wait for it.
                waits = largest(&weights, &|_| true);
                let all = self.fallback(service).or(waits);
                for weight in weights.values_mut() {
                    *weight = 0;
                }
                if let Some(all) = all {
                    weights.insert(all, 100);
                    copies.entry(all).or_insert_with(|| self.routable(all, service));
                }
            }
        }
        let new = self.rollout.as_ref().map(|rollout| rollout.to);
        let is_previewed = self.rollout.as_ref().is_some_and(|rollout| {
            self.is_shown(rollout) && copies.get(&rollout.to).is_some_and(|copies| !copies.is_empty())
        });
        // A service that nobody gets to see any more must not shadow the routes of others.
        if weights.values().all(|weight| *weight == 0) && !is_previewed {
            return None;
        }
        let versions: BTreeMap<ReleaseNumber, VersionRoute> = weights
            .into_iter()
            .map(|(release, weight)| {
                let matches = if new == Some(release) && weight < 100 { self.matches() } else { Vec::new() };
                let mirror = if new == Some(release) { self.mirror(service, release) } else { 0 };
                let instances = copies.remove(&release).unwrap_or_default();
                (release, VersionRoute { weight, matches, mirror, instances })
            })
            .filter(|(release, version)| {
                !version.instances.is_empty() || (version.weight > 0 && waits == Some(*release))
            })
            .collect();
        (!versions.is_empty()).then_some(versions)
    }

    /// Percent per release; releases with 0 are reachable by preview or match, or wait warm.
    fn weights(&self, service: &ServiceName, share: u32) -> BTreeMap<ReleaseNumber, u32> {
        let mut weights = BTreeMap::new();
        if let Some(warm) = &self.warm {
            weights.insert(warm.release, 0);
        }
        let base = match &self.rollout {
            None => {
                if let Some(stable) = self.stable {
                    weights.insert(stable, 100);
                }
                self.stable
            }
            Some(rollout) => {
                let (new, old) = self.split(rollout, service, share);
                if let Some(from) = rollout.from {
                    weights.insert(from, old);
                }
                if new > 0 || self.is_shown(rollout) || weights.contains_key(&rollout.to) {
                    weights.insert(rollout.to, new);
                }
                rollout.from
            }
        };
        weights.retain(|release, _| self.takes(*release, service));
        if let Some(base) = base {
            self.let_stand_in(&mut weights, base, service);
        }
        weights
    }

    /// Where stable has been taken apart, what an earlier rollout left behind carries its part of stable's share.
    fn let_stand_in(
        &self,
        weights: &mut BTreeMap<ReleaseNumber, u32>,
        stable: ReleaseNumber,
        service: &ServiceName,
    ) {
        for leaving in self.leaving.keys().copied().filter(|leaving| *leaving != stable) {
            let whole = weights.get(&stable).copied().unwrap_or(0);
            let (own, other) = (self.ready_count(stable, service), self.ready_count(leaving, service));
            if whole == 0 || self.stand_ins(leaving, service) == 0 {
                continue;
            }
            let part = whole * other / (own + other);
            weights.insert(stable, whole - part);
            *weights.entry(leaving).or_insert(0) += part;
        }
    }

    /// Is the new version in the table at all, if only for the preview? From its first ready copy on its services may
    /// call each other: a front end whose readiness asks the API could not become ready otherwise.
    fn is_shown(&self, rollout: &Rollout) -> bool {
        match rollout.phase {
            Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing => true,
            Phase::Planned | Phase::Migrating { .. } | Phase::Aborting { .. } => false,
        }
    }

    /// `(new, old)` percent of `service`.
    fn split(&self, rollout: &Rollout, service: &ServiceName, share: u32) -> (u32, u32) {
        let Some(from) = rollout.from else { return (share, 0) };
        match (self.takes(rollout.to, service), self.takes(from, service)) {
            // New in this release: only the new version's pages lead to it, so it answers as soon as they can be seen.
            (true, false) => (if share > 0 { 100 } else { 0 }, 0),
            (false, _) if share < 100 => (0, 100),
            (false, _) if matches!(rollout.phase, Phase::Shifting { .. }) && rollout.is_rolling() => (0, 100),
            (false, _) => (0, 0),
            (true, true) if rollout.is_rolling() => self.rolling_split(rollout, from, service),
            (true, true) => (share, 100 - share.min(100)),
        }
    }

    /// Rolling sends traffic where the ready copies are.
    fn rolling_split(&self, rollout: &Rollout, from: ReleaseNumber, service: &ServiceName) -> (u32, u32) {
        let new = self.ready_count(rollout.to, service);
        let old = count(self.giving_way(rollout.to, from, service).filter(|i| self.serves(i)));
        match rollout.phase {
            Phase::Planned | Phase::Migrating { .. } | Phase::Starting | Phase::Verifying { .. } => (0, 100),
            Phase::Shifting { .. } if new + old == 0 => (0, 100),
            Phase::Shifting { .. } => {
                let new = new * 100 / (new + old);
                (new, 100 - new)
            }
            Phase::Baking { .. } | Phase::Committing => (100, 0),
            // The bad version carries traffic only as long as the good one is under its floor.
            Phase::Aborting { .. } => {
                let floor = floor(self.replicas(from, service), rollout.may_miss());
                if !rollout.has_shifted() || old >= floor || new == 0 {
                    (0, 100)
                } else {
                    let old = old * 100 / (new + old);
                    (100 - old, old)
                }
            }
        }
    }

    /// Copies of requests go only beside a version that answers them itself, and only while a step asks for it.
    fn mirror(&self, service: &ServiceName, release: ReleaseNumber) -> u32 {
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.to == release) else { return 0 };
        match rollout.phase {
            Phase::Shifting { step, .. } if rollout.from.is_some_and(|from| self.takes(from, service)) => {
                rollout.rung(step).map_or(0, |rung| rung.mirror.min(100))
            }
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => 0,
        }
    }

    fn matches(&self) -> Vec<Match> {
        let Some(rollout) = &self.rollout else { return Vec::new() };
        match (&rollout.strategy, &rollout.phase, rollout.kind) {
            (Strategy::Canary { matches, .. }, Phase::Shifting { .. }, RolloutKind::Deploy) => {
                matches.clone()
            }
            (Strategy::Canary { .. } | Strategy::Rolling { .. } | Strategy::BlueGreen { .. }, _, _) => {
                Vec::new()
            }
        }
    }

    /// Copies of a version that may take requests.
    fn routable(&self, release: ReleaseNumber, service: &ServiceName) -> BTreeMap<InstanceId, Address> {
        let pick = |suspect: bool| -> BTreeMap<InstanceId, Address> {
            self.live(release, service)
                .filter(|i| i.is_ready() || (suspect && i.is_suspect()))
                .filter_map(|i| Some((i.id.clone(), i.address.clone()?)))
                .collect()
        };
        let ready = pick(false);
        if ready.is_empty() { pick(true) } else { ready }
    }

    /// A release that can answer when those that should cannot. Never one whose checks have not passed, nor one that
    /// waits for somebody to let it have traffic.
    fn fallback(&self, service: &ServiceName) -> Option<ReleaseNumber> {
        let shifted = self.rollout.as_ref().filter(|rollout| rollout.has_shifted()).map(|rollout| rollout.to);
        let is_proven = |release: &ReleaseNumber| {
            self.served.contains(release) || self.leaving.contains_key(release) || shifted == Some(*release)
        };
        let releases = self.instances.keys().filter(|id| id.service == *service).map(|id| id.release);
        [self.stable, self.warm.as_ref().map(|warm| warm.release)]
            .into_iter()
            .flatten()
            .chain(releases.rev())
            .find(|release| is_proven(release) && !self.routable(*release, service).is_empty())
    }
}
