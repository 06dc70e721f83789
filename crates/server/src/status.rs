//! The state of an environment as the API tells it.

mod accounts;

use fairway_api as api;
use fairway_engine::id::{InstanceId, ReleaseNumber, ServiceName};
use fairway_engine::release::Release;
use fairway_engine::service::{BackingEngine, Runs, ServiceSpec};
use fairway_engine::time::Timestamp;
use fairway_engine::{
    AbortCause, Environment, Instance, InstanceEnd, InstanceState, Job, JobEnd, JobState, Pace, Phase, Power,
    RolloutKind, RolloutOutcome, RolloutSummary, Upgrade, UpgradeEnd, UpgradeOver,
};
use fairway_proxy::control::{LATENCY_BOUNDS_US, Stats};
use fairway_targets::key::InstanceKey;

use crate::certificates::{Ending, NameState, NameStatus};
use crate::drivers::{Known, Told};
use crate::routes::{self, service_key};

/// What the drivers know beyond the record.
#[derive(Debug)]
pub struct Live {
    pub routing: Routing,
    /// Figures of the proxy; none when it does not answer.
    pub stats: Option<Stats>,
    pub told: Known,
    pub certificates: Vec<NameStatus>,
    /// For what ends.
    pub now: Timestamp,
}

/// Does the proxy do what the record says?
#[derive(Debug)]
pub enum Routing {
    InForce,
    /// What this server sent last it could not take; what an environment had confirmed before is in force.
    Behind {
        why: String,
    },
    /// It does not answer, or has not said what it serves.
    Unknown {
        why: String,
    },
}

#[must_use]
pub fn environment(env: &Environment, live: &Live) -> api::EnvironmentStatus {
    let services = services(env, live);
    let (health, summary) = health(env, &services, live);
    let rollback_target = env.rollback_target();
    let retained = env
        .releases
        .values()
        .rev()
        .filter(|release| env.can_come_back(release.number))
        .map(|release| release_info(release))
        .collect();
    let listen = env.routes.table.listen.as_ref();
    api::EnvironmentStatus {
        project: env.key.project.to_string(),
        environment: env.key.environment.to_string(),
        health,
        summary,
        listen: listen.map(|listen| listen.address.clone()),
        host: listen.and_then(|listen| listen.host.clone()),
        urls: routes::urls(env, &live.certificates),
        certificates: certificates(env, live),
        shared: Vec::new(),
        stable: env.stable.and_then(|stable| env.release(stable)).map(release_info),
        stable_since_ms: env.stable_since.map(|since| since.0),
        warm: env
            .warm
            .as_ref()
            .map(|warm| api::WarmInfo { release: warm.release.to_string(), until_ms: warm.until.0 }),
        rollout: rollout(env),
        services,
        routes: api::RoutesStatus {
            generation: env.routes.generation.0,
            applied: env.routes.applied.0,
            refused: env.routes.refused.clone(),
        },
        maintenance: env.maintenance.clone(),
        purge: purge(env),
        queued: u32::try_from(env.queue.len()).unwrap_or(u32::MAX),
        traffic: traffic(env, live),
        retained,
        rollback_target: rollback_target.map(|release| release.to_string()),
        contract_due_ms: env.contract_due.as_ref().map(|due| due.due.0),
        contracted_by: env.contracted_by.map(|release| release.to_string()),
        last: env.history.back().map(|last| rollout_info(env, last)),
        ended: env.ended.iter().rev().map(|ended| ended_info(ended)).collect(),
        jobs: env.jobs.values().rev().map(job).collect(),
        purges: env.purges.iter().rev().map(accounts::purge).collect(),
        certificate_news: env.certificate_news.iter().rev().map(accounts::certificate).collect(),
        upgrades: env.upgrades.iter().rev().map(upgrade_info).collect(),
    }
}

fn purge(env: &Environment) -> Option<api::PurgeStatus> {
    if let Some(due) = &env.purge {
        let (at_ms, release) = (due.since.0, due.release.to_string());
        return Some(api::PurgeStatus { at_ms, release, state: api::PurgeState::UnderWay });
    }
    let last = env.purged.as_ref()?;
    let attempts = last.attempts;
    let state = match &last.failure {
        None => api::PurgeState::Done { attempts },
        Some(why) => api::PurgeState::Failed { attempts, why: why.clone() },
    };
    Some(api::PurgeStatus { at_ms: last.at.0, release: last.release.to_string(), state })
}

