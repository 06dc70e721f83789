//! What a route asks of the edge, over real sockets.

use std::io::Read as _;

use fairway_proxy::snapshot::{
    CacheRule, Compress, HeaderChange, Maintenance, Policy, RateKey, RateLimit, RequestLimits, Sticky,
};

use crate::support::*;

fn serve(proxy: &mut Proxy, origin: &Origin, policy: &Policy) {
    let policy = policy.clone();
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| snapshot.routes[0].policy = policy);
}

fn compressing() -> Policy {
    let compress = Compress { min_bytes: 100, types: vec!["text/*".into()] };
    Policy { compress: Some(compress), ..Policy::default() }
}

fn unpacked(answer: &Message) -> Vec<u8> {
    let (mut out, body) = (Vec::new(), answer.body.as_slice());
    match answer.field("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
        Some("zstd") => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut out),
        other => panic!("{other:?}"),
    }
    .unwrap();
    out
}

/// The same text in each way of framing, and answers that are not to be touched.
fn texts(request: &Message) -> Reply {
    let text = text();
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n{fields}\r\n");
    match request.target() {
        "/length" => Reply::Bytes(
            format!("{}{text}", head(&format!("content-length: {}\r\netag: \"v1\"\r\n", text.len()))).into(),
        ),
        "/chunked" => {
            let mut answer = head("transfer-encoding: chunked\r\nvary: cookie\r\n");
            for piece in text.as_bytes().chunks(7_777) {
                answer += &format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece));
            }
            Reply::Bytes((answer + "0\r\n\r\n").into())
        }
        "/close" => Reply::Last(format!("{}{text}", head("")).into()),
        "/empty" => Reply::Bytes(
            head("transfer-encoding: chunked\r\n").into_bytes().into_iter().chain(*b"0\r\n\r\n").collect(),
        ),
        "/small" => Reply::Bytes(format!("{}small", head("content-length: 5\r\n")).into()),
        "/picture" => Reply::Bytes(
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            )
            .into(),
        ),
        "/not-modified" => Reply::Bytes(b"HTTP/1.1 304 X\r\netag: \"v1\"\r\n\r\n".to_vec()),
        "/truncated" => Reply::Last(format!("{}{text}", head("content-length: 9999999\r\n")).into()),
        other => panic!("{other}"),
    }
}

fn text() -> String {
    (0..20_000).map(|n| format!("line {n}\n")).collect()
}

#[test]
fn answers_are_compressed_as_the_client_likes() {
    let origin = Origin::start(texts);
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &compressing());
    let ask = |target: &str, accept: &str| {
        let mut wire = proxy.wire();
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n"));
        let answer = wire.read().unwrap();
        // The connection is still in step.
        assert_eq!(wire.get("/small").unwrap().text(), "small");
        answer
    };
    for target in ["/length", "/chunked", "/close"] {
        for coding in ["gzip", "br", "zstd"] {
            let answer = ask(target, coding);
            assert_eq!(answer.field("content-encoding"), Some(coding), "{target}");
            assert!(unpacked(&answer) == text().as_bytes(), "{target} {coding}");
            assert!(answer.body.len() < text().len() / 3, "{target} {coding} {}", answer.body.len());
            assert!(answer.field("content-length").is_none());
        }
        let plain = ask(target, "identity");
        assert_eq!(plain.field("content-encoding"), None);
        assert!(plain.text() == text(), "{target}");
        let varies = plain.fields.iter().any(|(name, value)| name == "vary" && value == "accept-encoding");
        assert!(varies, "a cache must know that others get it otherwise: {:?}", plain.fields);
    }
    let packed = ask("/length", "gzip");
    assert_eq!(packed.field("etag"), Some("W/\"v1~fw\""));
    let vary: Vec<_> =
        ask("/chunked", "gzip").fields.into_iter().filter(|(name, _)| name == "vary").collect();
    assert_eq!(vary.len(), 2, "{vary:?}");
    assert_eq!(unpacked(&ask("/empty", "gzip")), b"");
    for target in ["/small", "/picture", "/not-modified"] {
        assert_eq!(ask(target, "gzip").field("content-encoding"), None, "{target}");
    }
}

#[test]
fn an_answer_that_breaks_off_does_not_look_complete_when_it_is_compressed() {
    let origin = Origin::start(texts);
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &compressing());
    let mut wire = proxy.wire();
    wire.send("GET /truncated HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    wire.read().unwrap_err();
}

