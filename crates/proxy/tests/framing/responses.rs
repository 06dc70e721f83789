//! Answers of a service: what may reach the client of them.

use crate::Case;
use crate::origin::Script;
use crate::requests::NEXT;

struct Group {
    cases: Vec<Case>,
}

impl Group {
    fn with(&mut self, request: &str, name: &str, rfc: &'static str, script: Script, client: &str) {
        let (method, rest) = request.split_once(' ').expect("a request line");
        let is_old = rest.contains("HTTP/1.0");
        let origin = format!("{method} /1{}", if is_old { "" } else { "; GET /end" });
        // Where the answer cannot be trusted nothing more is answered on its connection.
        let origin = if client.contains("cut") { format!("{method} /1") } else { origin };
        self.cases.push(Case {
            group: "Answers of the service",
            name: name.to_owned(),
            rfc,
            sends: format!("{request}\r\nHost: a\r\n\r\n{NEXT}").into(),
            script: closing(script),
            client: client.to_owned(),
            origin,
        });
    }

    fn get(&mut self, name: &str, rfc: &'static str, answer: impl AsRef<[u8]>, client: &str) {
        self.with("GET /1 HTTP/1.1", name, rfc, Script::Bytes(answer.as_ref().to_vec()), client);
    }
}

/// With a field that says what the service does next: whether a proxy was faster than its close is no case here.
fn closing(script: Script) -> Script {
    let closing = |mut bytes: Vec<u8>| {
        let is_preceded = bytes.starts_with(b"HTTP/1.1 10");
        let line = |from: usize| bytes[from..].iter().position(|b| *b == b'\n').map(|at| from + at + 1);
        let head = match is_preceded {
            true => bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4),
            false => Some(0),
        };
        if let Some(at) = head.and_then(line).filter(|_| bytes.starts_with(b"HTTP/")) {
            let end: &[u8] = if bytes[..at].ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
            bytes.splice(at..at, [b"Connection: close", end].concat());
        }
        bytes
    };
    match script {
        Script::Usual => Script::Usual,
        Script::Bytes(bytes) => Script::Bytes(closing(bytes)),
        Script::Parts(first, second) => Script::Parts(closing(first), second),
        Script::Reset(bytes) => Script::Reset(closing(bytes)),
    }
}

