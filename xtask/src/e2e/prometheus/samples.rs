//! Samples out and in, and questions that both sides must answer alike.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::programs::{Told, ask};
use super::{World, otlp, soon};
use crate::fault::{Context, Done, Fault};
use crate::home::{get, send};

/// From a sample to its place with the other side: a batch waits five seconds for more, and a machine under load for
/// its turn.
const SENT_WITHIN_S: u64 = 9;

/// The same, when a Prometheus sends.
const TAKEN_WITHIN_S: u64 = 5;

/// Sums are added up in another order.
const RELATIVE_MAX: f64 = 1e-9;

/// What both sides are asked: method, path, parameters.
type Question<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>);

pub fn sent_out(world: &mut World) -> Done<Vec<String>> {
    let peer = world.peer.address();
    let count = |address, query| -> Done<f64> {
        let answer = ask(address, "GET", "/api/v1/query", &[("query", query)])?;
        if answer.status != 200 {
            return Err(Fault::new(format!("{query}: {}", answer.body)));
        }
        let value = answer.body["data"]["result"][0]["value"][1].as_str().unwrap_or("0").to_owned();
        value.parse().context(query)
    };
    // Two rounds of Fairway's own figures, which are fifteen seconds apart, and some of what it scrapes.
    for (query, wanted) in [
        ("count_over_time(fairway_proxy_up[2m])", 2.0),
        ("count_over_time(outside_own{job=\"outside\"}[2m])", 12.0),
    ] {
        soon(query, || {
            let have = count(peer, query)?;
            Ok(if have >= wanted { Ok(()) } else { Err(format!("{have} of {wanted}")) })
        })?;
    }
    let at = (now_s()? - SENT_WITHIN_S).to_string();
    let queries = [
        "http_requests_total{environment=\"shop/demo\"}[1m]",
        "sum by (version, code) (http_requests_total{environment=\"shop/demo\"})",
        "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[1m])))",
        "{job=\"fairway\",__name__=~\"fairway_.+\",environment=~\"|shop/demo\"}",
        "node_cpu_seconds_total",
        "count by (job) ({environment=\"shop/demo\"})",
        "outside_own{job=\"outside\"}[30s]",
        "ALERTS{environment=~\"|shop/demo\"}[2m]",
    ];
    let mut findings = Vec::new();
    for query in queries {
        let question = ("GET", "/api/v1/query", vec![("query", query), ("time", at.as_str())]);
        findings.extend(differs(world.figures, peer, &question)?);
    }
    let sent = total(world.figures, "fairway_remote_write_samples_sent_total{")?;
    let lost = total(world.figures, "fairway_remote_write_samples_lost_total{")?;
    // The peer knows its own series better than whoever sends them back.
    let its_own = count(
        world.figures,
        // Each scrape adds figures of itself, and now and then a mark that a series has ended.
        "sum(sum_over_time(scrape_samples_scraped{job=\"made\"}[10m])) + 7 * sum(count_over_time(up{job=\"made\"}[10m]))",
    )?;
    println!("        {sent} samples sent, {lost} refused of {its_own} that are the receiver's own");
    if lost > its_own {
        findings.push(format!("{lost} samples were refused"));
    }
    Ok(findings)
}

pub fn taken_in(world: &mut World) -> Done<Vec<String>> {
    let (figures, peer) = (world.figures, world.peer.address());
    soon("what the other Prometheus has scraped", || {
        let count = [("query", "count(rate(outside_jobs_total{job=\"made\"}[15s]))")];
        let answer = ask(figures, "GET", "/api/v1/query", &count)?;
        let is_there = answer.body["data"]["result"][0]["value"][1] == "3";
        Ok(if is_there { Ok(()) } else { Err(answer.body.to_string()) })
    })?;
    let at = now_s()? - TAKEN_WITHIN_S;
    let (from, at) = ((at - 20).to_string(), at.to_string());
    let mut findings = Vec::new();
    for query in [
        "outside_jobs_total{job=\"made\"}[20s]",
        "sum(rate(outside_jobs_total{job=\"made\"}[10s]))",
        "topk(2, increase(outside_jobs_total{job=\"made\"}[15s]))",
        "histogram_quantile(0.9, rate(outside_job_seconds_bucket{job=\"made\"}[10s]))",
        "outside_flicker{job=\"made\"}[20s]",
        "outside_limit{job=\"made\"}[20s]",
        "up{job=\"made\"}",
        "scrape_samples_scraped{job=\"made\"}[10s]",
    ] {
        let question = ("POST", "/api/v1/query", vec![("query", query), ("time", at.as_str())]);
        findings.extend(differs(figures, peer, &question)?);
        if query.ends_with(']') {
            continue;
        }
        let range = vec![("query", query), ("start", from.as_str()), ("end", at.as_str()), ("step", "1")];
        findings.extend(differs(figures, peer, &("POST", "/api/v1/query_range", range))?);
    }
    findings.extend(goes_round(world)?);
    findings.extend(otlp_in(figures)?);
    Ok(findings)
}

