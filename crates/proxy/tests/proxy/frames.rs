//! HTTP/2, frame by frame: what RFC 9113 says about each offence, and floods.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{HANG, Origin, Proxy, eventually, ok, service};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITIZED: u8 = 0x20;
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields, as literals that nobody remembers (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The connection ends where the RFC has the stream end, or with the general code where there is a special one: both are
/// allowed (section 5.4), and what `h2` does.
pub const GENERAL: &str = "connection PROTOCOL_ERROR";

pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/")];

pub const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/")];

/// [`GET`] and more.
pub fn get(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(&[&GET, more].concat()))
}

/// [`POST`] and more, without its body.
pub fn post(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &block(&[&POST, more].concat()))
}

/// A client that writes frames.
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

/// A frame as it came.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn code(&self) -> &'static str {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        match self.payload[at..at + 4] {
            [0, 0, 0, 0] => "NO_ERROR",
            [0, 0, 0, 1] => "PROTOCOL_ERROR",
            [0, 0, 0, 2] => "INTERNAL_ERROR",
            [0, 0, 0, 3] => "FLOW_CONTROL_ERROR",
            [0, 0, 0, 5] => "STREAM_CLOSED",
            [0, 0, 0, 6] => "FRAME_SIZE_ERROR",
            [0, 0, 0, 7] => "REFUSED_STREAM",
            [0, 0, 0, 8] => "CANCEL",
            [0, 0, 0, 9] => "COMPRESSION_ERROR",
            [0, 0, 0, 11] => "ENHANCE_YOUR_CALM",
            _ => "?",
        }
    }
}

