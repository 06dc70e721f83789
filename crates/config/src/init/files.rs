//! The files that the importers look at, read with a bound.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::tree::FILE_BYTES_MAX;

/// More directories than any workspace has; a directory of ten thousand is no project.
const DIRECTORIES_MAX: usize = 200;

/// A project's directory, or one below it.
#[derive(Clone, Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// Relative to the project; `.` for its root.
    pub(super) dir: String,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Relative to the project, for people.
    pub(super) name: String,
    pub(super) text: String,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), dir: ".".to_owned() }
    }

    /// None when the path leads out of the project or is no directory.
    pub(super) fn below(&self, path: &str) -> Option<Files> {
        let dir = crate::value::path::join(&self.dir, &crate::value::path::relative(path).ok()?);
        self.root.join(&dir).is_dir().then(|| Files { root: self.root.clone(), dir })
    }

    /// A text file, when it is there, readable and no larger than a file of ours may be.
    pub(super) fn read(&self, name: &str) -> Option<File> {
        let relative = crate::value::path::join(&self.dir, name);
        let path = self.root.join(&relative);
        // A pipe or a device would never end, or never begin.
        if !fs::metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        let limit = FILE_BYTES_MAX as u64 + 1;
        fs::File::open(&path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
        if bytes.len() > FILE_BYTES_MAX {
            return None;
        }
        Some(File { name: relative, text: String::from_utf8(bytes).ok()? })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.root.join(&self.dir).join(name).exists()
    }

    /// The last part of the directory's path: what a project is called that says nothing else.
    pub(super) fn own_name(&self) -> Option<String> {
        let path = self.root.join(&self.dir);
        let path = path.canonicalize().unwrap_or(path);
        Some(path.file_name()?.to_string_lossy().into_owned())
    }

    /// Names of the directories right below, sorted, without hidden ones and those that tools fill.
    pub(super) fn directories(&self) -> Vec<String> {
        const TOOLS: [&str; 8] =
            ["node_modules", "target", "dist", "build", "vendor", "venv", "__pycache__", "coverage"];
        let mut names = self.names(|entry| entry.is_dir());
        names.retain(|name| !name.starts_with('.') && !TOOLS.contains(&name.as_str()));
        names
    }

    /// Names of the files right below, sorted.
    pub(super) fn files(&self) -> Vec<String> {
        self.names(|entry| entry.is_file())
    }

    fn names(&self, wanted: impl Fn(&Path) -> bool) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join(&self.dir)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| wanted(&entry.path()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .take(DIRECTORIES_MAX)
            .collect();
        names.sort();
        names
    }
}

impl File {
    /// The line of the first place where `needle` stands, from 1; 1 when it stands nowhere.
    pub(super) fn line_of(&self, needle: &str) -> u32 {
        let at = self.text.find(needle).unwrap_or(0);
        let line = self.text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1;
        u32::try_from(line).unwrap_or(u32::MAX)
    }
}
