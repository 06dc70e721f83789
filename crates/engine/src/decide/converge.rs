//! Instances and route table towards what the phase asks for. Never takes away what serves before its replacement can.

use super::{Decider, READY_BACKSTOP};
use crate::capacity::Capacity;
use crate::effect::Effect;
use crate::environment::{Environment, Power, count};
use crate::event::Fact;
use crate::id::{InstanceId, ReleaseNumber, ServiceName};
use crate::instance::{Instance, InstanceState};
use crate::refusal::Refusal;

impl Environment {
    /// Fewer live copies than wanted: what a delayed replacement waits to mend.
    pub(crate) fn lacks_copies(&self, service: &ServiceName) -> bool {
        let is_delayed_forever =
            self.replacements.get(service).is_some_and(|replacement| replacement.not_before.0 == u64::MAX);
        if is_delayed_forever {
            return false;
        }
        if self.backing_wanted(service).is_some() {
            return !self.instances.values().any(|i| i.id.service == *service);
        }
        match self.capacity(service) {
            Capacity::Exact(counts) => {
                counts.iter().any(|(release, wanted)| count(self.live(*release, service)) < *wanted)
            }
            Capacity::Roll { grow, .. } => count(self.live(grow, service)) < self.replicas(grow, service),
        }
    }

    /// The release on whose behalf the one copy of a backing service is to run.
    fn backing_wanted(&self, service: &ServiceName) -> Option<ReleaseNumber> {
        if let Power::Down { .. } = self.power {
            return None;
        }
        let coming = self.rollout.as_ref().filter(|_| self.is_approved()).map(|rollout| rollout.to);
        self.stable
            .into_iter()
            .chain(coming)
            .chain(self.rollout.as_ref().and_then(|rollout| rollout.from))
            .find(|release| self.service(*release, service).is_some_and(|spec| spec.is_backing()))
    }

    fn is_backing_service(&self, service: &ServiceName) -> bool {
        self.backing_wanted(service).is_some()
            || self
                .instances
                .keys()
                .filter(|id| id.service == *service)
                .any(|id| self.service(id.release, service).is_some_and(|spec| spec.is_backing()))
    }

    fn epoch(&self, service: &ServiceName) -> u32 {
        self.epochs.get(service).copied().unwrap_or(0)
    }
}

impl Decider {
    pub(super) fn converge(&mut self) -> Result<(), Refusal> {
        for service in self.env.services() {
            if self.env.is_backing_service(&service) {
                self.converge_backing(&service)?;
                continue;
            }
            match self.env.capacity(&service) {
                Capacity::Exact(counts) => {
                    for (release, wanted) in &counts {
                        self.converge_exact(&service, *release, *wanted)?;
                    }
                    self.retire_others(&service, |release| counts.contains_key(&release))?;
                }
                Capacity::Roll { grow, shrink, max_surge, max_unavailable } => {
                    self.converge_roll(&service, grow, shrink, max_surge, max_unavailable)?;
                    let warm = self.env.warm.as_ref().map(|warm| warm.release);
                    self.retire_others(&service, |release| {
                        release == grow || release == shrink || Some(release) == warm
                    })?;
                }
            }
        }
        self.set_routes()
    }

    fn converge_exact(
        &mut self,
        service: &ServiceName,
        release: ReleaseNumber,
        wanted: u32,
    ) -> Result<(), Refusal> {
        let epoch = self.env.epoch(service);
        let live: Vec<Instance> = self.env.live(release, service).cloned().collect();
        let (fresh, stale): (Vec<&Instance>, Vec<&Instance>) = live.iter().partition(|i| i.epoch >= epoch);
        let (fresh_count, live_count) = (count(fresh.iter()), count(live.iter()));

        if !stale.is_empty() && wanted > 0 {
            // A restart under way: one new copy at a time, an old one goes when the new one is ready.
            let fresh_ready = count(fresh.iter().filter(|i| i.is_ready()));
            let starting = fresh.iter().any(|i| matches!(i.state, InstanceState::Starting { .. }));
            if fresh_ready + count(stale.iter().filter(|i| i.is_ready())) > wanted || fresh_count >= wanted {
                return self.retire_worst(&stale, 1);
            }
            if !starting && fresh_count < wanted && live_count <= wanted {
                return self.plan_instances(service, release, 1);
            }
            return Ok(());
        }
        if live_count < wanted {
            self.plan_instances(service, release, wanted - live_count)
        } else if live_count > wanted {
            let surplus: Vec<&Instance> = live.iter().collect();
            self.retire_worst(&surplus, live_count - wanted)
        } else {
            Ok(())
        }
    }

