//! Answers that are kept, over real sockets.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use fairway_proxy::snapshot::{CacheRule, Compress, HeaderChange, Hold, Policy, Sticky};

use crate::http2::{Answer, Browser, request, run};
use crate::support::*;

const RULE: (u64, u64) = (60_000, 60_000);

fn caching((fresh_ms, stale_ms): (u64, u64)) -> Policy {
    Policy { cache: vec![CacheRule { path: "/".into(), fresh_ms, stale_ms }], ..Policy::default() }
}

fn serve(proxy: &mut Proxy, origin: &Origin, policy: &Policy) {
    let policy = policy.clone();
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| snapshot.routes[0].policy = policy);
}

/// Answers, and remembers what it was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Message>>>);

impl Asked {
    fn origin(&self, answer: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Origin {
        let asked = self.clone();
        Origin::start(move |request| {
            asked.0.lock().unwrap().push(request.clone());
            answer(request)
        })
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn last(&self) -> Message {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

fn answer(fields: &str, body: &str) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into())
}

fn ask(proxy: &Proxy, method: &str, target: &str, fields: &str) -> Message {
    let mut wire = proxy.wire();
    wire.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    wire.read_to(method).unwrap()
}

/// A request is counted after its client has the answer.
fn counts(proxy: &Proxy, hit: u64, miss: u64, stale: u64) {
    let found = || proxy.stats().cache;
    let begun = std::time::Instant::now();
    while (found().hit, found().miss, found().stale) != (hit, miss, stale) {
        assert!(begun.elapsed() < HANG, "{:?}, not {hit} {miss} {stale}", found());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn status_of(answer: &Message) -> &str {
    answer.field("cache-status").unwrap_or("")
}

#[test]
fn an_answer_is_given_again_with_its_age_and_a_request_id_of_its_own() {
    let asked = Asked::default();
    let origin = asked.origin(|_| answer("x: y\r\nage: 7\r\ncache-control: max-age=60\r\n", "page"));
    let mut proxy = Proxy::start();
    let header = HeaderChange::Set { name: "x-frame-options".into(), value: "DENY".into() };
    serve(&mut proxy, &origin, &Policy { response_headers: vec![header], ..caching(RULE) });
    let first = ask(&proxy, "GET", "/a?b", "");
    assert_eq!(status_of(&first), "fairway; fwd=uri-miss");
    let second = ask(&proxy, "GET", "/a?b", "");
    assert_eq!((second.status(), second.text().as_str()), (200, "page"));
    assert!(status_of(&second).starts_with("fairway; hit; ttl=5"), "{}", status_of(&second));
    let age: u64 = second.field("age").unwrap().parse().unwrap();
    assert!((7..30).contains(&age), "{age}");
    assert_eq!((second.field("x"), second.field("x-frame-options")), (Some("y"), Some("DENY")));
    assert_ne!(first.field("x-request-id"), second.field("x-request-id"));
    assert_eq!(second.fields.iter().filter(|(name, _)| name == "age").count(), 1);
    // HEAD is answered from what a GET left, without a body.
    let mut wire = proxy.wire();
    wire.send("HEAD /a?b HTTP/1.1\r\nHost: A\r\n\r\n");
    let head = wire.read_to("HEAD").unwrap();
    assert_eq!((head.status(), head.field("content-length")), (200, Some("4")));
    wire.send("GET /a?b HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(wire.read().unwrap().text(), "page");
    assert_eq!(asked.count(), 1);
    assert_eq!(ask(&proxy, "GET", "/a?c", "").text(), "page");
    assert_eq!(asked.count(), 2, "another query is another page");
    counts(&proxy, 3, 2, 0);
    let stats = proxy.stats();
    assert!(stats.cache.bytes > 0);
    assert_eq!(stats.cache.bypass, 0);
    let requests: u64 = stats.version("s", "r1").requests.values().sum();
    assert_eq!(requests, 2, "hits say nothing about the version");
}

/// What must reach the service every time.
#[test]
fn what_is_not_for_everybody_is_not_kept() {
    let asked = Asked::default();
    let origin = asked.origin(|request| {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        match request.target() {
            "/cookie" => answer("set-cookie: sid=1\r\ncache-control: max-age=60\r\n", "x"),
            "/no-store" => answer("cache-control: no-store\r\n", "x"),
            "/private" => answer("cache-control: private, max-age=60\r\n", "x"),
            "/vary" => answer("vary: *\r\n", "x"),
            "/large" => answer("", &"x".repeat(1024 * 1024 + 1)),
            "/large-chunked" => {
                let piece = format!("{:x}\r\n{}\r\n", 300_000, "y".repeat(300_000)).repeat(4);
                Reply::Bytes(
                    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{piece}0\r\n\r\n").into(),
                )
            }
            "/close" => Reply::Last(b"HTTP/1.1 200 OK\r\n\r\nuntil close".to_vec()),
            "/error" => Reply::Bytes(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".to_vec()),
            "/chunked" => Reply::Bytes(chunked.into()),
            _ => answer("", "x"),
        }
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    let check = |fields: &str, target: &str, expect: usize| {
        let before = asked.count();
        for _ in 0..2 {
            ask(&proxy, "GET", target, fields);
        }
        assert_eq!(asked.count() - before, expect, "{target} {fields:?}");
    };
    for target in
        ["/cookie", "/no-store", "/private", "/vary", "/large", "/large-chunked", "/close", "/error"]
    {
        check("", target, 2);
    }
    check("Range: bytes=0-0\r\n", "/a", 2);
    check("Authorization: x\r\n", "/a", 2);
    check("Cookie: sid=1\r\n", "/a", 2);
    check("Cache-Control: no-store\r\n", "/a", 2);
    check("X-HTTP-Method-Override: DELETE\r\n", "/a", 2);
    check("", "/a", 1);
    check("Cookie: sid=1\r\n", "/a", 2);
    check("", "/chunked", 1);
    let kept = ask(&proxy, "GET", "/chunked", "");
    assert_eq!((kept.text().as_str(), kept.field("content-length")), ("abc", Some("3")));
    // Reloading does not reach the service.
    check("Cache-Control: no-cache\r\nPragma: no-cache\r\n", "/a", 0);
    let only = ask(&proxy, "GET", "/never", "Cache-Control: only-if-cached\r\n");
    assert_eq!(only.status(), 504);
}

#[test]
fn a_truncated_answer_is_never_kept() {
    let asked = Asked::default();
    let origin = asked.origin(|request| match request.target() {
        "/length" => Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec()),
        "/chunked" => {
            Reply::Last(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec())
        }
        _ => Reply::Reset(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec()),
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    for target in ["/length", "/chunked", "/reset"] {
        for _ in 0..3 {
            proxy.wire().get(target).unwrap_err();
        }
    }
    counts(&proxy, 0, 9, 0);
}

#[test]
fn a_hundred_at_once_ask_the_service_once() {
    let (asked, fetches) = (Asked::default(), AtomicUsize::new(0));
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = asked.origin(move |_| {
        if fetches.fetch_add(1, Ordering::SeqCst) == 0 {
            gate.lock().unwrap().recv().unwrap();
        }
        answer("", &"page".repeat(1000))
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    let mut wires: Vec<Wire> = (0..100).map(|_| proxy.wire()).collect();
    for wire in &mut wires {
        wire.send("GET /popular HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("the first has come", || asked.count() == 1);
    go.send(()).unwrap();
    for wire in &mut wires {
        assert_eq!(wire.read().unwrap().body.len(), 4000);
    }
    assert_eq!(asked.count(), 1);
    counts(&proxy, 99, 1, 0);
}

/// Whoever looked before the answer was kept, and asks for a turn after it was, finds nobody leading.
#[test]
fn the_end_of_a_fetch_does_not_begin_another_one() {
    let asked = Asked::default();
    let origin = asked.origin(|_| answer("", "page"));
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    let mut wires: Vec<Wire> = (0..16).map(|_| proxy.wire()).collect();
    for n in 1..=100 {
        for wire in &mut wires {
            wire.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for wire in &mut wires {
            assert_eq!(wire.read().unwrap().text(), "page");
        }
        assert_eq!(asked.count(), n);
    }
}

#[test]
fn nobody_waits_for_an_answer_that_is_not_kept() {
    let (send, begun) = mpsc::channel();
    let send = Mutex::new(send);
    let origin = Origin::raw(free_addr(), move |mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        // The first answer never ends; the head says that it is not kept.
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: 99\r\n\r\nx")
            .unwrap();
        send.lock().unwrap().send(stream).unwrap();
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    let mut wires: Vec<Wire> = (0..10).map(|_| proxy.wire()).collect();
    for wire in &mut wires {
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let before = std::time::Instant::now();
    let held: Vec<_> = (0..10).map(|_| begun.recv_timeout(HANG).unwrap()).collect();
    assert!(before.elapsed().as_secs() < 4, "they waited for each other");
    drop(held);
}

#[test]
fn a_client_that_has_it_is_told_so() {
    let asked = Asked::default();
    let date = "Wed, 01 Jan 2025 00:00:00 GMT";
    let origin = asked.origin(move |_| answer(&format!("etag: \"v1\"\r\nlast-modified: {date}\r\n"), "page"));
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    // The first one is asked for without the client's condition, as the whole answer is wanted.
    assert_eq!(ask(&proxy, "GET", "/", "If-None-Match: \"v1\"\r\n").status(), 200);
    assert_eq!(asked.last().field("if-none-match"), None);
    let mut wire = proxy.wire();
    let mut conditional = |fields: &str| {
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        wire.read().unwrap()
    };
    let known = conditional("If-None-Match: \"v0\", \"v1\"\r\n");
    assert_eq!((known.status(), known.field("etag"), known.body.len()), (304, Some("\"v1\""), 0));
    assert_eq!(conditional(&format!("If-Modified-Since: {date}\r\n")).status(), 304);
    assert_eq!(conditional("If-None-Match: \"v2\"\r\n").text(), "page");
    assert_eq!(asked.count(), 1);
}

#[test]
fn who_has_a_page_that_is_not_kept_is_still_told_so_by_the_service() {
    let asked = Asked::default();
    let origin = asked.origin(|request| match request.field("if-none-match") {
        Some(_) => Reply::Bytes(b"HTTP/1.1 304 X\r\netag: \"v1\"\r\n\r\n".to_vec()),
        None => answer("cache-control: private, max-age=60\r\netag: \"v1\"\r\n", "mine"),
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "mine");
    for _ in 0..3 {
        let known = ask(&proxy, "GET", "/", "If-None-Match: \"v1\"\r\n");
        assert_eq!((known.status(), status_of(&known)), (304, "fairway; fwd=uri-miss"));
    }
}

#[test]
fn whoever_waits_is_served_when_the_first_one_leaves() {
    let asked = Asked::default();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = asked.origin(move |_| {
        let _ = gate.lock().unwrap().recv();
        answer("", &"page".repeat(200_000))
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    let mut first = proxy.wire();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is being fetched", || asked.count() == 1);
    let mut second = proxy.wire();
    second.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(first);
    // Once for the first fetch and once for whoever fetches after it.
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(second.read().unwrap().body.len(), 800_000);
}

#[test]
fn streams_of_http_2_are_answered_from_the_cache_too() {
    let asked = Asked::default();
    let origin = asked.origin(|_| answer("etag: \"v1\"\r\n", &"page".repeat(100_000)));
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let streams = ask_at_once(&browser, 20).await;
        assert!(streams.iter().all(|answer| answer.status == 200 && answer.body.len() == 400_000));
        let mut known = request(http::Method::GET, "/");
        known.headers_mut().insert("if-none-match", "\"v1\"".parse().unwrap());
        assert_eq!(browser.ask(known, b"").await.unwrap().status, 304);
        let head = browser.ask(request(http::Method::HEAD, "/"), b"").await.unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0));
    });
    assert_eq!(asked.count(), 1);
}

async fn ask_at_once(browser: &Browser, count: usize) -> Vec<Answer> {
    let asking = (0..count).map(|_| {
        let browser = browser.clone();
        tokio::spawn(async move { browser.get("/").await.unwrap() })
    });
    let mut answers = Vec::new();
    for asking in asking.collect::<Vec<_>>() {
        answers.push(asking.await.unwrap());
    }
    answers
}

/// Stale at once: its age is beyond what it says.
const STALE: &str =
    "cache-control: max-age=1, stale-while-revalidate=600, stale-if-error=600\r\nage: 60\r\netag: \"v1\"\r\n";

#[test]
fn a_stale_answer_is_asked_about_and_renewed() {
    let asked = Asked::default();
    let origin = asked.origin(|request| match request.field("if-none-match") {
        Some("\"v1\"") => {
            let fresh =
                "HTTP/1.1 304 X\r\netag: \"v1\"\r\nx: new\r\ncache-control: max-age=600\r\nage: 0\r\n\r\n";
            Reply::Bytes(fresh.into())
        }
        _ => answer(STALE, "page"),
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "page");
    let renewed = ask(&proxy, "GET", "/", "");
    assert_eq!((renewed.status(), renewed.text().as_str(), renewed.field("x")), (200, "page", Some("new")));
    assert!(status_of(&renewed).starts_with("fairway; fwd=stale; fwd-status=304"), "{renewed:?}");
    assert_eq!(asked.last().field("if-none-match"), Some("\"v1\""));
    let hit = ask(&proxy, "GET", "/", "If-None-Match: \"v1\"\r\n");
    assert_eq!((hit.status(), hit.field("x")), (304, Some("new")));
    assert_eq!(asked.count(), 2);
}

#[test]
fn while_one_fetches_the_others_get_the_stale_one() {
    let asked = Asked::default();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = asked.origin(move |request| {
        if request.field("if-none-match").is_some() {
            gate.lock().unwrap().recv().unwrap();
            return answer("cache-control: max-age=600\r\n", "new");
        }
        answer(STALE, "old")
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "old");
    let mut first = proxy.wire();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is asked about", || asked.count() == 2);
    for _ in 0..5 {
        let stale = ask(&proxy, "GET", "/", "");
        assert_eq!(stale.text(), "old");
        assert!(status_of(&stale).starts_with("fairway; hit; ttl=-"), "{}", status_of(&stale));
    }
    go.send(()).unwrap();
    assert_eq!(first.read().unwrap().text(), "new");
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "new");
    assert_eq!(asked.count(), 2);
    counts(&proxy, 1, 2, 5);
}

#[test]
fn a_stale_answer_stands_in_for_failures_which_count_all_the_same() {
    let asked = Asked::default();
    let seen = asked.clone();
    let origin = asked.origin(move |_| match seen.count() {
        1 => answer(STALE, "old"),
        2 => Reply::Bytes(b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nsick".to_vec()),
        3 => Reply::Bytes(b"HTTP/1.1 404 X\r\ncontent-length: 4\r\n\r\ngone".to_vec()),
        _ => Reply::Last(Vec::new()),
    });
    let mut proxy = Proxy::start();
    let mut one = service(&[("i", origin.addr)]);
    one.hold = Hold { max_requests: 100, max_wait_ms: 20_000 };
    proxy.serve_with(one, |snapshot| snapshot.routes[0].policy = caching((0, 0)));
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "old");
    let stale = ask(&proxy, "GET", "/", "");
    assert_eq!((stale.status(), stale.text().as_str()), (200, "old"));
    assert!(status_of(&stale).starts_with("fairway; fwd=stale; fwd-status=503"), "{}", status_of(&stale));
    let failed = || proxy.stats().version("s", "r1").failed;
    eventually("the version failed, whoever did not see it", || failed() == 1);
    // A 404 is an answer, and not kept as this one has no lifetime.
    assert_eq!(ask(&proxy, "GET", "/", "").status(), 404);
    // No answer at all, and then nobody who takes a connection: in time, without waiting for an instance.
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "old");
    origin.stop();
    let before = std::time::Instant::now();
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "old");
    assert!(before.elapsed().as_secs() < 10);
    counts(&proxy, 0, 2, 3);
}

#[test]
fn what_changes_a_page_makes_it_be_fetched_again() {
    let asked = Asked::default();
    let origin = asked.origin(|request| match request.field("x-fail") {
        Some(_) => Reply::Bytes(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n".to_vec()),
        None => answer("", "page"),
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    let fetched = |method: &str, target: &str, fields: &str| {
        ask(&proxy, "GET", "/page", "");
        ask(&proxy, method, target, fields);
        let before = asked.count();
        ask(&proxy, "GET", "/page", "");
        asked.count() - before
    };
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(fetched(method, "/page", "Content-Length: 0\r\n"), 1, "{method}");
        assert_eq!(fetched(method, "/page", "Content-Length: 0\r\nX-Fail: 1\r\n"), 0, "{method} failed");
        assert_eq!(fetched(method, "/other", "Content-Length: 0\r\n"), 0, "{method} elsewhere");
    }
    assert_eq!(fetched("OPTIONS", "/page", ""), 0);
}

#[test]
fn a_page_that_changes_while_it_is_fetched_is_not_kept() {
    let asked = Asked::default();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = asked.origin(move |request| {
        if request.first_line.starts_with("GET") && request.field("x-slow").is_some() {
            gate.lock().unwrap().recv().unwrap();
            return answer("", "before the change");
        }
        answer("", "after")
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    let mut slow = proxy.wire();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: 1\r\n\r\n");
    eventually("it is being fetched", || asked.count() == 1);
    assert_eq!(ask(&proxy, "POST", "/", "Content-Length: 0\r\n").text(), "after");
    go.send(()).unwrap();
    assert_eq!(slow.read().unwrap().text(), "before the change");
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "after");
}

#[test]
fn answers_depend_on_what_they_say_they_depend_on() {
    let asked = Asked::default();
    let origin = asked.origin(|request| {
        answer("vary: accept-language\r\n", request.field("accept-language").unwrap_or("none"))
    });
    let mut proxy = Proxy::start();
    serve(&mut proxy, &origin, &caching(RULE));
    for _ in 0..3 {
        for language in ["de", "en", "fr"] {
            let page = ask(&proxy, "GET", "/", &format!("Accept-Language: {language}\r\n"));
            assert_eq!(page.text(), language);
        }
    }
    assert_eq!(asked.count(), 3);
}

#[test]
fn kept_answers_are_compressed_for_each_client() {
    let asked = Asked::default();
    let text = "line of a page\n".repeat(500);
    let page = text.clone();
    let origin = asked.origin(move |_| answer("content-type: text/html\r\netag: \"v1\"\r\n", &page));
    let mut proxy = Proxy::start();
    let compress = Compress { min_bytes: 100, types: vec!["text/*".into()] };
    serve(&mut proxy, &origin, &Policy { compress: Some(compress), ..caching(RULE) });
    let mut wire = proxy.wire();
    for coding in ["identity", "gzip", "br", "zstd", "gzip", "br", "zstd", "identity"] {
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n"));
        let answer = wire.read().unwrap();
        let (mut out, body) = (Vec::new(), answer.body.as_slice());
        match answer.field("content-encoding") {
            Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
            Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
            Some("zstd") => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut out),
            _ => (&mut &*body).read_to_end(&mut out),
        }
        .unwrap();
        assert!(out == text.as_bytes(), "{coding}");
        let expect = Some(coding).filter(|coding| *coding != "identity");
        assert_eq!(answer.field("content-encoding"), expect);
        let etag = if expect.is_some() { "W/\"v1~fw\"" } else { "\"v1\"" };
        assert_eq!((answer.field("etag"), answer.field("vary")), (Some(etag), Some("accept-encoding")));
    }
    assert_eq!(asked.count(), 1);
}

#[test]
fn a_release_begins_with_an_empty_cache_and_so_does_the_way_back() {
    let (old, new) = (Asked::default(), Asked::default());
    let origins = [old.origin(|_| answer("", "old")), new.origin(|_| answer("", "new"))];
    let mut proxy = Proxy::start();
    let at = |proxy: &mut Proxy, weights: &[(&str, usize)]| {
        let mut one = service(&[]);
        let versions =
            weights.iter().map(|(name, n)| ((*name).to_owned(), version(1, &[(name, origins[*n].addr)])));
        one.versions = versions.collect();
        proxy.serve_with(one, |snapshot| snapshot.routes[0].policy = caching(RULE));
    };
    at(&mut proxy, &[("r1", 0)]);
    assert_eq!(
        (ask(&proxy, "GET", "/", "").text(), ask(&proxy, "GET", "/", "").text()),
        ("old".into(), "old".into())
    );
    let kept = proxy.stats().cache.bytes;
    at(&mut proxy, &[("r2", 1)]);
    assert!(kept > 0);
    assert_eq!(proxy.stats().cache.bytes, 0, "what the old version left behind is gone");
    assert_eq!(
        (ask(&proxy, "GET", "/", "").text(), ask(&proxy, "GET", "/", "").text()),
        ("new".into(), "new".into())
    );
    // Another route, a scale or a health check is no release.
    at(&mut proxy, &[("r2", 1)]);
    ask(&proxy, "GET", "/", "");
    assert_eq!((old.count(), new.count()), (1, 1));
    at(&mut proxy, &[("r1", 0)]);
    assert_eq!(ask(&proxy, "GET", "/", "").text(), "old");
    assert_eq!(old.count(), 2, "time has passed since");
}

#[test]
fn a_canary_s_pages_and_the_others_never_mix() {
    let (stable, canary) = (Asked::default(), Asked::default());
    let a = stable.origin(|_| answer("", "stable"));
    let b = canary.origin(|_| answer("", "canary"));
    let mut proxy = Proxy::start();
    let mut one = service(&[]);
    one.versions =
        [("r1".to_owned(), version(50, &[("a", a.addr)])), ("r2".to_owned(), version(50, &[("b", b.addr)]))]
            .into();
    one.sticky = Some(Sticky { cookie: "side".into(), max_age_s: None });
    proxy.serve_with(one, |snapshot| snapshot.routes[0].policy = caching(RULE));
    let mut seen = [0, 0];
    for _ in 0..40 {
        let page = ask(&proxy, "GET", "/", "");
        let side = page.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        // Who is decided by weight gets the cookie of the version whose page it is, hit or not.
        let (version, expect) = if side == "side=r1" { (0, "stable") } else { (1, "canary") };
        seen[version] += 1;
        assert_eq!(page.text(), expect, "{side}");
        let again = ask(&proxy, "GET", "/", &format!("Cookie: {side}\r\n"));
        assert_eq!((again.text().as_str(), again.field("set-cookie")), (expect, None));
    }
    // Each core takes turns of its own.
    assert!(seen[0] >= 15 && seen[1] >= 15, "{seen:?}");
    assert_eq!((stable.count(), canary.count()), (1, 1));
}

#[test]
fn what_a_trusted_proxy_says_about_a_request_is_part_of_what_it_asks_for() {
    let asked = Asked::default();
    let origin = asked.origin(|request| answer("", request.field("x-forwarded-proto").unwrap()));
    let mut proxy = Proxy::start();
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
        snapshot.routes[0].policy = caching(RULE);
        snapshot.listeners[0].trusted_proxies = vec!["127.0.0.1".into()];
    });
    for _ in 0..2 {
        for scheme in ["http", "https"] {
            let page = ask(&proxy, "GET", "/", &format!("X-Forwarded-Proto: {scheme}\r\n"));
            assert_eq!(page.text(), scheme, "a redirect to https would lead in circles");
        }
    }
    assert_eq!(asked.count(), 2);
}

#[test]
fn memory_is_bounded() {
    let origin = Origin::start(|_| answer("", &"x".repeat(10_000)));
    let mut proxy = Proxy::start_with(|options| options.limits.cache_bytes = 1024 * 1024);
    serve(&mut proxy, &origin, &caching(RULE));
    let mut wire = proxy.wire();
    for n in 0..400 {
        assert_eq!(wire.get(&format!("/{n}")).unwrap().body.len(), 10_000);
        assert!(proxy.stats().cache.bytes <= 1024 * 1024);
    }
    assert!(proxy.stats().cache.bytes > 512 * 1024);
}

#[test]
fn routes_without_a_rule_and_paths_beside_it_are_left_alone() {
    let asked = Asked::default();
    let origin = asked.origin(|_| answer("cache-control: max-age=60\r\n", "x"));
    let mut proxy = Proxy::start();
    let mut policy = caching(RULE);
    policy.cache[0].path = "/kept".into();
    serve(&mut proxy, &origin, &policy);
    for target in ["/other", "/keptx", "/kept/a"] {
        ask(&proxy, "GET", target, "");
        let second = ask(&proxy, "GET", target, "");
        assert_eq!(status_of(&second).is_empty(), target != "/kept/a", "{target}");
    }
    assert_eq!(asked.count(), 5);
    counts(&proxy, 1, 1, 0);
}