/// Both send each other what they have: what is there already must not be sent again.
fn goes_round(world: &World) -> Done<Option<String>> {
    const FOR: Duration = Duration::from_secs(6);
    let count = || {
        let sent = total(world.figures, "fairway_remote_write_samples_sent_total{")?;
        let refused = total(world.figures, "fairway_remote_write_samples_lost_total{")?;
        let back = total(world.peer.address(), "prometheus_remote_storage_samples_total{")?;
        Ok::<_, Fault>((sent + refused, back))
    };
    let (out, back) = count()?;
    std::thread::sleep(FOR);
    let (out_then, back_then) = count()?;
    let per_s = |count: f64| count / FOR.as_secs_f64();
    let (out_per_s, back_per_s) = (per_s(out_then - out), per_s(back_then - back));
    println!("        {out_per_s:.0} samples a second to it, {back_per_s:.0} back");
    // Fairway has some thousand figures every 15 s, and each of the others some twenty every second.
    Ok((out_per_s > 400.0)
        .then(|| format!("{out_per_s:.0} samples a second go out, {back_per_s:.0} come back")))
}

fn otlp_in(figures: SocketAddr) -> Done<Vec<String>> {
    let post = |at_ns: u64, depth: f64, jobs: f64| {
        let kind = [("content-type", "application/x-protobuf")];
        send(figures, "POST", "/api/v1/otlp/v1/metrics", &kind, &otlp::request(at_ns, depth, jobs))
    };
    let value = |query: &str| {
        let answer = ask(figures, "GET", "/api/v1/query", &[("query", query)])?;
        Ok::<_, Fault>(answer.body["data"]["result"][0]["value"][1].as_str().unwrap_or_default().to_owned())
    };
    let now_ns = || SystemTime::now().duration_since(UNIX_EPOCH).context("the clock");
    let at_ns = u64::try_from(now_ns()?.as_nanos()).context("the clock")?;
    let mut findings = Vec::new();
    let hour_ns = 3_600_000_000_000;
    let first = post(at_ns, 2.5, 40.0)?;
    let ahead = post(at_ns + hour_ns, 99.0, 99.0)?;
    if first.status != 200 || !first.body.is_empty() {
        findings.push(format!("OTLP: {} {:?}", first.status, first.body));
    }
    if ahead.status != 200 || !ahead.body.contains("ahead") {
        findings.push(format!("OTLP of an hour from now: {} {:?}", ahead.status, ahead.body));
    }
    for (query, wanted) in [
        ("otlp_depth{job=\"collector\",queue=\"mail\"}", "2.5"),
        ("otlp_jobs_total{job=\"collector\",queue=\"mail\"}", "40"),
    ] {
        let answered = value(query)?;
        if answered != wanted {
            findings.push(format!("{query} is {answered:?} instead of {wanted}"));
        }
    }
    Ok(findings)
}

pub fn asked_as_grafana(world: &mut World) -> Done<Vec<String>> {
    let end = now_s()? - TAKEN_WITHIN_S;
    let (start, end) = ((end - 20).to_string(), end.to_string());
    let (rate, made) = ("sum by (queue) (rate(outside_jobs_total{job=\"made\"}[10s]))", "{job=\"made\"}");
    let time = ("time", end.as_str());
    let range =
        |step| vec![("query", rate), ("start", start.as_str()), ("end", end.as_str()), ("step", step)];
    let within = || vec![("start", start.as_str()), ("end", end.as_str())];
    let of_made = || [within(), vec![("match[]", made)]].concat();
    let mut questions: Vec<Question<'_>> = Vec::new();
    for method in ["GET", "POST"] {
        questions.extend([
            (method, "/api/v1/query", vec![("query", rate), time]),
            (method, "/api/v1/query", vec![("query", "1+1"), time]),
            (method, "/api/v1/query", vec![("query", "\"text\""), time]),
            (method, "/api/v1/query", vec![("query", "sum(rate(x[5m])"), time]),
            (method, "/api/v1/query", vec![time]),
            (method, "/api/v1/query", vec![("query", "1"), ("time", "yesterday")]),
            (method, "/api/v1/query", vec![("query", made), time, ("limit", "100")]),
            (method, "/api/v1/query_range", range("1")),
            (method, "/api/v1/query_range", range("0")),
            (method, "/api/v1/query_range", range("0.001")),
            (method, "/api/v1/labels", of_made()),
            (method, "/api/v1/series", of_made()),
            (method, "/api/v1/series", within()),
            (method, "/api/v1/query_exemplars", [within(), vec![("query", rate)]].concat()),
        ]);
    }
    questions.extend([
        ("GET", "/api/v1/label/queue/values", of_made()),
        ("GET", "/api/v1/label/__name__/values", of_made()),
        ("GET", "/api/v1/label/nothing/values", of_made()),
        ("GET", "/api/v1/label/a-b/values", of_made()),
        ("POST", "/api/v1/label/queue/values", of_made()),
        ("POST", "/api/v1/metadata", Vec::new()),
        ("DELETE", "/api/v1/query", Vec::new()),
        ("GET", "/api/v1/nothing", Vec::new()),
    ]);
    let mut findings = Vec::new();
    let mut count = 0;
    for question in &questions {
        count += 1;
        findings.extend(differs(world.figures, world.peer.address(), question)?);
    }
    // What these say is each side's own; what they say it in is not.
    for path in
        ["metadata", "metadata?limit=1", "status/buildinfo", "status/runtimeinfo", "targets", "scrape_pools"]
    {
        count += 1;
        let path = format!("/api/v1/{path}");
        let told = |address| ask(address, "GET", &path, &[]);
        findings.extend(other_shape(&path, &told(world.figures)?, &told(world.prometheus.address())?));
    }
    println!("        {count} questions");
    Ok(findings)
}

