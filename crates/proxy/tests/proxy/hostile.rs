//! Clients that take what they can: room, time and memory have bounds, and others are served.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fairway_proxy::snapshot::ListenerLimits;

use crate::frames::{self, Raw};
use crate::support::*;

const LONG: Duration = Duration::from_secs(3600);

/// One core with room for 32, and patience without end: only displacement makes room.
fn small() -> Proxy {
    Proxy::start_with(|options| {
        options.workers = std::num::NonZeroUsize::new(1);
        options.limits.connections_per_core = 32;
        options.limits.idle = LONG;
        options.limits.head = LONG;
    })
}

fn is_closed(wire: &mut TcpStream) -> bool {
    wire.set_read_timeout(Some(HANG)).unwrap();
    !matches!(wire.read(&mut [0; 64]), Ok(1..))
}

/// Clients that wait, of a number that no core has room for; each new one is let in, and a good one is served.
fn hoarded(proxy: &Proxy, mut hoarder: impl FnMut() -> TcpStream) {
    let mut hoard = Vec::new();
    for _ in 0..4 {
        hoard.extend((0..32).map(|_| hoarder()));
        assert_eq!(proxy.wire().get("/").unwrap().status(), 200);
    }
    eventually("no more than there is room for", || proxy.stats().connections_open <= 32);
    for old in &mut hoard[..64] {
        assert!(is_closed(old), "those who wait for longest go first");
    }
}

#[test]
fn connections_that_ask_nothing_make_room_for_others() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = small();
    proxy.serve(service(&[("i", origin.addr)]));
    hoarded(&proxy, || TcpStream::connect(proxy.addr).unwrap());
}

#[test]
fn room_can_be_said_while_connections_are_open() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start_with(|options| options.workers = std::num::NonZeroUsize::new(1));
    proxy.serve(service(&[("i", origin.addr)]));
    let _hoard: Vec<_> = (0..100).map(|_| TcpStream::connect(proxy.addr).unwrap()).collect();
    eventually("all are there", || proxy.stats().connections_open >= 100);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
        snapshot.process.connections_per_core = Some(32);
    });
    assert_eq!(proxy.wire().get("/").unwrap().status(), 200);
    eventually("no more than there is room for", || proxy.stats().connections_open <= 32);
}

#[test]
fn connections_that_had_an_answer_make_room_for_others() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = small();
    proxy.serve(service(&[("i", origin.addr)]));
    hoarded(&proxy, || {
        let mut wire = proxy.wire();
        assert_eq!(wire.get("/").unwrap().status(), 200);
        wire.stream
    });
}

#[test]
fn heads_that_never_end_make_room_for_others() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = small();
    proxy.serve(service(&[("i", origin.addr)]));
    hoarded(&proxy, || {
        let mut wire = proxy.wire();
        wire.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
        wire.stream
    });
}

#[test]
fn connections_of_http_2_without_a_stream_make_room_for_others() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = small();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut hoard = Vec::new();
    for _ in 0..4 {
        hoard.extend((0..30).map(|_| Raw::open(proxy.addr)));
        assert_eq!(proxy.wire().get("/").unwrap().status(), 200);
    }
    for old in &mut hoard[..60] {
        let outcome = old.outcome_of_connection();
        assert_eq!(outcome, "connection NO_ERROR", "sent away in good order");
    }
}

#[test]
fn nobody_makes_room_who_waits_for_an_answer() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::start(move |request| {
        if request.target() == "/held" {
            // Ends when the test lets go.
            let _ = held.lock().unwrap().recv();
        }
        ok("x")
    });
    let mut proxy = small();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut wire = proxy.wire();
            wire.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
            wire
        })
        .collect();
    eventually("all are at the instance", || proxy.in_flight("i") == 20);
    let _hoard: Vec<_> = (0..64).map(|_| TcpStream::connect(proxy.addr).unwrap()).collect();
    assert_eq!(proxy.wire().get("/").unwrap().status(), 200);
    drop(release);
    for wire in &mut waiting {
        assert_eq!(wire.read().unwrap().text(), "x");
    }
}

fn limited(limits: ListenerLimits) -> (Origin, Proxy) {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| snapshot.listeners[0].limits = limits);
    (origin, proxy)
}

