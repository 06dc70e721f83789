//! What a process of its own takes while clients do their worst, each beside its bound.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fairway_proxy::RunOptions;
use fairway_proxy::control::Client;
use fairway_proxy::snapshot::{Certificate, CertificatePurpose, Snapshot, Tls};

use crate::support::*;

const STATE_DIR: &str = "FAIRWAY_TEST_STATE_DIR";

/// Not a test: the process that [`Apart`] starts.
#[test]
#[ignore = "is started by others"]
fn the_process() {
    let Some(dir) = std::env::var_os(STATE_DIR) else { return };
    let mut options = RunOptions::new(dir);
    options.workers = NonZeroUsize::new(1);
    options.limits.handshake = Duration::from_millis(50);
    fairway_proxy::run(options).unwrap();
}

/// A proxy whose memory is its own.
struct Apart {
    dir: tempfile::TempDir,
    process: Child,
    web: SocketAddr,
    tls: SocketAddr,
}

impl Apart {
    fn start(origin: SocketAddr) -> Self {
        raise_descriptor_limit();
        let dir = tempfile::tempdir().unwrap();
        let (web, tls) = (free_addr(), free_addr());
        let mut snapshot = Snapshot {
            generation: 1,
            listeners: vec![listener("web", web), listener("tls", tls)],
            services: [("s".to_owned(), service(&[("i", origin)]))].into(),
            routes: vec![route("/", "s")],
            ..Snapshot::default()
        };
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let (chain, key) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        std::fs::write(&chain, cert.pem()).unwrap();
        std::fs::write(&key, rcgen::KeyPair::serialize_pem(&signing_key)).unwrap();
        let (names, digest, purpose) = (Vec::new(), "a".to_owned(), CertificatePurpose::Serving);
        snapshot.listeners[1].tls =
            Some(Tls { certificates: vec![Certificate { names, chain, key, digest, purpose }] });
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["memory::the_process", "--exact", "--ignored", "--nocapture"])
            .env(STATE_DIR, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let apart = Self { dir, process, web, tls };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = apart.dir.path().join("proxy.sock");
        eventually("it takes a snapshot", || {
            runtime.block_on(async {
                match Client::connect(&socket).await {
                    Ok(client) => client.apply(&snapshot).await.is_ok(),
                    Err(_) => false,
                }
            })
        });
        apart
    }

    fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Somebody else is served, in the middle of it all.
    fn serves(&self) {
        assert_eq!(Wire::open(self.web).get("/small").unwrap().text(), "small");
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Clients and what they are connected to are in this process.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Sends as much as is taken, as long as something is.
fn pour(stream: &mut TcpStream, bytes: &[u8], total: usize) {
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut sent = 0;
    while sent < total {
        match stream.write(bytes) {
            Ok(taken) => sent += taken,
            Err(_) => return,
        }
    }
}

fn origin() -> Origin {
    let large = vec![b'x'; 8 * 1024 * 1024];
    Origin::start(move |request| match request.target() {
        "/large" => ok(&large),
        _ => ok("small"),
    })
}

/// The growth from before to its highest while all of `clients` are there, in KiB.
fn growth_kib(apart: &Apart, clients: usize, mut client: impl FnMut() -> TcpStream) -> usize {
    apart.serves();
    let before = apart.resident_kib();
    let mut all = Vec::with_capacity(clients);
    let mut highest = before;
    for number in 0..clients {
        all.push(client());
        if number % 64 == 0 {
            highest = highest.max(apart.resident_kib());
        }
    }
    // What was sent has been read when it does not grow any more.
    let (mut last, begun) = (0, Instant::now());
    while highest != last && begun.elapsed() < HANG {
        last = highest;
        apart.serves();
        std::thread::sleep(Duration::from_millis(50));
        highest = highest.max(apart.resident_kib());
    }
    let growth = highest.saturating_sub(before);
    println!("{clients} clients: {growth} KiB, {:.1} each", growth as f64 / clients as f64);
    growth
}

const MANY: usize = 1000;
/// 4 when it is optimised.
const WAITING_KIB: usize = 16;

#[test]
fn a_connection_that_asked_once_and_waits_takes_a_few_kib() {
    let origin = origin();
    let apart = Apart::start(origin.addr);
    let growth = growth_kib(&apart, MANY, || {
        let mut wire = Wire::open(apart.web);
        assert_eq!(wire.get("/small").unwrap().status(), 200);
        wire.stream
    });
    assert!(growth < MANY * WAITING_KIB, "{growth} KiB");
}

#[test]
fn a_head_that_does_not_end_takes_one_buffer() {
    let origin = origin();
    let apart = Apart::start(origin.addr);
    // As much as is read before it is refused.
    let bomb = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(900));
    let growth = growth_kib(&apart, MANY, || {
        let mut stream = TcpStream::connect(apart.web).unwrap();
        stream.write_all(bomb.as_bytes()).unwrap();
        stream
    });
    assert!(growth < MANY * 72, "{growth} KiB");
    // One that goes on is refused and let go of.
    let mut endless = TcpStream::connect(apart.web).unwrap();
    pour(&mut endless, &b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1000), 64 * 1024 * 1024);
    let mut url = TcpStream::connect(apart.web).unwrap();
    pour(&mut url, &[b"GET /".as_slice(), &[b'a'; 60_000]].concat(), 60_000);
    let mut answer = [0; 12];
    url.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 414");
}

