//! What is done to the proxy, one by one.

use super::bytes;

/// By which door it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Plain,
    Tls,
}

#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// All stay open, and are opened again when they were closed; each sends this every second.
    Stay { drip: fn() -> Vec<u8>, reads: Reads },
    /// So many come each second, and go.
    Come,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    Nothing,
    AByte,
    Everything,
}

#[derive(Debug, Clone, Copy)]
pub struct Attack {
    pub name: &'static str,
    pub connections: usize,
    pub door: Door,
    pub manner: Manner,
    pub first: fn() -> Vec<u8>,
    /// Somewhere in what comes back at first: shows that the attack arrived where it was meant to.
    pub proof: &'static [u8],
    /// What each connection may take of the proxy's memory.
    pub each_kib: usize,
}

const NOTHING: fn() -> Vec<u8> = Vec::new;
const A_BYTE: fn() -> Vec<u8> = || b"x".to_vec();
const STAYS: Manner = Manner::Stay { drip: NOTHING, reads: Reads::Nothing };

const OK: &[u8] = b"HTTP/1.1 200 ";
/// The header of a GOAWAY.
const GOAWAY: &[u8] = &[7, 0, 0, 0, 0, 0];
/// A message of a handshake, and an alert that ends it.
const SERVER_HELLO: &[u8] = &[22, 3, 3];
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2];

fn get(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: www.example.com\r\n{more}\r\n").into_bytes()
}

fn post(more: &str) -> Vec<u8> {
    format!("POST /a/p HTTP/1.1\r\nHost: www.example.com\r\n{more}\r\n").into_bytes()
}

