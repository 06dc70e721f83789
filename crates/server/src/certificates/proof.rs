//! What answers a challenge by tls-alpn-01: a certificate that carries the digest of the key authorization (RFC 8737).

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use super::cause::Cause;
use super::offer::Certificate;
use super::shelf::Place;

/// What a client asks for that wants to see the proof.
pub(super) const PROTOCOL: &[u8] = b"acme-tls/1";

pub(super) fn make(place: &Place, name: &str, digest: &[u8]) -> Result<Certificate, Cause> {
    let fail = |error: rcgen::Error| Cause::Crypto { why: error.to_string() };
    let mut params = CertificateParams::new([name.to_owned()]).map_err(fail)?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(fail)?;
    let chain = params.self_signed(&key).map_err(fail)?.pem();
    place.store_challenge(name, &chain, &key.serialize_pem())
}
