//! Every query of every panel over a store that holds what Fairway writes down.

use std::sync::Arc;

use super::*;
use crate::labels::{Labels, NAME};
use crate::promql::{self, Engine};
use crate::rules::tests::Memory;
use crate::rules::{Evaluate as _, Group, Local, RuleFile, Surroundings};
use crate::slo::{SloGoal, SloSpec, rule_file};

const STEP_MS: i64 = 15_000;
/// A week and some: panels look back to the week before.
const END_MS: i64 = 8 * 86_400_000;

/// `value` at every step of the last two hours, and of as much a day and a week before.
fn fill(store: &Memory, name: &str, labels: &[(&str, &str)], value: impl Fn(i64) -> f64) {
    let labels = Labels::new(labels.iter().copied().chain([(NAME, name)]));
    for before_ms in [7 * 86_400_000, 86_400_000, 0] {
        let end = END_MS - before_ms;
        for at_ms in (end - 7_200_000..=end).step_by(STEP_MS as usize) {
            store.add(labels.clone(), at_ms, value(at_ms / STEP_MS));
        }
    }
}

fn filled() -> Memory {
    let store = Memory::default();
    let of = [("environment", "shop/production"), ("service", "api")];
    let with = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> {
        of.iter().chain(more).copied().collect()
    };
    let counts = |store: &Memory, name: &str, labels: &[(&str, &str)], step: f64| {
        fill(store, name, labels, |n| n as f64 * step)
    };
    for (code, step) in [("2xx", 90.0), ("3xx", 2.0), ("4xx", 5.0), ("5xx", 2.0), ("none", 1.0)] {
        counts(
            &store,
            "http_requests_total",
            &with(&[("version", "r1"), ("route", "/"), ("code", code)]),
            step,
        );
    }
    for family in ["http_request_duration_seconds", "db_client_operation_duration_seconds"] {
        for (le, step) in [("0.5", 60.0), ("1", 90.0), ("2.5", 98.0), ("+Inf", 100.0)] {
            counts(
                &store,
                &format!("{family}_bucket"),
                &with(&[("version", "r1"), ("route", "/"), ("le", le)]),
                step,
            );
        }
        counts(&store, &format!("{family}_count"), &with(&[("version", "r1"), ("route", "/")]), 100.0);
    }
    fill(&store, "http_requests_in_flight", &with(&[("version", "r1"), ("route", "/")]), |_| 3.0);
    counts(&store, "fairway_requests_refused_total", &[("code", "429")], 1.0);
    let copy = [("version", "r1"), ("instance", "api.r1.1")];
    for (name, value) in [
        ("process_resident_memory_bytes", 5e8),
        ("process_memory_limit_bytes", 1e9),
        ("process_cpu_limit_cores", 2.0),
        ("scrape_samples_scraped", 100.0),
        ("scrape_series_dropped", 0.0),
    ] {
        fill(&store, name, &with(&copy), |_| value);
    }
    fill(&store, "up", &with(&[("instance", "api.r1.1"), ("job", "service")]), |_| 1.0);
    counts(&store, "process_cpu_seconds_total", &with(&copy), 5.0);
    counts(&store, "fairway_instance_restarts_total", &with(&copy), 0.01);
    counts(&store, "orders_total", &with(&copy), 7.0);
    fill(&store, "fairway_instances_wanted", &of, |_| 2.0);
    fill(&store, "fairway_instances", &with(&[("state", "ready")]), |_| 2.0);
    for mode in ["idle", "user", "system"] {
        counts(&store, "node_cpu_seconds_total", &[("cpu", "0"), ("mode", mode)], 5.0);
    }
    for (name, value) in
        [("node_memory_MemTotal_bytes", 1e9), ("node_memory_MemAvailable_bytes", 4e8), ("node_load1", 1.0)]
    {
        fill(&store, name, &[], |_| value);
    }
    for (name, value) in [("node_filesystem_size_bytes", 1e9), ("node_filesystem_avail_bytes", 4e8)] {
        fill(&store, name, &[("mountpoint", "/")], |_| value);
    }
    let probe = [("environment", "shop/production"), ("probe", "front")];
    fill(&store, "probe_success", &probe, |_| 1.0);
    fill(&store, "probe_ssl_earliest_cert_expiry", &probe, |_| 2e9);
    let name = [("environment", "shop/production"), ("name", "shop.example")];
    fill(&store, "fairway_certificate_expiry_timestamp_seconds", &name, |_| 2e9);
    let done = [("environment", "shop/production"), ("outcome", "completed")];
    counts(&store, "fairway_deployments_total", &done, 0.1);
    fill(&store, "fairway_deployment_last_end_timestamp_seconds", &done, |_| END_MS as f64 / 1000.0 - 60.0);
    fill(&store, "fairway_backup_last_success_timestamp_seconds", &of, |_| END_MS as f64 / 1000.0 - 60.0);
    fill(
        &store,
        "fairway_release_info",
        &[("environment", "shop/production"), ("release", "r1"), ("version", "one")],
        |_| 1.0,
    );
    store
}

