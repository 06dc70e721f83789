//! What a version is judged by: who is counted, as what, and who hears of it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use fairway_proxy::control::{Cause, Chosen, Event, LATENCY_BOUNDS_US, Stats, StatusClass};
use fairway_proxy::snapshot::{Listener, Match, Purpose, Service, Sticky};

use crate::support::{Origin, Proxy, Reply, Wire, eventually, free_addr, ok, route, service, version};

fn failing() -> Origin {
    Origin::start(|_| Reply::Bytes(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec()))
}

/// Every second request goes to `r2`, and all of those with `X-Tester: yes`.
fn half(stable: &Origin, canary: &Origin) -> Service {
    let mut both = service(&[]);
    both.versions.insert("r1".into(), version(50, &[("one", stable.addr)]));
    let mut tested = version(50, &[("two", canary.addr)]);
    tested.matches = vec![Match::Header { name: "x-tester".into(), value: "yes".into() }];
    both.versions.insert("r2".into(), tested);
    both
}

fn one_core() -> Proxy {
    Proxy::start_with(|options| options.workers = NonZeroUsize::new(1))
}

fn chosen(stats: &Stats, version: &str) -> BTreeMap<Chosen, u64> {
    let of_version = stats.series.iter().filter(|series| series.version == version);
    let counted = of_version.filter(|series| series.requests_total() > 0);
    counted.map(|series| (series.chosen, series.requests_total())).collect()
}

#[test]
fn testers_previews_and_services_among_themselves_are_told_apart() {
    let (stable, canary) = (Origin::start(|_| ok("one")), Origin::start(|_| ok("two")));
    let (internal, preview) = (free_addr(), free_addr());
    let mut proxy = one_core();
    let mut both = half(&stable, &canary);
    both.sticky = Some(Sticky { cookie: "side".into(), max_age_s: None });
    let mut snapshot = proxy.snapshot(both);
    for (name, addr, purpose) in
        [("internal", internal, Purpose::Internal), ("preview", preview, Purpose::Preview)]
    {
        snapshot.listeners.push(Listener::new(name, addr, purpose));
        let mut pinned = route("/", "s");
        pinned.listener = name.into();
        pinned.pin = Some("r2".into());
        snapshot.routes.push(pinned);
    }
    proxy.apply(&snapshot).unwrap();
    let mut wire = proxy.wire();
    let mut ask = |times: usize, fields: &str| {
        for _ in 0..times {
            wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            wire.read().unwrap();
        }
    };
    ask(10, "");
    ask(3, "Cookie: side=r2\r\n");
    ask(7, "X-Tester: yes\r\nCookie: side=r1\r\n");
    for (addr, times) in [(internal, 20), (preview, 30)] {
        let mut wire = Wire::open(addr);
        (0..times).for_each(|_| drop(wire.get("/").unwrap()));
    }
    eventually("all are counted", || proxy.stats().version("s", "r2").requests_total() == 65);
    let stats = proxy.stats();
    let expect = [(Chosen::Weight, 8), (Chosen::Match, 7), (Chosen::Only, 20), (Chosen::Preview, 30)];
    assert_eq!(chosen(&stats, "r2"), BTreeMap::from(expect));
    assert_eq!(chosen(&stats, "r1"), BTreeMap::from([(Chosen::Weight, 5)]));
    let arm = stats.arm("s", "r2");
    assert_eq!((arm.requests, arm.latency.iter().sum::<u64>(), arm.errors), (28, 28, 0));
}

