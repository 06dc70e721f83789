//! Whether names lead here, before the authority is asked to look: what it finds wrong counts against its limits.
//!
//! It is asked what the authority will ask, from this machine: a random answer is published like that to a challenge,
//! and has to come back from every address of the name. An address that cannot be reached is let pass when another
//! one can: machines without IPv6 cannot reach their own AAAA record, and authorities try the next address, too.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::header::{CONNECTION, HOST, LOCATION, SERVER, USER_AGENT};
use hyper_util::rt::TokioIo;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::cause::Cause;
use super::leaf::Leaf;
use super::offer::Certificate;
use super::proof::PROTOCOL;
use super::shelf;
use crate::outgoing::cause;

/// For each of: the name's lookup, the connection, the answer. Authorities wait ten.
const WITHIN: Duration = Duration::from_secs(5);

/// Of each name; Let's Encrypt looks at two.
const ADDRESSES_MAX: usize = 8;

/// The answer is a random text of 43 characters; a page is somebody else's.
const ANSWER_BYTES_MAX: usize = 1024;

/// How names are looked up, and where they answer.
#[derive(Clone, Debug)]
pub struct Lookout {
    pub resolver: Resolver,
    pub http_port: u16,
    pub tls_port: u16,
}

#[derive(Clone, Debug)]
pub enum Resolver {
    System,
    /// These names and no others.
    Table(BTreeMap<String, Vec<IpAddr>>),
}

impl Default for Lookout {
    /// The ports that authorities use.
    fn default() -> Self {
        Self { resolver: Resolver::System, http_port: 80, tls_port: 443 }
    }
}

/// A path's last part and the answer that is expected there.
#[derive(Clone, Debug)]
pub(super) struct Nonce {
    pub(super) token: String,
    pub(super) answer: String,
}

impl Nonce {
    pub(super) fn new() -> Result<Self, Cause> {
        Ok(Self { token: format!("fairway-{}", random()?), answer: random()? })
    }
}

