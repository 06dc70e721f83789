//! Why the store could not do something.

use std::io;
use std::path::{Path, PathBuf};

use crate::select::SelectError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{} is in use by another process{}\nhint: only one may write to a metrics directory; `fuser {}` shows which",
        path.display(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), path.display()
    )]
    Locked { path: PathBuf, holder: Option<u32> },
    /// Nothing that was synced is lost, reading goes on, and writing too as soon as there is room.
    #[error("no room left to {action} {}: {source}\nhint: free some space; writing goes on by itself", path.display())]
    DiskFull { path: PathBuf, action: &'static str, source: io::Error },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// What is there is not what was written.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error("{} was written by a newer Fairway: it has version {version}, this one reads {supported}", path.display())]
    Newer { path: PathBuf, version: u32, supported: u32 },
    #[error("{name} = {value} cannot be: {why}")]
    Option { name: &'static str, value: i64, why: &'static str },
}

impl StoreError {
    /// Gives an IO error its place and its kind.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            if is_full(&source) {
                Self::DiskFull { path, action, source }
            } else {
                Self::Io { path, action, source }
            }
        }
    }

    pub(super) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, what: what.into() }
    }
}

/// A quota and a file size limit are a full disk to whoever writes.
fn is_full(error: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge]
        .contains(&error.kind())
}

impl From<StoreError> for SelectError {
    fn from(error: StoreError) -> Self {
        Self::Storage { why: error.to_string() }
    }
}

/// Why a series is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("there are {series_max} series already")]
    TooManySeries { series_max: usize },
    #[error("a series needs at least one label")]
    NoLabels,
    #[error("the labels have {bytes} bytes, more than {bytes_max}")]
    LabelsTooLong { bytes: usize, bytes_max: usize },
}
