//! The ways in which requests get lost, one test each.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairway_proxy::control::{Cause, Event};
use fairway_proxy::snapshot::{ActiveHealth, Hold, Match, Sticky};

use crate::support::{HANG, Origin, Proxy, Reply, eventually, free_addr, ok, service, version};

/// Reads POSTs whose body ends with `end`, notes the body, answers, and after `idle` without another request
/// closes without having said so.
fn forgetful(
    idle: impl Fn() -> Duration + Send + Sync + 'static,
    polite: bool,
) -> (Origin, Arc<Mutex<BTreeMap<String, u32>>>) {
    let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let origin = Origin::raw(free_addr(), move |mut stream| {
        loop {
            let mut bytes = Vec::new();
            let mut buf = [0; 4096];
            while !bytes.ends_with(b"end") {
                match stream.read(&mut buf) {
                    Ok(n @ 1..) => bytes.extend_from_slice(&buf[..n]),
                    Ok(_) | Err(_) => return,
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            let id = text.rsplit("\r\n\r\n").next().unwrap_or("").to_owned();
            *noted.lock().unwrap().entry(id).or_default() += 1;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            if polite {
                stream.set_read_timeout(Some(idle())).unwrap();
            } else {
                // Does not even look whether a request has come.
                return std::thread::sleep(idle());
            }
        }
    });
    (origin, seen)
}

#[test]
fn a_post_is_never_doubled_by_an_instance_that_closes_at_random() {
    let step = AtomicU64::new(0);
    let pause = move || Duration::from_micros(step.fetch_add(1, Ordering::Relaxed) % 40 * 10);
    let (origin, seen) = forgetful(pause, false);
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let addr = proxy.addr;
    let clients: Vec<_> = (0..4)
        .map(|client| {
            std::thread::spawn(move || {
                let mut wire = crate::support::Wire::open(addr);
                let post = |n| {
                    let id = format!("id-{client}-{n}-end");
                    let status = wire.post("/", id.as_bytes()).unwrap().status();
                    assert!(matches!(status, 200 | 502), "{status}");
                    (status == 200).then_some(id)
                };
                (0..500).filter_map(post).collect::<Vec<_>>()
            })
        })
        .collect();
    let answered: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|n| *n == 1), "doubled");
    assert!(answered.iter().all(|id| seen.contains_key(id)));
    assert!(answered.len() > 100, "{} of 2000", answered.len());
}

