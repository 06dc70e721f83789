//! What stands for the proxy: takes offers, answers challenges and serves certificates on real sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::super::{Certificate, Edge, Event, Offer, Published, Purpose};
use crate::certificates::proof::PROTOCOL;

pub(super) struct Site {
    pub(super) http_port: u16,
    pub(super) tls_port: u16,
    offer: Mutex<Offer>,
    events: Mutex<Vec<Event>>,
    /// Answers to the authority are those of somebody else; ours of the preflight are right.
    pub(super) lies: AtomicBool,
    /// Confirms no answer for the authority.
    pub(super) hangs: AtomicBool,
    pub(super) hanging: Notify,
    /// Takes no offer at all.
    pub(super) down: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Site({}, {})", self.http_port, self.tls_port)
    }
}

impl Edge for Site {
    fn publish(&self, offer: Offer) -> Published<'_> {
        Box::pin(async move {
            if self.down.load(Ordering::SeqCst) {
                return Err("it is down".to_owned());
            }
            let for_authority = offer.http_challenges.keys().any(|token| !token.starts_with("fairway-"));
            if for_authority && self.hangs.load(Ordering::SeqCst) {
                self.hanging.notify_one();
                std::future::pending::<()>().await;
            }
            // Whoever does not wait for the confirmation is asked before the answer is there.
            tokio::time::sleep(Duration::from_millis(100)).await;
            *self.offer.lock().unwrap() = offer;
            Ok(())
        })
    }

    fn happened(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
    }
}

impl Site {
    pub(super) async fn start() -> Arc<Self> {
        let (http, tls) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let site = Arc::new(Self {
            http_port: http.local_addr().unwrap().port(),
            tls_port: tls.local_addr().unwrap().port(),
            offer: Mutex::default(),
            events: Mutex::default(),
            lies: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            hanging: Notify::new(),
            down: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        let pages = tokio::spawn(serve_http(Arc::downgrade(&site), http));
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Chooser(Arc::downgrade(&site))));
        config.alpn_protocols = vec![PROTOCOL.to_vec(), b"http/1.1".to_vec()];
        let handshakes = tokio::spawn(serve_tls(tls, tokio_rustls::TlsAcceptor::from(Arc::new(config))));
        site.tasks.lock().unwrap().extend([pages, handshakes]);
        site
    }

    pub(super) fn offer(&self) -> Offer {
        self.offer.lock().unwrap().clone()
    }

    pub(super) fn serving(&self) -> Vec<Certificate> {
        let offer = self.offer();
        offer.certificates.into_iter().filter(|one| one.purpose == Purpose::Serving).collect()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    fn answer(&self, token: &str) -> Option<String> {
        let answer = self.offer().http_challenges.get(token).cloned()?;
        let lies = self.lies.load(Ordering::SeqCst) && !token.starts_with("fairway-");
        Some(if lies { "what somebody else says".to_owned() } else { answer })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

async fn serve_http(site: std::sync::Weak<Site>, listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let Some(site) = site.upgrade() else { return };
        tokio::spawn(async move {
            let Some(path) = path(&mut stream).await else { return };
            let token = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
            let (status, body) = match site.answer(token) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", String::new()),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            drop(stream.write_all([head, body].concat().as_bytes()).await);
        });
    }
}

async fn path(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()?.split(' ').nth(1).map(str::to_owned)
}

async fn serve_tls(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                drop(stream.shutdown().await);
            }
        });
    }
}

#[derive(Debug)]
struct Chooser(std::sync::Weak<Site>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let purpose = match hello.alpn().is_some_and(|mut wanted| wanted.any(|one| one == PROTOCOL)) {
            true => Purpose::AcmeTlsAlpn,
            false => Purpose::Serving,
        };
        let name = hello.server_name()?.to_owned();
        let offer = self.0.upgrade()?.offer();
        let found =
            offer.certificates.iter().find(|one| one.purpose == purpose && one.names.contains(&name))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&found.chain).ok()?.collect();
        let key = any_supported_type(&PrivateKeyDer::from_pem_file(&found.key).ok()?).ok()?;
        Some(Arc::new(CertifiedKey::new(chain.ok()?, key)))
    }
}
