//! Requests: what a client may say wrong, and what is only unusual.

use crate::Case;
use crate::origin::Script;

/// Behind everything that a case sends: whether it is taken for a request of its own shows where the proxy sees the end
/// of the one before.
pub const NEXT: &str = "GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// What the service gets of it.
const NEXT_SEEN: &str = "GET /end";

struct Group {
    name: &'static str,
    cases: Vec<Case>,
}

impl Group {
    fn add(&mut self, name: &str, rfc: &'static str, sends: impl AsRef<[u8]>, client: &str, origin: &str) {
        self.cases.push(Case {
            group: self.name,
            name: name.to_owned(),
            rfc,
            sends: [sends.as_ref(), NEXT.as_bytes()].concat(),
            script: Script::Usual,
            client: client.to_owned(),
            origin: origin.to_owned(),
        });
    }

    /// Refused with this status, and nothing of it goes on.
    fn no(&mut self, status: u16, name: &str, rfc: &'static str, sends: impl AsRef<[u8]>) {
        self.add(name, rfc, sends, &status.to_string(), "nothing");
    }

    /// Answered, and so is what follows.
    fn yes(&mut self, name: &str, rfc: &'static str, sends: impl AsRef<[u8]>, origin: &str) {
        self.add(name, rfc, sends, "200, 200", &format!("{origin}; {NEXT_SEEN}"));
    }
}