#[test]
fn old_clients_and_head_get_what_they_can_take() {
    let origin = Origin::start(|request| match request.first_line.starts_with("HEAD") {
        true => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 500\r\n\r\n".to_vec(),
        ),
        false => texts(request),
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &compressing());
    let mut wire = proxy.wire();
    wire.send("HEAD /length HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let answer = wire.read_to("HEAD").unwrap();
    assert_eq!((answer.field("content-encoding"), answer.field("content-length")), (Some("gzip"), None));
    wire.send("GET /length HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let answer = wire.read().unwrap();
    assert_eq!(answer.field("content-encoding"), None);
    assert!(answer.text() == text());
}

#[test]
fn header_fields_of_answers_are_set_completed_and_removed() {
    let origin = Origin::start(|_| {
        Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nServer: app/1.2\r\nX-Frame-Options: SAMEORIGIN\r\nx-robots-tag: all\r\ncontent-length: 0\r\n\r\n".to_vec(),
        )
    });
    let mut proxy = Proxy::start();
    let change = |kind: &str, name: &str, value: &str| {
        let (name, value) = (name.to_owned(), value.to_owned());
        match kind {
            "set" => HeaderChange::Set { name, value },
            "default" => HeaderChange::Default { name, value },
            _ => HeaderChange::Remove { name },
        }
    };
    let policy = Policy {
        response_headers: vec![
            change("remove", "server", ""),
            change("set", "X-Robots-Tag", "none"),
            change("default", "x-frame-options", "DENY"),
            change("default", "x-content-type-options", "nosniff"),
        ],
        ..Policy::default()
    };
    serve(&mut proxy, &origin, &policy);
    let all = |answer: &Message, name: &str| -> Vec<String> {
        let found = answer.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone()).collect()
    };
    let answer = proxy.wire().get("/").unwrap();
    assert_eq!(all(&answer, "server"), [""; 0]);
    assert_eq!(all(&answer, "x-robots-tag"), ["none"]);
    assert_eq!(all(&answer, "x-frame-options"), ["SAMEORIGIN"]);
    assert_eq!(all(&answer, "x-content-type-options"), ["nosniff"]);
    // Answers of the proxy's own are the route's answers too.
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
        snapshot.routes[0].policy = policy.clone();
        let content_type = "text/plain".to_owned();
        snapshot.routes[0].maintenance =
            Some(Maintenance { status: 503, body: "later".into(), content_type, retry_after_s: None });
    });
    let answer = proxy.wire().get("/").unwrap();
    assert_eq!((answer.status(), all(&answer, "x-frame-options")), (503, vec!["DENY".to_owned()]));
}

#[test]
fn requests_beyond_the_routes_limits_are_refused_by_name() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let limits = RequestLimits { target_bytes_max: Some(20), head_bytes_max: Some(300), fields_max: Some(4) };
    serve(&mut proxy, &origin, &Policy { limits, ..Policy::default() });
    let mut wire = proxy.wire();
    let mut ask = |target: &str, fields: &str| {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        wire.read().unwrap().status()
    };
    assert_eq!(ask("/", ""), 200);
    assert_eq!(ask(&format!("/{}", "x".repeat(19)), ""), 200);
    assert_eq!(ask(&format!("/{}", "x".repeat(20)), ""), 414);
    assert_eq!(ask("/", &format!("X: {}\r\n", "x".repeat(300))), 431);
    assert_eq!(ask("/", "A: 1\r\nB: 2\r\nC: 3\r\n"), 200);
    assert_eq!(ask("/", "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n"), 431);
}

#[test]
fn a_rate_is_kept_for_each_client_and_over_a_deploy() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let rate = RateLimit {
        name: "login".into(),
        per: RateKey::Client,
        path: Some("/login".into()),
        requests: 3,
        within_ms: 3_600_000,
        burst: 3,
    };
    let policy = Policy { rate_limits: vec![rate], ..Policy::default() };
    let trusting = |proxy: &mut Proxy, policy: &Policy| {
        let policy = policy.clone();
        proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
            snapshot.routes[0].policy = policy;
            snapshot.listeners[0].trusted_proxies = vec!["127.0.0.1".into()];
        });
    };
    trusting(&mut proxy, &policy);
    let ask = |proxy: &Proxy, path: &str, client: &str| {
        let mut wire = proxy.wire();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n"));
        wire.read().unwrap()
    };
    let statuses: Vec<u16> = (0..5).map(|_| ask(&proxy, "/login", "192.0.2.1").status()).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = ask(&proxy, "/login/again", "192.0.2.1");
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1_100..=1_200).contains(&wait), "{wait}");
    assert_eq!(ask(&proxy, "/login", "192.0.2.2").status(), 200);
    assert_eq!(ask(&proxy, "/", "192.0.2.1").status(), 200);
    // Another release with the same limit forgives nothing; another limit begins anew.
    trusting(&mut proxy, &policy);
    assert_eq!(ask(&proxy, "/login", "192.0.2.1").status(), 429);
    let mut other = policy.clone();
    other.rate_limits[0].requests = 4;
    trusting(&mut proxy, &other);
    assert_eq!(ask(&proxy, "/login", "192.0.2.1").status(), 200);
}