#[test]
fn a_handshake_that_does_not_end_takes_little() {
    let origin = origin();
    let apart = Apart::start(origin.addr);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let config = std::sync::Arc::new(config);
    let growth = growth_kib(&apart, MANY, || {
        let mut stream = TcpStream::connect(apart.tls).unwrap();
        let name = "a.example".try_into().unwrap();
        let mut session = rustls::ClientConnection::new(std::sync::Arc::clone(&config), name).unwrap();
        session.write_tls(&mut stream).unwrap();
        // The server's answer is here, and gets none.
        stream.read_exact(&mut [0; 5]).unwrap();
        stream
    });
    assert!(growth < MANY * 64, "{growth} KiB");
}

#[test]
fn an_answer_that_nobody_reads_takes_one_buffer() {
    const READERS: usize = 200;
    let origin = origin();
    let apart = Apart::start(origin.addr);
    let growth = growth_kib(&apart, READERS, || {
        let mut stream = TcpStream::connect(apart.web).unwrap();
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream
    });
    assert!(growth < READERS * 256, "{growth} KiB");
}

#[test]
fn requests_by_the_hundred_thousand_whose_answers_nobody_reads_take_one_buffer() {
    let origin = origin();
    let apart = Apart::start(origin.addr);
    let flood = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
    let growth = growth_kib(&apart, 10, || {
        let mut stream = TcpStream::connect(apart.web).unwrap();
        pour(&mut stream, &flood, 100_000 * 33);
        stream
    });
    assert!(growth < 10 * 512, "{growth} KiB");
}

#[test]
fn a_body_that_its_instance_does_not_read_takes_one_buffer() {
    let origin = Origin::raw(free_addr(), |mut stream| {
        let mut head = [0; 4];
        // Answers the small ones, and takes nothing of the others.
        while stream.read_exact(&mut head).is_ok() && &head == b"GET " {
            let mut rest = Vec::new();
            while !rest.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                rest.push(byte[0]);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall");
        }
        std::thread::sleep(HANG);
    });
    let apart = Apart::start(origin.addr);
    let growth = growth_kib(&apart, 20, || {
        let mut stream = TcpStream::connect(apart.web).unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").unwrap();
        pour(&mut stream, &[b'x'; 64 * 1024], 16 * 1024 * 1024);
        stream
    });
    assert!(growth < 20 * 192 + 1024, "{growth} KiB");
}

/// Floods of which nothing is read back: each is ended, or held up, by what one connection may take.
#[test]
fn attacks_over_http_2_take_what_one_connection_may() {
    use crate::frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, PING, POST, PREFACE, RST_STREAM, SETTINGS,
        WHOLE, WINDOW_UPDATE, block, frame,
    };
    const ATTACKERS: usize = 20;
    let middle = vec![b'x'; 512 * 1024];
    let origin = Origin::start(move |request| match request.target() {
        "/middle" => ok(&middle),
        _ => ok("small"),
    });
    let apart = Apart::start(origin.addr);
    let streams = |count: u32, one: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> {
        (0..count).flat_map(|number| one(2 * number + 1)).collect()
    };
    let large = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/middle")];
    let mut bomb = block(&GET);
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'y'; 4_000]);
    bomb.resize(16_000, 0xbe);
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let part = frame(CONTINUATION, 0, 1, &block(&[("x-a", &"b".repeat(100))]).repeat(100));
    // In KiB: what one connection and its buffers take; a stream with an answer takes what a connection of HTTP/1.1 with
    // one takes, and shares the room that there is for both; an upload the window of a stream.
    let (bare, answers, upload) = (256, 20 * 320, 1_024);
    let attacks: Vec<(&str, usize, Vec<u8>)> = vec![
        ("settings", bare, frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(400_000)),
        ("pings", bare, frame(PING, 0, 0, &[7; 8]).repeat(400_000)),
        ("a head without an end", bare, [begun, part.repeat(1_000)].concat()),
        ("heads that unfold", bare, streams(500, &|id| frame(HEADERS, WHOLE, id, &bomb))),
        (
            "streams that are reset",
            bare,
            streams(50_000, &|id| {
                [frame(HEADERS, WHOLE, id, &block(&GET)), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
            }),
        ),
        (
            "streams that we are made to reset",
            bare,
            streams(50_000, &|id| {
                let window = frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes());
                [frame(HEADERS, END_HEADERS, id, &block(&POST)), window].concat()
            }),
        ),
        ("answers that nobody reads", answers, streams(20, &|id| frame(HEADERS, WHOLE, id, &block(&large)))),
        (
            "a body beyond the window",
            upload,
            [frame(HEADERS, END_HEADERS, 1, &block(&POST)), frame(DATA, 0, 1, &[7; 16_384]).repeat(1_000)]
                .concat(),
        ),
    ];
    for (name, bound, attack) in attacks {
        let growth = growth_kib(&apart, ATTACKERS, || {
            let mut stream = TcpStream::connect(apart.web).unwrap();
            stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
            pour(&mut stream, &attack, attack.len());
            stream
        });
        assert!(growth < ATTACKERS * bound, "{name}: {growth} KiB");
    }
}
