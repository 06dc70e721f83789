//! A directory becomes a manifest and blobs, so that a later edit of the working tree changes nothing that runs.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairway_engine::id::TreeDigest;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use thiserror::Error;

use super::cache::{self, Cached};
use super::stamp::Stamp;
use super::{ENTRIES_MAX, InvalidManifest, InvalidPath, Kind, Manifest, TreePath, Trees};
use crate::blobs::{Batch, BlobError};
use crate::digest::Digest;

/// The file in which a project says what is not part of a release, in the syntax of `.gitignore`.
pub const IGNORE_FILE: &str = ".fairwayignore";

/// Never part of a release: history, and our own state.
const ALWAYS_EXCLUDED: [&str; 2] = [".git", ".fairway"];

/// A release is artifacts, not data. More than this is a database or a disk image in the wrong directory, and would
/// fill the disk of the server.
pub const CAPTURE_BYTES_MAX: u64 = 64 << 30;

/// A file that was written to while it was read is read again; a build that still runs after three is not finished.
const READ_ATTEMPTS_MAX: usize = 3;

/// The coarsest clock of a filesystem that a working tree may lie on (FAT: 2 s).
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// What to leave out, beside `.git`, `.fairway` and the patterns of `.fairwayignore` at the top of the directory.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    /// In the syntax of `.gitignore`, relative to the captured directory. They come after those of the file.
    pub patterns: Vec<String>,
}

/// A captured directory.
#[derive(Clone, Debug)]
pub struct Captured {
    pub digest: TreeDigest,
    pub manifest: Manifest,
    pub files: u64,
    pub bytes: u64,
    /// Files whose bytes were read; the others were known from an earlier capture.
    pub files_read: u64,
    /// Symlinks that lead out of the tree. What they point at is not part of the release and may change under it.
    pub leading_out: Vec<TreePath>,
}

#[derive(Debug, Error)]
pub enum CaptureError {
    #[error("{} is not a directory", dir.display())]
    NotADirectory { dir: PathBuf },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is a {kind}; only files, directories and symlinks can be part of a release\nhint: remove it, or name it \
         in {IGNORE_FILE}", path.display()
    )]
    Special { path: PathBuf, kind: &'static str },
    #[error("the name {} is not UTF-8\nhint: rename it, or exclude what it lies in in {IGNORE_FILE}", path.display())]
    NotUtf8 { path: PathBuf },
    #[error(transparent)]
    Path(#[from] InvalidPath),
    #[error(
        "{} was changed each of the {READ_ATTEMPTS_MAX} times it was read\nhint: wait for the build to end, or name \
         it in {IGNORE_FILE}", path.display()
    )]
    Changing { path: PathBuf },
    #[error("more than {ENTRIES_MAX} entries\nhint: name what is not part of a release in {IGNORE_FILE}")]
    TooManyEntries,
    #[error(
        "more than {CAPTURE_BYTES_MAX} bytes, reached at {}\nhint: name what is not part of a release in \
         {IGNORE_FILE}", path.display()
    )]
    TooLarge { path: PathBuf },
    #[error("{place}: {detail}")]
    Pattern { place: String, detail: String },
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl Trees {
    /// Captures `dir`. Its blobs and its manifest are durable when this returns.
    ///
    /// A file that changes while it is read is read again; files that change between the reading of one and of
    /// another are not noticed, so capture after the build, not during it.
    ///
    /// # Errors
    /// See [`CaptureError`]. Nothing is kept of a capture that failed.
    pub fn capture(&self, dir: &Path, exclude: &Exclude) -> Result<Captured, CaptureError> {
        self.capture_at(dir, exclude, SystemTime::now(), &|_| {})
    }

    /// `after_read` is called between the reading of a file and the second look at it, where a test changes it.
    pub(super) fn capture_at(
        &self,
        dir: &Path,
        exclude: &Exclude,
        now: SystemTime,
        after_read: &dyn Fn(&Path),
    ) -> Result<Captured, CaptureError> {
        let dir =
            fs::canonicalize(dir).map_err(|source| CaptureError::Read { path: dir.to_owned(), source })?;
        if !dir.is_dir() {
            return Err(CaptureError::NotADirectory { dir });
        }
        let cache_path = self
            .cache_dir()
            .join(format!("capture-{}", &Digest::of(dir.as_os_str().as_encoded_bytes()).to_hex()[..32]));
        let trusted = now.checked_sub(CLOCK_TICK).and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
        let state = fs::metadata(&self.state_dir).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        let mut walk = Walk {
            known: cache::load(&cache_path).unwrap_or_default(),
            trusted_before_ns: trusted.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
            ignore: patterns(&dir, exclude)?,
            batch: self.blobs.batch()?,
            state,
            after_read,
            root: dir,
            entries: BTreeMap::new(),
            learned: Cached::new(),
            leading_out: Vec::new(),
            files: 0,
            bytes: 0,
            files_read: 0,
        };
        walk.run()?;
        let Walk { known, mut batch, entries, learned, leading_out, files, bytes, files_read, .. } = walk;
        let manifest = Manifest::new(entries)?;
        let stored = batch.put_reader(&mut io::Cursor::new(manifest.encode()), &self.state_dir)?;
        batch.commit()?;
        if learned != known {
            // Without it the next capture is slower, no more.
            let _ = cache::save(&cache_path, &learned);
        }
        Ok(Captured { digest: stored.digest.into(), manifest, files, bytes, files_read, leading_out })
    }
}

