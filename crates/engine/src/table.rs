//! Which route table an environment ought to have now.

use std::collections::BTreeMap;

use crate::environment::Environment;
use crate::id::{InstanceId, ReleaseNumber, ServiceName};
use crate::rollout::{Phase, Rollout, RolloutKind};
use crate::routes::{RouteTable, ServiceRoute, VersionRoute};
use crate::strategy::{Match, Strategy};

impl Environment {
    /// The table that follows from releases, rollout and instances. It names only instances that proved ready;
    /// suspect ones only where no ready one of their version is left.
    #[must_use]
    pub fn desired_table(&self) -> RouteTable {
        let facing = self.facing_release();
        let services = self
            .services()
            .into_iter()
            .filter_map(|service| {
                let versions = self.versions(&service)?;
                let spec = self.spec_for_route(&service)?;
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

    /// The release that most visitors see: its listener and its routes are the ones that hold.
    fn facing_release(&self) -> Option<ReleaseNumber> {
        match &self.rollout {
            None => self.stable,
            Some(rollout) if rollout.weight() >= 100 || rollout.from.is_none() => Some(rollout.to),
            Some(rollout) => rollout.from,
        }
    }

    fn spec_for_route(&self, service: &ServiceName) -> Option<&crate::service::ServiceSpec> {
        let facing = self.facing_release();
        let rollout = self.rollout.as_ref().map(|rollout| rollout.to);
        [facing, rollout, self.stable]
            .into_iter()
            .flatten()
            .chain(self.active_releases())
            .find_map(|release| self.service(release, service))
            .filter(|spec| spec.takes_requests())
    }

    fn preview(&self) -> Option<ReleaseNumber> {
        let rollout = self.rollout.as_ref()?;
        match rollout.phase {
            Phase::Verifying { .. } | Phase::Shifting { .. } => Some(rollout.to),
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Baking { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => None,
        }
    }

    fn versions(&self, service: &ServiceName) -> Option<BTreeMap<ReleaseNumber, VersionRoute>> {
        let mut weights = self.weights(service);
        let routable: BTreeMap<ReleaseNumber, BTreeMap<InstanceId, Box<str>>> =
            weights.keys().map(|release| (*release, self.routable(*release, service))).collect();
        let has_copies =
            |release: &ReleaseNumber| routable.get(release).is_some_and(|copies| !copies.is_empty());

        let primary = weights.iter().max_by_key(|(_, weight)| **weight).filter(|(_, weight)| **weight > 0);
        let primary = primary.map(|(release, _)| *release);
        let lost: u32 =
            weights.iter().filter(|(release, _)| !has_copies(release)).map(|(_, weight)| *weight).sum();
        let heir = weights
            .iter()
            .filter(|(release, weight)| has_copies(release) && **weight > 0)
            .max_by_key(|(_, weight)| **weight)
            .map(|(release, _)| *release);
        let mut fallback = None;
        if lost > 0 {
            match heir {
                Some(heir) => {
                    weights.retain(|release, _| has_copies(release));
                    *weights.entry(heir).or_insert(0) += lost;
                }
                // Nobody who should serve can: better an older or a leaving copy than an error.
                None => fallback = self.fallback(service),
            }
        }
        if let Some(release) = fallback {
            for weight in weights.values_mut() {
                *weight = 0;
            }
            weights.insert(release, 100);
        }
        let matches = self.matches();
        let versions: BTreeMap<ReleaseNumber, VersionRoute> = weights
            .into_iter()
            .map(|(release, weight)| {
                let instances = self.routable(release, service);
                let is_new = self.rollout.as_ref().is_some_and(|rollout| rollout.to == release);
                let matches = if is_new && weight < 100 { matches.clone() } else { Vec::new() };
                (release, VersionRoute { weight, matches, instances })
            })
            // A version without copies stays only where requests must wait for it.
            .filter(|(release, version)| {
                !version.instances.is_empty() || (version.weight > 0 && primary == Some(*release))
            })
            .collect();
        (!versions.is_empty()).then_some(versions)
    }

    /// Percent per release; releases with 0 are reachable by preview or match, or wait warm.
    fn weights(&self, service: &ServiceName) -> BTreeMap<ReleaseNumber, u32> {
        let mut weights = BTreeMap::new();
        if let Some(warm) = &self.warm {
            weights.insert(warm.release, 0);
        }
        match &self.rollout {
            None => {
                if let Some(stable) = self.stable {
                    weights.insert(stable, 100);
                }
            }
            Some(rollout) => {
                let (new, old) = self.split(rollout, service);
                if let Some(from) = rollout.from {
                    weights.insert(from, old);
                }
                if new > 0 || self.is_shown(rollout) || weights.contains_key(&rollout.to) {
                    weights.insert(rollout.to, new);
                }
            }
        }
        weights
            .retain(|release, _| self.service(*release, service).is_some_and(|spec| spec.takes_requests()));
        weights
    }

    /// Is the new version in the table at all, if only for the preview?
    fn is_shown(&self, rollout: &Rollout) -> bool {
        match rollout.phase {
            Phase::Verifying { .. } | Phase::Shifting { .. } | Phase::Baking { .. } | Phase::Committing => {
                true
            }
            Phase::Planned | Phase::Migrating { .. } | Phase::Starting | Phase::Aborting { .. } => false,
        }
    }

    /// `(new, old)` percent of `service`.
    fn split(&self, rollout: &Rollout, service: &ServiceName) -> (u32, u32) {
        let Some(from) = rollout.from else {
            return if rollout.phase.has_shifted() { (rollout.weight(), 0) } else { (0, 0) };
        };
        let in_new = self.service(rollout.to, service).is_some();
        let in_old = self.service(from, service).is_some();
        if in_new && !in_old {
            // New in this release: only the new version's pages lead to it, so it answers as soon as they can be seen.
            let shown = rollout.phase.has_shifted() && !matches!(rollout.phase, Phase::Aborting { .. });
            return if shown { (100, 0) } else { (0, 0) };
        }
        if rollout.is_rolling() {
            return self.rolling_split(rollout, from, service);
        }
        let new = rollout.weight();
        if !in_new && new < 100 {
            return (0, 100);
        }
        (new, 100 - new)
    }

    /// Rolling sends traffic where the ready copies are.
    fn rolling_split(&self, rollout: &Rollout, from: ReleaseNumber, service: &ServiceName) -> (u32, u32) {
        let new = self.ready_count(rollout.to, service);
        let old = self.ready_count(from, service);
        let share = |part: u32, all: u32| if all == 0 { 0 } else { part * 100 / all };
        match rollout.phase {
            Phase::Planned | Phase::Migrating { .. } | Phase::Starting | Phase::Verifying { .. } => (0, 100),
            Phase::Shifting { .. } if new + old == 0 => (0, 100),
            Phase::Shifting { .. } => {
                let new = share(new, new + old);
                (new, 100 - new)
            }
            Phase::Baking { .. } | Phase::Committing => (100, 0),
            // The bad version carries traffic only as long as the good one is under its floor.
            Phase::Aborting { .. } => {
                let (_, max_unavailable) = rollout.batch();
                let floor = self.replicas(from, service).saturating_sub(max_unavailable).max(1);
                if old >= floor || new == 0 {
                    (0, 100)
                } else {
                    (100 - share(old, new + old), share(old, new + old))
                }
            }
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
    fn routable(&self, release: ReleaseNumber, service: &ServiceName) -> BTreeMap<InstanceId, Box<str>> {
        let pick = |suspect: bool| -> BTreeMap<InstanceId, Box<str>> {
            self.live(release, service)
                .filter(|i| i.is_ready() || (suspect && i.is_suspect()))
                .filter_map(|i| Some((i.id.clone(), i.address.clone()?)))
                .collect()
        };
        let ready = pick(false);
        if ready.is_empty() { pick(true) } else { ready }
    }

    /// A release that can answer when those that should cannot. Never one whose checks have not passed.
    fn fallback(&self, service: &ServiceName) -> Option<ReleaseNumber> {
        let unproven =
            self.rollout.as_ref().filter(|rollout| !rollout.phase.has_shifted()).map(|rollout| rollout.to);
        let releases = self.instances.keys().filter(|id| id.service == *service).map(|id| id.release);
        [self.stable, self.warm.as_ref().map(|warm| warm.release)]
            .into_iter()
            .flatten()
            .chain(releases.rev())
            .find(|release| Some(*release) != unproven && !self.routable(*release, service).is_empty())
    }
}
