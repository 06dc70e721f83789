//! See [`crate::fuzzing`].

use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};

use super::fields;
use crate::codec::{Framing, HeadScan, RequestHead, ResponseHead, header_storage};

/// A method, a target, and fields, with zeros between them: what `http` makes of them is what `h2` can hand over.
pub(crate) fn fields(input: &[u8]) {
    let mut words = input.split(|b| *b == 0);
    let flags = words.next().and_then(|word| word.first().copied()).unwrap_or(0);
    let mut request = Request::new(());
    let mut response = Response::new(());
    if let Some(method) = words.next().and_then(|word| word.try_into().ok()) {
        *request.method_mut() = method;
    }
    if let Some(uri) = words.next().and_then(|word| word.try_into().ok()) {
        *request.uri_mut() = uri;
    }
    if let Ok(status) = (100 + u16::from(flags) * 3).try_into() {
        *response.status_mut() = status;
    }
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
            continue;
        };
        request.headers_mut().append(name.clone(), value.clone());
        response.headers_mut().append(name, value);
    }
    request_from_http2(request, flags & 1 == 0);
    response_from_http2(response, flags & 2 == 0, flags & 4 == 0);
    let trailers = fields::trailers(input);
    let mut lines = Vec::new();
    fields::write_trailers(&trailers, &mut lines);
    let mut chunked = crate::codec::Chunked::default();
    let mut body = [b"0\r\n", &lines[..], b"\r\n"].concat();
    // As they go to an instance: they may be too long, never malformed.
    if lines.len() < 4096 {
        assert!(chunked.feed(&mut body, Framing::Keep).is_ok(), "{:?}", String::from_utf8_lossy(&lines));
    }
}

fn request_from_http2(request: Request<()>, is_ended: bool) {
    let (parts, ()) = request.into_parts();
    let mut out = Vec::new();
    let Ok(asked) = fields::asked(&parts) else { return };
    if fields::write_request(&parts, asked, is_ended, &mut out).is_err() {
        return;
    }
    let Ok(Some(bounds)) = HeadScan::default().request(&out) else { return };
    assert_eq!(bounds, (0, out.len()), "two heads in one: {:?}", String::from_utf8_lossy(&out));
    let mut storage = header_storage();
    if let Ok(head) = RequestHead::parse(&out, &mut storage) {
        assert_eq!(head.method, parts.method.as_str());
        assert_eq!(Some(head.target), parts.uri.path_and_query().map(|target| target.as_str()));
        if let Some(authority) = parts.uri.authority() {
            assert_eq!(head.host, authority.as_str());
        }
    }
}

fn response_from_http2(response: Response<()>, is_head: bool, is_ended: bool) {
    let (parts, ()) = response.into_parts();
    let mut out = Vec::new();
    fields::write_response(&parts, is_head, is_ended, &mut out);
    let Ok(Some(bounds)) = HeadScan::default().response(&out) else { return };
    assert_eq!(bounds, (0, out.len()), "two heads in one: {:?}", String::from_utf8_lossy(&out));
    let mut storage = header_storage();
    if let Ok(head) = ResponseHead::parse(&out, &mut storage, if is_head { "HEAD" } else { "GET" }) {
        assert_eq!(head.status, parts.status.as_u16());
        response_to_http2(&head);
    }
}

/// What an instance said, for a client of HTTP/2.
pub(crate) fn response_to_http2(head: &ResponseHead<'_, '_>) {
    if let Some(response) = fields::response(head, fields::Asked::Message) {
        assert_eq!(response.status().as_u16(), head.status);
        for hop in ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"] {
            assert!(!response.headers().contains_key(hop), "{hop}");
        }
    }
}
