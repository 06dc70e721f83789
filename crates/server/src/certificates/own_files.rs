//! Certificates that the user renews: files that are looked at again and again, and read when they have changed.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::cause::Cause;
use super::pair::{Pair, PairError};
use super::shelf;

/// What of a file changes with its content: any write changes the last time, whoever sets the other one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = path.metadata().ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified_ns: (meta.mtime(), meta.mtime_nsec()),
            changed_ns: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Both files as they were before they were read; none: there was nothing to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(Option<[Stamp; 2]>);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on its way to whoever asked")]
pub(super) enum Look {
    /// As it was the last time.
    Same,
    New {
        seen: Seen,
        pair: Result<Pair, Cause>,
    },
}

/// They may lie on a disk that does not answer, which must not stop anything else.
pub(super) async fn look(chain: PathBuf, key: PathBuf, names: BTreeSet<String>, before: Seen) -> Look {
    let look = tokio::task::spawn_blocking(move || {
        // Before they are read: what changes meanwhile is seen the next time.
        let seen = Seen(Stamp::of(&chain).zip(Stamp::of(&key)).map(|(chain, key)| [chain, key]));
        if seen.0.is_some() && seen == before {
            return Look::Same;
        }
        Look::New { seen, pair: read(chain, key, &names) }
    });
    let failed = |error: tokio::task::JoinError| Look::New {
        seen: Seen::default(),
        pair: Err(Cause::Crypto { why: error.to_string() }),
    };
    look.await.unwrap_or_else(failed)
}

fn read(chain: PathBuf, key: PathBuf, names: &BTreeSet<String>) -> Result<Pair, Cause> {
    let bytes = |path: &Path| shelf::read(path).map_err(|error| Cause::unreadable(path, &error));
    let (chain_pem, key_pem) = (bytes(&chain)?, bytes(&key)?);
    Pair::read(chain_pem, key_pem, names).map_err(|fault| {
        let path = match fault {
            PairError::NoKey | PairError::BadKey { .. } | PairError::UnusableKey { .. } => key,
            PairError::NoCertificate
            | PairError::BadChain { .. }
            | PairError::BadCertificate { .. }
            | PairError::KeyMismatch
            | PairError::NotCovered { .. } => chain,
        };
        Cause::Files { path, fault }
    })
}

#[cfg(test)]
mod tests {
    use fairway_engine::time::Timestamp;

    use super::*;

    #[tokio::test]
    async fn files_are_read_only_when_they_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let names: BTreeSet<String> = ["a.example".to_owned()].into();
        let write = || {
            let pair = super::super::self_signed::make(&names, Timestamp(0)).unwrap();
            std::fs::write(&chain, &pair.chain_pem).unwrap();
            std::fs::write(&key, &pair.key_pem).unwrap();
            pair.digest
        };
        let look = |before| look(chain.clone(), key.clone(), names.clone(), before);
        let Look::New { seen, pair: Err(_) } = look(Seen::default()).await else { panic!("there are none") };
        assert_eq!(seen, Seen::default());
        let first = write();
        let Look::New { seen, pair: Ok(pair) } = look(seen).await else { panic!("they came") };
        assert_eq!(pair.digest, first);
        assert!(matches!(look(seen).await, Look::Same));
        // The same size, the same inode, and a time of its owner's choosing.
        let modified = chain.metadata().unwrap().modified().unwrap();
        let bytes = std::fs::read(&chain).unwrap();
        std::fs::write(&chain, vec![b'x'; bytes.len()]).unwrap();
        std::fs::File::options().write(true).open(&chain).unwrap().set_modified(modified).unwrap();
        let Look::New { seen, pair: Err(_) } = look(seen).await else { panic!("it changed") };
        assert!(matches!(look(seen).await, Look::Same), "a broken one is not read again either");
        std::fs::remove_file(&key).unwrap();
        assert!(matches!(look(seen).await, Look::New { pair: Err(_), .. }));
    }
}
