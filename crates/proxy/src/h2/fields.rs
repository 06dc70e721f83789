//! Heads and trailers, from HTTP/2 to HTTP/1.1 and back (RFC 9113, section 8; RFC 8441 for WebSockets).
//!
//! What `h2` checks by itself is not checked again: names in lower case, pseudo-header fields that are missing, doubled,
//! unknown or late, fields of a connection, bodies that do not fit their `content-length`. What is left of strictness is
//! the codec's, which reads what is written here as it reads any request.

use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE,
};
use http::{Method, Request, Response, StatusCode, Uri, Version, request, response};

use super::websocket;
use crate::codec::{BodyLength, Delimiter, Field, RequestHead, ResponseHead};

/// How a body of HTTP/2 is written in HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Nothing,
    /// As it is: its length was said.
    Length,
    /// In chunks, and trailers behind them.
    Chunked,
    /// As it is, until it ends: a tunnel.
    Raw,
}

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// A stream error of type `PROTOCOL_ERROR` (RFC 9113, section 8.1.1).
    #[error("{0}")]
    Malformed(&'static str),
    /// 501
    #[error("{0}")]
    NotImplemented(&'static str),
}

/// Header fields that `h2` refuses or that mean nothing beyond one connection.
fn is_for_one_hop(field: Field, name: &HeaderName) -> bool {
    matches!(field, Field::Connection | Field::TransferEncoding | Field::HopByHop | Field::Upgrade)
        || name == TE
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// What a stream asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Message,
    /// RFC 8441: an upgrade to WebSocket, which HTTP/1.1 asks for with GET.
    WebSocket,
}

pub(super) fn asked(parts: &request::Parts) -> Result<Asked, Unfit> {
    match (&parts.method, parts.extensions.get::<Protocol>()) {
        (&Method::CONNECT, None) => Err(Unfit::NotImplemented("CONNECT")),
        (_, None) => Ok(Asked::Message),
        (_, Some(protocol)) if protocol.as_str() == "websocket" => Ok(Asked::WebSocket),
        (_, Some(_)) => Err(Unfit::NotImplemented("a protocol other than websocket")),
    }
}

/// Writes the head of a request. `is_ended`: no body follows.
pub(super) fn write_request(
    parts: &request::Parts,
    asked: Asked,
    is_ended: bool,
    out: &mut Vec<u8>,
) -> Result<Carrier, Unfit> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    // Anything else would be read as an absolute target, whose host replaces the one that was checked.
    if !target.starts_with('/') && target != "*" {
        return Err(Unfit::Malformed("the path is no path"));
    }
    // As the codec has it for absolute targets: what a service would make of others nobody knows.
    let is_http = |scheme: &str| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if parts.uri.scheme_str().is_some_and(|scheme| !is_http(scheme)) {
        return Err(Unfit::Malformed("the scheme is not http"));
    }
    let method = match asked {
        Asked::Message => parts.method.as_str(),
        Asked::WebSocket => "GET",
    };
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    if let Some(authority) = authority {
        line(out, b"host", authority.as_bytes());
    }
    let mut cookie: Vec<u8> = Vec::new();
    for (name, value) in &parts.headers {
        let bytes = value.as_bytes();
        if matches!(bytes, [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            return Err(Unfit::Malformed("a value begins or ends with white space"));
        }
        if name == HOST {
            match authority {
                Some(authority) if !authority.as_bytes().eq_ignore_ascii_case(bytes) => {
                    return Err(Unfit::Malformed("host and :authority differ"));
                }
                Some(_) => {}
                None => line(out, b"host", bytes),
            }
        } else if name == COOKIE {
            // RFC 9113, section 8.2.3: clients may split it so that it compresses better.
            cookie.extend_from_slice(if cookie.is_empty() { b"" } else { b"; " });
            cookie.extend_from_slice(bytes);
        } else if !is_for_one_hop(Field::of(name.as_str()), name)
            && !(asked == Asked::WebSocket && (name == CONTENT_LENGTH || name == "sec-websocket-key"))
        {
            line(out, name.as_str().as_bytes(), bytes);
        }
    }
    if !cookie.is_empty() {
        line(out, b"cookie", &cookie);
    }
    let has_length = parts.headers.contains_key(CONTENT_LENGTH);
    let carrier = match (asked, is_ended, has_length) {
        (Asked::WebSocket, _, _) => {
            line(out, b"connection", b"close, upgrade");
            line(out, b"upgrade", b"websocket");
            line(out, b"sec-websocket-key", websocket::key().as_bytes());
            out.extend_from_slice(b"\r\n");
            return Ok(Carrier::Raw);
        }
        (Asked::Message, true, true) => Carrier::Nothing,
        (Asked::Message, true, false) => {
            // RFC 9110, section 8.6: methods that expect a body say that there is none; some servers insist.
            if matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
                line(out, b"content-length", b"0");
            }
            Carrier::Nothing
        }
        (Asked::Message, false, true) => Carrier::Length,
        (Asked::Message, false, false) => {
            line(out, b"transfer-encoding", b"chunked");
            Carrier::Chunked
        }
    };
    // One stream is one request.
    line(out, CONNECTION.as_str().as_bytes(), b"close");
    out.extend_from_slice(b"\r\n");
    Ok(carrier)
}

