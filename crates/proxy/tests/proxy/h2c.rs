//! Instances that speak HTTP/2, behind clients of both kinds.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fairway_proxy::control::{Event, StatusClass};
use fairway_proxy::snapshot::{ActiveHealth, Mirror, Protocol, Service};
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

use crate::http2::{Answer, Browser, request, run};
use crate::support::{HANG, Origin, Proxy, eventually, free_addr, ok, service, version};

/// A server of HTTP/2 with a runtime of its own.
pub struct Origin2 {
    pub addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Origin2 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Origin2 {
    pub fn start<F, A>(handler: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = ()> + Send,
    {
        Self::start_with(&server::Builder::new(), handler)
    }

    fn start_with<F, A>(builder: &server::Builder, handler: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = ()> + Send,
    {
        let builder = builder.clone();
        Self::raw(move |stream, _| {
            let (builder, handler) = (builder.clone(), handler.clone());
            async move {
                let mut connection = builder.handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let handler = handler.clone();
                    tokio::spawn(async move { handler(request, respond).await });
                }
            }
        })
    }

    /// Hands every connection to `handler`, with its number.
    fn raw<F, A>(handler: F) -> Self
    where
        F: Fn(tokio::net::TcpStream, usize) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let addr = free_addr();
        let listener = runtime.block_on(TcpListener::bind(addr)).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(handler(stream, count.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self { addr, connections, runtime: Some(runtime) }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn service(&self) -> Service {
        Service { protocol: Protocol::H2c, ..service(&[("i", self.addr)]) }
    }
}

/// On one core, so that connections can be counted.
fn serving(service: Service) -> Proxy {
    let mut proxy = Proxy::start_with(|options| options.workers = std::num::NonZeroUsize::new(1));
    proxy.serve(service);
    proxy
}

pub async fn answer(mut respond: SendResponse<Bytes>, status: u16, body: impl Into<Bytes>) {
    let body = body.into();
    let response = Response::builder().status(status).header("content-length", body.len());
    let mut out = respond.send_response(response.body(()).unwrap(), body.is_empty()).unwrap();
    if !body.is_empty() {
        out.send_data(body, true).unwrap();
    }
}

pub async fn read(body: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        all.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    all
}

/// Says what it was asked.
async fn echo(request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    let mut text = format!("{} {} {:?}\n", parts.method, parts.uri, parts.version).into_bytes();
    for (name, value) in &parts.headers {
        text.extend_from_slice(format!("{name}: {}\n", value.to_str().unwrap()).as_bytes());
    }
    text.push(b'\n');
    text.extend_from_slice(&read(&mut body).await);
    answer(respond, 200, text).await;
}

#[test]
fn http_1_clients_are_served_by_instances_of_http_2() {
    let origin = Origin2::start(echo);
    let proxy = serving(origin.service());
    let mut wire = proxy.wire();
    let get = wire.get("/a?b").unwrap();
    assert_eq!(get.status(), 200);
    let text = get.text();
    assert!(text.starts_with("GET http://test/a?b HTTP/2.0\n"), "{text}");
    for line in ["x-forwarded-for: 127.0.0.1", "te: trailers"] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    for absent in ["\nhost:", "connection", "transfer-encoding"] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
    let post = wire.post("/", b"hello").unwrap().text();
    assert!(post.contains("content-length: 5\n") && post.ends_with("\n\nhello"), "{post}");
    wire.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
    );
    let post = wire.read().unwrap().text();
    assert!(!post.contains("content-length") && post.ends_with("\n\nabc"), "{post}");
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = wire.read_to("HEAD").unwrap();
    assert_eq!((head.status(), head.field("connection")), (200, None));
    wire.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(wire.read().unwrap().text().starts_with("OPTIONS "), "the connection goes on");
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    wire.send(upgrade);
    assert_eq!(wire.read().unwrap().status(), 501);
    assert_eq!(origin.connections(), 1, "one carries all");
    let version = proxy.stats().version("s", "r1").clone();
    assert_eq!(version.requests[&StatusClass::Success], 5);
}

#[test]
fn a_call_in_both_directions_ends_with_its_trailers() {
    // As gRPC does: the head at once, an answer to every message, the status in the trailers.
    let origin = Origin2::start(|request, mut respond| async move {
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let response = Response::builder().header("content-type", "application/grpc");
        let mut out = respond.send_response(response.body(()).unwrap(), false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            out.send_data(data, false).unwrap();
        }
        let sum = body.trailers().await.unwrap().unwrap().remove("x-sum").unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        trailers.insert("x-sum", sum);
        out.send_trailers(trailers).unwrap();
    });
    let mut long = origin.service();
    // A stream may be quiet for longer than a body.
    long.timeouts.body_idle_ms = 100;
    let proxy = serving(long);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut call = request(Method::POST, "/pack.Service/Call");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        call.headers_mut().insert("te", "trailers".parse().unwrap());
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, mut out) = send.send_request(call, false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for message in ["one", "two", "three"] {
            out.send_data(Bytes::from(message), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), message.as_bytes());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        out.send_data(Bytes::from("four"), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), &b"four"[..]);
        assert_eq!(proxy.client.in_flight("i").await.unwrap(), 1);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", 15.into());
        out.send_trailers(trailers).unwrap();
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!((&trailers["grpc-status"], &trailers["x-sum"]), (&0.into(), &15.into()));
    });
    assert_eq!(proxy.stats().version("s", "r1").requests[&StatusClass::Success], 1);
}

