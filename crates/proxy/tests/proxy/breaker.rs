//! A service that hangs has as many requests as it may have, and no more; the others wait, are told, and are served
//! again as soon as there is room.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use fairway_proxy::control::Cause;
use fairway_proxy::snapshot::{Breaker, Hold};

use crate::support::*;

/// Answers `/held` when the test lets go, everything else at once.
fn hanging() -> (Origin, mpsc::Sender<()>) {
    let (release, held) = mpsc::channel();
    let held = Mutex::new(held);
    let origin = Origin::start(move |request| {
        if request.target() == "/held" {
            let _ = held.lock().unwrap().recv();
        }
        ok("x")
    });
    (origin, release)
}

/// With one core, which counts exactly.
fn one_core() -> Proxy {
    Proxy::start_with(|options| options.workers = NonZeroUsize::new(1))
}

fn hold(proxy: &Proxy, count: u64) -> Vec<Wire> {
    let before = proxy.in_flight("i");
    let held = (0..count).map(|_| {
        let mut wire = proxy.wire();
        wire.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
        wire
    });
    let held = held.collect();
    eventually("they are at the instance", || proxy.in_flight("i") == before + count);
    held
}

#[test]
fn a_service_that_hangs_is_full_and_others_are_unharmed_and_it_recovers() {
    let ((origin, release), other) = (hanging(), Origin::start(|_| ok("other")));
    let mut proxy = one_core();
    let mut bounded = service(&[("i", origin.addr)]);
    bounded.breaker = Breaker { per_instance: Some(2), requests: None };
    bounded.hold = Hold { max_requests: 100, max_wait_ms: 200 };
    proxy.serve_with(bounded, |snapshot| {
        snapshot.services.insert("other".to_owned(), service(&[("o", other.addr)]));
        snapshot.routes.push(route("/other", "other"));
    });
    let mut held = hold(&proxy, 2);
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = proxy.wire().get("/").unwrap();
        assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("2")));
        assert!(answer.text().contains("as many requests are under way as may be"), "{}", answer.text());
        assert!(begun.elapsed() >= Duration::from_millis(200));
        assert_eq!(proxy.wire().get("/other").unwrap().text(), "other");
    }
    assert_eq!(proxy.in_flight("i"), 2);
    eventually("they are counted", || {
        proxy.stats().version("s", "r1").errors.get(&Cause::Breaker) == Some(&3)
    });
    drop(release);
    for wire in &mut held {
        assert_eq!(wire.read().unwrap().status(), 200);
    }
    for _ in 0..10 {
        assert_eq!(proxy.wire().get("/").unwrap().status(), 200);
    }
}

#[test]
fn those_who_wait_go_one_after_another_as_soon_as_there_is_room() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, peak) = (Arc::clone(&now), Arc::clone(&most));
    let origin = Origin::start(move |_| {
        peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        inside.fetch_sub(1, Ordering::SeqCst);
        ok("x")
    });
    let mut proxy = one_core();
    let mut bounded = service(&[("i", origin.addr)]);
    bounded.breaker = Breaker { per_instance: Some(1), requests: None };
    proxy.serve(bounded);
    let addr = proxy.addr;
    let begun = Instant::now();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            std::thread::spawn(move || {
                let mut wire = crate::support::Wire::open(addr);
                (0..10).for_each(|_| assert_eq!(wire.get("/").unwrap().status(), 200));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(most.load(Ordering::SeqCst), 1);
    // With nobody woken they would look every 50 ms: 200 requests would take ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn an_instance_that_is_full_leaves_the_work_to_the_others() {
    let ((origin, release), other) = (hanging(), Origin::start(|_| ok("other")));
    let mut proxy = one_core();
    let mut bounded = service(&[("i", origin.addr)]);
    bounded.breaker = Breaker { per_instance: Some(1), requests: None };
    proxy.serve(bounded.clone());
    let _held = hold(&proxy, 1);
    bounded.versions.insert("r1".to_owned(), version(100, &[("i", origin.addr), ("o", other.addr)]));
    proxy.serve(bounded);
    for _ in 0..20 {
        assert_eq!(proxy.wire().get("/").unwrap().text(), "other");
    }
    drop(release);
}

#[test]
fn a_service_has_a_bound_over_all_its_instances() {
    let ((origin, release), other) = (hanging(), Origin::start(|_| ok("other")));
    let mut proxy = one_core();
    let mut bounded = service(&[("i", origin.addr)]);
    bounded.breaker = Breaker { per_instance: None, requests: Some(1) };
    // Nobody waits.
    bounded.hold = Hold { max_requests: 0, max_wait_ms: 5_000 };
    proxy.serve(bounded.clone());
    let _held = hold(&proxy, 1);
    bounded.versions.insert("r1".to_owned(), version(100, &[("i", origin.addr), ("o", other.addr)]));
    proxy.serve(bounded.clone());
    let begun = Instant::now();
    assert_eq!(proxy.wire().get("/").unwrap().status(), 503);
    assert!(begun.elapsed() < Duration::from_secs(4), "nobody waits");
    bounded.breaker = Breaker::default();
    proxy.serve(bounded);
    let answers: Vec<String> = (0..20).map(|_| proxy.wire().get("/").unwrap().text()).collect();
    assert!(answers.iter().any(|answer| answer == "other"), "{answers:?}");
    drop(release);
}

#[test]
fn whoever_is_refused_is_told_why_in_the_log() {
    let (origin, release) = hanging();
    let mut proxy = one_core();
    let mut bounded = service(&[("i", origin.addr)]);
    bounded.breaker = Breaker { per_instance: Some(1), requests: None };
    bounded.hold = Hold { max_requests: 0, max_wait_ms: 5_000 };
    proxy.serve_with(bounded, |snapshot| snapshot.access_log = true);
    let held = hold(&proxy, 1);
    assert_eq!(proxy.wire().get("/").unwrap().status(), 503);
    drop((held, release));
    let dir = proxy.stop();
    let log = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    assert!(
        log.lines().any(|line| line.contains("\"status\":503") && line.contains("\"error\":\"breaker\"")),
        "{log}"
    );
}
