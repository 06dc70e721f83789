//! Runs against a server of the same library that does to each request what the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};

use crate::{
    Cause, FailureClass, Kind, Phase, Plan, Report, Share, StreamPlan, StreamReport, Until, start,
    start_streams,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Answer,
    /// As `Answer`, and the connection takes no more.
    Goodbye,
    Status(u16),
    Refuse,
    Reset,
    /// Within the body.
    Cut,
    /// The connection, without a word.
    Close,
    /// Back comes what is sent, three times; then the status.
    Call(&'static str),
    /// As `Call`, without a status.
    Mute,
}

/// Does to the nth request the nth of `acts`, the last one for ever.
fn server(acts: Vec<Act>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acts = Arc::new((acts, AtomicUsize::new(0)));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&acts)));
            }
        });
    });
    address
}

async fn serve(stream: tokio::net::TcpStream, acts: Arc<(Vec<Act>, AtomicUsize)>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let number = acts.1.fetch_add(1, Ordering::SeqCst).min(acts.0.len() - 1);
        let act = acts.0[number];
        if act == Act::Close {
            return;
        }
        if act == Act::Goodbye {
            connection.graceful_shutdown();
        }
        tokio::spawn(perform(act, request, respond));
    }
}

async fn perform(act: Act, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    let mut answer = Response::builder().header("x-shop-version", "v1");
    if let Some(id) = head.headers.get("x-request-id") {
        answer = answer.header("x-request-id", id);
    }
    match act {
        Act::Answer | Act::Goodbye => {
            let mut bytes = Vec::new();
            while let Some(piece) = body.data().await {
                bytes.extend_from_slice(&piece.unwrap());
            }
            if head.method == "POST" {
                assert!(bytes.starts_with(b"{\"id\":"), "{bytes:?}");
            }
            let mut out = respond.send_response(answer.body(()).unwrap(), false).unwrap();
            out.send_data("hello".into(), true).unwrap();
        }
        Act::Status(status) => {
            respond.send_response(answer.status(status).body(()).unwrap(), true).unwrap();
        }
        Act::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
        Act::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
        Act::Cut => {
            let mut out = respond.send_response(answer.body(()).unwrap(), false).unwrap();
            out.send_data("hel".into(), false).unwrap();
            // A reset overtakes what is still to be sent.
            tokio::time::sleep(Duration::from_millis(50)).await;
            out.send_reset(Reason::INTERNAL_ERROR);
        }
        Act::Call(_) | Act::Mute => {
            let mut out = respond.send_response(answer.body(()).unwrap(), false).unwrap();
            let mut messages = 0;
            while messages < 3 {
                let Some(Ok(message)) = body.data().await else { return };
                out.send_data(message, false).unwrap();
                messages += 1;
            }
            let Act::Call(status) = act else { return out.send_data(Bytes::new(), true).unwrap() };
            let trailers = [("grpc-status".parse().unwrap(), status.parse().unwrap())].into_iter().collect();
            out.send_trailers(trailers).unwrap();
        }
        Act::Close => {}
    }
}

fn run(acts: Vec<Act>, kind: Kind, requests: u32) -> Report {
    let mut plan = Plan::new(server(acts));
    plan.mix = vec![Share::new(kind, 1, "/orders")];
    plan.rate_per_s = 200.0;
    plan.until = Until::Elapsed(Duration::from_millis(5) * requests);
    plan.echo = true;
    plan.slow_post = Duration::from_millis(20);
    plan.h2_connections = 1;
    start(plan).unwrap().wait()
}

