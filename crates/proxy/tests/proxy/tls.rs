//! TLS to clients, and what comes before the first request.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use fairway_proxy::snapshot::{Certificate, CertificatePurpose, Snapshot, Tls, ToHttps};
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::frames;
use crate::support::*;

/// A certificate that signs itself, in files.
pub struct Identity {
    pub certificate: Certificate,
    pub root: rustls::pki_types::CertificateDer<'static>,
}

pub fn identity(dir: &Path, file: &str, names: &[&str]) -> Identity {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names.clone()).unwrap();
    let (chain, key) = (dir.join(format!("{file}.pem")), dir.join(format!("{file}.key")));
    std::fs::write(&chain, cert.pem()).unwrap();
    std::fs::write(&key, KeyPair::serialize_pem(&signing_key)).unwrap();
    let (digest, purpose) = (file.to_owned(), CertificatePurpose::Serving);
    Identity { certificate: Certificate { names, chain, key, digest, purpose }, root: cert.der().clone() }
}

pub fn encrypt(snapshot: &mut Snapshot, identities: &[&Identity]) {
    let certificates = identities.iter().map(|identity| identity.certificate.clone()).collect();
    snapshot.listeners[0].tls = Some(Tls { certificates });
}

pub type Encrypted = BufReader<StreamOwned<ClientConnection, TcpStream>>;

fn connect(addr: SocketAddr, root: &Identity, name: &str) -> std::io::Result<Encrypted> {
    connect_with(TcpStream::connect(addr)?, root, name, &[])
}

