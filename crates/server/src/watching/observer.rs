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

/// Requests wait for the new version and none was answered since the last look: it may hang. The engine reckons how long
/// from what it is told, so that it is told often then.
const SEND_EVERY_SILENT: Duration = Duration::from_millis(500);

/// Below it nobody looks twice. (The engine asks for six.)
const SILENT_WAITING_MIN: u64 = 3;

/// What was last sent of an environment.
#[derive(Debug)]
struct Sent {
    at: Instant,
    /// What the last look saw, sent or not.
    looked: Observation,
    /// When traffic was last set anew.
    since: Instant,
    applied: Generation,
    observation: Observation,
}

/// Watches for as long as the server lives. Without a rollout it sleeps until the record says that there is one.
pub async fn run(pump: Pump, routes: Routes) {
    let mut news = pump.follow();
    let mut sent: BTreeMap<EnvironmentKey, Sent> = BTreeMap::new();
    let mut owed = Owed::default();
    loop {
        let watched: Vec<Watched> =
            pump.shared.read(|state| state.environments.values().filter_map(Watched::of).collect());
        sent.retain(|environment, _| watched.iter().any(|one| one.environment == *environment));
        if watched.is_empty() {
            owed = Owed::default();
            // Whether it was read or missed: there is news.
            drop(news.recv().await);
            while news.try_recv().is_ok() {}
            continue;
        }
        if let Some(mut arms) = ask(&routes, &watched).await {
            owed.add_to(&mut arms);
            for one in watched {
                let observation = one.observation(&arms);
                let known = sent.get_mut(&one.environment);
                if let Some(next) = is_due(known, &one, observation, Instant::now()) {
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

/// What clients gave up since the version last answered anybody. It counts as waiting: a version that hangs, asked by few
/// who soon lose patience, has hardly anybody waiting at any one moment.
#[derive(Debug, Default)]
struct Owed {
    source: u64,
    /// By service and version: what had been answered, and given up before that.
    answered: BTreeMap<(String, String), (u64, u64)>,
}

impl Owed {
    fn add_to(&mut self, arms: &mut Arms) {
        if self.source != arms.source {
            *self = Self { source: arms.source, ..Self::default() };
        }
        for arm in &mut arms.arms {
            let now = (arm.requests, arm.given_up);
            let last = self.answered.entry((arm.service.clone(), arm.version.clone())).or_insert(now);
            if last.0 != now.0 {
                *last = now;
            }
            arm.in_flight += arm.given_up.saturating_sub(last.1);
        }
    }
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
        unreached: arm.unreached,
        in_flight: arm.in_flight,
    }
}

/// What to send now, if anything.
fn is_due(
    before: Option<&mut Sent>,
    watched: &Watched,
    observation: Observation,
    now: Instant,
) -> Option<Sent> {
    let looked = observation.clone();
    let Some(before) = before else {
        return Some(Sent { at: now, looked, since: now, applied: watched.applied, observation });
    };
    let is_shifted = before.applied != watched.applied || before.observation.source != observation.source;
    let every = if is_silent(&before.looked, &observation, watched.to) {
        SEND_EVERY_SILENT
    } else if now - before.since < YOUNG {
        SEND_EVERY_YOUNG
    } else {
        SEND_EVERY
    };
    let is_worse = bad(&observation, watched.to) > bad(&before.observation, watched.to);
    if !is_shifted && !is_worse && now - before.at < every {
        before.looked = looked;
        return None;
    }
    let since = if is_shifted { now } else { before.since };
    Some(Sent { at: now, looked, since, applied: watched.applied, observation })
}

/// Errors, and attempts that got no connection.
fn bad(observation: &Observation, release: ReleaseNumber) -> u64 {
    let arms = observation.services.values().filter_map(|arms| arms.get(&release));
    arms.map(|arm| arm.errors + arm.unreached).sum()
}

/// Does some service let requests wait and answer none of them?
fn is_silent(before: &Observation, now: &Observation, release: ReleaseNumber) -> bool {
    now.services.iter().any(|(service, arms)| {
        let answered = |arms: &BTreeMap<ReleaseNumber, ArmCounters>| Some(arms.get(&release)?.requests);
        let was = before.services.get(service).and_then(answered).unwrap_or(0);
        let waits = arms.get(&release).is_some_and(|arm| arm.in_flight >= SILENT_WAITING_MIN);
        waits && answered(arms) == Some(was)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    const NEW: ReleaseNumber = ReleaseNumber(2);

    fn observed(requests: u64, in_flight: u64, unreached: u64) -> Observation {
        let counted = ArmCounters { requests, in_flight, unreached, ..ArmCounters::default() };
        let service = ServiceName::new("web").unwrap();
        Observation { source: 1, services: BTreeMap::from([(service, BTreeMap::from([(NEW, counted)]))]) }
    }

    fn watched() -> Watched {
        Watched {
            environment: key("production"),
            services: vec![ServiceName::new("web").unwrap()],
            to: NEW,
            releases: vec![NEW],
            applied: Generation(1),
        }
    }

    #[test]
    fn what_is_given_up_waits_until_somebody_is_answered() {
        let mut owed = Owed::default();
        let mut waiting = |source, requests, given_up| {
            let arm = Arm { service: "s".to_owned(), requests, given_up, in_flight: 1, ..Arm::default() };
            let mut arms = Arms { source, arms: vec![arm], ..Arms::default() };
            owed.add_to(&mut arms);
            arms.arms[0].in_flight
        };
        assert_eq!(waiting(1, 10, 4), 1, "what was before the first look is not known");
        assert_eq!(waiting(1, 10, 6), 3);
        assert_eq!(waiting(1, 10, 9), 6);
        assert_eq!(waiting(1, 11, 12), 1, "one was answered");
        assert_eq!(waiting(1, 11, 13), 2);
        assert_eq!(waiting(2, 0, 1), 1, "another life of the proxy");
        assert_eq!(waiting(2, 0, 3), 3);
    }

    #[test]
    fn what_may_hang_is_told_often_and_what_answers_is_not() {
        let began = Instant::now();
        let mut sent = is_due(None, &watched(), observed(10, 0, 0), began).expect("the first look is told");
        let mut told = 0;
        let mut look = |after: Duration, requests, in_flight, unreached| {
            let observation = observed(requests, in_flight, unreached);
            // It has been judged for long: it is told every five seconds.
            if let Some(next) = is_due(Some(&mut sent), &watched(), observation, began + YOUNG + after) {
                sent = next;
                told += 1;
            }
            told
        };
        let ms = Duration::from_millis;
        assert_eq!(look(ms(0), 20, 9, 0), 1);
        for second in 1..5 {
            assert_eq!(look(ms(second * 1_000), 20 + second, 9, 0), 1, "what waits is answered");
        }
        assert_eq!(look(ms(4_100), 24, 9, 0), 2, "no answer since the last look");
        assert_eq!(look(ms(4_200), 24, 9, 0), 2, "not with every look");
        assert_eq!(look(ms(4_600), 24, 9, 0), 3);
        assert_eq!(look(ms(5_200), 24, 2, 0), 3, "two that wait are no silence");
        assert_eq!(look(ms(5_300), 24, 2, 1), 4, "an attempt that got no connection is told at once");
    }
}
