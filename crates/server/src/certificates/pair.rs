//! A certificate chain and its private key.

use std::collections::BTreeSet;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::leaf::Leaf;

/// Chains have two to four certificates; each is a few kilobytes.
pub(super) const PEM_BYTES_MAX: usize = 256 << 10;

#[derive(Clone)]
pub(super) struct Pair {
    pub(super) chain_pem: Vec<u8>,
    pub(super) key_pem: Vec<u8>,
    pub(super) leaf: Leaf,
    pub(super) digest: String,
}

/// The key is a secret.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pair({})", self.digest)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    #[error("the chain has no certificate in PEM form")]
    NoCertificate,
    #[error("the chain is no valid PEM: {why}")]
    BadChain { why: String },
    #[error("there is no private key in PEM form")]
    NoKey,
    #[error("the key is no valid PEM: {why}")]
    BadKey { why: String },
    #[error("the key cannot be used: {why}")]
    UnusableKey { why: String },
    #[error("the first certificate of the chain cannot be read: {why}")]
    BadCertificate { why: String },
    #[error("the key does not belong to the first certificate of the chain")]
    KeyMismatch,
    #[error("the certificate is not for {name}, but for {}", listed(covers))]
    NotCovered { name: String, covers: Vec<String> },
}

fn listed(names: &[String]) -> String {
    /// A certificate of a large hoster has a hundred.
    const MAX: usize = 8;
    match names {
        [] => "no name at all".to_owned(),
        few if few.len() <= MAX => few.join(", "),
        many => format!("{} and {} others", many[..MAX].join(", "), many.len() - MAX),
    }
}

impl Pair {
    /// Checks that both can be read, belong together and are for all `names`. Not the time: a certificate that has
    /// ended is still better than none, and that it has ended is said by whoever knows the time.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn read(
        chain_pem: Vec<u8>,
        key_pem: Vec<u8>,
        names: &BTreeSet<String>,
    ) -> Result<Self, PairError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain_pem).collect();
        let chain = chain.map_err(|error| PairError::BadChain { why: error.to_string() })?;
        let first = chain.first().ok_or(PairError::NoCertificate)?;
        let leaf = Leaf::read(first.as_ref())
            .map_err(|error| PairError::BadCertificate { why: error.to_string() })?;
        let parsed = ParsedCertificate::try_from(first)
            .map_err(|error| PairError::BadCertificate { why: error.to_string() })?;
        let key = match PrivateKeyDer::from_pem_slice(&key_pem) {
            Ok(key) => key,
            Err(rustls::pki_types::pem::Error::NoItemsFound) => return Err(PairError::NoKey),
            Err(error) => return Err(PairError::BadKey { why: error.to_string() }),
        };
        let uncovered = names.iter().find(|name| {
            let server = ServerName::try_from(name.as_str());
            !server.is_ok_and(|server| verify_server_name(&parsed, &server).is_ok())
        });
        if let Some(name) = uncovered {
            return Err(PairError::NotCovered { name: name.clone(), covers: leaf.names });
        }
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                return PairError::KeyMismatch;
            }
            PairError::UnusableKey { why: error.to_string() }
        })?;
        let mut hasher = blake3::Hasher::new();
        // With the length, so that no byte can move from the one to the other unseen.
        hasher.update(&chain_pem.len().to_le_bytes()).update(&chain_pem).update(&key_pem);
        let digest = hasher.finalize().to_hex().to_string();
        Ok(Self { chain_pem, key_pem, leaf, digest })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn made(names: &[&str], key: &KeyPair) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).unwrap().self_signed(key).unwrap().pem().into_bytes()
    }

    fn wanted(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_belongs_together_is_taken_whatever_the_kind_of_key() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let chain = made(&["*.shop.example", "127.0.0.1"], &key);
            let names = wanted(&["www.shop.example", "127.0.0.1"]);
            Pair::read(chain, key.serialize_pem().into_bytes(), &names).unwrap();
        }
    }

    #[test]
    fn each_fault_has_its_own_words() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (pem, names) = (|key: &KeyPair| key.serialize_pem().into_bytes(), wanted(&["a.example"]));
        let chain = made(&["a.example"], &key);
        let fault = |chain: &[u8], key: &[u8]| Pair::read(chain.to_vec(), key.to_vec(), &names).unwrap_err();
        assert_eq!(fault(&chain, &pem(&other)), PairError::KeyMismatch);
        assert_eq!(fault(b"", &pem(&key)), PairError::NoCertificate);
        assert_eq!(fault(&chain, b"\xff\x00"), PairError::NoKey);
        // Exchanged, as it happens.
        assert_eq!(fault(&pem(&key), &chain), PairError::NoCertificate);
        assert!(matches!(fault(b"-----BEGIN CERTIFICATE-----\n!", &pem(&key)), PairError::BadChain { .. }));
        let covers = vec!["b.example".to_owned()];
        let elsewhere = fault(&made(&["b.example"], &key), &pem(&key));
        assert_eq!(elsewhere, PairError::NotCovered { name: "a.example".to_owned(), covers });
        assert_eq!(elsewhere.to_string(), "the certificate is not for a.example, but for b.example");
        let no_names = fault(&made(&[], &key), &pem(&key));
        assert_eq!(no_names.to_string(), "the certificate is not for a.example, but for no name at all");
    }

    #[test]
    fn another_key_to_the_same_names_is_another_digest() {
        let read = |key: &KeyPair| {
            let chain = made(&["a.example"], key);
            Pair::read(chain, key.serialize_pem().into_bytes(), &wanted(&["a.example"])).unwrap().digest
        };
        assert_ne!(read(&KeyPair::generate().unwrap()), read(&KeyPair::generate().unwrap()));
    }
}
