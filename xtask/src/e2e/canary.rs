//! A release that is worse undoes itself on evidence, in seconds; one that is not goes through. Real processes under
//! load; what no version of the shop answered is Fairway's own failure.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use fairway_load::{Failure, FailureClass, Kind, Plan, Report, Running, Share};
use serde_json::Value;

use crate::checks::Count;
use crate::exported;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Shop, Show, free_address};

const RATE_PER_S: f64 = 200.0;

/// From the first bad answer to the last request that the bad version gets.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// From the first request that a hanging version does not answer to the last that it gets: the three seconds that the
/// silence has to last, and what it takes until enough wait, at ten requests a second.
const SILENT_BACK_WITHIN: Duration = Duration::from_secs(6);

/// The canary is called off or through long before; longer is a hang.
const ENDED_WITHIN: Duration = Duration::from_secs(90);

/// A version of the shop, as its answers name it.
const GOOD: &str = "v3";

pub fn run(fairway: &Path) -> Count {
    let mut count = Count::default();
    for (name, story) in STORIES {
        count.check(name, || {
            let mut home = Home::new(fairway, Show::Nothing)?;
            let findings = story(&mut home).unwrap_or_else(|fault| vec![fault.to_string()]);
            if !findings.is_empty() {
                home.keep();
            }
            Ok(findings)
        });
    }
    count
}

type Story = fn(&mut Home) -> Done<Vec<String>>;

const STORIES: [(&str, Story); 7] = [
    ("a canary of which every tenth answer fails is called off", |home| {
        called_off(home, "flaky", "v5-flaky", "errors")
    }),
    ("a canary that is slow is called off", |home| called_off(home, "slow", "v6-slow", "answers over")),
    ("a canary that takes requests and answers none is called off", hangs),
    ("what is exported is what the reference says", exports),
    ("a canary that is as good as stable goes through", goes_through),
    ("a control plane killed within a hold keeps its time", killed),
    ("a gate whose source is gone pauses and says so", source_gone),
];

/// Five percent for longer than the test lasts: only evidence ends it sooner.
const LONG_STEP: &str = "strategy = \"canary\"\nsteps = [{ weight = 5, hold = \"10m\" }]\n";

/// v1 serves under load, and `settings` count from now on.
fn begin(home: &mut Home, settings: &str) -> Done<(Shop, Running)> {
    let mut shop = Shop::new(home.path().join("shop"), free_address()?, "0s");
    home.start_server()?;
    for version in ["v2", "v3"] {
        shop.check_out(version)?;
        home.must(shop.directory(), &["deploy", "-e", "demo"])?;
    }
    shop.settings(settings);
    let mut plan = Plan::new(shop.address());
    plan.rate_per_s = RATE_PER_S;
    plan.mix = vec![Share::new(Kind::KeepAliveGet, 1, "/api/products")];
    let load = fairway_load::start(plan).context("the load")?;
    // Stable's own figures, which slow answers are held against.
    std::thread::sleep(Duration::from_secs(2));
    Ok((shop, load))
}

fn called_off(home: &mut Home, version: &str, answers_as: &str, evidence: &str) -> Done<Vec<String>> {
    let (shop, load) = begin(home, LONG_STEP)?;
    shop.check_out(version)?;
    load.mark("canary");
    let ran = home.run(shop.directory(), &["deploy", "-e", "demo"])?;
    let serving = shop.version()?;
    let history = home.must(shop.directory(), &["history", "-e", "demo", "--limit", "1"])?;
    let report = load.stop();
    let mut findings = own_failures(&report);
    if ran.code != 5 {
        findings.push(format!("the deploy ended with {}, not with 5 (rolled back)", ran.code));
    }
    if serving != GOOD {
        findings.push(format!("{serving} serves"));
    }
    if !ran.stderr.contains(evidence) || !history.stdout.contains(evidence) {
        findings.push(format!("neither deploy nor history may be silent about {evidence:?}: {}", ran.stderr));
    }
    match took(&report, answers_as) {
        Some(took) if took <= BACK_WITHIN => {
            println!("        back to 0 % {:.2} s after the first bad answer", took.as_secs_f64());
        }
        Some(took) => findings.push(format!("it took {:.2} s from the first bad answer", took.as_secs_f64())),
        None => findings.push(format!("{answers_as} never answered: nothing is proved")),
    }
    Ok(findings)
}

