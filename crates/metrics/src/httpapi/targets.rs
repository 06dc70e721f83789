//! `/api/v1/targets` and what targets say of their metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::context::{Context, Health, Target};
use super::envelope::{ApiError, Data};
use super::json::{put_field, put_key, put_labels, put_list, put_number, put_text};
use super::request::{Params, integer};
use super::time::formatted;
use crate::exposition::Metadata;
use crate::promql::parse_selector;
use crate::select::Matcher;

pub(super) fn list(context: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    let (pool, state) = (params.of_url("scrapePool"), params.of_url("state").to_lowercase());
    let active = matches!(state.as_str(), "" | "any" | "active");
    let dropped = matches!(state.as_str(), "" | "any" | "dropped");
    let targets = if active { context.targets.active() } else { Vec::new() };
    let shown = targets.iter().filter(|target| pool.is_empty() || target.pool == pool);
    let mut out = String::from("{");
    put_key(&mut out, "activeTargets");
    put_list(&mut out, shown, put_target);
    // Fairway drops no target by relabelling.
    put_key(&mut out, "droppedTargets");
    out.push_str("[]");
    put_key(&mut out, "droppedTargetCounts");
    if dropped {
        let pools: BTreeSet<String> =
            context.targets.active().into_iter().map(|target| target.pool).collect();
        out.push('{');
        for pool in pools {
            put_comma(&mut out);
            put_text(&mut out, &pool);
            out.push_str(":0");
        }
        out.push('}');
    } else {
        out.push_str("null");
    }
    out.push('}');
    Ok(Data::new(out))
}

pub(super) fn pools(context: &Context<'_>, _: &Params) -> Result<Data, ApiError> {
    let pools: BTreeSet<String> = context.targets.active().into_iter().map(|target| target.pool).collect();
    let mut out = String::from("{");
    put_key(&mut out, "scrapePools");
    put_list(&mut out, pools, |out, pool| put_text(out, &pool));
    out.push('}');
    Ok(Data::new(out))
}

/// A limit that may be negative, which is none.
fn count(params: &Params, name: &str) -> Result<Option<usize>, ApiError> {
    match params.get(name) {
        "" => Ok(None),
        text => {
            let number = integer(text).map_err(|_| ApiError::bad_data(format!("{name} must be a number")))?;
            Ok(usize::try_from(number).ok())
        }
    }
}

pub(super) fn metadata(context: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    let limit = count(params, "limit")?;
    let per_metric = count(params, "limit_per_metric")?.filter(|most| *most > 0);
    let wanted = params.get("metric");
    let targets = context.targets.active();
    let mut found: BTreeMap<&str, BTreeSet<&Metadata>> = BTreeMap::new();
    for (family, metadata) in targets.iter().flat_map(|target| &*target.metadata) {
        if !wanted.is_empty() && wanted != family {
            continue;
        }
        let known = found.entry(family).or_default();
        if per_metric.is_none_or(|most| known.len() < most) {
            known.insert(metadata);
        }
    }
    let mut out = String::from("{");
    for (family, said) in found.into_iter().take(limit.unwrap_or(usize::MAX)) {
        put_comma(&mut out);
        put_text(&mut out, family);
        out.push(':');
        put_list(&mut out, said, |out, metadata| {
            out.push('{');
            put_field(out, "type", metadata.kind.as_str());
            put_field(out, "unit", &metadata.unit);
            put_field(out, "help", &metadata.help);
            out.push('}');
        });
    }
    out.push('}');
    Ok(Data::new(out))
}

pub(super) fn metadata_of_targets(context: &Context<'_>, params: &Params) -> Result<Data, ApiError> {
    let limit = count(params, "limit")?.unwrap_or(usize::MAX);
    let wanted = params.get("metric");
    let matchers: Vec<Matcher> = match params.get("match_target") {
        "" => Vec::new(),
        text => parse_selector(text).map_err(|error| ApiError::parameter("match_target", error))?,
    };
    let targets = context.targets.active();
    let matched =
        targets.iter().filter(|target| matchers.iter().all(|matcher| matcher.accepts(&target.labels)));
    let all =
        matched.flat_map(|target| target.metadata.iter().map(move |(family, said)| (target, family, said)));
    let asked = all.filter(|(_, family, _)| wanted.is_empty() || wanted == *family);
    let mut out = String::new();
    put_list(&mut out, asked.take(limit), |out, (target, family, said)| {
        out.push('{');
        put_key(out, "target");
        put_labels(out, &target.labels);
        if wanted.is_empty() {
            put_field(out, "metric", family);
        }
        put_field(out, "type", said.kind.as_str());
        put_field(out, "help", &said.help);
        put_field(out, "unit", &said.unit);
        out.push('}');
    });
    Ok(Data::new(out))
}

fn put_target(out: &mut String, target: &Target) {
    out.push('{');
    put_key(out, "discoveredLabels");
    put_labels(out, &target.discovered_labels);
    put_key(out, "labels");
    put_labels(out, &target.labels);
    put_field(out, "scrapePool", &target.pool);
    put_field(out, "scrapeUrl", &target.url);
    put_field(out, "globalUrl", &target.url);
    put_field(out, "lastError", &target.last_error);
    put_field(out, "lastScrape", &formatted(target.last_scrape_ms));
    put_number(out, "lastScrapeDuration", target.last_scrape_duration.as_secs_f64());
    let health = match target.health {
        Health::Good => "up",
        Health::Bad => "down",
        Health::Unknown => "unknown",
    };
    put_field(out, "health", health);
    put_field(out, "scrapeInterval", &duration(target.interval));
    put_field(out, "scrapeTimeout", &duration(target.timeout));
    out.push('}');
}

/// As Prometheus writes durations: `1m30s`.
fn duration(duration: Duration) -> String {
    let mut ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    // Years and weeks only where they come out even, as `1w3d` would be harder to read than `10d`.
    let units = [
        ("y", 31_536_000_000, true),
        ("w", 604_800_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
    ];
    for (unit, size, even) in
        units.into_iter().chain([("m", 60_000, false), ("s", 1_000, false), ("ms", 1, false)])
    {
        if ms >= size && (!even || ms.is_multiple_of(size)) {
            let _ = write!(out, "{}{unit}", ms / size);
            ms %= size;
        }
    }
    out
}

fn put_comma(out: &mut String) {
    if !out.ends_with('{') {
        out.push(',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_prometheus_writes_them() {
        for (ms, wanted) in [
            (0, "0s"),
            (15_000, "15s"),
            (90_000, "1m30s"),
            (1_500, "1s500ms"),
            (604_800_000, "1w"),
            (864_000_000, "10d"),
            (31_536_000_000, "1y"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), wanted);
        }
    }
}
