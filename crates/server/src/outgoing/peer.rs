//! The other side, for tests: a server on loopback that answers with whatever bytes it is told to, and remembers what
//! it was asked.

use std::sync::{Arc, Mutex};

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// `POST /path HTTP/1.1`
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// 1 for the first connection.
    pub(crate) connection: usize,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) struct Peer {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    answer(200, body)
}

pub(crate) fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Peer {
    /// Gives the answer that `reply` makes; an empty one closes the connection.
    pub(crate) async fn start(reply: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_with(None, reply).await
    }

    pub(crate) async fn start_tls(
        identity: &Identity,
        reply: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(identity.acceptor()), reply).await
    }

    async fn start_with(
        tls: Option<tokio_rustls::TlsAcceptor>,
        reply: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (reply, noted) = (Arc::new(reply), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            for connection in 1.. {
                let (tcp, _) = listener.accept().await.unwrap();
                let (reply, noted, tls) = (Arc::clone(&reply), Arc::clone(&noted), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(tcp, connection, &*reply, &noted).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                serve(stream, connection, &*reply, &noted).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, asked, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    reply: &(dyn Fn(&Asked) -> Vec<u8> + Send + Sync),
    noted: &Mutex<Vec<Asked>>,
) {
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if !more(&mut stream, &mut read).await {
                return;
            }
        };
        let text = String::from_utf8(read.drain(..head).collect()).unwrap();
        let mut lines = text.lines();
        let line = lines.next().unwrap().to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut asked = Asked { line, headers, connection, ..Asked::default() };
        let length = asked.header("content-length").map_or(0, |text| text.parse().unwrap());
        while read.len() < length {
            if !more(&mut stream, &mut read).await {
                return;
            }
        }
        asked.body = read.drain(..length).collect();
        let answer = reply(&asked);
        noted.lock().unwrap().push(asked);
        if answer.is_empty() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn more(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(read).await, Ok(1..))
}

/// A key and its certificate, which is signed by itself: for `localhost` and 127.0.0.1.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let algorithm = der(0x30, &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
        let common = [vec![0x06, 3, 0x55, 4, 3], der(0x0c, b"fairway test")].concat();
        let name = der(0x30, &der(0x31, &der(0x30, &common)));
        let valid = der(0x30, &[der(0x17, b"200101000000Z"), der(0x17, b"491231235959Z")].concat());
        let curve = [
            0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, // id-ecPublicKey
            0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, // prime256v1
        ];
        let public = der(3, &[&[0], pair.public_key().as_ref()].concat());
        let public = der(0x30, &[der(0x30, &curve), public].concat());
        let names = [der(0x82, b"localhost"), der(0x87, &[127, 0, 0, 1])].concat();
        let names = [vec![0x06, 3, 0x55, 0x1d, 0x11], der(4, &der(0x30, &names))].concat();
        let extensions = der(0xa3, &der(0x30, &der(0x30, &names)));
        let version = vec![0xa0, 3, 2, 1, 2, 2, 1, 1];
        let parts = [version, algorithm.clone(), name.clone(), valid, name, public, extensions];
        let signed = der(0x30, &parts.concat());
        let signature = pair.sign(&random, &signed).unwrap();
        let signature = der(3, &[&[0], signature.as_ref()].concat());
        let certificate = der(0x30, &[signed, algorithm, signature].concat());
        let key = PrivateKeyDer::Pkcs8(pkcs8.as_ref().to_vec().into());
        Self { certificate: certificate.into(), key }
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        Arc::new(config).into()
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let length = match length {
        0..=127 => vec![low],
        128..=255 => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [vec![tag], length, content.to_vec()].concat()
}
