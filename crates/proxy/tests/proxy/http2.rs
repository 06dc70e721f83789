//! Clients that speak HTTP/2, in front of instances that speak HTTP/1.1.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairway_proxy::ExitReason;
use fairway_proxy::control::StatusClass;
use fairway_proxy::snapshot::Service;
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::net::TcpStream;

use crate::support::{HANG, Origin, Proxy, Reply, eventually, free_addr, ok, service, version};

/// A client connection. It ends when dropped with all its streams.
#[derive(Clone)]
pub struct Browser(pub SendRequest<Bytes>);

impl Browser {
    pub async fn open(addr: std::net::SocketAddr) -> Self {
        Self::open_with(addr, &client::Builder::new()).await
    }

    pub async fn open_with(addr: std::net::SocketAddr, builder: &client::Builder) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(async move {
            // How it ends is seen by the streams.
            let _ = connection.await;
        });
        Self(send)
    }

    pub async fn ask(&self, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
        let mut send = self.0.clone().ready().await?;
        let (response, mut out) = send.send_request(request, body.is_empty())?;
        let sending = async {
            let mut left = body;
            while !left.is_empty() {
                out.reserve_capacity(left.len());
                let room = match std::future::poll_fn(|cx| out.poll_capacity(cx)).await {
                    Some(Ok(room)) => room.min(left.len()),
                    Some(Err(_)) | None => return,
                };
                let (piece, rest) = left.split_at(room);
                left = rest;
                if out.send_data(Bytes::copy_from_slice(piece), left.is_empty()).is_err() {
                    return;
                }
            }
        };
        let receiving = async { Answer::read(response.await?).await };
        tokio::join!(sending, receiving).1
    }

    pub async fn get(&self, path: &str) -> Result<Answer, h2::Error> {
        self.ask(request(Method::GET, path), b"").await
    }

    pub async fn post(&self, path: &str, body: &[u8]) -> Result<Answer, h2::Error> {
        self.ask(request(Method::POST, path), body).await
    }
}

pub fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://test{path}")).body(()).unwrap()
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub async fn read(response: Response<RecvStream>) -> Result<Self, h2::Error> {
        let (parts, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data?;
            body.extend_from_slice(&data);
            stream.flow_control().release_capacity(data.len())?;
        }
        let trailers = stream.trailers().await?;
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Runs what a client does; nothing takes longer than [`HANG`].
pub fn run<T>(proxy: &Proxy, client: impl Future<Output = T>) -> T {
    proxy.runtime.block_on(async { tokio::time::timeout(HANG, client).await.expect("it hangs") })
}

/// An origin that tells what it was asked.
fn mirror() -> Origin {
    Origin::start(|request| {
        let mut text = format!("{}\n", request.first_line);
        for (name, value) in &request.fields {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push('\n');
        text.push_str(&request.text());
        ok(text)
    })
}

fn serving(origin: &Origin) -> Proxy {
    let mut proxy = Proxy::start();
    proxy.serve(service(&[("i", origin.addr)]));
    proxy
}

#[test]
fn requests_go_the_way_of_all_requests() {
    let origin = mirror();
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut get = request(Method::GET, "/a?b=c");
        for (name, value) in
            [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-real-ip", "1.1.1.1")]
        {
            get.headers_mut().append(name, value.parse().unwrap());
        }
        let answer = browser.ask(get, b"").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.field("connection").is_none() && answer.field("transfer-encoding").is_none());
        assert!(answer.field("x-request-id").is_some());
        assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string().as_str()));
        let text = answer.text();
        assert!(text.starts_with("GET /a?b=c HTTP/1.1\n"), "{text}");
        for line in
            ["host: test", "cookie: a=1; b=2", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"]
        {
            assert!(text.contains(&format!("{line}\n")), "{line} is missing in {text}");
        }
        for absent in ["te:", "connection:", "transfer-encoding", "1.1.1.1", "content-length"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        let post = browser.post("/", b"some body").await.unwrap().text();
        assert!(post.contains("transfer-encoding: chunked\n") && post.ends_with("\n\nsome body"), "{post}");
        let mut sized = request(Method::PUT, "/");
        sized.headers_mut().insert("content-length", 9.into());
        let put = browser.ask(sized, b"some body").await.unwrap().text();
        assert!(put.contains("content-length: 9\n") && put.ends_with("\n\nsome body"), "{put}");
        let empty = browser.post("/", b"").await.unwrap().text();
        assert!(empty.contains("content-length: 0\n"), "{empty}");
    });
    let version = proxy.stats().version("s", "r1").clone();
    assert_eq!(version.requests.get(&StatusClass::Success), Some(&4));
    assert_eq!(proxy.stats().connections_accepted, 1);
}

