//! What `fairway export` writes for this project, as its readers read it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::World;
use super::programs::ask;
use crate::fault::{Context, Done, Fault};

pub fn accepted(world: &mut World) -> Done<Vec<String>> {
    let out = world.home.path().join("exported");
    let to = out.display().to_string();
    for what in ["prometheus", "alertmanager", "grafana"] {
        world.home.must(&world.directory(), &["export", what, "-e", "demo", "--out", &to])?;
    }
    let rules = files(&out.join("prometheus/rules"))?;
    let dashboards = files(&out.join("grafana/dashboards"))?;
    let mut findings = Vec::new();
    let mut check = |command: &mut Command| -> Done {
        findings.extend(said_against(command)?);
        Ok(())
    };
    check(world.programs.promtool().args(["check", "config"]).arg(out.join("prometheus/prometheus.yml")))?;
    check(world.programs.promtool().args(["check", "rules"]).args(&rules))?;
    check(world.programs.amtool().arg("check-config").arg(out.join("alertmanager/alertmanager.yml")))?;
    if !rules.iter().any(|path| path.ends_with("own.yml")) {
        findings.push(format!("the project's own rules are not among {rules:?}"));
    }
    let (mut asked, mut answered) = (0, 0);
    for path in &dashboards {
        let text = std::fs::read_to_string(path).context(path.display())?;
        let dashboard: Value = serde_json::from_str(&text).context(path.display())?;
        let mut queries = Vec::new();
        expressions(&dashboard, &mut queries);
        if queries.is_empty() {
            findings.push(format!("{} asks nothing", path.display()));
        }
        for query in queries {
            let told = ask(world.figures, "POST", "/api/v1/query", &[("query", &filled_in(&query))])?;
            asked += 1;
            answered +=
                usize::from(told.body["data"]["result"].as_array().is_some_and(|all| !all.is_empty()));
            if told.body["status"] != "success" {
                findings.push(format!("{}: {query}: {}", path.display(), told.body));
            }
        }
    }
    println!(
        "        {} rule files; {} dashboards with {asked} queries, {answered} with figures here",
        rules.len(),
        dashboards.len()
    );
    if dashboards.len() < 5 || answered * 3 < asked {
        findings
            .push(format!("{answered} of {asked} queries of {} dashboards have figures", dashboards.len()));
    }
    Ok(findings)
}

fn files(directory: &Path) -> Done<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).context(directory.display())?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort();
    Ok(found)
}

/// Everything that it says, when it does not agree.
fn said_against(command: &mut Command) -> Done<Option<String>> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| Fault::new(format!("{command:?}: {error}")))?;
    let said = [output.stdout, output.stderr].concat();
    Ok((!output.status.success()).then(|| format!("{command:?}: {}", String::from_utf8_lossy(&said))))
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "expr" => found.push(text.to_owned()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|one| expressions(one, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// As Grafana would, with `All` chosen for every variable.
fn filled_in(query: &str) -> String {
    let query =
        query.replace("$__rate_interval", "1m").replace("$__interval", "15s").replace("$__range", "1h");
    let mut filled = String::new();
    let mut rest = query.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        filled.push_str(".+");
        rest = match after.strip_prefix('{') {
            Some(named) => named.split_once('}').map_or("", |(_, rest)| rest),
            None => after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'),
        };
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn variables_are_filled_in_as_grafana_writes_them() {
        assert_eq!(
            super::filled_in("a{b=~\"$c\",d=~\"${e:regex}\"}[$__rate_interval]"),
            "a{b=~\".+\",d=~\".+\"}[1m]"
        );
    }
}
