//! TLS of a listener.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a listener needs to speak TLS 1.2 and 1.3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The first one whose names cover what the client asks for. Clients that name no host get the first of all.
    pub certificates: Vec<Certificate>,
}

/// A certificate, by the files that hold it: private keys are in no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Host names, in lower case; `*.example.com` covers one label. None: every host that no other covers.
    pub names: Vec<String>,
    /// PEM, the certificate itself first.
    pub chain: PathBuf,
    /// PEM, PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Of the bytes of both files: a renewed certificate is another snapshot.
    pub digest: String,
    #[serde(default)]
    pub purpose: CertificatePurpose,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificatePurpose {
    #[default]
    Serving,
    /// Shown to an authority that asks by `acme-tls/1` (RFC 8737), and to nobody else.
    AcmeTlsAlpn,
}