/// Built-in rules and an objective, for the panels over what they record.
fn ruled(store: &Memory) {
    let slo = SloSpec {
        name: "api".into(),
        environment: "shop/production".into(),
        goal: SloGoal::Availability { service: "api".into() },
        objective: 0.99,
        window: std::time::Duration::from_secs(7 * 86_400),
    };
    let files = [crate::builtin::alerts(&[]).unwrap(), rule_file("slo.yml", &[slo]).unwrap()];
    let around = Arc::new(Surroundings::default());
    for RuleFile { groups, .. } in files {
        for spec in groups {
            let mut group = Group::new("f", spec, Arc::clone(&around));
            for at_ms in [END_MS - 300_000, END_MS] {
                let evaluation = store.evaluate(&mut group, at_ms);
                assert_eq!(evaluation.failures, [], "{}", group.name());
            }
        }
    }
}

#[test]
fn every_panel_shows_something() {
    let store = filled();
    ruled(&store);
    let engine = Engine::default();
    let mut empty = Vec::new();
    for dashboard in all() {
        for (panel, query) in dashboard.queries() {
            let bound = bind(query, &[]);
            let found = Local::new(&store, &engine).instant(&promql::parse(&bound).unwrap(), END_MS);
            let found =
                found.unwrap_or_else(|error| panic!("{}: {panel}: {error}: {bound}", dashboard.title));
            if !found.iter().any(|found| found.value.is_finite()) {
                empty.push(format!("{}: {panel}: {bound}", dashboard.title));
            }
        }
    }
    assert_eq!(empty, Vec::<String>::new());
}

#[test]
fn values_are_those_that_were_filled_in() {
    let store = filled();
    let engine = Engine::default();
    let value = |dashboard: usize, title: &str| {
        let all = all();
        let (_, query) = all[dashboard].queries().find(|(panel, _)| *panel == title).unwrap();
        let query = promql::parse(&bind(query, &[("environment", "shop/.*")])).unwrap();
        Local::new(&store, &engine).instant(&query, END_MS).unwrap()[0].value
    };
    for (dashboard, title, expect) in [
        (0, "Failing", 0.03),
        (0, "Requests", 100.0 / 15.0),
        (0, "Services down", 0.0),
        (0, "Copies ready, of those wanted", 1.0),
        (2, "Memory, of the limit", 0.5),
        (2, "CPU, of the limit", 5.0 / 15.0 / 2.0),
        (2, "Disks", 0.6),
        (4, "Answered within a second", 0.9),
        (4, "$business_metric, a minute", 28.0),
    ] {
        let found = value(dashboard, title);
        assert!((found - expect).abs() < 1e-9, "{title}: {found} is not {expect}");
    }
}
