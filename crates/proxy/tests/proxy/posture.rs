//! What is spoken with whom: versions of TLS and HTTP, sessions that are resumed, and clients that speak the other thing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::sync::Arc;

use fairway_proxy::{AccessLog, RunOptions};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::frames;
use crate::support::{HANG, Origin, Proxy, eventually, ok, read_message, service};
use crate::tls::{Identity, connect_with, encrypt, identity};

fn client(root: &Identity, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// One request on a connection of its own, and how its handshake went.
fn visit(proxy: &Proxy, config: &Arc<ClientConfig>) -> HandshakeKind {
    let tcp = TcpStream::connect(proxy.addr).unwrap();
    tcp.set_read_timeout(Some(HANG)).unwrap();
    let name = ServerName::try_from("shop.example").unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = std::io::BufReader::new(StreamOwned::new(session, tcp));
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
    assert_eq!(read_message(&mut stream).unwrap().status(), 200);
    stream.get_ref().conn.handshake_kind().unwrap()
}

#[test]
fn sessions_are_resumed_on_every_core_after_a_renewal_and_after_an_upgrade() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start_with(|options| options.workers = NonZeroUsize::new(3));
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    let clients = [&TLS12, &TLS13].map(|version| client(&shop, version));
    let resumes = |proxy: &Proxy| {
        for config in &clients {
            // The kernel gives the connections to the cores as it likes: of so many each gets some.
            for _ in 0..12 {
                assert_eq!(visit(proxy, config), HandshakeKind::Resumed);
            }
        }
    };
    for config in &clients {
        assert_eq!(visit(&proxy, config), HandshakeKind::Full);
    }
    resumes(&proxy);

    let other = identity(proxy.dir.path(), "other", &["other.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop, &other]));
    resumes(&proxy);

    let mut options = RunOptions::new(proxy.dir.path());
    options.workers = NonZeroUsize::new(2);
    options.handle_signals = false;
    options.take_over = true;
    let next = std::thread::spawn(move || fairway_proxy::run(options));
    proxy.join();
    resumes(&proxy);
    let path = proxy.dir.path().join("proxy.sock");
    eventually("the successor ends", || {
        let client = proxy.runtime.block_on(fairway_proxy::control::Client::connect(&path));
        client.is_ok_and(|client| proxy.runtime.block_on(client.shutdown()).is_ok())
    });
    next.join().unwrap().unwrap();
}

#[test]
fn a_request_without_tls_is_told_that_it_lacks_it() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    let mut wire = proxy.wire();
    // More than is looked at: what is left unread must not destroy the answer.
    let body = "x".repeat(100_000);
    wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let answer = wire.read().unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")));
    assert!(answer.text().contains("use https://"), "{}", answer.text());
    assert_eq!(proxy.stats().handshakes_failed, 1);
}

#[test]
fn a_handshake_where_no_tls_is_spoken_ends_at_once_and_is_logged() {
    let origin = Origin::start(|_| ok("up"));
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("access.log");
    let mut proxy = Proxy::start_with(|options| options.access_log = AccessLog::File(path.clone()));
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve(service(&[("i", origin.addr)]));
    let began = std::time::Instant::now();
    let tcp = TcpStream::connect(proxy.addr).unwrap();
    assert!(connect_with(tcp, &shop, "shop.example", &[]).is_err());
    // A head may take ten seconds.
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    let is_told = || std::fs::read_to_string(&path).unwrap().contains("TLS is not spoken at this address");
    eventually("it is in the log", is_told);
}

#[test]
fn http_2_can_be_switched_off() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    let serve = |proxy: &mut Proxy, is_encrypted: bool| {
        proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| {
            snapshot.listeners[0].limits.http1_only = true;
            if is_encrypted {
                encrypt(snapshot, &[&shop]);
            }
        });
    };
    serve(&mut proxy, true);
    let tcp = || TcpStream::connect(proxy.addr).unwrap();
    let stream = connect_with(tcp(), &shop, "shop.example", &[b"h2", b"http/1.1"]).unwrap();
    assert_eq!(stream.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(connect_with(tcp(), &shop, "shop.example", &[b"h2"]).is_err(), "nothing in common");
    serve(&mut proxy, false);
    let mut wire = proxy.wire();
    wire.send(frames::PREFACE);
    let answer = wire.read().unwrap();
    assert_eq!(answer.status(), 505);
    assert!(answer.text().contains("HTTP/2 is not spoken"), "{}", answer.text());
    assert_eq!(proxy.wire().get("/").unwrap().text(), "up");
}