#[test]
fn posts_do_not_meet_the_close_of_an_idle_connection() {
    const IDLE_MS: u64 = 560;
    let (origin, seen) = forgetful(|| Duration::from_millis(IDLE_MS), true);
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let addr = proxy.addr;
    let clients: Vec<_> = (0..40u64)
        .map(|client| {
            std::thread::spawn(move || {
                let mut wire = crate::support::Wire::open(addr);
                for n in 0..3 {
                    let answer = wire.post("/", format!("id-{client}-{n}-end").as_bytes()).unwrap();
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    // Around the instance's idle time, where the race is.
                    std::thread::sleep(Duration::from_micros(IDLE_MS * 1_000 - 2_000 + client * 100));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 120);
    assert!(seen.values().all(|n| *n == 1), "doubled");
}

#[test]
fn a_post_that_was_received_is_not_sent_again() {
    let received = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&received);
    let origin = Origin::start(move |request| match request.target() {
        "/warm" => ok(""),
        _ => {
            count.fetch_add(1, Ordering::SeqCst);
            Reply::Last(Vec::new())
        }
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut wire = proxy.wire();
    for _ in 0..5 {
        // Over a connection that was used before, which is where repeating is tempting.
        wire.get("/warm").unwrap();
        assert_eq!(wire.post("/", b"once").unwrap().status(), 502);
    }
    assert_eq!(received.load(Ordering::SeqCst), 5);
    eventually("all are counted", || {
        proxy.stats().version("s", "r1").errors.get(&Cause::NoResponse) == Some(&5)
    });
}

#[test]
fn a_get_that_got_no_answer_goes_to_another_instance() {
    let bad = Origin::start(|_| Reply::Reset(Vec::new()));
    let good = Origin::start(|_| ok("good"));
    let mut proxy = Proxy::start();
    let mut both = service(&[("bad", bad.addr), ("good", good.addr)]);
    both.retry.budget_percent = 100;
    proxy.serve(both);
    let mut wire = proxy.wire();
    for _ in 0..50 {
        assert_eq!(wire.get("/").unwrap().text(), "good");
    }
}

#[test]
fn a_truncated_answer_never_looks_complete() {
    let origin = Origin::start(|request| {
        let head: &[u8] = match request.target() {
            "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            _ => b"HTTP/1.1 200 OK\r\n\r\nhalf",
        };
        match request.target() {
            "/reset" => Reply::Reset(head.to_vec()),
            _ => Reply::Last(head.to_vec()),
        }
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    for target in ["/length", "/chunked", "/reset"] {
        let answer = proxy.wire().get(target);
        assert!(answer.is_err(), "{target}: {answer:?}");
    }
    // For an old client the end of a chunked body is the close: it must not be one in good order.
    let mut wire = proxy.wire();
    wire.send("GET /chunked HTTP/1.0\r\n\r\n");
    assert!(wire.rest().is_err(), "a truncated answer ended like a complete one");
    eventually("all are counted", || {
        proxy.stats().version("s", "r1").errors.get(&Cause::Truncated) == Some(&4)
    });
}

#[test]
fn requests_wait_for_an_instance_and_then_get_it() {
    let origin = Origin::start(|request| ok(&request.body));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[]));
    let addr = proxy.addr;
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            std::thread::spawn(move || {
                crate::support::Wire::open(addr).post("/", format!("{n}").as_bytes()).unwrap()
            })
        })
        .collect();
    eventually("all wait", || proxy.stats().connections_accepted == 20);
    proxy.serve(service(&[("i", origin.addr)]));
    for (n, waiting) in waiting.into_iter().enumerate() {
        let answer = waiting.join().unwrap();
        assert_eq!((answer.status(), answer.text()), (200, n.to_string()));
    }
}

#[test]
fn the_hold_queue_is_bounded_in_number_and_time() {
    let mut proxy = Proxy::start();
    let mut empty = service(&[]);
    empty.hold = Hold { max_requests: 1, max_wait_ms: 300 };
    proxy.serve(empty);
    let begun = Instant::now();
    let addr = proxy.addr;
    let answers: Vec<_> = (0..5)
        .map(|_| {
            std::thread::spawn(move || {
                let answer = crate::support::Wire::open(addr).get("/").unwrap();
                assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("2")));
            })
        })
        .collect();
    for answer in answers {
        answer.join().unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let errors = || proxy.stats().version("s", "r1").errors;
    eventually("all are counted", || errors().values().sum::<u64>() == 5);
    let errors = errors();
    assert!(errors[&Cause::HoldFull] >= 3, "{errors:?}");
    assert!(errors[&Cause::NoInstance] >= 1, "{errors:?}");
}

#[test]
fn an_instance_that_restarts_is_waited_for() {
    let addr = free_addr();
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", addr)]));
    let waiting = std::thread::spawn({
        let addr = proxy.addr;
        move || crate::support::Wire::open(addr).post("/", b"x").unwrap()
    });
    eventually("a connection was refused", || {
        proxy.stats().version("s", "r1").errors.contains_key(&Cause::Connect)
    });
    let _origin = Origin::start_at(addr, |_| ok("back"));
    assert_eq!(waiting.join().unwrap().text(), "back");
}

#[test]
fn an_instance_that_is_down_costs_nothing_while_another_is_up() {
    let up = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("down", free_addr()), ("up", up.addr)]));
    let mut wire = proxy.wire();
    for _ in 0..200 {
        assert_eq!(wire.post("/", b"x").unwrap().text(), "up");
    }
    let refused = proxy.stats().version("s", "r1").errors[&Cause::Connect];
    assert!(refused < 50, "it is left alone after some failures: {refused}");
}

#[test]
fn an_upgraded_connection_survives_swaps_that_do_not_concern_it() {
    let origin = Origin::start(|_| {
        Reply::Echo(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec(),
        )
    });
    let other = Origin::start(|_| ok(""));
    let mut proxy = Proxy::start();
    let mut streams = service(&[("ws", origin.addr)]);
    streams.timeouts.stream_drain_ms = 300;
    proxy.serve(streams.clone());
    let mut wire = proxy.wire();
    // Bytes right behind the request belong to the new protocol.
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly");
    let answer = wire.read().unwrap();
    assert_eq!((answer.status(), answer.field("upgrade")), (101, Some("websocket")));
    assert_eq!(wire.bytes(5).unwrap(), b"early");
    for n in 0..50 {
        let mut next = streams.clone();
        let more = version(n, &[("other", other.addr)]);
        next.versions.insert(format!("x{n}"), more);
        proxy.serve(next);
        wire.send(format!("{n:04}"));
        assert_eq!(wire.bytes(4).unwrap(), format!("{n:04}").as_bytes());
        assert_eq!(proxy.in_flight("ws"), 1);
    }
    // Its own instance goes: it gets its drain time and not more, and the drain is reported afterwards.
    let mut events = proxy.events();
    let removed = Instant::now();
    proxy.serve(service(&[("other", other.addr)]));
    wire.send("last");
    assert_eq!(wire.bytes(4).unwrap(), b"last");
    assert_eq!(wire.rest().unwrap(), b"");
    assert!(removed.elapsed() >= Duration::from_millis(250), "{:?}", removed.elapsed());
    assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "ws".into() });
    assert_eq!(proxy.in_flight("ws"), 0);
    let stats = proxy.stats().version("s", "r1");
    assert_eq!((stats.bytes_in, stats.in_flight), (5 + 200 + 4, 0));
}

