//! The proxy's counters become observations that rollouts are judged by.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::id::{EnvironmentKey, Generation, ReleaseNumber, ServiceName};
use fairway_engine::{ArmCounters, Environment, Input, Observation, Phase};
use fairway_proxy::control::{Arm, Arms};
use tokio::time::Instant;

use super::ASK_PROXY_TIMEOUT;
use crate::pump::Pump;
use crate::routes::{Routes, service_key};

/// While a rollout is judged. A bad answer is in the engine's hands after at most this and a write to disk: what a
/// canary costs its visitors is counted in such moments.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Nothing bad happened: so often the counts go on the record while a step is young, which is when slow answers are
/// found out, and so often afterwards. Every one of them stays in the log for good.
const SEND_EVERY_YOUNG: Duration = Duration::from_secs(1);
const SEND_EVERY: Duration = Duration::from_secs(5);
const YOUNG: Duration = Duration::from_secs(60);

/// What was last sent of an environment.
#[derive(Debug)]
struct Sent {
    at: Instant,
    /// When traffic was last set anew.
    since: Instant,
    applied: Generation,
    observation: Observation,
}

/// Watches for as long as the server lives. Without a rollout it sleeps until the record says that there is one.
pub async fn run(pump: Pump, routes: Routes) {
    let mut news = pump.follow();
    let mut sent: BTreeMap<EnvironmentKey, Sent> = BTreeMap::new();
    loop {
        let watched: Vec<Watched> =
            pump.shared.read(|state| state.environments.values().filter_map(Watched::of).collect());
        sent.retain(|environment, _| watched.iter().any(|one| one.environment == *environment));
        if watched.is_empty() {
            // Whether it was read or missed: there is news.
            drop(news.recv().await);
            while news.try_recv().is_ok() {}
            continue;
        }
        if let Some(arms) = ask(&routes, &watched).await {
            for one in watched {
                let observation = one.observation(&arms);
                if let Some(next) = is_due(sent.get(&one.environment), &one, observation) {
                    let observation = next.observation.clone();
                    sent.insert(one.environment.clone(), next);
                    pump.outcome(Input::Observed { environment: one.environment, observation }).await;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ask(routes: &Routes, watched: &[Watched]) -> Option<Arms> {
    let proxy = routes.proxy();
    let services: Vec<String> = watched
        .iter()
        .flat_map(|one| one.services.iter().map(|service| service_key(&one.environment, service)))
        .collect();
    tokio::time::timeout(ASK_PROXY_TIMEOUT, proxy.client()?.arms(&services)).await.ok()?.ok()
}

/// An environment in which traffic of two releases, or of a new one, is compared.
#[derive(Clone, Debug)]
struct Watched {
    environment: EnvironmentKey,
    services: Vec<ServiceName>,
    to: ReleaseNumber,
    releases: Vec<ReleaseNumber>,
    applied: Generation,
}

impl Watched {
    fn of(env: &Environment) -> Option<Self> {
        let rollout = env.rollout.as_ref()?;
        match rollout.phase {
            Phase::Shifting { .. } | Phase::Baking { .. } => {}
            Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => return None,
        }
        let releases = rollout.from.into_iter().chain([rollout.to]).collect();
        let services = env.release(rollout.to)?.spec.services.iter();
        Some(Self {
            environment: env.key.clone(),
            services: services
                .filter(|(_, spec)| spec.takes_requests())
                .map(|(name, _)| name.clone())
                .collect(),
            to: rollout.to,
            releases,
            applied: env.routes.applied,
        })
    }

    fn observation(&self, arms: &Arms) -> Observation {
        let mut services = BTreeMap::new();
        for service in &self.services {
            let key = service_key(&self.environment, service);
            let of_release = |release: &ReleaseNumber| {
                let arm = arms.get(&key, &release.to_string())?;
                Some((*release, counters(arm)))
            };
            let counted: BTreeMap<_, _> = self.releases.iter().filter_map(of_release).collect();
            if !counted.is_empty() {
                services.insert(service.clone(), counted);
            }
        }
        Observation { source: arms.source, services }
    }
}

fn counters(arm: &Arm) -> ArmCounters {
    ArmCounters {
        requests: arm.requests,
        errors: arm.errors,
        error_bursts: arm.error_bursts,
        latency: arm.latency.clone(),
    }
}

/// What to send now, if anything.
fn is_due(before: Option<&Sent>, watched: &Watched, observation: Observation) -> Option<Sent> {
    let now = Instant::now();
    let Some(before) = before else {
        return Some(Sent { at: now, since: now, applied: watched.applied, observation });
    };
    let is_shifted = before.applied != watched.applied || before.observation.source != observation.source;
    let every = if now - before.since < YOUNG { SEND_EVERY_YOUNG } else { SEND_EVERY };
    let is_worse = errors(&observation, watched.to) > errors(&before.observation, watched.to);
    if !is_shifted && !is_worse && now - before.at < every {
        return None;
    }
    let since = if is_shifted { now } else { before.since };
    Some(Sent { at: now, since, applied: watched.applied, observation })
}

fn errors(observation: &Observation, release: ReleaseNumber) -> u64 {
    observation.services.values().filter_map(|arms| arms.get(&release)).map(|arm| arm.errors).sum()
}
