//! `POST …/plan`: what a deploy would change, in order, with its risk. Nothing is recorded.

mod words;

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use fairway_api::{DeployRequest, Plan, PlanStep, Risk};
use fairway_engine::Environment;
use fairway_engine::id::EnvironmentKey;
use fairway_engine::release::{Release, ReleaseSpec};
use fairway_engine::service::{Runs, ServiceSpec};
use fairway_engine::strategy::Strategy;

use super::deploy::release_spec;
use super::{Answer, App, key};
use crate::routes::sharing;

pub async fn plan(
    State(app): State<App>,
    Path((project, environment)): Path<(String, String)>,
    Json(request): Json<DeployRequest>,
) -> Answer<Plan> {
    let environment = key(&project, &environment)?;
    let spec = release_spec(&app, &environment, &request).await?;
    let plan = app.pump.shared.read(|state| {
        let known = state.environments.get(&environment);
        let mut plan = make(known, &spec);
        let taken = sharing::taken_route(&environment, &spec, state.environments.values());
        plan.warnings.extend(taken.map(|taken| format!("{taken}: a deploy is refused")));
        plan.warnings.extend(warnings(state, &environment, &spec));
        plan
    });
    Ok(Json(plan))
}

/// What a deploy warns of as well: what would be, but not as the file says.
pub fn warnings(engine: &fairway_engine::State, key: &EnvironmentKey, spec: &ReleaseSpec) -> Vec<String> {
    let mut warnings = sharing::of_release(key, spec, engine.environments.values());
    warnings.extend(scaled_by_hand(engine.environments.get(key), spec));
    warnings
}

