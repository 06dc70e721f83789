use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

/// Who may depend on whom in this workspace. ARCHITECTURE.md explains why; both change together.
const ALLOWED: &[(&str, &[&str])] = &[
    ("fairway", &["fairway-api", "fairway-config", "fairway-load", "fairway-server"]),
    (
        "fairway-server",
        &[
            "fairway-api",
            "fairway-config",
            "fairway-engine",
            "fairway-load",
            "fairway-metrics",
            "fairway-proxy",
            "fairway-store",
            "fairway-targets",
        ],
    ),
    ("fairway-config", &["fairway-engine"]),
    ("fairway-targets", &["fairway-engine"]),
    ("fairway-store", &["fairway-engine"]),
    ("fairway-sim", &["fairway-engine", "fairway-metrics"]),
    ("fairway-engine", &[]),
    ("fairway-proxy", &[]),
    ("fairway-load", &[]),
    ("fairway-metrics", &[]),
    ("fairway-api", &[]),
    ("xtask", &["fairway-load", "fairway-metrics", "fairway-sim"]),
];

/// Tests may also use these: the load generator is how traffic is proved unharmed.
const ALLOWED_IN_TESTS: &[&str] = &["fairway-load"];

/// Decide or compute, never wait: no runtime, whatever the way that leads there.
const PURE: &[&str] = &["fairway-engine", "fairway-metrics", "fairway-sim"];
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "mio"];

/// One findings line for each edge that is not allowed.
pub fn check(metadata: &Value) -> Vec<String> {
    let members = members(metadata);
    let mut findings = Vec::new();
    for package in packages(metadata).filter(|package| members.contains(name(package))) {
        let from = name(package);
        let Some((_, allowed)) = ALLOWED.iter().find(|(member, _)| *member == from) else {
            findings.push(format!(
                "{from}: not in the list; add it to ARCHITECTURE.md and to xtask/src/tidy/edges.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let in_tests = dependency["kind"].as_str() == Some("dev");
            if members.contains(to)
                && to != from
                && !allowed.contains(&to)
                && !(in_tests && ALLOWED_IN_TESTS.contains(&to))
            {
                let kind = dependency["kind"].as_str().unwrap_or("normal");
                findings.push(format!("{from} → {to} ({kind}): this edge is not allowed"));
            }
        }
    }
    findings
}

/// Follows normal and build dependencies from each pure crate, and its own test dependencies.
pub fn check_pure(metadata: &Value) -> Vec<String> {
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let names: BTreeMap<&str, &str> =
        packages(metadata).filter_map(|package| Some((package["id"].as_str()?, name(package)))).collect();
    let mut findings = Vec::new();
    for pure in PURE {
        let Some((start, _)) = names.iter().find(|(_, name)| *name == pure) else {
            findings.push(format!("{pure}: no such crate"));
            continue;
        };
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut seen: BTreeSet<&str> = BTreeSet::from([*start]);
        let mut queue: VecDeque<&str> = VecDeque::from([*start]);
        while let Some(id) = queue.pop_front() {
            if RUNTIMES.contains(names.get(id).unwrap_or(&"")) {
                findings.push(format!("{pure} reaches {}", way(id, &came_from, &names)));
                continue;
            }
            for dependency in nodes.get(id).and_then(|node| node["deps"].as_array()).into_iter().flatten() {
                let in_tests_only = dependency["dep_kinds"]
                    .as_array()
                    .is_some_and(|kinds| kinds.iter().all(|kind| kind["kind"].as_str() == Some("dev")));
                let Some(next) = dependency["pkg"].as_str() else { continue };
                if (!in_tests_only || id == *start) && seen.insert(next) {
                    came_from.insert(next, id);
                    queue.push_back(next);
                }
            }
        }
    }
    findings
}

fn way(end: &str, came_from: &BTreeMap<&str, &str>, names: &BTreeMap<&str, &str>) -> String {
    let mut way = vec![end];
    while let Some(before) = way.last().and_then(|id| came_from.get(id)) {
        way.push(before);
    }
    let steps: Vec<&str> = way.iter().rev().map(|id| *names.get(id).unwrap_or(id)).collect();
    steps.join(" → ")
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap_or_default()
}

/// Names of the workspace's own crates.
pub fn members(metadata: &Value) -> BTreeSet<&str> {
    let ids: BTreeSet<&str> =
        metadata["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    packages(metadata)
        .filter(|package| package["id"].as_str().is_some_and(|id| ids.contains(id)))
        .map(name)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace;

    #[test]
    fn this_workspace_has_only_allowed_edges() {
        let metadata = workspace::metadata().unwrap();
        assert_eq!(check(&metadata), [""; 0]);
        assert_eq!(check_pure(&metadata), [""; 0]);
    }

    #[test]
    fn every_crate_of_the_list_exists() {
        let metadata = workspace::metadata().unwrap();
        let members = members(&metadata);
        let gone: Vec<&str> =
            ALLOWED.iter().map(|(name, _)| *name).filter(|name| !members.contains(name)).collect();
        assert_eq!(gone, [""; 0]);
    }

    fn world(dependencies: Value, deps_of_engine: Value) -> Value {
        json!({
            "workspace_members": ["e", "m", "s", "v"],
            "packages": [
                {"id": "e", "name": "fairway-engine", "dependencies": dependencies},
                {"id": "m", "name": "fairway-metrics", "dependencies": []},
                {"id": "s", "name": "fairway-sim", "dependencies": []},
                {"id": "v", "name": "fairway-server", "dependencies": []},
                {"id": "h", "name": "helper", "dependencies": []},
                {"id": "t", "name": "tokio", "dependencies": []},
            ],
            "resolve": {"nodes": [
                {"id": "e", "deps": deps_of_engine},
                {"id": "m", "deps": []},
                {"id": "s", "deps": []},
                {"id": "h", "deps": [{"pkg": "t", "dep_kinds": [{"kind": null}]}]},
                {"id": "t", "deps": []},
            ]}
        })
    }

    #[test]
    fn an_edge_that_is_not_allowed_is_named() {
        let world = world(json!([{"name": "fairway-server", "kind": null}]), json!([]));
        assert_eq!(check(&world), ["fairway-engine → fairway-server (normal): this edge is not allowed"]);
    }

    #[test]
    fn a_test_dependency_is_an_edge_too() {
        let world = world(json!([{"name": "fairway-server", "kind": "dev"}]), json!([]));
        assert_eq!(check(&world), ["fairway-engine → fairway-server (dev): this edge is not allowed"]);
    }

    #[test]
    fn a_way_to_tokio_is_shown_in_full() {
        let normal = world(json!([]), json!([{"pkg": "h", "dep_kinds": [{"kind": null}]}]));
        assert_eq!(check_pure(&normal), ["fairway-engine reaches fairway-engine → helper → tokio"]);
        let in_tests = world(json!([]), json!([{"pkg": "h", "dep_kinds": [{"kind": "dev"}]}]));
        assert_eq!(check_pure(&in_tests), ["fairway-engine reaches fairway-engine → helper → tokio"]);
        assert_eq!(check_pure(&world(json!([]), json!([]))), [""; 0]);
    }
}
