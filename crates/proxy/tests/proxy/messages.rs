//! Single messages: what reaches the instance, what reaches the client.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use fairway_proxy::snapshot::Maintenance;

use crate::support::{Message, Origin, Proxy, Reply, Wire, ok, route, service};

fn one(handler: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> (Proxy, Wire) {
    let origin = Origin::start(handler);
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let wire = proxy.wire();
    (proxy, wire)
}

/// Answers with what it got.
fn mirror(request: &Message) -> Reply {
    let mut text = format!("{}\n", request.first_line);
    for (name, value) in &request.fields {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push_str(&format!("\n{}", request.text()));
    ok(text)
}

#[test]
fn a_request_arrives_with_what_the_instance_needs_to_know() {
    let (_proxy, mut wire) = one(mirror);
    wire.send("GET /x?y HTTP/1.1\r\nHost: Shop.example:81\r\nAccept: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: keep-alive\r\n\r\n");
    let answer = wire.read().unwrap();
    let text = answer.text();
    assert!(
        text.starts_with("GET /x?y HTTP/1.1\nhost: Shop.example:81\nAccept: a\nx-request-id: "),
        "{text}"
    );
    assert!(text.contains(
        "\nx-forwarded-for: 127.0.0.1\nx-forwarded-proto: http\nx-forwarded-host: Shop.example:81\n"
    ));
    assert!(text.contains("\ntraceparent: 00-"), "{text}");
    assert!(!text.to_lowercase().contains("connection"), "{text}");
    let id = answer.field("x-request-id").unwrap();
    assert_eq!(id.len(), 32);
    assert!(text.contains(id), "the instance and the client see the same id");
}

#[test]
fn ids_and_traces_are_continued() {
    let (_proxy, mut wire) = one(mirror);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    wire.send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-1\r\nTraceparent: {trace}\r\nTracestate: a=b\r\n\r\n"
    ));
    let answer = wire.read().unwrap();
    assert_eq!(answer.field("x-request-id"), Some("abc-1"));
    assert!(
        answer.text().contains(&format!("\nTraceparent: {trace}\nTracestate: a=b\n")),
        "{}",
        answer.text()
    );
    wire.send(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a b\r\nTraceparent: nonsense\r\nTracestate: a=b\r\n\r\n",
    );
    let text = wire.read().unwrap().text();
    assert!(!text.contains("a b") && !text.contains("nonsense") && !text.contains("a=b"), "{text}");
}

#[test]
fn bodies_of_every_kind_arrive_whole() {
    let (_proxy, mut wire) = one(|request| ok(&request.body));
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(wire.post("/", &big).unwrap().body, big);
    assert_eq!(wire.post("/", b"").unwrap().body, b"");
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n");
    for piece in ["5", "\r\nhel", "lo\r", "\n0\r\nX-Sum", ": 1\r\n", "\r\n"] {
        wire.send(piece);
    }
    assert_eq!(wire.read().unwrap().text(), "abchello");
    assert_eq!(wire.get("/").unwrap().status(), 200, "the connection is still good");
}

#[test]
fn responses_of_every_framing_arrive_whole() {
    let (_proxy, mut wire) = one(|request| match request.target() {
        "/chunked" => {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for _ in 0..100 {
                bytes.extend_from_slice(b"3e8;ext=1\r\n");
                bytes.extend_from_slice(&[b'x'; 1000]);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
            Reply::Bytes(bytes)
        }
        "/close" => Reply::Last(b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec()),
        "/204" => Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "/hints" => Reply::Bytes(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                .to_vec(),
        ),
        _ => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()),
    });
    assert_eq!(wire.get("/chunked").unwrap().body.len(), 100_000);
    let answer = wire.get("/close").unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.field("transfer-encoding")),
        ("until the end", Some("chunked"))
    );
    assert_eq!(wire.get("/204").unwrap().status(), 204);
    let hints = wire.get("/hints").unwrap();
    assert_eq!((hints.status(), hints.field("link")), (103, Some("x")));
    assert_eq!(wire.read().unwrap().text(), "ok");
    wire.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = wire.read_to("HEAD").unwrap();
    assert_eq!(answer.field("content-length"), Some("5"));
    assert_eq!(wire.get("/204").unwrap().status(), 204, "all of it came over one connection");
}