/// A sequence that is the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(bound)) as u32
    }
}

/// In so many windows a body has met all that can happen at their edges.
const WINDOWS_MAX: usize = 200;

#[test]
fn bodies_come_through_in_pieces_of_any_size_and_windows_of_any_size() {
    let origin = Origin2::start(|request, mut respond| async move {
        let mut out = respond.send_response(Response::new(()), false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            out.send_data(data, false).unwrap();
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        out.send_trailers(trailers).unwrap();
    });
    let proxy = serving(origin.service());
    // Each of them has the time that a hang takes: a busy machine takes it for all of them together.
    for seed in 0..60 {
        run(&proxy, async {
            let mut random = Random(seed);
            let mut builder = h2::client::Builder::new();
            let window = 1 + random.below(70_000);
            builder.initial_window_size(window);
            let browser = Browser::open_with(proxy.addr, &builder).await;
            let mut send = browser.0.clone().ready().await.unwrap();
            let (response, mut out) = send.send_request(request(Method::POST, "/"), false).unwrap();
            let mut sent = Vec::new();
            for piece in 0..random.below(12) {
                let bound = [1, 2, 17, 300, 40_000][random.below(5) as usize];
                sent.push(Bytes::from(vec![piece as u8; random.below(bound) as usize]));
            }
            // One of the windows is a byte wide, and a busy machine takes longer than a hang may last for a way there and
            // back with each of fifty thousand bytes.
            let mut room = window as usize * WINDOWS_MAX;
            sent.iter_mut().for_each(|piece| {
                piece.truncate(room);
                room -= piece.len();
            });
            let expected = sent.concat();
            let has_trailers = random.below(2) == 0;
            for piece in sent {
                out.send_data(piece, false).unwrap();
                if random.below(3) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-seed", seed.into());
            match has_trailers {
                true => out.send_trailers(trailers).unwrap(),
                false => out.send_data(Bytes::new(), true).unwrap(),
            }
            let answer = Answer::read(response.await.unwrap()).await.unwrap();
            assert!(answer.body == expected, "seed {seed}: {} of {}", answer.body.len(), expected.len());
            let found = answer.trailers.and_then(|trailers| trailers.get("x-seed").cloned());
            assert_eq!(found, has_trailers.then(|| seed.into()), "seed {seed}");
        });
    }
}

#[test]
fn an_answer_of_trailers_only_keeps_them() {
    let origin = Origin2::start(|_, mut respond| async move {
        let response =
            Response::builder().header("content-type", "application/grpc").header("grpc-status", 12);
        respond.send_response(response.body(()).unwrap(), true).unwrap();
    });
    let proxy = serving(origin.service());
    run(&proxy, async {
        let answer = Browser::open(proxy.addr).await.post("/", b"x").await.unwrap();
        assert_eq!((answer.status, answer.field("grpc-status"), answer.body.len()), (200, Some("12"), 0));
        assert!(answer.trailers.is_none());
    });
}

#[test]
fn big_bodies_and_many_requests_share_few_connections() {
    let origin = Origin2::start(|request, respond| async move {
        let mut body = request.into_body();
        let all = read(&mut body).await;
        answer(respond, 200, all).await;
    });
    let mut proxy = Proxy::start_with(|options| {
        options.workers = std::num::NonZeroUsize::new(1);
        options.limits.h2_streams_max = 1_000;
    });
    proxy.serve(origin.service());
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let big: Vec<u8> = (0..5_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        assert!(browser.post("/", &big).await.unwrap().body == big);
        let tasks: Vec<_> = (0..600u32)
            .map(|i| {
                let browser = browser.clone();
                tokio::spawn(async move {
                    let body = i.to_string().repeat(10);
                    assert_eq!(browser.post("/", body.as_bytes()).await.unwrap().text(), body);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert!(origin.connections() <= 4, "{}", origin.connections());
    eventually("nothing is under way", || proxy.in_flight("i") == 0);
}

#[test]
fn an_instance_that_allows_one_stream_gets_more_connections() {
    let origin = Origin2::start_with(server::Builder::new().max_concurrent_streams(1), |_, respond| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer(respond, 200, "x").await;
    });
    let proxy = serving(origin.service());
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let browser = browser.clone();
                tokio::spawn(async move { browser.post("/", b"x").await.unwrap().status })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 200);
        }
    });
    assert!((2..=16).contains(&origin.connections()), "{}", origin.connections());
}

#[test]
fn what_was_refused_unseen_is_sent_again_and_what_was_seen_is_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin2::start(move |request, mut respond| {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match request.uri().path() {
                "/refused" if turn < 2 => respond.send_reset(Reason::REFUSED_STREAM),
                "/broken" => respond.send_reset(Reason::INTERNAL_ERROR),
                "/half" => {
                    let mut out = respond.send_response(Response::new(()), false).unwrap();
                    out.send_data(Bytes::from_static(b"half"), false).unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    out.send_reset(Reason::INTERNAL_ERROR);
                }
                _ => answer(respond, 200, read(&mut request.into_body()).await).await,
            }
        }
    });
    let proxy = serving(origin.service());
    let mut wire = proxy.wire();
    let answer = wire.post("/refused", b"once").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "once"));
    assert_eq!(asked.swap(9, Ordering::SeqCst), 3);
    assert_eq!(wire.post("/broken", b"x").unwrap().status(), 502);
    assert_eq!(asked.load(Ordering::SeqCst), 10, "a POST that may have been carried out is not repeated");
    let mut wire = proxy.wire();
    wire.get("/broken").unwrap();
    assert!(asked.load(Ordering::SeqCst) > 11, "a GET is");
    let mut wire = proxy.wire();
    assert!(wire.get("/half").is_err(), "a part is not the whole");
}

