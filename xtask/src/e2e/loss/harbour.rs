//! A project that knows every kind of client there is: one service of HTTP/1.1 with answers, orders, WebSockets that are
//! echoed and event streams, and one of HTTP/2 with answers, orders and calls that are echoed. Both die at once when they
//! are told to stop: nobody may be there by then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::fault::{Context, Done, Fault};
use crate::home::{free_address, get};

/// Sockets and nothing else. Every order goes into a ledger that all copies share; a line this short is written whole.
const PROGRAM: &str = r#"
import base64, hashlib, os, socket, struct, _thread, time

VERSION = os.environ["VERSION"]
PAGE = b"x" * 1024
ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

class Gone(Exception):
    pass

class Wire:
    def __init__(self, socket):
        self.socket, self.held = socket, b""
    def until(self, mark):
        while mark not in self.held:
            self.more()
        text, self.held = self.held.split(mark, 1)
        return text
    def exactly(self, size):
        while len(self.held) < size:
            self.more()
        piece, self.held = self.held[:size], self.held[size:]
        return piece
    def more(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise Gone()
        self.held += piece

def answer(wire, body):
    head = "HTTP/1.1 200 OK\r\nx-shop-version: %s\r\ncontent-length: %d\r\n\r\n" % (VERSION, len(body))
    wire.socket.sendall(head.encode() + body)

def frame(first, payload):
    size = len(payload)
    return (struct.pack("!BB", first, size) if size < 126 else struct.pack("!BBH", first, 126, size)) + payload

def echo(wire, key):
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    wire.socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                        b"sec-websocket-accept: " + accept + b"\r\n\r\n")
    while True:
        first, second = wire.exactly(2)
        size = second & 0x7f
        if size == 126:
            size, = struct.unpack("!H", wire.exactly(2))
        mask = wire.exactly(4)
        payload = bytes(b ^ mask[at % 4] for at, b in enumerate(wire.exactly(size)))
        if first & 0x0f == 8:
            return wire.socket.sendall(frame(0x88, payload))
        wire.socket.sendall(frame(first, payload))

def events(wire):
    wire.socket.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    number = 0
    while True:
        data = b"data: %d\n\n" % number
        wire.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        number += 1
        time.sleep(0.1)

