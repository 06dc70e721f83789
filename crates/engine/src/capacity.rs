//! How many copies of a service each release is to have, given where the rollout stands. Pure arithmetic over an
//! environment: `decide::converge` turns the difference to what there is into events and effects.

use std::collections::{BTreeMap, BTreeSet};

use crate::environment::{Environment, Power, count};
use crate::id::{ReleaseNumber, ServiceName};
use crate::instance::Instance;
use crate::rollout::{Phase, Rollout};
use crate::service::ServiceSpec;
use crate::strategy::Strategy;
use crate::time::Timestamp;

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
            && self.takes(warm.release, service)
        {
            let warm_copies = self.replicas(warm.release, service);
            let copies = counts.entry(warm.release).or_insert(0);
            *copies = (*copies).max(warm_copies);
        }
        Capacity::Exact(counts)
    }

    fn roll(&self, rollout: &Rollout, service: &ServiceName) -> Option<Capacity> {
        let from = rollout.from.filter(|_| rollout.is_rolling())?;
        if !self.is_like_for_like(from, rollout.to, service) {
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

    /// Can copies of one release take over from those of the other one by one? A service that only one side has, or
    /// that takes requests only there, cannot be rolled: it stays, or comes, as with any other strategy.
    pub(crate) fn is_like_for_like(
        &self,
        from: ReleaseNumber,
        to: ReleaseNumber,
        service: &ServiceName,
    ) -> bool {
        match (self.service(from, service), self.service(to, service)) {
            (Some(old), Some(new)) => old.takes_requests() == new.takes_requests(),
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }

    fn replicas_of_old(&self, rollout: &Rollout, from: ReleaseNumber, service: &ServiceName) -> u32 {
        let full = self.replicas(from, service);
        let takes_requests = self.takes(from, service);
        match rollout.phase {
            // The old side of a rolling rollout is gone by now; of the others it stays warm. A worker that takes no
            // requests would go on working with the old code, so it stops as soon as the new one has taken over.
            // What has no successor stays until the rollout commits, should it be turned back.
            Phase::Baking { .. } | Phase::Committing
                if self.is_like_for_like(from, rollout.to, service)
                    && (rollout.is_rolling() || !takes_requests) =>
            {
                0
            }
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
                Strategy::Rolling { max_surge, .. } if rollout.is_rolling() && !rollout.has_shifted() => {
                    full.min((*max_surge).max(1))
                }
                Strategy::Canary { .. } => {
                    // Copies of requests are work like requests are.
                    let load =
                        |step: u32| rollout.rung(step).map_or(100, |rung| rung.weight.max(rung.mirror));
                    let now = match rollout.phase {
                        Phase::Shifting { step, .. } => load(step),
                        Phase::Planned
                        | Phase::Migrating { .. }
                        | Phase::Starting
                        | Phase::Verifying { .. }
                        | Phase::Baking { .. }
                        | Phase::Committing
                        | Phase::Aborting { .. } => rollout.weight(),
                    };
                    share(full, now.max(load(0)))
                }
                Strategy::Rolling { .. } | Strategy::BlueGreen { .. } => full,
            },
            Phase::Baking { .. } | Phase::Committing => full,
        }
    }

    /// Copies of a leaving release that are to stay because stable lacks that many.
    #[must_use]
    pub fn stand_ins(&self, leaving: ReleaseNumber, service: &ServiceName) -> u32 {
        let (Some(may_miss), Some(stable)) = (self.leaving.get(&leaving), self.stable) else { return 0 };
        if leaving == stable || self.takes(leaving, service) != self.takes(stable, service) {
            return 0;
        }
        // What a rolling rollout has put in the place of stable's copies counts as theirs.
        let successor = self.rollout.as_ref().filter(|r| r.is_rolling() && r.has_shifted()).map(|r| r.to);
        let taken_over = successor
            .filter(|to| *to != leaving && self.is_like_for_like(stable, *to, service))
            .map_or(0, |to| self.ready_count(to, service));
        let full = self.replicas(stable, service);
        let ready = self.ready_count(stable, service) + taken_over;
        // Where stable has nothing at all, one copy in place of many would only be overrun.
        let missing = if ready == 0 { full } else { floor(full, *may_miss).saturating_sub(ready) };
        missing.min(self.ready_count(leaving, service))
    }

    /// Copies that a rolling rollout takes over from: those of `shrink`, and what an earlier rollout left behind.
    pub(crate) fn giving_way(
        &self,
        grow: ReleaseNumber,
        shrink: ReleaseNumber,
        service: &ServiceName,
    ) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(move |i| {
            let release = i.id.release;
            let gives_way = release == shrink || (release != grow && self.leaving.contains_key(&release));
            i.id.service == *service && i.is_live() && gives_way
        })
    }

    /// Copies that ought to be started now, were there no wait after failures. Nothing starts before what it depends
    /// on; a restart replaces one copy at a time.
    #[must_use]
    pub(crate) fn starts(&self, service: &ServiceName) -> Vec<(ReleaseNumber, u32)> {
        let missing: Vec<(ReleaseNumber, u32)> = if self.is_backing_service(service) {
            // Not beside one that is still stopping: two servers on one data directory.
            let is_free = !self.instances.keys().any(|id| id.service == *service);
            self.backing_wanted(service).filter(|_| is_free).map(|release| (release, 1)).into_iter().collect()
        } else {
            match self.capacity(service) {
                Capacity::Exact(counts) => counts
                    .into_iter()
                    .map(|(release, wanted)| (release, self.missing(service, release, wanted)))
                    .collect(),
                Capacity::Roll { grow, shrink, max_surge, max_unavailable } => {
                    let wanted = self.replicas(grow, service);
                    let new = count(self.live(grow, service));
                    let all = new + count(self.giving_way(grow, shrink, service));
                    if self.rollout.as_ref().is_some_and(Rollout::is_paused) {
                        // Capacity is kept, with what is known to be good; nothing moves on.
                        vec![(shrink, wanted.min(self.replicas(shrink, service)).saturating_sub(all))]
                    } else {
                        // Where nothing may be missing, one copy has to come before another can go.
                        let is_tight = floor(wanted, max_unavailable) >= wanted;
                        let room = (wanted + max_surge.max(u32::from(is_tight))).saturating_sub(all);
                        vec![(grow, wanted.saturating_sub(new).min(room))]
                    }
                }
            }
        };
        missing
            .into_iter()
            .filter(|(release, number)| *number > 0 && self.dependencies_are_ready(service, *release))
            .collect()
    }

    fn missing(&self, service: &ServiceName, release: ReleaseNumber, wanted: u32) -> u32 {
        let live = count(self.live(release, service));
        if live < wanted {
            return wanted - live;
        }
        let epoch = self.epoch(service);
        let fresh: Vec<&Instance> = self.live(release, service).filter(|i| i.epoch >= epoch).collect();
        let is_restarting = wanted > 0 && count(fresh.iter()) < live;
        let is_one_at_a_time = live == wanted && fresh.iter().all(|i| self.serves(i));
        u32::from(is_restarting && is_one_at_a_time && count(fresh.iter()) < wanted)
    }

    fn dependencies_are_ready(&self, service: &ServiceName, release: ReleaseNumber) -> bool {
        let Some(spec) = self.service(release, service) else { return false };
        spec.after.iter().all(|after| match self.service(release, after) {
            None => true,
            Some(dependency) if dependency.is_backing() => self.backing_ready(after) == 1,
            Some(_) => {
                let wanted = self.wanted(after, release).min(1);
                self.ready_count(release, after) >= wanted
            }
        })
    }

    /// Does a start of `service` for `release` wait after failures? A new version is not made to wait for those of
    /// the one before: a broken stable never blocks a fix. Data is the same data, whichever release asks for it.
    pub(crate) fn waits_after_failures(&self, service: &ServiceName, release: ReleaseNumber) -> bool {
        let is_coming = self.rollout.as_ref().is_some_and(|rollout| rollout.to == release);
        !is_coming || self.is_backing_service(service)
    }

    /// When the clock alone starts a copy that waits after failures.
    pub(crate) fn replacement_deadline(&self) -> Option<Timestamp> {
        self.replacements
            .iter()
            .filter(|(_, replacement)| !replacement.is_held())
            .filter(|(service, _)| {
                self.starts(service).iter().any(|(release, _)| self.waits_after_failures(service, *release))
            })
            .map(|(_, replacement)| replacement.not_before)
            .min()
    }

    /// The release on whose behalf the one copy of a backing service is to run.
    pub(crate) fn backing_wanted(&self, service: &ServiceName) -> Option<ReleaseNumber> {
        if let Power::Down { .. } = self.power {
            return None;
        }
        let coming = self.rollout.as_ref().filter(|_| self.is_approved()).map(|rollout| rollout.to);
        self.stable
            .into_iter()
            .chain(coming)
            .chain(self.rollout.as_ref().and_then(|rollout| rollout.from))
            .chain(self.warm.as_ref().map(|warm| warm.release))
            .find(|release| self.service(*release, service).is_some_and(ServiceSpec::is_backing))
    }

    pub(crate) fn is_backing_service(&self, service: &ServiceName) -> bool {
        self.backing_wanted(service).is_some()
            || self
                .instances
                .keys()
                .filter(|id| id.service == *service)
                .any(|id| self.service(id.release, service).is_some_and(ServiceSpec::is_backing))
    }

    /// Does anything that still runs belong to a release with this backing service?
    pub(crate) fn backing_is_used(&self, service: &ServiceName) -> bool {
        self.instances.keys().any(|id| {
            id.service != *service
                && self.service(id.release, service).is_some_and(ServiceSpec::is_backing)
                && self.service(id.release, &id.service).is_some_and(|spec| !spec.is_backing())
        })
    }

    pub(crate) fn epoch(&self, service: &ServiceName) -> u32 {
        self.epochs.get(service).copied().unwrap_or(0)
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
        u32::from(self.instances.values().any(|i| i.id.service == *service && self.serves(i)))
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

/// Ready copies under which stable must not fall by our own act; never none while there is anything to run.
pub(crate) fn floor(replicas: u32, may_miss: u32) -> u32 {
    replicas.saturating_sub(may_miss).max(1).min(replicas)
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
