//! Where a release came from, as far as `git` knows. Without git a release has no commit, and that is fine.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fairway_api::SourceInfo;
use tokio::process::Command;

/// `git status` of a large tree on a slow disk; a deploy does not wait longer to learn a title.
const GIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where there is no tag to count from: enough to name the people of a release.
const COMMITS_WITHOUT_TAG: &str = "-20";
/// An error in the tags must not send the authors of ten years.
const AUTHORS_MAX: usize = 50;

pub async fn source(root: &Path) -> SourceInfo {
    let Some(commit) = git(root, &["rev-parse", "--verify", "HEAD"]).await else {
        return SourceInfo::default();
    };
    let branch = git(root, &["symbolic-ref", "--short", "HEAD"]).await;
    let title = git(root, &["log", "-1", "--format=%s"]).await;
    let dirty = git(root, &["status", "--porcelain", "--", "."]).await;
    let range = match git(root, &["describe", "--tags", "--abbrev=0"]).await {
        Some(tag) => format!("{tag}..HEAD"),
        None => COMMITS_WITHOUT_TAG.to_owned(),
    };
    let mut authors: Vec<String> = git(root, &["log", "-1000", "--format=%aN%n%aE", &range, "--"])
        .await
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    authors.sort();
    authors.dedup();
    authors.truncate(AUTHORS_MAX);
    SourceInfo {
        commit: Some(commit),
        branch,
        title,
        // What could not be compared is not said to be clean.
        dirty: dirty.is_none_or(|changes| !changes.is_empty()),
        authors,
    }
}

async fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(args)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(GIT_TIMEOUT, output).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(root: &Path, args: &[&str]) {
        let status = std::process::Command::new("git")
            .arg("-C")
            .arg(root)
            .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "git {args:?}");
    }

    fn facts(root: &Path) -> SourceInfo {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(source(root))
    }

    #[test]
    fn a_directory_without_git_has_no_commit() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(facts(dir.path()), SourceInfo::default());
    }

    #[test]
    fn commit_branch_title_and_changes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        run(root, &["init", "-q", "-b", "main"]);
        std::fs::write(root.join("a"), "1").unwrap();
        run(root, &["add", "a"]);
        run(root, &["commit", "-q", "-m", "Add a\n\nBody"]);
        let clean = facts(root);
        assert_eq!(clean.commit.as_ref().map(String::len), Some(40));
        assert_eq!(clean.branch.as_deref(), Some("main"));
        assert_eq!(clean.title.as_deref(), Some("Add a"));
        assert_eq!(clean.authors, ["Ann", "ann@example.org"]);
        assert!(!clean.dirty);
        std::fs::write(root.join("a"), "2").unwrap();
        assert!(facts(root).dirty);
    }
}