/// What each connection may take is a round number above what was measured. Of a request under way there is a buffer of
/// 8 or 64 KiB, of an answer one of 128 KiB, and what goes with them; of a connection of HTTP/2 a hundred streams,
/// whose answers share what they have. Of those that come and go there are no more at once than come in a second.
pub const ALL: &[Attack] = &[
    Attack {
        name: "10,000 idle connections",
        connections: 10_000,
        door: Door::Plain,
        manner: STAYS,
        first: || get("/s", ""),
        proof: OK,
        each_kib: 4,
    },
    Attack {
        name: "2,000 heads, a byte a second",
        connections: 2_000,
        door: Door::Plain,
        manner: Manner::Stay { drip: A_BYTE, reads: Reads::Nothing },
        first: || b"GET /s HTTP/1.1\r\nHost: www.example.com\r\nX: ".to_vec(),
        proof: b"",
        each_kib: 16,
    },
    Attack {
        name: "500 bodies, a byte a second",
        connections: 500,
        door: Door::Plain,
        manner: Manner::Stay { drip: A_BYTE, reads: Reads::Nothing },
        first: || post("Content-Length: 100000\r\n"),
        proof: b"",
        each_kib: 32,
    },
    Attack {
        name: "20 bodies in chunks of a byte, 64 KiB a second each",
        connections: 20,
        door: Door::Plain,
        manner: Manner::Stay { drip: || b"1\r\nx\r\n".repeat(64 * 1024 / 6), reads: Reads::Nothing },
        first: || post("Transfer-Encoding: chunked\r\n"),
        proof: b"",
        each_kib: 128,
    },
    Attack {
        name: "chunks with extensions of 60 KiB, 100 a second",
        connections: 100,
        door: Door::Plain,
        manner: Manner::Come,
        first: || [post("Transfer-Encoding: chunked\r\n"), b"1;".to_vec(), vec![b'x'; 60_000]].concat(),
        proof: b"HTTP/1.1 400 ",
        each_kib: 32,
    },
    Attack {
        name: "200 connections, 200 requests each, no answer read",
        connections: 200,
        door: Door::Plain,
        manner: STAYS,
        first: || get("/a/l", "").repeat(200),
        proof: OK,
        each_kib: 160,
    },
    Attack {
        name: "200 large answers, a byte a second",
        connections: 200,
        door: Door::Plain,
        manner: Manner::Stay { drip: NOTHING, reads: Reads::AByte },
        first: || get("/a/b", ""),
        proof: OK,
        each_kib: 160,
    },
    Attack {
        name: "200 event streams that are not read",
        connections: 200,
        door: Door::Plain,
        manner: STAYS,
        first: || get("/a/e", ""),
        proof: OK,
        each_kib: 160,
    },
    Attack {
        name: "200 WebSockets that are not read",
        connections: 200,
        door: Door::Plain,
        manner: STAYS,
        first: || {
            get(
                "/a/w",
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
            )
        },
        proof: b"HTTP/1.1 101 ",
        each_kib: 160,
    },
    Attack {
        name: "20 connections, 250 tiny requests a second each, at once",
        connections: 20,
        door: Door::Plain,
        manner: Manner::Stay { drip: || get("/none", "").repeat(250), reads: Reads::Everything },
        first: NOTHING,
        proof: b"",
        each_kib: 64,
    },
    Attack {
        name: "heads of 40 KiB, 200 a second",
        connections: 200,
        door: Door::Plain,
        manner: Manner::Come,
        first: || get("/s", &"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1_000)),
        proof: b"HTTP/1.1 431 ",
        each_kib: 32,
    },
    Attack {
        name: "targets of 40 KiB, 200 a second",
        connections: 200,
        door: Door::Plain,
        manner: Manner::Come,
        first: || get(&format!("/{}", "a".repeat(40_000)), ""),
        proof: b"HTTP/1.1 4",
        each_kib: 32,
    },
    Attack {
        name: "1,000 connections a second that ask nothing",
        connections: 1_000,
        door: Door::Plain,
        manner: Manner::Come,
        first: NOTHING,
        proof: b"",
        each_kib: 4,
    },
    Attack {
        name: "TLS: handshakes left half done, 100 a second",
        connections: 100,
        door: Door::Tls,
        manner: Manner::Come,
        first: bytes::half_a_handshake,
        proof: SERVER_HELLO,
        each_kib: 32,
    },
    Attack {
        name: "TLS: handshakes in records of a byte, 100 a second",
        connections: 100,
        door: Door::Tls,
        manner: Manner::Come,
        first: bytes::crumbled_handshake,
        proof: SERVER_HELLO,
        each_kib: 32,
    },
    Attack {
        name: "TLS: 1,000 handshakes, a byte a second",
        connections: 1_000,
        door: Door::Tls,
        manner: Manner::Stay { drip: || vec![3], reads: Reads::Nothing },
        first: || bytes::half_a_handshake()[..1].to_vec(),
        proof: b"",
        each_kib: 16,
    },
    Attack {
        name: "TLS: names without a certificate, 200 a second",
        connections: 200,
        door: Door::Tls,
        manner: Manner::Come,
        first: bytes::stranger,
        proof: ALERT,
        each_kib: 16,
    },
    Attack {
        name: "TLS: names that are none, 200 a second",
        connections: 200,
        door: Door::Tls,
        manner: Manner::Come,
        first: bytes::garbled_name,
        proof: ALERT,
        each_kib: 16,
    },
    Attack {
        name: "HTTP/2: 1,000 streams opened and reset each, 10 connections a second",
        connections: 10,
        door: Door::Plain,
        manner: Manner::Come,
        first: bytes::rapid_reset,
        proof: GOAWAY,
        each_kib: 512,
    },
    Attack {
        name: "HTTP/2: 1,000 streams that we have to reset each, 10 connections a second",
        connections: 10,
        door: Door::Plain,
        manner: Manner::Come,
        first: bytes::made_you_reset,
        proof: GOAWAY,
        each_kib: 512,
    },
    Attack {
        name: "HTTP/2: heads without end, 50 connections a second",
        connections: 50,
        door: Door::Plain,
        manner: Manner::Come,
        first: bytes::continuations,
        proof: GOAWAY,
        each_kib: 64,
    },
    Attack {
        name: "HTTP/2: 2,000 settings each, 50 connections a second",
        connections: 50,
        door: Door::Plain,
        manner: Manner::Come,
        first: bytes::settings,
        proof: GOAWAY,
        each_kib: 64,
    },
    Attack {
        name: "HTTP/2: 2,000 pings each, 50 connections a second",
        connections: 50,
        door: Door::Plain,
        manner: Manner::Come,
        first: bytes::pings,
        proof: GOAWAY,
        each_kib: 64,
    },
    Attack {
        name: "HTTP/2: heads that unfold to 48 MiB, 50 a second",
        connections: 50,
        door: Door::Plain,
        manner: Manner::Come,
        first: bytes::unfolding,
        // Too long: 431, of which the table has no number.
        proof: b"",
        each_kib: 64,
    },
    Attack {
        name: "HTTP/2: cookies of 10,000 crumbs, 50 a second",
        connections: 50,
        door: Door::Plain,
        manner: Manner::Come,
        first: bytes::crumbs,
        proof: b"",
        each_kib: 64,
    },
    Attack {
        name: "HTTP/2: 10 × 100 bodies, a byte a second",
        connections: 10,
        door: Door::Plain,
        manner: Manner::Stay { drip: bytes::slow_data, reads: Reads::Nothing },
        first: bytes::slow_bodies,
        proof: b"",
        each_kib: 3 * 1024,
    },
    Attack {
        name: "HTTP/2: 10 × 100 large answers without a window",
        connections: 10,
        door: Door::Plain,
        manner: STAYS,
        first: bytes::no_window,
        proof: b"",
        each_kib: 8 * 1024,
    },
    Attack {
        name: "HTTP/2: 10 × 100 large answers that are not read",
        connections: 10,
        door: Door::Plain,
        manner: STAYS,
        first: bytes::wide_windows,
        proof: b"",
        each_kib: 16 * 1024,
    },
];
