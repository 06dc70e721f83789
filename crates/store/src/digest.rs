//! The name of some bytes: their BLAKE3.

use std::fmt;
use std::str::FromStr;

use fairway_engine::id::TreeDigest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// BLAKE3, 32 bytes; written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// Text that is not a digest. Checked before it ever becomes part of a path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a digest: 64 lower-case hex digits are expected")]
pub struct InvalidDigest {
    pub text: String,
}

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    #[must_use]
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let parsed = if lower { blake3::Hash::from_hex(text).ok() } else { None };
        parsed
            .map(|hash| Self(*hash.as_bytes()))
            .ok_or_else(|| InvalidDigest { text: text.chars().take(80).collect() })
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_hex()
    }
}

impl From<Digest> for TreeDigest {
    fn from(digest: Digest) -> TreeDigest {
        TreeDigest(digest.to_hex().into())
    }
}

impl TryFrom<&TreeDigest> for Digest {
    type Error = InvalidDigest;

    fn try_from(tree: &TreeDigest) -> Result<Self, InvalidDigest> {
        tree.0.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_prints() {
        let digest = Digest::of(b"shop");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::try_from(&TreeDigest::from(digest)), Ok(digest));
    }

    #[test]
    fn text_that_could_leave_the_directory_is_no_digest() {
        let upper = Digest::of(b"shop").to_hex().to_uppercase();
        for bad in ["", "ab", "../../etc/passwd", &upper, &"g".repeat(64), &"a".repeat(65)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was accepted");
        }
    }
}
