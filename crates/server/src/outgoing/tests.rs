use std::io::Write;
use std::time::Instant;

use super::peer::{Identity, Peer, ok};
use super::*;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

fn client() -> Outgoing {
    Outgoing::new(Roots::default())
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn gzip_answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_connection_is_used_again() {
    run(async {
        let peer = Peer::start(|_| ok("up 1\n")).await;
        let client = client();
        // The end of an answer is seen by the asker and by the connection's own task; an asker who is faster finds
        // nothing to use again and opens one more. So not every request shares one connection, but most do.
        for _ in 0..20 {
            let answer = client.get(&peer.url("/metrics")).await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (200, b"up 1\n".as_slice()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let asked = peer.asked();
        assert!(asked.iter().all(|one| one.line == "GET /metrics HTTP/1.1"));
        let connections: std::collections::BTreeSet<usize> = asked.iter().map(|one| one.connection).collect();
        assert!(connections.len() < 10, "20 requests took {} connections", connections.len());
        assert!(asked[0].header("user-agent").unwrap().starts_with("fairway/"));
        // One that the other side closed in the meantime is no failure.
        let closing =
            Peer::start(|_| b"HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec())
                .await;
        for _ in 0..3 {
            assert!(client.get(&closing.url("/")).await.unwrap().is_success());
        }
        assert!(closing.asked().last().unwrap().connection >= 3);
    });
}

#[test]
fn credentials_and_headers_arrive_and_an_error_status_is_an_answer() {
    run(async {
        let peer = Peer::start(|_| {
            b"HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\n slow\x07 \n\x1b".to_vec()
        })
        .await;
        let url = peer.url("/x?y=1").replace("127.", "ada:pw@127.");
        let mut request = Request::post(url, "text/plain", "hello");
        request.headers.push((HeaderName::from_static("x-scope"), "1".to_owned()));
        let answer = client().send(request).await.unwrap();
        assert_eq!(answer.status, 429);
        assert_eq!((answer.retry_after(), answer.excerpt().as_str()), (Some(Duration::from_secs(7)), "slow"));
        let asked = &peer.asked()[0];
        assert_eq!(asked.line, "POST /x?y=1 HTTP/1.1");
        assert_eq!(asked.header("authorization"), Some("Basic YWRhOnB3"));
        assert_eq!((asked.header("x-scope"), &asked.body[..]), (Some("1"), b"hello".as_slice()));
        assert_eq!(asked.header("host"), Some(format!("127.0.0.1:{}", peer.port).as_str()));
    });
}

#[test]
fn redirects_are_not_followed() {
    run(async {
        let peer =
            Peer::start(|_| b"HTTP/1.1 302 X\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".to_vec())
                .await;
        assert_eq!(client().get(&peer.url("/")).await.unwrap().status, 302);
        assert_eq!(peer.asked().len(), 1);
    });
}

#[track_caller]
fn check_size(name: &str, reply: Vec<u8>, fits: bool) {
    run(async {
        let peer = Peer::start(move |_| reply.clone()).await;
        let request = Request {
            answer_bytes_max: 1_000,
            within: Duration::from_millis(500),
            ..Request::get(peer.url("/"))
        };
        let result = client().send(request).await;
        match (fits, &result) {
            (true, Ok(answer)) => assert_eq!(answer.body.len(), 1_000, "{name}"),
            (false, Err(OutgoingError::TooLarge { limit: 1_000, .. })) => {}
            _ => panic!("{name}: {result:?}"),
        }
    });
}

#[test]
fn an_answer_that_lies_about_its_size_is_cut() {
    let long = "x".repeat(1_001);
    check_size("just fits", ok(&"x".repeat(1_000)), true);
    check_size("too long", ok(&long), false);
    let chunk = format!("{:x}\r\n{long}\r\n", long.len());
    let head = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n";
    check_size("chunks without end", format!("{head}{chunk}{chunk}").into_bytes(), false);
    check_size(
        "until the end, without a length",
        format!("HTTP/1.1 200 X\r\n\r\n{long}").into_bytes(),
        false,
    );
    check_size("packed and fits", gzip_answer(&packed(&[b'x'; 1_000])), true);
    check_size("a bomb", gzip_answer(&packed(&vec![b'x'; 900_000])), false);
}

#[test]
fn what_breaks_names_the_host_and_no_secret() {
    run(async {
        let closed = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let check = |error: &OutgoingError, perhaps: bool, part: &str| {
            let text = error.to_string();
            assert!(text.contains(part) && !text.contains("T0K3N"), "{text}");
            assert_eq!(error.perhaps_taken(), perhaps, "{text}");
        };
        let client = client();
        let error = client.get(&format!("http://user:T0K3N@127.0.0.1:{closed}/T0K3N")).await.unwrap_err();
        check(&error, false, &format!("127.0.0.1:{closed}: no connection: Connection refused"));
        let error = client.get("http://no-such-host.invalid/T0K3N").await.unwrap_err();
        check(&error, false, "no-such-host.invalid: no connection: ");

        let hangs = Peer::start(|_| Vec::new()).await;
        let error = client.get(&hangs.url("/T0K3N")).await.unwrap_err();
        check(&error, true, "the connection broke: ");
        let short = Peer::start(|_| b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf".to_vec()).await;
        let request = Request { within: Duration::from_millis(200), ..Request::get(short.url("/T0K3N")) };
        let begun = Instant::now();
        let error = client.send(request).await.unwrap_err();
        check(&error, true, "no answer within 0.2 s");
        assert!(begun.elapsed() < Duration::from_secs(2));
        let garbage = Peer::start(|_| b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()).await;
        check(&client.get(&garbage.url("/T0K3N")).await.unwrap_err(), true, "the connection broke: ");
        let no_gzip = Peer::start(|_| gzip_answer(b"T0K3N")).await;
        check(&client.get(&no_gzip.url("/T0K3N")).await.unwrap_err(), true, "no valid gzip");
        let bad_header = Request {
            headers: vec![(header::AUTHORIZATION, "T0K3N\r\nx: y".to_owned())],
            ..Request::get(no_gzip.url("/"))
        };
        assert!(!format!("{bad_header:?}").contains("T0K3N"));
        check(&client.send(bad_header).await.unwrap_err(), false, "a header has characters");
    });
}

#[test]
fn tls_believes_the_given_roots_and_no_others() {
    run(async {
        let identity = Identity::new();
        let peer = Peer::start_tls(&identity, |_| ok("secret")).await;
        let url = format!("https://localhost:{}/", peer.port);
        let knows = Outgoing::new(Roots::These(vec![identity.certificate.clone()]));
        assert_eq!(&knows.get(&url).await.unwrap().body[..], b"secret");
        let other = Outgoing::new(Roots::These(vec![Identity::new().certificate]));
        let error = other.get(&url).await.unwrap_err();
        assert!(
            matches!(error, OutgoingError::Connect { .. }) && error.to_string().contains("certificate"),
            "{error}"
        );
        // Plain text where TLS is expected.
        let plain = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = plain.local_addr().unwrap().port();
        let greeting = tokio::spawn(async move {
            let (mut stream, _) = plain.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 mail.example ESMTP\r\n").await.unwrap();
            stream
        });
        let error = knows.get(&format!("https://localhost:{port}/")).await.unwrap_err();
        assert!(matches!(error, OutgoingError::Connect { .. }), "{error}");
        greeting.await.unwrap();
    });
}
