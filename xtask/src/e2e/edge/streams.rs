//! What lasts longer than a request, and who says for whom it comes.

use std::time::Duration;

use serde_json::json;

use super::place::{Place, expect};
use crate::fault::Done;
use crate::home::Home;

/// From the switch to the end of what lasts: `keep_warm` and then `stop.drain` of the project.
const DRAIN: Duration = Duration::from_secs(4);

/// How much later, or earlier, on a machine that builds something else besides.
const MARGIN: Duration = Duration::from_secs(2);

pub fn calls(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let dev = "tls = { self_signed = true, listen = \"HTTPS\" }\n";
    let service =
        |version: u32| format!("protocol = \"h2c\"\nenv = {{ H2C = \"1\", VERSION = \"{version}\" }}\n");
    place.write("", &service(1), dev)?;
    place.deploy()?;
    let mut findings = Vec::new();
    let ready = |place: &mut Place<'_>| place.over_tls("/", json!({ "http": 2 }));
    place.until("TLS", ready, |told| told.status() == 200)?;
    let headers = json!([["content-type", "application/grpc"], ["te", "trailers"]]);
    let call = json!({ "http": 2, "method": "POST", "body": "hello", "headers": headers });
    let told = place.over_tls("/told.Echo/Say", call.clone())?;
    expect(&mut findings, "a call", (told.status(), told.body().as_str()), (200, "hello"));
    expect(&mut findings, "its path", told.header("x-asked"), Some("/told.Echo/Say"));
    expect(
        &mut findings,
        "its trailers",
        (told.trailer("grpc-status"), told.trailer("grpc-message")),
        (Some("0"), Some("fine")),
    );
    // A client of HTTP/1.1 gets it as well.
    let told = place.over_tls("/told.Echo/Say", json!({ "method": "POST", "body": "hello" }))?;
    expect(&mut findings, "a call by HTTP/1.1", (told.status(), told.body().as_str()), (200, "hello"));

    let order = place.secure(json!({ "path": "/told.Echo/Chat" }));
    let stream = place.browser.must("stream", order.clone())?.handle();
    let whole = place.browser.must("stream", order)?.handle();
    let say = |place: &mut Place<'_>, stream: &serde_json::Value, text: &str| {
        place.browser.must("say", json!({ "handle": stream, "text": text }))
    };
    expect(&mut findings, "a stream", say(&mut place, &stream, "one ")?.text("got"), "one ");
    expect(&mut findings, "a stream", say(&mut place, &whole, "one ")?.text("got"), "one ");
    place.write("", &service(2), dev)?;
    let load = place.load(50, json!({ "path": "/told.Echo/Say", "http": 2, "only_two": true }))?;
    place.deploy()?;
    let deployed = std::time::Instant::now();
    expect(
        &mut findings,
        "a stream over a deploy",
        say(&mut place, &stream, "two ")?.text("got"),
        "one two ",
    );
    let told = place.over_tls("/told.Echo/Say", call)?;
    expect(&mut findings, "a new call", told.header("x-version"), Some("2"));
    // The one that ends by itself ends as it should, also after the deploy.
    let told = place.browser.must("end", json!({ "handle": whole }))?;
    expect(&mut findings, "a stream that ends by itself", told.trailer("grpc-status"), Some("0"));
    let look = |place: &mut Place<'_>| place.browser.must("look", json!({ "handle": stream }));
    let told = place.until("the end of the stream", look, |told| told.number("ended_ms").is_some())?;
    let took = deployed.elapsed();
    if took + MARGIN < DRAIN || took > DRAIN + MARGIN {
        findings.push(format!("a stream was ended {took:?} after the deploy: {told}"));
    }
    expect(&mut findings, "the status of a call that was cut", told.trailer("grpc-status"), Some("14"));
    let (_, failed) = place.end_load(load)?;
    findings.extend(failed);
    Ok(findings)
}