fn patterns(dir: &Path, exclude: &Exclude) -> Result<Gitignore, CaptureError> {
    let file = dir.join(IGNORE_FILE);
    let fail = |place: &str, error: ignore::Error| CaptureError::Pattern {
        place: place.to_owned(),
        detail: error.to_string(),
    };
    let mut builder = GitignoreBuilder::new(dir);
    if file.is_file()
        && let Some(error) = builder.add(&file)
    {
        return Err(fail(IGNORE_FILE, error));
    }
    for pattern in &exclude.patterns {
        builder
            .add_line(None, pattern)
            .map_err(|error| fail(&format!("exclude pattern {pattern:?}"), error))?;
    }
    builder.build().map_err(|error| fail(IGNORE_FILE, error))
}

struct Walk<'a> {
    root: PathBuf,
    ignore: Gitignore,
    /// Device and inode of the state directory, which must not capture itself when it lies in the project.
    state: Option<(u64, u64)>,
    batch: Batch<'a>,
    after_read: &'a dyn Fn(&Path),
    known: Cached,
    learned: Cached,
    trusted_before_ns: i64,
    entries: BTreeMap<TreePath, Kind>,
    leading_out: Vec<TreePath>,
    files: u64,
    bytes: u64,
    files_read: u64,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), CaptureError> {
        let mut directories = vec![None::<TreePath>];
        while let Some(directory) = directories.pop() {
            let full = match &directory {
                Some(path) => self.root.join(path.as_str()),
                None => self.root.clone(),
            };
            let fail = |source| CaptureError::Read { path: full.clone(), source };
            for entry in fs::read_dir(&full).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                let path = entry.path();
                let name = entry.file_name();
                let Some(name) = name.to_str() else { return Err(CaptureError::NotUtf8 { path }) };
                if ALWAYS_EXCLUDED.contains(&name) {
                    continue;
                }
                let metadata = match fs::symlink_metadata(&path) {
                    Ok(metadata) => metadata,
                    // Gone since the directory was read, as if it had never been there.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => return Err(CaptureError::Read { path, source }),
                };
                if self.ignore.matched(&path, metadata.is_dir()).is_ignore()
                    || self.state == Some((metadata.dev(), metadata.ino()))
                {
                    continue;
                }
                let inside = match &directory {
                    Some(directory) => TreePath::new(&format!("{directory}/{name}"))?,
                    None => TreePath::new(name)?,
                };
                if metadata.is_dir() {
                    directories.push(Some(inside.clone()));
                }
                let Some(kind) = self.kind(&inside, &path, &metadata)? else { continue };
                self.entries.insert(inside, kind);
                if self.entries.len() > ENTRIES_MAX {
                    return Err(CaptureError::TooManyEntries);
                }
            }
        }
        Ok(())
    }

    fn kind(
        &mut self,
        inside: &TreePath,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<Option<Kind>, CaptureError> {
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Ok(Some(Kind::Directory));
        }
        if kind.is_symlink() {
            let target =
                fs::read_link(path).map_err(|source| CaptureError::Read { path: path.to_owned(), source })?;
            let Some(text) = target.to_str() else {
                return Err(CaptureError::NotUtf8 { path: path.to_owned() });
            };
            if leads_out(inside, &target) {
                self.leading_out.push(inside.clone());
            }
            return Ok(Some(Kind::Symlink { target: text.to_owned() }));
        }
        if kind.is_file() {
            return self.file(inside, path, metadata);
        }
        let kind = if kind.is_fifo() {
            "named pipe"
        } else if kind.is_socket() {
            "socket"
        } else {
            "device"
        };
        Err(CaptureError::Special { path: path.to_owned(), kind })
    }

    fn file(
        &mut self,
        inside: &TreePath,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<Option<Kind>, CaptureError> {
        self.files += 1;
        self.bytes += metadata.len();
        if self.bytes > CAPTURE_BYTES_MAX {
            return Err(CaptureError::TooLarge { path: path.to_owned() });
        }
        let stamp = Stamp::of(metadata);
        if let Some((known, digest)) = self.known.get(inside)
            && *known == stamp
            && self.batch.keep(*digest, stamp.bytes())
        {
            let digest = *digest;
            self.learned.insert(inside.clone(), (stamp, digest));
            return Ok(Some(Kind::File {
                digest,
                bytes: stamp.bytes(),
                executable: is_executable(metadata),
            }));
        }
        for _ in 0..READ_ATTEMPTS_MAX {
            let fail = |source| CaptureError::Read { path: path.to_owned(), source };
            let mut file = match open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.files -= 1;
                    self.bytes -= metadata.len();
                    return Ok(None);
                }
                Err(source) => return Err(fail(source)),
            };
            let before = file.metadata().map_err(fail)?;
            if !before.is_file() {
                continue;
            }
            // One byte more than it should have: enough to notice growth, never an endless log file.
            let mut bounded = io::Read::take(&mut file, before.len() + 1);
            let stored = self.batch.put_reader(&mut bounded, path)?;
            (self.after_read)(path);
            let after = file.metadata().map_err(fail)?;
            let stamp = Stamp::of(&after);
            if stamp != Stamp::of(&before) || stored.bytes != after.len() {
                continue;
            }
            self.files_read += 1;
            self.bytes = self.bytes - metadata.len() + stored.bytes;
            if stamp.is_older_than(self.trusted_before_ns) {
                self.learned.insert(inside.clone(), (stamp, stored.digest));
            }
            let executable = is_executable(&after);
            return Ok(Some(Kind::File { digest: stored.digest, bytes: stored.bytes, executable }));
        }
        Err(CaptureError::Changing { path: path.to_owned() })
    }
}

/// Never through a symlink, and without waiting should a named pipe have taken the file's place.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// The owner's bit alone, as git does.
fn is_executable(metadata: &Metadata) -> bool {
    metadata.mode() & 0o100 != 0
}

fn leads_out(inside: &TreePath, target: &Path) -> bool {
    let mut depth = inside.as_str().matches('/').count() as i64;
    for part in target.components() {
        match part {
            Component::RootDir | Component::Prefix(_) => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
        }
        if depth < 0 {
            return true;
        }
    }
    false
}
