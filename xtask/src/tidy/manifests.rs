use std::path::Path;

use serde_json::Value;

use super::edges::members;
use crate::workspace;

/// What every crate must take over from the workspace.
const INHERITED: &[&str] =
    &["version.workspace = true", "license.workspace = true", "publish.workspace = true"];

pub fn check(metadata: &Value) -> Vec<String> {
    let members = members(metadata);
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if !members.contains(name) {
            continue;
        }
        if package["license"].as_str() != Some("Apache-2.0") {
            findings.push(format!("{name}: the licence is {}", package["license"]));
        }
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let Ok(text) = std::fs::read_to_string(manifest) else {
            findings.push(format!("{name}: cannot read its Cargo.toml"));
            continue;
        };
        for line in INHERITED {
            if !text.contains(line) {
                findings.push(format!("{name}: its Cargo.toml has no `{line}`"));
            }
        }
        if !text.contains("[lints]\nworkspace = true") {
            findings.push(format!("{name}: its Cargo.toml does not take over the workspace's lints"));
        }
    }
    if std::fs::read_to_string(workspace::root().join("LICENSE"))
        .is_ok_and(|text| !text.contains("Apache License"))
    {
        findings.push("LICENSE is not the Apache licence".to_owned());
    }
    findings
}
