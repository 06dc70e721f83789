//! What `[edge]` does to requests and answers.

use serde_json::{Value, json};

use super::place::{Place, expect};
use crate::fault::Done;
use crate::home::Home;

/// A service beside the other one, with its own settings on top.
fn beside(edge: &str) -> String {
    format!(
        "[service.api]\ncommand = [\"node\", \"service.js\"]\nport = 4000\nroute = \"/api\"\n\
         env.VERSION = \"api\"\n{edge}\n"
    )
}

pub fn answers(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let tls = "tls = { self_signed = true, listen = \"HTTPS\", redirect = false, hsts = { max_age = \"1d\", subdomains = true } }\n";
    let top = "[edge]\nsecurity_headers = true\nheaders = { x-from = \"edge\", server = false }\n";
    place.write(top, &beside("edge.headers = { x-from = \"api\" }\nedge.compress = false\n"), tls)?;
    place.deploy()?;
    let mut findings = Vec::new();
    let ready = |place: &mut Place<'_>| place.over_tls("/", json!({}));
    place.until("TLS", ready, |told| told.status() == 200)?;
    let text = "so it goes. ".repeat(1000);
    for http in [1, 2] {
        // The sign that each format begins with (RFC 8878, 3.1.1; RFC 1952, 2.3.1); brotli has none.
        for (accepts, coding, sign) in [
            ("gzip, deflate, br, zstd", Some("zstd"), "\u{28}\u{b5}\u{2f}\u{fd}"),
            ("gzip, br", Some("br"), ""),
            ("gzip", Some("gzip"), "\u{1f}\u{8b}"),
            ("gzip;q=1, br;q=0.5", Some("gzip"), "\u{1f}\u{8b}"),
            ("identity", None, "so it goes"),
        ] {
            let told = place
                .over_tls("/text", json!({ "http": http, "headers": [["accept-encoding", accepts]] }))?;
            let what = format!("HTTP/{http} with accept-encoding {accepts}");
            expect(&mut findings, &what, told.header("content-encoding"), coding);
            expect(&mut findings, &what, told.body().starts_with(sign), true);
            if told.text("unpacked") != text && !(coding == Some("zstd") && told.is_null("unpacked")) {
                findings.push(format!("{what}: it unpacks to something else"));
            }
            expect(
                &mut findings,
                &what,
                told.header("vary").is_some_and(|vary| vary.eq_ignore_ascii_case("accept-encoding")),
                true,
            );
        }
        let told = place.over_tls("/text", json!({ "http": http }))?;
        for (name, value) in [
            ("x-content-type-options", Some("nosniff")),
            // The service's own.
            ("x-frame-options", Some("DENY")),
            ("referrer-policy", Some("strict-origin-when-cross-origin")),
            ("cross-origin-opener-policy", Some("same-origin")),
            ("x-from", Some("edge")),
            ("server", None),
            ("strict-transport-security", Some("max-age=86400; includeSubDomains")),
        ] {
            expect(&mut findings, &format!("HTTP/{http}, {name}"), told.header(name), value);
        }
    }
    let api = place.over_tls("/api", json!({ "headers": [["accept-encoding", "gzip"]] }))?;
    expect(&mut findings, "the other service", api.header("x-version"), Some("api"));
    expect(&mut findings, "its own setting", api.header("x-from"), Some("api"));
    expect(&mut findings, "the setting of all", api.header("x-content-type-options"), Some("nosniff"));
    expect(&mut findings, "compression that is off", api.header("content-encoding"), None);
    let plain = place.plain("/", json!({}))?;
    expect(&mut findings, "without TLS", plain.header("strict-transport-security"), None);
    expect(&mut findings, "redirect = false", plain.status(), 200);

    place.write("[edge]\nheaders = { x-from = \"another\" }\n", &beside(""), tls)?;
    place.deploy()?;
    let told = place.over_tls("/text", json!({}))?;
    expect(&mut findings, "the next release", told.header("x-from"), Some("another"));
    expect(&mut findings, "the next release", told.header("x-content-type-options"), None);
    place.rollback()?;
    let told = place.over_tls("/text", json!({}))?;
    expect(&mut findings, "after the rollback", told.header("x-from"), Some("edge"));
    expect(&mut findings, "after the rollback", told.header("x-content-type-options"), Some("nosniff"));
    Ok(findings)
}

fn from(address: &str) -> Value {
    json!({ "headers": [["x-forwarded-for", address]] })
}