/// A field of HTTP/1.1 for HTTP/2, unless it is for the connection only.
fn pass(headers: &mut HeaderMap, field: &httparse::Header<'_>) -> Option<()> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
    if !is_for_one_hop(Field::of(field.name), &name) {
        headers.append(name, HeaderValue::from_bytes(field.value.trim_ascii()).ok()?);
    }
    Some(())
}

/// The head of an answer for the client; `None` when HTTP/2 cannot say it.
pub(super) fn response(head: &ResponseHead<'_, '_>, asked: Asked) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_2;
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    let headers = response.headers_mut();
    for field in head.headers {
        pass(headers, field)?;
    }
    if asked == Asked::WebSocket && head.status == 101 {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove("sec-websocket-accept");
    }
    Some(response)
}

/// The head of a request for an instance; `None` when HTTP/2 cannot say it.
pub(super) fn request(head: &RequestHead<'_, '_>) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).ok()?;
    *request.uri_mut() =
        Uri::builder().scheme("http").authority(head.host).path_and_query(head.target).build().ok()?;
    let headers = request.headers_mut();
    for field in head.headers {
        if Field::of(field.name) != Field::Host {
            pass(headers, field)?;
        }
    }
    // The relay passes trailers on; gRPC refuses whoever does not say so.
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if head.length == BodyLength::Chunked {
        headers.remove(CONTENT_LENGTH);
    }
    Some(request)
}

/// The same as an extended CONNECT, for an upgrade to WebSocket.
pub(super) fn connect(head: &RequestHead<'_, '_>) -> Option<Request<()>> {
    let mut connect = request(head)?;
    *connect.method_mut() = Method::CONNECT;
    connect.extensions_mut().insert(Protocol::from_static("websocket"));
    connect.headers_mut().remove("sec-websocket-key");
    Some(connect)
}

/// Writes that an instance has agreed to a WebSocket, for a client with this key.
pub(super) fn write_upgraded(parts: &response::Parts, key: &[u8], out: &mut Vec<u8>) -> Carrier {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    line(out, b"connection", b"upgrade");
    line(out, b"upgrade", b"websocket");
    line(out, b"sec-websocket-accept", websocket::accept(key).as_bytes());
    for (name, value) in &parts.headers {
        let field = Field::of(name.as_str());
        if !is_for_one_hop(field, name) && field != Field::ContentLength {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    Carrier::Raw
}

/// Writes the head of an instance's answer. `is_ended`: no body follows.
pub(super) fn write_response(
    parts: &response::Parts,
    is_head: bool,
    is_ended: bool,
    out: &mut Vec<u8>,
) -> Carrier {
    let status = parts.status;
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or(""), "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let bodiless = is_head || status.is_informational() || status == 204 || status == 304;
    // Trailers need chunks, and gRPC always has trailers.
    let has_length = parts.headers.contains_key(CONTENT_LENGTH) && (is_ended || !is_grpc(&parts.headers));
    for (name, value) in &parts.headers {
        let field = Field::of(name.as_str());
        if !is_for_one_hop(field, name) && (has_length || field != Field::ContentLength) {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let carrier = if bodiless || is_ended {
        if !bodiless && !has_length {
            line(out, b"content-length", b"0");
        }
        Carrier::Nothing
    } else if has_length {
        Carrier::Length
    } else {
        line(out, b"transfer-encoding", b"chunked");
        Carrier::Chunked
    };
    if !status.is_informational() {
        line(out, CONNECTION.as_str().as_bytes(), b"close");
    }
    out.extend_from_slice(b"\r\n");
    carrier
}

/// Whether it is gRPC, which ends with a status in its trailers. (gRPC-Web has it in its body.)
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Plain,
    /// With a status, or the client takes it for a fault of the service's.
    GrpcStatus,
}

impl Ending {
    /// By the head of the answer.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match is_grpc(headers) && !headers.contains_key(GRPC_STATUS) {
            true => Self::GrpcStatus,
            false => Self::Plain,
        }
    }
}

const GRPC_STATUS: &str = "grpc-status";

/// Makes trailers of gRPC complete: without a status the call was cut, by a drain or by the end of the instance, which is
/// `UNAVAILABLE` (14), and says that another attempt may succeed.
pub(super) fn conclude(trailers: &mut HeaderMap) {
    if !trailers.contains_key(GRPC_STATUS) {
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("14"));
        trailers.insert("grpc-message", HeaderValue::from_static("the instance ended the call"));
    }
}