    fn converge_roll(
        &mut self,
        service: &ServiceName,
        grow: ReleaseNumber,
        shrink: ReleaseNumber,
        max_surge: u32,
        max_unavailable: u32,
    ) -> Result<(), Refusal> {
        let wanted = self.env.replicas(grow, service);
        let growing: Vec<Instance> = self.env.live(grow, service).cloned().collect();
        let shrinking: Vec<Instance> = self.env.live(shrink, service).cloned().collect();
        let (new, old) = (count(growing.iter()), count(shrinking.iter()));

        let ready = count(growing.iter().chain(&shrinking).filter(|i| i.is_ready()));
        let floor = wanted.saturating_sub(max_unavailable);
        let not_ready_old: Vec<&Instance> = shrinking.iter().filter(|i| !i.is_ready()).collect();
        if !not_ready_old.is_empty() && new > 0 {
            // What serves nobody can always go.
            return self.retire_worst(&not_ready_old, count(not_ready_old.iter()));
        }
        let removable = ready.saturating_sub(floor).min(old);
        if removable > 0 {
            let ready_old: Vec<&Instance> = shrinking.iter().filter(|i| i.is_ready()).collect();
            self.retire_worst(&ready_old, removable)?;
        }
        let room = (wanted + max_surge).saturating_sub(new + old.saturating_sub(removable));
        let missing = wanted.saturating_sub(new).min(room);
        if missing > 0 {
            self.plan_instances(service, grow, missing)?;
        }
        if new > wanted {
            let surplus: Vec<&Instance> = growing.iter().collect();
            self.retire_worst(&surplus, new - wanted)?;
        }
        Ok(())
    }

    /// Copies of releases that nothing asks for go, except those that stand in because nobody else can answer.
    fn retire_others(
        &mut self,
        service: &ServiceName,
        is_wanted: impl Fn(ReleaseNumber) -> bool,
    ) -> Result<(), Refusal> {
        let table = self.env.desired_table();
        let others: Vec<Instance> = self
            .env
            .instances
            .values()
            .filter(|i| i.id.service == *service && i.is_live() && !is_wanted(i.id.release))
            .filter(|i| table.weight(service, i.id.release) == 0 || !table.contains(&i.id))
            .cloned()
            .collect();
        self.retire_worst(&others.iter().collect::<Vec<_>>(), count(others.iter()))
    }

    /// Retires `number` of `instances`: first those that serve nobody, then the youngest.
    fn retire_worst(&mut self, instances: &[&Instance], number: u32) -> Result<(), Refusal> {
        let usefulness = |i: &Instance| match i.state {
            InstanceState::Down { .. } => 0,
            InstanceState::Starting { .. } => 1,
            InstanceState::Suspect { .. } => 2,
            InstanceState::Ready { .. } => 3,
            InstanceState::Draining { .. } | InstanceState::Stopping { .. } => 4,
        };
        let mut ordered: Vec<&&Instance> = instances.iter().collect();
        ordered.sort_by_key(|i| (usefulness(i), std::cmp::Reverse(i.id.ordinal)));
        let ids: Vec<InstanceId> = ordered.into_iter().take(number as usize).map(|i| i.id.clone()).collect();
        for id in ids {
            self.retire(&id)?;
        }
        Ok(())
    }