fn upgrade_info(over: &UpgradeOver) -> api::UpgradeInfo {
    let (outcome, cause) = match &over.end {
        UpgradeEnd::Done => ("done", None),
        UpgradeEnd::Refused { why } => ("refused", Some(why.clone())),
        UpgradeEnd::CameBack { why } => ("came back", Some(why.clone())),
        UpgradeEnd::Interrupted { version } => {
            ("interrupted", Some(format!("the server ended, and was started again as {version}")))
        }
    };
    let Upgrade { from, to, by, .. } = over.upgrade.clone();
    api::UpgradeInfo { from, to, by, ended_ms: over.at.0, outcome: outcome.to_owned(), cause }
}

fn certificates(env: &Environment, live: &Live) -> Vec<api::CertificateStatus> {
    let key = env.key.to_string();
    let ours = live.certificates.iter().filter(|one| one.environment == key);
    ours.map(|one| certificate(one, live.now)).collect()
}

#[must_use]
pub fn certificate(one: &NameStatus, now: Timestamp) -> api::CertificateStatus {
    api::CertificateStatus {
        name: one.name.clone(),
        source: one.source.clone(),
        issuer: one.issuer.clone(),
        ending: one.state.ending(now).map(|ending| match ending {
            Ending::Soon => api::Ending::Soon,
            Ending::Now => api::Ending::Now,
            Ending::Over => api::Ending::Over,
        }),
        until_ms: one.state.until().map(|until| until.0),
        state: match &one.state {
            NameState::Valid { renew_at, suggested, .. } => {
                api::CertificateState::Valid { renew_ms: renew_at.0, suggested: *suggested }
            }
            NameState::Ordering { step, .. } => api::CertificateState::Ordering { step: step.to_string() },
            NameState::Failed { trouble, .. } => api::CertificateState::Failed {
                why: trouble.why.clone(),
                hint: trouble.hint.clone(),
                retry_ms: trouble.retry_at.0,
            },
            NameState::Manual { .. } => api::CertificateState::Manual,
            NameState::SelfSigned { .. } => api::CertificateState::SelfSigned,
        },
    }
}

#[must_use]
pub fn release_info(release: &Release) -> api::ReleaseInfo {
    let source = &release.spec.source;
    api::ReleaseInfo {
        name: release.number.to_string(),
        created_ms: release.created_at.0,
        created_by: release.created_by.clone(),
        title: source.title.clone(),
        commit: source.commit.clone(),
        dirty: source.dirty,
    }
}

/// Says "unknown" where it is unknown, and never better than it is.
fn health(env: &Environment, services: &[api::ServiceStatus], live: &Live) -> (api::Health, String) {
    if let Power::Down { by, .. } = &env.power {
        return (api::Health::Down, format!("taken down by {by}"));
    }
    let Some((release, summary)) = serving(env) else {
        return match (&env.rollout, env.history.back()) {
            (Some(rollout), _) => {
                (api::Health::Down, format!("the first deploy is under way ({})", rollout.phase.name()))
            }
            (None, Some(last)) => (
                api::Health::Down,
                format!("nothing serves: rollout {} {}", last.number, last.outcome.name()),
            ),
            (None, None) => (api::Health::Down, "nothing has been deployed".to_owned()),
        };
    };
    if let Routing::Unknown { why } = &live.routing {
        let text = format!("{release} is set to serve, but what the proxy does is not known: {why}");
        return (api::Health::Unknown, text);
    }
    if let Some(service) = services.iter().find(|service| service.wanted > 0 && service.ready == 0) {
        return (api::Health::Failing, format!("no copy of {} is ready", service.name));
    }
    if let Some(why) = &env.routes.refused {
        return (
            api::Health::Degraded,
            format!("the proxy refused the last route table and serves the one before: {why}"),
        );
    }
    if let Some(service) = services.iter().find(|service| service.ready < service.wanted) {
        let text = format!("{}: {} of {} copies ready", service.name, service.ready, service.wanted);
        return (api::Health::Degraded, text);
    }
    if let Some(name) = without_copies(env, release) {
        return (api::Health::Degraded, format!("{name} runs no copies: nothing answers its requests"));
    }
    if let Some(silent) = silent(env, live) {
        let text = format!("{silent} was ready and has not reported since this server started");
        return (api::Health::Unknown, text);
    }
    if !env.routes.is_applied() {
        let why = match &live.routing {
            Routing::Behind { why } => format!(": {why}"),
            Routing::InForce | Routing::Unknown { .. } => String::new(),
        };
        return (api::Health::Unknown, format!("the proxy has not confirmed the last route table{why}"));
    }
    let key = env.key.to_string();
    let mut ours = live.certificates.iter().filter(|one| one.environment == key);
    if let Some(ended) = ours.find(|one| one.state.ending(live.now) == Some(Ending::Over)) {
        let text = format!("the certificate of {} has ended: browsers refuse to connect", ended.name);
        return (api::Health::Degraded, text);
    }
    if let Some(message) = &env.maintenance {
        return (api::Health::Degraded, format!("visitors get the maintenance page: {message}"));
    }
    (api::Health::Serving, summary)
}

