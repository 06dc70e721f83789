//! The same random queries over the same random series, asked of this evaluator and of a real Prometheus.
//!
//! `FAIRWAY_PROMETHEUS` is the path of the binary `prometheus` (3.5 or later); without it there is nothing to compare
//! with. `FAIRWAY_PROMQL_QUERIES` and `FAIRWAY_PROMQL_SEED` change how many queries and which.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod promql;

use std::collections::BTreeMap;
use std::path::PathBuf;

use fairway_metrics::promql::{Answer, Dialect, Engine, Names, Value, parse_as};
use promql::memory::Memory;
use promql::prometheus::Prometheus;
use promql::random::{Random, START_MS, STEP_MS, STEPS};
use promql::{grammar, random};
use serde_json::Value as Json;

/// What either side says of a query.
#[derive(Debug, Default, PartialEq)]
struct Said {
    /// `parse` or `evaluate`, and the text.
    error: Option<(&'static str, String)>,
    kind: String,
    /// Labels as JSON, and the points. Sorted, unless the order counts.
    series: Vec<(String, Vec<(f64, f64)>)>,
    notes: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum When {
    At(i64),
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn points(json: &Json) -> Vec<(f64, f64)> {
    let point = |pair: &Json| Some((pair[0].as_f64()?, pair[1].as_str()?.parse().ok()?));
    match (json.get("values").and_then(Json::as_array), json.get("value")) {
        (Some(list), _) => list.iter().filter_map(point).collect(),
        (None, Some(one)) => point(one).into_iter().collect(),
        (None, None) => Vec::new(),
    }
}

fn theirs(prometheus: &mut Prometheus, query: &str, when: When) -> Said {
    let answer = match when {
        When::At(at_ms) => prometheus.ask("/api/v1/query", &[("query", query), ("time", &seconds(at_ms))]),
        When::Range { start_ms, end_ms, step_ms } => prometheus.ask(
            "/api/v1/query_range",
            &[
                ("query", query),
                ("start", &seconds(start_ms)),
                ("end", &seconds(end_ms)),
                ("step", &seconds(step_ms)),
            ],
        ),
    };
    let mut said = Said::default();
    if answer["status"] != "success" {
        let class = if answer["errorType"] == "bad_data" { "parse" } else { "evaluate" };
        said.error = Some((class, answer["error"].as_str().unwrap_or_default().to_owned()));
        return said;
    }
    let data = &answer["data"];
    said.kind = data["resultType"].as_str().unwrap_or_default().to_owned();
    if matches!(said.kind.as_str(), "vector" | "matrix") {
        for series in data["result"].as_array().into_iter().flatten() {
            let labels: BTreeMap<String, String> = serde_json::from_value(series["metric"].clone()).unwrap();
            said.series.push((serde_json::to_string(&labels).unwrap(), points(series)));
        }
    } else {
        let pair = &data["result"];
        said.series.push((String::new(), points(&serde_json::json!({ "value": pair }))));
    }
    for kind in ["warnings", "infos"] {
        let list = answer.get(kind).and_then(Json::as_array).into_iter().flatten();
        said.notes.extend(list.filter_map(|text| text.as_str().map(str::to_owned)));
    }
    said
}

fn ours(engine: &Engine, memory: &Memory, query: &str, when: When) -> Said {
    let mut said = Said::default();
    let parsed = match parse_as(query, Dialect::Experimental) {
        Ok(parsed) => parsed,
        Err(error) => {
            said.error = Some(("parse", error.to_string()));
            return said;
        }
    };
    let answer = match when {
        When::At(at_ms) => engine.instant(memory, &parsed, at_ms),
        When::Range { start_ms, end_ms, step_ms } => engine.range(memory, &parsed, start_ms, end_ms, step_ms),
    };
    let Answer { value, warnings, infos } = match answer {
        Ok(answer) => answer,
        Err(error) => {
            said.error = Some(("evaluate", error.to_string()));
            return said;
        }
    };
    let point = |sample: &fairway_metrics::sample::Sample| (sample.at_ms as f64 / 1000.0, sample.value);
    match value {
        Value::Scalar(sample) => {
            said.kind = "scalar".to_owned();
            said.series.push((String::new(), vec![point(&sample)]));
        }
        Value::Text { .. } => said.kind = "string".to_owned(),
        Value::Vector(list) => {
            said.kind = "vector".to_owned();
            for element in list {
                said.series
                    .push((serde_json::to_string(&element.labels).unwrap(), vec![point(&element.sample)]));
            }
        }
        Value::Matrix(list) => {
            said.kind = "matrix".to_owned();
            for series in list {
                let points = series.samples.iter().map(point).collect();
                said.series.push((serde_json::to_string(&series.labels).unwrap(), points));
            }
        }
    }
    said.notes = warnings.into_iter().chain(infos).collect();
    said
}

fn equal(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// Newer versions say more of some notes, and give some that 3.5 does not.
fn comparable(notes: &[String]) -> Vec<String> {
    let mut list: Vec<String> = notes
        .iter()
        .filter(|text| !text.contains("sort is ineffective"))
        .map(|text| {
            // Of notes that differ in their place alone one is left, and it is open which.
            let text = text.rsplit_once(" (").map_or(text.as_str(), |(text, _)| text);
            let text = text.split(", from buckets ").next().unwrap_or_default();
            text.split(" for metric name ").next().unwrap_or_default().to_owned()
        })
        .collect();
    list.sort();
    list
}

/// An error that 3.5 gives and later versions do not: they join what `label_replace`, `label_join` and a minus make of
/// series that never meet.
fn is_of_3_5(text: &str) -> bool {
    text == "vector cannot contain metrics with the same labelset"
}

/// An error that later versions give and 3.5 does not: there a comparison looks for several matches only among those
/// for which it holds. The cases of later versions ask for the error.
fn is_of_later(text: &str) -> bool {
    text.starts_with("multiple matches for labels:")
}

/// What differs.
fn difference(theirs: &Said, ours: &Said, ordered: bool) -> Option<String> {
    match (&theirs.error, &ours.error) {
        (Some((their_class, their_text)), Some((our_class, our_text))) => {
            return (their_class != our_class).then(|| format!("errors: {their_text} | {our_text}"));
        }
        (Some((_, text)), None) if is_of_3_5(text) => return None,
        (None, Some((_, text))) if is_of_later(text) => return None,
        (Some((_, text)), None) => return Some(format!("theirs fails: {text}")),
        (None, Some((_, text))) => return Some(format!("ours fails: {text}")),
        (None, None) => {}
    }
    if theirs.kind != ours.kind {
        return Some(format!("kinds: {} | {}", theirs.kind, ours.kind));
    }
    let (mut a, mut b) = (theirs.series.clone(), ours.series.clone());
    if ordered {
        // Which of equal values comes first is open.
        let same = a.iter().zip(&b).all(|(a, b)| a.1.iter().zip(&b.1).all(|(a, b)| equal(a.1, b.1)));
        if !same {
            return Some(format!("order:\n  {a:?}\n  {b:?}"));
        }
    }
    a.sort_by(|x, y| x.0.cmp(&y.0));
    b.sort_by(|x, y| x.0.cmp(&y.0));
    let labels = |list: &[(String, Vec<(f64, f64)>)]| -> Vec<String> {
        list.iter().map(|one| one.0.clone()).collect()
    };
    if labels(&a) != labels(&b) {
        return Some(format!("series:\n  {:?}\n  {:?}", labels(&a), labels(&b)));
    }
    for (one, other) in a.iter().zip(&b) {
        if one.1.len() != other.1.len() {
            return Some(format!("points of {}:\n  {:?}\n  {:?}", one.0, one.1, other.1));
        }
        for (x, y) in one.1.iter().zip(&other.1) {
            if x.0 != y.0 || !equal(x.1, y.1) {
                return Some(format!("{} at {}: {:e} | {:e}", one.0, x.0, x.1, y.1));
            }
        }
    }
    if theirs.notes.iter().any(|text| text.ends_with("annotations omitted")) {
        return None;
    }
    let (a, b) = (comparable(&theirs.notes), comparable(&ours.notes));
    (a != b).then(|| format!("notes:\n  {a:?}\n  {b:?}"))
}

fn when(random: &mut Random) -> When {
    let span = (STEPS * STEP_MS) as usize;
    let at = START_MS + random.below(span + 600_000) as i64;
    let at = if random.chance(50) { at / STEP_MS * STEP_MS } else { at };
    if random.chance(50) {
        return When::At(at);
    }
    let step_ms = [15_000, 30_000, 60_000, 77_000, 300_000][random.below(5)];
    let end_ms = at + step_ms * random.below(30) as i64 + random.below(2) as i64 * 5_000;
    When::Range { start_ms: at, end_ms, step_ms }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn prometheus_and_this_evaluator_agree() {
    let Some(binary) = std::env::var_os("FAIRWAY_PROMETHEUS").map(PathBuf::from) else {
        println!("skipped: FAIRWAY_PROMETHEUS names no Prometheus to compare with");
        return;
    };
    let count = setting("FAIRWAY_PROMQL_QUERIES", 10_000);
    let mut random = Random(setting("FAIRWAY_PROMQL_SEED", 1));
    let memory = random::data(&mut random);
    const EXPERIMENTS: &str = "promql-experimental-functions";
    let mut immediate = Prometheus::start(&binary, EXPERIMENTS);
    let mut delayed = Prometheus::start(&binary, &format!("{EXPERIMENTS},promql-delayed-name-removal"));
    immediate.load(&memory);
    delayed.load(&memory);
    let mut differences = Vec::new();
    let (mut failed, mut empty) = (0, 0);
    for number in 0..count {
        let query = grammar::query(&mut random);
        let when = when(&mut random);
        // 3.5 forgets below a subquery which names are to go, and `last_over_time` shows that.
        let forgets = query.contains("last_over_time");
        let names = if random.chance(25) && !forgets { Names::Delayed } else { Names::Immediate };
        let engine = Engine { names, ..Engine::default() };
        let prometheus = if names == Names::Delayed { &mut delayed } else { &mut immediate };
        let (theirs, ours) = (theirs(prometheus, &query, when), ours(&engine, &memory, &query, when));
        failed += u64::from(theirs.error.is_some());
        empty += u64::from(theirs.error.is_none() && theirs.series.is_empty());
        let ordered = matches!(when, When::At(_)) && (query.starts_with("sort") || query.starts_with("topk"));
        if let Some(difference) = difference(&theirs, &ours, ordered) {
            differences.push(format!("#{number} {query}\n  {when:?} {names:?}\n  {difference}"));
        }
    }
    println!("{count} queries, of which {failed} fail and {empty} are empty");
    assert!(failed < count / 3 && empty < count / 3, "most queries have to say something");
    let shown = &differences[..differences.len().min(40)];
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), shown.join("\n"));
}

#[test]
fn prometheus_and_this_parser_agree_on_what_is_wrong() {
    let Some(binary) = std::env::var_os("FAIRWAY_PROMETHEUS").map(PathBuf::from) else {
        println!("skipped: FAIRWAY_PROMETHEUS names no Prometheus to compare with");
        return;
    };
    let count = setting("FAIRWAY_PROMQL_QUERIES", 10_000);
    let mut random = Random(setting("FAIRWAY_PROMQL_SEED", 1));
    let mut prometheus = Prometheus::start(&binary, "promql-experimental-functions,promql-duration-expr");
    let mut differences = Vec::new();
    let (mut wrong, mut worded) = (0, 0);
    for number in 0..count {
        let query = grammar::broken(&mut random);
        let parsed = parse_as(&query, Dialect::Experimental);
        let theirs = prometheus.ask("/api/v1/parse_query", &[("query", &query)]);
        let text =
            theirs["error"].as_str().unwrap_or_default().trim_start_matches("invalid parameter \"query\": ");
        let ours = parsed.as_ref().err().map(ToString::to_string).unwrap_or_default();
        wrong += u64::from(!text.is_empty());
        worded += u64::from(!text.is_empty() && text == ours);
        // 3.5 looks for a time before a range only when it is a figure.
        let of_later = text.is_empty() && ours.ends_with("no @ modifiers allowed before range");
        // Later versions know `start()` and `end()` as functions too.
        let unknown = ours.is_empty() && text.ends_with("unexpected \"(\"") && query.contains("()");
        if text.is_empty() != ours.is_empty() && !of_later && !unknown {
            differences.push(format!("#{number} {query}\n  {text}\n  {ours}"));
        } else if text != ours && std::env::var_os("FAIRWAY_PROMQL_WORDING").is_some() {
            println!("{query}\n  {text}\n  {ours}");
        }
    }
    println!("{count} queries, {wrong} are wrong, of {worded} the errors are the same to the letter");
    let shown = &differences[..differences.len().min(40)];
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), shown.join("\n"));
}

/// Without a Prometheus: what it does not know, and limits that are soon reached.
#[test]
fn no_random_query_panics() {
    let mut random = Random(setting("FAIRWAY_PROMQL_SEED", 1));
    let memory = random::data(&mut random);
    let mut evaluated = 0;
    for _ in 0..500 {
        let mut query = grammar::query(&mut random);
        for extra in [" anchored", " smoothed"] {
            if random.chance(30) {
                query = query.replacen(']', &format!("]{extra}"), 1);
            }
        }
        if random.chance(30) {
            query = query.replace(") + (", ") + fill (1) (").replace(") > (", ") > fill_left (NaN) (");
        }
        let Ok(parsed) = parse_as(&query, Dialect::Experimental) else { continue };
        let mut engine = Engine::default();
        if random.chance(20) {
            engine.limits.samples_max = random.below(5_000);
        }
        engine.names = if random.chance(50) { Names::Delayed } else { Names::Immediate };
        let answer = match when(&mut random) {
            When::At(at_ms) => engine.instant(&memory, &parsed, at_ms),
            When::Range { start_ms, end_ms, step_ms } => {
                engine.range(&memory, &parsed, start_ms, end_ms, step_ms)
            }
        };
        evaluated += u32::from(answer.is_ok());
    }
    assert!(evaluated > 200, "only {evaluated} have an answer");
}
