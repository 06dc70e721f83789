//! Copies of requests: exact in number, never seen by whoever sent the original.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairway_proxy::control::{Cause, Event, SeriesStats, StatusClass};
use fairway_proxy::snapshot::{Mirror, Service};

use crate::support::{HANG, Message, Origin, Proxy, Reply, eventually, free_addr, ok, service, version};

/// What an origin was asked, in order.
type Seen = Arc<Mutex<Vec<Message>>>;

fn recording() -> (Origin, Seen) {
    let seen = Seen::default();
    let all = Arc::clone(&seen);
    let origin = Origin::start(move |request| {
        all.lock().unwrap().push(request.clone());
        ok("original")
    });
    (origin, seen)
}

/// `r1` serves, and `r2` gets so many percent of its requests.
fn mirrored(stable: std::net::SocketAddr, target: std::net::SocketAddr, percent: u32) -> Service {
    let mut both = service(&[("stable", stable)]);
    both.versions.insert("r2".into(), version(0, &[("copy", target)]));
    both.mirror = Some(Mirror { version: "r2".into(), percent, unsafe_methods: false, timeout_ms: 10_000 });
    both
}

/// One core: shares are exact per core.
fn proxy() -> Proxy {
    Proxy::start_with(|options| options.workers = NonZeroUsize::new(1))
}

fn copies(proxy: &Proxy) -> SeriesStats {
    proxy.stats().mirrored("s", "r2")
}

#[test]
fn copies_are_exact_in_number_and_count_for_nobody() {
    let (stable, originals) = recording();
    let (target, seen) = recording();
    let mut proxy = proxy();
    proxy.serve(mirrored(stable.addr, target.addr, 10));
    let mut wire = proxy.wire();
    for n in 0..1_000 {
        wire.send(format!("GET /{n}?q HTTP/1.1\r\nHost: a\r\nX-Own: {n}\r\nX-Fairway-Mirror: 1\r\n\r\n"));
        assert_eq!(wire.read().unwrap().text(), "original");
    }
    eventually("all copies were answered", || copies(&proxy).requests_total() == 100);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 100);
    for copy in seen.iter() {
        assert_eq!(copy.field("x-fairway-mirror"), Some("1"));
        assert_eq!(copy.target(), format!("/{}?q", copy.field("x-own").unwrap()));
        assert_eq!(copy.field("x-forwarded-for"), Some("127.0.0.1"));
    }
    let originals = originals.lock().unwrap();
    assert_eq!(originals.len(), 1_000);
    assert!(originals.iter().all(|request| request.field("x-fairway-mirror").is_none()), "a visitor's mark");
    let ids = |all: &[Message]| all.iter().map(|one| one.field("x-request-id").unwrap().to_owned()).collect();
    let (all, copied): (Vec<String>, Vec<String>) = (ids(&originals), ids(&seen));
    assert!(copied.iter().all(|id| all.contains(id)), "a copy has its original's id");
    let stats = proxy.stats();
    assert_eq!(stats.version("s", "r2").requests_total(), 0, "nobody waited for these answers");
    assert_eq!(stats.arm("s", "r2").requests, 0);
    assert_eq!(stats.version("s", "r1").requests_total(), 1_000);
    assert_eq!(stats.mirrored("s", "r2").latency.iter().sum::<u64>(), 100);
}