#[test]
fn answers_without_a_body_have_none() {
    let origin = Origin::start(|request| {
        Reply::Bytes(match request.target() {
            "/head" => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_vec(),
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/304" => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\netag: \"x\"\r\n\r\n".to_vec(),
            "/early" => b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\
                transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec(),
            _ => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        })
    });
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let head = browser.ask(request(Method::HEAD, "/head"), b"").await.unwrap();
        assert_eq!((head.status, head.field("content-length"), head.body.len()), (200, Some("5"), 0));
        for (path, status) in [("/204", 204), ("/304", 304), ("/empty", 200), ("/early", 200)] {
            let answer = browser.get(path).await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
        }
        let mut send = browser.0.clone().ready().await.unwrap();
        let (mut response, _) = send.send_request(request(Method::GET, "/early"), true).unwrap();
        let early = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((early.status().as_u16(), early.headers()["link"].as_bytes()), (103, &b"</a>"[..]));
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn a_client_that_waits_for_the_word_to_send_gets_it() {
    let origin = mirror();
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut post = request(Method::POST, "/");
        post.headers_mut().insert("expect", "100-continue".parse().unwrap());
        let mut send = browser.0.clone().ready().await.unwrap();
        let (mut response, mut body) = send.send_request(post, false).unwrap();
        let word = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(word.status(), 100);
        body.send_data(Bytes::from_static(b"now"), true).unwrap();
        let answer = Answer::read(response.await.unwrap()).await.unwrap();
        assert!(answer.text().ends_with("\n\nnow"));
    });
}