#[test]
fn arms_are_the_sums_that_the_figures_have() {
    let (stable, canary) = (Origin::start(|_| ok("one")), failing());
    let mut proxy = one_core();
    let mut snapshot = proxy.snapshot(half(&stable, &canary));
    let mut other = half(&stable, &canary);
    for (name, version) in &mut other.versions {
        version.instances[0].id = format!("other-{name}");
    }
    snapshot.services.insert("t".into(), other);
    snapshot.routes.push(route("/t", "t"));
    proxy.apply(&snapshot).unwrap();
    let mut wire = proxy.wire();
    for target in ["/", "/t"] {
        (0..20).for_each(|_| drop(wire.get(target).unwrap()));
    }
    let arms = |services: &[String]| proxy.runtime.block_on(proxy.client.arms(services)).unwrap();
    eventually("all are counted", || arms(&[]).arms.iter().map(|arm| arm.requests).sum::<u64>() == 40);
    let (all, stats) = (arms(&[]), proxy.stats());
    let names: Vec<_> = all.arms.iter().map(|arm| (&*arm.service, &*arm.version)).collect();
    assert_eq!(names, [("s", "r1"), ("s", "r2"), ("t", "r1"), ("t", "r2")]);
    for arm in &all.arms {
        assert_eq!(*arm, stats.arm(&arm.service, &arm.version));
    }
    let bad = all.get("s", "r2").unwrap();
    assert_eq!((bad.requests, bad.errors), (10, 10));
    assert!((1..=10).contains(&bad.error_bursts), "{bad:?}");
    assert_eq!(all.get("s", "r1").unwrap().errors, 0);
    assert_eq!(arms(&["t".to_owned()]).arms, all.arms[2..]);
    assert_eq!(arms(&["u".to_owned()]).arms, []);
    assert_eq!((all.source, all.generation), (stats.source, 1));
    assert_eq!(proxy.client.hello().source, all.source);
    assert_ne!(all.source, 0);
}

#[test]
fn failures_of_one_client_in_one_second_are_one_burst() {
    let begun = Instant::now();
    let count = |trusted: bool| {
        let origin = failing();
        let mut proxy = Proxy::start();
        let trusted_proxies = trusted.then(|| "127.0.0.0/8".to_owned()).into_iter().collect();
        proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
            snapshot.listeners[0].trusted_proxies = trusted_proxies;
        });
        // Several connections: they are on different cores, and one client all the same.
        for _ in 0..10 {
            let mut wire = proxy.wire();
            for client in 0..20 {
                wire.send(format!(
                    "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.{client}\r\n\r\n"
                ));
                assert_eq!(wire.read().unwrap().status(), 500);
            }
        }
        eventually("all are counted", || proxy.stats().arm("s", "r1").errors == 200);
        proxy.stats().arm("s", "r1").error_bursts
    };
    // The addresses of the 20 fall into 20 slots.
    let (known, unknown) = (count(true), count(false));
    let seconds = begun.elapsed().as_secs() + 2;
    assert!((20..=20 * seconds).contains(&known), "{known} in {seconds} s");
    assert!((1..=seconds).contains(&unknown), "{unknown} in {seconds} s");
    assert!(unknown < 20, "the machine is too slow for this test to tell anything");
}

#[test]
fn only_what_the_version_did_is_its_failure() {
    let origin = Origin::start(|request| match request.target() {
        "/short" => Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()),
        "/closed" => Reply::Last(Vec::new()),
        "/missing" => Reply::Bytes(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".to_vec()),
        _ => ok("fine"),
    });
    let mut proxy = one_core();
    proxy.serve(service(&[("i", origin.addr)]));
    let stats = || proxy.stats().version("s", "r1");
    let mut leaving = proxy.wire();
    leaving.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    eventually("it is under way", || stats().in_flight == 1);
    drop(leaving);
    eventually("it is counted", || stats().unanswered == 1);
    assert_eq!((stats().failed, stats().errors[&Cause::ClientClosed]), (0, 1), "the client left");
    assert_eq!(proxy.wire().get("/missing").unwrap().status(), 404);
    eventually("it is counted", || stats().requests.contains_key(&StatusClass::ClientError));
    assert_eq!(stats().failed, 0, "a missing page is an answer");
    proxy.wire().get("/short").unwrap_err();
    eventually("a short answer is a failure", || stats().failed == 1);
    assert_eq!(proxy.wire().post("/closed", b"x").unwrap().status(), 502);
    eventually("no answer is a failure", || stats().failed == 2);
    let mut nobody = service(&[]);
    nobody.hold.max_requests = 0;
    proxy.serve(nobody);
    assert_eq!(proxy.wire().get("/").unwrap().status(), 503);
    eventually("no instance is a failure", || proxy.stats().version("s", "r1").failed == 3);
}