/// The release that public requests reach, and how to say so. A first deploy has no stable release before its end.
fn serving(env: &Environment) -> Option<(ReleaseNumber, String)> {
    if let Some(stable) = env.stable {
        return Some((stable, format!("{stable} serves")));
    }
    let rollout = env.rollout.as_ref().filter(|rollout| rollout.switched_at.is_some())?;
    let (to, phase) = (rollout.to, rollout.phase.name());
    Some((to, format!("{to} serves; its first deploy is under way ({phase})")))
}

/// A service that takes public requests and was scaled to nothing.
fn without_copies(env: &Environment, serving: ReleaseNumber) -> Option<&ServiceName> {
    let services = &env.release(serving)?.spec.services;
    let mut public = services.iter().filter(|(_, spec)| spec.route.is_some()).map(|(name, _)| name);
    public.find(|name| env.replicas(serving, name) == 0)
}

/// A copy that is ready by the record alone: its process may have ended while no server was there to hear of it.
fn silent<'a>(env: &'a Environment, live: &Live) -> Option<&'a InstanceId> {
    let has_reported = |id: &InstanceId| told(env, id, live).is_some_and(|told| told.pid.is_some());
    env.instances.values().filter(|instance| instance.is_ready()).map(|i| &i.id).find(|id| !has_reported(id))
}

fn told<'a>(env: &Environment, instance: &InstanceId, live: &'a Live) -> Option<&'a Told> {
    live.told.get(&InstanceKey { environment: env.key.clone(), instance: instance.clone() })
}

fn services(env: &Environment, live: &Live) -> Vec<api::ServiceStatus> {
    let coming = env.rollout.as_ref().map(|rollout| rollout.to);
    let facing = env.stable.or(coming);
    env.services()
        .into_iter()
        .map(|name| {
            let releases = facing.into_iter().chain(env.active_releases());
            let spec = releases.filter_map(|release| env.service(release, &name)).next();
            let is_backing = spec.is_some_and(ServiceSpec::is_backing);
            let wanted = match facing {
                _ if matches!(env.power, Power::Down { .. }) => 0,
                Some(_) if is_backing => 1,
                Some(release) => env.replicas(release, &name),
                None => 0,
            };
            let ready = match facing {
                Some(_) if is_backing => env.backing_ready(&name),
                // While a rolling rollout is under way, the copies of both releases carry the service.
                Some(release) => env
                    .rollout
                    .iter()
                    .filter(|rollout| rollout.phase.has_shifted() && rollout.to != release)
                    .map(|rollout| env.ready_count(rollout.to, &name))
                    .sum::<u32>()
                    .saturating_add(env.ready_count(release, &name))
                    .min(wanted),
                None => 0,
            };
            api::ServiceStatus {
                kind: spec.map_or("gone", |spec| kind(&spec.runs)).to_owned(),
                route: spec.and_then(|spec| spec.route.as_ref()).map(|route| route.path.clone()),
                wanted,
                ready,
                instances: instances(env, &name, live),
                retry_ms: env
                    .replacements
                    .get(&name)
                    .filter(|_| ready < wanted)
                    .map(|replacement| replacement.not_before.0),
                by_hand: coming
                    .into_iter()
                    .chain(facing)
                    .find_map(|release| env.service(release, &name))
                    .and_then(|spec| by_hand(env, &name, spec)),
                name: name.to_string(),
            }
        })
        .collect()
}

