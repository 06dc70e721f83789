//! What `cargo deny` checks, from what cargo itself knows.

use std::collections::BTreeMap;

use serde_json::Value;

use super::spdx;

/// Licences under which a dependency may be linked into an Apache-2.0 binary without further duties than a notice.
const ALLOWED: &[&str] = &[
    // No duties at all, not even a notice.
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are there in two incompatible versions, with the reason why that stays.
const DUPLICATES: &[(&str, &str)] = &[
    ("base64", "instant-acme 0.8 is bound to 0.22; everything else has moved on."),
    (
        "getrandom",
        "ring 0.17, which TLS stands on, is bound to 0.2; everything else has moved on. Both only ask the kernel.",
    ),
    ("nom", "an optional dependency of rcgen that is never built is bound to an older one."),
    ("syn", "an optional dependency of rcgen that is never built is bound to an older one."),
    ("synstructure", "an optional dependency of rcgen that is never built is bound to an older one."),
];

/// How cargo names sources that are a registry, whichever it is set up to use.
const REGISTRY: &str = "registry+";

pub fn check(metadata: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages(metadata) {
        let what = format!("{} {}", text(package, "name"), text(package, "version"));
        match package["license"].as_str() {
            None => findings.push(format!("{what} names no licence")),
            Some(licence) => match spdx::is_met(licence, &|licence| ALLOWED.contains(&licence)) {
                Ok(true) => {}
                Ok(false) => findings.push(format!("{what}: {licence} is not allowed")),
                Err(why) => findings.push(format!("{what}: the licence {licence:?} cannot be read: {why}")),
            },
        }
    }
    findings
}

/// A git or foreign source has no checksum that a second person could hold against the first.
pub fn check_sources(metadata: &Value) -> Vec<String> {
    packages(metadata)
        .filter(|package| package["source"].as_str().is_some_and(|source| !source.starts_with(REGISTRY)))
        .map(|package| format!("{} comes from {}", text(package, "name"), text(package, "source")))
        .collect()
}

pub fn check_duplicates(metadata: &Value) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages(metadata) {
        versions.entry(text(package, "name")).or_default().push(text(package, "version"));
    }
    let mut findings = Vec::new();
    for (name, versions) in &versions {
        let listed = DUPLICATES.iter().any(|(listed, _)| listed == name);
        if versions.len() > 1 && !listed {
            findings.push(format!(
                "{name} is there as {}: bring them together, or list it with the reason in {}",
                versions.join(" and "),
                file!()
            ));
        }
    }
    for (name, _) in DUPLICATES {
        if versions.get(name).is_none_or(|versions| versions.len() < 2) {
            findings.push(format!("{name} is listed in {} and not there twice any more", file!()));
        }
    }
    findings
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_allowed_is_named() {
        let world = json!({"packages": [
            {"name": "good", "version": "1.0.0", "license": "MIT OR GPL-3.0", "source": "registry+index"},
            {"name": "bad", "version": "1.0.0", "license": "GPL-3.0", "source": "git+https://example.org/bad"},
            {"name": "mute", "version": "0.1.0", "license": null, "source": null},
            {"name": "good", "version": "2.0.0", "license": "MIT", "source": "registry+index"},
        ]});
        assert_eq!(check(&world), ["bad 1.0.0: GPL-3.0 is not allowed", "mute 0.1.0 names no licence"]);
        assert_eq!(check_sources(&world), ["bad comes from git+https://example.org/bad"]);
        assert!(check_duplicates(&world)[0].starts_with("good is there as 1.0.0 and 2.0.0"));
    }
}