/// What the two sides answer differently.
fn differs(ours: SocketAddr, theirs: SocketAddr, question: &Question<'_>) -> Done<Option<String>> {
    let (method, path, parameters) = question;
    let told = |address| ask(address, method, path, parameters);
    let (ours, theirs) = (told(ours)?, told(theirs)?);
    let what = || format!("{method} {path} {parameters:?}");
    if (ours.status, &ours.kind) != (theirs.status, &theirs.kind) {
        return Ok(Some(format!("{}: ours {ours:?}, theirs {theirs:?}", what())));
    }
    if is_empty(&theirs) && parameters.iter().any(|(name, _)| *name == "query") && theirs.status == 200 {
        return Ok(Some(format!("{}: no answer, which proves nothing", what())));
    }
    let (mut one, mut other) = (ours.body.clone(), theirs.body.clone());
    for body in [&mut one, &mut other] {
        // The words of an error are each side's own, its class is not.
        if let Some(error) = body.get_mut("error") {
            *error = Value::Null;
        }
        sort(body);
    }
    Ok((!is_same(&one, &other))
        .then(|| format!("{}:\n  ours   {}\n  theirs {}", what(), ours.body, theirs.body)))
}

fn is_empty(told: &Told) -> bool {
    told.body["data"]["result"].as_array().is_some_and(Vec::is_empty)
}

/// Series have no order of their own.
fn sort(body: &mut Value) {
    let lists = [body.pointer("/data/result").is_some(), body["data"].is_array()];
    let list = match lists {
        [true, _] => body.pointer_mut("/data/result"),
        [_, true] => body.get_mut("data"),
        [false, false] => None,
    };
    // A scalar is a list as well, of a time and a value.
    if let Some(Value::Array(list)) = list
        && list.iter().all(Value::is_object)
    {
        list.sort_by_key(|one| one.get("metric").unwrap_or(one).to_string());
    }
}

fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::String(one), Value::String(other)) => {
            one == other
                || match (one.parse::<f64>(), other.parse::<f64>()) {
                    (Ok(one), Ok(other)) => (one - other).abs() <= RELATIVE_MAX * one.abs().max(other.abs()),
                    _ => false,
                }
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| is_same(one, other)))
        }
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

/// What keys and kinds of values they have, where it is not the same.
pub fn other_shape(path: &str, ours: &Told, theirs: &Told) -> Option<String> {
    let (one, other) = (shape(&ours.body, path), shape(&theirs.body, path));
    let is_same = (ours.status, &ours.kind) == (theirs.status, &theirs.kind) && one == other;
    (!is_same).then(|| {
        let (more, less): (Vec<_>, Vec<_>) =
            (one.difference(&other).collect(), other.difference(&one).collect());
        format!(
            "{path}: ours {} with {more:?} more, theirs {} with {less:?} more",
            ours.status, theirs.status
        )
    })
}

/// Every path of keys in it; keys that are names of things are left out, and what only some have.
fn shape(body: &Value, path: &str) -> BTreeSet<String> {
    // Set when there is something to tell, and Prometheus' own build has more of itself to tell.
    const SOMETIMES: [&str; 4] = ["keepFiringSince", "lastError", "groupNextToken", "warnings"];
    fn walk(value: &Value, at: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter().filter(|(key, _)| !SOMETIMES.contains(&key.as_str())) {
                    let are_names =
                        ["labels", "annotations", "discoveredLabels", "metadata", "droppedTargetCounts"];
                    let last = at.rsplit('/').next().unwrap_or_default();
                    let key = if are_names.contains(&last) { "NAME" } else { key };
                    walk(value, &format!("{at}/{key}"), found);
                }
            }
            Value::Array(list) => list.iter().for_each(|one| walk(one, &format!("{at}[]"), found)),
            Value::Null => drop(found.insert(format!("{at} null"))),
            Value::Bool(_) => drop(found.insert(format!("{at} bool"))),
            Value::Number(_) => drop(found.insert(format!("{at} number"))),
            Value::String(_) => drop(found.insert(format!("{at} text"))),
        }
    }
    let mut found = BTreeSet::new();
    let begin = if path.contains("/metadata") { "metadata" } else { "data" };
    walk(&body["data"], begin, &mut found);
    found.insert(format!("status {}", body["status"]));
    found
}

fn now_s() -> Done<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs())
}

/// The sum over a family in `/metrics`.
fn total(address: SocketAddr, family: &str) -> Done<f64> {
    let page = get(address, "/metrics")?.body;
    let of_family = page.lines().filter(|line| line.starts_with(family));
    Ok(of_family.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
