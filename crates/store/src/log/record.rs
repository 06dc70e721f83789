//! One line of the log, and the hash that chains it to the one before.

use thiserror::Error;

use crate::digest::Digest;

/// The largest event is a release with the resolved configuration of all its services, tens of kilobytes. A hundred
/// times that is a bug of the caller; refusing it keeps the memory of every reader bounded.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Names of actors, kinds and environments are shown in one line of a terminal.
pub const NAME_BYTES_MAX: usize = 256;

/// Separates this use of BLAKE3 from every other; the number changes when the fields do.
const DOMAIN: &[u8] = b"fairway event record 1\0";

/// A fact that is about to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// `project/environment`; none for what concerns the whole server.
    pub environment: Option<String>,
    /// Who caused it: a user, a token, a trigger, `fairway` itself.
    pub actor: String,
    pub kind: String,
    /// JSON by convention; opaque here.
    pub payload: Vec<u8>,
}

/// A fact on the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub environment: Option<String>,
    pub actor: String,
    pub kind: String,
    pub payload: Vec<u8>,
    pub hash: Digest,
}

/// How far the log goes. `seq` 0 and a hash of zeros: nothing recorded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    pub hash: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRecord {
    #[error("its payload has {bytes} bytes, more than {PAYLOAD_BYTES_MAX}")]
    PayloadTooLarge { bytes: usize },
    #[error("its {field} has {bytes} bytes; 1 to {NAME_BYTES_MAX} are allowed")]
    NameLength { field: &'static str, bytes: usize },
    #[error("its {field} holds a NUL byte")]
    Nul { field: &'static str },
    #[error("its time of {at_ms} ms is out of range")]
    Time { at_ms: u64 },
}

impl NewRecord {
    pub(super) fn check(&self) -> Result<(), InvalidRecord> {
        let names = [
            ("environment", self.environment.as_deref().unwrap_or("-")),
            ("actor", self.actor.as_str()),
            ("kind", self.kind.as_str()),
        ];
        for (field, name) in names {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(InvalidRecord::NameLength { field, bytes: name.len() });
            }
            // SQLite keeps such text but its shell and its functions cut it off there: an auditor would read less
            // than what was hashed.
            if name.contains('\0') {
                return Err(InvalidRecord::Nul { field });
            }
        }
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(InvalidRecord::PayloadTooLarge { bytes: self.payload.len() });
        }
        if i64::try_from(self.at_ms).is_err() {
            return Err(InvalidRecord::Time { at_ms: self.at_ms });
        }
        Ok(())
    }
}

impl Head {
    pub const EMPTY: Head = Head { seq: 0, hash: Digest([0; 32]) };

    /// The head after `record`.
    #[must_use]
    pub fn followed_by(self, record: &NewRecord) -> Head {
        let NewRecord { at_ms, environment, actor, kind, payload } = record;
        self.chain(*at_ms, environment.as_deref(), actor, kind, payload)
    }

    /// Whether `record` is the one that was appended right after this head.
    #[must_use]
    pub fn is_followed_by(self, record: &Record) -> bool {
        let Record { seq, at_ms, environment, actor, kind, payload, hash } = record;
        self.chain(*at_ms, environment.as_deref(), actor, kind, payload) == Head { seq: *seq, hash: *hash }
    }

    /// BLAKE3(domain ‖ previous hash ‖ seq ‖ at_ms ‖ fields), integers as 8 bytes little-endian, each field with its
    /// length before it so that no two records share an encoding; an absent environment is one byte 0, a present one
    /// a byte 1 and the field.
    fn chain(self, at_ms: u64, environment: Option<&str>, actor: &str, kind: &str, payload: &[u8]) -> Head {
        let seq = self.seq + 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN).update(&self.hash.0).update(&seq.to_le_bytes()).update(&at_ms.to_le_bytes());
        let field = |hasher: &mut blake3::Hasher, bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        match environment {
            Some(environment) => {
                hasher.update(&[1]);
                field(&mut hasher, environment.as_bytes());
            }
            None => {
                hasher.update(&[0]);
            }
        }
        field(&mut hasher, actor.as_bytes());
        field(&mut hasher, kind.as_bytes());
        field(&mut hasher, payload);
        Head { seq, hash: Digest(*hasher.finalize().as_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NewRecord {
        NewRecord {
            at_ms: 7,
            environment: Some("shop/production".into()),
            actor: "ana".into(),
            kind: "RolloutStarted".into(),
            payload: b"{}".to_vec(),
        }
    }

    #[test]
    fn the_hash_of_a_record_never_changes_between_versions() {
        let first = Head::EMPTY.followed_by(&record());
        assert_eq!(first.hash.to_hex(), "932e6d47818a9df3e657efb05b3df5da81f8f2eb89d161df0f61706b316feb02");
    }

    #[test]
    fn every_field_and_every_boundary_between_fields_is_hashed() {
        let base = Head::EMPTY.followed_by(&record());
        let changed: [fn(&mut NewRecord); 7] = [
            |r| r.at_ms = 8,
            |r| r.environment = None,
            |r| r.environment = Some("shop/productio".into()),
            |r| r.actor = "an".into(),
            |r| (r.actor, r.kind) = ("anaR".into(), "olloutStarted".into()),
            |r| (r.kind, r.payload) = ("RolloutStarted{".into(), b"}".to_vec()),
            |r| r.payload.push(0),
        ];
        for change in changed {
            let mut other = record();
            change(&mut other);
            assert_ne!(Head::EMPTY.followed_by(&other), base, "{other:?}");
        }
        assert_ne!(base.followed_by(&record()).hash, base.hash);
    }

    #[test]
    fn records_beyond_the_bounds_are_refused() {
        let changed: [fn(&mut NewRecord); 6] = [
            |r| r.payload = vec![0; PAYLOAD_BYTES_MAX + 1],
            |r| r.actor = String::new(),
            |r| r.kind = "k".repeat(NAME_BYTES_MAX + 1),
            |r| r.environment = Some(String::new()),
            |r| r.actor = "a\0b".into(),
            |r| r.at_ms = u64::MAX,
        ];
        for change in changed {
            let mut bad = record();
            change(&mut bad);
            assert!(bad.check().is_err());
        }
        assert_eq!(record().check(), Ok(()));
    }
}
