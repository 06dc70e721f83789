//! Clients of HTTP/1 that hang up before they have their answer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fairway_proxy::control::{Cause, Event};
use fairway_proxy::snapshot::{Breaker, CacheRule, Hold, Service, Snapshot};

use crate::http2::{Browser, request, run};
use crate::support::*;
use crate::tls::{Encrypted, Identity, connect_with, encrypt, identity};

/// A client is looked for after a second; the rest is for a busy machine.
const NOTICED: std::ops::Range<Duration> = Duration::from_millis(900)..Duration::from_secs(5);

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What became of a request at the instance.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Abandoned,
}

/// Answers every request after its target's milliseconds, except where its connection ends before; and begins an event
/// stream below `/events`, of which nothing ever comes, and waits for its end.
fn thoughtful() -> (Origin, Receiver<Fate>) {
    let (tell, fates) = channel();
    let origin = Origin::raw(free_addr(), move |mut stream| {
        let mut buf = [0; 4096];
        loop {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"order") {
                match stream.read(&mut buf) {
                    Ok(read @ 1..) => request.extend_from_slice(&buf[..read]),
                    Ok(_) | Err(_) => return,
                }
            }
            let request = String::from_utf8(request).unwrap();
            let target = request.split(' ').nth(1).unwrap();
            let pause_ms: u64 = target.rsplit('/').next().unwrap().parse().unwrap();
            let ends_within = |pause: Duration| {
                stream.set_read_timeout(Some(pause.max(Duration::from_millis(1)))).unwrap();
                let is_over = match (&stream).read(&mut [0; 1]) {
                    Ok(read) => read == 0,
                    Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
                };
                stream.set_read_timeout(None).unwrap();
                is_over
            };
            if ends_within(Duration::from_millis(pause_ms)) {
                return tell.send(Fate::Abandoned).unwrap();
            }
            if target.starts_with("/events") {
                (&stream).write_all(EVENTS.as_bytes()).unwrap();
                if ends_within(HANG) {
                    // The test may be over.
                    let _ = tell.send(Fate::Abandoned);
                }
                return;
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len());
            (&stream).write_all(answer.as_bytes()).unwrap();
            let _ = tell.send(Fate::Answered);
        }
    });
    (origin, fates)
}

fn one() -> (Proxy, Receiver<Fate>) {
    let (origin, fates) = thoughtful();
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    (proxy, fates)
}

fn asks(method: &str, target: &str) -> String {
    match method {
        "POST" => format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\norder"),
        _ => format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
    }
}

fn arrives(proxy: &Proxy) {
    eventually("it is at the instance", || proxy.in_flight("i") == 1);
}

fn is_given_up(proxy: &Proxy, fates: &Receiver<Fate>, since: Instant) {
    assert_eq!(fates.recv_timeout(HANG).unwrap(), Fate::Abandoned);
    assert!(NOTICED.contains(&since.elapsed()), "{:?}", since.elapsed());
    eventually("it is over", || proxy.in_flight("i") == 0);
}