#[test]
fn old_clients_get_what_they_understand() {
    let (proxy, mut wire) = one(|request| match request.target() {
        "/chunked" => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec(),
        ),
        _ => ok("plain"),
    });
    wire.send("GET /chunked HTTP/1.0\r\n\r\n");
    let text = String::from_utf8(wire.rest().unwrap()).unwrap();
    assert!(text.ends_with("connection: close\r\n\r\nabcde"), "{text}");
    let mut wire = proxy.wire();
    wire.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(wire.read().unwrap().field("connection"), Some("keep-alive"));
    wire.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(wire.read().unwrap().field("connection"), Some("close"));
    assert_eq!(wire.rest().unwrap(), b"");
}

#[test]
fn connections_to_instances_are_used_again_and_idle_ones_are_let_go() {
    let opened = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let closed = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let (count, ended) = (opened.clone(), closed.clone());
    let origin = Origin::raw(crate::support::free_addr(), move |mut stream| {
        use std::io::{Read as _, Write as _};
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut buf = [0; 4096];
        while let Ok(1..) = stream.read(&mut buf) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
        ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    let mut proxy = Proxy::start_with(|options| options.workers = std::num::NonZeroUsize::new(1));
    let mut short = service(&[("i", origin.addr)]);
    short.timeouts.upstream_idle_ms = 200;
    proxy.serve(short);
    for _ in 0..20 {
        let mut wire = proxy.wire();
        for _ in 0..5 {
            assert_eq!(wire.get("/").unwrap().status(), 200);
        }
    }
    assert_eq!(opened.load(std::sync::atomic::Ordering::SeqCst), 1);
    crate::support::eventually("the idle connection is closed", || {
        closed.load(std::sync::atomic::Ordering::SeqCst) == 1
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_proxy, mut wire) = one(|request| ok(format!("{} {}", request.target(), request.text())));
    wire.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for expect in ["/1 ", "/2 abc", "/3 de", "/4 "] {
        assert_eq!(wire.read().unwrap().text(), expect);
    }
}

#[test]
fn expectations_are_passed_on() {
    let (_proxy, mut wire) = one(|request| ok(&request.body));
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(wire.read().unwrap().status(), 100);
    wire.send("abc");
    assert_eq!(wire.read().unwrap().text(), "abc");
    assert_eq!(wire.get("/").unwrap().status(), 200);
}

#[test]
fn ambiguous_requests_are_refused_and_the_connection_ends() {
    let (proxy, _) = one(|_| ok("never"));
    for (bytes, status) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\n", 400),
    ] {
        let mut wire = proxy.wire();
        wire.send(bytes);
        let answer = wire.read().unwrap();
        assert_eq!((answer.status(), answer.field("connection")), (status, Some("close")), "{bytes:?}");
        assert_eq!(wire.rest().unwrap(), b"", "nothing behind it is answered: {bytes:?}");
    }
    assert_eq!(proxy.stats().refused[&400], 3);
}

#[test]
fn a_large_upload_that_is_refused_still_gets_its_answer() {
    let origin = Origin::start(|_| ok("never"));
    let mut proxy = Proxy::start();
    let mut limited = service(&[("i", origin.addr)]);
    limited.request_body_bytes_max = Some(1_000);
    proxy.serve(limited);
    let mut wire = proxy.wire();
    // Rule 4: closing with these bytes unread would reset the connection and destroy the answer.
    let answer = wire.post("/", &vec![b'x'; 500_000]).unwrap();
    assert_eq!(answer.status(), 413);
    let mut wire = proxy.wire();
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n");
    wire.send([b'x'; 2_000]);
    assert_eq!(wire.read().unwrap().status(), 413);
}

#[test]
fn an_answer_before_the_end_of_the_upload_arrives() {
    let addr = crate::support::free_addr();
    let _origin = Origin::raw(addr, |mut stream| {
        use std::io::{Read as _, Write as _};
        let mut buf = [0; 1024];
        let _ = stream.read(&mut buf);
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            .unwrap();
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", addr)]));
    let mut wire = proxy.wire();
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc");
    let answer = wire.read().unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (403, Some("close")));
}

#[test]
fn routes_strip_pin_and_maintain() {
    let origin = Origin::start(mirror);
    let mut proxy = Proxy::start();
    let mut snapshot = proxy.snapshot(service(&[("i", origin.addr)]));
    let preview = Origin::start(|_| ok("preview"));
    let versions = &mut snapshot.services.get_mut("s").unwrap().versions;
    versions.insert("r2".into(), crate::support::version(0, &[("p", preview.addr)]));
    let mut api = route("/api", "s");
    api.strip_prefix = true;
    let mut pinned = route("/", "s");
    pinned.host = Some("preview.example".into());
    pinned.pin = Some("r2".into());
    let mut closed = route("/closed", "s");
    closed.maintenance = Some(Maintenance {
        status: 503,
        body: "<p>soon</p>".into(),
        content_type: "text/html".into(),
        retry_after_s: Some(60),
    });
    snapshot.routes.extend([api, pinned, closed]);
    proxy.apply(&snapshot).unwrap();
    let mut wire = proxy.wire();
    let text = wire.get("/api/x?y").unwrap().text();
    assert!(text.starts_with("GET /x?y HTTP/1.1") && text.contains("x-forwarded-prefix: /api"), "{text}");
    assert!(wire.get("/api?y").unwrap().text().starts_with("GET /?y HTTP/1.1"));
    assert!(wire.get("/api").unwrap().text().starts_with("GET / HTTP/1.1"));
    wire.send("GET / HTTP/1.1\r\nHost: preview.example\r\n\r\n");
    assert_eq!(wire.read().unwrap().text(), "preview");
    let answer = wire.get("/closed/x").unwrap();
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("60")));
    assert_eq!(answer.text(), "<p>soon</p>");
    assert_eq!(wire.get("/").unwrap().status(), 200);
}

#[test]
fn nothing_routed_is_404() {
    let proxy_and_wire = one(|_| ok(""));
    let (mut proxy, mut wire) = proxy_and_wire;
    let mut snapshot = proxy.snapshot(service(&[]));
    snapshot.routes[0].path = "/only".into();
    proxy.apply(&snapshot).unwrap();
    assert_eq!(wire.get("/other").unwrap().status(), 404);
    assert_eq!(wire.get("/other").unwrap().status(), 404, "the connection stays open");
}

#[test]
fn slow_heads_and_slow_bodies_time_out() {
    let origin = Origin::start(|_| ok(""));
    let mut proxy = Proxy::start_with(|options| options.limits.head = Duration::from_millis(150));
    let mut slow = service(&[("i", origin.addr)]);
    slow.timeouts.body_idle_ms = 150;
    proxy.serve(slow);
    let mut wire = proxy.wire();
    wire.send("GET / HTT");
    assert_eq!(wire.read().unwrap().status(), 408, "slowloris");
    assert_eq!(wire.rest().unwrap(), b"");
    let mut wire = proxy.wire();
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    assert_eq!(wire.read().unwrap().status(), 408);
}

/// Requests, instances' answers and interruptions put together at random, over real sockets: nobody else notices.
#[test]
fn garbage_from_both_sides_harms_nobody_else() {
    const FROM_CLIENT: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "hello",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n",
        "\0\u{1}",
        "Expect: 100-continue\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ];
    const FROM_INSTANCE: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "hello",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "\r\n",
        "x",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 204 No\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    fn next(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize
    }
    let mad = Origin::raw(crate::support::free_addr(), |mut stream| {
        use std::io::{Read as _, Write as _};
        let mut buf = [0; 4096];
        let mut state = 1;
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            state += buf[..n].iter().map(|b| u64::from(*b)).sum::<u64>();
            for _ in 0..next(&mut state) % 4 {
                let piece = FROM_INSTANCE[next(&mut state) % FROM_INSTANCE.len()];
                if stream.write_all(piece.as_bytes()).is_err() {
                    return;
                }
            }
            if next(&mut state).is_multiple_of(4) {
                return;
            }
        }
    });
    let sane = Origin::start(|_| ok("sane"));
    let mut proxy = Proxy::start_with(|options| options.limits.head = Duration::from_millis(100));
    let mut odd = service(&[("mad", mad.addr)]);
    odd.timeouts.response_head_ms = 100;
    odd.timeouts.body_idle_ms = 100;
    odd.timeouts.upgrade_idle_ms = 100;
    let mut snapshot = proxy.snapshot(odd);
    snapshot.services.insert("sane".into(), service(&[("sane", sane.addr)]));
    snapshot.routes.push(route("/sane", "sane"));
    proxy.apply(&snapshot).unwrap();
    let addr = proxy.addr;
    let attackers: Vec<_> = (0..8u64)
        .map(|attacker| {
            std::thread::spawn(move || {
                for round in 0..60 {
                    use std::io::Write as _;
                    let mut state = attacker * 1_000 + round;
                    let mut wire = Wire::open(addr);
                    for _ in 0..1 + next(&mut state) % 6 {
                        let piece = FROM_CLIENT[next(&mut state) % FROM_CLIENT.len()].as_bytes();
                        let cut = 1 + next(&mut state) % piece.len();
                        let _ = wire.stream.write_all(if next(&mut state).is_multiple_of(3) {
                            &piece[..cut]
                        } else {
                            piece
                        });
                    }
                    match next(&mut state) % 3 {
                        0 => drop(wire.stream.shutdown(std::net::Shutdown::Write)),
                        1 => continue,
                        _ => {}
                    }
                    wire.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                    let _ = wire.rest();
                }
            })
        })
        .collect();
    let mut wire = proxy.wire();
    while !attackers.iter().all(std::thread::JoinHandle::is_finished) {
        assert_eq!(wire.get("/sane").unwrap().text(), "sane");
    }
    crate::support::eventually("nothing of it is left", || {
        proxy.in_flight("mad") == 0 && proxy.stats().series.iter().all(|series| series.in_flight == 0)
    });
}