pub fn all() -> Vec<Case> {
    let mut g = Group { cases: Vec::new() };
    let bad = "502, 200";
    let ok = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let bytes = |text: &str| Script::Bytes(text.as_bytes().to_vec());
    g.get(
        "both lengths",
        "9112 6.3",
        ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        bad,
    );
    g.get("two lengths", "9112 6.3", ok("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), bad);
    g.get(
        "the same length twice",
        "9112 6.3",
        ok("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        bad,
    );
    g.get("a list of lengths", "9112 6.3", ok("Content-Length: 5, 5\r\n", "hello"), bad);
    g.get("a length with a plus", "9112 6.3", ok("Content-Length: +5\r\n", "hello"), bad);
    g.get(
        "a length beyond 64 bits",
        "9112 6.3",
        ok("Content-Length: 18446744073709551621\r\n", "hello"),
        bad,
    );
    g.get("another coding", "9112 6.3", ok("Transfer-Encoding: gzip\r\n", "hello"), bad);
    g.get(
        "chunked twice",
        "9112 6.3",
        ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        bad,
    );
    g.get(
        "chunked in HTTP/1.0",
        "9112 6.1",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        bad,
    );
    g.get("a head with LF", "9112 2.2", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", bad);
    g.get("CR in a value", "9112 2.2", ok("X: a\rb\r\nContent-Length: 0\r\n", ""), bad);
    g.get("a zero byte in a value", "9110 5.5", ok("X: a\0b\r\nContent-Length: 0\r\n", ""), bad);
    g.get("a folded field", "9112 5.2", ok("X: a\r\n b\r\nContent-Length: 0\r\n", ""), bad);
    g.get("a space before the colon", "9112 5.1", ok("X : a\r\nContent-Length: 0\r\n", ""), bad);
    g.get("a name that is no token", "9110 5.1", ok("X[]: a\r\nContent-Length: 0\r\n", ""), bad);
    g.get("a status of two digits", "9112 4", "HTTP/1.1 99 No\r\nContent-Length: 0\r\n\r\n", bad);
    g.get("a status of four digits", "9112 4", "HTTP/1.1 2000 No\r\nContent-Length: 0\r\n\r\n", bad);
    g.get("another version", "9112 2.3", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", bad);
    g.get("another protocol", "9112 4", "SSH-2.0-OpenSSH\r\n\r\n", bad);
    g.get("half a head", "9112 8", "HTTP/1.1 200 OK\r\nContent-Le", bad);
    g.get("a head of 100 KiB", "9110 15.6.3", ok(&format!("X: {}\r\n", "y".repeat(100 * 1024)), ""), bad);
    g.get(
        "101 that nobody asked for",
        "9110 15.2.2",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        bad,
    );
    g.get("no reason", "9112 4", "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", "200 \"hello\", 200");
    g.get(
        "early hints",
        "9110 15.2",
        format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", ok("Content-Length: 5\r\n", "hello")),
        "103, 200 \"hello\", 200",
    );
    g.get(
        "100 that nobody waits for",
        "9110 15.2.1",
        format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("Content-Length: 5\r\n", "hello")),
        "100, 200 \"hello\", 200",
    );
    g.get(
        "a length that Connection nominates",
        "9110 7.6.1",
        ok("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
        "200 \"hello\", 200",
    );
    g.get("a body until the end", "9112 6.3", ok("", "hello"), "200 \"hello\", 200");
    g.get(
        "an answer behind the answer",
        "9112 6.3",
        ok("Content-Length: 5\r\n", "helloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        "200 \"hello\", 200",
    );
    g.get(
        "204 with a length",
        "9110 8.6",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "204, 200",
    );
    g.get(
        "204 with a body",
        "9112 6.3",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        "204, 200",
    );
    g.get(
        "204 with chunks",
        "9112 6.1",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "204, 200",
    );
    g.get(
        "304 with a length",
        "9110 15.4.5",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "304, 200",
    );
    g.get(
        "304 with a body",
        "9112 6.3",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
        "304, 200",
    );
    g.get(
        "304 with chunks",
        "9112 6.1",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "304, 200",
    );
    g.with(
        "HEAD /1 HTTP/1.1",
        "HEAD with a length",
        "9110 9.3.2",
        bytes(&ok("Content-Length: 5\r\n", "")),
        "200, 200",
    );
    g.with(
        "HEAD /1 HTTP/1.1",
        "HEAD with a body",
        "9110 9.3.2",
        bytes(&ok("Content-Length: 5\r\n", "hello")),
        "200, 200",
    );
    g.with(
        "HEAD /1 HTTP/1.1",
        "HEAD with chunks",
        "9110 9.3.2",
        bytes(&ok("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        "200, 200",
    );
    g.get(
        "chunks",
        "9112 7.1",
        ok("Transfer-Encoding: chunked\r\n", "5;a=b\r\nhello\r\n0\r\n\r\n"),
        "200 \"hello\", 200",
    );
    g.get(
        "trailers",
        "9110 6.5.1",
        ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nContent-Length: 9\r\nSet-Cookie: a\r\n\r\n"),
        "200 \"hello\", 200",
    );
    for (name, body) in [
        ("a chunk size that is none", "5\r\nhello\r\nxyz\r\n\r\n"),
        ("a chunk size beyond 64 bits", "5\r\nhello\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a chunk that is too long", "5\r\nhello\r\n5\r\nhello!\r\n0\r\n\r\n"),
        ("a chunk extension with LF", "5\r\nhello\r\n5;a\nhello\r\n0\r\n\r\n"),
    ] {
        let chunked = |body: &str| ok("Transfer-Encoding: chunked\r\n", body).into_bytes();
        g.get(name, "9112 7.1", chunked(body), bad);
        let late = Script::Parts(chunked("5\r\nhello\r\n"), body.as_bytes()[10..].to_vec());
        g.with("GET /1 HTTP/1.1", &format!("{name}, later"), "9112 8", late, "200 cut");
    }
    for (name, body) in [("chunks without the last one", "5\r\nhello\r\n"), ("half a chunk", "9\r\nhello")] {
        g.get(name, "9112 8", ok("Transfer-Encoding: chunked\r\n", body), "200 cut");
    }
    g.get("less than the length says", "9112 8", ok("Content-Length: 9\r\n", "hello"), "200 cut");
    g.with(
        "GET /1 HTTP/1.1",
        "a reset within the length",
        "9112 8",
        Script::Reset(ok("Content-Length: 9\r\n", "hello").into()),
        "200 cut",
    );
    g.with(
        "GET /1 HTTP/1.1",
        "a reset of a body until the end",
        "9112 8",
        Script::Reset(ok("", "hello").into()),
        "200 cut",
    );
    g.with(
        "GET /1 HTTP/1.0",
        "the same to HTTP/1.0",
        "9112 8",
        Script::Reset(ok("", "hello").into()),
        "200 cut",
    );
    g.with(
        "GET /1 HTTP/1.0",
        "half a chunk to HTTP/1.0",
        "9112 8",
        bytes(&ok("Transfer-Encoding: chunked\r\n", "9\r\nhello")),
        "200 cut",
    );
    g.with(
        "GET /1 HTTP/1.0",
        "a body until the end to HTTP/1.0",
        "9112 6.3",
        bytes(&ok("", "hello")),
        "200 \"hello\"",
    );
    g.with(
        "GET /1 HTTP/1.0",
        "chunks to HTTP/1.0",
        "9112 7.1",
        bytes(&ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")),
        "200 \"hello\"",
    );
    g.with(
        "GET /1 HTTP/1.0",
        "early hints to HTTP/1.0",
        "9110 15.2",
        bytes(&format!("HTTP/1.1 103 Early Hints\r\n\r\n{}", ok("Content-Length: 5\r\n", "hello"))),
        "200 \"hello\"",
    );
    g.cases
}
