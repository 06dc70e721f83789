//! `GET …/slo`: error budgets, by what the rules of the objectives recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::{SloBurn, SloInfo, SloStanding};
use fairway_engine::Refusal;
use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::{self, MetricsSource, Monitoring, SloGoal};
use fairway_metrics::labels::Labels;
use fairway_metrics::promql::{self, Query, Stop};
use fairway_metrics::rules::{Evaluate, EvaluateError, Found, Local, Recorded};
use fairway_metrics::slo::{Budget, SloSpec, Standing, budget};

use super::{Answer, App, blocking, key};
use crate::error::Refused;
use crate::watching::{NoValue, Source, Watching, objectives, serving};

/// For all objectives of an environment. Each looks at some ten thousand samples, in milliseconds.
const RECKON_TIME_MAX: Duration = Duration::from_secs(20);

pub async fn list(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
) -> Answer<Vec<SloInfo>> {
    let key = key(&project, &environment)?;
    let found = app.pump.shared.read(|state| {
        let env = state.environments.get(&key)?;
        Some(serving(env).map(|release| release.spec.monitoring.clone()).unwrap_or_default())
    });
    let Some(monitoring) = found else {
        return Err(Refused::from(Refusal::UnknownEnvironment { environment: key }).into());
    };
    let watching = Arc::clone(&app.watching);
    let runtime = tokio::runtime::Handle::current();
    blocking(move || Ok(reckon(&watching, &runtime, &key, &monitoring))).await.map(Json)
}

fn reckon(
    watching: &Arc<Watching>,
    runtime: &tokio::runtime::Handle,
    environment: &EnvironmentKey,
    monitoring: &Monitoring,
) -> Vec<SloInfo> {
    let now_ms = watching.now_ms();
    let begun = Instant::now();
    let stop = Stop(Arc::new(move || begun.elapsed() > RECKON_TIME_MAX));
    let engine = promql::Engine { stop: Some(stop), ..watching.promql.clone() };
    let specs = objectives(environment, monitoring);
    let of = |spec: &SloSpec| {
        let reckoned = match &monitoring.source {
            MetricsSource::BuiltIn => budget(&mut Local::new(&*watching.store, &engine), spec, now_ms),
            source @ MetricsSource::Prometheus { .. } => {
                let source = Source { watching, of: source };
                budget(&mut Elsewhere { source, runtime, begun }, spec, now_ms)
            }
        };
        let goal = monitoring.slos.get(&spec.name).map(goal).unwrap_or_default();
        info(spec, goal, reckoned)
    };
    specs.iter().map(of).collect()
}

/// A Prometheus that has the exported rules recorded the same series.
struct Elsewhere<'a> {
    source: Source<'a>,
    runtime: &'a tokio::runtime::Handle,
    begun: Instant,
}

impl Evaluate for Elsewhere<'_> {
    fn instant(&mut self, query: &Query, _: i64) -> Result<Vec<Found>, EvaluateError> {
        if self.begun.elapsed() > RECKON_TIME_MAX {
            return Err(EvaluateError::Source { why: "there was no time left to ask".to_owned() });
        }
        match self.runtime.block_on(self.source.value(query.text())) {
            Ok(value) => Ok(vec![Found { labels: Labels::default(), value }]),
            Err(NoValue::Empty | NoValue::NotANumber) => Ok(Vec::new()),
            Err(error @ (NoValue::Query(_) | NoValue::Gone { .. })) => {
                Err(EvaluateError::Source { why: error.to_string() })
            }
        }
    }

    fn record(&mut self, _: &[Recorded]) {}
}

fn goal(slo: &monitoring::Slo) -> String {
    match &slo.goal {
        SloGoal::Availability { service } => format!("requests to {service} that did not fail"),
        SloGoal::Latency { service, within } => {
            format!("requests to {service} that were answered within {within:?}")
        }
        SloGoal::Query { .. } => "good events of all, by queries".to_owned(),
    }
}

fn info(spec: &SloSpec, goal: String, reckoned: Result<Budget, EvaluateError>) -> SloInfo {
    let window_ms = u64::try_from(spec.window.as_millis()).unwrap_or(u64::MAX);
    let (covered_ms, standing, burns) = match reckoned {
        Err(error) => (0, SloStanding::Unknown { why: error.to_string() }, Vec::new()),
        Ok(budget) => {
            let standing = match budget.standing {
                Standing::NoData => SloStanding::NoData,
                Standing::NoTraffic => SloStanding::NoTraffic,
                Standing::Measured { good, total, remaining_ratio, exhausted_at_ms } => {
                    SloStanding::Measured {
                        good,
                        total,
                        remaining_ratio,
                        exhausted_at_ms: exhausted_at_ms.and_then(|at_ms| u64::try_from(at_ms).ok()),
                    }
                }
            };
            let burns =
                budget.burns.into_iter().map(|burn| SloBurn { window_ms: burn.window_ms, rate: burn.rate });
            (budget.covered_ms, standing, burns.collect())
        }
    };
    SloInfo {
        name: spec.name.clone(),
        goal,
        objective: spec.objective,
        window_ms,
        covered_ms,
        standing,
        burns,
    }
}