/// Whether a field may be a trailer (RFC 9110, section 6.5.1): none that decides about framing, routing, who asks, or
/// how the body is to be read.
fn may_trail(name: &HeaderName) -> bool {
    const NOT: [&str; 10] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "max-forwards",
        "range",
        "set-cookie",
        "www-authenticate",
        "age",
        "location",
    ];
    Field::of(name.as_str()) == Field::Other && !NOT.contains(&name.as_str())
}

pub(super) fn write_trailers(trailers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in trailers {
        if may_trail(name) {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// Reads lines as the chunked decoder let them pass.
pub(super) fn trailers(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value)
            && may_trail(&name)
        {
            trailers.append(name, value);
        }
    }
    trailers
}

/// Whether nothing follows the head.
pub(super) fn is_bodiless(delimiter: Delimiter) -> bool {
    matches!(delimiter, Delimiter::None | Delimiter::Length(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::header_storage;

    fn parts(uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut builder = Request::builder().uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn written(parts: &request::Parts, is_ended: bool) -> Result<(String, Carrier), Unfit> {
        let mut out = Vec::new();
        let carrier = write_request(parts, asked(parts)?, is_ended, &mut out)?;
        Ok((String::from_utf8(out).unwrap(), carrier))
    }

    #[test]
    fn requests_are_written_as_one_would_write_them() {
        let get = parts("https://a.test/x?y", &[("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")]);
        let text = "GET /x?y HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\ncookie: a=1; b=2\r\n";
        let close = "connection: close\r\n\r\n";
        assert_eq!(written(&get, true), Ok((format!("{text}{close}"), Carrier::Nothing)));
        let chunked = format!("{text}transfer-encoding: chunked\r\n{close}");
        assert_eq!(written(&get, false), Ok((chunked, Carrier::Chunked)));
        let mut post = parts("https://a.test/", &[]);
        post.method = Method::POST;
        let text = "POST / HTTP/1.1\r\nhost: a.test\r\n";
        assert_eq!(
            written(&post, true),
            Ok((format!("{text}content-length: 0\r\n{close}"), Carrier::Nothing))
        );
        post.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        assert_eq!(
            written(&post, false),
            Ok((format!("{text}content-length: 5\r\n{close}"), Carrier::Length))
        );
        let hop =
            parts("http://a.test/", &[("te", "trailers"), ("proxy-authorization", "x"), ("trailer", "x")]);
        assert_eq!(written(&hop, true).unwrap().0, format!("GET / HTTP/1.1\r\nhost: a.test\r\n{close}"));
    }

    #[test]
    fn what_has_two_readings_is_malformed() {
        let malformed = |parts: &request::Parts| matches!(written(parts, true), Err(Unfit::Malformed(_)));
        assert!(malformed(&parts("https://a.test/", &[("host", "b.test")])));
        assert!(!malformed(&parts("https://a.test/", &[("host", "A.test")])));
        assert!(malformed(&parts("https://a.test/", &[("x", " 1")])));
        assert!(malformed(&parts("https://a.test/", &[("x", "1\t")])));
        let mut absolute = parts("https://a.test/", &[]);
        absolute.uri = Uri::from_static("a.test:80");
        assert!(malformed(&absolute));
    }

    #[test]
    fn an_extended_connect_is_an_upgrade() {
        let mut connect = parts("https://a.test/chat", &[("sec-websocket-version", "13")]);
        connect.method = Method::CONNECT;
        assert_eq!(written(&connect, false), Err(Unfit::NotImplemented("CONNECT")));
        connect.extensions.insert(Protocol::from_static("websocket"));
        let (text, carrier) = written(&connect, false).unwrap();
        assert_eq!(carrier, Carrier::Raw);
        let mut storage = header_storage();
        let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap();
        assert_eq!((head.method, head.target, head.upgrade), ("GET", "/chat", Some(&b"websocket"[..])));
        assert!(!head.keep_alive);
        let key = head.named("sec-websocket-key").next().unwrap();
        assert_eq!(key.len(), 24);
        assert!(key.ends_with(b"=="));
        connect.extensions.insert(Protocol::from_static("connect-udp"));
        assert!(matches!(written(&connect, false), Err(Unfit::NotImplemented(_))));
    }

    #[test]
    fn answers_go_both_ways() {
        let text = b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nx-a: 2\r\nConnection: close\r\nKeep-Alive: 5\r\n\
            Content-Length: 3\r\n\r\n";
        let mut storage = header_storage();
        let head = ResponseHead::parse(text, &mut storage, "GET").unwrap();
        let (parts, ()) = response(&head, Asked::Message).unwrap().into_parts();
        assert_eq!(parts.headers.len(), 3);
        let mut out = Vec::new();
        assert_eq!(write_response(&parts, false, false, &mut out), Carrier::Length);
        let text = String::from_utf8(out).unwrap();
        let expected =
            "HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 3\r\nconnection: close\r\n\r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn answers_of_instances_are_delimited() {
        let check = |status: u16, fields: &[(&str, &str)], is_head: bool, is_ended: bool, expect: &str| {
            let mut builder = Response::builder().status(status);
            for (name, value) in fields {
                builder = builder.header(*name, *value);
            }
            let (parts, ()) = builder.body(()).unwrap().into_parts();
            let mut out = Vec::new();
            let carrier = write_response(&parts, is_head, is_ended, &mut out);
            let text = String::from_utf8(out).unwrap();
            let framing = text.lines().find(|l| l.starts_with("content-length") || l.starts_with("transfer"));
            assert_eq!(format!("{carrier:?} {}", framing.unwrap_or("-")), expect, "{text}");
        };
        let length = [("content-length", "7")];
        check(200, &[], false, false, "Chunked transfer-encoding: chunked");
        check(200, &[], false, true, "Nothing content-length: 0");
        check(200, &length, false, false, "Length content-length: 7");
        check(200, &length, true, true, "Nothing content-length: 7");
        check(204, &[], false, true, "Nothing -");
        check(304, &length, false, true, "Nothing content-length: 7");
        check(103, &[], false, false, "Nothing -");
        let grpc = [("content-type", "application/grpc+proto"), ("content-length", "7")];
        check(200, &grpc, false, false, "Chunked transfer-encoding: chunked");
    }

    #[test]
    fn only_grpc_itself_ends_with_a_status() {
        let check = |kind: &'static str, status: bool, expect: Ending| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            if status {
                headers.insert(GRPC_STATUS, 0.into());
            }
            assert_eq!(Ending::of(&headers), expect, "{kind}");
        };
        check("application/grpc", false, Ending::GrpcStatus);
        check("application/grpc+proto", false, Ending::GrpcStatus);
        check("application/grpc; charset=x", false, Ending::GrpcStatus);
        check("application/grpc", true, Ending::Plain);
        check("application/grpc-web", false, Ending::Plain);
        check("application/grpc-web+proto", false, Ending::Plain);
        check("text/plain", false, Ending::Plain);
        let mut trailers = HeaderMap::new();
        trailers.insert(GRPC_STATUS, 5.into());
        conclude(&mut trailers);
        assert_eq!((trailers.len(), &trailers[GRPC_STATUS]), (1, &5.into()));
    }

    #[test]
    fn trailers_that_decide_something_are_dropped() {
        let lines =
            b"grpc-status: 0\r\nContent-Length: 5\r\nhost: x\r\ngrpc-message:\t ok \r\nSet-Cookie: a\r\n\
            transfer-encoding: chunked\r\nauthorization: x\r\nbad name: 1\r\nno colon\r\n\r\n";
        let map = trailers(lines);
        let mut out = Vec::new();
        write_trailers(&map, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "grpc-status: 0\r\ngrpc-message: ok\r\n");
    }
}
