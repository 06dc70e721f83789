//! What must hold at every step, and what must hold at rest.

mod evidence;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_engine::id::{EnvironmentKey, Generation, InstanceId, ReleaseNumber, ServiceName};
use fairway_engine::release::Release;
use fairway_engine::time::Timestamp;
use fairway_engine::{
    Command, Environment, Event, Fact, Input, Instance, InstanceState, JobKind, Pace, Phase, Power,
    Replacement, RolloutKind, RolloutOutcome, RouteTable, State, Waiting,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub detail: String,
}

impl Violation {
    #[must_use]
    pub fn new(invariant: &'static str, detail: String) -> Self {
        Self { invariant, detail }
    }
}

type Checked = Result<(), Violation>;

fn broken(invariant: &'static str, detail: String) -> Checked {
    Err(Violation { invariant, detail })
}

/// What the checker remembers beside the state, on purpose by a way of its own.
#[derive(Debug, Default)]
pub struct Checker {
    /// Were ready at some time.
    ready_once: BTreeSet<InstanceId>,
    /// May have public traffic: past their checks, or committed.
    proven: BTreeSet<ReleaseNumber>,
    /// Rolled away from, and not named again since.
    left: BTreeSet<ReleaseNumber>,
    deadlines: BTreeMap<InstanceId, Timestamp>,
}

fn is_aborting(environment: &Environment) -> bool {
    environment.rollout.as_ref().is_some_and(|rollout| matches!(rollout.phase, Phase::Aborting { .. }))
}

fn is_ready(instance: &Instance) -> bool {
    matches!(instance.state, InstanceState::Ready { .. })
}

