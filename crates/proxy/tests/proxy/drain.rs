//! The end of a process and of a listener.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairway_proxy::ExitReason;
use fairway_proxy::control::{Event, RejectReason, StatusClass};

use crate::support::{Origin, Proxy, Wire, eventually, listener, ok, service};

#[test]
fn a_drain_answers_what_is_open_and_then_ends() {
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |request| {
        if request.target() == "/slow" {
            gate.lock().unwrap().recv().unwrap();
        }
        ok("done")
    });
    let mut proxy = Proxy::start_with(|options| options.limits.idle_drain = Duration::from_secs(5));
    proxy.serve(service(&[("i", origin.addr)]));
    let (mut busy, mut idle, mut fresh) = (proxy.wire(), proxy.wire(), proxy.wire());
    idle.get("/").unwrap();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the slow request arrived", || proxy.in_flight("i") == 1);
    eventually("all are accepted", || proxy.stats().connections_accepted == 3);
    proxy.shutdown();
    eventually("nobody new gets in", || TcpStream::connect(proxy.addr).is_err());
    let refused = proxy.snapshot(service(&[]));
    assert_eq!(proxy.apply(&refused).unwrap_err().reason, RejectReason::Draining);
    // Rule 3: both get an answer, and learn from it that it was the last.
    for wire in [&mut idle, &mut fresh] {
        let answer = wire.get("/").unwrap();
        assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
        assert_eq!(wire.rest().unwrap(), b"");
    }
    release.send(()).unwrap();
    let answer = busy.read().unwrap();
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("done", Some("close")));
    drop((busy, idle, fresh));
    assert_eq!(proxy.join(), ExitReason::Drained);
}

#[test]
fn idle_connections_end_with_the_idle_time_of_a_drain() {
    let origin = Origin::start(|_| ok(""));
    let mut proxy = Proxy::start_with(|options| options.limits.idle_drain = Duration::from_millis(100));
    proxy.serve(service(&[("i", origin.addr)]));
    let mut idle = proxy.wire();
    idle.get("/").unwrap();
    proxy.shutdown();
    assert_eq!(idle.rest().unwrap(), b"", "closed in good order");
    drop(idle);
    assert_eq!(proxy.join(), ExitReason::Drained);
}

#[test]
fn an_instance_that_came_back_in_between_is_drained_once_and_last() {
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |request| {
        if request.target() == "/slow" {
            gate.lock().unwrap().recv().unwrap();
        }
        ok("")
    });
    let mut proxy = Proxy::start();
    let mut events = proxy.events();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut slow = proxy.wire();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is on its way", || proxy.in_flight("i") == 1);
    for _ in 0..3 {
        proxy.serve(service(&[]));
        proxy.serve(service(&[("i", origin.addr)]));
        assert_eq!(proxy.wire().get("/").unwrap().status(), 200);
    }
    proxy.serve(service(&[]));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(proxy.in_flight("i"), 1);
    release.send(()).unwrap();
    slow.read().unwrap();
    assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "i".into() });
    let mut marker = proxy.snapshot(service(&[("j", origin.addr)]));
    proxy.apply(&marker).unwrap();
    marker = proxy.snapshot(service(&[]));
    proxy.apply(&marker).unwrap();
    assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "j".into() }, "said once");
}

#[test]
fn a_drain_has_a_cap() {
    let (_release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |_| {
        let _ = gate.lock().unwrap().recv();
        ok("")
    });
    let mut proxy = Proxy::start_with(|options| options.limits.drain = Duration::from_millis(200));
    proxy.serve(service(&[("i", origin.addr)]));
    let mut wire = proxy.wire();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request arrived", || proxy.in_flight("i") == 1);
    let begun = Instant::now();
    proxy.shutdown();
    assert_eq!(proxy.join(), ExitReason::DrainCapped { connections: 1 });
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn drains_under_load_lose_nothing_that_was_accepted() {
    let origin = Origin::start(|request| ok(&request.body));
    for round in 0..4 {
        let mut proxy = Proxy::start();
        proxy.serve(service(&[("i", origin.addr)]));
        let addr = proxy.addr;
        let clients: Vec<_> = (0..4)
            .map(|client| {
                std::thread::spawn(move || {
                    let mut answered = 0;
                    while let Ok(stream) = TcpStream::connect(addr) {
                        drop(stream);
                        let Ok(stream) = TcpStream::connect(addr) else { break };
                        drop(stream);
                        let mut wire = Wire::open(addr);
                        for _ in 0..3 {
                            let answer = wire.post("/", b"x").unwrap();
                            assert_eq!(answer.status(), 200);
                            answered += 1;
                            if answer.field("connection") == Some("close") {
                                return answered;
                            }
                        }
                        if client == 3 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                    answered
                })
            })
            .collect();
        let wanted = 50 + round * 40;
        eventually("there is load", || {
            proxy.stats().version("s", "r1").requests.get(&StatusClass::Success).copied().unwrap_or(0)
                > wanted
        });
        proxy.shutdown();
        proxy.join();
        for client in clients {
            // Wire::open races with the closing socket in this test itself, and only there may it be refused.
            if let Err(panic) = client.join() {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                assert!(text.contains("ConnectionRefused"), "round {round}: {text}");
            }
        }
    }
}

#[test]
fn a_listener_that_is_removed_ends_alone() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    let mut both = proxy.snapshot(service(&[("i", origin.addr)]));
    let other = crate::support::free_addr();
    both.listeners.push(listener("other", other));
    let mut twin = both.routes[0].clone();
    twin.listener = "other".into();
    both.routes.push(twin);
    proxy.apply(&both).unwrap();
    let (mut stays, mut goes) = (proxy.wire(), Wire::open(other));
    stays.get("/").unwrap();
    goes.get("/").unwrap();
    proxy.serve(service(&[("i", origin.addr)]));
    eventually("its address is closed", || TcpStream::connect(other).is_err());
    assert_eq!(goes.rest().unwrap(), b"", "idle connections end in good order");
    assert_eq!(stays.get("/").unwrap().field("connection"), None);
}

#[test]
fn a_listener_keeps_its_queue_when_it_is_renamed() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let failures = Arc::new(Mutex::new(Vec::new()));
    let (addr, seen) = (proxy.addr, Arc::clone(&failures));
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let client = std::thread::spawn(move || {
        let mut asked = 0;
        // As long as there are swaps, however long each takes on a busy disk.
        while !ends.load(Ordering::Relaxed) {
            match Wire::open(addr).get("/").map(|answer| answer.status()) {
                Ok(200) => {}
                other => seen.lock().unwrap().push(format!("{asked}: {other:?}")),
            }
            asked += 1;
        }
        asked
    });
    for swap in 0..20 {
        let mut renamed = proxy.snapshot(service(&[("i", origin.addr)]));
        renamed.listeners[0].name = format!("web{swap}");
        renamed.routes[0].listener = format!("web{swap}");
        proxy.apply(&renamed).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    is_over.store(true, Ordering::Relaxed);
    let asked = client.join().unwrap();
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new());
    assert!(asked > 20, "only {asked} connections met 20 swaps");
}