fn resets(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_safe_request_that_nobody_waits_for_is_given_up_and_says_nothing_about_its_instance() {
    let (origin, fates) = thoughtful();
    let mut proxy = Proxy::start();
    let mut bounded = service(&[("i", origin.addr)]);
    bounded.breaker = Breaker { per_instance: Some(1), requests: None };
    bounded.hold = Hold { max_requests: 0, max_wait_ms: 5_000 };
    proxy.serve(bounded);
    for method in ["GET", "HEAD", "OPTIONS"] {
        let (mut wire, since) = (proxy.wire(), Instant::now());
        wire.send(asks(method, "/20000"));
        arrives(&proxy);
        drop(wire);
        is_given_up(&proxy, &fates, since);
        // The breaker's only place is free.
        assert_eq!(proxy.wire().get("/0").unwrap().text(), "/0");
        assert_eq!(fates.recv().unwrap(), Fate::Answered);
    }
    eventually("they are counted", || proxy.stats().version("s", "r1").unanswered == 3);
    eventually("and may be held against the version", || proxy.stats().arm("s", "r1").given_up == 3);
    let stats = proxy.stats().version("s", "r1");
    assert_eq!(
        (stats.failed, stats.errors.iter().find(|(_, n)| **n > 0)),
        (0, Some((&Cause::ClientClosed, &3)))
    );
}

#[test]
fn a_request_that_does_something_is_completed_unless_the_connection_is_gone() {
    let (proxy, fates) = one();
    let mut wire = proxy.wire();
    wire.send(asks("POST", "/2500"));
    arrives(&proxy);
    drop(wire);
    assert_eq!(fates.recv_timeout(HANG).unwrap(), Fate::Answered);
    eventually("it is counted", || proxy.stats().version("s", "r1").requests_total() == 1);

    let (mut wire, since) = (proxy.wire(), Instant::now());
    wire.send(asks("POST", "/20000"));
    arrives(&proxy);
    resets(wire.stream.try_clone().unwrap());
    drop(wire);
    is_given_up(&proxy, &fates, since);
}

#[test]
fn a_client_that_has_only_ended_its_side_gets_what_it_may_wait_for() {
    let (proxy, _fates) = one();
    for (method, target) in [("GET", "/300"), ("POST", "/2500")] {
        let mut wire = proxy.wire();
        wire.send(asks(method, target));
        wire.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(wire.read().unwrap().text(), target);
        assert_eq!(wire.rest().unwrap(), b"");
    }
}

/// They are no end, and what is read too early would be nobody's.
#[test]
fn requests_behind_a_slow_one_wait_unread_and_are_answered() {
    let (proxy, _fates) = one();
    let mut wire = proxy.wire();
    wire.send(asks("GET", "/2500"));
    arrives(&proxy);
    std::thread::sleep(Duration::from_millis(1_500));
    wire.send(asks("GET", "/1") + &asks("POST", "/2"));
    // The end behind them does not count as theirs, nor as that of the first.
    wire.stream.shutdown(Shutdown::Write).unwrap();
    for target in ["/2500", "/1", "/2"] {
        assert_eq!(wire.read().unwrap().text(), target);
    }
    // The same, come in one piece with the first.
    let mut wire = proxy.wire();
    wire.send(asks("GET", "/2500") + &asks("POST", "/2"));
    wire.stream.shutdown(Shutdown::Write).unwrap();
    for target in ["/2500", "/2"] {
        assert_eq!(wire.read().unwrap().text(), target);
    }
}

fn begins(reader: &mut impl std::io::BufRead) {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
}

#[test]
fn an_event_stream_that_nobody_listens_to_ends_without_an_event() {
    let (proxy, fates) = one();
    for method in ["GET", "POST"] {
        let (mut wire, since) = (proxy.wire(), Instant::now());
        wire.send(asks(method, "/events/0"));
        begins(wire.reader());
        drop(wire);
        is_given_up(&proxy, &fates, since);
    }
    // Once it is there it can be closed in the same moment.
    let mut wire = proxy.wire();
    wire.send(asks("GET", "/events/0"));
    begins(wire.reader());
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(proxy.in_flight("i"), 1, "whoever listens is left alone");
    drop(wire);
    assert_eq!(fates.recv_timeout(HANG).unwrap(), Fate::Abandoned);
    // What was seen before the answer began holds when it turns out to be one without end.
    let mut wire = proxy.wire();
    wire.send(asks("POST", "/events/2000"));
    arrives(&proxy);
    drop(wire);
    assert_eq!(fates.recv_timeout(HANG).unwrap(), Fate::Abandoned);
    eventually("they are counted", || {
        proxy.stats().version("s", "r1").errors.get(&Cause::ClientClosed) == Some(&4)
    });
    assert_eq!(proxy.stats().version("s", "r1").failed, 0);
}

#[test]
fn a_stream_that_is_watched_ends_with_its_drain_time() {
    let (origin, _fates) = thoughtful();
    let mut proxy = Proxy::start();
    // The client is looked for while the drain goes on, and long before.
    for quiet_ms in [850, 2_000] {
        let mut stream = service(&[("i", origin.addr)]);
        stream.timeouts.stream_drain_ms = 300;
        proxy.serve(stream);
        let mut wire = proxy.wire();
        wire.send(asks("GET", "/events/0"));
        begins(wire.reader());
        std::thread::sleep(Duration::from_millis(quiet_ms));
        let (mut events, since) = (proxy.events(), Instant::now());
        proxy.serve(service(&[]));
        assert_eq!(wire.rest().unwrap(), b"0\r\n\r\n");
        let took = since.elapsed();
        assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&took), "{took:?}");
        assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "i".into() });
    }
}