#[test]
fn a_websocket_is_told_why_it_ends() {
    let origin = Origin::start(|_| {
        Reply::Echo(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec())
    });
    let mut proxy = Proxy::start();
    let mut streams = service(&[("ws", origin.addr)]);
    streams.timeouts.stream_drain_ms = 100;
    let handshake = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    // The echo of a whole frame, and then of half a frame into which nothing may be put.
    for (frame, expect) in [(&b"\x82\x03abc"[..], &b"\x88\x02\x03\xe9"[..]), (&b"\x82\x04abc"[..], &b""[..])]
    {
        proxy.serve(streams.clone());
        let mut wire = proxy.wire();
        wire.send(handshake);
        assert_eq!(wire.read().unwrap().status(), 101);
        wire.send(frame);
        assert_eq!(wire.bytes(5).unwrap(), frame);
        proxy.serve(service(&[]));
        assert_eq!(wire.rest().unwrap(), expect);
    }
}

#[test]
fn half_closed_upgraded_connections_still_answer() {
    let origin = Origin::raw(free_addr(), |mut stream| {
        let mut buf = [0; 4096];
        let n = stream.read(&mut buf).unwrap();
        assert!(buf[..n].ends_with(b"\r\n\r\n"));
        stream.write_all(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut wire = proxy.wire();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(wire.read().unwrap().status(), 101);
    wire.send("question");
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(wire.rest().unwrap(), b"question");
}

#[test]
fn unhealthy_instances_get_nothing_and_come_back() {
    let sick = Arc::new(AtomicU32::new(0));
    let state = Arc::clone(&sick);
    let a = Origin::start(move |request| match (request.target(), state.load(Ordering::SeqCst)) {
        ("/health", 1) => Reply::Bytes(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec()),
        _ => ok("a"),
    });
    let b = Origin::start(|_| ok("b"));
    let mut proxy = Proxy::start();
    let mut events = proxy.events();
    let mut checked = service(&[("a", a.addr), ("b", b.addr)]);
    checked.health =
        Some(ActiveHealth { path: "/health".into(), interval_ms: 5, timeout_ms: 1_000, rise: 2, fall: 2 });
    proxy.serve(checked);
    // Requests before the first check wait for it.
    let mut wire = proxy.wire();
    assert_eq!(wire.get("/").unwrap().status(), 200);
    let mut expect = |instance: &str, healthy: bool| loop {
        if let Event::Health { instance: i, healthy: h, .. } = proxy.next_event(&mut events)
            && (i.as_str(), h) == (instance, healthy)
        {
            return;
        }
    };
    expect("a", true);
    sick.store(1, Ordering::SeqCst);
    expect("a", false);
    for _ in 0..100 {
        assert_eq!(wire.get("/").unwrap().text(), "b");
    }
    sick.store(0, Ordering::SeqCst);
    expect("a", true);
    let begun = Instant::now();
    while wire.get("/").unwrap().text() != "a" {
        assert!(begun.elapsed() < HANG);
    }
}

#[test]
fn weights_are_exact_and_visitors_stay() {
    let stable = Origin::start(|_| ok("stable"));
    let canary = Origin::start(|_| ok("canary"));
    let mut proxy = Proxy::start_with(|options| options.workers = std::num::NonZeroUsize::new(1));
    let mut both = service(&[]);
    both.sticky = Some(Sticky { cookie: "side".into(), max_age_s: Some(600) });
    both.versions.insert("r1".into(), version(90, &[("s", stable.addr)]));
    let mut tested = version(10, &[("c", canary.addr)]);
    tested.matches = vec![Match::Header { name: "x-tester".into(), value: "yes".into() }];
    both.versions.insert("r2".into(), tested);
    proxy.serve(both);
    let mut wire = proxy.wire();
    let mut counts = BTreeMap::<String, u32>::new();
    let mut cookie = String::new();
    for _ in 0..1_000 {
        let answer = wire.get("/").unwrap();
        *counts.entry(answer.text()).or_default() += 1;
        if answer.text() == "canary" {
            cookie = answer.field("set-cookie").unwrap().to_owned();
        }
    }
    assert_eq!(counts, BTreeMap::from([("stable".to_owned(), 900), ("canary".to_owned(), 100)]));
    assert_eq!(cookie, "side=r2; Max-Age=600; Path=/; HttpOnly; SameSite=Lax");
    for _ in 0..50 {
        wire.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=y; side=r2\r\n\r\n");
        let answer = wire.read().unwrap();
        assert_eq!((answer.text().as_str(), answer.field("set-cookie")), ("canary", None));
        wire.send("GET / HTTP/1.1\r\nHost: a\r\nX-Tester: yes\r\nCookie: side=r1\r\n\r\n");
        assert_eq!(wire.read().unwrap().text(), "canary");
    }
    // Counted when the last byte is on its way, which the client may see first.
    eventually("all are counted", || proxy.stats().version("s", "r2").requests_total() == 200);
    let stats = proxy.stats();
    assert_eq!(stats.version("s", "r1").requests_total(), 900);
    assert_eq!(stats.version("s", "r2").latency.iter().sum::<u64>(), 200);
}

#[test]
fn a_quiet_event_stream_ends_with_its_drain_time_and_not_before() {
    let origin = Origin::start(|_| {
        Reply::Echo(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n".to_vec())
    });
    let mut proxy = Proxy::start();
    let mut stream = service(&[("sse", origin.addr)]);
    stream.timeouts.body_idle_ms = 50;
    stream.timeouts.stream_drain_ms = 100;
    proxy.serve(stream);
    let mut wire = proxy.wire();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut head = Vec::new();
    while !head.ends_with(b"data: 1\n\n\r\n") {
        head.extend(wire.bytes(1).unwrap());
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(proxy.in_flight("sse"), 1, "silence does not end a stream of events");
    let mut events = proxy.events();
    proxy.serve(service(&[]));
    assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "sse".into() });
}

#[test]
fn an_event_stream_that_a_drain_ends_has_a_last_chunk_where_one_can_be_put() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
    let bodies =
        [(chunked.clone(), true), (format!("{head}\r\ndata: 1\n\n"), true), (chunked + "6\r\nid", false)];
    for (body, can_end) in bodies {
        let origin = Origin::start(move |_| Reply::Echo(body.clone().into_bytes()));
        let mut proxy = Proxy::start();
        let mut stream = service(&[("sse", origin.addr)]);
        stream.timeouts.stream_drain_ms = 50;
        proxy.serve(stream);
        let mut wire = proxy.wire();
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut seen = Vec::new();
        let end = if can_end { &b"data: 1\n\n\r\n"[..] } else { b"6\r\nid" };
        while !seen.ends_with(end) {
            seen.extend(wire.bytes(1).unwrap());
        }
        proxy.serve(service(&[]));
        let rest = wire.rest().unwrap();
        assert_eq!(rest, if can_end { &b"0\r\n\r\n"[..] } else { b"" }, "{}", String::from_utf8_lossy(&seen));
    }
}

#[test]
fn a_stream_whose_instance_goes_within_the_drain_has_ended_and_was_not_cut_off() {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let websocket = [b"HTTP/1.1 101 X\r\n", upgrade.as_bytes(), b"\r\n\x82\x03abc"].concat();
    let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let streams = [(upgrade, websocket, &b"\x88\x02\x03\xe9"[..]), ("", events.to_vec(), b"0\r\n\r\n")];
    for (asked, answer, goodbye) in streams {
        for is_drained in [true, false] {
            let leaves = Arc::new(AtomicU32::new(0));
            let (told, answer) = (Arc::clone(&leaves), answer.clone());
            let origin = Origin::raw(free_addr(), move |mut stream| {
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                stream.write_all(&answer).unwrap();
                eventually("it is told to leave", || told.load(Ordering::SeqCst) == 1);
            });
            let mut proxy = Proxy::start();
            proxy.serve(service(&[("i", origin.addr)]));
            let mut wire = proxy.wire();
            wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{asked}\r\n"));
            let mut seen = Vec::new();
            while !seen.ends_with(b"abc\r\n") && !seen.ends_with(b"\x03abc") {
                seen.extend(wire.bytes(1).unwrap());
            }
            if is_drained {
                proxy.serve(service(&[]));
            }
            leaves.store(1, Ordering::SeqCst);
            assert_eq!(wire.rest().unwrap(), if is_drained { goodbye } else { b"" }, "{asked}");
        }
    }
}
