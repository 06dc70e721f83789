//! Instances and route table towards what the phase asks for. Never takes away what serves before its replacement can.

use std::sync::Arc;

use super::{Decider, READY_BACKSTOP};
use crate::capacity::{Capacity, floor};
use crate::effect::Effect;
use crate::environment::count;
use crate::event::Fact;
use crate::id::{InstanceId, ReleaseNumber, ServiceName};
use crate::instance::{Instance, InstanceState};
use crate::refusal::Refusal;
use crate::rollout::Rollout;
use crate::routes::RouteTable;

impl Decider {
    pub(super) fn converge(&mut self) -> Result<(), Refusal> {
        for service in self.env.services() {
            if self.env.is_backing_service(&service) {
                self.retire_backing(&service)?;
            } else {
                self.retire_surplus(&service)?;
            }
            self.plan_instances(&service)?;
        }
        self.set_routes()
    }

    fn retire_surplus(&mut self, service: &ServiceName) -> Result<(), Refusal> {
        match self.env.capacity(service) {
            Capacity::Exact(counts) => {
                for (release, wanted) in &counts {
                    self.shrink_to(service, *release, *wanted)?;
                }
                self.retire_others(service, |release| counts.contains_key(&release))
            }
            Capacity::Roll { grow, shrink, max_unavailable, .. } => {
                if !self.env.rollout.as_ref().is_some_and(Rollout::is_paused) {
                    self.take_over(service, grow, shrink, max_unavailable)?;
                }
                let warm = self.env.warm.as_ref().map(|warm| warm.release);
                let leaving: Vec<ReleaseNumber> = self.env.leaving.keys().copied().collect();
                self.retire_others(service, |release| {
                    release == grow
                        || release == shrink
                        || Some(release) == warm
                        || leaving.contains(&release)
                })
            }
        }
    }

    fn shrink_to(
        &mut self,
        service: &ServiceName,
        release: ReleaseNumber,
        wanted: u32,
    ) -> Result<(), Refusal> {
        let epoch = self.env.epoch(service);
        let live: Vec<Instance> = self.env.live(release, service).cloned().collect();
        let (fresh, stale): (Vec<&Instance>, Vec<&Instance>) = live.iter().partition(|i| i.epoch >= epoch);
        let keep = wanted.max(self.env.stand_ins(release, service));
        if !stale.is_empty() && keep > 0 {
            // A restart under way: an old copy goes when a new one is ready in its place, never before.
            let replaced = count(fresh.iter().filter(|i| self.env.serves(i)));
            let surplus = (replaced + count(stale.iter())).saturating_sub(keep);
            return self.retire_worst(&stale, surplus);
        }
        let all: Vec<&Instance> = live.iter().collect();
        self.retire_worst(&all, count(live.iter()).saturating_sub(keep))
    }

    /// Rolling: copies of `shrink` go as copies of `grow` become ready.
    fn take_over(
        &mut self,
        service: &ServiceName,
        grow: ReleaseNumber,
        shrink: ReleaseNumber,
        max_unavailable: u32,
    ) -> Result<(), Refusal> {
        let wanted = self.env.replicas(grow, service);
        let growing: Vec<Instance> = self.env.live(grow, service).cloned().collect();
        let giving_way: Vec<Instance> = self.env.giving_way(grow, shrink, service).cloned().collect();

        let (good, bad): (Vec<&Instance>, Vec<&Instance>) =
            giving_way.iter().partition(|i| self.env.serves(i));
        if !growing.is_empty() || wanted == 0 {
            // What serves nobody can always go.
            let idle: Vec<&Instance> =
                bad.into_iter().filter(|i| !self.serves_for_want_of_better(i)).collect();
            self.retire_worst(&idle, count(idle.iter()))?;
        }
        let ready = count(growing.iter().filter(|i| self.env.serves(i))) + count(good.iter());
        let removable = ready.saturating_sub(floor(wanted, max_unavailable));
        self.retire_worst(&good, removable)?;
        let surplus: Vec<&Instance> = growing.iter().collect();
        self.retire_worst(&surplus, count(growing.iter()).saturating_sub(wanted))
    }

    /// Gets requests although it is not ready, because nothing better is there.
    fn serves_for_want_of_better(&self, instance: &Instance) -> bool {
        let table = self.env.desired_table();
        table.weight(&instance.id.service, instance.id.release) > 0 && table.contains(&instance.id)
    }