#[test]
fn a_goodbye_of_the_instance_loses_nothing() {
    // Every connection says goodbye after three requests and answers those; the fourth is above its last stream.
    let origin = Origin2::raw(|stream, _| async move {
        let mut connection = server::handshake(stream).await.unwrap();
        let mut served = 0;
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(async move {
                let body = read(&mut request.into_body()).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                answer(respond, 200, body).await;
            });
            served += 1;
            if served == 3 {
                connection.graceful_shutdown();
            }
        }
    });
    let proxy = serving(origin.service());
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        for round in 0..20 {
            let tasks: Vec<_> = (0..10)
                .map(|i| {
                    let browser = browser.clone();
                    tokio::spawn(async move {
                        let body = format!("{round} {i}");
                        let answer = browser.post("/", body.as_bytes()).await.unwrap();
                        assert_eq!((answer.status, answer.text()), (200, body));
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        }
    });
    assert!(origin.connections() > 10, "{}", origin.connections());
}

/// The next frame: kind, flags, stream.
fn next_frame(stream: &mut std::net::TcpStream) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

#[test]
fn posts_above_the_last_stream_of_a_goodbye_are_sent_again() {
    let (connections, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (number, count) = (Arc::clone(&connections), Arc::clone(&asked));
    let origin = Origin::raw(free_addr(), move |mut stream| {
        let is_first = number.fetch_add(1, Ordering::SeqCst) == 0;
        stream.read_exact(&mut [0; 24]).unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
        let mut waiting = Vec::new();
        while let Some((kind, flags, id)) = next_frame(&mut stream) {
            match (kind, flags & 1) {
                (4, 0) => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).unwrap(),
                (1, _) => waiting.push(id),
                (_, _) => continue,
            }
            if is_first && waiting.len() < 3 {
                continue;
            }
            if is_first {
                // Only the first was seen.
                waiting.truncate(1);
                let mut goodbye = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
                goodbye.extend_from_slice(&waiting[0].to_be_bytes());
                goodbye.extend_from_slice(&[0; 4]);
                stream.write_all(&goodbye).unwrap();
            }
            for id in waiting.drain(..) {
                count.fetch_add(1, Ordering::SeqCst);
                let mut answer = vec![0, 0, 1, 1, 5];
                answer.extend_from_slice(&id.to_be_bytes());
                answer.push(0x88);
                stream.write_all(&answer).unwrap();
            }
        }
    });
    let proxy = serving(Service { protocol: Protocol::H2c, ..service(&[("i", origin.addr)]) });
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let addr = proxy.addr;
            std::thread::spawn(move || crate::support::Wire::open(addr).post("/", b"x").unwrap().status())
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    assert_eq!((connections.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (2, 3));
}

#[test]
fn a_connection_that_closes_before_it_reads_is_no_loss() {
    // The first request is answered. Then the instance closes without a word, when nothing is under way.
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let origin = Origin2::raw(move |stream, _| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = server::handshake(stream).await.unwrap();
            let (request, respond) = connection.accept().await.unwrap().unwrap();
            let serve = async {
                answer(respond, 200, read(&mut request.into_body()).await).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            tokio::select! {
                () = serve => {}
                _ = connection.accept() => {}
            }
            drop(connection);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = serving(origin.service());
    let mut wire = proxy.wire();
    for turn in 0..20 {
        assert_eq!(wire.post("/", b"x").unwrap().status(), 200, "turn {turn}");
        eventually("it closes", || closed.load(Ordering::SeqCst) == turn + 1);
    }
}

#[test]
fn an_instance_that_does_not_speak_it_is_like_one_that_does_not_accept() {
    let wrong = Origin::start(|_| ok("x"));
    let right = Origin2::start(echo);
    let mut both = right.service();
    both.versions.insert("r1".to_owned(), version(100, &[("bad", wrong.addr), ("i", right.addr)]));
    both.timeouts.connect_ms = 500;
    let proxy = serving(both);
    for _ in 0..6 {
        assert_eq!(proxy.wire().post("/", b"x").unwrap().status(), 200);
    }
    // One that says nothing at all.
    let silent = Origin::raw(free_addr(), |stream| {
        std::thread::sleep(HANG);
        drop(stream);
    });
    let mut both = right.service();
    both.versions.insert("r1".to_owned(), version(100, &[("mute", silent.addr), ("j", right.addr)]));
    both.timeouts.connect_ms = 100;
    let proxy = serving(both);
    for _ in 0..6 {
        assert_eq!(proxy.wire().post("/", b"x").unwrap().status(), 200);
    }
}

#[test]
fn a_client_that_gives_up_frees_the_instance() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&cancelled);
    let origin = Origin2::start(move |_, mut respond| {
        let count = Arc::clone(&count);
        async move {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
            assert_eq!(reason, Reason::CANCEL);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = serving(origin.service());
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        for turn in 0..5 {
            let mut send = browser.0.clone().ready().await.unwrap();
            let (response, _) = send.send_request(request(Method::GET, "/"), true).unwrap();
            while proxy.client.in_flight("i").await.unwrap() == 0 {}
            drop(response);
            while cancelled.load(Ordering::SeqCst) <= turn {
                tokio::task::yield_now().await;
            }
        }
    });
    eventually("nothing is under way", || proxy.in_flight("i") == 0);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_removed_instance_is_drained_when_its_streams_have_ended() {
    let origin = Origin2::start(|_, mut respond| async move {
        let response = Response::builder().header("content-type", "application/grpc");
        let mut out = respond.send_response(response.body(()).unwrap(), false).unwrap();
        out.send_data(Bytes::from_static(b"on and on"), false).unwrap();
        let _ = std::future::poll_fn(|cx| out.poll_reset(cx)).await;
    });
    let mut short = origin.service();
    short.timeouts.stream_drain_ms = 200;
    let mut proxy = serving(short.clone());
    let mut events = proxy.events();
    let without =
        proxy.snapshot(Service { versions: [("r1".to_owned(), version(100, &[]))].into(), ..short });
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, _out) = send.send_request(request(Method::POST, "/"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert!(body.data().await.unwrap().is_ok());
        proxy.client.apply(&without).await.unwrap();
        assert_eq!(proxy.client.in_flight("i").await.unwrap(), 1);
        // It ends by its own drain time, and says so in the words of gRPC.
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "14");
    });
    assert_eq!(proxy.next_event(&mut events), Event::Drained { instance: "i".into() });
}

#[test]
fn an_event_stream_whose_instance_goes_within_the_drain_has_ended_and_was_not_cut_off() {
    for is_drained in [true, false] {
        let (leave, told) = tokio::sync::watch::channel(false);
        let origin = Origin2::raw(move |stream, _| {
            let mut told = told.clone();
            async move {
                let mut connection = server::handshake(stream).await.unwrap();
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                let response = Response::builder().header("content-type", "text/event-stream");
                let mut out = respond.send_response(response.body(()).unwrap(), false).unwrap();
                out.send_data(Bytes::from_static(b"abc"), false).unwrap();
                tokio::select! {
                    _ = connection.accept() => {}
                    _ = told.wait_for(|told| *told) => {}
                }
            }
        });
        let mut proxy = serving(origin.service());
        let mut wire = proxy.wire();
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut seen = Vec::new();
        while !seen.ends_with(b"abc\r\n") {
            seen.extend(wire.bytes(1).unwrap());
        }
        if is_drained {
            proxy.serve(Service {
                versions: [("r1".to_owned(), version(100, &[]))].into(),
                ..origin.service()
            });
        }
        leave.send(true).unwrap();
        assert_eq!(wire.rest().unwrap(), if is_drained { &b"0\r\n\r\n"[..] } else { b"" });
    }
}

#[test]
fn unused_connections_are_closed_and_a_dead_instance_is_noticed() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    let origin = Origin2::raw(move |stream, number| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let mut connection = server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                if request.uri().path() == "/hang" {
                    // The process stands still; its kernel does not.
                    tokio::time::sleep(HANG).await;
                }
                answer(respond, 200, number.to_string()).await;
            }
            count.fetch_sub(1, Ordering::SeqCst);
        }
    });
    let mut short = origin.service();
    short.timeouts.upstream_idle_ms = 100;
    let mut proxy = Proxy::start_with(|options| {
        options.workers = std::num::NonZeroUsize::new(1);
        options.limits.h2_ping = Duration::from_millis(100);
        options.limits.h2_pong = Duration::from_millis(100);
    });
    proxy.serve(short);
    assert_eq!(proxy.wire().get("/").unwrap().text(), "0");
    eventually("it is closed", || open.load(Ordering::SeqCst) == 0);
    let mut wire = proxy.wire();
    assert_eq!(wire.post("/hang", b"x").unwrap().status(), 502);
    assert_eq!(proxy.wire().post("/", b"x").unwrap().text(), "2");
}