/// 128 bits: nobody else answers it by chance.
pub(super) fn random() -> Result<String, Cause> {
    let mut bytes = [0_u8; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Cause::Crypto { why: "the kernel gives no random numbers".to_owned() })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Lookout {
    /// Whether `http://NAME/.well-known/acme-challenge/TOKEN` is answered by us.
    pub(super) async fn over_http(&self, name: &str, nonce: &Nonce) -> Result<(), Cause> {
        self.everywhere(name, self.http_port, |address| http(name, address, nonce)).await
    }

    /// Whether a connection for `acme-tls/1` to the name sees our `proof`.
    pub(super) async fn over_tls(&self, name: &str, proof: &Certificate) -> Result<(), Cause> {
        let unreadable = |why: String| Cause::Unreadable { path: proof.chain.clone(), why };
        let pem = shelf::read(&proof.chain).map_err(|error| unreadable(error.to_string()))?;
        let ours = CertificateDer::from_pem_slice(&pem).map_err(|error| unreadable(error.to_string()))?;
        self.everywhere(name, self.tls_port, |address| tls(name, address, ours.clone())).await
    }

    async fn everywhere<F>(&self, name: &str, port: u16, ask: impl Fn(SocketAddr) -> F) -> Result<(), Cause>
    where
        F: Future<Output = Result<(), Fault>>,
    {
        let (mut reached, mut unreached) = (false, None);
        for address in self.resolve(name).await? {
            let address = SocketAddr::new(address, port);
            let name = || name.to_owned();
            match ask(address).await {
                Ok(()) => reached = true,
                Err(Fault::Unreached(why)) => {
                    unreached.get_or_insert(Cause::Unreached { name: name(), address, why });
                }
                Err(Fault::Answer(answer)) => {
                    return Err(Cause::SomebodyElse { name: name(), address, answer });
                }
            }
        }
        match unreached {
            Some(cause) if !reached => Err(cause),
            Some(_) | None => Ok(()),
        }
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Cause> {
        let unresolved = |why: String| Cause::Unresolved { name: name.to_owned(), why };
        let mut found: Vec<IpAddr> = match &self.resolver {
            Resolver::Table(table) => table.get(name).cloned().unwrap_or_default(),
            Resolver::System => {
                let looked_up = tokio::time::timeout(WITHIN, tokio::net::lookup_host((name, 0))).await;
                let within = WITHIN.as_secs();
                let addresses = looked_up.map_err(|_| unresolved(format!("no answer within {within} s")))?;
                addresses
                    .map_err(|error| unresolved(error.to_string()))?
                    .map(|address| address.ip())
                    .collect()
            }
        };
        // One lookup answers once for each kind of socket.
        found.sort_unstable();
        found.dedup();
        found.truncate(ADDRESSES_MAX);
        if found.is_empty() { Err(unresolved("it has no address".to_owned())) } else { Ok(found) }
    }
}

enum Fault {
    Unreached(String),
    /// Of somebody, and not ours.
    Answer(String),
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Fault> {
    match tokio::time::timeout(WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Fault::Unreached(error.to_string())),
        Err(_) => Err(Fault::Unreached(format!("no connection within {} s", WITHIN.as_secs()))),
    }
}

async fn http(name: &str, address: SocketAddr, nonce: &Nonce) -> Result<(), Fault> {
    let stream = connect(address).await?;
    let broken = |error: hyper::Error| Fault::Answer(format!("no HTTP ({})", cause(&error)));
    let asked = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::get(format!("/.well-known/acme-challenge/{}", nonce.token))
            .header(HOST, name)
            .header(USER_AGENT, concat!("fairway/", env!("CARGO_PKG_VERSION"), " (preflight)"))
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Fault::Answer(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(broken);
        let judged = match answer {
            Ok(answer) => judge(answer, nonce).await,
            Err(fault) => Err(fault),
        };
        connection.abort();
        judged
    };
    let late = |_| Err(Fault::Answer(format!("nothing within {} s", WITHIN.as_secs())));
    tokio::time::timeout(WITHIN, asked).await.unwrap_or_else(late)
}

async fn judge(answer: hyper::Response<hyper::body::Incoming>, nonce: &Nonce) -> Result<(), Fault> {
    let (head, mut body) = answer.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let from = header(SERVER).map(|server| format!(" from {}", printable(server))).unwrap_or_default();
    if head.status != hyper::StatusCode::OK {
        let to = header(LOCATION).map(|to| format!(" to {}", printable(to))).unwrap_or_default();
        return Err(Fault::Answer(format!("{}{to}{from}", head.status)));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Fault::Answer(format!("a broken page{from}: {}", cause(&error))))?;
        if let Ok(data) = frame.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    if read.trim_ascii() == nonce.answer.as_bytes() {
        return Ok(());
    }
    Err(Fault::Answer(format!("a page of its own{from}")))
}

/// What a stranger sends goes to a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

async fn tls(name: &str, address: SocketAddr, ours: CertificateDer<'static>) -> Result<(), Fault> {
    let stream = connect(address).await?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Exactly { ours, provider: Arc::clone(&provider) });
    let other = |error: &dyn std::fmt::Display| Fault::Answer(error.to_string());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| other(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let server = ServerName::try_from(name.to_owned()).map_err(|error| other(&error))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(server, stream);
    match tokio::time::timeout(WITHIN, handshake).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(PROTOCOL) => Ok(()),
        Ok(Ok(_)) => Err(Fault::Answer("not acme-tls/1".to_owned())),
        Ok(Err(error)) => Err(Fault::Answer(cause(&error))),
        Err(_) => Err(Fault::Answer(format!("no TLS within {} s", WITHIN.as_secs()))),
    }
}

/// Believes one certificate and no other.
#[derive(Debug)]
struct Exactly {
    ours: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.ours {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("another certificate than the one for the challenge".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 was not asked for".to_owned()))
    }

    /// By the key alone: the usual way reads the whole certificate, and refuses the critical extension that makes it
    /// a proof.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let leaf = Leaf::read(certificate).map_err(|error| rustls::Error::General(error.to_string()))?;
        let key = SubjectPublicKeyInfoDer::from(leaf.public_key);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::peer::{Identity, Peer, answer, ok};

    fn lookout(port: u16, addresses: &[&str]) -> Lookout {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let resolver = Resolver::Table([("a.example".to_owned(), addresses)].into());
        Lookout { resolver, http_port: port, tls_port: port }
    }

    fn nonce() -> Nonce {
        Nonce { token: "fairway-1".to_owned(), answer: "ours".to_owned() }
    }

    #[tokio::test]
    async fn our_answer_passes_with_the_names_host() {
        let peer = Peer::start(|asked| match asked.header("host") {
            Some("a.example") => ok("ours"),
            _ => answer(404, ""),
        })
        .await;
        let lookout = lookout(peer.port, &["127.0.0.1"]);
        lookout.over_http("a.example", &nonce()).await.unwrap();
        assert_eq!(peer.asked()[0].line, "GET /.well-known/acme-challenge/fairway-1 HTTP/1.1");
    }

    #[tokio::test]
    async fn somebody_elses_answers_are_told_apart() {
        for (reply, told) in [
            (answer(404, "no such page"), "404 Not Found"),
            (ok("<html>welcome"), "a page of its own"),
            (ok(&"x".repeat(100_000)), "a page of its own"),
            (
                b"HTTP/1.1 301 X\r\nlocation: https://other/\r\nserver: nginx\r\ncontent-length: 0\r\n\r\n"
                    .to_vec(),
                "301 Moved Permanently to https://other/ from nginx",
            ),
            (b"SSH-2.0-OpenSSH\r\n".to_vec(), "no HTTP"),
        ] {
            let peer = Peer::start(move |_| reply.clone()).await;
            let asked = lookout(peer.port, &["127.0.0.1"]).over_http("a.example", &nonce()).await;
            let Err(Cause::SomebodyElse { answer, .. }) = asked else { panic!("{asked:?}") };
            assert!(answer.starts_with(told), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_and_a_closed_port_are_told_apart() {
        let peer = Peer::start(|_| ok("ours")).await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let asked = lookout(peer.port, &[]).over_http("a.example", &nonce()).await;
        assert!(matches!(asked, Err(Cause::Unresolved { .. })), "{asked:?}");
        let asked = lookout(closed, &["127.0.0.1"]).over_http("a.example", &nonce()).await;
        assert!(matches!(asked, Err(Cause::Unreached { .. })), "{asked:?}");
        // Nobody listens on the first of these, and the second is us.
        lookout(peer.port, &["127.0.0.2", "127.0.0.1"]).over_http("a.example", &nonce()).await.unwrap();
    }

    #[tokio::test]
    async fn another_certificate_is_somebody_else() {
        let peer = Peer::start_tls(&Identity::new(), |_| ok("")).await;
        let state = tempfile::tempdir().unwrap();
        let wanted = super::super::wanted::Wanted::new("e", ["a.example"], super::super::Source::SelfSigned);
        let place = shelf::Shelf::open(state.path()).unwrap().set(&wanted.slug());
        place.prepare().unwrap();
        let proof = super::super::proof::make(&place, "a.example", &[7; 32]).unwrap();
        let asked = lookout(peer.port, &["127.0.0.1"]).over_tls("a.example", &proof).await;
        let Err(Cause::SomebodyElse { answer, .. }) = asked else { panic!("{asked:?}") };
        assert!(answer.contains("another certificate"), "{answer}");
    }
}
