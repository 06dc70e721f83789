//! From an accepted connection to its first request: who it is, and what it speaks.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::{Client, proxy_protocol, serve, streams, turn_away};
use crate::certificates::{ACME_TLS_ALPN, HTTP2_ALPN};
use crate::deadline::{Passed, Phase, Registered};
use crate::stream::{Stream, Tls};
use crate::worker::{Accepting, Worker};

/// Requests begin with a method, and a TLS handshake never with a capital letter.
const PLAIN_HTTP: &str = "the request was sent without TLS to an address that speaks TLS: use https://";

/// Looked at, not taken; none when the client has ended.
fn first_byte(tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
    let mut byte = [0];
    let mut buf = ReadBuf::new(&mut byte);
    let seen = ready!(tcp.poll_peek(cx, &mut buf))?;
    Poll::Ready(Ok((seen > 0).then_some(byte[0])))
}

pub(crate) async fn welcome(
    worker: Rc<Worker>,
    listener: Rc<Accepting>,
    tcp: TcpStream,
    peer: SocketAddr,
    deadline: Registered,
) {
    let routing = worker.routing();
    // A listener that is going has no entrance any more; what it accepted in its last moment is answered in plain.
    let entrance = routing.table.entrances.get(&listener.addr).map(Arc::clone);
    drop(routing);
    let mut peer = peer;
    let head = entrance.as_ref().map_or(worker.shared.limits.head, |entrance| entrance.limits.head);
    deadline.enter(Phase::Arriving);
    // Whoever speaks for others has as many connections as they.
    let is_counted = entrance.as_ref().is_some_and(|entrance| !entrance.trusts(peer.ip()));
    if let Some(entrance) = entrance.as_ref().filter(|entrance| entrance.proxy_protocol) {
        deadline.arm(head);
        let source = deadline.within(Box::pin(proxy_protocol::source(&tcp))).await;
        // Whoever is not one of the balancers could pretend to be anybody.
        match source {
            Ok(Ok(source)) if entrance.may_introduce(peer.ip()) => peer = source.unwrap_or(peer),
            Ok(Ok(_) | Err(_)) | Err(Passed) => return worker.count_refusal(400),
        }
    }
    let introduced = entrance.as_ref().is_some_and(|entrance| entrance.proxy_protocol);
    let per_client_max = entrance.as_ref().and_then(|entrance| entrance.per_client_max);
    let _seat = match per_client_max.filter(|_| is_counted || introduced) {
        None => None,
        Some(max) => match worker.shared.clients.sit(peer.ip(), max) {
            // In the middle of a handshake nobody could read an answer, and an answer would keep the room.
            None => return worker.count_refusal(429),
            seat @ Some(_) => seat,
        },
    };
    let tls = entrance.as_ref().and_then(|entrance| entrance.tls.clone());
    let mut client = Client::new(peer, entrance);
    let stream = match tls {
        None => Stream::Tcp(tcp),
        Some(config) => {
            deadline.arm(head);
            match deadline.within(poll_fn(|cx| first_byte(&tcp, cx))).await {
                Ok(Ok(Some(byte))) if byte.is_ascii_uppercase() => {
                    worker.shared.count_failed_handshake();
                    let stream = Stream::Tcp(tcp);
                    // In a box, as below: it is rare.
                    let no = turn_away(worker, listener, stream, client, deadline, PLAIN_HTTP);
                    return Box::pin(no).await;
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(Passed) => return worker.shared.count_failed_handshake(),
            }
            let Ok(tls) = Tls::new(tcp, config).map(Box::new) else { return };
            let shaken = deadline.within(poll_fn(|cx| tls.poll_handshake(cx))).await;
            let agreed = matches!(shaken, Ok(Ok(())));
            if !agreed {
                worker.shared.count_failed_handshake();
                return;
            }
            // The authority has seen the certificate, which is all that it wanted.
            if tls.alpn().as_deref() == Some(ACME_TLS_ALPN) {
                return;
            }
            client.tls = tls.version();
            let is_http2 = tls.alpn().as_deref() == Some(HTTP2_ALPN);
            let stream = Stream::Tls(tls);
            if is_http2 {
                // In a box, because the others need not have the room.
                let serving = streams::serve(worker, listener, stream, Bytes::new(), client, deadline);
                return Box::pin(serving).await;
            }
            stream
        }
    };
    serve(worker, listener, stream, client, deadline).await;
}