fn by_hand(env: &Environment, name: &ServiceName, spec: &ServiceSpec) -> Option<api::ByHand> {
    if spec.is_backing() {
        return None;
    }
    if spec.autoscale.is_some() {
        let pin = env.autoscalers.get(name)?.pin?;
        return Some(api::ByHand::Time { at_ms: pin.until.0 });
    }
    env.scale.get(name).map(|_| api::ByHand::TakenBack { in_file: spec.replicas })
}

fn kind(runs: &Runs) -> &'static str {
    match runs {
        Runs::Process { .. } => "process",
        Runs::Static { .. } => "static",
        Runs::Backing { engine: BackingEngine::Postgres, .. } => "postgres",
        Runs::Backing { engine: BackingEngine::Redis, .. } => "redis",
    }
}

fn instances(env: &Environment, service: &ServiceName, live: &Live) -> Vec<api::InstanceStatus> {
    let own = env.instances.values().filter(|instance| instance.id.service == *service);
    own.map(|instance| {
        let (since, why) = since_and_why(instance);
        let told = told(env, &instance.id, live);
        api::InstanceStatus {
            id: instance.id.to_string(),
            release: instance.id.release.to_string(),
            state: instance.state.name().to_owned(),
            since_ms: since,
            why,
            address: instance.address.as_deref().map(str::to_owned),
            pid: told.and_then(|told| told.pid),
            crashes: instance.crashes,
            weight: env.routes.table.weight(service, instance.id.release),
            not_enforced: told.map(|told| told.not_enforced.clone()).unwrap_or_default(),
        }
    })
    .collect()
}

fn since_and_why(instance: &Instance) -> (u64, Option<String>) {
    match &instance.state {
        InstanceState::Starting { .. } => (instance.planned_at.0, None),
        InstanceState::Ready { since }
        | InstanceState::Draining { since, .. }
        | InstanceState::Stopping { since, .. } => (since.0, None),
        InstanceState::Suspect { since, why } | InstanceState::Down { since, why } => {
            (since.0, Some(why.clone()))
        }
    }
}

fn rollout(env: &Environment) -> Option<api::RolloutStatus> {
    let rollout = env.rollout.as_ref()?;
    let waiting = env.waiting();
    let steps = rollout
        .ladder()
        .into_iter()
        .map(|rung| api::StepInfo {
            weight: rung.weight,
            hold_ms: u64::try_from(rung.hold.as_millis()).unwrap_or(u64::MAX),
            approve: rung.approve,
        })
        .collect();
    let (step, cause) = match &rollout.phase {
        Phase::Shifting { step, .. } => (Some(*step), None),
        Phase::Aborting { cause, .. } => (None, Some(cause.to_string())),
        Phase::Planned
        | Phase::Migrating { .. }
        | Phase::Starting
        | Phase::Verifying { .. }
        | Phase::Baking { .. }
        | Phase::Committing => (None, None),
    };
    let weight = env
        .routes
        .table
        .services
        .values()
        .filter(|service| service.route.is_some())
        .filter_map(|service| service.versions.get(&rollout.to))
        .map(|version| version.weight)
        .max()
        .unwrap_or(0);
    Some(api::RolloutStatus {
        number: rollout.number.0,
        kind: kind_name(rollout.kind).to_owned(),
        to: rollout.to.to_string(),
        from: rollout.from.map(|from| from.to_string()),
        strategy: rollout.strategy.name().to_owned(),
        requested_by: rollout.requested_by.clone(),
        requested_ms: rollout.requested_at.0,
        reason: rollout.reason.clone(),
        phase: rollout.phase.name().to_owned(),
        phase_since_ms: rollout.phase_since.0,
        waiting: waiting.as_ref().map_or_else(String::new, ToString::to_string),
        waiting_until_ms: waiting.and_then(|waiting| waiting.until()).map(|until| until.0),
        paused_by: match &rollout.pace {
            Pace::Running => None,
            Pace::Paused { by, .. } => Some(by.clone()),
        },
        weight,
        steps,
        step,
        switched_ms: rollout.switched_at.map(|at| at.0),
        approvals: rollout.approvals.keys().cloned().collect(),
        approvals_needed: rollout.approvals_needed,
        cause,
        evidence: env.evidence().map(|view| crate::evidence::to_api(&view)),
    })
}