    /// Copies of releases that nothing asks for go, except those that stand in because nobody else can answer.
    fn retire_others(
        &mut self,
        service: &ServiceName,
        is_wanted: impl Fn(ReleaseNumber) -> bool,
    ) -> Result<(), Refusal> {
        let mut others: std::collections::BTreeMap<ReleaseNumber, Vec<Instance>> =
            std::collections::BTreeMap::new();
        for i in self.env.instances.values().filter(|i| i.id.service == *service && i.is_live()) {
            if !is_wanted(i.id.release) {
                others.entry(i.id.release).or_default().push(i.clone());
            }
        }
        for (release, copies) in others {
            let stand_ins = self.env.stand_ins(release, service);
            let spare: Vec<&Instance> = if stand_ins > 0 {
                copies.iter().collect()
            } else {
                copies.iter().filter(|i| !self.serves_for_want_of_better(i)).collect()
            };
            self.retire_worst(&spare, count(spare.iter()).saturating_sub(stand_ins))?;
        }
        Ok(())
    }

    /// Retires `number` of `instances`: first those that serve nobody, then the youngest.
    fn retire_worst(&mut self, instances: &[&Instance], number: u32) -> Result<(), Refusal> {
        let usefulness = |i: &Instance| match i.state {
            InstanceState::Down { .. } => 0,
            InstanceState::Starting { .. } => 1,
            InstanceState::Suspect { .. } => 2,
            InstanceState::Ready { .. } if self.env.serves(i) => 3,
            InstanceState::Ready { .. } => 1,
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

    /// Out of the table first, drained next, told to stop last. What never was in a table is told to stop at once.
    fn retire(&mut self, id: &InstanceId) -> Result<(), Refusal> {
        let Some(last) = self.env.instances.get(id).and_then(|instance| instance.last_routed) else {
            return self.begin_stop(id);
        };
        let drain =
            self.env.service(id.release, &id.service).map_or(super::STOP_GRACE, |spec| spec.stop.drain);
        // The first table without it; where the current one has it, the next.
        self.follow(Fact::InstanceDraining {
            instance: id.clone(),
            deadline: self.now + drain,
            cut: last.next(),
        })
    }

    fn plan_instances(&mut self, service: &ServiceName) -> Result<(), Refusal> {
        let is_delayed =
            self.env.replacements.get(service).is_some_and(|replacement| replacement.not_before > self.now);
        for (release, number) in self.env.starts(service) {
            if is_delayed && self.env.waits_after_failures(service, release) {
                continue;
            }
            let Some(spec) = self.env.service(release, service) else { continue };
            let deadline = self.now + spec.ready.within + READY_BACKSTOP;
            let epoch = self.env.epoch(service);
            for _ in 0..number {
                let ordinal = self.env.ordinals.get(service).copied().unwrap_or(0) + 1;
                let instance = InstanceId { service: service.clone(), release, ordinal };
                self.follow(Fact::InstancePlanned { instance: instance.clone(), epoch, deadline })?;
                self.start(&instance);
            }
        }
        Ok(())
    }

    /// One copy, whatever the releases do; stopped only after everything that may use it.
    fn retire_backing(&mut self, service: &ServiceName) -> Result<(), Refusal> {
        let is_wanted = self.env.backing_wanted(service).is_some() || self.env.backing_is_used(service);
        let epoch = self.env.epoch(service);
        let spare: Vec<InstanceId> = self
            .env
            .instances
            .values()
            .filter(|i| i.id.service == *service && i.is_live() && (!is_wanted || i.epoch < epoch))
            .map(|i| i.id.clone())
            .collect();
        for id in spare {
            self.begin_stop(&id)?;
        }
        Ok(())
    }

    fn set_routes(&mut self) -> Result<(), Refusal> {
        let table = self.env.desired_table();
        if table == *self.env.routes.table { Ok(()) } else { self.set_table(table) }
    }

    pub(super) fn set_table(&mut self, table: RouteTable) -> Result<(), Refusal> {
        let generation = self.env.routes.generation.next();
        self.follow(Fact::RoutesSet { generation, table: Arc::new(table) })?;
        self.release_effect(Effect::ApplyRoutes { environment: self.env.key.clone(), generation });
        Ok(())
    }
}
