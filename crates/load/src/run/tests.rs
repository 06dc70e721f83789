//! Runs against a small server that misbehaves on purpose, over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::{Body, Kind, Phase, Share};

/// Accepts until dropped; every connection gets a thread that runs the script.
struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(script: impl Fn(Peer) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (stop, script) = (Arc::clone(&over), Arc::new(script));
        let thread = std::thread::spawn(move || {
            let mut peers = Vec::new();
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (peer, script) = (Peer(stream.unwrap()), Arc::clone(&script));
                peers.push(std::thread::spawn(move || script(peer)));
            }
            for peer in peers {
                peer.join().unwrap();
            }
        });
        Server { address, over, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

struct Peer(TcpStream);

struct Received {
    head: String,
    body: String,
}

impl Received {
    fn id(&self) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap()
    }
}

impl Peer {
    /// `None` when the client closed.
    fn receive(&mut self) -> Option<Received> {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8(bytes.clone()).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Content-Length: "))
                    .map_or(0, |length| length.parse().unwrap());
                if body.len() >= length {
                    assert_eq!(body.len(), length, "the client sends one request at a time");
                    return Some(Received { head: head.to_owned(), body: body.to_owned() });
                }
            }
            match self.0.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
            }
        }
    }

    fn send(&mut self, bytes: &str) {
        // The client may have given up; that is for its report to say.
        drop(self.0.write_all(bytes.as_bytes()));
    }

    fn answer(&mut self, received: &Received, version: &str) {
        self.send(&format!(
            "HTTP/1.1 200 OK\r\nx-request-id: {}\r\nx-shop-version: {version}\r\nContent-Length: 2\r\n\r\nok",
            received.id()
        ));
    }

    fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO)).unwrap();
    }

    /// Says nothing more until the client closes.
    fn hang(mut self) {
        while !matches!(self.0.read(&mut [0; 4096]), Ok(0) | Err(_)) {}
    }
}

fn serve_well(mut peer: Peer) {
    while let Some(received) = peer.receive() {
        peer.answer(&received, "v1");
    }
}

/// `count` requests, `every` apart, and one at a time: a stall of the test's machine then
/// delays requests but never makes two of them overlap.
fn plan(target: SocketAddr, kind: Kind, count: u32, every: Duration) -> Plan {
    let mut plan = Plan::new(target);
    plan.mix = vec![Share::new(kind, 1, "/")];
    plan.rate_per_s = 1.0 / every.as_secs_f64();
    plan.until = Until::Elapsed(every * count - every / 2);
    plan.keep_alive_connections = 1;
    plan.in_flight_max = 1;
    plan
}

fn run(plan: Plan) -> Report {
    let report = start(plan).unwrap().wait();
    let tally = &report.total;
    assert_eq!(tally.planned, tally.completed + tally.failed);
    assert_eq!(tally.failed, tally.failed_by.values().sum::<u64>());
    assert_eq!(report.verdict.passed, report.verdict.reasons.is_empty());
    report
}

/// Not the verdict: on a machine that stalls for 100 ms that rightly complains of the rate.
fn assert_none_failed(report: &Report) {
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.total.planned, report.total.completed);
}

/// One request, and why it failed.
fn check_failure(script: impl Fn(Peer) + Send + Sync + 'static, expect: Cause) -> Failure {
    let server = Server::start(script);
    let mut plan = plan(server.address, Kind::FreshPost, 1, Duration::from_millis(10));
    plan.echo = true;
    // Otherwise so far away that a slow machine cannot turn another cause into a timeout.
    let expects_timeout = matches!(expect, Cause::Timeout { .. });
    plan.timeout = Duration::from_millis(if expects_timeout { 80 } else { 30_000 });
    let report = run(plan);
    assert!(!report.verdict.passed);
    assert_eq!(report.total.failed_by, BTreeMap::from([(expect.class(), 1)]));
    assert_eq!(report.failures[0].cause, expect);
    report.failures[0].clone()
}

#[test]
fn all_is_well() {
    let server = Server::start(serve_well);
    let mut plan = Plan::new(server.address);
    plan.mix = Kind::ALL[..4].iter().map(|kind| Share::new(*kind, 1, "/")).collect();
    plan.mix[0].weight = 2;
    plan.rate_per_s = 500.0;
    plan.until = Until::Elapsed(Duration::from_millis(199));
    plan.echo = true;
    let report = run(plan);
    assert_none_failed(&report);
    let kinds: Vec<_> = report.total.kinds.iter().map(|kind| (kind.kind, kind.completed)).collect();
    assert_eq!(
        kinds,
        [(Kind::KeepAliveGet, 40), (Kind::FreshGet, 20), (Kind::KeepAlivePost, 20), (Kind::FreshPost, 20)]
    );
    // 40 fresh requests, and the pool; more only if it was busy.
    assert!(report.connections_opened >= 40 + 16, "{}", report.connections_opened);
    let latency = report.total.latency;
    assert!(latency.p50_us >= report.total.service.p50_us && latency.p50_us <= latency.max_us, "{latency:?}");
    assert_eq!(report.acts[0].versions[0].answers, 100);
}

