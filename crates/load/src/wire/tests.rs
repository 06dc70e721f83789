//! Runs against a server with a certificate of its own making.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::{FailureClass, Kind, Plan, Report, Share, StreamPlan, Until, start, start_streams};

/// Speaks what was agreed on; `per_connection`: so many answers over HTTP/1.1, then it closes.
fn server(protocols: &[&str], per_connection: usize) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    if is_h2 { h2(stream).await } else { http1(stream, per_connection).await }
                });
            }
        });
    });
    address
}

async fn http1(mut stream: tokio_rustls::server::TlsStream<TcpStream>, answers: usize) {
    for _ in 0..answers {
        let mut bytes = Vec::new();
        let (head, length) = loop {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            let text = String::from_utf8(bytes.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0").to_owned();
            if body.len() == length.parse::<usize>().unwrap() {
                break (head.to_owned(), length);
            }
        };
        assert_eq!(head.starts_with("POST"), length != "0");
        let id = head.lines().find(|line| line.starts_with("x-request-id")).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\n{id}\r\nContent-Length: 5\r\n\r\nhello");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    let _ = stream.shutdown().await;
}

async fn h2(stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.uri().scheme_str(), Some("https"));
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut pieces = 0;
            let mut answer = http::Response::new(());
            if let Some(id) = head.headers.get("x-request-id") {
                answer.headers_mut().insert("x-request-id", id.clone());
            } else {
                // A call: one message back, and its status.
                let message = body.data().await.unwrap().unwrap();
                let mut out = respond.send_response(answer, false).unwrap();
                out.send_data(message, false).unwrap();
                let status = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
                out.send_trailers(status).unwrap();
                return;
            }
            while let Some(piece) = body.data().await {
                pieces += usize::from(!piece.unwrap().is_empty());
            }
            let is_slow = head.headers["x-request-id"].to_str().unwrap().ends_with("-slow-post");
            assert_eq!(pieces > 1, is_slow, "{pieces} pieces");
            let mut out = respond.send_response(answer, false).unwrap();
            out.send_data("hello".into(), true).unwrap();
        });
    }
}

fn run(target: SocketAddr, kind: Kind, requests: u32) -> Report {
    let mut plan = Plan::new(target);
    plan.tls = Some(Tls::new("localhost").unwrap());
    plan.mix = vec![Share::new(kind, 1, "/")];
    plan.rate_per_s = 100.0;
    plan.until = Until::Elapsed(Duration::from_millis(10) * requests);
    plan.echo = true;
    plan.slow_post = Duration::from_millis(20);
    (plan.keep_alive_connections, plan.h2_connections) = (1, 1);
    start(plan).unwrap().wait()
}

#[test]
fn every_kind_of_request_is_answered_over_tls() {
    let target = server(&["h2", "http/1.1"], usize::MAX);
    for kind in Kind::ALL {
        let report = run(target, kind, 5);
        assert_eq!(report.failures.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0], "{kind:?}");
        assert_eq!(report.total.completed, 5);
        let is_shared = kind.keeps_alive() || kind.is_h2();
        // Of the keep-alive kind a second connection is opened when an answer takes longer than 10 ms.
        let connections = if is_shared { 1..=5 } else { 5..=5 };
        assert!(connections.contains(&report.connections_opened), "{kind:?}: {}", report.connections_opened);
    }
}

#[test]
fn a_close_while_idle_is_seen_before_the_next_request() {
    let report = run(server(&["http/1.1"], 1), Kind::KeepAliveGet, 5);
    assert_eq!(report.failures.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    assert!(report.idle_closed > 0, "{report:?}");
}

#[test]
fn a_handshake_that_fails_is_a_failure_to_connect() {
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = plain.local_addr().unwrap();
    std::thread::spawn(move || plain.incoming().for_each(drop));
    for (target, kind) in [(target, Kind::FreshGet), (server(&["http/1.1"], 1), Kind::H2Get)] {
        let report = run(target, kind, 1);
        assert_eq!(report.total.failed, 1);
        assert_eq!(report.failures[0].cause.class(), FailureClass::Connect, "{:?}", report.failures);
        assert_eq!(report.total.kinds[0].failed_by[&FailureClass::Connect], 1);
    }
}

#[test]
fn a_call_that_ends_in_order_too_soon_is_early_and_not_broken() {
    let mut plan = StreamPlan::new(server(&["h2"], 0), "/", "/");
    plan.tls = Some(Tls::new("127.0.0.1").unwrap());
    (plan.websockets, plan.event_streams, plan.calls) = (0, 0, 1);
    plan.call_path = "/".to_owned();
    plan.lasts_min = Duration::from_secs(3600);
    let streams = start_streams(plan).unwrap();
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while streams.snapshot().calls.ended < 3 {
        assert!(std::time::Instant::now() < patience, "{:?}", streams.snapshot());
        std::thread::sleep(Duration::from_millis(1));
    }
    let report = streams.stop();
    assert_eq!((report.broken(), report.early()), (0, report.calls.ended));
    assert_eq!(report.breaks[0].what, "it ended in order, but early");
}