#[test]
fn a_client_has_so_many_connections_and_no_more() {
    let (_origin, proxy) = limited(ListenerLimits { per_client_max: Some(3), ..ListenerLimits::default() });
    let mut three: Vec<_> = (0..3).map(|_| proxy.wire()).collect();
    for wire in &mut three {
        assert_eq!(wire.get("/").unwrap().status(), 200);
    }
    for _ in 0..5 {
        assert!(is_closed(&mut TcpStream::connect(proxy.addr).unwrap()));
    }
    assert_eq!(proxy.stats().refused[&429], 5);
    for wire in &mut three {
        assert_eq!(wire.get("/").unwrap().status(), 200, "those that were there stay");
    }
    three.pop();
    eventually("one that went is one that may come", || {
        let mut wire = proxy.wire();
        wire.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
            && wire.read().is_ok_and(|answer| answer.status() == 200)
    });
}

#[test]
fn whoever_speaks_for_others_has_as_many_connections_as_they() {
    let origin = Origin::start(|_| ok("x"));
    let mut proxy = Proxy::start();
    let limits = ListenerLimits { per_client_max: Some(1), ..ListenerLimits::default() };
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
        snapshot.listeners[0].limits = limits;
        snapshot.listeners[0].trusted_proxies = vec!["127.0.0.0/8".to_owned()];
    });
    let mut many: Vec<_> = (0..5).map(|_| proxy.wire()).collect();
    for wire in &mut many {
        assert_eq!(wire.get("/").unwrap().status(), 200);
    }
    drop(many);

    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
        snapshot.listeners[0].limits = limits;
        snapshot.listeners[0].proxy_protocol = true;
    });
    let introduced = |client: &str| {
        let mut wire = proxy.wire();
        wire.send(format!("PROXY TCP4 {client} 192.0.2.1 1234 80\r\n"));
        wire
    };
    let mut one = introduced("203.0.113.1");
    assert_eq!(one.get("/").unwrap().status(), 200);
    assert!(is_closed(&mut introduced("203.0.113.1").stream));
    assert_eq!(
        introduced("203.0.113.2").get("/").unwrap().status(),
        200,
        "another client of the same balancer"
    );
}

#[test]
fn a_listener_has_its_own_patience() {
    let limits = ListenerLimits {
        head_ms: Some(100),
        idle_ms: Some(150),
        streams_max: Some(2),
        ..ListenerLimits::default()
    };
    let (_origin, proxy) = limited(limits);
    let mut wire = proxy.wire();
    wire.send("GET / HTT");
    assert_eq!(wire.read().unwrap().status(), 408);
    let mut wire = proxy.wire();
    assert_eq!(wire.get("/").unwrap().status(), 200);
    assert_eq!(wire.rest().unwrap(), b"", "it was idle");
    let mut raw = Raw::open(proxy.addr);
    for stream in [1, 3, 5] {
        // Posts whose bodies do not come.
        let mut head = frames::post(&[]);
        head[5..9].copy_from_slice(&u32::to_be_bytes(stream));
        raw.send(&head).unwrap();
    }
    assert_eq!(raw.outcome(), "stream REFUSED_STREAM");
}

#[test]
fn a_body_that_comes_byte_by_byte_is_not_waited_for() {
    let origin = Origin::start(|request| ok(&request.body));
    let mut proxy = Proxy::start();
    let mut slow = service(&[("i", origin.addr)]);
    slow.timeouts.body_idle_ms = 300;
    proxy.serve(slow);
    for head in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut wire = proxy.wire();
        wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n"));
        let begun = Instant::now();
        let piece = if head.starts_with('C') { "x" } else { "1\r\nx\r\n" };
        let mut sender = wire.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            // Faster than the idle time, slower than the rate.
            while sender.write_all(piece.as_bytes()).is_ok() && begun.elapsed() < HANG {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert_eq!(wire.read().unwrap().status(), 408, "{head}");
        drop(wire);
        sending.join().unwrap();
    }
}

#[test]
fn what_is_packed_is_never_unpacked() {
    let origin = Origin::start(|request| {
        ok(format!("{:?} {}", request.field("content-encoding"), request.body.len()))
    });
    let mut proxy = Proxy::start();
    let mut bounded = service(&[("i", origin.addr)]);
    // Whatever it would unfold to: what counts is what came.
    bounded.request_body_bytes_max = Some(64 * 1024);
    proxy.serve(bounded);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![0; 32 * 1024 * 1024]).unwrap();
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 64 * 1024, "{} bytes", bomb.len());
    for coding in ["gzip", "gzip, gzip, gzip", "br", "zstd", "nonsense"] {
        let mut wire = proxy.wire();
        wire.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            bomb.len()
        ));
        wire.send(&bomb);
        let answer = wire.read().unwrap();
        assert_eq!(answer.text(), format!("{:?} {}", Some(coding), bomb.len()));
    }
}

