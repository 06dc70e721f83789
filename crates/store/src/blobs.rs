//! Files by what is in them: `blobs/ab/abcd…`, named by their BLAKE3, never changed, verified when read.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use crate::digest::Digest;
use crate::durable;

/// One read of a file; large enough for BLAKE3 to run at full width, small enough for a stack of threads.
const CHUNK_BYTES: usize = 64 << 10;

/// Up to this many files are fsynced one by one; beyond, one `syncfs` of the filesystem is cheaper. (It also writes
/// what other programs left unwritten, so it is not worth it for a few.)
const FSYNCS_MAX: usize = 32;

#[derive(Debug, Error)]
pub enum BlobError {
    #[error("there is no blob {digest} in {}\nhint: it was removed by hand or the disk lost it; deploy again to bring it back", dir.display())]
    Missing { dir: PathBuf, digest: Digest },
    #[error("{} is damaged: its bytes are {found}\nhint: the disk is failing or somebody edited it; remove the file and deploy again", path.display())]
    Damaged { path: PathBuf, found: Digest },
    #[error("blob {digest} has more than {max_bytes} bytes")]
    TooLarge { digest: Digest, max_bytes: u64 },
    #[error("no room left for {}: {available_bytes} bytes available\nhint: `fairway gc` shows what can be removed", path.display())]
    DiskFull { path: PathBuf, available_bytes: u64 },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// A failure of the system at a path of ours.
pub(crate) fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> BlobError + 'a {
    move |source| {
        if durable::is_disk_full(&source) {
            let available_bytes = durable::available_bytes(path).unwrap_or(0);
            BlobError::DiskFull { path: path.to_owned(), available_bytes }
        } else {
            BlobError::Io { action, path: path.to_owned(), source }
        }
    }
}

/// A content-addressed store. Any number of writers, in any number of processes, may put at once.
#[derive(Clone, Debug)]
pub struct Blobs {
    root: PathBuf,
}

/// What `put` found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub bytes: u64,
    /// Whether these bytes were not there before.
    pub added: bool,
}

impl Blobs {
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        fs::create_dir_all(root).map_err(failed("create", root))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(failed("protect", root))?;
        Ok(Self { root: root.to_owned() })
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.root.join(&hex[..2]).join(&hex)
    }

    /// Stores `bytes`; durable when it returns.
    ///
    /// # Errors
    /// When the disk is full or refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<Stored, BlobError> {
        self.put_reader(&mut io::Cursor::new(bytes))
    }

    /// Stores what `reader` gives; durable when it returns.
    ///
    /// # Errors
    /// When the disk is full or refuses, or the reader fails.
    pub fn put_reader(&self, reader: &mut dyn Read) -> Result<Stored, BlobError> {
        let mut batch = self.batch()?;
        let stored = batch.put_reader(reader, &self.root)?;
        batch.commit()?;
        Ok(stored)
    }

    /// Many blobs that become durable together.
    pub(crate) fn batch(&self) -> Result<Batch<'_>, BlobError> {
        let lock = self.lock(false)?;
        Ok(Batch { blobs: self, pending: Vec::new(), seen: BTreeSet::new(), _lock: lock })
    }

    /// Shared by writers, exclusive for removal: between a writer's "it is there already" and its commit nothing
    /// may be removed.
    pub(crate) fn lock(&self, exclusive: bool) -> Result<File, BlobError> {
        let path = self.root.join(".lock");
        durable::lock(&path, exclusive).map_err(failed("lock", &path))
    }

    /// Whether the blob is there; its bytes are verified when they are read.
    #[must_use]
    pub fn contains(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Those of `digests` that are not there.
    #[must_use]
    pub fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        digests.iter().copied().filter(|digest| !self.contains(*digest)).collect()
    }

    /// The whole blob, verified.
    ///
    /// # Errors
    /// When it is missing, damaged, or larger than `max_bytes`.
    pub fn read(&self, digest: Digest, max_bytes: u64) -> Result<Vec<u8>, BlobError> {
        let (path, file) = self.open_file(digest)?;
        let mut bytes = Vec::new();
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        if bytes.len() as u64 > max_bytes {
            return Err(BlobError::TooLarge { digest, max_bytes });
        }
        let found = Digest::of(&bytes);
        if found == digest { Ok(bytes) } else { Err(BlobError::Damaged { path, found }) }
    }

    /// Copies the blob into `to` and verifies it on the way; returns its length. On an error `to` holds bytes that
    /// must not be used.
    ///
    /// # Errors
    /// When it is missing or damaged, or `to` refuses.
    pub fn copy_to(&self, digest: Digest, to: &mut dyn Write) -> Result<u64, BlobError> {
        let (path, mut file) = self.open_file(digest)?;
        let (found, bytes) = hash_through(&mut file, to, &path, &path)?;
        if found == digest { Ok(bytes) } else { Err(BlobError::Damaged { path, found }) }
    }

    pub(crate) fn open_file(&self, digest: Digest) -> Result<(PathBuf, File), BlobError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BlobError::Missing { dir: self.root.clone(), digest })
            }
            Err(error) => Err(failed("open", &path)(error)),
        }
    }
}

