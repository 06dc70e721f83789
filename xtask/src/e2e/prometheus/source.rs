//! A Prometheus elsewhere answers for gates and alerts; an Alertmanager is told.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;

use super::programs::{Told, ask};
use super::samples::other_shape;
use super::{World, soon};
use crate::fault::{Context, Done};
use crate::home::get;

/// Written where only the Prometheus with this rule can answer.
const ERRORS: &str = "{ query = 'max(version:http_errors:ratio_rate10s{environment=\"$environment\",version=\"$version\"})', max = 0.05 }";

fn canary(hold: &str, gates: &str) -> String {
    format!("strategy = \"canary\"\nsteps = [{{ weight = 30, hold = \"{hold}\" }}]\ngates = [{gates}]\n")
}

/// v2 and v3 are as good as each other.
pub fn goes_through(world: &mut World) -> Done<Vec<String>> {
    let settings = world.elsewhere(&canary("3s", ERRORS));
    world.check_out("v3", &settings)?;
    let ran = world.home.run(&world.directory(), &["deploy", "-e", "demo"])?;
    let mut findings = Vec::new();
    if ran.code != 0 || world.shop.version()? != "v3" {
        findings.push(format!("the deploy ended with {}: {}", ran.code, ran.stderr));
    }
    if !ran.stderr.contains("version:http_errors:ratio_rate10s") {
        findings.push(format!("the deploy does not say by which query it was judged: {}", ran.stderr));
    }
    Ok(findings)
}

pub fn called_off(world: &mut World) -> Done<Vec<String>> {
    let trouble = "{ query = 'max(outside_trouble)', max = 0.5 }";
    let settings = world.elsewhere(&canary("60s", &format!("{ERRORS}, {trouble}")));
    world.begin_deploy("v2", &settings)?;
    world.until(|rollout| rollout["phase"] == "shifting")?;
    world.shown.trouble(true);
    let began = Instant::now();
    let ended = world.until(Value::is_null);
    let took = began.elapsed();
    world.shown.trouble(false);
    ended?;
    let history = world.history()?;
    let mut findings = Vec::new();
    if world.shop.version()? != "v3" {
        findings.push(format!("{} serves", world.shop.version()?));
    }
    if !history.contains("outside_trouble") || !history.contains("0.5") {
        findings.push(format!("the record does not say which gate it was, and its bound: {history}"));
    }
    println!("        called off {:.1} s after the figure outside went bad", took.as_secs_f64());
    Ok(findings)
}

pub fn alert_undoes(world: &mut World) -> Done<Vec<String>> {
    let settings = world.elsewhere("");
    world.begin_deploy_with("90s", "v2", &settings)?;
    world.until(|rollout| rollout["phase"] == "baking")?;
    world.shown.alarm(true);
    let began = Instant::now();
    world.until(Value::is_null)?;
    let took = began.elapsed();
    let told = soon("the alert at Alertmanager", || alert_at(world, "Outside"))?;
    world.while_firing = firing(world.prometheus.address())?;
    world.shown.alarm(false);
    let history = world.history()?;
    let mut findings = Vec::new();
    if world.shop.version()? != "v3" {
        findings.push(format!("{} serves", world.shop.version()?));
    }
    if !history.contains("Outside") || !history.contains("the alarm is 1") {
        findings.push(format!("the record does not say which alert it was, and what it says: {history}"));
    }
    if told["labels"]["environment"] != "shop/demo" || told["labels"]["severity"] != "critical" {
        findings.push(format!("its labels are others: {told}"));
    }
    if told["annotations"]["summary"] != "the alarm is 1" {
        findings.push(format!("its annotations are others: {told}"));
    }
    if !told["startsAt"].as_str().is_some_and(|at| at.starts_with("20")) {
        findings.push(format!("it does not say since when: {told}"));
    }
    println!("        undone {:.1} s after the figure outside went bad", took.as_secs_f64());
    Ok(findings)
}

/// What is asked of whoever evaluates rules.
fn firing(address: SocketAddr) -> Done<Vec<(&'static str, Told)>> {
    let paths = ["/api/v1/rules", "/api/v1/rules?type=alert", "/api/v1/alerts"];
    paths.into_iter().map(|path| Ok((path, ask(address, "GET", path, &[])?))).collect()
}

fn alert_at(world: &World, name: &str) -> Done<Result<Value, String>> {
    let answer = get(world.alertmanager.address(), "/api/v2/alerts?active=true")?;
    let list: Value = serde_json::from_str(&answer.body).context("Alertmanager's list")?;
    let found = list.as_array().into_iter().flatten().find(|one| one["labels"]["alertname"] == name);
    Ok(found.cloned().ok_or_else(|| format!("it has {list}")))
}

fn gone_from(world: &World, name: &str) -> Done<Result<(), String>> {
    Ok(match alert_at(world, name)? {
        Ok(found) => Err(format!("it has {found}")),
        Err(_) => Ok(()),
    })
}

const OWN_RULES: &str = "groups:
  - name: outside
    interval: 1s
    rules:
      - alert: Own
        expr: outside_own{job=\"outside\"} > 0
        labels: {severity: warning}
        annotations: {summary: 'own is {{ $value }}'}
";

/// From here on the built-in store is asked.
pub fn own_alert_is_told(world: &mut World) -> Done<Vec<String>> {
    let shown = world.shown.address;
    let metrics = format!(
        "rules = [\"own.yml\"]\nscrape = {{ outside = {{ url = \"http://{shown}/metrics\", every = \"1s\" }} }}"
    );
    let settings = world.settings("", &metrics);
    std::fs::write(world.directory().join("own.yml"), OWN_RULES).context("the rule file")?;
    world.deploy("v3", &settings)?;
    let began = Instant::now();
    world.shown.own(true);
    let told = soon("the alert at Alertmanager", || alert_at(world, "Own"))?;
    let told_after = began.elapsed();
    let mut findings = Vec::new();
    for ((path, theirs), (_, ours)) in world.while_firing.iter().zip(firing(world.figures)?) {
        findings.extend(other_shape(path, &ours, theirs));
    }
    world.shown.own(false);
    let began = Instant::now();
    for name in ["Own", "Outside"] {
        soon("its end at Alertmanager", || gone_from(world, name))?;
    }
    let ended_after = began.elapsed();
    println!(
        "        told {:.1} s after the figure went bad, and its end {:.1} s after it was good again",
        told_after.as_secs_f64(),
        ended_after.as_secs_f64()
    );
    if told["labels"]["environment"] != "shop/demo" || told["annotations"]["summary"] != "own is 1" {
        findings.push(format!("it says something else: {told}"));
    }
    Ok(findings)
}
