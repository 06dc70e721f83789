//! What is scraped: the copies of services that show metrics, and what the project names besides.

use std::collections::BTreeMap;
use std::time::Duration;

use fairway_engine::monitoring::MetricsSource;
use fairway_engine::{Environment, Power, State};
use fairway_metrics::labels::Labels;

use super::figures::labels_of;

/// Between two scrapes of a service's copy: as Prometheus' own examples, and often enough for a rate over a minute.
pub const SCRAPE_EVERY: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub url: String,
    pub every: Duration,
    /// On every series of it.
    pub labels: Labels,
}

/// By their labels, which are what tells targets apart.
pub type Targets = BTreeMap<Labels, Target>;

/// What Fairway itself asks.
#[must_use]
pub fn targets(state: &State) -> Targets {
    of_environments(state, |source| match source {
        MetricsSource::BuiltIn => true,
        MetricsSource::Prometheus { .. } => false,
    })
}

/// What there is to be asked, whoever does it.
#[must_use]
pub fn all(state: &State) -> Targets {
    of_environments(state, |_| true)
}

fn of_environments(state: &State, is_wanted: impl Fn(&MetricsSource) -> bool) -> Targets {
    let mut targets = Targets::new();
    for env in state.environments.values() {
        if serving(env).is_some_and(|serving| is_wanted(&serving.spec.monitoring.source)) {
            targets.extend(copies(env).chain(named(env)).map(|target| (target.labels.clone(), target)));
        }
    }
    targets
}

/// The release whose settings count: what serves, and before that what comes.
#[must_use]
pub fn serving(env: &Environment) -> Option<&fairway_engine::release::Release> {
    match env.power {
        Power::Down { .. } => None,
        Power::Up => env.release(env.stable.or(env.rollout.as_ref().map(|rollout| rollout.to))?),
    }
}

fn copies(env: &Environment) -> impl Iterator<Item = Target> {
    env.instances.values().filter_map(|instance| {
        let path = env.service(instance.id.release, &instance.id.service)?.metrics.as_ref()?;
        let address = instance.address.as_ref().filter(|_| instance.is_ready())?;
        let labels = labels_of(&env.key, instance).with("job", "service");
        Some(Target { url: format!("http://{address}{path}"), every: SCRAPE_EVERY, labels })
    })
}

fn named(env: &Environment) -> impl Iterator<Item = Target> {
    let scrapes = serving(env).into_iter().flat_map(|release| &release.spec.monitoring.scrapes);
    scrapes.map(|(name, scrape)| {
        let authority = scrape.url.split("://").nth(1).and_then(|rest| rest.split('/').next());
        let own = [
            ("environment", env.key.to_string()),
            ("job", name.clone()),
            ("instance", authority.unwrap_or_default().to_owned()),
        ];
        let given = scrape.labels.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let labels = Labels::new(own.into_iter().chain(given));
        Target { url: scrape.url.clone(), every: scrape.every, labels }
    })
}
