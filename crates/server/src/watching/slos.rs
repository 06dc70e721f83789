//! The objectives of an environment, as the crate `metrics` reckons with them.

use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::{self, Monitoring};
use fairway_metrics::slo::{SloGoal, SloSpec};

#[must_use]
pub fn specs(environment: &EnvironmentKey, monitoring: &Monitoring) -> Vec<SloSpec> {
    let spec = |(name, slo): (&String, &monitoring::Slo)| SloSpec {
        name: name.clone(),
        environment: environment.to_string(),
        goal: match &slo.goal {
            monitoring::SloGoal::Availability { service } => {
                SloGoal::Availability { service: service.to_string() }
            }
            monitoring::SloGoal::Latency { service, within } => {
                SloGoal::Latency { service: service.to_string(), within_s: within.as_secs_f64() }
            }
            monitoring::SloGoal::Query { good, total } => {
                SloGoal::Query { good: good.clone(), total: total.clone() }
            }
        },
        objective: slo.objective.0,
        window: slo.window,
    };
    monitoring.slos.iter().map(spec).collect()
}