#[test]
fn big_bodies_pass_both_ways_and_a_thousand_streams_at_once() {
    let origin = Origin::start(|request| ok(&request.body));
    let mut proxy = Proxy::start_with(|options| options.limits.h2_streams_max = 1_000);
    proxy.serve(service(&[("i", origin.addr)]));
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let big: Vec<u8> = (0..8_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let (a, b) = tokio::join!(browser.post("/", &big), browser.post("/", &big));
        assert!(a.unwrap().body == big && b.unwrap().body == big);
        let tasks: Vec<_> = (0..1_000)
            .map(|i: u32| {
                let browser = browser.clone();
                tokio::spawn(async move {
                    let body = i.to_string().repeat(100);
                    let answer = browser.post("/", body.as_bytes()).await.unwrap();
                    assert_eq!((answer.status, answer.text()), (200, body));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(proxy.stats().version("s", "r1").requests[&StatusClass::Success], 1_002);
    eventually("all streams are gone", || proxy.stats().connections_open <= 1);
}

#[test]
fn trailers_of_an_instance_reach_the_client_and_those_of_the_client_the_instance() {
    let (seen, wanted) = channel();
    let origin = Origin::raw(free_addr(), move |mut stream| {
        use std::io::{Read as _, Write as _};
        let mut text = Vec::new();
        while !text.ends_with(b"x-sum: 7\r\n\r\n") {
            let mut buf = [0; 4096];
            let count = stream.read(&mut buf).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&buf[..count]);
        }
        seen.send(String::from_utf8(text).unwrap()).unwrap();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let body = "3\r\nabc\r\n0\r\nGrpc-Status: 0\r\ncontent-length: 9\r\nx-a: b\r\n\r\n";
        for piece in [head, &body[..5], &body[5..20], &body[20..]] {
            stream.write_all(piece.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, mut body) = send.send_request(request(Method::POST, "/"), false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", 7.into());
        trailers.insert("host", "evil".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        let answer = Answer::read(response.await.unwrap()).await.unwrap();
        assert_eq!(answer.text(), "abc");
        let trailers = answer.trailers.unwrap();
        assert_eq!(
            (trailers.len(), &trailers["grpc-status"], &trailers["x-a"]),
            (2, &"0".parse().unwrap(), &"b".parse().unwrap())
        );
    });
    let text = wanted.recv().unwrap();
    assert!(text.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"), "{text}");
}

#[test]
fn a_client_that_opens_no_window_holds_up_the_instance_and_not_us() {
    let passed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&passed);
    let origin = Origin::raw(free_addr(), move |mut stream| {
        use std::io::{Read as _, Write as _};
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        let piece = vec![7; 64 * 1024];
        while stream.write_all(&piece).is_ok() {
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    let mut proxy = Proxy::start();
    let mut slow = service(&[("i", origin.addr)]);
    slow.timeouts.body_idle_ms = 1_000;
    proxy.serve(slow);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, _) = send.send_request(request(Method::GET, "/"), true).unwrap();
        let response = response.await.unwrap();
        let begun = Instant::now();
        let mut body = response.into_body();
        let mut read = 0;
        let end = loop {
            match body.data().await {
                Some(Ok(data)) => read += data.len(),
                Some(Err(error)) => break error,
                None => panic!("it was complete after {read} bytes"),
            }
        };
        // The stream's first window is all that it gets; then nothing moves, and it is over.
        assert_eq!((read, end.reason()), (65_535, Some(Reason::INTERNAL_ERROR)));
        assert!(begun.elapsed() > Duration::from_millis(800));
        assert_eq!(browser.get("/").await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    });
    // What the kernel's buffers take of two answers, and 400 KiB of ours each.
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed < 24 * 1024 * 1024, "{passed}");
    eventually("nothing is under way", || proxy.in_flight("i") == 0);
}

#[test]
fn the_last_piece_of_an_answer_is_not_waited_for_without_end() {
    let origin = Origin::start(|_| ok(vec![7; 90_000]));
    let mut proxy = Proxy::start_with(|options| options.limits.h2_tail = Duration::from_millis(300));
    proxy.serve(service(&[("i", origin.addr)]));
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, _) = send.send_request(request(Method::GET, "/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut read = 0;
        let end = loop {
            match body.data().await.expect("it is not complete") {
                Ok(data) => read += data.len(),
                Err(error) => break error.reason(),
            }
        };
        assert_eq!((read, end), (65_535, Some(Reason::INTERNAL_ERROR)));
    });
}

#[test]
fn an_upload_goes_at_the_pace_of_its_instance() {
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::raw(free_addr(), move |mut stream| {
        use std::io::{Read as _, Write as _};
        let mut buf = vec![0; 64 * 1024];
        let count = stream.read(&mut buf).unwrap();
        assert!(String::from_utf8_lossy(&buf[..count]).contains("content-length: 40000000"));
        gate.lock().unwrap().recv().unwrap();
        let mut left =
            40_000_000 + buf[..count].windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4 - count;
        while left > 0 {
            left -= stream.read(&mut buf).unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut put = request(Method::PUT, "/");
        put.headers_mut().insert("content-length", 40_000_000.into());
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, mut out) = send.send_request(put, false).unwrap();
        let mut sent = 0;
        // As long as there is room it comes at once.
        loop {
            out.reserve_capacity(100_000);
            let room = std::future::poll_fn(|cx| out.poll_capacity(cx));
            let Ok(room) = tokio::time::timeout(Duration::from_millis(300), room).await else { break };
            let room = room.unwrap().unwrap();
            out.send_data(Bytes::from(vec![1; room]), false).unwrap();
            sent += room;
            assert!(sent < 16_000_000, "nobody holds the client up");
        }
        // Kernel buffers aside, 256 KiB of window, a pipe and a buffer.
        assert!(sent >= 256 * 1024, "{sent}");
        release.send(()).unwrap();
        while sent < 40_000_000 {
            out.reserve_capacity(40_000_000 - sent);
            let room = std::future::poll_fn(|cx| out.poll_capacity(cx)).await.unwrap().unwrap();
            sent += room;
            out.send_data(Bytes::from(vec![1; room]), sent == 40_000_000).unwrap();
        }
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn an_answer_before_the_end_of_the_upload_is_complete() {
    let origin = Origin::raw(free_addr(), |mut stream| {
        use std::io::{Read as _, Write as _};
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
    });
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, mut body) = send.send_request(request(Method::POST, "/"), false).unwrap();
        body.send_data(Bytes::from_static(b"a part"), false).unwrap();
        let answer = Answer::read(response.await.unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
        // The rest is not wanted, which is no error.
        let reason = std::future::poll_fn(|cx| body.poll_reset(cx)).await.unwrap();
        assert_eq!(reason, Reason::NO_ERROR);
        assert_eq!(browser.get("/").await.unwrap().status, 403);
    });
}

#[test]
fn a_truncated_answer_is_a_reset_stream() {
    let origin = Origin::start(|request| match request.target() {
        "/length" => Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()),
        "/chunks" => {
            Reply::Last(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec())
        }
        "/close" => Reply::Last(b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec()),
        _ => Reply::Last(Vec::new()),
    });
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        for path in ["/length", "/chunks"] {
            assert_eq!(browser.get(path).await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR), "{path}");
        }
        assert_eq!(browser.get("/close").await.unwrap().text(), "abc");
        assert_eq!(browser.post("/none", b"x").await.unwrap().status, 502);
    });
}

#[test]
fn an_event_stream_that_a_drain_ends_has_ended_and_was_not_cut_off() {
    let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (is_drained, leaves_by_itself) in [(true, false), (true, true), (false, true)] {
        let leaves = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&leaves);
        let origin = Origin::raw(free_addr(), move |mut stream| {
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(events).unwrap();
            eventually("it is told to leave", || told.load(Ordering::SeqCst));
        });
        let mut proxy = Proxy::start();
        let mut stream = service(&[("i", origin.addr)]);
        stream.timeouts.stream_drain_ms = if leaves_by_itself { 60_000 } else { 50 };
        proxy.serve(stream.clone());
        let without =
            proxy.snapshot(Service { versions: [("r1".to_owned(), version(100, &[]))].into(), ..stream });
        run(&proxy, async {
            let browser = Browser::open(proxy.addr).await;
            let mut send = browser.0.clone().ready().await.unwrap();
            let (response, _) = send.send_request(request(Method::GET, "/"), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "abc");
            if is_drained {
                proxy.client.apply(&without).await.unwrap();
            }
            leaves.store(leaves_by_itself, Ordering::SeqCst);
            let end = loop {
                match body.data().await {
                    Some(Ok(data)) => assert_eq!(data, "", "nothing more was said"),
                    Some(Err(error)) => break Err(error.reason()),
                    None => break Ok(()),
                }
            };
            let expected = if is_drained { Ok(()) } else { Err(Some(Reason::INTERNAL_ERROR)) };
            assert_eq!(end, expected, "leaves by itself: {leaves_by_itself}");
        });
        leaves.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_client_that_gives_up_is_noticed_while_the_instance_thinks() {
    let (_release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |_| {
        let _ = gate.lock().unwrap().recv_timeout(HANG);
        ok("")
    });
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, mut out) = send.send_request(request(Method::GET, "/"), true).unwrap();
        let waiting = async { while proxy.client.in_flight("i").await.unwrap() == 0 {} };
        waiting.await;
        out.send_reset(Reason::CANCEL);
        drop(response);
        while proxy.client.in_flight("i").await.unwrap() > 0 {}
    });
}

#[test]
fn heads_that_are_too_large_are_refused_and_the_connection_goes_on() {
    let (origin, big) = (mirror(), "x".repeat(8_000));
    let proxy = serving(&origin);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let long = browser.get(&format!("/{}", "a".repeat(9_000))).await.unwrap();
        assert_eq!(long.status, 414);
        let mut many = request(Method::GET, "/");
        for i in 0..120 {
            many.headers_mut().append(http::HeaderName::try_from(format!("x-{i}")).unwrap(), 1.into());
        }
        assert_eq!(browser.ask(many, b"").await.unwrap().status, 431);
        let mut large = request(Method::GET, "/");
        for name in ["x-a", "x-b", "x-c", "x-d", "x-e"] {
            large.headers_mut().append(name, big.parse().unwrap());
        }
        assert_eq!(browser.ask(large, b"").await.unwrap().status, 431);
        assert_eq!(browser.get("/").await.unwrap().status, 200);
    });
}