#[test]
fn health_is_asked_in_the_instance_s_own_words() {
    let serving_now = Arc::new(AtomicUsize::new(0));
    let says = Arc::clone(&serving_now);
    let origin = Origin2::start(move |request, mut respond| {
        let status = says.load(Ordering::SeqCst) as u8;
        async move {
            if request.uri().path() != "/grpc.health.v1.Health/Check" {
                return answer(respond, 404, "").await;
            }
            assert_eq!(read(&mut request.into_body()).await, [0; 5]);
            let response = Response::builder().status(StatusCode::OK).body(()).unwrap();
            let mut out = respond.send_response(response, false).unwrap();
            out.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", 0.into());
            out.send_trailers(trailers).unwrap();
        }
    });
    let check =
        |path: &str| ActiveHealth { path: path.into(), interval_ms: 20, timeout_ms: 5_000, rise: 1, fall: 1 };
    let mut proxy = Proxy::start();
    let mut events = proxy.events();
    proxy.serve(Service { health: Some(check("/grpc.health.v1.Health/Check")), ..origin.service() });
    let mut expect = |healthy: bool, why: &str| {
        let (instance, reason) = ("i".to_owned(), why.to_owned());
        assert_eq!(proxy.next_event(&mut events), Event::Health { instance, healthy, reason });
    };
    expect(false, "the server says that it does not serve");
    serving_now.store(1, Ordering::SeqCst);
    expect(true, "serving");
}