/// An instance whose answers are without end; counts what it was rid of.
fn endless() -> (Origin, Arc<AtomicUsize>) {
    let passed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&passed);
    let origin = Origin::raw(free_addr(), move |mut stream| {
        // What its kernel holds is its own affair, and is not to be counted.
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 64 * 1024).unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n");
        let piece = vec![7; 16 * 1024];
        while stream.write_all(&piece).is_ok() {
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    (origin, passed)
}

/// Connects with the smallest receive buffer there is, so that what is not read soon reaches the proxy.
fn small_wire(proxy: &Proxy) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    connect(&socket, &proxy.addr).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stream
}

#[test]
fn an_answer_that_nobody_takes_is_not_kept_for_long() {
    let (origin, _) = endless();
    let mut proxy = Proxy::start();
    let mut slow = service(&[("i", origin.addr)]);
    slow.timeouts.body_idle_ms = 300;
    proxy.serve(slow);
    let _wire = small_wire(&proxy);
    eventually("it is under way", || proxy.in_flight("i") == 1);
    eventually("it is over", || proxy.in_flight("i") == 0);
}

#[test]
fn an_answer_that_is_taken_slowly_is_not_cut_off() {
    let (origin, _) = endless();
    let mut proxy = Proxy::start();
    let mut slow = service(&[("i", origin.addr)]);
    slow.timeouts.body_idle_ms = 400;
    slow.timeouts.body_bytes_per_s_min = 1_000;
    proxy.serve(slow);
    let mut wire = small_wire(&proxy);
    let begun = Instant::now();
    // The kernel has hundreds of KiB for this client, and asks for no more in all this time.
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(matches!(wire.read(&mut [0; 1024]), Ok(1..)), "cut off after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(proxy.in_flight("i"), 1);
    // Then it stops.
    eventually("it is over", || proxy.in_flight("i") == 0);
}

#[test]
fn the_kernel_holds_little_of_an_answer_that_nobody_takes() {
    let (origin, passed) = endless();
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let wires: Vec<_> = (0..8).map(|_| small_wire(&proxy)).collect();
    let mut last = (0, Instant::now());
    while last.1.elapsed() < Duration::from_millis(300) {
        let now = passed.load(Ordering::Relaxed);
        if now != last.0 || now == 0 {
            last = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Towards the client 256 KiB and what is on the line, 128 KiB of ours, 416 KiB from the instance, and what the instance
    // could write. Without bounds it is 4 MiB towards the client, and 6 MiB from the instance.
    let each = last.0 / wires.len();
    assert!(each < 1536 * 1024, "{each} bytes each");
}

#[test]
fn streams_whose_answers_nobody_takes_hold_little() {
    let (origin, passed) = endless();
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    let mut raw = Raw::silent(proxy.addr);
    // No window at all.
    let settings = frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    raw.send(&[frames::PREFACE, &settings].concat()).unwrap();
    for stream in 0..100_u32 {
        let mut head = frames::get(&[]);
        head[5..9].copy_from_slice(&(2 * stream + 1).to_be_bytes());
        raw.send(&head).unwrap();
    }
    eventually("all are under way", || proxy.in_flight("i") == 100);
    eventually("each has begun", || passed.load(Ordering::Relaxed) > 100 * 16 * 1024);
    let mut good = proxy.wire();
    good.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(good.bytes(64 * 1024).unwrap().starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn whoever_sends_many_requests_at_once_does_not_hold_up_others() {
    let mut proxy = Proxy::start_with(|options| options.workers = std::num::NonZeroUsize::new(1));
    // Nothing is behind it: every request is answered at once.
    proxy.serve_with(service(&[]), |snapshot| snapshot.routes.clear());
    let greedy = TcpStream::connect(proxy.addr).unwrap();
    let (mut sending, mut reading) = (greedy.try_clone().unwrap(), greedy.try_clone().unwrap());
    let sender = std::thread::spawn(move || {
        let many = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_000);
        while sending.write_all(&many).is_ok() {}
    });
    let reader = std::thread::spawn(move || while let Ok(1..) = reading.read(&mut [0; 256 * 1024]) {});
    let mut times = Vec::new();
    let mut wire = proxy.wire();
    for _ in 0..50 {
        let begun = Instant::now();
        assert_eq!(wire.get("/").unwrap().status(), 404);
        times.push(begun.elapsed());
    }
    greedy.shutdown(std::net::Shutdown::Both).unwrap();
    sender.join().unwrap();
    reader.join().unwrap();
    times.sort();
    // A turn of the other is one answer; a buffer full of them, over and over, is seconds in this build.
    assert!(times[25] < Duration::from_millis(100), "{times:?}");
}
