//! One process after the other on the same sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc::channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fairway_proxy::control::{Client, Event, RejectReason};
use fairway_proxy::snapshot::ActiveHealth;
use fairway_proxy::{ExitReason, RunError, RunOptions};

use crate::support::{Origin, Proxy, Wire, eventually, ok, service};

fn successor(options: RunOptions) -> JoinHandle<Result<ExitReason, RunError>> {
    std::thread::spawn(move || fairway_proxy::run(options))
}

fn options(proxy: &Proxy) -> RunOptions {
    let mut options = RunOptions::new(proxy.dir.path());
    options.workers = NonZeroUsize::new(2);
    options.handle_signals = false;
    options.take_over = true;
    options.limits.idle_drain = Duration::from_millis(200);
    options.limits.handshake = Duration::from_millis(50);
    options
}

fn connect(proxy: &Proxy) -> Client {
    proxy.runtime.block_on(Client::connect(proxy.dir.path().join("proxy.sock"))).unwrap()
}

#[test]
fn ten_upgrades_under_load_lose_nothing() {
    let origin = Origin::start(|request| ok(&request.body));
    let metrics = crate::support::free_addr();
    let mut proxy = Proxy::start_with(|options| options.metrics_addr = Some(metrics));
    let mut checked = service(&[("i", origin.addr)]);
    checked.health =
        Some(ActiveHealth { path: "/".into(), interval_ms: 50, timeout_ms: 5_000, rise: 1, fall: 3 });
    proxy.serve(checked);
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let addr = proxy.addr;
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || {
                let mut wire = Wire::open(addr);
                while !stop.load(Ordering::SeqCst) {
                    if client % 2 == 0 {
                        wire = Wire::open(addr);
                    }
                    let answer = wire.post("/", b"x").unwrap();
                    assert_eq!(answer.status(), 200);
                    if answer.field("connection") == Some("close") {
                        wire = Wire::open(addr);
                    }
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut current = None;
    for upgrade in 0..10 {
        let before = sent.load(Ordering::SeqCst);
        eventually("there is load", || sent.load(Ordering::SeqCst) > before + 50);
        let mut options = options(&proxy);
        options.metrics_addr = Some(metrics);
        let next = successor(options);
        let ended = match current.replace(next) {
            None => proxy.join(),
            Some(before) => before.join().unwrap().unwrap(),
        };
        assert_eq!(ended, ExitReason::Drained, "upgrade {upgrade}");
        eventually("the successor answers", || {
            let path = proxy.dir.path().join("proxy.sock");
            proxy.runtime.block_on(Client::connect(path)).is_ok_and(|client| client.hello().generation == 1)
        });
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    proxy.runtime.block_on(connect(&proxy).shutdown()).unwrap();
    assert_eq!(current.unwrap().join().unwrap().unwrap(), ExitReason::Drained);
}

#[test]
fn a_successor_that_dies_changes_nothing() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    for _ in 0..3 {
        let path = proxy.dir.path().join("upgrade.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        // It has the sockets, and the snapshot that it would serve must not change under it.
        let next = proxy.snapshot(service(&[("i", origin.addr)]));
        assert_eq!(proxy.apply(&next).unwrap_err().reason, RejectReason::HandingOver);
        drop(stream);
        eventually("it goes on alone", || proxy.apply(&next).is_ok());
        assert_eq!(proxy.wire().get("/").unwrap().text(), "x");
    }
}

/// Speaks as a successor does: takes the sockets (and drops them), says `lines`, and hears one line for each.
fn talk(proxy: &Proxy, lines: &[&str]) -> (Vec<String>, std::os::unix::net::UnixStream) {
    let stream = std::os::unix::net::UnixStream::connect(proxy.dir.path().join("upgrade.sock")).unwrap();
    stream.set_read_timeout(Some(crate::support::HANG)).unwrap();
    let mut reader = BufReader::new(&stream);
    let mut header = String::new();
    reader.read_line(&mut header).unwrap();
    assert!(header.contains(r#""sockets":1"#), "{header}");
    let mut byte = [0];
    reader.read_exact(&mut byte).unwrap();
    let mut heard = Vec::new();
    for line in lines {
        (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        heard.push(answer.trim_end().to_owned());
    }
    drop(reader);
    (heard, stream)
}

#[test]
fn a_successor_that_dies_before_it_is_settled_closes_no_port() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    for round in 1..4 {
        let mut events = proxy.events();
        let (heard, stream) = talk(&proxy, &[&format!("READY {round} TRIAL")]);
        assert_eq!(heard, ["GO"]);
        assert_eq!(proxy.wire().get("/").unwrap().text(), "x", "it accepts until the other one is settled");
        let next = proxy.snapshot(service(&[("i", origin.addr)]));
        assert_eq!(proxy.apply(&next).unwrap_err().reason, RejectReason::HandingOver, "one table, not two");
        drop(stream);
        eventually("it goes on alone", || proxy.apply(&next).is_ok());
        assert_eq!(proxy.wire().get("/").unwrap().text(), "x");
        assert_eq!(connect(&proxy).hello().source, proxy.client.hello().source, "and is found as before");
        let quiet = async { tokio::time::timeout(Duration::from_millis(20), events.next()).await };
        assert!(proxy.runtime.block_on(quiet).is_err(), "its clients have not noticed");
    }
}

#[test]
fn a_successor_that_says_something_else_is_told_that_it_is_not_needed() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    assert_eq!(talk(&proxy, &["READY 7 TRIAL"]).0, ["BACK"]);
    assert_eq!(talk(&proxy, &["READY 1 TRIAL", "SETTLED, I think"]).0, ["GO", "BACK"]);
    assert_eq!(proxy.wire().get("/").unwrap().text(), "x");
}

#[test]
fn a_successor_from_before_the_trial_is_let_go_at_once() {
    let mut proxy = Proxy::start();
    proxy.serve(service(&[]));
    let (heard, _stream) = talk(&proxy, &["READY 1"]);
    assert_eq!(heard, ["GO"]);
    assert_eq!(proxy.join(), ExitReason::Drained);
}

#[test]
fn a_successor_that_is_not_let_has_accepted_nobody() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    // The check does not end, so that the successor waits with the sockets in its hands.
    let over = Arc::new(AtomicBool::new(false));
    let checked = Arc::clone(&over);
    let silent = Origin::raw(crate::support::free_addr(), move |_stream| {
        while !checked.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut checked = service(&[("i", origin.addr), ("silent", silent.addr)]);
    checked.health =
        Some(ActiveHealth { path: "/".into(), interval_ms: 60_000, timeout_ms: 60_000, rise: 1, fall: 1 });
    proxy.serve(checked);
    let next = successor(options(&proxy));
    let beside = proxy.dir.path().join("proxy.sock.new");
    eventually("it has the sockets", || beside.exists());
    let before = proxy.stats().connections_accepted;
    for round in 1..=50 {
        // Whoever accepts answers; the instance that is silent is asked by nobody before it was checked.
        drop(proxy.wire());
        eventually("the predecessor accepts", || proxy.stats().connections_accepted >= before + round);
    }
    proxy.shutdown();
    over.store(true, Ordering::SeqCst);
    let error = next.join().unwrap().unwrap_err();
    assert!(matches!(error, RunError::TakeOver(_)), "{error}");
    assert_eq!(proxy.join(), ExitReason::Drained);
}

#[test]
fn without_a_predecessor_a_successor_just_starts() {
    let proxy = Proxy::start_with(|options| options.take_over = true);
    proxy.runtime.block_on(proxy.client.ping()).unwrap();
}

#[test]
fn a_drain_is_not_reported_while_the_predecessor_may_use_the_instance() {
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |_| {
        gate.lock().unwrap().recv().unwrap();
        ok("slow")
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut wire = proxy.wire();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is on its way", || proxy.in_flight("i") == 1);
    let mut old_events = proxy.events();
    let next = successor(options(&proxy));
    assert_eq!(proxy.runtime.block_on(old_events.next()), None, "clients are sent to the successor");
    eventually("the successor answers", || {
        let path = proxy.dir.path().join("proxy.sock");
        proxy.runtime.block_on(Client::connect(path)).is_ok()
    });
    proxy.client = connect(&proxy);
    let mut events = proxy.events();
    proxy.serve(service(&[]));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(proxy.in_flight("i"), 1, "the predecessor still has it");
    release.send(()).unwrap();
    assert_eq!(wire.read().unwrap().text(), "slow");
    drop(wire);
    assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "i".into() });
    assert_eq!(proxy.in_flight("i"), 0);
    assert_eq!(proxy.join(), ExitReason::Drained);
    proxy.runtime.block_on(connect(&proxy).shutdown()).unwrap();
    assert_eq!(next.join().unwrap().unwrap(), ExitReason::Drained);
}

#[test]
fn an_end_is_not_told_before_the_predecessors_predecessor_has_ended() {
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |_| {
        gate.lock().unwrap().recv().unwrap();
        ok("slow")
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut wire = proxy.wire();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is on its way", || proxy.in_flight("i") == 1);
    let mut pid_and_source = proxy.client.hello().source;
    let mut successors = Vec::new();
    for _ in 0..2 {
        successors.push(successor(options(&proxy)));
        eventually("the successor answers", || {
            let path = proxy.dir.path().join("proxy.sock");
            let source = proxy.runtime.block_on(Client::connect(path)).map(|client| client.hello().source);
            source.is_ok_and(|source| std::mem::replace(&mut pid_and_source, source) != source)
        });
    }
    proxy.client = connect(&proxy);
    let mut events = proxy.events();
    proxy.serve(service(&[]));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(proxy.in_flight("i"), 1, "the first of the three still has it");
    release.send(()).unwrap();
    assert_eq!(wire.read().unwrap().text(), "slow");
    drop(wire);
    assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "i".into() });
    assert_eq!(proxy.join(), ExitReason::Drained);
    proxy.runtime.block_on(connect(&proxy).shutdown()).unwrap();
    for successor in successors {
        assert_eq!(successor.join().unwrap().unwrap(), ExitReason::Drained);
    }
}

#[test]
fn a_successor_that_cannot_read_the_snapshot_leaves_it_to_the_predecessor() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let saved = proxy.dir.path().join("snapshot.json");
    let of_another_version = br#"{"generation":"one"}"#;
    std::fs::write(&saved, of_another_version).unwrap();
    let error = successor(options(&proxy)).join().unwrap().unwrap_err();
    assert!(matches!(error, RunError::TakeOver(_)), "{error}");
    assert_eq!(std::fs::read(&saved).unwrap(), of_another_version, "it is the predecessor's file");
    assert_eq!(proxy.wire().get("/").unwrap().text(), "x");
    let next = proxy.snapshot(service(&[("i", origin.addr)]));
    eventually("it takes snapshots again", || proxy.apply(&next).is_ok());
}