#[test]
fn more_streams_than_allowed_are_refused_unseen() {
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |_| {
        let _ = gate.lock().unwrap().recv_timeout(HANG);
        ok("")
    });
    let mut proxy = Proxy::start_with(|options| {
        options.workers = std::num::NonZeroUsize::new(1);
        options.limits.connections_per_core = 4;
    });
    proxy.serve(service(&[("i", origin.addr)]));
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let browser = browser.clone();
                tokio::spawn(async move { browser.get("/").await.unwrap().status })
            })
            .collect();
        while proxy.client.in_flight("i").await.unwrap() < 3 {}
        assert_eq!(browser.get("/").await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
        for _ in 0..4 {
            release.send(()).unwrap();
        }
        for task in waiting {
            assert_eq!(task.await.unwrap(), 200);
        }
        assert_eq!(browser.get("/").await.unwrap().status, 200);
    });
}

#[test]
fn a_drain_lets_streams_in_flight_finish_and_says_goodbye_twice() {
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |request| {
        if request.target() == "/slow" {
            let _ = gate.lock().unwrap().recv_timeout(HANG);
        }
        ok(&request.body)
    });
    let mut proxy = serving(&origin);
    let (busy, answer) = run(&proxy, async {
        let busy = Browser::open(proxy.addr).await;
        let idle = Browser::open(proxy.addr).await;
        assert_eq!(idle.get("/").await.unwrap().status, 200);
        let asking = busy.clone();
        let answer = tokio::spawn(async move { asking.post("/slow", b"body").await });
        while proxy.client.in_flight("i").await.unwrap() == 0 {}
        proxy.client.shutdown().await.unwrap();
        // The idle one ends; nothing is lost by that.
        while idle.get("/").await.is_ok() {}
        (busy, answer)
    });
    run(&proxy, async {
        // A new stream is not taken any more, and the client knows before it sends.
        let error = loop {
            // Until the second goodbye is here streams are served: they may be on their way.
            match busy.get("/").await {
                Ok(answer) => assert_eq!(answer.status, 200),
                Err(error) => break error,
            }
        };
        assert!(error.is_go_away() && error.reason() == Some(Reason::NO_ERROR), "{error}");
        release.send(()).unwrap();
        let answer = answer.await.unwrap().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    });
    assert_eq!(proxy.join(), ExitReason::Drained);
}

