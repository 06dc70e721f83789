//! TLS without anybody else: certificates that Fairway makes, and whose they are.

use std::net::TcpListener;

use serde_json::json;

use super::place::{Place, expect, expect_in};
use crate::fault::{Context, Done};
use crate::home::Home;

const RATE_PER_S: u32 = 100;

pub fn self_signed(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let dev = "tls = { self_signed = true, listen = \"HTTPS\", hsts = \"1h\" }\n";
    place.write("", "env.VERSION = \"1\"", dev)?;
    place.deploy()?;
    let mut findings = Vec::new();
    let ready = |place: &mut Place<'_>| place.over_tls("/", json!({ "http": 1 }));
    place.until("TLS", ready, |told| told.status() == 200)?;
    for (http, alpn) in [(1, "http/1.1"), (2, "h2")] {
        let told = place.over_tls("/a?b=c", json!({ "http": http }))?;
        let what = format!("over TLS, {alpn}");
        expect(&mut findings, &what, (told.status(), told.text("alpn")), (200, alpn));
        let asked = told.asked();
        expect(&mut findings, &what, asked["headers"]["x-forwarded-proto"].as_str(), Some("https"));
        expect(&mut findings, &what, asked["headers"]["x-forwarded-for"].as_str(), Some("127.0.0.1"));
        expect(&mut findings, &what, asked["url"].as_str(), Some("/a?b=c"));
        expect(&mut findings, &what, told.header("strict-transport-security"), Some("max-age=3600"));
    }
    let plain = place.plain("/a?b=c", json!({}))?;
    let there = format!("https://127.0.0.1:{}/a?b=c", place.https.port());
    expect(
        &mut findings,
        "without TLS",
        (plain.status(), plain.header("location")),
        (308, Some(there.as_str())),
    );
    expect(&mut findings, "without TLS", plain.header("strict-transport-security"), None);
    let status = place.status()?;
    expect_in(&mut findings, "the status", &status, &["certificate", "localhost: self-signed, good until"]);
    let resolved = place.fairway(&["config", "list", "-e", "dev", "--resolved"])?.stdout;
    expect_in(
        &mut findings,
        "config list",
        &resolved,
        &["tls.self_signed = true", "tls.hsts = \"1h\"", "tls.redirect = true"],
    );

    let load = place.load(RATE_PER_S, json!({}))?;
    place.write("", "env.VERSION = \"2\"", dev)?;
    place.deploy()?;
    place.rollback()?;
    let (told, failed) = place.end_load(load)?;
    findings.extend(failed);
    expect(
        &mut findings,
        "versions under load",
        told.counts("versions"),
        vec!["1".to_owned(), "2".to_owned()],
    );
    expect(&mut findings, "certificates under load", told.list("certificates").len(), 1);
    Ok(findings)
}

/// Of two environments each has a host; the address is one.
pub fn by_name(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let tls = "tls = { self_signed = true, listen = \"HTTPS\" }\n";
    let dev = format!(
        "host = \"a.test\"\nvars.VERSION = \"a\"\n{tls}[env.staging]\nlisten = \"{}\"\nhost = \"B.test\"\n\
         vars.VERSION = \"b\"\ndeploy.bake = \"0s\"\n{tls}",
        place.http
    );
    place.write("", "", &dev)?;
    place.deploy()?;
    place.home.must(&place.directory, &["deploy", "-e", "staging"])?;
    let mut findings = Vec::new();
    for (host, version) in [("a.test", "a"), ("b.test", "b")] {
        let ask = |place: &mut Place<'_>| place.over_tls("/", json!({ "host": host }));
        let told = place.until(host, ask, |told| told.status() == 200)?;
        expect(&mut findings, host, told.header("x-version"), Some(version));
        expect(&mut findings, host, told.text("names"), &format!("DNS:{host}"));
        let plain = place.plain("/", json!({ "authority": host }))?;
        let there = format!("https://{host}:{}/", place.https.port());
        expect(&mut findings, host, (plain.status(), plain.header("location")), (308, Some(there.as_str())));
    }
    let nobody = place.over_tls("/", json!({ "host": "c.test" }))?;
    if nobody.status() == 200 {
        findings.push(format!("a host that nobody serves is answered: {nobody}"));
    }
    Ok(findings)
}

pub fn taken(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    place.write("", "env.VERSION = \"1\"", "")?;
    place.deploy()?;
    let somebody = TcpListener::bind(place.https).context("the address for TLS")?;
    place.write("", "env.VERSION = \"2\"", "tls = { self_signed = true, listen = \"HTTPS\" }\n")?;
    let ran = place.fairway(&["deploy", "-e", "dev"])?;
    let mut findings = Vec::new();
    if ran.code == 0 {
        findings.push("the deploy succeeded".to_owned());
    }
    let address = place.https.to_string();
    expect_in(&mut findings, "the deploy", &ran.stderr, &[&address, "in use"]);
    let told = place.plain("/", json!({}))?;
    expect(&mut findings, "what serves", (told.status(), told.header("x-version")), (200, Some("1")));
    drop(somebody);
    place.deploy()?;
    let ask = |place: &mut Place<'_>| place.over_tls("/", json!({}));
    let told = place.until("TLS, once the address is free", ask, |told| told.status() == 200)?;
    expect(&mut findings, "what serves then", told.header("x-version"), Some("2"));
    Ok(findings)
}