/// Whoever comes meanwhile would all ask by themselves.
#[test]
fn an_answer_that_the_cache_waits_for_is_fetched_whoever_leaves() {
    let (origin, fates) = thoughtful();
    let mut proxy = Proxy::start();
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
        snapshot.routes[0].policy.cache = vec![CacheRule { path: "/".into(), fresh_ms: 60_000, stale_ms: 0 }];
    });
    let mut leads = proxy.wire();
    leads.send(asks("GET", "/2500"));
    arrives(&proxy);
    drop(leads);
    let mut waits = proxy.wire();
    waits.send(asks("GET", "/2500"));
    assert_eq!(waits.read().unwrap().text(), "/2500");
    assert_eq!(fates.recv().unwrap(), Fate::Answered);
    assert!(fates.try_recv().is_err(), "asked once");
}

fn with_hold(instances: &[(&str, std::net::SocketAddr)]) -> Service {
    Service { hold: Hold { max_requests: 10, max_wait_ms: 20_000 }, ..service(instances) }
}

/// How many requests ended unserved.
fn unserved(proxy: &Proxy, cause: Cause) -> u64 {
    proxy.stats().version("s", "r1").errors.get(&cause).copied().unwrap_or(0)
}

/// Or a service that comes back would first do the work of all who have gone, and some of it twice.
#[test]
fn a_held_request_whose_client_has_left_reaches_no_instance() {
    let (origin, fates) = thoughtful();
    let mut proxy = Proxy::start();
    proxy.serve(with_hold(&[]));
    let cut_off = "POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\norder";
    for request in [asks("GET", "/0"), asks("POST", "/0"), cut_off.to_owned()] {
        let (mut wire, since) = (proxy.wire(), Instant::now());
        wire.send(request);
        wire.stream.shutdown(Shutdown::Write).unwrap();
        // Who only ended its side learns what became of it.
        assert_eq!(wire.read().unwrap().status(), 503);
        assert!(NOTICED.contains(&since.elapsed()), "{:?}", since.elapsed());
    }
    let (mut wire, since) = (proxy.wire(), Instant::now());
    wire.send(asks("POST", "/0"));
    resets(wire.stream.try_clone().unwrap());
    drop(wire);
    eventually("it is given up", || unserved(&proxy, Cause::NoInstance) == 4);
    assert!(NOTICED.contains(&since.elapsed()), "{:?}", since.elapsed());
    let browser = run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut send = browser.0.clone().ready().await.unwrap();
        let (_response, mut out) = send.send_request(request(http::Method::POST, "/0"), true).unwrap();
        // It is on its way before it is taken back.
        tokio::time::sleep(Duration::from_millis(100)).await;
        out.send_reset(h2::Reason::CANCEL);
        browser
    });
    eventually("so is that of a stream", || unserved(&proxy, Cause::NoInstance) == 5);
    drop(browser);
    let mut waits = proxy.wire();
    waits.send(asks("GET", "/1"));
    // Longer than its client is trusted to be there.
    std::thread::sleep(Duration::from_millis(1_500));
    let mut half_closed = proxy.wire();
    half_closed.send(asks("POST", "/2"));
    half_closed.stream.shutdown(Shutdown::Write).unwrap();
    // That it is held cannot be seen; what comes too late for that is answered as well.
    std::thread::sleep(Duration::from_millis(50));
    proxy.serve(with_hold(&[("i", origin.addr)]));
    assert_eq!(waits.read().unwrap().text(), "/1");
    assert_eq!(half_closed.read().unwrap().text(), "/2");
    for _ in 0..2 {
        assert_eq!(fates.recv_timeout(HANG).unwrap(), Fate::Answered);
    }
    assert!(fates.try_recv().is_err(), "nobody else has asked");
    assert_eq!(proxy.stats().version("s", "r1").requests_total(), 7);
}