#[test]
fn whoever_is_beyond_its_own_rate_uses_up_nobody_elses() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let rate = |name: &str, per: RateKey, requests: u32| RateLimit {
        name: name.into(),
        per,
        path: None,
        requests,
        within_ms: 3_600_000,
        burst: requests,
    };
    let key = RateKey::Header("x-api-key".into());
    let policy = Policy {
        rate_limits: vec![rate("all", RateKey::Route, 3), rate("one", key, 1)],
        ..Policy::default()
    };
    serve(&mut proxy, &origin, &policy);
    let mut wire = proxy.wire();
    let mut ask = |key: &str| {
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
        wire.read().unwrap().status()
    };
    assert_eq!([ask("a"), ask("a"), ask("a"), ask("a")], [200, 429, 429, 429]);
    assert_eq!([ask("b"), ask("c"), ask("d")], [200, 200, 429]);
}

#[test]
fn head_says_what_get_would() {
    let origin = Origin::start(|request| {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 500\r\netag: \"v1\"\r\n\r\n";
        match request.first_line.starts_with("HEAD") {
            true => Reply::Bytes(head.into()),
            false => Reply::Bytes(format!("{head}{}", "x".repeat(500)).into()),
        }
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &compressing());
    for accept in ["gzip", "identity"] {
        let mut wire = proxy.wire();
        let mut ask = |method: &str| {
            wire.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n"));
            let answer = wire.read_to(method).unwrap();
            ["content-encoding", "vary", "etag", "content-length"]
                .map(|name| answer.field(name).map(str::to_owned))
        };
        assert_eq!(ask("HEAD"), ask("GET"), "{accept}");
    }
}

/// A service with one page of a strong tag, which does as RFC 9110, 13 says.
fn versioned(request: &Message) -> Reply {
    let lists =
        |name: &str, tag: &str| request.field(name).is_some_and(|list| list.split(", ").any(|t| t == tag));
    let tag = "\"v1\"";
    if request.field("if-match").is_some() && !lists("if-match", tag) {
        return Reply::Bytes(b"HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\n\r\n".to_vec());
    }
    if lists("if-none-match", tag) {
        return Reply::Bytes(format!("HTTP/1.1 304 Not Modified\r\netag: {tag}\r\n\r\n").into());
    }
    let text = text();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain";
    Reply::Bytes(format!("{head}\r\netag: {tag}\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into())
}

#[test]
fn whoever_read_a_compressed_answer_can_ask_for_it_again_and_write_over_it() {
    let origin = Origin::start(versioned);
    let mut proxy = Proxy::start();
    let rule = CacheRule { path: "/kept".into(), fresh_ms: 60_000, stale_ms: 0 };
    serve(&mut proxy, &origin, &Policy { cache: vec![rule], ..compressing() });
    for target in ["/", "/kept"] {
        let ask = |method: &str, accept: &str, condition: &str| {
            let mut wire = proxy.wire();
            wire.send(format!(
                "{method} {target} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n{condition}\r\n"
            ));
            let answer = wire.read().unwrap();
            let fields = ["etag", "vary"].map(|name| answer.field(name).unwrap_or("-").to_owned());
            (answer.status(), fields)
        };
        let fields = |etag: &str| [etag.to_owned(), "accept-encoding".to_owned()];
        let (packed, plain) = (fields("W/\"v1~fw\""), fields("\"v1\""));
        assert_eq!(ask("GET", "gzip", ""), (200, packed.clone()));
        assert_eq!(ask("GET", "identity", ""), (200, plain.clone()));
        // The answer is about the one that the client has: a cache finds it by its tag.
        assert_eq!(ask("GET", "gzip", "If-None-Match: W/\"v1~fw\"\r\n"), (304, packed.clone()));
        assert_eq!(ask("GET", "gzip", "If-None-Match: \"v1\"\r\n"), (304, plain));
        assert_eq!(ask("GET", "gzip", "If-None-Match: \"v0\", W/\"v1~fw\"\r\n"), (304, packed.clone()));
        assert_eq!(ask("GET", "gzip", "If-None-Match: W/\"v0~fw\"\r\n"), (200, packed));
        assert_eq!(ask("PUT", "gzip", "Content-Length: 0\r\nIf-Match: W/\"v1~fw\"\r\n").0, 200);
        assert_eq!(ask("PUT", "gzip", "Content-Length: 0\r\nIf-Match: W/\"v0~fw\"\r\n").0, 412);
        assert_eq!(ask("PUT", "gzip", "Content-Length: 0\r\nIf-Match: W/\"v1\"\r\n").0, 412);
    }
}

#[test]
fn what_a_client_accepts_may_be_said_in_several_lines() {
    let origin = Origin::start(texts);
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &compressing());
    let mut wire = proxy.wire();
    wire.send("GET /length HTTP/1.1\r\nHost: a\r\nAccept-Encoding: identity\r\nAccept-Encoding: br\r\n\r\n");
    assert_eq!(wire.read().unwrap().field("content-encoding"), Some("br"));
}

#[test]
fn a_request_id_that_the_route_sets_is_the_only_one() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    let limits = RequestLimits { target_bytes_max: Some(20), ..RequestLimits::default() };
    let name = || "X-Request-Id".to_owned();
    for (change, expect) in [
        (HeaderChange::Set { name: name(), value: "mine".into() }, vec!["mine"]),
        (HeaderChange::Default { name: name(), value: "mine".into() }, vec!["theirs"]),
        (HeaderChange::Remove { name: name() }, vec![]),
    ] {
        let limits = limits.clone();
        serve(&mut proxy, &origin, &Policy { response_headers: vec![change], limits, ..Policy::default() });
        for target in ["/", "/longer-than-twenty-bytes"] {
            let mut wire = proxy.wire();
            wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Request-Id: theirs\r\n\r\n"));
            let answer = wire.read().unwrap();
            let ids = answer.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"));
            let ids: Vec<_> = ids.map(|(_, value)| value.as_str()).collect();
            assert_eq!(ids, expect, "{target}");
        }
    }
}

#[test]
fn a_sticky_cookie_is_for_tls_alone_where_a_trusted_proxy_spoke_tls() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    for (trusted, proto, is_secure) in [
        (true, "https", true),
        (true, "HTTPS, http", true),
        (true, "http", false),
        (true, "http, https", false),
        (false, "https", false),
    ] {
        let mut service = service(&[("i", origin.addr)]);
        service.sticky = Some(Sticky { cookie: "side".into(), max_age_s: None });
        proxy.serve_with(service, |snapshot| {
            if trusted {
                snapshot.listeners[0].trusted_proxies = vec!["127.0.0.1/32".into()];
            }
        });
        let mut wire = proxy.wire();
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: {proto}\r\n\r\n"));
        let answer = wire.read().unwrap();
        let cookie = answer.field("set-cookie").unwrap();
        assert_eq!(cookie.ends_with("; Secure"), is_secure, "{trusted} {proto}: {cookie}");
    }
}