#[test]
fn the_access_log_names_the_protocols() {
    let origin = Origin::start(|_| ok("up"));
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("access.log");
    let mut proxy = Proxy::start_with(|options| options.access_log = AccessLog::File(path.clone()));
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve(service(&[("i", origin.addr)]));
    proxy.wire().get("/plain").unwrap();
    let mut wire = proxy.wire();
    wire.send("GET /old HTTP/1.0\r\nHost: a\r\n\r\n");
    wire.read().unwrap();
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    visit(&proxy, &client(&shop, &TLS12));
    let tcp = TcpStream::connect(proxy.addr).unwrap();
    let mut stream = connect_with(tcp, &shop, "shop.example", &[b"h2"]).unwrap();
    let begin = [frames::PREFACE, &frames::frame(frames::SETTINGS, 0, 0, &[]), &frames::get(&[])].concat();
    stream.get_mut().write_all(&begin).unwrap();
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    eventually("all are logged", || lines().len() == 4);
    drop(stream);
    let mut told: Vec<_> = lines()
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
            [text("target"), text("protocol"), text("tls")].join(" ")
        })
        .collect();
    told.sort();
    let mut expected =
        ["/plain HTTP/1.1 -", "/old HTTP/1.0 -", "/ HTTP/1.1 TLSv1.2", "/ HTTP/2 TLSv1.3"].map(str::to_owned);
    expected.sort();
    assert_eq!(told, expected);
}

/// Another implementation than ours.
struct OpenSsl {
    connect: String,
    roots: std::path::PathBuf,
}

impl OpenSsl {
    /// Everything that it says, and whether the handshake was good.
    fn shake(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &self.connect, "-CAfile"])
            .arg(&self.roots)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn check(&self, arguments: &[&str], is_good: bool, expect: &[&str]) {
        let (good, text) = self.shake(arguments);
        assert_eq!(good, is_good, "{arguments:?}: {text}");
        for part in expect {
            assert!(text.contains(part), "{arguments:?}: {part:?} is missing in {text}");
        }
    }
}

#[test]
fn openssl_finds_what_it_should() {
    if Command::new("openssl").arg("version").output().is_err() {
        return eprintln!("not run: there is no openssl (cargo xtask test installs it)");
    }
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    let other = identity(proxy.dir.path(), "other", &["other.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop, &other]));
    let openssl_for =
        |one: &Identity| OpenSsl { connect: proxy.addr.to_string(), roots: one.certificate.chain.clone() };
    let (openssl, for_other) = (openssl_for(&shop), openssl_for(&other));

    // By name; without one the first certificate is shown; for an unknown one none.
    let named = |name| ["-servername", name, "-verify_return_error", "-verify_hostname", name];
    openssl.check(&named("shop.example"), true, &["New, TLSv1.3", "Verify return code: 0 (ok)"]);
    for_other.check(&named("other.example"), true, &["Verify return code: 0 (ok)"]);
    let nameless = ["-noservername", "-verify_return_error", "-verify_hostname", "shop.example"];
    openssl.check(&nameless, true, &["Verify return code: 0 (ok)"]);
    openssl.check(&["-servername", "nobody.example"], false, &["no peer certificate available"]);

    let shop = |arguments: &[&'static str]| [&["-servername", "shop.example"][..], arguments].concat();
    openssl.check(&shop(&["-alpn", "h2,http/1.1"]), true, &["ALPN protocol: h2"]);
    openssl.check(&shop(&["-alpn", "http/1.1"]), true, &["ALPN protocol: http/1.1"]);
    openssl.check(&shop(&[]), true, &["No ALPN negotiated"]);
    openssl.check(&shop(&["-alpn", "gopher"]), false, &["no application protocol"]);
    openssl.check(&shop(&["-status"]), true, &["OCSP response: no response sent"]);

    openssl.check(&shop(&["-tls1_2"]), true, &["New, TLSv1.2", "Secure Renegotiation IS supported"]);
    for old in ["-tls1", "-tls1_1"] {
        openssl.check(&shop(&[old, "-cipher", "ALL:@SECLEVEL=0"]), false, &["SSL alert number"]);
    }
    // No forward secrecy, no authenticated encryption.
    for weak in ["AES128-SHA:@SECLEVEL=0", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"] {
        openssl.check(&shop(&["-tls1_2", "-cipher", weak]), false, &["alert handshake failure"]);
    }

    let session = proxy.dir.path().join("session.pem");
    let session = session.to_str().unwrap();
    openssl.check(&["-servername", "shop.example", "-tls1_2", "-sess_out", session], true, &["New, TLSv1.2"]);
    openssl.check(
        &["-servername", "shop.example", "-tls1_2", "-sess_in", session],
        true,
        &["Reused, TLSv1.2"],
    );
}

#[test]
fn a_client_that_goes_before_its_first_byte_is_counted() {
    let origin = Origin::start(|_| ok("up"));
    let mut proxy = Proxy::start();
    let shop = identity(proxy.dir.path(), "shop", &["shop.example"]);
    proxy.serve_with(service(&[("i", origin.addr)]), |snapshot| encrypt(snapshot, &[&shop]));
    let mut wire = proxy.wire();
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = wire.stream.read(&mut [0; 1]);
    eventually("it is counted", || proxy.stats().handshakes_failed == 1);
}
