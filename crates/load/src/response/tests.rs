use super::*;

fn wanted() -> Wanted {
    Wanted { version_header: "x-version".into(), id_header: "x-id".into() }
}

/// What a whole connection's worth of bytes, then an orderly close, reads as.
#[derive(Debug, PartialEq)]
enum Read {
    Complete { status: u16, body_bytes: u64, keeps_alive: bool },
    Failed(Cause),
}

fn read_in_pieces(bytes: &[u8], piece: usize) -> Read {
    let mut reader = ResponseReader::new();
    for piece in bytes.chunks(piece) {
        if let Err(cause) = reader.feed(piece, &wanted()) {
            return Read::Failed(cause);
        }
    }
    let keeps_alive = reader.keeps_alive();
    match reader.end(false) {
        Ok(()) => Read::Complete {
            status: reader.head().unwrap().status,
            body_bytes: reader.body_bytes,
            keeps_alive,
        },
        Err(cause) => Read::Failed(cause),
    }
}

/// The same verdict however the bytes are cut.
fn check(bytes: &str, expect: Read) {
    for piece in [bytes.len().max(1), 1, 2, 3, 7] {
        assert_eq!(read_in_pieces(bytes.as_bytes(), piece), expect, "{bytes:?} in pieces of {piece}");
    }
}

fn complete(status: u16, body_bytes: u64, keeps_alive: bool) -> Read {
    Read::Complete { status, body_bytes, keeps_alive }
}

fn truncated(phase: Phase, body_bytes: u64, expected_bytes: Option<u64>) -> Read {
    Read::Failed(Cause::Truncated { phase, body_bytes, expected_bytes })
}

fn refused(what: &str) -> Read {
    Read::Failed(Cause::Malformed { what: what.into() })
}

#[test]
fn complete_responses() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", complete(200, 5, true));
    check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", complete(200, 0, true));
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: x, Close\r\n\r\nok", complete(200, 2, false));
    check("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", complete(200, 2, false));
    check("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", complete(200, 2, true));
    check("HTTP/1.1 204 No Content\r\n\r\n", complete(204, 0, true));
    check("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", complete(304, 0, true));
    check("HTTP/1.1 200 OK\r\n\r\nall of it", complete(200, 9, false));
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx",
        complete(201, 1, true),
    );
}

#[test]
fn chunked_responses() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&format!("{head}5\r\nhello\r\n0\r\n\r\n"), complete(200, 5, true));
    check(&format!("{head}A;x=y\r\n0123456789\r\n1\r\n!\r\n0\r\nT: v\r\n\r\n"), complete(200, 11, true));
    check(&format!("{head}5\r\nhello\r\n"), truncated(Phase::Body, 5, None));
    check(&format!("{head}5\r\nhello\r\n0\r\n"), truncated(Phase::Body, 5, None));
    check(&format!("{head}5\r\nhel"), truncated(Phase::Body, 3, None));
    check(&format!("{head}-5\r\nhello"), refused("chunk size \"-5\""));
    check(&format!("{head}+5\r\nhello"), refused("chunk size \"+5\""));
    check(&format!("{head}\r\n"), refused("chunk size \"\""));
    check(&format!("{head}11111111111111111\r\n"), refused("chunk size \"11111111111111111\""));
    check(&format!("{head}1\r\nxy\r\n"), refused("no line end after a chunk's data"));
    check(&format!("{head}1\nx\n0\n\n"), refused("chunk line ends without CR"));
}

#[test]
fn cut_off_responses() {
    check("", Read::Failed(Cause::Closed { reused: false }));
    check("HTTP/1.1 200 OK\r\nContent-Le", truncated(Phase::Head, 0, None));
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", truncated(Phase::Body, 3, Some(5)));
    check("HTTP/1.1 100 Continue\r\n\r\n", Read::Failed(Cause::Closed { reused: false }));
}

#[test]
fn ambiguous_responses_are_refused() {
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        refused("two different content-lengths"),
    );
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        refused("both content-length and transfer-encoding"),
    );
    check("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", refused("content-length \"+5\""));
    check("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", refused("content-length \"\""));
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", refused("transfer-encoding \"gzip\""));
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK",
        refused("bytes after the end of the response"),
    );
    check(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        refused("101 without an upgrade request"),
    );
}

#[test]
fn garbage_is_malformed() {
    for garbage in ["\u{0}\u{1}\u{2}", "SSH-2.0-OpenSSH_9\r\n", "HTTP/1.1 20x OK\r\n\r\n"] {
        assert!(
            matches!(read_in_pieces(garbage.as_bytes(), 1), Read::Failed(Cause::Malformed { .. })),
            "{garbage:?}"
        );
    }
}

#[test]
fn endless_head_is_refused_at_its_bound() {
    let mut reader = ResponseReader::new();
    reader.feed(b"HTTP/1.1 200 OK\r\nx: ", &wanted()).unwrap();
    let fed = (0..100).map(|_| reader.feed(&[b'a'; 1024], &wanted())).find(Result::is_err);
    assert_eq!(fed, Some(Err(malformed("response head above 64 KiB"))));
}

#[test]
fn endless_trailer_line_is_refused_at_its_bound() {
    let mut reader = ResponseReader::new();
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", &wanted()).unwrap();
    let fed = (0..100).map(|_| reader.feed(&[b'a'; 1024], &wanted())).find(Result::is_err);
    assert_eq!(fed, Some(Err(malformed("chunk or trailer line above 8 KiB"))));
}

#[test]
fn wanted_headers_are_kept() {
    let mut reader = ResponseReader::new();
    reader
        .feed(b"HTTP/1.1 200 OK\r\nX-Version: v2 \r\nX-ID: 7\r\nContent-Length: 0\r\n\r\n", &wanted())
        .unwrap();
    let head = reader.head().unwrap();
    assert_eq!((head.version.as_deref(), head.id.as_deref()), (Some("v2"), Some("7")));
}