impl Raw {
    pub fn silent(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub fn open(addr: SocketAddr) -> Self {
        let mut raw = Self::silent(addr);
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
        raw
    }

    /// Reads what another one is sent.
    pub fn of(other: &Self) -> Self {
        Self { stream: other.stream.try_clone().unwrap(), read: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; `None` when the connection is closed or reset.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, _, _, _, _, ..] = &self.read[..] {
                let end = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if self.read.len() >= end {
                    let frame = Frame { kind: *kind, flags: *flags, payload: self.read[9..end].to_vec() };
                    self.read.drain(..end);
                    return Some(frame);
                }
            }
            let mut buf = [0; 4096];
            match self.stream.read(&mut buf) {
                Ok(count @ 1..) => self.read.extend_from_slice(&buf[..count]),
                Ok(0) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What a stream or the connection comes to.
    pub fn outcome(&mut self) -> String {
        loop {
            let Some(frame) = self.next() else { return "closed".to_owned() };
            match frame.kind {
                GOAWAY => return format!("connection {}", frame.code()),
                RST_STREAM => return format!("stream {}", frame.code()),
                // Statuses have a place in the table of fields: 0x88 is 200.
                HEADERS => match frame.payload[0] {
                    0x88 => return "200".to_owned(),
                    0x8c => return "400".to_owned(),
                    // A literal with the name of `:status`.
                    _ => return String::from_utf8_lossy(&status(&frame.payload)).into_owned(),
                },
                DATA | SETTINGS | PING | WINDOW_UPDATE => {}
                kind => panic!("frame of kind {kind}"),
            }
        }
    }
}

/// The status, where it is a literal in Huffman's code: only those that occur here.
fn status(payload: &[u8]) -> Vec<u8> {
    match payload {
        [0x48, 0x82, 0x68, 0x81 | 0x82, ..] => b"4xx".to_vec(),
        [0x48, 0x83, ..] | [0x08, ..] | [0x48, ..] => b"literal".to_vec(),
        _ => format!("{:02x?}", &payload[..4]).into_bytes(),
    }
}

fn serving() -> (Origin, Proxy) {
    let origin = Origin::start(|request| ok(&request.body));
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    (origin, proxy)
}

#[test]
fn every_offence_gets_the_error_that_it_asks_for() {
    let (_origin, proxy) = serving();
    let settings = |pairs: &[(u16, u32)]| {
        let payload: Vec<u8> = pairs
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        frame(SETTINGS, 0, 0, &payload)
    };
    let without = |name: &str| {
        let left: Vec<_> = GET.into_iter().filter(|(n, _)| *n != name).collect();
        frame(HEADERS, WHOLE, 1, &block(&left))
    };
    let with = |name: &str, value: &str| {
        let changed: Vec<_> = GET.into_iter().map(|(n, v)| (n, if n == name { value } else { v })).collect();
        frame(HEADERS, WHOLE, 1, &block(&changed))
    };
    // A name in Huffman's code.
    let literal = |name: &[u8]| {
        let field = [&[0, 0x80 | name.len() as u8][..], name, &[1, b'v']].concat();
        frame(HEADERS, WHOLE, 1, &[&block(&GET)[..], &field].concat())
    };
    let max = 0x7fff_ffffu32.to_be_bytes();
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a request", get(&[]), "200"),
        ("a request with fields", get(&[("a", "b"), ("te", "trailers"), ("cookie", "c=d")]), "200"),
        ("an unknown frame", [frame(0xfa, 0xff, 7, b"what"), get(&[])].concat(), "200"),
        ("an unknown setting", [settings(&[(0x99, 5)]), get(&[])].concat(), "200"),
        // 4.2, 4.3
        ("a frame that is too long", frame(DATA, 0, 1, &[0; 16_385]), "connection FRAME_SIZE_ERROR"),
        ("an index out of range", frame(HEADERS, WHOLE, 1, &[0xff, 0x80, 0x7f]), GENERAL),
        ("index zero", frame(HEADERS, WHOLE, 1, &[0x80]), GENERAL),
        ("half a field", frame(HEADERS, WHOLE, 1, &[0, 5, b'a']), GENERAL),
        // 5.1
        ("data for an idle stream", frame(DATA, 0, 1, b"x"), "connection PROTOCOL_ERROR"),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), "connection PROTOCOL_ERROR"),
        (
            "a window for an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            "connection PROTOCOL_ERROR",
        ),
        ("an even stream", frame(HEADERS, WHOLE, 2, &block(&GET)), "connection PROTOCOL_ERROR"),
        ("stream zero", frame(HEADERS, WHOLE, 0, &block(&GET)), "connection PROTOCOL_ERROR"),
        // 6.1
        ("data for the connection", frame(DATA, 0, 0, b"x"), "connection PROTOCOL_ERROR"),
        ("more padding than data", frame(DATA, PADDED, 1, &[5, 0, 0]), "connection PROTOCOL_ERROR"),
        ("more padding than fields", frame(HEADERS, WHOLE | PADDED, 1, &[9, 0]), "connection PROTOCOL_ERROR"),
        // 6.3 to 6.9
        ("a priority of 4 bytes", [post(&[]), frame(PRIORITY, 0, 1, &[0; 4])].concat(), GENERAL),
        ("a reset of 3 bytes", frame(RST_STREAM, 0, 1, &[0; 3]), GENERAL),
        ("a reset of the connection", frame(RST_STREAM, 0, 0, &[0; 4]), "connection PROTOCOL_ERROR"),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[]), "connection PROTOCOL_ERROR"),
        ("settings of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), GENERAL),
        ("an acknowledgement with settings", frame(SETTINGS, ACK, 0, &[0; 6]), GENERAL),
        ("push, half enabled", settings(&[(2, 2)]), "connection PROTOCOL_ERROR"),
        ("a window that overflows", settings(&[(4, 0x8000_0000)]), GENERAL),
        ("frames that are too small", settings(&[(5, 16_383)]), "connection PROTOCOL_ERROR"),
        ("frames that are too large", settings(&[(5, 0x0100_0000)]), "connection PROTOCOL_ERROR"),
        (
            "a promise of a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            "connection PROTOCOL_ERROR",
        ),
        ("a ping of 7 bytes", frame(PING, 0, 0, &[0; 7]), GENERAL),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8]), "connection PROTOCOL_ERROR"),
        ("a goodbye of a stream", frame(GOAWAY, 0, 1, &[0; 8]), "connection PROTOCOL_ERROR"),
        ("a window of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), GENERAL),
        ("no window at all", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), "connection PROTOCOL_ERROR"),
        ("no window for a stream", [post(&[]), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(), GENERAL),
        ("too much window", frame(WINDOW_UPDATE, 0, 0, &max), "connection FLOW_CONTROL_ERROR"),
        (
            "too much window for a stream",
            [post(&[]), frame(WINDOW_UPDATE, 0, 1, &max)].concat(),
            "stream FLOW_CONTROL_ERROR",
        ),
        // 6.10
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &[]), "connection PROTOCOL_ERROR"),
        (
            "something within a head",
            [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(PING, 0, 0, &[0; 8])].concat(),
            "connection PROTOCOL_ERROR",
        ),
        (
            "a head in two parts",
            [
                frame(HEADERS, END_STREAM, 1, &block(&GET)[..9]),
                frame(CONTINUATION, END_HEADERS, 1, &block(&GET)[9..]),
            ]
            .concat(),
            "200",
        ),
        // 5.1, streams that are over
        (
            "data behind the end",
            [post(&[]), frame(DATA, END_STREAM, 1, b"x"), frame(DATA, 0, 1, b"y")].concat(),
            GENERAL,
        ),
        (
            "a head behind the end",
            [frame(HEADERS, WHOLE, 3, &block(&GET)), frame(HEADERS, WHOLE, 1, &block(&GET))].concat(),
            "connection PROTOCOL_ERROR",
        ),
        (
            "a second head behind the end",
            [get(&[]), frame(HEADERS, WHOLE, 1, &block(&GET))].concat(),
            GENERAL,
        ),
        (
            "data behind a reset",
            [post(&[]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), frame(DATA, 0, 1, b"y")].concat(),
            "stream STREAM_CLOSED",
        ),
        (
            "a head behind a reset",
            [post(&[]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), get(&[])].concat(),
            GENERAL,
        ),
        // 4.1, 5.5
        (
            "flags and a bit that mean nothing",
            [
                frame(PING, 0xfe, 0x8000_0000, &[0; 8]),
                frame(HEADERS, WHOLE | 0xd2, 0x8000_0001, &block(&GET)),
            ]
            .concat(),
            "200",
        ),
        (
            "an unknown frame within a head",
            [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(0xfa, 0, 1, b"x")].concat(),
            "connection PROTOCOL_ERROR",
        ),
        (
            "a head within a head",
            [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(HEADERS, WHOLE, 3, &block(&GET))].concat(),
            "connection PROTOCOL_ERROR",
        ),
        (
            "a continuation for another stream",
            [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            "connection PROTOCOL_ERROR",
        ),
        (
            "a continuation behind a whole head",
            [get(&[]), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            "connection PROTOCOL_ERROR",
        ),
        // 5.3, 6.2, 6.3
        (
            "padded fields",
            frame(HEADERS, WHOLE | PADDED, 1, &[&[2], &block(&GET)[..], &[0, 0]].concat()),
            "200",
        ),
        (
            "a priority",
            frame(HEADERS, WHOLE | PRIORITIZED, 1, &[&[0, 0, 0, 3, 9], &block(&GET)[..]].concat()),
            "200",
        ),
        (
            "a stream that depends on itself",
            frame(HEADERS, WHOLE | PRIORITIZED, 1, &[&[0, 0, 0, 1, 9], &block(&GET)[..]].concat()),
            "stream PROTOCOL_ERROR",
        ),
        (
            "a stream that is said to depend on itself",
            [frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]), get(&[])].concat(),
            "stream PROTOCOL_ERROR",
        ),
        ("a priority of the connection", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 9]), GENERAL),
        ("a priority of an idle stream", [frame(PRIORITY, 0, 7, &[0, 0, 0, 1, 9]), get(&[])].concat(), "200"),
        // 6.4, 6.5.3, 6.7, 7
        (
            "a reset for a reason that nobody knows",
            [post(&[]), frame(RST_STREAM, 0, 1, &[0, 0, 9, 9]), frame(HEADERS, WHOLE, 3, &block(&GET))]
                .concat(),
            "200",
        ),
        ("an answer to a ping that was not sent", [frame(PING, ACK, 0, &[0; 8]), get(&[])].concat(), "200"),
        (
            "settings acknowledged that were not sent",
            [frame(SETTINGS, ACK, 0, &[]), frame(SETTINGS, ACK, 0, &[]), get(&[])].concat(),
            "connection PROTOCOL_ERROR",
        ),
        ("the same setting twice", [settings(&[(4, 0), (4, 100)]), get(&[])].concat(), "200"),
        // RFC 7541, 4.2, 5.2, 6.3
        ("a smaller table first", frame(HEADERS, WHOLE, 1, &[&[0x20], &block(&GET)[..]].concat()), "200"),
        ("a smaller table last", frame(HEADERS, WHOLE, 1, &[&block(&GET)[..], &[0x20]].concat()), GENERAL),
        (
            "a larger table than allowed",
            frame(HEADERS, WHOLE, 1, &[&[0x3f, 0xe2, 0x1f], &block(&GET)[..]].concat()),
            GENERAL,
        ),
        ("the end of all strings in one", literal(&[0xff, 0xff, 0xff, 0xff]), GENERAL),
        ("a string padded with more than seven bits", literal(&[0x1f, 0xff]), GENERAL),
        ("a string padded with zeros", literal(&[0x18]), GENERAL),
        // 8.1
        (
            "trailers with a name in capitals",
            [post(&[]), frame(HEADERS, WHOLE, 1, &block(&[("X-A", "b")]))].concat(),
            GENERAL,
        ),
        (
            "trailers of a connection",
            [post(&[]), frame(HEADERS, WHOLE, 1, &block(&[("connection", "close")]))].concat(),
            "stream PROTOCOL_ERROR",
        ),
        (
            "trailers that do not end the stream",
            [post(&[]), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))].concat(),
            "stream PROTOCOL_ERROR",
        ),
        // `h2` takes it out of the trailers and goes on.
        (
            "trailers with a pseudo-field",
            [post(&[]), frame(HEADERS, WHOLE, 1, &block(&[(":path", "/x")]))].concat(),
            "200",
        ),
        (
            "more data than said",
            [post(&[("content-length", "1")]), frame(DATA, 1, 1, b"xy")].concat(),
            "stream PROTOCOL_ERROR",
        ),
        (
            "less data than said",
            [post(&[("content-length", "3")]), frame(DATA, 1, 1, b"xy")].concat(),
            "stream PROTOCOL_ERROR",
        ),
        ("no data but a length", get(&[("content-length", "3")]), "stream PROTOCOL_ERROR"),
        ("two lengths", get(&[("content-length", "0"), ("content-length", "1")]), "stream PROTOCOL_ERROR"),
        ("the same length twice", get(&[("content-length", "0"), ("content-length", "0")]), "400"),
        ("a length that is none", get(&[("content-length", "+0")]), "stream PROTOCOL_ERROR"),
        // 8.2
        ("a name in capitals", get(&[("X-A", "b")]), GENERAL),
        ("a name with a space", get(&[("x a", "b")]), GENERAL),
        ("a name with a colon", get(&[("x:a", "b")]), GENERAL),
        ("an empty name", get(&[("", "b")]), GENERAL),
        ("a line break in a value", get(&[("x", "b\r\nc: d")]), GENERAL),
        ("a line feed in a value", get(&[("x", "b\nc")]), GENERAL),
        ("a zero in a value", get(&[("x", "b\0")]), GENERAL),
        ("a space before a value", get(&[("x", " b")]), "stream PROTOCOL_ERROR"),
        ("a tab behind a value", get(&[("x", "b\t")]), "stream PROTOCOL_ERROR"),
        ("connection", get(&[("connection", "close")]), "stream PROTOCOL_ERROR"),
        ("proxy-connection", get(&[("proxy-connection", "close")]), "stream PROTOCOL_ERROR"),
        ("keep-alive", get(&[("keep-alive", "5")]), "stream PROTOCOL_ERROR"),
        ("transfer-encoding", get(&[("transfer-encoding", "chunked")]), "stream PROTOCOL_ERROR"),
        ("upgrade", get(&[("upgrade", "websocket")]), "stream PROTOCOL_ERROR"),
        ("te with more than trailers", get(&[("te", "trailers, gzip")]), "stream PROTOCOL_ERROR"),
        // 8.3
        (
            "a pseudo-field behind a field",
            frame(HEADERS, WHOLE, 1, &block(&[GET[0], GET[1], ("a", "b"), GET[3]])),
            "stream PROTOCOL_ERROR",
        ),
        ("an unknown pseudo-field", get(&[(":what", "x")]), GENERAL),
        (
            "a status",
            frame(HEADERS, WHOLE, 1, &block(&[GET[0], GET[1], GET[2], GET[3], (":status", "200")])),
            "stream PROTOCOL_ERROR",
        ),
        (
            "two methods",
            frame(HEADERS, WHOLE, 1, &block(&[GET[0], GET[0], GET[1], GET[2], GET[3]])),
            "stream PROTOCOL_ERROR",
        ),
        (
            "two paths",
            frame(HEADERS, WHOLE, 1, &block(&[GET[0], GET[3], GET[1], GET[2], GET[3]])),
            "stream PROTOCOL_ERROR",
        ),
        ("no method", without(":method"), "stream PROTOCOL_ERROR"),
        ("no scheme", without(":scheme"), "stream PROTOCOL_ERROR"),
        ("no path", without(":path"), "stream PROTOCOL_ERROR"),
        ("neither authority nor host", without(":authority"), "400"),
        ("an empty path", with(":path", ""), "stream PROTOCOL_ERROR"),
        ("an absolute path", with(":path", "http://other/"), "stream PROTOCOL_ERROR"),
        ("a star for GET", with(":path", "*"), "400"),
        ("a scheme with a line break", with(":scheme", "http\r\nx: y"), "stream PROTOCOL_ERROR"),
        ("a scheme that is a target", with(":scheme", "http://other/?"), "stream PROTOCOL_ERROR"),
        ("another scheme", with(":scheme", "ftp"), "stream PROTOCOL_ERROR"),
        // `h2` takes it off, and "/" goes on.
        ("a fragment", with(":path", "/#x"), "200"),
        ("a letter beyond ASCII in the path", with(":path", "/\u{e9}"), "400"),
        ("an empty authority", with(":authority", ""), "stream PROTOCOL_ERROR"),
        ("an authority with a space", with(":authority", "a b"), "stream PROTOCOL_ERROR"),
        ("two authorities", get(&[(":authority", "test")]), "stream PROTOCOL_ERROR"),
        ("a value beyond ASCII", get(&[("x", "\u{e9}")]), "200"),
        ("DEL in a value", get(&[("x", "a\u{7f}")]), GENERAL),
        ("a path with a space", with(":path", "/a b"), "stream PROTOCOL_ERROR"),
        ("a path with a line break", with(":path", "/ HTTP/1.1\r\nx: y"), "stream PROTOCOL_ERROR"),
        ("a method with a line break", with(":method", "GET / HTTP/1.1\r\n"), GENERAL),
        ("an authority with a user", with(":authority", "a@test"), "400"),
        ("an authority with a path", with(":authority", "test/x"), "stream PROTOCOL_ERROR"),
        ("another host", get(&[("host", "other")]), "stream PROTOCOL_ERROR"),
        ("the same host", get(&[("host", "test")]), "200"),
        (
            "a tunnel",
            frame(HEADERS, WHOLE, 1, &block(&[(":method", "CONNECT"), (":authority", "test")])),
            "literal",
        ),
        (
            "another protocol on GET",
            frame(HEADERS, WHOLE, 1, &block(&[GET[0], (":protocol", "websocket"), GET[1], GET[2], GET[3]])),
            "stream PROTOCOL_ERROR",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, expect) in table {
        let mut raw = Raw::open(proxy.addr);
        raw.send(&bytes).unwrap();
        let found = raw.outcome();
        if found != expect {
            wrong.push(format!("{name}: {found} instead of {expect}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sends until the connection is closed; says what the last words were, and how many times.
fn flood(raw: &mut Raw, part: &[u8], times: usize) -> (String, usize) {
    raw.stream.set_write_timeout(Some(HANG)).unwrap();
    let mut sent = 0;
    while sent < times && raw.send(part).is_ok() {
        sent += 1;
    }
    (raw.outcome_of_connection(), sent)
}

impl Raw {
    /// Skips what is said of streams.
    pub fn outcome_of_connection(&mut self) -> String {
        loop {
            match self.next() {
                None => return "closed".to_owned(),
                Some(frame) if frame.kind == GOAWAY => return format!("connection {}", frame.code()),
                Some(_) => {}
            }
        }
    }
}

/// The rest of the proxy goes on as if nothing were.
fn others_are_served(proxy: &Proxy) {
    let mut raw = Raw::open(proxy.addr);
    raw.send(&get(&[])).unwrap();
    assert_eq!(raw.outcome(), "200");
    drop(raw);
    eventually("nothing is left of it", || proxy.stats().connections_open == 0);
    eventually("no request is under way", || proxy.in_flight("i") == 0);
}

#[test]
fn floods_end_their_connection_and_nothing_else() {
    let (_origin, proxy) = serving();
    let ping = frame(PING, 0, 0, &[7; 8]);
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]);
    let empty = frame(DATA, 0, 1, &[]);
    let priority = frame(PRIORITY, 0, 9, &[0, 0, 0, 3, 1]);
    let goodbye = frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0]);
    let unknown = frame(0xbb, 0, 0, b"x");
    let window = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    for (name, before, part) in [
        ("pings", Vec::new(), ping),
        ("settings", Vec::new(), settings),
        ("empty data", post(&[]), empty),
        ("priorities", Vec::new(), priority),
        ("goodbyes", Vec::new(), goodbye),
        ("unknown frames", Vec::new(), unknown),
        ("windows", Vec::new(), window),
    ] {
        let mut raw = Raw::open(proxy.addr);
        raw.send(&before).unwrap();
        let mut reader = Raw::of(&raw);
        let reading = std::thread::spawn(move || reader.outcome_of_connection());
        let many = part.repeat(1_000);
        let _ = (0..200).take_while(|_| raw.send(&many).is_ok()).count();
        // The goodbye may be overtaken by the reset that answers what was sent behind it.
        let outcome = reading.join().unwrap();
        let expected = match name {
            // One is enough.
            "goodbyes" => "connection NO_ERROR",
            _ => "connection ENHANCE_YOUR_CALM",
        };
        assert!([expected, "closed"].contains(&outcome.as_str()), "{name}: {outcome}");
    }
    others_are_served(&proxy);
}