    /// Out of the table first, drained next, told to stop last. What takes no requests is told to stop at once.
    fn retire(&mut self, id: &InstanceId) -> Result<(), Refusal> {
        let routed = self.env.routes.table.contains(id);
        // Dropped from a table that the proxy has not taken yet: it may still get requests.
        let maybe_routed = !self.env.routes.is_applied()
            && self.env.instances.get(id).is_some_and(|i| i.address.is_some() && !is_starting(i))
            && self.env.service(id.release, &id.service).is_some_and(|spec| spec.takes_requests());
        if !routed && !maybe_routed {
            return self.begin_stop(id);
        }
        let drain =
            self.env.service(id.release, &id.service).map_or(super::STOP_GRACE, |spec| spec.stop.drain);
        let generation = self.env.routes.generation;
        let cut = if routed { generation.next() } else { generation };
        self.follow(Fact::InstanceDraining { instance: id.clone(), deadline: self.now + drain, cut })
    }

    fn plan_instances(
        &mut self,
        service: &ServiceName,
        release: ReleaseNumber,
        number: u32,
    ) -> Result<(), Refusal> {
        let is_delayed =
            self.env.replacements.get(service).is_some_and(|replacement| replacement.not_before > self.now);
        // A new version is not made to wait for the failures of the one before: a broken stable never blocks a fix.
        let is_coming = self.env.rollout.as_ref().is_some_and(|rollout| rollout.to == release);
        if (is_delayed && !is_coming) || !self.dependencies_are_ready(service, release) {
            return Ok(());
        }
        let Some(spec) = self.env.service(release, service) else { return Ok(()) };
        let deadline = self.now + spec.ready.within + READY_BACKSTOP;
        for _ in 0..number {
            let ordinal = self.env.ordinals.get(service).copied().unwrap_or(0) + 1;
            let instance = InstanceId { service: service.clone(), release, ordinal };
            let epoch = self.env.epoch(service);
            self.follow(Fact::InstancePlanned { instance: instance.clone(), epoch, deadline })?;
            self.start(&instance);
        }
        Ok(())
    }

    fn dependencies_are_ready(&self, service: &ServiceName, release: ReleaseNumber) -> bool {
        let Some(spec) = self.env.service(release, service) else { return false };
        spec.after.iter().all(|after| match self.env.service(release, after) {
            None => true,
            Some(dependency) if dependency.is_backing() => self.env.backing_ready(after) == 1,
            Some(_) => {
                let wanted = self.env.wanted(after, release).min(1);
                self.env.ready_count(release, after) >= wanted
            }
        })
    }

    /// One copy, whatever the releases do; stopped only after everything that may use it.
    fn converge_backing(&mut self, service: &ServiceName) -> Result<(), Refusal> {
        let mine: Vec<Instance> =
            self.env.instances.values().filter(|i| i.id.service == *service).cloned().collect();
        let Some(release) = self.env.backing_wanted(service) else {
            let users_left = self.env.instances.values().any(|i| {
                i.id.service != *service
                    && self.env.service(i.id.release, &i.id.service).is_some_and(|spec| !spec.is_backing())
            });
            if users_left {
                return Ok(());
            }
            for instance in mine.iter().filter(|i| i.is_live()) {
                self.begin_stop(&instance.id)?;
            }
            return Ok(());
        };
        let epoch = self.env.epoch(service);
        for instance in mine.iter().filter(|i| i.is_live() && i.epoch < epoch) {
            self.begin_stop(&instance.id)?;
        }
        // Not beside one that is still stopping: two servers on one data directory.
        if mine.is_empty() { self.plan_instances(service, release, 1) } else { Ok(()) }
    }

    fn set_routes(&mut self) -> Result<(), Refusal> {
        let table = self.env.desired_table();
        if table == self.env.routes.table {
            return Ok(());
        }
        let generation = self.env.routes.generation.next();
        self.follow(Fact::RoutesSet { generation, table: Box::new(table) })?;
        self.release_effect(Effect::ApplyRoutes { environment: self.env.key.clone(), generation });
        Ok(())
    }
}

fn is_starting(instance: &Instance) -> bool {
    match instance.state {
        InstanceState::Starting { .. } => true,
        InstanceState::Ready { .. }
        | InstanceState::Suspect { .. }
        | InstanceState::Down { .. }
        | InstanceState::Draining { .. }
        | InstanceState::Stopping { .. } => false,
    }
}
