//! Copies that follow the load.

use std::time::Duration;

use fairway_engine::evidence::{
    Autoscale, Number, ScaleBehaviour, ScaleChange, ScaleMetric, ScalePolicy, ScaleSelect, ScaleSource,
};

use crate::code;
use crate::diagnostic::Diagnostic;
use crate::evidence::latency;
use crate::keys;
use crate::reader::Reader;

/// What a HorizontalPodAutoscaler without metrics follows.
const CPU_DEFAULT: u32 = 80;

/// Defaults of autoscaling/v2, `pkg/apis/autoscaling/v2/defaults.go` of Kubernetes: up at once, by the larger of
/// doubling and four copies in 15 seconds; down after five minutes of needing less.
const UP: Direction = Direction {
    stabilisation_s: 0,
    policies: &[ScaleChange::Percent { value: 100 }, ScaleChange::Copies { value: 4 }],
};
const DOWN: Direction = Direction { stabilisation_s: 300, policies: &[ScaleChange::Percent { value: 100 }] };
const PERIOD_DEFAULT: Duration = Duration::from_secs(15);

struct Direction {
    stabilisation_s: u64,
    policies: &'static [ScaleChange],
}

/// The key `autoscale` of a service. `listens`: the service has a port, so that its requests pass the proxy.
pub(crate) fn read(service: &Reader<'_>, listens: bool) -> Option<Autoscale> {
    let reader = service.optional_table("autoscale", &keys::AUTOSCALE)?;
    let (min, max) = (reader.fixed::<u32>("min"), reader.get::<u32>("max"));
    if max.is_some_and(|max| min > max) {
        let message = format!("{} is over max", reader.path_of("min"));
        let at = reader.value_at(if reader.has("min") { "min" } else { "max" });
        reader
            .cx
            .push_at(Diagnostic::error(code::CONFLICT, message).hint("min is the smaller of the two"), at);
    }
    let metrics = metrics(&reader, listens);
    let tolerance = Number(reader.fixed("tolerance"));
    let behavior = reader.table("behavior", &keys::BEHAVIOR);
    let (up, down) = (direction(&behavior, "scaleUp", &UP), direction(&behavior, "scaleDown", &DOWN));
    Some(Autoscale { min, max: max?, metrics, tolerance, up, down })
}

/// True when a key of the service was not written under the bounds of autoscale that an overlay chose.
pub(crate) fn is_older(service: &Reader<'_>, key: &str) -> bool {
    let Some(reader) = service.optional_table("autoscale", &keys::AUTOSCALE) else { return false };
    service.layer(key) >= reader.layer("min").max(reader.layer("max"))
}

fn metrics(reader: &Reader<'_>, listens: bool) -> Vec<ScaleMetric> {
    const PERCENTILES: [(&str, u32); 4] = [("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)];
    let mut metrics = Vec::new();
    let mut add = |source, target| metrics.push(ScaleMetric { source, target: Number(target) });
    for (key, source) in [("cpu", ScaleSource::Cpu), ("memory", ScaleSource::Memory)] {
        if let Some(percent) = reader.get::<u32>(key) {
            add(source, f64::from(percent));
        }
    }
    if let Some(requests) = reader.get("requests") {
        needs_port(reader, "requests", listens);
        add(ScaleSource::Requests, requests);
    }
    for (key, percentile) in PERCENTILES {
        if reader.has(key) {
            needs_port(reader, key, listens);
            if let Some(time) = latency(reader, key) {
                add(ScaleSource::Latency { percentile }, time.as_secs_f64());
            }
        }
    }
    if let Some(query) = reader.optional_table("query", &keys::AUTOSCALE_QUERY)
        && let (Some(promql), Some(target)) = (query.get("promql"), query.get("target"))
    {
        add(ScaleSource::Query { promql }, target);
    }
    if metrics.is_empty() {
        reader.cx.record_default(reader.path_of("cpu"), CPU_DEFAULT.to_string());
        let target = Number(f64::from(CPU_DEFAULT));
        metrics.push(ScaleMetric { source: ScaleSource::Cpu, target });
    }
    metrics
}

fn needs_port(reader: &Reader<'_>, key: &str, listens: bool) {
    if !listens {
        let message =
            format!("{} is measured at the proxy, and the service has no port", reader.path_of(key));
        let hint = "add port = 3000, or follow cpu, memory or a query";
        reader.cx.push_at(Diagnostic::error(code::CONFLICT, message).hint(hint), reader.key_at(key));
    }
}

fn direction(behavior: &Reader<'_>, key: &str, default: &Direction) -> ScaleBehaviour {
    let reader = behavior.table(key, &keys::SCALING);
    let stabilisation =
        reader.get_or("stabilizationWindowSeconds", || default.stabilisation_s, u64::to_string);
    let select = match reader.fixed::<String>("selectPolicy").as_str() {
        "Min" => ScaleSelect::Min,
        "Disabled" => ScaleSelect::Disabled,
        _ => ScaleSelect::Max,
    };
    let given = reader.list_of_tables("policies", &keys::POLICY);
    if given.as_ref().is_some_and(Vec::is_empty) {
        let message = format!("{} is empty: nothing says how much may change", reader.path_of("policies"));
        let hint =
            "leave it out for the defaults; selectPolicy = \"Disabled\" never scales in this direction";
        reader.cx.push_at(Diagnostic::error(code::CONFLICT, message).hint(hint), reader.value_at("policies"));
    }
    let policies = match given {
        Some(list) => list.iter().filter_map(policy).collect(),
        None => {
            let policy = |change: &ScaleChange| ScalePolicy { change: *change, period: PERIOD_DEFAULT };
            default.policies.iter().map(policy).collect()
        }
    };
    ScaleBehaviour { stabilisation: Duration::from_secs(stabilisation), policies, select }
}

fn policy(reader: &Reader<'_>) -> Option<ScalePolicy> {
    let (kind, value, period) =
        (reader.get::<String>("type"), reader.get::<u32>("value"), reader.get::<u64>("periodSeconds"));
    let value = value?;
    let change = match kind?.as_str() {
        "Pods" => ScaleChange::Copies { value },
        _ => ScaleChange::Percent { value },
    };
    Some(ScalePolicy { change, period: Duration::from_secs(period?) })
}
