//! What all environments add becomes one snapshot; and where the proxy refuses it, whose part of it is to blame.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use fairway_engine::id::EnvironmentKey;
use fairway_proxy::control::RejectReason;
use fairway_proxy::snapshot::{Invalid, Listener, ProcessLimits, Snapshot};

use super::edge;
use super::key::environment_of;
use super::part::Part;

pub(super) type Parts = BTreeMap<EnvironmentKey, Part>;

pub(super) fn compose(
    generation: u64,
    parts: &Parts,
    http_challenges: &BTreeMap<String, String>,
) -> Snapshot {
    let mut listeners: BTreeMap<&String, Listener> = BTreeMap::new();
    let mut services = BTreeMap::new();
    let mut routes = Vec::new();
    let mut process = ProcessLimits::default();
    for part in parts.values() {
        for (name, listener) in &part.listeners {
            match listeners.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(listener.clone())),
                Entry::Occupied(mut entry) => edge::merge(entry.get_mut(), listener),
            }
        }
        services.extend(part.services.clone());
        routes.extend(part.routes.clone());
        process = edge::larger(process, part.process);
    }
    let listeners = listeners.into_values().collect();
    let access_log = parts.values().any(|part| part.access_log);
    let http_challenges = http_challenges.clone();
    Snapshot { generation, listeners, services, routes, http_challenges, process, access_log }
}

/// What each environment has in a snapshot, without the generations, which are not in it.
pub(super) fn parts_of(snapshot: &Snapshot) -> Parts {
    let mut parts = Parts::new();
    for (key, service) in &snapshot.services {
        if let Some(environment) = environment_of(key) {
            parts.entry(environment).or_default().services.insert(key.clone(), service.clone());
        }
    }
    for route in &snapshot.routes {
        if let Some(part) = environment_of(&route.service).and_then(|key| parts.get_mut(&key)) {
            let own = snapshot.listeners.iter().filter(|listener| listener.name == route.listener);
            part.listeners.extend(own.map(|listener| (listener.name.clone(), listener.clone())));
            part.routes.push(route.clone());
        }
    }
    // Whose word it was is not in it, and the largest of the same is the same.
    for part in parts.values_mut() {
        (part.process, part.access_log) = (snapshot.process, snapshot.access_log);
    }
    parts
}

/// Whose table is to give way. Only one that is new can be at fault; where none is, an address that was ours before
/// has been taken.
pub(super) fn culprit(parts: &Parts, good: &Parts, reason: &RejectReason) -> Option<EnvironmentKey> {
    let changed: Vec<(&EnvironmentKey, &Part)> =
        parts.iter().filter(|(environment, part)| good.get(*environment) != Some(*part)).collect();
    let has =
        |part: &Part, wanted: &SocketAddr| part.listeners.values().any(|listener| listener.addr == *wanted);
    let found = match reason {
        RejectReason::Bind { addr, .. } => changed
            .iter()
            .copied()
            .find(|(_, part)| has(part, addr))
            .or_else(|| parts.iter().find(|(_, part)| has(part, addr))),
        // A certificate that cannot be read, which no other check finds: only a table with that listener is at fault.
        RejectReason::Invalid { problems } if only_listeners(problems).is_some() => {
            let names = only_listeners(problems).unwrap_or_default();
            changed
                .iter()
                .copied()
                .find(|(_, part)| names.iter().any(|name| part.listeners.contains_key(*name)))
        }
        RejectReason::Invalid { .. } => {
            let is_valid_without = |environment: &EnvironmentKey| {
                let mut others = parts.clone();
                others.remove(environment);
                others.extend(good.get(environment).map(|good| (environment.clone(), good.clone())));
                compose(1, &others, &BTreeMap::new()).validate().is_ok()
            };
            let is_invalid_alone = |environment: &EnvironmentKey, part: &Part| {
                compose(1, &Parts::from([(environment.clone(), part.clone())]), &BTreeMap::new())
                    .validate()
                    .is_err()
            };
            changed
                .iter()
                .find(|(environment, part)| is_invalid_alone(environment, part))
                .or_else(|| changed.iter().find(|(environment, _)| is_valid_without(environment)))
                .or(changed.first())
                .copied()
        }
        RejectReason::Persist { .. }
        | RejectReason::Draining
        | RejectReason::HandingOver
        | RejectReason::OlderGeneration
        | RejectReason::SameGenerationDifferent => None,
    };
    found.map(|(environment, _)| environment.clone())
}

/// The listeners that are refused, where nothing else is.
pub(super) fn only_listeners(problems: &[Invalid]) -> Option<Vec<&str>> {
    let names = problems.iter().map(|problem| {
        let Invalid::Listener { name, .. } = problem else { return None };
        Some(name.as_str())
    });
    names.collect()
}

#[cfg(test)]
mod tests;