#[test]
fn an_instance_that_does_not_answer_is_504() {
    let origin = Origin::raw(crate::support::free_addr(), |stream| {
        std::thread::sleep(crate::support::HANG);
        drop(stream);
    });
    let mut proxy = Proxy::start();
    let mut deaf = service(&[("i", origin.addr)]);
    deaf.timeouts.response_head_ms = 100;
    proxy.serve(deaf);
    assert_eq!(proxy.wire().get("/").unwrap().status(), 504);
}

/// How long a service may think is not how long a body may pause.
#[test]
fn early_hints_change_nothing_about_how_long_an_answer_is_waited_for() {
    let origin = Origin::raw(crate::support::free_addr(), |mut stream| {
        let mut head = [0; 1024];
        let read = stream.read(&mut head).unwrap();
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").unwrap();
        match head[..read].starts_with(b"GET /late ") {
            true => std::thread::sleep(Duration::from_millis(600)),
            false => std::thread::sleep(crate::support::HANG),
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    let mut proxy = Proxy::start();
    for (target, response_head_ms, body_idle_ms, status) in
        [("/late", 10_000, 200, 200), ("/never", 200, 60_000, 504)]
    {
        let mut thoughtful = service(&[("i", origin.addr)]);
        thoughtful.timeouts.response_head_ms = response_head_ms;
        thoughtful.timeouts.body_idle_ms = body_idle_ms;
        proxy.serve(thoughtful);
        let mut wire = proxy.wire();
        assert_eq!(wire.get(target).unwrap().status(), 103, "{target}");
        assert_eq!(wire.read().unwrap().status(), status, "{target}");
    }
}

#[test]
fn answers_that_break_http_are_502() {
    let (_proxy, mut wire) = one(|request| match request.target() {
        "/both" => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ),
        "/lf" => Reply::Bytes(b"HTTP/1.1 200 OK\n\n".to_vec()),
        "/101" => Reply::Bytes(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_vec()),
        _ => Reply::Last(b"SSH-2.0-x\r\n".to_vec()),
    });
    for target in ["/both", "/lf", "/101", "/ssh"] {
        assert_eq!(wire.get(target).unwrap().status(), 502, "{target}");
    }
}

#[test]
fn bytes_that_nobody_asked_for_are_nobodys_answer() {
    let (_proxy, mut wire) = one(|_| {
        Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
                .to_vec(),
        )
    });
    for _ in 0..20 {
        assert_eq!(wire.get("/").unwrap().text(), "ok");
    }
}
