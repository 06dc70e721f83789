//! Health checks of instances that speak HTTP/2: on the control thread, each on a connection of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client;
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::net::TcpStream;

/// The path of gRPC's own health service; a check of it asks as gRPC does, and wants to hear that the server serves
/// (grpc.health.v1).
const GRPC: &str = "/grpc.health.v1.Health/Check";

/// A message without fields: not compressed, no bytes. Asks about the server as a whole.
const GRPC_QUESTION: &[u8] = &[0, 0, 0, 0, 0];

/// `status: SERVING`.
const GRPC_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x01];

/// What is read of an answer to gRPC's question: no more can be of use.
const ANSWER_BYTES_MAX: usize = 64;

/// One check: what it found, or what is wrong.
pub(crate) async fn check(addr: SocketAddr, path: &str) -> Result<String, String> {
    let stream = TcpStream::connect(addr).await.map_err(|error| format!("cannot connect: {error}"))?;
    let (send, connection) =
        client::handshake(stream).await.map_err(|error| format!("no HTTP/2: {error}"))?;
    tokio::select! {
        biased;
        answer = ask(send, addr, path) => answer,
        ended = connection => match ended {
            Ok(()) => Err("the connection was closed without an answer".to_owned()),
            Err(error) => Err(format!("no HTTP/2: {error}")),
        },
    }
}

async fn ask(send: client::SendRequest<Bytes>, addr: SocketAddr, path: &str) -> Result<String, String> {
    let is_grpc = path == GRPC;
    let said = |error: h2::Error| format!("no answer: {error}");
    let mut send = send.ready().await.map_err(said)?;
    let mut request = Request::builder()
        .uri(format!("http://{addr}{path}"))
        .method(if is_grpc { Method::POST } else { Method::GET })
        .header("user-agent", "fairway-health");
    if is_grpc {
        request = request.header("content-type", "application/grpc").header("te", "trailers");
    }
    let request = request.body(()).map_err(|error| format!("cannot ask: {error}"))?;
    let (response, mut body) = send.send_request(request, !is_grpc).map_err(said)?;
    if is_grpc {
        body.send_data(Bytes::from_static(GRPC_QUESTION), true).map_err(said)?;
    }
    let response = response.await.map_err(said)?;
    let status = response.status();
    if !is_grpc {
        return match status.as_u16() {
            200..=399 => Ok(format!("status {}", status.as_u16())),
            code => Err(format!("status {code}")),
        };
    }
    let headers = response.headers().clone();
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(data) = body.data().await {
        answer.extend_from_slice(&data.map_err(said)?);
        if answer.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long".to_owned());
        }
    }
    let trailers = body.trailers().await.map_err(said)?.unwrap_or(headers);
    grpc_verdict(status, &answer, &trailers)
}

fn grpc_verdict(status: StatusCode, answer: &[u8], trailers: &HeaderMap) -> Result<String, String> {
    let code = trailers.get("grpc-status").and_then(|value| value.to_str().ok()).unwrap_or("missing");
    match (status, code, answer) {
        (StatusCode::OK, "0", GRPC_SERVING) => Ok("serving".to_owned()),
        (StatusCode::OK, "0", _) => Err("the server says that it does not serve".to_owned()),
        (StatusCode::OK, code, _) => Err(format!("grpc-status {code}")),
        (status, _, _) => Err(format!("status {}", status.as_u16())),
    }
}
