//! What certificates an environment wants, and where they come from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fairway_engine::id::EnvironmentKey;
use fairway_engine::service::EnvValue;

/// Let's Encrypt, whose certificates every browser believes.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The same with generous limits and certificates that nobody believes: to try a set-up.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// One certificate: a set of names that share it. A name that fails keeps the others of its set waiting, so a set of
/// one name each is the rule, and larger sets are for those who ask for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `project/environment`, for status and events.
    pub environment: String,
    /// Host names, in lower case.
    pub names: BTreeSet<String>,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Acme(Acme),
    /// The user's own, looked at again and again: whoever renews them only replaces the files.
    Files {
        chain: PathBuf,
        key: PathBuf,
    },
    /// For development: encrypted, and believed by nobody.
    SelfSigned,
}

/// Where and how certificates are ordered (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The authority's directory.
    pub directory: String,
    /// A mail address for the account.
    pub contact: Option<String>,
    /// In the order of preference; each further attempt starts with the next.
    pub challenges: Vec<ChallengeKind>,
    /// A PEM file with the certificates that are believed when the authority is asked, instead of the machine's: for
    /// an authority of one's own.
    pub roots: Option<PathBuf>,
    /// Whether the names are asked by ourselves first. Off for machines that cannot reach their own public address.
    pub preflight: bool,
    /// For authorities that want an account to be known beforehand.
    pub account: Option<ExternalAccount>,
}

/// What ties our account to one that the authority knows (RFC 8555, section 7.3.4). The key is looked up when an account
/// is opened, which is once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Whose secret it is.
    pub environment: EnvironmentKey,
    pub key_id: String,
    /// In base64, with either alphabet and with or without padding, as authorities hand it out.
    pub hmac: EnvValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum ChallengeKind {
    /// A page on port 80.
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            directory: LETS_ENCRYPT.to_owned(),
            contact: None,
            challenges: vec![ChallengeKind::Http01, ChallengeKind::TlsAlpn01],
            roots: None,
            preflight: true,
            account: None,
        }
    }
}

impl Source {
    /// In a few words, for people: the authority's host, or the file.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Acme(acme) => host_of(&acme.directory).to_owned(),
            Self::Files { chain, .. } => chain.display().to_string(),
            Self::SelfSigned => "self-signed".to_owned(),
        }
    }
}

/// With the port; the whole text where it is no URL.
pub(super) fn host_of(url: &str) -> &str {
    url.split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or(url)
}

impl ChallengeKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

impl std::fmt::Display for ChallengeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Wanted {
    #[must_use]
    pub fn new<N: AsRef<str>>(
        environment: impl Into<String>,
        names: impl IntoIterator<Item = N>,
        source: Source,
    ) -> Self {
        let names =
            names.into_iter().map(|name| name.as_ref().trim_end_matches('.').to_ascii_lowercase()).collect();
        Self { environment: environment.into(), names, source }
    }

    /// Names the set's directory. Two environments that want the same names from the same place share a certificate;
    /// another authority (staging, production) or other files make another one.
    #[must_use]
    pub(super) fn slug(&self) -> Slug {
        let mut hasher = blake3::Hasher::new();
        for name in &self.names {
            hasher.update(name.as_bytes()).update(b"\0");
        }
        match &self.source {
            Source::Acme(acme) => hasher.update(b"acme\0").update(acme.directory.as_bytes()),
            Source::Files { chain, key } => {
                hasher.update(b"files\0").update(bytes(chain)).update(b"\0").update(bytes(key))
            }
            Source::SelfSigned => hasher.update(b"self-signed\0"),
        };
        let first = self.names.first().map_or("none", String::as_str);
        Slug(format!("{}-{}", readable(first), short(&hasher.finalize())))
    }
}

/// A directory's name: readable, and one for each set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slug(String);

impl Slug {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The part that people recognise; what makes it unique comes after.
pub(super) fn readable(text: &str) -> String {
    /// With the digest behind it far below the 255 bytes that a file's name may have.
    const CHARS_MAX: usize = 64;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    // No name may begin with a dot: it would be hidden, or another directory.
    text.trim_start_matches('.').chars().map(plain).take(CHARS_MAX).collect()
}

/// 64 bits are plenty for the few sets of one machine.
pub(super) fn short(hash: &blake3::Hash) -> String {
    hash.to_hex().chars().take(16).collect()
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_its_place_whatever_the_order_and_the_environment() {
        let one = Wanted::new("shop/dev", ["B.example", "a.example."], Source::SelfSigned);
        let two = Wanted::new("shop/prod", ["a.example", "b.example"], Source::SelfSigned);
        assert_eq!(one.slug(), two.slug());
        assert!(one.slug().as_str().starts_with("a.example-"));
    }

    #[test]
    fn another_authority_is_another_certificate() {
        let with = |directory: &str| {
            let acme = Acme { directory: directory.to_owned(), ..Acme::default() };
            Wanted::new("shop/dev", ["a.example"], Source::Acme(acme)).slug()
        };
        assert_ne!(with(LETS_ENCRYPT), with(LETS_ENCRYPT_STAGING));
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in ["../../etc", "..", "a/b", "*.example", ""] {
            let slug = Wanted::new("e", [name], Source::SelfSigned).slug();
            assert!(!slug.as_str().starts_with('.') && !slug.as_str().contains('/'), "{slug:?}");
        }
    }
}