pub fn connect_with(
    tcp: TcpStream,
    root: &Identity,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<Encrypted> {
    tcp.set_read_timeout(Some(HANG))?;
    let mut roots = RootCertStore::empty();
    roots.add(root.root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|one| one.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(session, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(BufReader::new(stream))
}

fn ask(stream: &mut Encrypted, request: impl AsRef<[u8]>) -> std::io::Result<Message> {
    stream.get_mut().write_all(request.as_ref())?;
    read_message(stream)
}

#[test]
fn requests_come_by_tls_and_say_so() {
    let origin = Origin::start(|request| {
        ok(format!("{} {}", request.field("x-forwarded-proto").unwrap(), request.body.len()))
    });
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example", "*.shop.example"]);
    let other = identity(proxy.dir.path(), "other", &["other.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop, &other]));
    let mut stream = connect(proxy.addr, &shop, "shop.example").unwrap();
    for _ in 0..3 {
        let answer = ask(&mut stream, "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "https 0"));
    }
    let body = vec![b'x'; 3_000_000];
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = ask(&mut stream, [head.as_bytes(), &body].concat()).unwrap();
    assert_eq!(answer.text(), "https 3000000");
    assert!(connect(proxy.addr, &shop, "A.shop.example").is_ok());
    assert!(connect(proxy.addr, &other, "other.example").is_ok());
    assert!(connect(proxy.addr, &shop, "a.b.shop.example").is_err(), "a wildcard covers one label");
    assert!(connect(proxy.addr, &shop, "nobody.example").is_err());
    // Who names no host gets the first certificate, and finds that the name differs.
    let error = connect(proxy.addr, &shop, "127.0.0.1").unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn a_large_answer_to_a_slow_reader_arrives_whole() {
    let body = Arc::new((0..4_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
    let sent = Arc::clone(&body);
    let origin = Origin::start(move |_| ok(&*sent));
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    let mut stream = connect(proxy.addr, &shop, "shop.example").unwrap();
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let answer = read_message(&mut stream).unwrap();
    assert!(answer.body == *body);
    // The end is said, not only made.
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_a_broken_one_is_refused() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let old = identity(proxy.dir.path(), "old", &["shop.example"]);
    let new = identity(proxy.dir.path(), "new", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&old]));
    let mut before = connect(proxy.addr, &old, "shop.example").unwrap();
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&new]));
    assert_eq!(ask(&mut before, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().status(), 200);
    assert!(connect(proxy.addr, &old, "shop.example").is_err());
    assert!(connect(proxy.addr, &new, "shop.example").is_ok());

    let mut check = |change: &dyn Fn(&mut Certificate), expect: &str| {
        let mut broken = Identity { certificate: new.certificate.clone(), root: new.root.clone() };
        change(&mut broken.certificate);
        let mut snapshot = proxy.snapshot(service(&[("i", origin.addr)]));
        encrypt(&mut snapshot, &[&broken]);
        let refused = proxy.apply(&snapshot).unwrap_err().reason.to_string();
        assert!(refused.contains("listener \"web\"") && refused.contains(expect), "{refused}");
    };
    let empty = proxy_file(&new, "empty", "");
    let garbage = proxy_file(&new, "garbage", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    check(&|c| c.key = old.certificate.key.clone(), "is not the key of");
    check(&|c| c.chain = c.chain.with_file_name("gone"), "gone: No such file");
    check(&|c| c.chain = empty.clone(), "has no certificate");
    check(&|c| c.chain = garbage.clone(), "garbage");
    check(&|c| c.key = empty.clone(), "empty");
    assert!(connect(proxy.addr, &new, "shop.example").is_ok());
}

fn proxy_file(beside: &Identity, name: &str, content: &str) -> std::path::PathBuf {
    let path = beside.certificate.chain.with_file_name(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_proxy_that_starts_without_a_certificate_serves_the_others() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let (kept, lost) = (
        identity(proxy.dir.path(), "kept", &["kept.example"]),
        identity(proxy.dir.path(), "lost", &["lost.example"]),
    );
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&lost, &kept]));
    let addr = proxy.addr;
    let dir = proxy.stop();
    std::fs::remove_file(&lost.certificate.key).unwrap();
    let _proxy = Proxy::start_in(dir, |_| {});
    assert!(connect(addr, &kept, "kept.example").is_ok());
    assert!(connect(addr, &lost, "lost.example").is_err());
}

#[test]
fn what_does_not_speak_tls_is_left_alone_and_counted() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start_with(|options| {
        options.limits.head = std::time::Duration::from_millis(200);
    });
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    for garbage in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x40\x00", "\x16\x03\x01\x00\x01\x01"] {
        let mut wire = proxy.wire();
        wire.send(garbage);
        // An alert, or nothing; then the end.
        let _ = wire.rest();
    }
    // One that says nothing at all.
    assert_eq!(proxy.wire().rest().unwrap(), b"");
    assert!(connect(proxy.addr, &shop, "shop.example").is_ok());
}

#[test]
fn an_authority_gets_its_proof_by_either_way() {
    let origin = Origin::start(|_| ok("app"));
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    let mut proof = identity(proxy.dir.path(), "proof", &["shop.example"]);
    proof.certificate.purpose = CertificatePurpose::AcmeTlsAlpn;
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop, &proof]));
    let tcp = || TcpStream::connect(proxy.addr).unwrap();
    assert!(connect_with(tcp(), &proof, "shop.example", &[b"acme-tls/1"]).is_ok());
    assert!(connect_with(tcp(), &shop, "shop.example", &[b"acme-tls/1"]).is_err());
    assert!(connect_with(tcp(), &shop, "shop.example", &[b"http/1.1"]).is_ok());

    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
        snapshot.http_challenges.insert("token".into(), "token.print".into());
        snapshot.routes[0].policy.https = Some(ToHttps { port: 443 });
    });
    let mut wire = proxy.wire();
    assert_eq!(wire.get("/.well-known/acme-challenge/token").unwrap().text(), "token.print");
    assert_eq!(wire.get("/.well-known/acme-challenge/other").unwrap().status(), 308);
}