/// From the first bad answer (of a slow version all are) to the last request that the version got.
fn took(report: &Report, version: &str) -> Option<Duration> {
    let seen = report.acts.iter().flat_map(|act| &act.versions).filter(|seen| seen.version == version);
    let (mut first_us, mut last_us) = (u64::MAX, 0);
    for one in seen {
        first_us = first_us.min(one.first_answered_us);
        last_us = last_us.max(one.last_sent_us);
    }
    let failed =
        report.failures.iter().filter(|failure| is_of(failure, version)).map(|failure| failure.failed_us);
    let first_us = failed.min().unwrap_or(first_us);
    (last_us > 0).then(|| Duration::from_micros(last_us.saturating_sub(first_us)))
}

/// What hangs has nothing that ended and could be counted. What it held is lost by the version and not by Fairway: whoever
/// waits gives up after the load's ten seconds.
fn hangs(home: &mut Home) -> Done<Vec<String>> {
    let (shop, load) = begin(home, LONG_STEP)?;
    shop.check_out("hanging")?;
    load.mark("canary");
    let ran = home.run(shop.directory(), &["deploy", "-e", "demo"])?;
    let serving = shop.version()?;
    let history = home.must(shop.directory(), &["history", "-e", "demo", "--limit", "1"])?;
    let report = load.stop();
    let (held, others): (Vec<&Failure>, Vec<&Failure>) =
        report.failures.iter().partition(|failure| failure.cause.class() == FailureClass::Timeout);
    let mut findings: Vec<String> =
        others.iter().map(|failure| format!("failed by Fairway: {failure}")).collect();
    if report.failures_dropped > 0 {
        findings.push(format!("{} failures were not kept: nothing is proved", report.failures_dropped));
    }
    if ran.code != 5 || serving != GOOD {
        findings.push(format!("the deploy ended with {}, and {serving} serves: {}", ran.code, ran.stderr));
    }
    if !ran.stderr.contains("silence of api") || !history.stdout.contains("silence of api") {
        findings.push(format!("neither deploy nor history may be silent about the silence: {}", ran.stderr));
    }
    let planned = || held.iter().map(|failure| failure.planned_us);
    match planned().min().zip(planned().max()) {
        Some((first, last)) if Duration::from_micros(last - first) <= SILENT_BACK_WITHIN => {
            let took = Duration::from_micros(last - first).as_secs_f64();
            println!("        back to 0 % {took:.2} s after the first that hung; it held {}", held.len());
        }
        Some((first, last)) => {
            let took = Duration::from_micros(last - first).as_secs_f64();
            findings.push(format!("requests hung for {took:.2} s: {} of them", held.len()));
        }
        None => findings.push("nothing hung: nothing is proved".to_owned()),
    }
    Ok(findings)
}

/// With two versions beside each other, copies of requests and all.
fn exports(home: &mut Home) -> Done<Vec<String>> {
    let steps = "strategy = \"canary\"\nsteps = [{ weight = 10, hold = \"10m\", mirror = 10 }]\n";
    let (shop, load) = begin(home, steps)?;
    shop.check_out("v2")?;
    home.must(shop.directory(), &["deploy", "-e", "demo", "--detach"])?;
    until(home, &shop, |rollout| rollout["phase"] == "shifting" && rollout["waiting_until_ms"].is_u64())?;
    std::thread::sleep(Duration::from_secs(1));
    let mut socket =
        UnixStream::connect(home.state_dir().join("fairway.sock")).context("the server's socket")?;
    socket
        .write_all(b"GET /metrics HTTP/1.0\r\nhost: fairway\r\n\r\n")
        .context("the question for /metrics")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).context("the answer of /metrics")?;
    load.stop();
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer of /metrics")?;
    let mut findings = exported::check_live(body);
    if !head.contains(" 200 ") || !body.contains("fairway_requests_mirrored_total{") {
        findings.push(format!("no figures of a mirroring version: nothing is proved: {head}"));
    }
    Ok(findings)
}