#[test]
fn a_head_that_never_ends_ends_the_connection() {
    let (_origin, proxy) = serving();
    let mut raw = Raw::open(proxy.addr);
    raw.send(&frame(HEADERS, END_STREAM, 1, &block(&GET))).unwrap();
    let part = frame(CONTINUATION, 0, 1, &block(&[("x-a", &"b".repeat(100))]).repeat(100));
    let (outcome, sent) = flood(&mut raw, &part, 10_000);
    assert!(sent < 10_000 && outcome != "200", "{sent} parts: {outcome}");
    let mut raw = Raw::open(proxy.addr);
    raw.send(&frame(HEADERS, END_STREAM, 1, &block(&GET))).unwrap();
    let (outcome, sent) = flood(&mut raw, &frame(CONTINUATION, 0, 1, &[]).repeat(100), 10_000);
    assert!(sent < 10_000, "{sent} empty parts: {outcome}");
    others_are_served(&proxy);
}

#[test]
fn a_head_that_unfolds_without_measure_is_refused() {
    let (_origin, proxy) = serving();
    let mut raw = Raw::open(proxy.addr);
    // One field of 4,000 bytes enters the table, and each byte behind it repeats it: 60 MB.
    let mut bomb = block(&GET);
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'y'; 4_000]);
    bomb.resize(16_000, 0xbe);
    raw.send(&frame(HEADERS, WHOLE, 1, &bomb)).unwrap();
    assert_eq!(raw.outcome(), "connection ENHANCE_YOUR_CALM");
    others_are_served(&proxy);
}