#[test]
fn copies_go_to_a_mirror_of_the_same_kind() {
    let copies = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&copies);
    let origin = Origin2::start(echo);
    let mirror = Origin2::start(move |request, respond| {
        if request.headers().contains_key("x-fairway-mirror") {
            count.fetch_add(1, Ordering::SeqCst);
        }
        answer(respond, 200, "")
    });
    let mut both = origin.service();
    both.versions.insert("r2".to_owned(), version(0, &[("m", mirror.addr)]));
    both.mirror =
        Some(Mirror { version: "r2".into(), percent: 100, unsafe_methods: false, timeout_ms: 5_000 });
    let proxy = serving(both);
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        for _ in 0..10 {
            let answer: Answer = browser.get("/").await.unwrap();
            assert_eq!(answer.status, 200);
        }
    });
    eventually("all are copied", || copies.load(Ordering::SeqCst) == 10);
    assert_eq!(mirror.connections(), 1);
}

#[test]
fn websockets_of_both_kinds_of_clients_reach_an_instance_that_takes_them() {
    let origin = Origin2::start_with(
        server::Builder::new().enable_connect_protocol(),
        |request, mut respond| async move {
            let protocol =
                request.extensions().get::<h2::ext::Protocol>().map(|name| name.as_str().to_owned());
            if (request.method(), protocol.as_deref()) != (&Method::CONNECT, Some("websocket")) {
                return answer(respond, 200, "plain").await;
            }
            assert!(!request.headers().contains_key("sec-websocket-key"));
            if request.uri().path() != "/chat" {
                return answer(respond, 404, "no").await;
            }
            let response = Response::builder().header("sec-websocket-protocol", "chat");
            let mut out = respond.send_response(response.body(()).unwrap(), false).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                out.send_data(data, false).unwrap();
            }
            out.send_data(Bytes::new(), true).unwrap();
        },
    );
    let proxy = serving(origin.service());
    let mut wire = proxy.wire();
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    wire.send(ask("/other"));
    assert_eq!(wire.read().unwrap().status(), 404);
    let mut wire = proxy.wire();
    wire.send(ask("/chat"));
    let agreed = wire.read().unwrap();
    assert_eq!((agreed.status(), agreed.field("sec-websocket-protocol")), (101, Some("chat")));
    assert_eq!(agreed.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for word in ["one", "three"] {
        wire.send(word);
        assert_eq!(wire.bytes(word.len()).unwrap(), word.as_bytes());
    }
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(wire.rest().unwrap(), b"", "both sides end in good order");
    run(&proxy, async {
        let browser = Browser::open(proxy.addr).await;
        assert_eq!(browser.get("/").await.unwrap().text(), "plain");
        let mut send = browser.0.clone().ready().await.unwrap();
        let (response, mut out) = send.send_request(crate::http2::websocket(), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut body = response.into_body();
        out.send_data(Bytes::from_static(b"two"), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), &b"two"[..]);
    });
    eventually("nothing is under way", || proxy.in_flight("i") == 0);
}