fn get(fields: &str) -> String {
    format!("GET /1 HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /1 HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

pub fn all() -> Vec<Case> {
    let groups = [line(), lines(), host(), length(), coding(), chunks(), hops(), expect(), limits()];
    groups.into_iter().flat_map(|group| group.cases).collect()
}

fn group(name: &'static str) -> Group {
    Group { name, cases: Vec::new() }
}

fn line() -> Group {
    let mut g = group("The request line");
    let with = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    g.yes("a request", "9112 3", with("GET /1 HTTP/1.1"), "GET /1");
    g.yes("an empty line before", "9112 2.2", format!("\r\n{}", get("")), "GET /1");
    g.no(400, "two empty lines before", "9112 2.2", format!("\r\n\r\n{}", get("")));
    g.no(400, "a space before", "9112 2.2", format!(" {}", get("")));
    g.no(400, "two spaces", "9112 3", with("GET  /1 HTTP/1.1"));
    g.no(400, "a tab for a space", "9112 3", with("GET\t/1 HTTP/1.1"));
    g.no(400, "a vertical tab for a space", "9112 3", with("GET\x0b/1 HTTP/1.1"));
    g.no(400, "a space behind", "9112 3", with("GET /1 HTTP/1.1 "));
    g.no(400, "a space in the target", "9112 3.2", with("GET /1 2 HTTP/1.1"));
    g.no(400, "version in lower case", "9112 2.3", with("GET /1 http/1.1"));
    g.no(400, "HTTP/1.10", "9112 2.3", with("GET /1 HTTP/1.10"));
    g.no(400, "HTTP/01.1", "9112 2.3", with("GET /1 HTTP/01.1"));
    g.no(400, "HTTP/1", "9112 2.3", with("GET /1 HTTP/1"));
    g.no(505, "HTTP/1.2", "9110 15.6.6", with("GET /1 HTTP/1.2"));
    g.no(505, "HTTP/2.0", "9110 15.6.6", with("GET /1 HTTP/2.0"));
    g.no(505, "HTTP/0.9 by name", "9110 15.6.6", with("GET /1 HTTP/0.9"));
    g.no(400, "HTTP/0.9 by its form", "9112 3", "GET /1\r\n");
    g.add("HTTP/1.0 without Host", "9112 3.2", "GET /1 HTTP/1.0\r\n\r\n", "200", "GET /1 [host: ]");
    g.yes(
        "HTTP/1.0 that stays",
        "9112 9.3",
        "GET /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        "GET /1",
    );
    g.no(400, "a zero byte in the target", "9112 3.2", with("GET /1\0 HTTP/1.1"));
    g.no(400, "a letter beyond ASCII in the target", "9112 3.2", with("GET /\u{e9} HTTP/1.1"));
    g.no(400, "a fragment", "9112 3.2", with("GET /1#x HTTP/1.1"));
    g.no(400, "a target without a slash", "9112 3.2.1", with("GET 1 HTTP/1.1"));
    g.no(400, "an empty method", "9112 3.1", with(" /1 HTTP/1.1"));
    g.no(400, "a method that is no token", "9112 3.1", with("G(T /1 HTTP/1.1"));
    g.yes("a method in lower case is another", "9110 9.1", with("get /1 HTTP/1.1"), "get /1");
    g.yes("an unknown method", "9110 9.1", with("FROB /1 HTTP/1.1"), "FROB /1");
    g.yes("OPTIONS for the server", "9112 3.2.4", with("OPTIONS * HTTP/1.1"), "OPTIONS *");
    g.no(400, "a star for GET", "9112 3.2.4", with("GET * HTTP/1.1"));
    g.no(501, "CONNECT", "9110 9.3.6", "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n");
    g.no(501, "CONNECT with a path", "9112 3.2.3", with("CONNECT /1 HTTP/1.1"));
    g.yes("absolute form", "9112 3.2.2", with("GET http://a/1 HTTP/1.1"), "GET /1");
    g.yes("absolute form without a path", "9112 3.2.2", with("GET http://a HTTP/1.1"), "GET /");
    g.yes(
        "absolute form for another host",
        "9112 3.2.2",
        with("GET http://b/1 HTTP/1.1"),
        "GET /1 [host: b]",
    );
    g.no(400, "absolute form without Host", "9112 3.2", "GET http://a/1 HTTP/1.1\r\n\r\n");
    g.no(400, "absolute form with a user", "9110 4.2.4", with("GET http://u@a/1 HTTP/1.1"));
    g.no(400, "absolute form without a host", "9110 4.2.1", with("GET http:///1 HTTP/1.1"));
    g.no(400, "absolute form of another scheme", "9112 3.2.2", with("GET ftp://a/1 HTTP/1.1"));
    g.no(400, "a handshake of TLS", "9112 3", b"\x16\x03\x01\x00\x05hello\r\n\r\n");
    g
}

fn lines() -> Group {
    let mut g = group("Lines and fields");
    let with = |text: &str| format!("GET /1 HTTP/1.1\r\nHost: a\r\n{text}");
    g.no(400, "the request line ends with LF", "9112 2.2", "GET /1 HTTP/1.1\nHost: a\r\n\r\n");
    g.no(400, "a field ends with LF", "9112 2.2", "GET /1 HTTP/1.1\r\nHost: a\nX: y\r\n\r\n");
    g.no(400, "the head ends with LF", "9112 2.2", with("\n"));
    g.no(400, "LF in a value hides a field", "9112 2.2", with("X: y\nContent-Length: 5\r\n\r\nhello"));
    g.no(400, "CR in a value", "9112 2.2", with("X: a\rb\r\n\r\n"));
    g.no(400, "CR hides a field", "9112 2.2", with("X: a\rTransfer-Encoding: chunked\r\n\r\n"));
    g.no(400, "CR CR LF", "9112 2.2", with("X: a\r\r\n\r\n"));
    g.no(400, "a zero byte in a value", "9110 5.5", with("X: a\0b\r\n\r\n"));
    g.no(400, "a control character in a value", "9110 5.5", with("X: a\x08b\r\n\r\n"));
    g.no(400, "DEL in a value", "9110 5.5", with("X: a\x7fb\r\n\r\n"));
    g.no(400, "a folded line", "9112 5.2", with("X: a\r\n b\r\n\r\n"));
    g.no(400, "a folded coding", "9112 5.2", with("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"));
    g.no(400, "a space before the first field", "9112 2.2", "GET /1 HTTP/1.1\r\n Host: a\r\n\r\n");
    g.no(400, "a space before the colon", "9112 5.1", with("X : y\r\n\r\n"));
    g.no(400, "a tab before the colon", "9112 5.1", with("X\t: y\r\n\r\n"));
    g.no(400, "no name", "9112 5", with(": y\r\n\r\n"));
    g.no(400, "no colon", "9112 5", with("nothing\r\n\r\n"));
    g.no(400, "a name that is no token", "9110 5.1", with("X[]: y\r\n\r\n"));
    g.no(400, "a name beyond ASCII", "9110 5.1", with("X\u{e9}: y\r\n\r\n"));
    g.no(400, "a zero byte in a name", "9110 5.1", with("X\0: y\r\n\r\n"));
    g.yes("an empty value", "9110 5.5", get("X:\r\n"), "GET /1");
    g.yes("white space around a value", "9112 5", get("X: \t y \t\r\n"), "GET /1");
    g.yes("a value beyond ASCII", "9110 5.5", get("X: \u{e9}\r\n"), "GET /1");
    // CGI and its heirs know names only with underscores: to them these are the real ones.
    g.yes("Transfer_Encoding", "3875 4.1.18", get("Transfer_Encoding: chunked\r\n"), "GET /1");
    g.yes("Content_Length", "3875 4.1.18", get("Content_Length: 5\r\n"), "GET /1");
    g.yes("X_Forwarded_For", "3875 4.1.18", get("X_Forwarded_For: 6.6.6.6\r\n"), "GET /1");
    g.yes("X_Api_Key", "3875 4.1.18", get("X_Api_Key: k\r\n"), "GET /1 [x_api_key: k]");
    g
}

fn host() -> Group {
    let mut g = group("Host");
    let with = |fields: &str| format!("GET /1 HTTP/1.1\r\n{fields}\r\n");
    g.no(400, "missing", "9112 3.2", with("X: y\r\n"));
    g.no(400, "twice the same", "9112 3.2", with("Host: a\r\nHost: a\r\n"));
    g.no(400, "twice", "9112 3.2", with("Host: a\r\nHost: b\r\n"));
    g.no(400, "a list", "9112 3.2", with("Host: a, b\r\n"));
    g.no(400, "empty", "9110 7.2", with("Host:\r\n"));
    g.no(400, "with a user", "9110 7.2", with("Host: u@a\r\n"));
    g.no(400, "with a path", "9110 7.2", with("Host: a/b\r\n"));
    g.no(400, "with a space", "9110 7.2", with("Host: a b\r\n"));
    g.no(400, "with a port that is no number", "9110 7.2", with("Host: a:x\r\n"));
    g.no(400, "with two ports", "9110 7.2", with("Host: a:80:81\r\n"));
    g.no(400, "with a bracket left open", "9110 7.2", with("Host: [::1\r\n"));
    g.yes("of IPv6", "9110 7.2", with("Host: [::1]:80\r\n"), "GET /1 [host: [::1]:80]");
    g.no(400, "nominated by Connection", "9110 7.6.1", with("Host: a\r\nConnection: host\r\n"));
    g
}

fn length() -> Group {
    let mut g = group("Content-Length");
    let with = |value: &str| post(&format!("Content-Length:{value}\r\n"), "hello");
    let seen = "POST /1 \"hello\"";
    g.yes("a body", "9112 6.2", with(" 5"), seen);
    g.yes("white space around it", "9112 5", with(" \t5\t "), seen);
    g.yes("zeros before", "9110 8.6", with(" 0005"), seen);
    g.yes("none, and POST", "9112 6.3", post("Content-Length: 0\r\n", ""), "POST /1");
    g.yes(
        "on GET",
        "9110 9.3.1",
        "GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET /1 \"hello\"",
    );
    g.yes(
        "on OPTIONS",
        "9110 9.3.7",
        "OPTIONS /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "OPTIONS /1 \"hello\"",
    );
    g.yes(
        "a request within a body stays there",
        "9112 6.3",
        post("Content-Length: 35\r\n", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        "POST /1 \"GET /smuggled HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n\"",
    );
    g.yes("an empty line behind the body", "9112 2.2", format!("{}\r\n", with(" 5")), seen);
    g.no(400, "twice the same", "9112 6.3", with(" 5\r\nContent-Length: 5"));
    g.no(400, "twice", "9112 6.3", with(" 5\r\nContent-Length: 0"));
    g.no(400, "a list", "9112 6.3", with(" 5, 5"));
    for (name, value) in [
        ("empty", ""),
        ("with a plus", " +5"),
        ("negative", " -5"),
        ("hexadecimal", " 0x5"),
        ("with a fraction", " 5.0"),
        ("with an exponent", " 5e0"),
        ("with a letter behind", " 5a"),
        ("with a vertical tab behind", " 5\x0b"),
        ("two numbers", " 5 5"),
        ("of another script", " \u{665}"),
        ("beyond 64 bits", " 18446744073709551621"),
    ] {
        g.no(400, name, "9112 6.3", with(value));
    }
    g.no(400, "with a space before the colon", "9112 5.1", post("Content-Length : 5\r\n", "hello"));
    g.no(
        400,
        "nominated by Connection",
        "9110 7.6.1",
        post("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
    );
    g
}

fn coding() -> Group {
    let mut g = group("Transfer-Encoding");
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let with = |fields: &str| post(&format!("{fields}\r\n"), body);
    let seen = "POST /1 \"hello\"";
    g.yes("chunked", "9112 6.1", with("Transfer-Encoding: chunked"), seen);
    g.yes("in capitals", "9112 7", with("TRANSFER-ENCODING: CHUNKED"), seen);
    g.yes("without a space", "9112 5", with("Transfer-Encoding:chunked"), seen);
    g.yes("with a tab before", "9112 5", with("Transfer-Encoding: \tchunked"), seen);
    g.no(400, "CL.TE", "9112 6.1", with("Content-Length: 4\r\nTransfer-Encoding: chunked"));
    g.no(400, "TE.CL", "9112 6.1", with("Transfer-Encoding: chunked\r\nContent-Length: 4"));
    g.no(
        400,
        "CL.TE with nothing in it",
        "9112 6.1",
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    );
    g.no(
        400,
        "Content-Length: 0 and chunked",
        "9112 6.1",
        with("Content-Length: 0\r\nTransfer-Encoding: chunked"),
    );
    g.no(400, "twice chunked", "9112 6.3", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"));
    g.no(
        400,
        "chunked, then another line",
        "9112 6.3",
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow"),
    );
    g.no(
        400,
        "another line, then chunked",
        "9112 6.3",
        with("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked"),
    );
    for (name, value) in [
        ("identity", "identity"),
        ("chunked, identity", "chunked, identity"),
        ("identity, chunked, identity", "identity, chunked, identity"),
        ("chunked, chunked", "chunked, chunked"),
        ("gzip alone", "gzip"),
        ("xchunked", "xchunked"),
        ("chunkedx", "chunkedx"),
        ("in quotes", "\"chunked\""),
        ("with a parameter", "chunked;q=1"),
        ("with a vertical tab before", "\x0bchunked"),
        ("with a form feed behind", "chunked\x0c"),
        ("with a zero byte behind", "chunked\0"),
        ("two words", "chunked x"),
        ("empty", ""),
    ] {
        g.no(400, name, "9112 6.3", with(&format!("Transfer-Encoding: {value}")));
    }
    g.no(501, "gzip, chunked", "9112 6.1", with("Transfer-Encoding: gzip, chunked"));
    g.no(501, "identity, chunked", "9112 6.1", with("Transfer-Encoding: identity, chunked"));
    g.no(400, "with a space before the colon", "9112 5.1", with("Transfer-Encoding : chunked"));
    g.no(400, "with a space before the name", "9112 2.2", with("X: y\r\n Transfer-Encoding: chunked"));
    g.no(
        400,
        "in HTTP/1.0",
        "9112 6.1",
        format!("POST /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
    );
    g.no(
        400,
        "nominated by Connection",
        "9110 7.6.1",
        with("Connection: transfer-encoding\r\nTransfer-Encoding: chunked"),
    );
    g.yes(
        "on GET",
        "9110 9.3.1",
        format!("GET /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        "GET /1 \"hello\"",
    );
    g
}

fn chunks() -> Group {
    let mut g = group("Chunks");
    let end = "0\r\n\r\n";
    let seen = "POST /1 \"hello\"";
    g.yes("zeros before the size", "9112 7.1", chunked("0005\r\nhello\r\n000\r\n\r\n"), seen);
    g.yes(
        "a size in capitals",
        "9112 7.1",
        chunked("A\r\nhellohello\r\n0\r\n\r\n"),
        "POST /1 \"hellohello\"",
    );
    g.yes("an extension", "9112 7.1.1", chunked(&format!("5;a=b\r\nhello\r\n{end}")), seen);
    g.yes("an extension in quotes", "9112 7.1.1", chunked(&format!("5;a=\"b;c\"\r\nhello\r\n{end}")), seen);
    g.yes("an extension of the last chunk", "9112 7.1.1", chunked("5\r\nhello\r\n0;a\r\n\r\n"), seen);
    for (name, body) in [
        ("an extension with LF", "5;a\nhello\r\n0\r\n\r\n"),
        ("an extension with CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("an extension with a zero byte", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("LF behind the size", "5\nhello\r\n0\r\n\r\n"),
        ("CR behind the size", "5\rxhello\r\n0\r\n\r\n"),
        ("a space behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
        ("a space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("0x before the size", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a plus before the size", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a minus before the size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("an underscore in the size", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a size beyond 32 bits that wraps to 5", "fffffffffffffffffffffffff00000005\r\nhello\r\n0\r\n\r\n"),
        ("more data than the size says", "4\r\nhello\r\n0\r\n\r\n"),
        ("less data than the size says", "6\r\nhello\r\n0\r\n\r\n"),
        ("no line end behind the data", "5\r\nhello0\r\n\r\n"),
        ("LF behind the data", "5\r\nhello\n0\r\n\r\n"),
        ("two bytes behind the data that are no line end", "5\r\nhelloXX0\r\n\r\n"),
        ("LF behind the last size", "5\r\nhello\r\n0\n\r\n"),
        ("LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("a trailer without a colon", "5\r\nhello\r\n0\r\nX\r\n\r\n"),
        ("a trailer with LF", "5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n"),
        ("a folded trailer", "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
        ("a trailer with a space before the colon", "5\r\nhello\r\n0\r\nX : y\r\n\r\n"),
        ("a trailer with a zero byte", "5\r\nhello\r\n0\r\nX: \0\r\n\r\n"),
    ] {
        g.no(400, name, "9112 7.1", chunked(body));
    }
    g.yes("a trailer", "9110 6.5", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), seen);
    g.yes(
        "trailers that decide where a body ends",
        "9110 6.5.1",
        chunked("5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n"),
        seen,
    );
    g.yes(
        "trailers that decide who asks whom",
        "9110 6.5.1",
        chunked("5\r\nhello\r\n0\r\nHost: b\r\nAuthorization: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"),
        seen,
    );
    g
}

fn hops() -> Group {
    let mut g = group("Connection and Upgrade");
    g.yes("fields for one hop", "9110 7.6.1", get("Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\n"), "GET /1");
    g.yes(
        "a field of ours nominated",
        "9110 7.6.1",
        get("Connection: x-forwarded-for, x-request-id\r\n"),
        "GET /1",
    );
    g.add("close", "9112 9.6", get("Connection: close\r\n"), "200", "GET /1");
    g.add("close among others", "9112 9.6", get("Connection: x, CLOSE\r\n"), "200", "GET /1");
    g.yes(
        "h2c by Upgrade",
        "9113 3.1",
        get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        "GET /1",
    );
    g.yes(
        "h2c and WebSocket",
        "9113 3.1",
        get("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        "GET /1",
    );
    g.yes("Upgrade without Connection", "9110 7.8", get("Upgrade: websocket\r\n"), "GET /1");
    g.yes("Connection without Upgrade", "9110 7.8", get("Connection: upgrade\r\n"), "GET /1");
    g.yes(
        "Upgrade with a body",
        "9110 7.8",
        post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", "hello"),
        "POST /1 \"hello\"",
    );
    g.no(
        400,
        "two times Upgrade",
        "9110 7.8",
        get("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"),
    );
    // Not asked for a second time on a connection that may speak something else by then.
    g.add(
        "Upgrade that the service ignores",
        "9110 7.8",
        get("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        "200, 200",
        "GET /1 [connection: upgrade] [upgrade: websocket]; GET /end",
    );
    g
}

fn expect() -> Group {
    let mut g = group("Expect");
    let with = |value: &str| post(&format!("Expect: {value}\r\nContent-Length: 5\r\n"), "hello");
    g.add(
        "100-continue",
        "9110 10.1.1",
        with("100-continue"),
        "200, 200",
        "POST /1 \"hello\" [expect: 100-continue]; GET /end",
    );
    g.yes("100-continue without a body", "9110 10.1.1", get("Expect: 100-continue\r\n"), "GET /1");
    g.no(417, "something else", "9110 10.1.1", with("the best"));
    g.no(417, "twice", "9110 10.1.1", with("100-continue\r\nExpect: 100-continue"));
    g.yes("in HTTP/1.0", "9110 10.1.1", "POST /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "POST /1 \"hello\"");
    g
}

fn limits() -> Group {
    let mut g = group("Limits");
    let long = |count: usize| "x".repeat(count);
    g.no(
        414,
        "a target of 9 KiB",
        "9110 15.5.15",
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(9 * 1024)),
    );
    g.no(431, "a field of 40 KiB", "6585 5", get(&format!("X: {}\r\n", long(40 * 1024))));
    g.no(431, "150 fields", "6585 5", get(&"X: y\r\n".repeat(150)));
    g.no(
        400,
        "extensions of 5 KiB",
        "9112 7.1.1",
        chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", long(5 * 1024))),
    );
    g
}