#[test]
fn ten_thousand_streams_that_are_reset_at_once_end_their_connection() {
    let served = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&served);
    let origin = Origin::start(move |request| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ok(&request.body)
    });
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut raw = Raw::open(proxy.addr);
    let mut reader = Raw::of(&raw);
    let reading = std::thread::spawn(move || reader.outcome_of_connection());
    let mut opened = 0;
    while opened < 10_000 {
        let id = 2 * opened + 1;
        let pair =
            [frame(HEADERS, WHOLE, id, &block(&GET)), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat();
        if raw.send(&pair).is_err() {
            break;
        }
        opened += 1;
    }
    let outcome = reading.join().unwrap();
    assert!(["connection ENHANCE_YOUR_CALM", "closed"].contains(&outcome.as_str()), "{opened}: {outcome}");
    others_are_served(&proxy);
    let served = served.load(std::sync::atomic::Ordering::Relaxed);
    assert!(served < 300, "{served} requests reached the instance");
}

#[test]
fn whoever_says_nothing_or_something_else_is_not_waited_for() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start_with(|options| {
        options.limits.head = Duration::from_millis(100);
        options.limits.idle = Duration::from_millis(200);
        options.limits.idle_drain = Duration::from_millis(100);
        options.limits.linger = Duration::from_millis(50);
    });
    proxy.serve(service(&[("i", origin.addr)]));
    let begun = Instant::now();
    // Half a preface; a preface without settings; another word than the preface's last.
    for (bytes, expect) in [
        (&PREFACE[..20], "closed"),
        (b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", "closed"),
        (PREFACE, "connection NO_ERROR"),
    ] {
        let mut raw = Raw::silent(proxy.addr);
        raw.send(bytes).unwrap();
        assert_eq!(raw.outcome_of_connection(), expect, "{bytes:?}");
    }
    // Pings are no requests.
    let mut raw = Raw::open(proxy.addr);
    raw.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    while raw.send(&frame(PING, ACK, 0, &[0; 8])).is_ok() {
        assert!(begun.elapsed() < HANG);
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually("all are gone", || proxy.stats().connections_open == 0);
}

#[test]
fn http_1_does_not_become_http_2_half_way() {
    let (_origin, proxy) = serving();
    let mut raw = Raw::silent(proxy.addr);
    raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    raw.send(PREFACE).unwrap();
    let mut text = String::new();
    raw.stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("HTTP/1.1 505 "), "{text}");
}
