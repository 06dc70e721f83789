//! Clients that speak HTTP/2, in front of instances that speak HTTP/1.1.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairway_proxy::ExitReason;
use fairway_proxy::control::StatusClass;
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::net::TcpStream;

use crate::support::{HANG, Origin, Proxy, Reply, eventually, free_addr, ok, service};

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