def serve(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = Wire(connection)
    try:
        while True:
            head = wire.until(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            method, path, _ = first.split(b" ")
            fields = {name.strip().lower(): value.strip() for name, value in (line.split(b":", 1) for line in lines)}
            body = wire.exactly(int(fields.get(b"content-length", b"0")))
            if path == b"/echo":
                return echo(wire, fields[b"sec-websocket-key"])
            if path == b"/events":
                return events(wire)
            if method == b"POST":
                os.write(ledger, body + b"\n")
            answer(wire, PAGE)
            if fields.get(b"connection", b"").lower() == b"close":
                return
    except (Gone, OSError):
        pass
    finally:
        connection.close()

listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=512)
while True:
    _thread.start_new_thread(serve, (listener.accept()[0],))
"#;

/// The same over HTTP/2. An order is written before it is acknowledged, and a call is echoed until the other side ends it.
const CALLS_PROGRAM: &str = r#"
const fs = require("fs");
const http2 = require("http2");

const ledger = fs.openSync(process.env.LEDGER, "a", 0o644);
const head = { ":status": 200, "x-shop-version": process.env.VERSION };

function call(stream) {
  if (stream.destroyed) return;
  stream.respond({ ...head, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.destroyed || stream.sendTrailers({ "grpc-status": "0" }));
  stream.on("data", (piece) => stream.destroyed || stream.write(piece));
  stream.on("end", () => stream.end());
}

const server = http2.createServer();
server.on("stream", (stream, fields) => {
  stream.on("error", () => {});
  if (fields[":path"] === "/calls/echo") return call(stream);
  const pieces = [];
  stream.on("data", (piece) => pieces.push(piece));
  stream.on("end", () => {
    // A body that its client broke off ends, too, and is no order.
    if (stream.aborted) return;
    if (fields[":method"] === "POST") fs.writeSync(ledger, Buffer.concat([...pieces, Buffer.from("\n")]));
    // Whoever asked may have given up: to answer a stream that is gone throws, and would end the instance.
    if (stream.destroyed) return;
    stream.respond(head);
    stream.end("x".repeat(1024));
  });
});
server.on("sessionError", () => {});
server.listen(Number(process.env.PORT), "127.0.0.1");
"#;

const FILE: &str = r#"version = 1
project = "harbour"

[service.web]
command = ["python3", "-I", "-S", "harbour.py"]
port = 3000
route = "/"
env = { VERSION = "SHOWN", LEDGER = "LEDGER" }
ready = { http = "/", within = "20s", every = "10ms" }

[service.calls]
command = ["node", "calls.js"]
port = 3001
route = "/calls"
protocol = "h2c"
env = { VERSION = "SHOWN", LEDGER = "LEDGER" }
ready = { http = "/calls", within = "20s", every = "10ms" }

[env.dev]
listen = "LISTEN"
tls = { self_signed = true, listen = "SECURE", redirect = false }
service.web.replicas = 2
service.calls.replicas = 2

[env.dev.deploy]
bake = "0s"
drain = "DRAIN_S"
strategy = "canary"
steps = [{ weight = 20, hold = "300ms" }, { weight = 60, hold = "300ms" }]
# Evidence has a run of its own: here a machine that is slow must not undo a release.
sequential = false
"#;

/// Half of what a person waits for, so that a short run sees the ends of many streams.
pub const DRAIN_S: u64 = 3;

#[derive(Debug)]
pub struct Harbour {
    directory: PathBuf,
    ledger: PathBuf,
    address: SocketAddr,
    secure: SocketAddr,
}

impl Harbour {
    pub fn write(directory: PathBuf) -> Done<Harbour> {
        std::fs::create_dir_all(&directory).context("the project's directory")?;
        std::fs::write(directory.join("harbour.py"), PROGRAM).context("harbour.py")?;
        std::fs::write(directory.join("calls.js"), CALLS_PROGRAM).context("calls.js")?;
        let ledger = directory.with_extension("ledger");
        Ok(Harbour { directory, ledger, address: free_address()?, secure: free_address()? })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where TLS is spoken.
    pub fn secure(&self) -> SocketAddr {
        self.secure
    }

    pub fn check_out(&self, version: &str) -> Done {
        let text = FILE
            .replace("LISTEN", &self.address.to_string())
            .replace("SECURE", &self.secure.to_string())
            .replace("SHOWN", version)
            .replace("\"LEDGER\"", &format!("{:?}", self.ledger.display().to_string()))
            .replace("DRAIN_S", &format!("{DRAIN_S}s"));
        std::fs::write(self.directory.join("fairway.toml"), text).context("fairway.toml")
    }

    /// The version that answers.
    pub fn version(&self) -> Done<String> {
        let answer = get(self.address, "/")?;
        Ok(answer.header("x-shop-version").context("the harbour does not say its version")?.to_owned())
    }

    pub fn orders(&self) -> Done<Orders> {
        let text = std::fs::read_to_string(&self.ledger).context("the ledger")?;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(Fault::new("the ledger ends within a line"));
        }
        Ok(Orders::read(&text))
    }
}

/// Orders by whose they are: as [`super::seen::key`] says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// That arrived, each counted once.
    pub stored: BTreeMap<String, u64>,
    /// Times that one arrived again.
    pub doubled: BTreeMap<String, u64>,
}

impl Orders {
    /// Lines of `SIDE-NUMBER-KIND.` and what fills the order.
    fn read(ledger: &str) -> Orders {
        let mut orders = Orders::default();
        let mut seen = BTreeSet::new();
        for line in ledger.lines() {
            let id = line.split('.').next().unwrap_or(line);
            let (side, rest) = id.split_once('-').unwrap_or((id, ""));
            let kind = rest.split_once('-').map_or(rest, |(_number, kind)| kind);
            let of = if seen.insert(line) { &mut orders.stored } else { &mut orders.doubled };
            *of.entry(format!("{side} {kind}")).or_default() += 1;
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_counted_by_whose_they_are_and_what_comes_twice_as_doubled() {
        let ledger = "plain-1-slow-post.oo\ntls-1-h2-post.oo\nplain-2-slow-post.oo\nplain-1-slow-post.oo\n";
        let Orders { stored, doubled } = Orders::read(ledger);
        let count = |name: &str, count| (name.to_owned(), count);
        assert_eq!(stored, BTreeMap::from([count("plain slow-post", 2), count("tls h2-post", 1)]));
        assert_eq!(doubled, BTreeMap::from([count("plain slow-post", 1)]));
    }
}
