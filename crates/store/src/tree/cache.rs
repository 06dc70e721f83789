//! What an earlier capture of the same directory read, so that the next one reads only what changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TreePath;
use super::stamp::Stamp;
use crate::digest::Digest;
use crate::durable;

/// `ENTRIES_MAX` entries of ordinary length.
const CACHE_BYTES_MAX: u64 = 256 << 20;

pub(super) type Cached = BTreeMap<TreePath, (Stamp, Digest)>;

/// Reads a file that [`save`] wrote. Anything else there reads as nothing: a cache only ever costs time.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    if fs::metadata(path).ok()?.len() > CACHE_BYTES_MAX {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (check, body) = bytes.split_at_checked(65)?;
    let expected = format!("{}\n", Digest::of(body));
    if check != expected.as_bytes() {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// Writes `value` behind its checksum.
pub(super) fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let body = serde_json::to_vec(value)?;
    let mut bytes = format!("{}\n", Digest::of(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    durable::replace_file(path, &bytes, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_cache_reads_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        assert_eq!(load::<Vec<u32>>(&path), None);
        save(&path, &vec![1, 2, 3]).unwrap();
        assert_eq!(load(&path), Some(vec![1, 2, 3]));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 2;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(load::<Vec<u32>>(&path), None, "flipped at {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(load::<Vec<u32>>(&path), None, "cut at {at}");
        }
    }
}