#[test]
fn only_what_can_be_done_twice_is_copied_unless_the_snapshot_says_so() {
    let (stable, _) = recording();
    let (target, seen) = recording();
    let mut proxy = proxy();
    let mut both = mirrored(stable.addr, target.addr, 100);
    proxy.serve(both.clone());
    // Copies have connections of their own, so they may overtake each other.
    let lines = |expect: &[&str]| {
        let found = || {
            let seen = seen.lock().unwrap();
            let mut found: Vec<String> =
                seen.iter().map(|one| format!("{} {}", one.first_line, one.body.len())).collect();
            found.sort();
            found
        };
        eventually("as many came", || found().len() >= expect.len());
        assert_eq!(found(), expect);
        seen.lock().unwrap().clear();
    };
    let mut wire = proxy.wire();
    let mut ask = |head: &str, body: &[u8]| {
        wire.send(format!("{head} HTTP/1.1\r\nHost: a\r\n"));
        wire.send(body);
        let method = head.split(' ').next().unwrap();
        while wire.read_to(method).unwrap().status() < 200 {}
    };
    ask("POST /post", b"Content-Length: 3\r\n\r\nabc");
    ask("PUT /put", b"Content-Length: 3\r\n\r\nabc");
    ask("DELETE /delete", b"\r\n");
    ask("GET /upgrade", b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    ask("HEAD /head", b"\r\n");
    ask("GET /chunked", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    ask("OPTIONS /options", b"\r\n");
    ask("GET /end", b"\r\n");
    lines(&["GET /end HTTP/1.1 0", "HEAD /head HTTP/1.1 0", "OPTIONS /options HTTP/1.1 0"]);

    both.mirror.as_mut().unwrap().unsafe_methods = true;
    proxy.serve(both);
    ask("POST /post", b"Content-Length: 3\r\n\r\nabc");
    eventually("the first is there", || seen.lock().unwrap().len() == 1);
    ask("POST /chunked", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    ask("POST /expect", b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
    let large = [&b"Content-Length: 100000\r\n\r\n"[..], &[b'x'; 100_000]].concat();
    ask("POST /large", &large);
    let small = [&b"Content-Length: 40000\r\n\r\n"[..], &[b'x'; 40_000]].concat();
    ask("POST /small", &small);
    eventually("the second is there", || seen.lock().unwrap().len() == 2);
    // The body comes when the head is on its way already.
    wire.send("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    eventually("the original is under way", || proxy.in_flight("stable") == 1);
    wire.send("abc");
    wire.read().unwrap();
    lines(&["POST /late HTTP/1.1 3", "POST /post HTTP/1.1 3", "POST /small HTTP/1.1 40000"]);
}

#[test]
fn a_mirror_that_hangs_slows_nothing_and_its_copies_are_bounded() {
    let stable = Origin::start(|_| ok("original"));
    let target = Origin::raw(free_addr(), |_stream| std::thread::sleep(HANG));
    let mut proxy = proxy();
    let mut both = mirrored(stable.addr, target.addr, 100);
    both.mirror.as_mut().unwrap().timeout_ms = 700;
    proxy.serve(both);
    let begun = Instant::now();
    let mut wire = proxy.wire();
    for _ in 0..200 {
        assert_eq!(wire.get("/").unwrap().text(), "original");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let copies = || copies(&proxy);
    assert!(copies().in_flight <= 64, "{}", copies().in_flight);
    eventually("every copy was sent or dropped", || copies().dropped + copies().unanswered == 200);
    let copies = copies();
    assert!(copies.unanswered >= 64 && copies.dropped > 0, "{copies:?}");
    assert_eq!(copies.failed, copies.unanswered);
    assert_eq!(copies.errors[&Cause::ResponseTimeout], copies.unanswered);
    eventually("its places are free", || proxy.in_flight("copy") == 0);
    let stable = proxy.stats().version("s", "r1");
    assert_eq!((stable.requests[&StatusClass::Success], stable.failed, stable.dropped), (200, 0, 0));
}

#[test]
fn a_mirror_that_breaks_in_any_way_fails_nothing() {
    let stable = Origin::start(|_| ok("original"));
    let nobody = free_addr();
    let endless = |stream: &mut std::net::TcpStream| {
        use std::io::Write as _;
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    };
    let cut = Arc::new(AtomicBool::new(false));
    let (seen_cut, events_cut) = (Arc::clone(&cut), Arc::new(AtomicBool::new(false)));
    let seen_events_cut = Arc::clone(&events_cut);
    let answering = |bytes: &'static [u8]| Origin::start(move |_| Reply::Last(bytes.to_vec()));
    let targets: Vec<(&str, Origin, Result<StatusClass, Cause>)> = vec![
        ("closes", answering(b""), Err(Cause::NoResponse)),
        ("resets", Origin::start(|_| Reply::Reset(Vec::new())), Err(Cause::NoResponse)),
        ("talks garbage", answering(b"what?\r\n\r\n"), Err(Cause::BadResponse)),
        ("stops in its head", answering(b"HTTP/1.1 200 OK\r\nContent-"), Err(Cause::BadResponse)),
        ("switches", answering(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), Err(Cause::BadResponse)),
        ("is short", answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), Err(Cause::Truncated)),
        ("fails", answering(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), Ok(StatusClass::ServerError)),
        (
            "hints first",
            answering(b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 OK\r\n\r\n"),
            Ok(StatusClass::Success),
        ),
        (
            "never ends",
            Origin::raw(free_addr(), move |mut stream| {
                use std::io::Write as _;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                endless(&mut stream);
                seen_cut.store(true, Ordering::SeqCst);
            }),
            Ok(StatusClass::Success),
        ),
        (
            "tells events",
            Origin::raw(free_addr(), move |mut stream| {
                use std::io::{Read as _, Write as _};
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
                let mut request = Vec::new();
                let _ = stream.read_to_end(&mut request);
                seen_events_cut.store(true, Ordering::SeqCst);
            }),
            Ok(StatusClass::Success),
        ),
    ];
    let mut proxy = proxy();
    let mut before = SeriesStats::default();
    let mut failed = 0;
    for (what, target, expect) in &targets {
        // Ids are never given to another process.
        let mut both = mirrored(stable.addr, nobody, 100);
        both.versions.insert("r2".into(), version(0, &[(what, target.addr)]));
        proxy.serve(both);
        assert_eq!(proxy.wire().get("/").unwrap().text(), "original", "{what}");
        eventually(what, || ended(&copies(&proxy)) > ended(&before));
        let now = copies(&proxy);
        match expect {
            Ok(class) => {
                let count = |stats: &SeriesStats| stats.requests.get(class).copied().unwrap_or(0);
                assert_eq!(count(&now), count(&before) + 1, "{what}: {now:?}");
                assert_eq!(now.errors, before.errors, "{what}");
            }
            Err(cause) => {
                let count = |stats: &SeriesStats| stats.errors.get(cause).copied().unwrap_or(0);
                assert_eq!(count(&now), count(&before) + 1, "{what}: {now:?}");
            }
        }
        failed += u64::from(expect.is_err() || *expect == Ok(StatusClass::ServerError));
        assert_eq!(now.failed, failed, "{what}");
        before = now;
    }
    eventually("nothing is read that has no end", || cut.load(Ordering::SeqCst));
    eventually("no events are listened to", || events_cut.load(Ordering::SeqCst));
    let mut both = mirrored(stable.addr, nobody, 100);
    both.versions.insert("r2".into(), version(0, &[("gone", nobody)]));
    proxy.serve(both.clone());
    assert_eq!(proxy.wire().get("/").unwrap().text(), "original");
    eventually("refused", || copies(&proxy).errors.get(&Cause::Connect) == Some(&1));
    both.versions.insert("r2".into(), version(0, &[]));
    proxy.serve(both);
    assert_eq!(proxy.wire().get("/").unwrap().text(), "original");
    eventually("without an instance", || copies(&proxy).dropped == 1);
    let stats = proxy.stats();
    assert_eq!(stats.version("s", "r1").failed, 0);
    assert_eq!(stats.arm("s", "r2").errors, 0, "copies are no evidence");
}

fn ended(stats: &SeriesStats) -> u64 {
    stats.requests_total() + stats.unanswered
}

#[test]
fn a_connection_that_went_stale_is_no_failure_of_the_mirror() {
    let stable = Origin::start(|_| ok("original"));
    // Each connection answers once, stays open, and is closed by the request after that.
    let target = Origin::raw(free_addr(), |stream| {
        use std::io::{BufRead as _, Write as _};
        let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
        let mut stream = stream;
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    });
    let mut proxy = proxy();
    proxy.serve(mirrored(stable.addr, target.addr, 100));
    let mut wire = proxy.wire();
    for n in 1..=20 {
        assert_eq!(wire.get("/").unwrap().text(), "original");
        eventually("the copy was answered", || ended(&copies(&proxy)) == n);
    }
    let copies = copies(&proxy);
    assert_eq!((copies.requests_total(), copies.failed), (20, 0), "{copies:?}");
}

#[test]
fn a_slow_mirror_adds_nothing_to_the_original() {
    const SLOW: Duration = Duration::from_millis(200);
    let stable = Origin::start(|_| ok("original"));
    let target = Origin::start(|_| {
        std::thread::sleep(SLOW);
        ok("copy")
    });
    let mut proxy = proxy();
    proxy.serve(mirrored(stable.addr, target.addr, 100));
    let mut wire = proxy.wire();
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(wire.get("/").unwrap().text(), "original");
    }
    let took = begun.elapsed();
    assert!(took < SLOW * 10, "50 requests beside a mirror of {SLOW:?} each took {took:?}");
    eventually("all copies were answered", || copies(&proxy).requests_total() == 50);
    let slow = copies(&proxy).latency[6..].iter().sum::<u64>();
    assert_eq!(slow, 50, "what the copies took is known");
}

#[test]
fn a_drain_cuts_copies_at_once() {
    let stable = Origin::start(|_| ok("original"));
    let closed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&closed);
    let target = Origin::raw(free_addr(), move |mut stream| {
        use std::io::Read as _;
        let mut request = Vec::new();
        let _ = stream.read_to_end(&mut request);
        seen.store(true, Ordering::SeqCst);
    });
    let mut proxy = proxy();
    proxy.serve(mirrored(stable.addr, target.addr, 100));
    let mut wire = proxy.wire();
    for _ in 0..3 {
        wire.get("/").unwrap();
    }
    eventually("copies are under way", || proxy.in_flight("copy") == 3);
    let mut events = proxy.events();
    let begun = Instant::now();
    proxy.serve(service(&[("stable", stable.addr)]));
    assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "copy".into() });
    assert!(begun.elapsed() < Duration::from_secs(5), "not after the timeout: {:?}", begun.elapsed());
    eventually("its connections are closed", || closed.load(Ordering::SeqCst));
    let copies = copies(&proxy);
    assert_eq!((copies.unanswered, copies.failed), (3, 0), "what we cut has not failed");
    assert_eq!(wire.get("/").unwrap().text(), "original");
}

#[test]
fn a_proxy_that_ends_does_not_wait_for_copies() {
    let stable = Origin::start(|_| ok("original"));
    let target = Origin::raw(free_addr(), |_stream| std::thread::sleep(HANG));
    let mut proxy = proxy();
    proxy.serve(mirrored(stable.addr, target.addr, 100));
    proxy.wire().get("/").unwrap();
    eventually("a copy is under way", || proxy.in_flight("copy") == 1);
    let begun = Instant::now();
    proxy.shutdown();
    proxy.join();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
