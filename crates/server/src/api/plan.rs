//! `POST …/plan`: what a deploy would change, in order, with its risk. Nothing is recorded.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::{DeployRequest, Plan, PlanStep, Risk};
use fairway_engine::Environment;
use fairway_engine::release::{Release, ReleaseSpec};
use fairway_engine::service::{Runs, ServiceSpec};

use super::deploy::release_spec;
use super::{Answer, App, key};

pub async fn plan(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
    Json(request): Json<DeployRequest>,
) -> Answer<Plan> {
    let environment = key(&project, &environment)?;
    let spec = release_spec(&app, &environment, &request).await?;
    let plan = app.pump.shared.read(|state| {
        let known = state.environments.get(&environment);
        make(known, &spec)
    });
    Ok(Json(plan))
}

fn make(env: Option<&Environment>, spec: &ReleaseSpec) -> Plan {
    let stable: Option<&Release> = env.and_then(|env| env.release(env.stable?));
    let mut steps = Vec::new();
    let mut warnings = Vec::new();
    let mut add = |mark: &str, subject: String, text: String, risk: Risk| {
        steps.push(PlanStep { mark: mark.to_owned(), subject, text, risk });
    };
    let old = stable.map(|release| &release.spec);
    let names: BTreeSet<_> =
        spec.services.keys().chain(old.iter().flat_map(|old| old.services.keys())).collect();
    let mut is_empty = true;
    for name in names {
        let before = old.and_then(|old| old.services.get(name));
        match (before, spec.services.get(name)) {
            (None, Some(new)) => {
                is_empty = false;
                add("+", format!("service {name}"), format!("new, {} copies", new.replicas), Risk::Low);
            }
            (Some(_), None) => {
                is_empty = false;
                add("-", format!("service {name}"), "gone after the switch, drained".to_owned(), Risk::High);
            }
            (Some(before), Some(after)) if before == after => {
                add("=", format!("service {name}"), "unchanged".to_owned(), Risk::None);
            }
            (Some(before), Some(after)) => {
                is_empty = false;
                let risk = if after.is_backing() { Risk::High } else { Risk::Low };
                add("~", format!("service {name}"), changes(before, after).join(", "), risk);
                if after.is_backing() {
                    warnings.push(format!(
                        "{name} holds data: its change takes effect at `fairway restart {name}`, with a short interruption"
                    ));
                }
            }
            (None, None) => {}
        }
    }
    if old.is_some_and(|old| old.listen != spec.listen) {
        is_empty = false;
        add("~", "listener".to_owned(), format!("moves to {}", spec.listen.address), Risk::High);
    }
    if spec.jobs.expand.is_some() {
        add(">", "migration".to_owned(), "expand, before anything starts".to_owned(), Risk::Low);
    }
    if spec.jobs.smoke.is_some() {
        add(">", "smoke".to_owned(), "over the preview route, before public traffic".to_owned(), Risk::None);
    }
    let strategy = spec.deploy.strategy.name();
    let from = stable.map_or_else(
        || "first deploy: at once".to_owned(),
        |release| format!("from {}, {strategy}", release.number),
    );
    add(">", "traffic".to_owned(), from, Risk::Low);
    if spec.jobs.contract.is_some() {
        let hours = spec.jobs.contract_after.as_secs() / 3600;
        add(
            ">",
            "migration".to_owned(),
            format!("contract, {hours} h after commit; older releases cannot come back then"),
            Risk::High,
        );
    }
    if let Some(active) = env.and_then(|env| env.rollout.as_ref()) {
        warnings.push(format!(
            "rollout {} is under way ({}) and would be superseded",
            active.number,
            active.phase.name()
        ));
    }
    Plan {
        against: stable.map(|release| release.number.to_string()),
        strategy: strategy.to_owned(),
        steps,
        is_empty: is_empty && stable.is_some(),
        warnings,
    }
}

/// What differs, in words.
fn changes(before: &ServiceSpec, after: &ServiceSpec) -> Vec<String> {
    let mut changes = Vec::new();
    match (&before.runs, &after.runs) {
        (Runs::Process { command: a, artifact: x, .. }, Runs::Process { command: b, artifact: y, .. }) => {
            if a != b {
                changes.push("command".to_owned());
            }
            if x != y {
                changes.push(format!("files ({:.8} → {:.8})", x.to_string(), y.to_string()));
            }
        }
        (Runs::Static { artifact: x, .. }, Runs::Static { artifact: y, .. }) if x != y => {
            changes.push(format!("files ({:.8} → {:.8})", x.to_string(), y.to_string()));
        }
        (a, b) if a != b => changes.push("what it runs".to_owned()),
        _ => {}
    }
    if before.replicas != after.replicas {
        changes.push(format!("copies {} → {}", before.replicas, after.replicas));
    }
    if before.env != after.env {
        let names: BTreeSet<&String> = before
            .env
            .keys()
            .chain(after.env.keys())
            .filter(|name| before.env.get(*name) != after.env.get(*name))
            .collect();
        changes.push(format!("variables {}", names.into_iter().cloned().collect::<Vec<_>>().join(" ")));
    }
    if before.route != after.route {
        changes.push("route".to_owned());
    }
    if changes.is_empty() {
        changes.push("settings".to_owned());
    }
    changes
}