fn kind_name(kind: RolloutKind) -> &'static str {
    match kind {
        RolloutKind::Deploy => "deploy",
        RolloutKind::Rollback => "rollback",
    }
}

#[must_use]
pub fn rollout_info(env: &Environment, summary: &RolloutSummary) -> api::RolloutInfo {
    let (cause, last_lines) = match &summary.outcome {
        RolloutOutcome::RolledBack { cause } | RolloutOutcome::Failed { cause } => {
            (Some(cause.to_string()), cause.last_lines().to_vec())
        }
        RolloutOutcome::Superseded { by } => (Some(format!("rollout {by} took over")), Vec::new()),
        RolloutOutcome::TakenDown { by } => (Some(format!("{by} took the environment down")), Vec::new()),
        RolloutOutcome::Completed => (None, Vec::new()),
    };
    let finding = match &summary.outcome {
        RolloutOutcome::RolledBack { cause: AbortCause::Evidence { finding } }
        | RolloutOutcome::Failed { cause: AbortCause::Evidence { finding } } => {
            Some(crate::evidence::gate(finding))
        }
        RolloutOutcome::RolledBack { .. }
        | RolloutOutcome::Failed { .. }
        | RolloutOutcome::Superseded { .. }
        | RolloutOutcome::TakenDown { .. }
        | RolloutOutcome::Completed => None,
    };
    api::RolloutInfo {
        number: summary.number.0,
        kind: kind_name(summary.kind).to_owned(),
        to: summary.to.to_string(),
        from: summary.from.map(|from| from.to_string()),
        strategy: summary.strategy.clone(),
        requested_by: summary.requested_by.clone(),
        requested_ms: summary.requested_at.0,
        switched_ms: summary.switched_at.map(|at| at.0),
        ended_ms: summary.ended_at.0,
        outcome: summary.outcome.name().to_owned(),
        cause,
        finding,
        last_lines,
        reason: summary.reason.clone(),
        title: env.release(summary.to).and_then(|release| release.spec.source.title.clone()),
    }
}

fn ended_info(ended: &fairway_engine::EndedInstance) -> api::EndedInfo {
    let (how, last_lines) = match &ended.how {
        InstanceEnd::Stopped { exit } => (format!("stopped ({exit})"), Vec::new()),
        InstanceEnd::Failed { failure } => (format!("failed: {}", failure.cause), failure.last_lines.clone()),
        InstanceEnd::Unverifiable { why } => (format!("beyond control: {why}"), Vec::new()),
    };
    api::EndedInfo { id: ended.id.to_string(), at_ms: ended.at.0, how, last_lines }
}

#[must_use]
pub fn job(job: &Job) -> api::JobInfo {
    let (since, ended, outcome) = match &job.state {
        JobState::Running { since } => (since.0, None, api::JobOutcome::Running),
        JobState::Ended { at, end } => {
            let outcome = match end {
                JobEnd::Succeeded => api::JobOutcome::Succeeded,
                JobEnd::Failed { failure } => api::JobOutcome::Failed {
                    cause: failure.cause.clone(),
                    last_lines: failure.last_lines.clone(),
                },
                JobEnd::Lost { why } => api::JobOutcome::Lost { why: why.clone() },
            };
            (at.0, Some(at.0), outcome)
        }
    };
    api::JobInfo {
        number: job.number.0,
        kind: job.kind.name().to_owned(),
        release: job.release.to_string(),
        requested_by: job.requested_by.clone(),
        started_ms: since,
        ended_ms: ended,
        outcome,
    }
}

fn traffic(env: &Environment, live: &Live) -> Vec<api::TrafficStatus> {
    let Some(stats) = &live.stats else { return Vec::new() };
    let mut traffic = Vec::new();
    for (service, route) in &env.routes.table.services {
        for (release, version) in &route.versions {
            let sum = stats.version(&service_key(&env.key, service), &release.to_string());
            traffic.push(api::TrafficStatus {
                service: service.to_string(),
                release: ReleaseNumber::to_string(release),
                weight: version.weight,
                requests: sum.requests_total(),
                errors: sum.failed,
                in_flight: sum.in_flight,
                p50_ms: quantile_ms(&sum.latency, 0.50),
                p95_ms: quantile_ms(&sum.latency, 0.95),
                p99_ms: quantile_ms(&sum.latency, 0.99),
            });
        }
    }
    traffic
}

