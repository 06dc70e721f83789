//! What a release captures: directories of the project, and what must be built before.

use std::fmt;

use crate::span::Span;

/// A file or directory of the project that is captured for a release, by its path relative to the project root;
/// `.` is the whole project. Two services with the same one share the capture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactKey(Box<str>);

impl ArtifactKey {
    /// `path` as `value::path::relative` returns it.
    pub(crate) fn new(path: &str) -> Self {
        Self(path.into())
    }

    /// The path relative to the project root, with `/`; `.` for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One capture of a release. All builds of all requests run before the first capture, because one artifact may
/// contain another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactRequest {
    pub key: ArtifactKey,
    /// Relative to the project root; `.` is the root. May turn out to be a file: it is captured as a tree that has
    /// the file under its own name.
    pub dir: String,
    /// What must run before, each once, in this order.
    pub builds: Vec<Build>,
    /// Where the file asks for it, for the message when it is not there after the build.
    pub at: Option<Span>,
}

/// A command that makes an artifact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    pub command: Vec<String>,
    /// Directory in which it starts, relative to the project root; `.` is the root.
    pub dir: String,
    pub at: Span,
}