pub fn web_socket(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let dev = "tls = { self_signed = true, listen = \"HTTPS\" }\n";
    place.write("", "env.VERSION = \"1\"", dev)?;
    place.deploy()?;
    let mut findings = Vec::new();
    let ready = |place: &mut Place<'_>| place.over_tls("/", json!({}));
    place.until("TLS", ready, |told| told.status() == 200)?;
    let order = place.secure(json!({ "path": "/socket" }));
    let kept = place.browser.must("web socket", order.clone())?;
    let left = place.browser.must("web socket", order.clone())?;
    expect(&mut findings, "a WebSocket", kept.text("version"), "1");
    let say = |place: &mut Place<'_>, socket: &serde_json::Value, text: &str| {
        place.browser.must("say", json!({ "handle": socket, "text": text }))
    };
    expect(&mut findings, "an echo", say(&mut place, &kept.handle(), "one ")?.text("text"), "one ");
    place.write("", "env.VERSION = \"2\"", dev)?;
    place.deploy()?;
    let deployed = std::time::Instant::now();
    expect(
        &mut findings,
        "an echo after a deploy",
        say(&mut place, &kept.handle(), "two ")?.text("text"),
        "one two ",
    );
    expect(
        &mut findings,
        "an echo after a deploy",
        say(&mut place, &left.handle(), "two ")?.text("text"),
        "two ",
    );
    let told = place.browser.must("end", json!({ "handle": left.handle() }))?;
    expect(&mut findings, "the close frame of the service", told.number("close"), Some(1000));
    let next = place.browser.must("web socket", order)?;
    expect(&mut findings, "the next WebSocket", next.text("version"), "2");
    let look = |place: &mut Place<'_>| place.browser.must("look", json!({ "handle": kept.handle() }));
    let told = place.until("the end of the WebSocket", look, |told| told.number("close").is_some())?;
    expect(&mut findings, "the close frame of a drain", told.number("close"), Some(1001));
    let took = deployed.elapsed();
    if took + MARGIN < DRAIN || took > DRAIN + MARGIN {
        findings.push(format!("a WebSocket was closed {took:?} after the deploy"));
    }
    expect(&mut findings, "the next WebSocket", say(&mut place, &next.handle(), "x")?.text("text"), "x");
    Ok(findings)
}

/// Both versions of the header, for a client at 203.0.113.7:5555 (the protocol's specification, 2.1 and 2.2).
const HEADERS: [(&str, &str); 2] = [
    ("version 1", "UFJPWFkgVENQNCAyMDMuMC4xMTMuNyAxMjcuMC4wLjEgNTU1NSA0NDMNCg=="),
    ("version 2", "DQoNCgANClFVSVQKIREADMsAcQd/AAABFbMBuw=="),
];

pub fn balancer(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let tls = "tls = { self_signed = true, listen = \"HTTPS\", redirect = false }\nproxy_protocol = true\n";
    place.write("", "", &format!("{tls}trusted_proxies = [\"127.0.0.0/8\"]\n"))?;
    place.deploy()?;
    let mut findings = Vec::new();
    let ready = |place: &mut Place<'_>| place.over_tls("/", json!({ "before": HEADERS[0].1 }));
    place.until("TLS", ready, |told| told.status() == 200)?;
    for (name, before) in HEADERS {
        for (http, tls) in [(1, false), (1, true), (2, true)] {
            let more = json!({ "before": before, "http": http });
            let told = if tls { place.over_tls("/", more)? } else { place.plain("/", more)? };
            let asked = told.asked();
            let what = format!("{name}, HTTP/{http}, {}", if tls { "TLS" } else { "no TLS" });
            expect(&mut findings, &what, asked["headers"]["x-forwarded-for"].as_str(), Some("203.0.113.7"));
        }
    }
    for told in [place.plain("/", json!({}))?, place.over_tls("/", json!({}))?] {
        expect(
            &mut findings,
            "a connection past the balancer",
            (told.status(), told.error().is_some()),
            (0, true),
        );
    }
    place.write("", "", &format!("{tls}trusted_proxies = [\"10.0.0.0/8\"]\n"))?;
    place.deploy()?;
    let told = place.plain("/", json!({ "before": HEADERS[0].1 }))?;
    expect(
        &mut findings,
        "a stranger who acts as a balancer",
        (told.status(), told.error().is_some()),
        (0, true),
    );
    Ok(findings)
}
