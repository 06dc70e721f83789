//! Pebble as a process, on free ports of loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::super::{Acme, ChallengeKind, Source, self_signed};
use super::dns;
use super::site::Site;
use crate::outgoing::{Outgoing, Request, Roots};

/// What the account that it knows is known by, where it wants one.
pub(super) const KEY_ID: &str = "kid-1";
pub(super) const HMAC: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

pub(super) struct Setup {
    pub(super) http_port: u16,
    pub(super) tls_port: u16,
    /// Of a hundred.
    pub(super) nonces_refused: u8,
    /// Whether accounts have to be known beforehand.
    pub(super) external_account: bool,
}

impl Setup {
    pub(super) fn of(site: &Site) -> Self {
        let (http_port, tls_port) = (site.http_port, site.tls_port);
        Self { http_port, tls_port, nonces_refused: 0, external_account: false }
    }
}

pub(super) struct Pebble {
    process: Child,
    port: u16,
    management: u16,
    dir: TempDir,
    _name_server: JoinSet<()>,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Pebble {
    /// Nothing, with a note, where pebble is not installed.
    pub(super) async fn start(site: &Site) -> Option<Self> {
        Self::start_as(Setup::of(site)).await
    }

    /// Throws away so many of a hundred nonces.
    pub(super) async fn start_with(http_port: u16, tls_port: u16, nonces_refused: u8) -> Option<Self> {
        Self::start_as(Setup { http_port, tls_port, nonces_refused, external_account: false }).await
    }

    pub(super) async fn start_as(setup: Setup) -> Option<Self> {
        let Some(program) = std::env::var_os("FAIRWAY_PEBBLE") else {
            eprintln!("not run: no FAIRWAY_PEBBLE (cargo xtask test has it)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned).into_iter().collect();
        let now = super::now_ahead(&Default::default());
        let identity = self_signed::make(&names, now).unwrap();
        std::fs::write(dir.path().join("chain.pem"), &identity.chain_pem).unwrap();
        std::fs::write(dir.path().join("key.pem"), &identity.key_pem).unwrap();
        let (name_server, serving) = dns::start().await;
        // Between our closing of a port and its opening somebody else may take it.
        for _ in 0..5 {
            let (port, management) = (free_port(), free_port());
            let config = serde_json::json!({ "pebble": {
                "listenAddress": format!("127.0.0.1:{port}"),
                "managementListenAddress": format!("127.0.0.1:{management}"),
                "certificate": dir.path().join("chain.pem"),
                "privateKey": dir.path().join("key.pem"),
                "httpPort": setup.http_port,
                "tlsPort": setup.tls_port,
                "ocspResponderURL": "",
                "externalAccountBindingRequired": setup.external_account,
                "externalAccountMACKeys": { KEY_ID: HMAC },
                "retryAfter": { "authz": 1, "order": 1 },
                "profiles": { "default": { "description": "for tests", "validityPeriod": 7_776_000 } },
            }});
            let config_file = dir.path().join("pebble.json");
            std::fs::write(&config_file, config.to_string()).unwrap();
            let log = std::fs::File::create(dir.path().join("log")).unwrap();
            let mut process = Command::new(&program)
                .arg("-config")
                .arg(&config_file)
                .args(["-dnsserver", &name_server.to_string()])
                .env("PEBBLE_VA_NOSLEEP", "1")
                // Each order is to be checked, not only the first of a name.
                .env("PEBBLE_AUTHZREUSE", "0")
                .env("PEBBLE_WFE_NONCEREJECT", setup.nonces_refused.to_string())
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .expect("FAIRWAY_PEBBLE is a program");
            let started = Instant::now();
            loop {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(Self { process, port, management, dir, _name_server: serving });
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                assert!(started.elapsed() < Duration::from_secs(30), "pebble does not start");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("pebble ends: {}", std::fs::read_to_string(dir.path().join("log")).unwrap());
    }

    pub(super) fn origin(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(super) fn roots(&self) -> PathBuf {
        self.dir.path().join("chain.pem")
    }

    pub(super) fn acme(&self, challenges: &[ChallengeKind]) -> Source {
        Source::Acme(Acme {
            directory: format!("{}/dir", self.origin()),
            contact: Some("on-call@example.test".to_owned()),
            challenges: challenges.to_vec(),
            roots: Some(self.roots()),
            preflight: true,
            account: None,
        })
    }

    /// Says from now on when it wants that certificate to be renewed.
    pub(super) async fn set_window(&self, chain: &Path, start: &str, end: &str) {
        let pem = std::fs::read_to_string(chain).unwrap();
        let leaf = pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        let told = serde_json::json!({ "suggestedWindow": { "start": start, "end": end } }).to_string();
        let body = serde_json::json!({ "certificate": leaf, "ariResponse": told }).to_string();
        let roots = CertificateDer::from_pem_slice(&std::fs::read(self.roots()).unwrap()).unwrap();
        let asked = Request {
            method: hyper::Method::POST,
            body: body.into(),
            ..Request::get(format!("https://localhost:{}/set-renewal-info/", self.management))
        };
        let answer = Outgoing::new(Roots::These(vec![roots])).send(asked).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.excerpt());
    }

    /// How often it was asked for something.
    pub(super) fn asked(&self, what: &str) -> usize {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
        log.lines().filter(|line| line.contains(what)).count()
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