#[test]
fn no_client_holds_a_drain_for_longer_than_its_cap() {
    let (_release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |_| {
        let _ = gate.lock().unwrap().recv_timeout(HANG);
        ok("")
    });
    let mut proxy = Proxy::start_with(|options| options.limits.drain = Duration::from_millis(300));
    proxy.serve(service(&[("i", origin.addr)]));
    let other = free_addr();
    let mut both = proxy.snapshot(service(&[("i", origin.addr)]));
    both.listeners.push(crate::support::listener("other", other));
    both.routes.push(fairway_proxy::snapshot::Route { listener: "other".into(), ..both.routes[0].clone() });
    proxy.apply(&both).unwrap();
    let without = proxy.snapshot(service(&[("i", origin.addr)]));
    run(&proxy, async {
        let browser = Browser::open(other).await;
        let asking = browser.clone();
        let asked = tokio::spawn(async move { asking.get("/").await });
        while proxy.client.in_flight("i").await.unwrap() == 0 {}
        proxy.client.apply(&without).await.unwrap();
        assert!(asked.await.unwrap().is_err());
        while proxy.client.in_flight("i").await.unwrap() > 0 {}
    });
}

#[test]
fn a_client_that_vanished_is_noticed_by_its_silence() {
    let (_release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |_| {
        let _ = gate.lock().unwrap().recv_timeout(HANG);
        ok("")
    });
    let mut proxy = Proxy::start_with(|options| {
        options.limits.h2_ping = Duration::from_millis(100);
        options.limits.h2_pong = Duration::from_millis(100);
    });
    proxy.serve(service(&[("i", origin.addr)]));
    run(&proxy, async {
        // One answers pings, one does not read at all.
        let alive = Browser::open(proxy.addr).await;
        let asking = alive.clone();
        let asked = tokio::spawn(async move { asking.get("/").await });
        let stream = TcpStream::connect(proxy.addr).await.unwrap();
        let (mut send, connection) = client::handshake(stream).await.unwrap();
        let mut connection = Box::pin(connection);
        let sent = send.send_request(request(Method::GET, "/"), true).unwrap();
        tokio::select! {
            ended = connection.as_mut() => panic!("{ended:?}"),
            () = async { while proxy.client.in_flight("i").await.unwrap() < 2 {} } => {}
        }
        while proxy.client.in_flight("i").await.unwrap() > 1 {}
        drop(sent);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(proxy.client.in_flight("i").await.unwrap(), 1);
        assert!(!asked.is_finished());
        asked.abort();
    });
}