fn none_failed(report: &Report, completed: u64) {
    assert_eq!(report.failures.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(report.total.completed, completed);
}

fn only_failure(report: &Report) -> &Cause {
    assert_eq!(report.total.failed, 1, "{:?}", report.failures);
    &report.failures[0].cause
}

#[test]
fn requests_share_a_connection() {
    for kind in [Kind::H2Get, Kind::H2Post, Kind::H2SlowPost] {
        let report = run(vec![Act::Answer], kind, 10);
        none_failed(&report, 10);
        assert_eq!((report.connections_opened, report.refused), (1, 0));
        assert_eq!(report.acts[0].versions[0].answers, 10);
    }
}

#[test]
fn a_goodbye_ends_the_connection_and_no_request() {
    let report = run(vec![Act::Answer, Act::Goodbye, Act::Answer], Kind::H2Post, 10);
    none_failed(&report, 10);
    assert_eq!(report.connections_opened, 2);
}

#[test]
fn what_was_refused_is_sent_once_more_and_counted() {
    let report = run(vec![Act::Refuse, Act::Answer], Kind::H2Post, 4);
    none_failed(&report, 4);
    assert_eq!(report.refused, 1);
    let report = run(vec![Act::Refuse, Act::Refuse, Act::Answer], Kind::H2Get, 1);
    assert_eq!(*only_failure(&report), Cause::Refused);
}

#[test]
fn resets_cuts_and_bad_answers_are_failures() {
    let report = run(vec![Act::Reset, Act::Answer], Kind::H2Get, 3);
    assert_eq!(*only_failure(&report), Cause::Reset { phase: Phase::Head, reused: false });
    let report = run(vec![Act::Cut, Act::Answer], Kind::H2Get, 1);
    let cut = Cause::Truncated { phase: Phase::Body, body_bytes: 3, expected_bytes: None };
    assert_eq!(*only_failure(&report), cut);
    let report = run(vec![Act::Status(503), Act::Answer], Kind::H2Post, 3);
    assert_eq!(*only_failure(&report), Cause::ServerError { status: 503 });
    assert!(report.failures[0].response_head.as_deref().unwrap().starts_with("HTTP/2 503"));
}

#[test]
fn a_connection_that_ends_without_a_goodbye_is_a_failure_of_what_is_on_it() {
    let report = run(vec![Act::Answer, Act::Close, Act::Answer], Kind::H2Post, 4);
    // Whoever comes next finds it closed, and says so as well.
    assert!((1..=2).contains(&report.total.failed), "{:?}", report.failures);
    for failure in &report.failures {
        let class = failure.cause.class();
        assert!(matches!(class, FailureClass::Closed | FailureClass::Reset), "{failure}");
    }
    assert_eq!(report.connections_opened, 2);
}

fn calls(acts: Vec<Act>, until: impl Fn(&StreamReport) -> bool) -> StreamReport {
    let mut plan = StreamPlan::new(server(acts), "/", "/");
    (plan.websockets, plan.event_streams, plan.calls) = (0, 0, 1);
    plan.call_path = "/echo".to_owned();
    plan.message_every = Duration::from_millis(2);
    let streams = start_streams(plan).unwrap();
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while !until(&streams.snapshot()) {
        assert!(std::time::Instant::now() < patience, "{:?}", streams.snapshot());
        std::thread::sleep(Duration::from_millis(1));
    }
    streams.stop()
}

#[test]
fn a_call_ends_with_a_status_or_is_broken() {
    let acts = vec![
        Act::Call("0"),
        Act::Call("14"),
        Act::Call("13"),
        Act::Mute,
        Act::Refuse,
        Act::Reset,
        Act::Status(503),
        Act::Cut,
        Act::Close,
        Act::Call("0"),
    ];
    let report = calls(acts, |report| report.calls.ended >= 3);
    assert_eq!((report.calls.broken, report.calls.refused), (7, 1), "{report:?}");
    assert!(report.calls.messages >= 15, "{report:?}");
    let what: Vec<&str> = report.breaks.iter().map(|one| one.what.as_str()).collect();
    for (what, expected) in what.iter().zip([
        "status 13",
        "without a status",
        "stream error",
        "503",
        "stream error",
        "",
        "closed",
    ]) {
        assert!(what.contains(expected), "{what} {expected}");
    }
}