#[test]
fn a_slow_body_comes_in_pieces_and_whole() {
    let server = Server::start(serve_well);
    let mut plan = plan(server.address, Kind::SlowPost, 3, Duration::from_millis(10));
    plan.slow_post = Duration::from_millis(50);
    plan.echo = true;
    let report = run(plan);
    assert_none_failed(&report);
    let spread = report.total.service;
    assert!(spread.p50_us >= 50_000, "{spread:?}");
    assert_eq!(report.connections_opened, 3);
}

#[test]
fn refused_connection() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = run(plan(target, Kind::FreshGet, 1, Duration::from_millis(10)));
    assert!(matches!(&report.failures[0].cause, Cause::Connect { error } if error.contains("refused")));
    assert_eq!(report.failures[0].cause.class(), FailureClass::Connect);
}

#[test]
fn reset_before_the_answer() {
    check_failure(
        |mut peer| {
            peer.receive();
            peer.reset();
        },
        Cause::Reset { phase: Phase::Head, reused: false },
    );
}

#[test]
fn reset_within_the_head_and_within_the_body() {
    // A reset discards what the client has not read, so it waits until that has been read.
    fn send_then_reset(mut peer: Peer, bytes: &str) {
        peer.receive();
        peer.send(bytes);
        std::thread::sleep(Duration::from_millis(100));
        peer.reset();
    }
    check_failure(
        |peer| send_then_reset(peer, "HTTP/1.1 200 OK\r\nx-a: b"),
        Cause::Reset { phase: Phase::Head, reused: false },
    );
    check_failure(
        |peer| send_then_reset(peer, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        Cause::Reset { phase: Phase::Body, reused: false },
    );
}

#[test]
fn closed_without_an_answer() {
    check_failure(
        |mut peer| {
            peer.receive();
        },
        Cause::Closed { reused: false },
    );
}

#[test]
fn truncated_answers() {
    let failure = check_failure(
        |mut peer| {
            peer.receive();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        },
        Cause::Truncated { phase: Phase::Body, body_bytes: 3, expected_bytes: Some(9) },
    );
    assert_eq!(failure.response_head.as_deref(), Some("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"));
    check_failure(
        |mut peer| {
            peer.receive();
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        },
        Cause::Truncated { phase: Phase::Body, body_bytes: 3, expected_bytes: None },
    );
    check_failure(
        |mut peer| {
            peer.receive();
            peer.send("HTTP/1.1 200 O");
        },
        Cause::Truncated { phase: Phase::Head, body_bytes: 0, expected_bytes: None },
    );
}

#[test]
fn error_statuses() {
    let failure = check_failure(
        |mut peer| {
            peer.receive();
            peer.send("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
        },
        Cause::ServerError { status: 503 },
    );
    assert!(failure.response_head.unwrap().contains("Retry-After: 1"));
    check_failure(
        |mut peer| {
            peer.receive();
            peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        },
        Cause::ClientError { status: 404 },
    );
}

#[test]
fn a_truncated_error_page_is_a_truncation() {
    check_failure(
        |mut peer| {
            peer.receive();
            peer.send("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\n");
        },
        Cause::Truncated { phase: Phase::Body, body_bytes: 0, expected_bytes: Some(5) },
    );
}

#[test]
fn malformed_answer() {
    check_failure(
        |mut peer| {
            peer.receive();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
            peer.hang();
        },
        Cause::Malformed { what: "two different content-lengths".into() },
    );
}

#[test]
fn answer_to_another_request() {
    let server = Server::start(|mut peer| {
        while peer.receive().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nx-request-id: another\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let mut plan = plan(server.address, Kind::FreshGet, 1, Duration::from_millis(10));
    plan.echo = true;
    plan.id_prefix = "t".into();
    let report = run(plan);
    assert_eq!(
        report.failures[0].cause,
        Cause::WrongAnswer { expected: "t-0-fresh-get".into(), got: Some("another".into()) }
    );
}

#[test]
fn timeouts_say_how_far_the_request_had_come() {
    check_failure(
        |mut peer| {
            peer.receive();
            peer.hang();
        },
        Cause::Timeout { phase: Phase::Head },
    );
    check_failure(
        |mut peer| {
            peer.receive();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
            peer.hang();
        },
        Cause::Timeout { phase: Phase::Body },
    );
}

#[test]
fn kept_alive_connection_that_dies_under_a_request_is_a_failure_and_is_not_retried() {
    for (die, expect) in [
        (Peer::reset as fn(Peer), Cause::Reset { phase: Phase::Head, reused: true }),
        (drop as fn(Peer), Cause::Closed { reused: true }),
    ] {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let server = Server::start(move |mut peer| {
            while let Some(received) = peer.receive() {
                if counter.fetch_add(1, Ordering::SeqCst) == 1 {
                    return die(peer);
                }
                peer.answer(&received, "v1");
            }
        });
        let report = run(plan(server.address, Kind::KeepAliveGet, 3, Duration::from_millis(10)));
        assert_eq!(report.failures.iter().map(|failure| &failure.cause).collect::<Vec<_>>(), [&expect]);
        assert_eq!(report.total.completed, 2, "the third request opens a new connection");
        assert_eq!(requests.load(Ordering::SeqCst), 3, "no request is sent twice");
    }
}

#[test]
fn connection_closed_while_idle_loses_nothing() {
    let server = Server::start(|mut peer| {
        if let Some(received) = peer.receive() {
            peer.answer(&received, "v1");
        }
    });
    // Far enough apart that the close has arrived before the next request.
    let report = run(plan(server.address, Kind::KeepAliveGet, 3, Duration::from_millis(100)));
    assert_none_failed(&report);
    assert_eq!((report.connections_opened, report.idle_closed), (3, 2));
}

#[test]
fn connection_announced_as_closing_is_not_used_again() {
    let server = Server::start(|mut peer| {
        if peer.receive().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            // Still open: a client that ignores the header would send here, and wait in vain.
            peer.hang();
        }
    });
    let report = run(plan(server.address, Kind::KeepAliveGet, 3, Duration::from_millis(20)));
    assert_none_failed(&report);
    assert_eq!((report.connections_opened, report.idle_closed), (3, 0));
}

#[test]
fn every_pooled_connection_is_used_in_turn() {
    let (served, per_connection) = mpsc::channel();
    let served = Mutex::new(served);
    let server = Server::start(move |mut peer| {
        let mut count = 0;
        while let Some(received) = peer.receive() {
            count += 1;
            peer.answer(&received, "v1");
        }
        served.lock().unwrap().send(count).unwrap();
    });
    let mut plan = plan(server.address, Kind::KeepAliveGet, 12, Duration::from_millis(5));
    plan.keep_alive_connections = 3;
    let report = run(plan);
    assert_eq!(report.connections_opened, 3);
    drop(server);
    // The server's own wake-up connection ends before the script sees it.
    assert_eq!(per_connection.iter().collect::<Vec<i32>>(), [4, 4, 4]);
}

#[test]
fn a_stall_is_seen_by_every_request_planned_during_it() {
    let first = AtomicBool::new(true);
    let server = Server::start(move |mut peer| {
        while let Some(received) = peer.receive() {
            if first.swap(false, Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(400));
            }
            peer.answer(&received, "v1");
        }
    });
    let plan = plan(server.address, Kind::KeepAliveGet, 20, Duration::from_millis(10));
    let report = run(plan);
    // All 20 were planned within the first 200 ms and none can end before 400 ms.
    assert_eq!(report.total.completed, 20);
    assert!(report.total.latency.p50_us >= 200_000, "{:?}", report.total.latency);
    assert!(report.total.service.p50_us < report.total.latency.p50_us / 2, "{:?}", report.total.service);
    assert!(!report.verdict.passed);
    assert!(report.verdict.reasons[0].starts_with("achieved "), "{:?}", report.verdict.reasons);
    assert!(report.total.achieved_per_s < 99.0);
}

#[test]
fn requests_that_find_no_connection_in_time_are_failures() {
    let server = Server::start(Peer::hang);
    let mut plan = plan(server.address, Kind::FreshGet, 5, Duration::from_millis(10));
    plan.timeout = Duration::from_millis(200);
    let report = run(plan);
    assert_eq!(report.total.failed, 5);
    assert!(report.total.failed_by[&FailureClass::Timeout] >= 1);
    assert!(report.verdict.reasons.iter().any(|reason| reason.starts_with("achieved ")));
}

#[test]
fn posts_carry_unique_ids_and_the_plans_own_body() {
    let (seen, ids) = mpsc::channel();
    let seen = Mutex::new(seen);
    let server = Server::start(move |mut peer| {
        while let Some(received) = peer.receive() {
            assert!(received.head.starts_with("POST /orders HTTP/1.1\r\nHost: shop.test\r\n"));
            assert!(received.head.contains("\r\nx-canary: 1\r\n"));
            assert_eq!(received.body, format!("order {}", received.id()));
            seen.lock().unwrap().send(received.id().to_owned()).unwrap();
            peer.answer(&received, "v1");
        }
    });
    let mut plan = plan(server.address, Kind::KeepAlivePost, 10, Duration::from_millis(5));
    plan.mix = vec![Share::new(Kind::KeepAlivePost, 1, "/orders"), Share::new(Kind::FreshPost, 1, "/orders")];
    plan.body = Body::from_fn(|id| format!("order {id}").into_bytes());
    plan.host = "shop.test".into();
    plan.headers = vec![("x-canary".into(), "1".into())];
    plan.id_prefix = "run7".into();
    assert_none_failed(&run(plan));
    drop(server);
    let mut ids: Vec<String> = ids.iter().collect();
    ids.sort();
    let kind = |number| if number % 2 == 0 { "keep-alive-post" } else { "fresh-post" };
    assert_eq!(ids, (0..10).map(|number| format!("run7-{number}-{}", kind(number))).collect::<Vec<_>>());
}

#[test]
fn acts_show_which_version_answered_and_when_it_switched() {
    let switched = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&switched);
    let server = Server::start(move |mut peer| {
        while let Some(received) = peer.receive() {
            peer.answer(&received, if now.load(Ordering::SeqCst) { "v2" } else { "v1" });
        }
    });
    let mut plan = plan(server.address, Kind::KeepAliveGet, 1, Duration::from_millis(2));
    plan.until = Until::Stopped;
    let running = start(plan).unwrap();
    let wait_for = |version: &str| {
        while !running.snapshot().versions.iter().any(|seen| seen.version == version) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait_for("v1");
    running.mark("deploy v2");
    wait_for("v1");
    switched.store(true, Ordering::SeqCst);
    wait_for("v2");
    assert_eq!(running.snapshot().act, "deploy v2");
    assert!(!running.is_over());
    let report = running.stop();
    assert_none_failed(&report);
    let names: Vec<_> = report.acts.iter().map(|act| act.name.as_str()).collect();
    assert_eq!(names, ["start", "deploy v2"]);
    let versions: Vec<_> = report.acts[1].versions.iter().map(|seen| seen.version.as_str()).collect();
    assert_eq!(versions, ["v1", "v2"]);
    let after = report.acts[1].switched_after("v2").unwrap();
    assert!(after > Duration::ZERO && after.as_micros() < u128::from(report.acts[1].lasted_us));
    assert_eq!(report.acts[0].switched_after("v2"), None);
    let planned: u64 = report.acts.iter().map(|act| act.tally.planned).sum();
    assert_eq!(planned, report.total.planned);
}

#[test]
fn stop_lets_requests_in_flight_end() {
    let (arrived, arrival) = mpsc::channel();
    let arrived = Mutex::new(arrived);
    let server = Server::start(move |mut peer| {
        if let Some(received) = peer.receive() {
            arrived.lock().unwrap().send(()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            peer.answer(&received, "v1");
        }
    });
    let mut plan = plan(server.address, Kind::FreshGet, 1, Duration::from_secs(60));
    plan.until = Until::Stopped;
    let running = start(plan).unwrap();
    arrival.recv().unwrap();
    let report = running.stop();
    assert_eq!((report.total.completed, report.total.failed), (1, 0));
}

#[test]
fn dropping_a_run_does_not_wait_for_a_server_that_hangs() {
    let (arrived, arrival) = mpsc::channel();
    let arrived = Mutex::new(arrived);
    let server = Server::start(move |mut peer| {
        peer.receive();
        arrived.lock().unwrap().send(()).unwrap();
        peer.hang();
    });
    let mut plan = plan(server.address, Kind::FreshGet, 1, Duration::from_secs(60));
    plan.until = Until::Stopped;
    plan.timeout = Duration::from_secs(3600);
    let running = start(plan).unwrap();
    arrival.recv().unwrap();
    let before = Instant::now();
    drop(running);
    assert!(before.elapsed() < Duration::from_secs(60));
}

#[test]
fn panic_of_the_body_builder_reaches_the_caller() {
    let server = Server::start(Peer::hang);
    let mut plan = plan(server.address, Kind::FreshPost, 1, Duration::from_millis(10));
    plan.body = Body::from_fn(|_| panic!("no body today"));
    let running = start(plan).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| running.wait())).is_err());
}

#[test]
fn report_is_plain_json() {
    let server = Server::start(|mut peer| {
        peer.receive();
        peer.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    });
    let report = run(plan(server.address, Kind::FreshPost, 1, Duration::from_millis(10)));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["total"]["failed_by"]["server_error"], 1);
    assert_eq!(json["acts"][0]["planned"], 1);
    assert_eq!(json["failures"][0]["cause"], "server_error");
    assert_eq!(json["failures"][0]["status"], 500);
    assert_eq!(json["failures"][0]["kind"], "fresh_post");
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_refused_before_anything_is_sent() {
    let mut plan = Plan::new("127.0.0.1:1".parse().unwrap());
    plan.mix.clear();
    assert!(matches!(start(plan), Err(StartError::Plan(PlanError::EmptyMix))));
}