/// Quantile of a histogram, linear within the bucket as Prometheus does; none without requests. What lies in the last,
/// open bucket is given as its lower bound.
fn quantile_ms(buckets: &[u64], q: f64) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = q * total as f64;
    let mut below = 0u64;
    let mut lower = 0u64;
    for (index, count) in buckets.iter().enumerate() {
        let Some(&upper) = LATENCY_BOUNDS_US.get(index) else { break };
        if (below + count) as f64 >= rank && *count > 0 {
            let within = (rank - below as f64) / *count as f64;
            return Some((lower as f64 + (upper - lower) as f64 * within) / 1_000.0);
        }
        below += count;
        lower = upper;
    }
    Some(lower as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use fairway_engine::strategy::Strategy;
    use fairway_engine::{Command, Outcome};

    use super::*;
    use crate::testing::{World, command_of, deploy, key, name, outcome_of, release};

    fn serving_world() -> World {
        World::deployed(&key("dev"), release("127.0.0.1:8080"))
    }

    /// All copies have told this server that they run.
    fn live(world: &World) -> Live {
        let instances = world.of(&key("dev")).instances.keys().cloned();
        let told = instances.map(|instance| {
            let key = InstanceKey { environment: key("dev"), instance };
            (key, Told { pid: Some(7), not_enforced: Vec::new() })
        });
        Live {
            routing: Routing::InForce,
            stats: Some(Stats::default()),
            told: told.collect(),
            certificates: Vec::new(),
            now: Timestamp(0),
        }
    }

    fn check(world: &World, live: &Live, health: api::Health, summary: &str) {
        let status = environment(world.of(&key("dev")), live);
        assert_eq!((status.health, status.summary.as_str()), (health, summary));
    }

    #[test]
    fn serving_is_said_of_what_is_known_to_serve() {
        let world = serving_world();
        check(&world, &live(&world), api::Health::Serving, "r1 serves");
    }

    #[test]
    fn a_proxy_that_does_not_tell_makes_it_unknown() {
        let world = serving_world();
        let routing = Routing::Unknown { why: "no answer in 1s".to_owned() };
        let text = "r1 is set to serve, but what the proxy does is not known: no answer in 1s";
        check(&world, &Live { routing, ..live(&world) }, api::Health::Unknown, text);
    }

    #[test]
    fn a_copy_that_has_not_reported_since_the_start_is_not_believed() {
        let world = serving_world();
        let text = "api.r1.1 was ready and has not reported since this server started";
        check(&world, &Live { told: Known::new(), ..live(&world) }, api::Health::Unknown, text);
        let mut elsewhere = live(&world);
        let of =
            |environment: &str, instance: InstanceId| InstanceKey { environment: key(environment), instance };
        elsewhere.told =
            live(&world).told.into_iter().map(|(k, told)| (of("staging", k.instance), told)).collect();
        check(&world, &elsewhere, api::Health::Unknown, text);
    }

    #[test]
    fn the_worst_is_said_first() {
        let dev = key("dev");
        let mut world = serving_world();
        let generation = world.of(&dev).routes.generation.next();
        let instance = world.of(&dev).instances.keys().next().unwrap().clone();
        world.give(outcome_of(&dev, Outcome::InstanceDown { instance, why: "exit code 1".to_owned() }));
        let why = "no room".to_owned();
        world.give(outcome_of(&dev, Outcome::RoutesRefused { generation, why }));
        assert!(world.of(&dev).routes.refused.is_some());
        check(&world, &live(&world), api::Health::Failing, "no copy of api is ready");
    }

    #[test]
    fn a_public_service_that_was_scaled_to_nothing_does_not_serve() {
        let dev = key("dev");
        let mut world = serving_world();
        world.give(command_of(&dev, Command::Scale { service: name("api"), replicas: 0 }));
        world.settle(&dev);
        let text = "api runs no copies: nothing answers its requests";
        check(&world, &live(&world), api::Health::Degraded, text);
        world.give(command_of(&dev, Command::Scale { service: name("api"), replicas: 1 }));
        world.settle(&dev);
        check(&world, &live(&world), api::Health::Serving, "r1 serves");
    }

    #[test]
    fn a_number_given_by_hand_is_said_to_be_one_until_it_is_taken_back() {
        let dev = key("dev");
        let mut world = serving_world();
        let by_hand = |world: &World| {
            let services = environment(world.of(&dev), &live(world)).services;
            let found = services.into_iter().find(|service| service.name == "api").unwrap();
            (found.wanted, found.by_hand)
        };
        let (in_file, none) = by_hand(&world);
        assert_eq!(none, None);
        world.give(command_of(&dev, Command::Scale { service: name("api"), replicas: 3 }));
        assert_eq!(by_hand(&world), (3, Some(api::ByHand::TakenBack { in_file })));
        world.give(command_of(&dev, Command::Autoscale { service: name("api") }));
        assert_eq!(by_hand(&world), (in_file, None));
    }

    #[test]
    fn only_what_a_rollback_can_go_to_is_listed_as_such() {
        let dev = key("dev");
        let mut world = serving_world();
        let deployed = |world: &mut World| {
            let mut next = release("127.0.0.1:8080");
            next.deploy.strategy = Strategy::BlueGreen { approve: false };
            world.give(deploy(&dev, next));
        };
        let listed = |world: &World| -> Vec<String> {
            environment(world.of(&dev), &live(world)).retained.into_iter().map(|one| one.name).collect()
        };
        deployed(&mut world);
        world.give(command_of(&dev, Command::Rollback { to: None, reason: None }));
        world.settle(&dev);
        assert!(world.of(&dev).rollout.is_none());
        assert_eq!(listed(&world), [""; 0], "r2 has never served");
        deployed(&mut world);
        world.settle(&dev);
        assert_eq!(listed(&world), ["r1"]);
    }

    #[test]
    fn an_unconfirmed_table_says_what_it_waits_for() {
        let dev = key("dev");
        let mut world = serving_world();
        world.give(command_of(&dev, Command::MaintenanceOn { message: "back at nine".to_owned() }));
        let behind = Live { routing: Routing::Behind { why: "no room".to_owned() }, ..live(&world) };
        let text = "the proxy has not confirmed the last route table: no room";
        check(&world, &behind, api::Health::Unknown, text);
        world.settle(&dev);
        let text = "visitors get the maintenance page: back at nine";
        check(&world, &live(&world), api::Health::Degraded, text);
        world.give(command_of(&dev, Command::Down));
        check(&world, &live(&world), api::Health::Down, "taken down by ann");
    }

    #[test]
    fn nothing_serves_before_the_first_switch() {
        let mut world = World::default();
        world.give(deploy(&key("dev"), release("127.0.0.1:8080")));
        let text = "the first deploy is under way (starting)";
        check(&world, &live(&world), api::Health::Down, text);
    }

    #[test]
    fn a_certificate_that_has_ended_is_no_good_health() {
        let world = serving_world();
        let ended = NameStatus {
            environment: key("dev").to_string(),
            name: "shop.example".to_owned(),
            source: "/etc/ssl/shop.pem".to_owned(),
            issuer: Some("Acme".to_owned()),
            state: NameState::Manual { until: Timestamp(1000) },
        };
        let at = |now| Live { certificates: vec![ended.clone()], now: Timestamp(now), ..live(&world) };
        let text = "the certificate of shop.example has ended: browsers refuse to connect";
        check(&world, &at(1000), api::Health::Degraded, text);
        check(&world, &at(999), api::Health::Serving, "r1 serves");
        let shown = certificate(&ended, Timestamp(999));
        assert_eq!((shown.ending, shown.until_ms), (Some(api::Ending::Now), Some(1000)));
    }

    #[test]
    fn quantiles_are_linear_within_a_bucket() {
        let mut buckets = vec![0; LATENCY_BOUNDS_US.len() + 1];
        assert_eq!(quantile_ms(&buckets, 0.5), None);
        buckets[1] = 100;
        assert_eq!(quantile_ms(&buckets, 0.5), Some(7.5));
        buckets[LATENCY_BOUNDS_US.len()] = 1_000_000;
        assert_eq!(quantile_ms(&buckets, 0.99), Some(10_000.0));
    }
}
