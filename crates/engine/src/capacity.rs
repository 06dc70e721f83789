//! How many copies of a service each release is to have, given where the rollout stands. Pure arithmetic over an
//! environment: `decide::converge` turns the difference to what there is into events and effects.

use std::collections::{BTreeMap, BTreeSet};

use crate::environment::{Environment, Power};
use crate::id::{ReleaseNumber, ServiceName};
use crate::rollout::{Phase, Rollout};
use crate::strategy::Strategy;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// This many of each release; releases that are not named get none.
    Exact(BTreeMap<ReleaseNumber, u32>),
    /// `grow` takes over from `shrink` a batch at a time.
    Roll { grow: ReleaseNumber, shrink: ReleaseNumber, max_surge: u32, max_unavailable: u32 },
}

impl Environment {
    /// Services that any active release has or any instance still runs.
    #[must_use]
    pub fn services(&self) -> BTreeSet<ServiceName> {
        self.active_releases()
            .into_iter()
            .filter_map(|number| self.release(number))
            .flat_map(|release| release.spec.services.keys().cloned())
            .chain(self.instances.keys().map(|id| id.service.clone()))
            .collect()
    }

    #[must_use]
    pub fn capacity(&self, service: &ServiceName) -> Capacity {
        if let Power::Down { .. } = self.power {
            return Capacity::Exact(BTreeMap::new());
        }
        let mut counts = BTreeMap::new();
        match &self.rollout {
            None => {
                if let Some(stable) = self.stable {
                    counts.insert(stable, self.replicas(stable, service));
                }
            }
            Some(rollout) => {
                if let Some(roll) = self.roll(rollout, service) {
                    return roll;
                }
                if let Some(from) = rollout.from {
                    counts.insert(from, self.replicas_of_old(rollout, from, service));
                }
                counts.insert(rollout.to, self.replicas_of_new(rollout, service));
            }
        }
        if let Some(warm) = &self.warm
            && self.service(warm.release, service).is_some_and(|spec| spec.takes_requests())
        {
            let warm_copies = self.replicas(warm.release, service);
            let copies = counts.entry(warm.release).or_insert(0);
            *copies = (*copies).max(warm_copies);
        }
        Capacity::Exact(counts)
    }

    fn roll(&self, rollout: &Rollout, service: &ServiceName) -> Option<Capacity> {
        let from = rollout.from.filter(|_| rollout.is_rolling())?;
        // A service that only one side has cannot be rolled: it stays, or comes, as with any other strategy.
        if self.service(from, service).is_none() || self.service(rollout.to, service).is_none() {
            return None;
        }
        let (max_surge, max_unavailable) = rollout.batch();
        match rollout.phase {
            Phase::Shifting { .. } => {
                Some(Capacity::Roll { grow: rollout.to, shrink: from, max_surge, max_unavailable })
            }
            Phase::Aborting { shifted: true, .. } => {
                Some(Capacity::Roll { grow: from, shrink: rollout.to, max_surge, max_unavailable })
            }
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Baking { .. }
            | Phase::Committing
            | Phase::Aborting { shifted: false, .. } => None,
        }
    }

    fn replicas_of_old(&self, rollout: &Rollout, from: ReleaseNumber, service: &ServiceName) -> u32 {
        let full = self.replicas(from, service);
        let takes_requests = self.service(from, service).is_some_and(|spec| spec.takes_requests());
        match rollout.phase {
            // The old side of a rolling rollout is gone by now; of the others it stays warm. A worker that takes no
            // requests would go on working with the old code, so it stops as soon as the new one has taken over.
            Phase::Baking { .. } | Phase::Committing if rollout.is_rolling() || !takes_requests => 0,
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Baking { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => full,
        }
    }

    fn replicas_of_new(&self, rollout: &Rollout, service: &ServiceName) -> u32 {
        let full = self.replicas(rollout.to, service);
        match rollout.phase {
            Phase::Planned | Phase::Migrating { .. } | Phase::Aborting { .. } => 0,
            Phase::Starting | Phase::Verifying { .. } | Phase::Shifting { .. } => match &rollout.strategy {
                // One copy of the new release always starts first, even with no surge allowed: nothing of the old
                // is given up before one new copy has shown that it can run.
                Strategy::Rolling { max_surge, .. } if rollout.is_rolling() => full.min((*max_surge).max(1)),
                Strategy::Canary { .. } => {
                    let weight =
                        rollout.weight().max(rollout.ladder().first().map_or(100, |rung| rung.weight));
                    share(full, weight)
                }
                Strategy::Rolling { .. } | Strategy::BlueGreen { .. } => full,
            },
            Phase::Baking { .. } | Phase::Committing => full,
        }
    }

    /// How many copies of `release` must be ready for the present phase to be over.
    #[must_use]
    pub fn wanted(&self, service: &ServiceName, release: ReleaseNumber) -> u32 {
        if self.service(release, service).is_some_and(|spec| spec.is_backing()) {
            return 1;
        }
        match self.capacity(service) {
            Capacity::Exact(counts) => counts.get(&release).copied().unwrap_or(0),
            Capacity::Roll { grow, .. } if grow == release => self.replicas(release, service),
            Capacity::Roll { .. } => 0,
        }
    }

    /// 1 when the one copy of a backing service is ready, whichever release started it.
    #[must_use]
    pub fn backing_ready(&self, service: &ServiceName) -> u32 {
        u32::from(self.instances.values().any(|i| i.id.service == *service && i.is_ready()))
    }

    /// Is `service`, as `release` has it, as ready as the present phase asks for?
    #[must_use]
    pub fn is_satisfied(&self, release: ReleaseNumber, service: &ServiceName) -> bool {
        match self.service(release, service) {
            None => true,
            Some(spec) if spec.is_backing() => self.backing_ready(service) == 1,
            Some(_) => self.ready_count(release, service) >= self.wanted(service, release),
        }
    }
}

/// Copies for a share of the traffic: rounded up, at least one where there is anything to run.
fn share(full: u32, weight: u32) -> u32 {
    (full * weight.min(100)).div_ceil(100).max(1).min(full)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_rounded_up_and_never_none() {
        assert_eq!(share(4, 5), 1);
        assert_eq!(share(4, 50), 2);
        assert_eq!(share(4, 51), 3);
        assert_eq!(share(4, 100), 4);
        assert_eq!(share(0, 50), 0);
    }
}
