//! Measures services whose copies follow the load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_engine::evidence::{Number, ScaleSource};
use fairway_engine::id::{EnvironmentKey, ServiceName};
use fairway_engine::monitoring::MetricsSource;
use fairway_engine::service::Limits;
use fairway_engine::verdict::quantile_seconds;
use fairway_engine::{Environment, Input, ScaleReading, State};
use fairway_proxy::control::Arms;
use fairway_targets::key::InstanceKey;

use super::{ASK_PROXY_TIMEOUT, Source, Watching, proc, serving};
use crate::routes::service_key;

/// As often as Kubernetes' autoscaler looks.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A service that scales by itself, and its ready copies.
#[derive(Clone, Debug)]
struct Sized {
    environment: EnvironmentKey,
    service: ServiceName,
    sources: Vec<ScaleSource>,
    limits: Limits,
    copies: Vec<InstanceKey>,
    releases: Vec<String>,
    metrics: MetricsSource,
}

fn sized(state: &State) -> Vec<Sized> {
    state.environments.values().flat_map(of_environment).collect()
}

fn of_environment(env: &Environment) -> Vec<Sized> {
    let Some(release) = serving(env) else { return Vec::new() };
    let scaled =
        release.spec.services.iter().filter_map(|(name, spec)| Some((name, spec, spec.autoscale.as_ref()?)));
    scaled
        .map(|(name, spec, autoscale)| {
            let ready = env.instances.values().filter(|i| i.id.service == *name && i.is_ready());
            let key = |i: &fairway_engine::Instance| InstanceKey {
                environment: env.key.clone(),
                instance: i.id.clone(),
            };
            Sized {
                environment: env.key.clone(),
                service: name.clone(),
                sources: autoscale.metrics.iter().map(|metric| metric.source.clone()).collect(),
                limits: spec.limits.clone(),
                copies: ready.map(key).collect(),
                releases: env.active_releases().iter().map(ToString::to_string).collect(),
                metrics: release.spec.monitoring.source.clone(),
            }
        })
        .collect()
}

/// What was read the last time: rates are differences.
#[derive(Debug, Default)]
struct Before {
    cpu: BTreeMap<InstanceKey, (Instant, f64)>,
    /// Which life of the proxy counted, and what it had by then.
    arms: Option<(Instant, Arms)>,
}

pub async fn run(watching: Arc<Watching>) {
    let mut news = watching.pump.follow();
    let mut before = Before::default();
    loop {
        let all = watching.pump.shared.read(sized);
        if all.is_empty() {
            before = Before::default();
            // Missed or read: there is news.
            drop(news.recv().await);
            while news.try_recv().is_ok() {}
            continue;
        }
        let now = Instant::now();
        let arms = ask(&watching).await;
        let sessions = tokio::task::spawn_blocking(proc::Sessions::read).await.unwrap_or_default();
        let mut cpu = BTreeMap::new();
        for one in &all {
            let mut memory = Vec::new();
            let mut cores = Vec::new();
            let told = watching.drivers.known();
            for copy in &one.copies {
                let pid = told.get(copy).and_then(|told| told.pid);
                let Some(usage) = pid.and_then(|pid| sessions.usage_of(pid)) else { continue };
                memory.push(usage.resident_bytes as f64);
                if let Some((at, cpu_s)) = before.cpu.get(copy) {
                    cores.push((usage.cpu_s - cpu_s).max(0.0) / (now - *at).as_secs_f64());
                }
                cpu.insert(copy.clone(), (now, usage.cpu_s));
            }
            let traffic = Traffic::between(one, before.arms.as_ref(), arms.as_ref().map(|arms| (now, arms)));
            let mut values = Vec::new();
            for source in &one.sources {
                let value = match source {
                    ScaleSource::Cpu => mean(&cores).map(|cores| cores / cores_of(&one.limits) * 100.0),
                    ScaleSource::Memory => mean(&memory).map(|bytes| bytes / bytes_of(&one.limits) * 100.0),
                    ScaleSource::Requests => {
                        let copies = one.copies.len();
                        traffic.as_ref().filter(|_| copies > 0).map(|traffic| traffic.per_s / copies as f64)
                    }
                    ScaleSource::Latency { percentile } => {
                        let quantile = f64::from(*percentile) / 100.0;
                        traffic
                            .as_ref()
                            .and_then(|traffic| quantile_seconds(quantile, &traffic.latency))
                            .map(|s| s.0)
                    }
                    ScaleSource::Query { promql } => {
                        Source { watching: &watching, of: &one.metrics }.value(promql).await.ok()
                    }
                };
                values.push(value.map(Number));
            }
            let copies = u32::try_from(one.copies.len()).unwrap_or(u32::MAX);
            let reading = ScaleReading { copies, values };
            let (environment, service) = (one.environment.clone(), one.service.clone());
            watching.pump.outcome(Input::Sized { environment, service, reading }).await;
        }
        before = Before { cpu, arms: arms.map(|arms| (now, arms)) };
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ask(watching: &Watching) -> Option<Arms> {
    let proxy = watching.routes.proxy();
    tokio::time::timeout(ASK_PROXY_TIMEOUT, proxy.client()?.arms(&[])).await.ok()?.ok()
}

/// What a service answered between two readings.
#[derive(Debug)]
struct Traffic {
    per_s: f64,
    latency: Vec<u64>,
}

impl Traffic {
    fn between(of: &Sized, before: Option<&(Instant, Arms)>, now: Option<(Instant, &Arms)>) -> Option<Self> {
        let ((then, old), (now, new)) = (before?, now?);
        if old.source != new.source {
            return None;
        }
        let key = service_key(&of.environment, &of.service);
        let (mut requests, mut latency) = (0, Vec::new());
        for release in &of.releases {
            let Some(arm) = new.get(&key, release) else { continue };
            let earlier = old.get(&key, release);
            requests += arm.requests.saturating_sub(earlier.map_or(0, |arm| arm.requests));
            latency.resize(latency.len().max(arm.latency.len()), 0);
            for (at, count) in arm.latency.iter().enumerate() {
                let was = earlier.and_then(|arm| arm.latency.get(at)).copied().unwrap_or(0);
                if let Some(sum) = latency.get_mut(at) {
                    *sum += count.saturating_sub(was);
                }
            }
        }
        Some(Self { per_s: requests as f64 / (now - *then).as_secs_f64(), latency })
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn cores_of(limits: &Limits) -> f64 {
    limits.cpu_millis.map_or(1.0, |millis| f64::from(millis.max(1)) / 1000.0)
}

fn bytes_of(limits: &Limits) -> f64 {
    limits.memory_bytes.unwrap_or_else(|| proc::host().memory_total_bytes).max(1) as f64
}