impl Checker {
    /// `events` led from `before` to `after`, in one decision; `is_whole` when all of it became durable.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(
        &mut self,
        before: &State,
        after: &State,
        key: &EnvironmentKey,
        events: &[Event],
        input: &Input,
        is_whole: bool,
    ) -> Checked {
        let Some(now) = after.environments.get(key) else { return Ok(()) };
        let empty = Environment::new(key.clone());
        let then = before.environments.get(key).unwrap_or(&empty);
        self.remember(events, now);
        Self::releases(now)?;
        Self::approvals(then, now, events)?;
        // A newer deploy or a rollback ends what is paused; part of that may be all that became durable.
        let ends_it = match input {
            Input::Command { command: Command::Deploy { .. } | Command::Rollback { .. }, .. } => true,
            Input::Command { .. }
            | Input::Outcome { .. }
            | Input::Observed { .. }
            | Input::Measured { .. }
            | Input::Alert { .. }
            | Input::Sized { .. }
            | Input::Certificate { .. }
            | Input::Upgrade { .. }
            | Input::Tick => false,
        };
        if is_whole || !ends_it {
            Self::pause(then, now, events)?;
        }
        Self::migrations(now)?;
        self.rollback(then, events, input)?;
        self.deadlines(now, events)?;
        Self::warm(then, now, events)?;
        Self::order(then, now, events)?;
        Self::scaling(then, events)?;
        if is_whole {
            Self::switch(then, now, events)?;
            Self::verdicts(then, now, events)?;
            Self::much_worse(now, events)?;
            self.table(now)?;
            Self::stable_capacity(then, now, events)?;
        }
        Ok(())
    }

    fn remember(&mut self, events: &[Event], now: &Environment) {
        for event in events {
            match &event.fact {
                Fact::InstanceReady { instance } => {
                    self.ready_once.insert(instance.clone());
                }
                Fact::PhaseEntered { phase: Phase::Shifting { step, .. }, .. } => {
                    if let Some(rollout) = &now.rollout {
                        let weight = rollout.ladder().get(*step as usize).map_or(100, |rung| rung.weight);
                        if weight > 0 {
                            self.proven.insert(rollout.to);
                        }
                    }
                }
                Fact::RolloutEnded { outcome: RolloutOutcome::Completed, .. } => {
                    if let Some(last) = now.history.back() {
                        self.proven.insert(last.to);
                        self.left.remove(&last.to);
                        if last.kind == RolloutKind::Rollback {
                            self.left.extend(last.from.filter(|from| *from > last.to));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn table(&self, now: &Environment) -> Checked {
        for (service, route) in &now.routes.table.services {
            let sum: u32 = route.versions.values().map(|version| version.weight).sum();
            let to = now.rollout.as_ref().map(|rollout| rollout.to);
            let is_preview_only = sum == 0 && to.is_some_and(|to| route.versions.contains_key(&to));
            if sum != 100 && !is_preview_only {
                return broken("weights of a routed service sum to 100", format!("{service}: {sum}"));
            }
            for (release, version) in &route.versions {
                if version.weight > 0 && !self.proven.contains(release) && now.stable != Some(*release) {
                    return broken(
                        "no public traffic before the checks have passed",
                        format!("{service}: {release} has {} %", version.weight),
                    );
                }
                for (id, address) in &version.instances {
                    let Some(instance) = now.instances.get(id) else {
                        return broken("no route points at an instance that is gone", id.to_string());
                    };
                    if !matches!(instance.state, InstanceState::Ready { .. } | InstanceState::Suspect { .. })
                    {
                        return broken(
                            "no route points at an instance that cannot answer",
                            format!("{id} is {}", instance.state.name()),
                        );
                    }
                    if !self.ready_once.contains(id) {
                        return broken("no route points at an instance that never was ready", id.to_string());
                    }
                    if instance.address.as_ref() != Some(address) {
                        return broken("a route has the instance's address", id.to_string());
                    }
                }
            }
        }
        if *now.routes.table != now.desired_table() {
            return broken("the table that is set is the one that is wanted", String::new());
        }
        Ok(())
    }

    /// "Switched" is said when it is so: the table in force sends everybody to the new version.
    fn switch(then: &Environment, now: &Environment, events: &[Event]) -> Checked {
        let said = events.iter().any(|event| matches!(event.fact, Fact::Switched));
        let to = then.rollout.as_ref().map(|rollout| rollout.to);
        let (true, Some(release)) = (said, to.and_then(|to| now.release(to))) else { return Ok(()) };
        for service in release.spec.services.keys().filter(|service| now.takes(release.number, service)) {
            let weight = then.routes.table.weight(service, release.number);
            if weight < 100 && now.replicas(release.number, service) > 0 {
                return broken("it has switched when it says so", format!("{service}: {weight} %"));
            }
        }
        Ok(())
    }

    /// Copies that were serving and that we ourselves took away in this decision.
    fn taken<'a>(then: &'a Environment, events: &'a [Event]) -> impl Iterator<Item = &'a Instance> {
        events.iter().filter_map(|event| match &event.fact {
            Fact::InstanceDraining { instance, .. } | Fact::InstanceStopping { instance, .. } => {
                then.instances.get(instance).filter(|instance| is_ready(instance))
            }
            _ => None,
        })
    }

    /// Copies that failed by themselves in this very decision.
    fn lost(events: &[Event]) -> BTreeSet<&InstanceId> {
        let lost = events.iter().filter_map(|event| match &event.fact {
            Fact::InstanceDown { instance, .. }
            | Fact::InstanceSuspect { instance, .. }
            | Fact::InstanceEnded { instance, .. } => Some(instance),
            _ => None,
        });
        lost.collect()
    }

    fn ready(environment: &Environment, service: &ServiceName, of: impl Fn(&InstanceId) -> bool) -> u32 {
        let copies = environment.instances.values();
        let ready = copies.filter(|i| i.id.service == *service && of(&i.id) && environment.serves(i));
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    }

    fn stable_capacity(then: &Environment, now: &Environment, events: &[Event]) -> Checked {
        let (Some(stable), Power::Up) = (now.stable, &now.power) else { return Ok(()) };
        let lost = Self::lost(events);
        let taken = Self::taken(then, events).filter(|i| !lost.contains(&i.id));
        let services: BTreeSet<&ServiceName> = taken.map(|i| &i.id.service).collect();
        for service in services {
            let Some(spec) = now.service(stable, service) else { continue };
            if spec.is_backing() {
                continue;
            }
            let rollout = now.rollout.as_ref();
            let is_past_switch =
                rollout.is_some_and(|r| matches!(r.phase, Phase::Baking { .. } | Phase::Committing));
            let is_alike = |id: &InstanceId| now.takes(id.release, service) == spec.takes_requests();
            let has_successor = rollout.is_some_and(|rollout| {
                now.service(rollout.to, service).is_some_and(|s| s.takes_requests() == spec.takes_requests())
            });
            let gives_way = !spec.takes_requests() || rollout.is_some_and(|rollout| rollout.is_rolling());
            if is_past_switch && has_successor && gives_way {
                continue;
            }
            let before = Self::ready(then, service, |id| is_alike(id) && !lost.contains(id));
            let rolls = rollout.filter(|rollout| rollout.is_rolling() && rollout.has_shifted());
            let was_rolling = then.rollout.as_ref().filter(|r| r.is_rolling() && r.has_shifted());
            let (after, floor) = match (rolls, was_rolling) {
                (Some(rollout), _) | (None, Some(rollout)) => {
                    let replicas = now.replicas(stable, service).min(now.replicas(rollout.to, service));
                    (Self::ready(now, service, is_alike), replicas.saturating_sub(rollout.batch().1))
                }
                (None, None) => {
                    let stands = |id: &InstanceId| {
                        id.release == stable || (now.leaving.contains_key(&id.release) && is_alike(id))
                    };
                    let may_miss = now.leaving.values().max().copied().unwrap_or(0);
                    let full = now.replicas(stable, service);
                    let floor = if now.leaving.is_empty() { full } else { full.saturating_sub(may_miss) };
                    let before = Self::ready(then, service, |id| stands(id) && !lost.contains(id));
                    (Self::ready(now, service, stands), floor.min(before))
                }
            };
            if after < floor.min(before) {
                return broken(
                    "stable capacity is not reduced before commit",
                    format!("{service}: {before} ready before, {after} after, and {floor} have to be"),
                );
            }
        }
        Ok(())
    }

    fn releases(now: &Environment) -> Checked {
        let due = now.contract_due.as_ref().map(|due| due.release);
        let jobs = now.jobs.values().filter(|job| job.is_running()).map(|job| job.release);
        let needed = now.active_releases().into_iter().chain(now.instances.keys().map(|id| id.release));
        for release in needed.chain(due).chain(jobs) {
            if !now.releases.contains_key(&release) {
                return broken("nothing is dropped that is still needed", release.to_string());
            }
        }
        Ok(())
    }

    fn approvals(then: &Environment, now: &Environment, events: &[Event]) -> Checked {
        let mut started = false;
        for event in events {
            match &event.fact {
                Fact::RolloutPlanned { .. } => started = false,
                Fact::PhaseEntered { phase, .. } => {
                    started |= !matches!(phase, Phase::Planned | Phase::Aborting { .. });
                }
                _ => {}
            }
        }
        let (true, Some(rollout)) = (started, &now.rollout) else { return Ok(()) };
        let Some(release) = now.release(rollout.to) else { return Ok(()) };
        let approvers: BTreeSet<String> = rollout
            .approvals
            .keys()
            .map(|name| name.to_lowercase())
            .filter(|name| {
                *name != rollout.requested_by.to_lowercase()
                    && *name != release.created_by.to_lowercase()
                    && release.spec.source.authors.iter().all(|author| author.to_lowercase() != *name)
            })
            .collect();
        let needed = match rollout.kind {
            RolloutKind::Deploy => release.spec.deploy.approvers as usize,
            RolloutKind::Rollback => 0,
        };
        if approvers.len() < needed {
            return broken(
                "an approval by the author does not count",
                format!("{} began with {:?}, {needed} needed", rollout.number, rollout.approvals),
            );
        }
        if rollout.kind == RolloutKind::Rollback && !then.served.contains(&rollout.to) {
            return broken("only what has served comes back without checks", rollout.to.to_string());
        }
        Ok(())
    }

    fn pause(then: &Environment, now: &Environment, events: &[Event]) -> Checked {
        let (Some(before), Some(after)) = (&then.rollout, &now.rollout) else { return Ok(()) };
        let is_paused = |pace: &Pace| matches!(pace, Pace::Paused { .. });
        let shifts = after.is_rolling() && matches!(after.phase, Phase::Shifting { .. });
        if before.number != after.number
            || !is_paused(&before.pace)
            || !is_paused(&after.pace)
            || is_aborting(now)
        {
            return Ok(());
        }
        for event in events {
            let moves = match &event.fact {
                Fact::PhaseEntered { .. } | Fact::Switched => true,
                Fact::InstancePlanned { instance, .. } => {
                    let rolls = after.from.is_some_and(|from| now.service(from, &instance.service).is_some());
                    shifts && rolls && instance.release == after.to
                }
                _ => false,
            };
            if moves {
                return broken("a paused rollout does not move", event.fact.name().to_owned());
            }
        }
        let serving = Self::taken(then, events).find(|i| {
            let rolls = now.service(after.to, &i.id.service).is_some_and(|spec| !spec.is_backing());
            shifts && rolls && Some(i.id.release) == after.from
        });
        serving.map_or(Ok(()), |i| broken("a paused rollout does not move", i.id.to_string()))
    }

    fn migrations(now: &Environment) -> Checked {
        let running: Vec<_> = now
            .jobs
            .values()
            .filter(|job| job.is_running() && matches!(job.kind, JobKind::Expand | JobKind::Contract))
            .map(|job| job.number)
            .collect();
        if running.len() > 1 {
            return broken("one migration at a time", format!("{running:?}"));
        }
        if let (Some(contracted_by), Some(stable)) = (now.contracted_by, now.stable)
            && stable < contracted_by
        {
            return broken(
                "no release serves past its contraction",
                format!("{stable} after {contracted_by}"),
            );
        }
        if let (Some(contracted_by), Some(warm)) = (now.contracted_by, &now.warm)
            && warm.release < contracted_by
        {
            return broken("no release is warm past its contraction", warm.release.to_string());
        }
        Ok(())
    }

    fn rollback(&self, then: &Environment, events: &[Event], input: &Input) -> Checked {
        let Input::Command { command: Command::Rollback { to: None, .. }, .. } = input else { return Ok(()) };
        for event in events {
            if let Fact::RolloutPlanned { rollout } = &event.fact
                && self.left.contains(&rollout.to)
                && then.stable.is_some()
            {
                return broken("a rollback does not go back to what was left", rollout.to.to_string());
            }
        }
        Ok(())
    }

    /// A deadline that has been given is kept: only draining begins anew, once, when the proxy lets go.
    fn deadlines(&mut self, now: &Environment, events: &[Event]) -> Checked {
        for event in events {
            if let Fact::InstancePlanned { instance, deadline, .. } = &event.fact {
                self.deadlines.insert(instance.clone(), *deadline);
            }
        }
        for instance in now.instances.values() {
            if let InstanceState::Starting { deadline } = instance.state
                && self.deadlines.get(&instance.id) != Some(&deadline)
            {
                return broken("deadlines do not start again", instance.id.to_string());
            }
        }
        Ok(())
    }

    /// Nothing starts before what it depends on has been ready.
    fn order(then: &Environment, now: &Environment, events: &[Event]) -> Checked {
        for event in events {
            let Fact::InstancePlanned { instance, .. } = &event.fact else { continue };
            let Some(spec) = now.service(instance.release, &instance.service) else { continue };
            for after in &spec.after {
                let Some(dependency) = now.service(instance.release, after) else { continue };
                let is_meant = |id: &InstanceId| {
                    id.service == *after && (dependency.is_backing() || id.release == instance.release)
                };
                let was_ready = then.instances.values().chain(now.instances.values());
                let was_ready = was_ready.filter(|i| is_meant(&i.id)).any(is_ready);
                if !was_ready && now.wanted(after, instance.release) > 0 {
                    return broken(
                        "nothing starts before what it depends on",
                        format!("{instance} before {after}"),
                    );
                }
            }
        }
        Ok(())
    }

    fn warm(then: &Environment, now: &Environment, events: &[Event]) -> Checked {
        let Some(warm) = &then.warm else { return Ok(()) };
        match &now.warm {
            Some(still) if still == warm => {
                let own = Self::taken(then, events).find(|i| i.id.release == warm.release);
                let Some(own) = own else { return Ok(()) };
                let service = &own.id.service;
                let ready = Self::ready(now, service, |id| id.release == warm.release);
                if now.takes(warm.release, service) && ready < now.replicas(warm.release, service) {
                    return broken("the warm release stays started until its time", own.id.to_string());
                }
                Ok(())
            }
            Some(_) | None => {
                let has_reason = events.iter().any(|event| match &event.fact {
                    Fact::TakenDown
                    | Fact::RolloutEnded { outcome: RolloutOutcome::Completed, .. }
                    | Fact::JobPlanned { .. } => true,
                    Fact::Cooled { .. } => {
                        warm.until <= event.at
                            || events.iter().any(|event| matches!(event.fact, Fact::JobPlanned { .. }))
                            || now.contract_due.is_some()
                    }
                    _ => false,
                });
                if has_reason {
                    Ok(())
                } else {
                    broken("the warm release stays started until its time", warm.release.to_string())
                }
            }
        }
    }

    /// Is it, or something that it starts after, held until a person says otherwise?
    fn waits_on_held(now: &Environment, release: &Release, service: &ServiceName) -> bool {
        now.replacements.get(service).is_some_and(Replacement::is_held)
            || release
                .spec
                .services
                .get(service)
                .is_some_and(|spec| spec.after.iter().any(|after| Self::waits_on_held(now, release, after)))
    }

    /// What holds when nothing happens any more.
    ///
    /// # Errors
    /// What does not.
    pub fn rests(now: &Environment, proxy: &(Generation, Arc<RouteTable>)) -> Checked {
        match now.waiting() {
            None | Some(Waiting::Approvals { .. } | Waiting::Promotion | Waiting::Paused { .. }) => {}
            Some(other) => {
                return broken("every rollout ends or waits for a person", format!("{other:?}"));
            }
        }
        if proxy.0 != now.routes.generation || proxy.1 != now.routes.table {
            let detail = format!("{} is served, {} was decided", proxy.0, now.routes.generation);
            return broken("the proxy serves what was decided", detail);
        }
        for instance in now.instances.values() {
            match instance.state {
                InstanceState::Ready { .. } => {}
                InstanceState::Starting { .. }
                | InstanceState::Suspect { .. }
                | InstanceState::Down { .. }
                | InstanceState::Draining { .. }
                | InstanceState::Stopping { .. } => {
                    return broken(
                        "at rest every instance is ready",
                        format!("{} is {}", instance.id, instance.state.name()),
                    );
                }
            }
        }
        let (Some(stable), Power::Up) = (now.stable, &now.power) else { return Ok(()) };
        let Some(release) = now.release(stable) else { return Ok(()) };
        for service in release.spec.services.keys() {
            let held = Self::waits_on_held(now, release, service);
            let is_moving = now.rollout.as_ref().is_some_and(|rollout| rollout.has_shifted());
            if !held && !is_moving && !now.is_satisfied(stable, service) {
                return broken("at rest the serving release is whole", format!("{service} of {stable}"));
            }
        }
        Ok(())
    }
}