/// Who changes a number in fairway.toml and sees nothing happen should not have to find out why.
fn scaled_by_hand(env: Option<&Environment>, spec: &ReleaseSpec) -> Vec<String> {
    let numbers = env.iter().flat_map(|env| env.scale.iter());
    let mut told = Vec::new();
    for (name, replicas) in numbers {
        let Some(service) = spec.services.get(name) else { continue };
        if service.autoscale.is_none() && !service.is_backing() && service.replicas != *replicas {
            told.push(format!(
                "{name} keeps {}, as scaled by hand, and not the {} of fairway.toml; `fairway scale {name} auto` \
                 takes that back",
                words::copies(*replicas),
                service.replicas
            ));
        }
    }
    told
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
                let copies = match &new.autoscale {
                    Some(settings) => words::autoscale(settings),
                    None => words::copies(new.replicas),
                };
                add("+", format!("service {name}"), format!("new, {copies}"), Risk::Low);
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
    if old.is_some_and(|old| old.entrance != spec.entrance) {
        is_empty = false;
        let what = "TLS, who is believed, or limits of connections and of the proxy".to_owned();
        add("~", "entrance".to_owned(), what, Risk::Low);
    }
    if spec.jobs.expand.is_some() {
        add(">", "migration".to_owned(), "expand, before anything starts".to_owned(), Risk::Low);
    }
    if spec.jobs.smoke.is_some() {
        add(">", "smoke".to_owned(), "over the preview route, before public traffic".to_owned(), Risk::None);
    }
    if let Some(old) = old {
        let judged =
            old.deploy.evidence != spec.deploy.evidence || old.deploy.strategy != spec.deploy.strategy;
        if judged {
            is_empty = false;
            add(
                "~",
                "rollout".to_owned(),
                "what a release goes through and has to show".to_owned(),
                Risk::Low,
            );
        }
        if old.monitoring != spec.monitoring {
            is_empty = false;
            add("~", "monitoring".to_owned(), "alerts, rules or objectives".to_owned(), Risk::Low);
        }
    }
    let strategy = spec.deploy.strategy.name();
    let from = stable.map_or_else(
        || "first deploy: at once".to_owned(),
        |release| format!("from {}, {strategy}", release.number),
    );
    add(">", "traffic".to_owned(), from, Risk::Low);
    if stable.is_some() {
        for (subject, text) in way(spec) {
            add(">", subject, text, Risk::None);
        }
    }
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

/// What the traffic goes through, and what the release is judged by.
fn way(spec: &ReleaseSpec) -> Vec<(String, String)> {
    let mut way = Vec::new();
    match &spec.deploy.strategy {
        Strategy::Canary { steps, matches, .. } => {
            way.extend(matches.iter().map(|one| ("testers".to_owned(), words::testers(one))));
            // The last step is the switch, whether it is written or not.
            let is_whole = steps.last().is_some_and(|last| last.weight >= 100);
            let count = steps.len() + usize::from(!is_whole);
            let step = |(at, step)| (format!("step {} of {count}", at + 1), words::step(step));
            way.extend(steps.iter().enumerate().map(step));
            if !is_whole {
                way.push((format!("step {count} of {count}"), "all requests".to_owned()));
            }
        }
        Strategy::BlueGreen { approve: true } => {
            way.push(("switch".to_owned(), "when somebody promotes".to_owned()));
        }
        Strategy::BlueGreen { approve: false } | Strategy::Rolling { .. } => {}
    }
    let evidence = &spec.deploy.evidence;
    way.extend(evidence.sequential.iter().map(|test| ("count test".to_owned(), words::sequential(test))));
    way.extend(evidence.gates.iter().map(|gate| ("gate".to_owned(), words::gate(gate))));
    way.extend(evidence.triggers.iter().map(|trigger| ("trigger".to_owned(), words::trigger(trigger))));
    if !spec.deploy.bake.is_zero() {
        let bake = fairway_metrics::rules::show_duration(spec.deploy.bake);
        way.push(("bake".to_owned(), format!("all requests, watched for {bake} before it is final")));
    }
    way
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
    match (&before.autoscale, &after.autoscale) {
        (a, b) if a == b => {}
        (_, Some(settings)) => changes.push(words::autoscale(settings)),
        (Some(_), None) => {
            changes.push(format!("no longer follows its load, {}", words::copies(after.replicas)))
        }
        (None, None) => {}
    }
    if before.replicas != after.replicas && after.autoscale.is_none() && before.autoscale.is_none() {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fairway_engine::Command;
    use fairway_engine::evidence::{Evidence, Trigger};
    use fairway_engine::strategy::Step;

    use super::*;
    use crate::testing::{self, World, command_of, key, name, release};

    #[test]
    fn a_canary_tells_each_step_and_what_turns_it_back() {
        let mut spec = testing::release("127.0.0.1:0");
        let step = |weight| Step {
            weight,
            hold: Duration::from_secs(300),
            approve: false,
            mirror: 0,
            experiment: None,
        };
        let steps = vec![step(5), step(50)];
        spec.deploy.strategy = Strategy::Canary { steps, matches: Vec::new(), sticky: false };
        spec.deploy.bake = Duration::from_secs(120);
        spec.deploy.evidence =
            Evidence { sequential: None, gates: Vec::new(), triggers: vec![Trigger::CriticalAlert] };
        let told: Vec<String> =
            way(&spec).iter().map(|(subject, text)| format!("{subject}: {text}")).collect();
        assert_eq!(
            told,
            [
                "step 1 of 3: 5 % of the requests, for 5m",
                "step 2 of 3: 50 % of the requests, for 5m",
                "step 3 of 3: all requests",
                "trigger: turned back when a critical alert fires",
                "bake: all requests, watched for 2m before it is final",
            ]
        );
        let plan = make(None, &spec);
        assert!(
            plan.steps.iter().all(|step| !step.subject.starts_with("step ")),
            "a first deploy goes at once"
        );
    }

    #[test]
    fn who_deploys_is_told_that_a_number_given_by_hand_holds() {
        let dev = key("dev");
        let mut world = World::deployed(&dev, release("127.0.0.1:8080"));
        let mut told = |command| {
            world.give(command_of(&dev, command));
            scaled_by_hand(Some(world.of(&dev)), &release("127.0.0.1:8080"))
        };
        assert_eq!(
            told(Command::Scale { service: name("api"), replicas: 3 }),
            [
                "api keeps 3 copies, as scaled by hand, and not the 1 of fairway.toml; `fairway scale api auto` takes \
              that back"
            ]
        );
        assert_eq!(
            told(Command::Scale { service: name("api"), replicas: 1 }),
            [""; 0],
            "nothing is different"
        );
        assert_eq!(told(Command::Autoscale { service: name("api") }), [""; 0]);
    }
}