#[test]
fn a_vary_of_the_route_does_not_hide_that_answers_are_compressed() {
    let origin = Origin::start(texts);
    let mut proxy = Proxy::start();
    for (value, expect) in [
        ("Origin", vec!["Origin", "accept-encoding"]),
        ("Origin, Accept-Encoding", vec!["Origin, Accept-Encoding"]),
    ] {
        let change = HeaderChange::Set { name: "vary".into(), value: value.into() };
        serve(&mut proxy, &origin, &Policy { response_headers: vec![change], ..compressing() });
        let mut wire = proxy.wire();
        wire.send("GET /chunked HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        let answer = wire.read().unwrap();
        let vary = answer.fields.iter().filter(|(name, _)| name == "vary").map(|(_, value)| value.as_str());
        assert_eq!(vary.collect::<Vec<_>>(), expect);
    }
}

#[test]
fn an_answer_of_the_proxys_own_has_each_field_once() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let set = |name: &str, value: &str| HeaderChange::Set { name: name.into(), value: value.into() };
    let or = |name: &str, value: &str| HeaderChange::Default { name: name.into(), value: value.into() };
    let changes = vec![
        set("Cache-Control", "public, max-age=3600"),
        or("content-type", "text/html"),
        set("x-request-id", "1"),
        set("x-robots-tag", "none"),
    ];
    let limits = RequestLimits { target_bytes_max: Some(20), ..RequestLimits::default() };
    serve(&mut proxy, &origin, &Policy { response_headers: changes, limits, ..Policy::default() });
    let answer = proxy.wire().get(&format!("/{}", "x".repeat(30))).unwrap();
    assert_eq!(answer.status(), 414);
    let all = |name: &str| answer.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
    for name in ["cache-control", "content-type", "x-request-id", "x-robots-tag"] {
        assert_eq!(all(name), 1, "{name}: {:?}", answer.fields);
    }
    // Nobody is to keep a refusal for an hour.
    assert_eq!(answer.field("cache-control"), Some("no-store"));
}
