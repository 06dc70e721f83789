//! The fairway.toml of the project: found upward, read when it is needed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use fairway_config::{FILE_BYTES_MAX, FILE_NAME, Project, Source};

use super::shown;
use crate::problem::Problem;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectFile {
    /// The directory that releases are captured from.
    pub root: PathBuf,
    pub path: PathBuf,
}

impl ProjectFile {
    /// `dir` is `--project-dir`, `file` is `--file`.
    ///
    /// # Errors
    /// When one that was named is not there. That there is none anywhere is not an error.
    pub fn find(dir: Option<&Path>, file: Option<&Path>) -> Result<Option<Self>, Problem> {
        let here =
            std::env::current_dir().map_err(|source| Problem::Read { path: PathBuf::from("."), source })?;
        let start = dir.map_or_else(|| here.clone(), |dir| here.join(dir));
        let absolute = |path: &Path| {
            path.canonicalize().map_err(|source| Problem::Read { path: path.to_owned(), source })
        };
        if let Some(file) = file {
            let path = absolute(&here.join(file))?;
            let root = match (dir, path.parent()) {
                (Some(_), _) | (None, None) => absolute(&start)?,
                (None, Some(parent)) => parent.to_owned(),
            };
            return Ok(Some(Self { root, path }));
        }
        let start = absolute(&start)?;
        let found =
            start.ancestors().map(|root| (root, root.join(FILE_NAME))).find(|(_, path)| path.is_file());
        Ok(found.map(|(root, path)| Self { root: root.to_owned(), path }))
    }

    /// The name that places in the file are shown with.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.path)
    }

    /// # Errors
    /// When it cannot be read, or is not text.
    pub fn text(&self) -> Result<String, Problem> {
        let failed = |source| Problem::Read { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(failed)?;
        let mut bytes = Vec::new();
        // One byte more than is accepted, so that the parser can say that it is too large.
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        String::from_utf8(bytes).map_err(|_| Problem::NotText { path: self.path.clone() })
    }

    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Project, Problem> {
        parse(&self.shown(), &self.text()?)
    }

    /// The name of the project, also from a file that is not valid: at 3 a.m. a rollback must not wait for a
    /// comma.
    ///
    /// # Errors
    /// When there is no name to be found; then what is wrong with the file.
    pub fn project_name(&self) -> Result<String, Problem> {
        let text = self.text()?;
        match scan_name(&text) {
            Some(name) => Ok(name),
            None => Ok(parse(&self.shown(), &text)?.name().as_str().to_owned()),
        }
    }
}

/// # Errors
/// Everything that is wrong with it.
pub fn parse(shown: &str, text: &str) -> Result<Project, Problem> {
    Project::parse(shown, text)
        .map_err(|diagnostics| Problem::Config { diagnostics, file: Box::new(Source::new(shown, text)) })
}

/// `project = "shop"` above the first table.
fn scan_name(text: &str) -> Option<String> {
    let top = text.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    let value = top.filter_map(|line| line.strip_prefix("project")?.trim_start().strip_prefix('=')).next()?;
    let value = value.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (name, _) = value[1..].split_once(quote)?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_upward() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let deep = root.join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(root.join(FILE_NAME), "").unwrap();
        let expected = ProjectFile { root: root.clone(), path: root.join(FILE_NAME) };
        assert_eq!(ProjectFile::find(Some(&deep), None).unwrap(), Some(expected));
    }

    #[test]
    fn a_named_file_brings_its_directory_unless_one_is_named_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("conf")).unwrap();
        let path = root.join("conf/other.toml");
        std::fs::write(&path, "").unwrap();
        let find = |dir: Option<&Path>| ProjectFile::find(dir, Some(&path)).unwrap().unwrap().root;
        assert_eq!(find(None), root.join("conf"));
        assert_eq!(find(Some(&root)), root);
        assert!(ProjectFile::find(None, Some(&root.join("missing.toml"))).is_err());
    }

    #[test]
    fn the_name_is_read_from_a_file_that_is_broken_below() {
        assert_eq!(
            scan_name("version = 1\nproject = \"shop\" # x\n[service.\nboom").as_deref(),
            Some("shop")
        );
        assert_eq!(scan_name("project='shop'").as_deref(), Some("shop"));
        assert_eq!(scan_name("[vars]\nproject = \"other\""), None, "not the project's name");
        assert_eq!(scan_name("projects = \"x\""), None);
        assert_eq!(scan_name("project = \"a/../b\""), None, "never into a path");
        assert_eq!(scan_name("project = \""), None);
    }
}