pub fn limits(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let service = "[service.web.edge]\nmax_body = \"1K\"\nmax_url = \"100B\"\nmax_fields = 10\n\
                   rate_limit = [{ path = \"/few\", requests = 3, within = \"1m\" }, \
                   { path = \"/key\", requests = 1, within = \"1m\", header = \"x-api-key\" }]\n";
    let trusting = "trusted_proxies = [\"127.0.0.0/8\"]\n";
    place.write("", service, trusting)?;
    place.deploy()?;
    let mut findings = Vec::new();
    for http in [1, 2] {
        let mut check = |what: &str, path: &str, more: Value, wanted: u64| -> Done {
            let told = place.plain(path, super::place::with(more, json!({ "http": http })))?;
            expect(&mut findings, &format!("HTTP/{http}: {what}"), told.status(), wanted);
            Ok(())
        };
        let post = |bytes: usize| json!({ "method": "POST", "body": "x".repeat(bytes) });
        check("a body as large as allowed", "/", post(1024), 200)?;
        check("a body that is too large", "/", post(1025), 413)?;
        check("a path that is too long", &format!("/{}", "x".repeat(100)), json!({}), 414)?;
        let fields: Vec<[String; 2]> = (0..12).map(|n| [format!("x-{n}"), "1".to_owned()]).collect();
        check("too many fields", "/", json!({ "headers": fields }), 431)?;
    }
    let statuses = |who: &str, count: usize, place: &mut Place<'_>| -> Done<Vec<u64>> {
        (0..count).map(|_| Ok(place.plain("/few", from(who))?.status())).collect()
    };
    expect(&mut findings, "one client", statuses("203.0.113.1", 4, &mut place)?, vec![200, 200, 200, 429]);
    expect(&mut findings, "another client", statuses("203.0.113.2", 1, &mut place)?, vec![200]);
    let refused = place.plain("/few", from("203.0.113.1"))?;
    let after: Option<u32> = refused.header("retry-after").and_then(|text| text.parse().ok());
    if !after.is_some_and(|seconds| (1..=20).contains(&seconds)) {
        findings.push(format!("a client may come back after {after:?} seconds"));
    }
    let asked = place.plain("/", from("203.0.113.1"))?.asked();
    expect(
        &mut findings,
        "what a trusted proxy forwards",
        asked["headers"]["x-forwarded-for"].as_str(),
        Some("203.0.113.1, 127.0.0.1"),
    );
    for (key, wanted) in [("a", 200), ("a", 429), ("b", 200)] {
        let told = place.plain("/key", json!({ "headers": [["x-api-key", key]] }))?;
        expect(&mut findings, &format!("the key {key}"), told.status(), wanted);
    }

    // Nobody is believed any more: all are the one client who asks, whatever it says.
    place.write("", service, "")?;
    place.deploy()?;
    let statuses: Vec<u64> = (0..4)
        .map(|n| Ok(place.plain("/few", from(&format!("203.0.113.{n}")))?.status()))
        .collect::<Done<_>>()?;
    expect(&mut findings, "without trusted proxies", statuses, vec![200, 200, 200, 429]);
    let asked = place.plain("/", from("203.0.113.1"))?.asked();
    expect(
        &mut findings,
        "what nobody is believed",
        asked["headers"]["x-forwarded-for"].as_str(),
        Some("127.0.0.1"),
    );
    Ok(findings)
}

pub fn failures(home: &mut Home) -> Done<Vec<String>> {
    let mut place = Place::new(home)?;
    let file = |name: &str| place.home.path().join(name).display().to_string();
    let (bad, dropped) = (file("bad"), file("dropped"));
    let top = "[edge]\ntimeouts.response = \"500ms\"\neject = { failures = 3, first = \"60s\" }\n";
    let service = format!(
        "replicas = 2\nenv = {{ BAD = \"{bad}\", DROPPED = \"{dropped}\" }}\n{}",
        beside(&format!(
            "env.DROPPED = \"{dropped}\"\nedge = {{ retry = {{ attempts = 1 }}, timeouts = {{ response = \"5s\" }} }}\n"
        ))
    )
    .replace("env.VERSION = \"api\"\n", "");
    place.write(
        top,
        &service.replace("route = \"/api\"", "route = { path = \"/api\", strip_prefix = true }"),
        "",
    )?;
    place.deploy()?;
    let mut findings = Vec::new();

    let asked: Vec<u64> =
        (0..60).map(|_| Ok(place.plain("/bad", json!({}))?.status())).collect::<Done<_>>()?;
    let failed = asked.iter().filter(|status| **status == 500).count();
    // The third failure is counted when its answer is through, and the next request may be faster.
    if !(3..=4).contains(&failed) || asked[20..].contains(&500) {
        findings.push(format!("a copy that always fails got {failed} requests: {asked:?}"));
    }

    let told = place.plain("/slow?ms=3000", json!({}))?;
    expect(&mut findings, "an answer that is late", told.status(), 504);
    let told = place.plain("/api/slow?ms=1000", json!({}))?;
    expect(&mut findings, "the same, with time of its own", told.status(), 200);
    let told = place.plain("/drop?id=1", json!({}))?;
    expect(
        &mut findings,
        "an attempt without an answer",
        (told.status(), told.body().as_str()),
        (200, "the second time"),
    );
    let told = place.plain("/api/drop?id=2", json!({}))?;
    expect(&mut findings, "the same, with one attempt alone", told.status(), 502);
    let told = place.plain("/drop?id=3", json!({ "method": "POST", "body": "order" }))?;
    expect(&mut findings, "a POST that may have been carried out", told.status(), 502);

    // The only copy ends; whoever comes meanwhile waits for the next.
    let told = place.plain("/api/end", json!({}))?;
    expect(&mut findings, "the last answer of a copy", told.status(), 200);
    std::thread::sleep(std::time::Duration::from_millis(60));
    let told = place.plain("/api", json!({}))?;
    expect(&mut findings, "a request while there is no copy", told.status(), 200);
    Ok(findings)
}
