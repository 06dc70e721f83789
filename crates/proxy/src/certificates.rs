//! The certificates of a listener, ready to be shown.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::snapshot::{Certificate, CertificatePurpose, Tls};
use crate::tickets::Tickets;

/// By which an authority asks for its challenge (RFC 8737).
pub(crate) const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// RFC 9113, section 3.2.
pub(crate) const HTTP2_ALPN: &[u8] = b"h2";

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("{path}: {why}")]
    File { path: PathBuf, why: String },
    #[error("{path} has no certificate")]
    Empty { path: PathBuf },
    #[error("{key} is not the key of {chain}: {why}")]
    Mismatch { chain: PathBuf, key: PathBuf, why: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// What the connections of one listener need for their handshakes.
///
/// # Errors
/// The first certificate that cannot be used.
pub(crate) fn server_config(
    tls: &Tls,
    http1_only: bool,
    tickets: &Tickets,
) -> Result<ServerConfig, CertificateError> {
    let mut resolver = Resolver::default();
    for certificate in &tls.certificates {
        resolver.add(certificate, Arc::new(load(certificate)?));
    }
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Setup)?
        .with_no_client_auth();
    let is_challenged = !resolver.challenges.is_empty();
    let mut config = config.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if !http1_only {
        config.alpn_protocols.insert(0, HTTP2_ALPN.to_vec());
    }
    if is_challenged {
        config.alpn_protocols.push(ACME_TLS_ALPN.to_vec());
    }
    config.ticketer = tickets.producer();
    Ok(config)
}

/// # Errors
/// When it cannot be shown.
pub(crate) fn check(certificate: &Certificate) -> Result<(), CertificateError> {
    load(certificate).map(drop)
}

fn load(certificate: &Certificate) -> Result<CertifiedKey, CertificateError> {
    let file = |path: &Path, why: String| CertificateError::File { path: path.to_owned(), why };
    let read = |path: &Path| std::fs::read(path).map_err(|error| file(path, error.to_string()));
    let chain_pem = read(&certificate.chain)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| file(&certificate.chain, error.to_string()))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { path: certificate.chain.clone() });
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&certificate.key)?)
        .map_err(|error| file(&certificate.key, error.to_string()))?;
    let key =
        ring::sign::any_supported_type(&key).map_err(|error| file(&certificate.key, error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    // rustls cannot read the critical extension that makes it a proof (RFC 8737, 3).
    if certificate.purpose == CertificatePurpose::AcmeTlsAlpn {
        return Ok(certified);
    }
    certified.keys_match().map_err(|error| CertificateError::Mismatch {
        chain: certificate.chain.clone(),
        key: certificate.key.clone(),
        why: error.to_string(),
    })?;
    Ok(certified)
}

/// Which certificate a client is shown.
#[derive(Debug, Default)]
struct Resolver {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For names that no other covers.
    any: Option<Arc<CertifiedKey>>,
    /// For clients that name no host.
    first: Option<Arc<CertifiedKey>>,
    challenges: HashMap<String, Arc<CertifiedKey>>,
}

impl Resolver {
    fn add(&mut self, certificate: &Certificate, key: Arc<CertifiedKey>) {
        match certificate.purpose {
            CertificatePurpose::AcmeTlsAlpn => {
                for name in &certificate.names {
                    self.challenges.insert(name.clone(), Arc::clone(&key));
                }
                return;
            }
            CertificatePurpose::Serving => {}
        }
        if certificate.names.is_empty() {
            self.any.get_or_insert_with(|| Arc::clone(&key));
        }
        for name in &certificate.names {
            let (names, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            names.entry(name.to_owned()).or_insert_with(|| Arc::clone(&key));
        }
        self.first.get_or_insert(key);
    }

    fn serving(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = name else { return self.first.as_ref() };
        let name = name.to_ascii_lowercase();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.exact.get(&name).or_else(|| self.wildcard.get(parent?)).or(self.any.as_ref())
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks_for_challenge =
            hello.alpn().is_some_and(|mut offered| offered.any(|one| one == ACME_TLS_ALPN));
        let name = hello.server_name();
        let found = match asks_for_challenge {
            true => self.challenges.get(&name?.to_ascii_lowercase()),
            false => self.serving(name),
        };
        found.cloned()
    }
}