#[test]
fn a_place_behind_the_breaker_is_not_kept_for_somebody_who_has_left() {
    let (origin, fates) = thoughtful();
    let mut proxy = Proxy::start();
    let mut bounded = with_hold(&[("i", origin.addr)]);
    bounded.breaker = Breaker { per_instance: Some(1), requests: None };
    bounded.hold.max_requests = 1;
    proxy.serve(bounded);
    let mut first = proxy.wire();
    first.send(asks("POST", "/4000"));
    arrives(&proxy);
    let (mut second, since) = (proxy.wire(), Instant::now());
    second.send(asks("POST", "/0"));
    drop(second);
    eventually("it is given up", || unserved(&proxy, Cause::Breaker) == 1);
    assert!(NOTICED.contains(&since.elapsed()), "{:?}", since.elapsed());
    // The queue has room for one.
    let mut third = proxy.wire();
    third.send(asks("GET", "/1"));
    assert_eq!(first.read().unwrap().text(), "/4000");
    assert_eq!(third.read().unwrap().text(), "/1");
    for _ in 0..2 {
        assert_eq!(fates.recv_timeout(HANG).unwrap(), Fate::Answered);
    }
    assert!(fates.try_recv().is_err(), "nobody else has asked");
}

/// The first to ask is asked for; the others would all ask by themselves.
#[test]
fn a_held_request_for_which_the_cache_lets_others_wait_stays() {
    let (origin, fates) = thoughtful();
    let mut proxy = Proxy::start();
    let cached = |snapshot: &mut Snapshot| {
        snapshot.routes[0].policy.cache = vec![CacheRule { path: "/".into(), fresh_ms: 60_000, stale_ms: 0 }];
    };
    proxy.serve_with(with_hold(&[]), cached);
    let mut leads = proxy.wire();
    leads.send(asks("GET", "/1"));
    // It leads once it has been looked at.
    std::thread::sleep(Duration::from_millis(200));
    let mut waits = proxy.wire();
    waits.send(asks("GET", "/1"));
    drop(leads);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(unserved(&proxy, Cause::NoInstance), 0);
    proxy.serve_with(with_hold(&[("i", origin.addr)]), cached);
    assert_eq!(waits.read().unwrap().text(), "/1");
    assert_eq!(fates.recv_timeout(HANG).unwrap(), Fate::Answered);
    assert!(fates.try_recv().is_err(), "asked once");
}

fn encrypted() -> (Proxy, Receiver<Fate>, Identity) {
    let (origin, fates) = thoughtful();
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    (proxy, fates, shop)
}

fn sends(proxy: &Proxy, shop: &Identity, request: &str) -> Encrypted {
    let tcp = TcpStream::connect(proxy.addr).unwrap();
    let mut stream = connect_with(tcp, shop, "shop.example", &[]).unwrap();
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    arrives(proxy);
    stream
}

/// As some clients do, and as others.
fn ends(stream: &mut Encrypted, is_said: bool) {
    let stream = stream.get_mut();
    if is_said {
        stream.conn.send_close_notify();
        stream.conn.write_tls(&mut stream.sock).unwrap();
    } else {
        stream.sock.shutdown(Shutdown::Write).unwrap();
    }
}

#[test]
fn it_is_the_same_by_tls_whether_the_end_is_said_or_not() {
    let (proxy, fates, shop) = encrypted();
    for target in ["/20000", "/events/0"] {
        for is_said in [true, false] {
            let since = Instant::now();
            let mut stream = sends(&proxy, &shop, &asks("GET", target));
            if target.starts_with("/events") {
                begins(&mut stream);
            }
            ends(&mut stream, is_said);
            is_given_up(&proxy, &fates, since);
        }
    }
    let since = Instant::now();
    let stream = sends(&proxy, &shop, &asks("POST", "/20000"));
    resets(stream.get_ref().sock.try_clone().unwrap());
    drop(stream);
    is_given_up(&proxy, &fates, since);
}

#[test]
fn by_tls_too_what_is_wanted_is_completed() {
    let (proxy, _fates, shop) = encrypted();
    let mut stream = sends(&proxy, &shop, &asks("POST", "/2500"));
    ends(&mut stream, true);
    assert_eq!(read_message(&mut stream).unwrap().text(), "/2500");
    let mut stream = sends(&proxy, &shop, &asks("GET", "/2500"));
    std::thread::sleep(Duration::from_millis(1_500));
    stream.get_mut().write_all(asks("GET", "/1").as_bytes()).unwrap();
    for target in ["/2500", "/1"] {
        assert_eq!(read_message(&mut stream).unwrap().text(), target);
    }
}