fn is_of(failure: &fairway_load::Failure, version: &str) -> bool {
    failure.header("x-shop-version") == Some(version)
}

/// Answers that no version of the shop gave.
fn own_failures(report: &Report) -> Vec<String> {
    let by_fairway = |failure: &&fairway_load::Failure| failure.header("x-shop-version").is_none();
    let mut findings: Vec<String> = report
        .failures
        .iter()
        .filter(by_fairway)
        .map(|failure| format!("failed by Fairway: {failure}"))
        .collect();
    if report.failures_dropped > 0 {
        findings.push(format!("{} failures were not kept: nothing is proved", report.failures_dropped));
    }
    findings
}

fn goes_through(home: &mut Home) -> Done<Vec<String>> {
    let steps =
        "strategy = \"canary\"\nsteps = [{ weight = 10, hold = \"3s\" }, { weight = 50, hold = \"2s\" }]\n";
    let (shop, load) = begin(home, steps)?;
    shop.check_out("v2")?;
    load.mark("canary");
    let ran = home.run(shop.directory(), &["deploy", "-e", "demo"])?;
    let serving = shop.version()?;
    let report = load.stop();
    let mut findings = own_failures(&report);
    if ran.code != 0 || serving != "v2" {
        findings.push(format!("the deploy ended with {}, and {serving} serves: {}", ran.code, ran.stderr));
    }
    Ok(findings)
}

fn killed(home: &mut Home) -> Done<Vec<String>> {
    let (shop, load) = begin(home, "strategy = \"canary\"\nsteps = [{ weight = 10, hold = \"8s\" }]\n")?;
    shop.check_out("v2")?;
    home.must(shop.directory(), &["deploy", "-e", "demo", "--detach"])?;
    let before =
        until(home, &shop, |rollout| rollout["phase"] == "shifting" && rollout["waiting_until_ms"].is_u64())?;
    home.kill_server()?;
    std::thread::sleep(Duration::from_secs(2));
    home.start_server()?;
    let after = until(home, &shop, |rollout| rollout["waiting_until_ms"].is_u64())?;
    let mut findings = Vec::new();
    if before["waiting_until_ms"] != after["waiting_until_ms"] || before["step"] != after["step"] {
        findings.push(format!(
            "the hold was to end at {}, and now at {}",
            before["waiting_until_ms"], after["waiting_until_ms"]
        ));
    }
    until(home, &shop, Value::is_null)?;
    if shop.version()? != "v2" {
        findings.push("the canary did not go through after the restart".to_owned());
    }
    findings.extend(own_failures(&load.stop()));
    Ok(findings)
}

fn source_gone(home: &mut Home) -> Done<Vec<String>> {
    let nobody = free_address()?;
    let settings = format!(
        "strategy = \"canary\"\nsteps = [{{ weight = 10, hold = \"2s\" }}]\n\
         gates = [{{ query = \"up\", min = 1 }}]\n\n[env.demo.metrics]\nprometheus = \"http://{nobody}\"\n"
    );
    let (shop, load) = begin(home, &settings)?;
    shop.check_out("v2")?;
    home.must(shop.directory(), &["deploy", "-e", "demo", "--detach"])?;
    let paused = until(home, &shop, |rollout| {
        rollout["waiting"].as_str().is_some_and(|text| text.contains("paused"))
    })?;
    let mut findings = own_failures(&load.stop());
    let waiting = paused["waiting"].as_str().unwrap_or_default();
    if !waiting.contains("up") || !waiting.contains(&nobody.to_string()) {
        findings.push(format!("it does not say which source of which gate is gone: {waiting}"));
    }
    Ok(findings)
}

/// The rollout (null when there is none) as soon as it is as wanted.
fn until(home: &Home, shop: &Shop, is_wanted: impl Fn(&Value) -> bool) -> Done<Value> {
    let started = Instant::now();
    let mut last = Value::Null;
    loop {
        if let Ok(status) = home.ask(shop.directory(), &["status", "-e", "demo"]) {
            last = status["environments"][0]["rollout"].clone();
            if is_wanted(&last) {
                return Ok(last);
            }
        }
        if started.elapsed() > ENDED_WITHIN {
            return Err(Fault::new(format!("it did not come to that; the rollout is at {last}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