#[test]
fn a_stream_that_a_drain_ended_is_neither_a_failure_nor_slow() {
    let origin = Origin::start(|_| {
        Reply::Echo(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n".to_vec())
    });
    let mut proxy = one_core();
    let mut stream = service(&[("sse", origin.addr)]);
    stream.timeouts.stream_drain_ms = 50;
    proxy.serve(stream);
    let mut wire = proxy.wire();
    let asked = Instant::now();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.bytes(20).unwrap();
    let answered = asked.elapsed();
    // Streams go on for as long as their client likes, which does not make a version slow.
    std::thread::sleep(answered * 3 + Duration::from_millis(300));
    proxy.serve(service(&[]));
    eventually("it ended", || proxy.stats().version("s", "r1").requests_total() == 1);
    let stats = proxy.stats().version("s", "r1");
    assert_eq!((stats.errors[&Cause::Truncated], stats.failed), (1, 0));
    // The bucket of the head, or one below it, as the client saw it later than the proxy sent it.
    let answered_us = answered.as_micros() as u64;
    let of_answer = LATENCY_BOUNDS_US.iter().position(|bound| answered_us <= *bound).unwrap();
    assert_eq!(stats.latency[..=of_answer].iter().sum::<u64>(), 1, "{answered:?}: {:?}", stats.latency);
}

#[test]
fn whoever_listens_hears_of_a_failure_at_once_and_not_too_often() {
    let (stable, canary) = (failing(), failing());
    let mut proxy = one_core();
    proxy.serve(half(&stable, &canary));
    let mut events = proxy.events();
    let mut wire = proxy.wire();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nX-Tester: yes\r\n\r\n");
    wire.read().unwrap();
    eventually("it is counted", || proxy.stats().version("s", "r2").failed == 1);
    let said = |version: &str| Event::Failing { service: "s".into(), version: version.into() };
    wire.get("/").unwrap();
    assert_eq!(proxy.next_event(&mut events), said("r1"), "the tester's is nobody else's business");
    let begun = Instant::now();
    let mut heard: Vec<Event> = Vec::new();
    while begun.elapsed() < Duration::from_millis(450) {
        wire.get("/").unwrap();
        let soon = async { tokio::time::timeout(Duration::from_millis(1), events.next()).await };
        heard.extend(proxy.runtime.block_on(soon).ok().flatten());
    }
    let most = 1 + begun.elapsed().as_millis() as usize / 100;
    assert!((2..=most).contains(&heard.len()), "{} in {:?}", heard.len(), begun.elapsed());
    assert!(heard.contains(&said("r1")) && heard.contains(&said("r2")), "both take turns: {heard:?}");
}

#[test]
fn new_visitors_are_shared_out_exactly_and_each_stays_on_one_side() {
    let (stable, canary) = (Origin::start(|_| ok("r1")), Origin::start(|_| ok("r2")));
    let mut proxy = one_core();
    let mut both = half(&stable, &canary);
    both.sticky = Some(Sticky { cookie: "side".into(), max_age_s: None });
    let mut visitors: Vec<(Wire, String)> = Vec::new();
    for (weight, share) in [(5, 5), (50, 50), (20, 20)] {
        both.versions.get_mut("r1").unwrap().weight = 100 - weight;
        both.versions.get_mut("r2").unwrap().weight = weight;
        proxy.serve(both.clone());
        // Whoever came before stays where he was, whatever the weights are now, and takes nobody's share.
        let mut new = 0;
        for n in 0..100 {
            for (wire, side) in &mut visitors {
                wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: side={side}\r\n\r\n"));
                assert_eq!(wire.read().unwrap().text(), *side);
            }
            let mut wire = proxy.wire();
            let answer = wire.get("/").unwrap();
            let side = answer.text();
            assert_eq!(answer.field("set-cookie").unwrap().split(';').next(), Some(&*format!("side={side}")));
            new += u32::from(side == "r2");
            if n % 20 == 0 {
                visitors.push((wire, side));
            }
        }
        assert_eq!(new, share);
    }
    // The end of the experiment: nobody is kept on a side that gets nothing.
    both.versions.get_mut("r2").unwrap().weight = 0;
    proxy.serve(both);
    for (wire, side) in &mut visitors {
        wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: side={side}\r\n\r\n"));
        assert_eq!(wire.read().unwrap().text(), "r1");
    }
}