/// What a WebSocket of RFC 6455 begins with over HTTP/2.
pub fn websocket() -> Request<()> {
    let mut connect = request(Method::CONNECT, "/chat");
    connect.headers_mut().insert("sec-websocket-version", 13.into());
    connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    connect
}

#[test]
fn a_websocket_goes_through_a_stream() {
    let origin = Origin::start(|request| {
        let (upgrade, key) = (request.field("upgrade"), request.field("sec-websocket-key"));
        if request.target() != "/chat"
            || upgrade != Some("websocket")
            || key.is_none_or(|key| key.len() != 24)
        {
            return ok("what?");
        }
        Reply::Echo(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
            sec-websocket-accept: x\r\nsec-websocket-protocol: chat\r\n\r\n"
                .to_vec(),
        )
    });
    let mut proxy = serving(&origin);
    let mut settled = service(&[("i", origin.addr)]);
    settled.timeouts.stream_drain_ms = 100;
    proxy.serve(settled);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        // The server's settings say that it can be asked.
        assert_eq!(browser.get("/").await.unwrap().text(), "what?");
        assert!(browser.0.is_extended_connect_protocol_enabled());
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, mut out) = send.send_request(websocket(), false).unwrap();
        out.send_data(Bytes::from_static(b"\x82\x85\0\0\0\0early"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), &b"\x82\x85\0\0\0\0early"[..]);
        out.send_data(Bytes::from_static(b"\x82\x84\0\0\0\0late"), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), &b"\x82\x84\0\0\0\0late"[..]);
        assert_eq!(proxy.client.in_flight("i").await.unwrap(), 1);
        out.send_data(Bytes::new(), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), &b""[..], "both sides end in good order");
        assert!(body.data().await.is_none());
        // Refused: an answer like any other.
        let mut send = browser.0.clone().ready().await.unwrap();
        let mut other = websocket();
        *other.uri_mut() = "http://test/other".parse().unwrap();
        let (response, mut out) = send.send_request(other, false).unwrap();
        let _ = out.send_data(Bytes::from_static(b"GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n"), false);
        let answer = Answer::read(response.await.unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "what?"));
        let success = proxy.client.stats().await.unwrap().version("s", "r1").requests[&StatusClass::Success];
        assert!(success <= 2, "{success}: something was smuggled behind a refused upgrade");
        // A drain says 1001 and ends it.
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, _out) = send.send_request(websocket(), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        proxy.client.shutdown().await.unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), &[0x88, 2, 3, 0xe9][..]);
        assert!(body.data().await.is_none_or(|end| end.is_ok_and(|data| data.is_empty())));
    });
    assert_eq!(proxy.join(), ExitReason::Drained);
}
