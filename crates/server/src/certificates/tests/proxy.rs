//! With the proxy itself.

use fairway_proxy::control::Client;
use fairway_proxy::snapshot;
use fairway_proxy::{AccessLog, RunOptions};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;

/// The proxy in a thread of its own.
struct Running {
    http_port: u16,
    tls_port: u16,
    client: Client,
    generation: AtomicU64,
    _dir: TempDir,
}

impl Running {
    async fn start() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = RunOptions {
            workers: std::num::NonZeroUsize::new(1),
            access_log: AccessLog::Off,
            handle_signals: false,
            ..RunOptions::new(dir.path())
        };
        std::thread::spawn(move || fairway_proxy::run(options).map(drop));
        let socket = dir.path().join("proxy.sock");
        let started = Instant::now();
        let client = loop {
            match Client::connect(&socket).await {
                Ok(client) => break client,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(30), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let (http_port, tls_port) = (pebble::free_port(), pebble::free_port());
        Arc::new(Self { http_port, tls_port, client, generation: AtomicU64::new(0), _dir: dir })
    }

    async fn stop(&self) {
        drop(self.client.shutdown().await);
    }
}

impl Edge for Running {
    fn publish(&self, offer: Offer) -> Published<'_> {
        Box::pin(async move {
            let certificates = offer.certificates.into_iter().map(|one| snapshot::Certificate {
                names: one.names,
                chain: one.chain,
                key: one.key,
                digest: one.digest,
                purpose: match one.purpose {
                    Purpose::Serving => snapshot::CertificatePurpose::Serving,
                    Purpose::AcmeTlsAlpn => snapshot::CertificatePurpose::AcmeTlsAlpn,
                },
            });
            let tls = snapshot::Tls { certificates: certificates.collect() };
            let listener = |name: &str, port: u16, tls: Option<snapshot::Tls>| snapshot::Listener {
                tls,
                ..snapshot::Listener::new(name, ([127, 0, 0, 1], port).into(), snapshot::Purpose::Public)
            };
            let mut listeners = vec![listener("http", self.http_port, None)];
            if !tls.certificates.is_empty() {
                listeners.push(listener("https", self.tls_port, Some(tls)));
            }
            let snapshot = snapshot::Snapshot {
                generation: self.generation.fetch_add(1, Ordering::SeqCst) + 1,
                listeners,
                http_challenges: offer.http_challenges,
                ..snapshot::Snapshot::default()
            };
            self.client.apply(&snapshot).await.map(drop).map_err(|error| error.to_string())
        })
    }
}

async fn ordered_by(kind: ChallengeKind) {
    let mut world = World::new().await;
    let proxy = Running::start().await;
    let Some(pebble) = Pebble::start_with(proxy.http_port, proxy.tls_port, 0).await else { return };
    let options = Options {
        now: Arc::new(|| now_ahead(&AtomicU64::default())),
        jitter: 0,
        lookout: Lookout {
            resolver: world.resolver.clone(),
            http_port: proxy.http_port,
            tls_port: proxy.tls_port,
        },
        secret_of: secrets(),
    };
    let certificates = Certificates::open(world.state.path(), options, proxy.clone()).unwrap();
    certificates.want(wanted(&[HOST, WWW], pebble.acme(&[kind])));
    world.tasks.push(tokio::spawn(certificates.clone().run()));
    until_valid(&certificates, HOST).await;
    let [serving] = &certificates.offer().certificates[..] else { panic!("{:?}", certificates.offer()) };
    // Nobody trusts pebble: the connection is held against this very certificate.
    let leaf = CertificateDer::from_pem_file(&serving.chain).unwrap();
    assert_eq!(shown(proxy.tls_port).await, leaf);
    proxy.stop().await;
}

/// The certificate that a visitor is shown.
async fn shown(port: u16) -> CertificateDer<'static> {
    #[derive(Debug)]
    struct Anyone;

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }

    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(HOST).unwrap(), tcp).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn the_proxy_shows_a_certificate_that_was_ordered_by_http() {
    ordered_by(ChallengeKind::Http01).await;
}

#[tokio::test]
async fn the_proxy_shows_a_certificate_that_was_ordered_by_tls() {
    ordered_by(ChallengeKind::TlsAlpn01).await;
}