#[test]
fn a_request_without_tls_is_sent_to_where_there_is_some() {
    let origin = Origin::start(|_| ok("app"));
    let mut proxy = Proxy::start();
    let serve = |proxy: &mut Proxy, port: u16, trusted: &[&str]| {
        proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
            snapshot.routes[0].policy.https = Some(ToHttps { port });
            snapshot.listeners[0].trusted_proxies = trusted.iter().map(|one| (*one).to_owned()).collect();
        });
    };
    serve(&mut proxy, 443, &[]);
    let mut wire = proxy.wire();
    let answer = wire.get("/a?b=c").unwrap();
    assert_eq!((answer.status(), answer.field("location")), (308, Some("https://test/a?b=c")));
    serve(&mut proxy, 8443, &[]);
    wire.send("GET http://Shop.example:80/x HTTP/1.1\r\nHost: Shop.example:80\r\n\r\n");
    assert_eq!(wire.read().unwrap().field("location"), Some("https://Shop.example:8443/x"));
    // Somebody else's word that it was encrypted counts only from a proxy that is trusted.
    let forwarded = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n";
    wire.send(forwarded);
    assert_eq!(wire.read().unwrap().status(), 308);
    serve(&mut proxy, 443, &["127.0.0.1"]);
    let mut wire = proxy.wire();
    wire.send(forwarded);
    assert_eq!(wire.read().unwrap().text(), "app");
    wire.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(wire.read().unwrap().status(), 404, "there is no host to come back to");
}

#[test]
fn a_balancer_says_whose_connection_it_is() {
    let origin = Origin::start(|request| ok(request.field("x-forwarded-for").unwrap_or_default()));
    let mut proxy = Proxy::start();
    let serve = |proxy: &mut Proxy, trusted: &str| {
        proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
            snapshot.listeners[0].proxy_protocol = true;
            snapshot.listeners[0].trusted_proxies = vec![trusted.to_owned()];
        });
    };
    serve(&mut proxy, "127.0.0.0/8");
    let check = |proxy: &Proxy, header: &[u8], expect: &str| {
        // In pieces, as a header may come.
        let mut wire = proxy.wire();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for piece in [&header[..header.len() / 2], &[&header[header.len() / 2..], request].concat()] {
            // It may have ended already.
            let _ = wire.stream.write_all(piece);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let answer = wire.read().map_or("closed".to_owned(), |answer| answer.text());
        assert_eq!(answer, expect, "{}", String::from_utf8_lossy(header));
    };
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend_from_slice(&[203, 0, 113, 9, 127, 0, 0, 1, 0x10, 0, 0, 80]);
    check(&proxy, b"PROXY TCP4 203.0.113.7 127.0.0.1 5000 80\r\n", "203.0.113.7");
    check(&proxy, b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n", "2001:db8::1");
    check(&proxy, &v2, "203.0.113.9");
    check(&proxy, b"PROXY UNKNOWN\r\n", "127.0.0.1");
    check(&proxy, b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0", "127.0.0.1");
    check(&proxy, b"GET / HTTP/1.1\r\n", "closed");
    check(&proxy, b"PROXY TCP4 203.0.113.7 nonsense\r\n", "closed");
    serve(&mut proxy, "10.0.0.0/8");
    check(&proxy, b"PROXY TCP4 203.0.113.7 127.0.0.1 5000 80\r\n", "closed");
}

#[test]
fn http_2_is_agreed_on_and_served() {
    let origin = Origin::start(|request| ok(request.field("x-forwarded-proto").unwrap()));
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    let tcp = || TcpStream::connect(proxy.addr).unwrap();
    let old = connect_with(tcp(), &shop, "shop.example", &[b"http/1.1"]).unwrap();
    assert_eq!(old.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut stream = connect_with(tcp(), &shop, "shop.example", &[b"http/1.1", b"h2"]).unwrap();
    assert_eq!(stream.get_ref().conn.alpn_protocol(), Some(&b"h2"[..]));
    let begin = [frames::PREFACE, &frames::frame(frames::SETTINGS, 0, 0, &[]), &frames::get(&[])].concat();
    stream.get_mut().write_all(&begin).unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == frames::DATA {
            return assert_eq!(payload, b"https");
        }
    }
}

#[test]
fn a_connection_that_waits_by_tls_is_idle_and_not_slow() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start_with(|options| {
        options.limits.head = std::time::Duration::from_millis(200);
    });
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    let mut stream = connect(proxy.addr, &shop, "shop.example").unwrap();
    for _ in 0..3 {
        // Longer than a head that was begun may take.
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(ask(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().status(), 200);
    }
}