/// Copies and hashes at once.
pub(crate) fn hash_through(
    from: &mut dyn Read,
    to: &mut dyn Write,
    from_path: &Path,
    to_path: &Path,
) -> Result<(Digest, u64), BlobError> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok((Digest(*hasher.finalize().as_bytes()), bytes)),
            Ok(length) => {
                hasher.update(&chunk[..length]);
                to.write_all(&chunk[..length]).map_err(failed("write", to_path))?;
                bytes += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", from_path)(error)),
        }
    }
}

#[derive(Debug)]
struct Pending {
    temporary: PathBuf,
    /// Open for its fsync, as long as there are few; thousands would run into the limit of open files.
    file: Option<File>,
    digest: Digest,
}

/// Blobs that are written but have no name yet. Dropped without `commit`, nothing was stored.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    blobs: &'a Blobs,
    pending: Vec<Pending>,
    seen: BTreeSet<Digest>,
    _lock: File,
}

impl Batch<'_> {
    /// `from` is where the reader reads, for the words of an error.
    pub(crate) fn put_reader(&mut self, reader: &mut dyn Read, from: &Path) -> Result<Stored, BlobError> {
        let root = &self.blobs.root;
        let (temporary, mut file) =
            durable::create_temporary(root, "blob", 0o400).map_err(failed("create", root))?;
        let copied = hash_through(reader, &mut file, from, &temporary);
        let (digest, bytes) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                return Err(error);
            }
        };
        // The bytes are at hand, so a blob that rotted is healed here instead of being kept for its name.
        if self.is_whole(digest) && self.keep(digest, bytes) {
            let _ = fs::remove_file(&temporary);
            return Ok(Stored { digest, bytes, added: false });
        }
        self.seen.insert(digest);
        let file = (self.pending.len() < FSYNCS_MAX).then_some(file);
        self.pending.push(Pending { temporary, file, digest });
        Ok(Stored { digest, bytes, added: true })
    }

    fn is_whole(&self, digest: Digest) -> bool {
        self.seen.contains(&digest) || self.blobs.copy_to(digest, &mut io::sink()).is_ok()
    }

    /// Whether the blob is there already. If so its age starts again, so that a removal that was planned before does
    /// not take it from under a release that is about to name it.
    pub(crate) fn keep(&mut self, digest: Digest, bytes: u64) -> bool {
        if self.seen.contains(&digest) {
            return true;
        }
        let touched = File::open(self.blobs.path(digest)).and_then(|file| {
            if file.metadata()?.len() != bytes {
                return Err(io::ErrorKind::InvalidData.into());
            }
            file.set_modified(SystemTime::now())
        });
        if touched.is_ok() {
            self.seen.insert(digest);
        }
        touched.is_ok()
    }

    /// Makes all of them durable, then gives them their names.
    pub(crate) fn commit(mut self) -> Result<(), BlobError> {
        let root = &self.blobs.root;
        if self.pending.len() > FSYNCS_MAX {
            let dir = File::open(root).map_err(failed("open", root))?;
            rustix::fs::syncfs(&dir).map_err(|errno| failed("sync", root)(errno.into()))?;
        } else {
            for Pending { temporary, file, .. } in &self.pending {
                if let Some(file) = file {
                    file.sync_all().map_err(failed("sync", temporary))?;
                }
            }
        }
        let mut touched = BTreeSet::new();
        while let Some(Pending { temporary, digest, .. }) = self.pending.last() {
            let path = self.blobs.path(*digest);
            let dir = path.parent().unwrap_or(root).to_owned();
            if touched.insert(dir.clone()) {
                fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
            }
            fs::rename(temporary, &path).map_err(failed("rename", temporary))?;
            self.pending.pop();
        }
        for dir in &touched {
            durable::sync_directory(dir).map_err(failed("sync", dir))?;
        }
        if !touched.is_empty() {
            durable::sync_directory(root).map_err(failed("sync", root))?;
        }
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for Pending { temporary, .. } in &self.pending {
            let _ = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).unwrap();
        (dir, blobs)
    }

    fn files(root: &Path) -> usize {
        fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| if path.is_dir() { files(&path) } else { usize::from(!path.ends_with(".lock")) })
            .sum()
    }

    #[test]
    fn the_same_bytes_are_stored_once() {
        let (_dir, blobs) = blobs();
        let first = blobs.put(b"shop").unwrap();
        let again = blobs.put(b"shop").unwrap();
        assert!(first.added && !again.added && first.digest == again.digest);
        assert_eq!(files(blobs.root()), 1);
        assert_eq!(blobs.read(first.digest, 4).unwrap(), b"shop");
        assert!(matches!(blobs.read(first.digest, 3), Err(BlobError::TooLarge { .. })));
    }

    #[test]
    fn what_is_missing_is_listed() {
        let (_dir, blobs) = blobs();
        let stored = blobs.put(b"here").unwrap().digest;
        let absent = Digest::of(b"absent");
        assert_eq!(blobs.missing(&[stored, absent]), [absent]);
        assert!(matches!(blobs.read(absent, 10), Err(BlobError::Missing { .. })));
    }

    #[test]
    fn damaged_bytes_are_never_handed_out() {
        let (_dir, blobs) = blobs();
        let digest = blobs.put(&vec![7; 100_000]).unwrap().digest;
        let path = blobs.path(digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[99_999] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(blobs.read(digest, 1 << 20), Err(BlobError::Damaged { .. })));
        assert!(matches!(blobs.copy_to(digest, &mut io::sink()), Err(BlobError::Damaged { .. })));
    }

    #[test]
    fn storing_the_bytes_again_heals_a_damaged_blob() {
        let (_dir, blobs) = blobs();
        let digest = blobs.put(b"shop").unwrap().digest;
        for bad in [&b"shoq"[..], b"", b"shopshop"] {
            let path = blobs.path(digest);
            fs::remove_file(&path).unwrap();
            fs::write(&path, bad).unwrap();
            assert!(blobs.put(b"shop").unwrap().added);
            assert_eq!(blobs.read(digest, 4).unwrap(), b"shop");
        }
    }

    #[test]
    fn a_reader_that_fails_leaves_nothing_behind() {
        struct Failing(bool);
        impl Read for Failing {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("gone"));
                }
                buf[0] = 1;
                Ok(1)
            }
        }
        let (_dir, blobs) = blobs();
        assert!(blobs.put_reader(&mut Failing(false)).is_err());
        assert_eq!(files(blobs.root()), 0);
    }

    #[test]
    fn many_writers_of_the_same_and_of_other_bytes_agree() {
        let (_dir, blobs) = blobs();
        std::thread::scope(|scope| {
            for writer in 0..8u8 {
                let blobs = &blobs;
                scope.spawn(move || {
                    for number in 0..20u8 {
                        blobs.put(&[number; 5000]).unwrap();
                        blobs.put(&[writer, number]).unwrap();
                    }
                });
            }
        });
        assert_eq!(files(blobs.root()), 20 + 8 * 20);
        for number in 0..20u8 {
            assert_eq!(blobs.read(Digest::of(&[number; 5000]), 5000).unwrap(), [number; 5000]);
        }
    }

    #[test]
    fn a_batch_beyond_the_number_of_single_fsyncs_is_whole() {
        let (_dir, blobs) = blobs();
        let mut batch = blobs.batch().unwrap();
        for number in 0..100u8 {
            batch.put_reader(&mut io::Cursor::new([number]), Path::new("test")).unwrap();
        }
        assert!(!blobs.contains(Digest::of(&[5])), "a blob has its name before it is durable");
        batch.commit().unwrap();
        assert!((0..100u8).all(|number| blobs.contains(Digest::of(&[number]))));
        assert_eq!(files(blobs.root()), 100);
    }
}
