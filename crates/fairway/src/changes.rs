//! Tells when the source of a project has changed, for `fairway up`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairway_config::Project;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::problem::Problem;

/// An editor saves in several steps within some milliseconds, a checkout within some hundreds.
const QUIET: Duration = Duration::from_millis(150);
/// Something that writes without a pause must not hold back a reload for ever.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// Changes on their way; when more wait, one of them is as good as all.
const PENDING_MAX: usize = 256;
/// The kernel's usual limit is 8,192 or more for a user; a tree with more directories than this has a directory in it
/// that belongs into .fairwayignore.
const DIRECTORIES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 64;

/// A person may save a file once or twice while a build runs; what changes more often is written by the build, and
/// would start the next one for ever.
const BUILDS_MAX: u32 = 3;

/// Never source: history, our state, and what package managers and interpreters write by themselves.
const NEVER: &[&str] = &[".git", ".fairway", "node_modules", "__pycache__", ".venv", "target"];

/// What is not a change of the source.
#[derive(Debug)]
struct Filter {
    root: PathBuf,
    /// Of `.fairwayignore`.
    ignored: Gitignore,
    /// Of `.gitignore`, for what a build writes while it runs.
    of_git: Gitignore,
    /// What builds write.
    built: BTreeSet<PathBuf>,
}

impl Filter {
    fn new(root: &Path, project: &Project, environment: &str) -> Self {
        let patterns = |name: &str| {
            let mut builder = GitignoreBuilder::new(root);
            // A file that is not there, or has a pattern that is wrong, ignores nothing.
            let _ = builder.add(root.join(name));
            builder.build().unwrap_or_else(|_| Gitignore::empty())
        };
        let built = project
            .artifacts(environment)
            .unwrap_or_default()
            .into_iter()
            .filter(|request| {
                !request.builds.is_empty() && request.builds.iter().all(|build| build.dir != request.dir)
            })
            .map(|request| root.join(request.dir))
            .collect();
        Self {
            root: root.to_owned(),
            ignored: patterns(".fairwayignore"),
            of_git: patterns(".gitignore"),
            built,
        }
    }

    fn is_source(&self, path: &Path, is_dir: bool) -> bool {
        let Ok(below) = path.strip_prefix(&self.root) else { return false };
        let is_never = below.components().any(|part| NEVER.iter().any(|never| part.as_os_str() == *never));
        let is_built = self.built.iter().any(|built| path.starts_with(built));
        !is_never && !is_built && !self.ignored.matched_path_or_any_parents(below, is_dir).is_ignore()
    }

    fn is_of_git(&self, path: &Path) -> bool {
        path.strip_prefix(&self.root)
            .is_ok_and(|below| self.of_git.matched_path_or_any_parents(below, path.is_dir()).is_ignore())
    }
}

#[derive(Debug)]
pub struct Changes {
    filter: Filter,
    watcher: RecommendedWatcher,
    pending: mpsc::Receiver<PathBuf>,
    watched: usize,
    /// In how many builds a path has changed.
    in_builds: BTreeMap<PathBuf, u32>,
}

impl Changes {
    /// # Errors
    /// When the kernel watches no more, or the tree is too large.
    pub fn watch(root: &Path, project: &Project, environment: &str) -> Result<Self, Problem> {
        let (sender, pending) = mpsc::channel(PENDING_MAX);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            let is_change = match event.kind {
                EventKind::Create(_) | EventKind::Remove(_) => true,
                EventKind::Modify(ModifyKind::Metadata(_)) => false,
                EventKind::Modify(_) => true,
                EventKind::Access(_) | EventKind::Any | EventKind::Other => false,
            };
            if is_change {
                for path in event.paths {
                    // Full: there is a change to be told already.
                    let _ = sender.try_send(path);
                }
            }
        })
        .map_err(|error| failed(&error))?;
        let mut changes = Self {
            filter: Filter::new(root, project, environment),
            watcher,
            pending,
            watched: 0,
            in_builds: BTreeMap::new(),
        };
        changes.add(root, 0)?;
        Ok(changes)
    }

    /// Follows the file to what it ignores and builds now.
    pub fn follow(&mut self, project: &Project, environment: &str) {
        self.filter = Filter::new(&self.filter.root.clone(), project, environment);
    }

    /// Waits for a change and then for quiet. The answer is the path that was changed first, of those that are still
    /// there: editors write another file and rename it.
    pub async fn next(&mut self) -> Option<PathBuf> {
        let mut first = loop {
            let path = self.pending.recv().await?;
            if self.take(&path) {
                break path;
            }
        };
        let start = Instant::now();
        while start.elapsed() < QUIET_MAX {
            match tokio::time::timeout(QUIET, self.pending.recv()).await {
                Ok(Some(path)) => {
                    if self.take(&path) && !first.exists() && path.exists() {
                        first = path;
                    }
                }
                Ok(None) | Err(_) => break,
            }
        }
        Some(first)
    }

    /// Sorts out what changed while a build ran: what git ignores was written by the build. So was, in all likelihood,
    /// what changes in each of several builds; from then on it is no source, and `tell` hears of it.
    pub async fn settle(&mut self, tell: impl Fn(&Path)) -> Option<PathBuf> {
        // What the build wrote last is still on its way through the kernel's queue.
        tokio::time::sleep(QUIET).await;
        let mut changed = BTreeSet::new();
        while let Ok(path) = self.pending.try_recv() {
            if self.take(&path) && !self.filter.is_of_git(&path) {
                changed.insert(path);
            }
        }
        let mut first = None;
        for path in changed {
            let builds = self.in_builds.entry(path.clone()).or_default();
            *builds += 1;
            if *builds > BUILDS_MAX {
                tell(&path);
            } else {
                first.get_or_insert(path);
            }
        }
        first
    }

    /// Whether it counts; a new directory is watched from now on.
    fn take(&mut self, path: &Path) -> bool {
        let is_dir = path.is_dir();
        let is_built = self.in_builds.get(path).is_some_and(|builds| *builds > BUILDS_MAX);
        let counts = !is_built && self.filter.is_source(path, is_dir);
        if counts && is_dir {
            let _ = self.add(path, 0);
        }
        counts
    }

    /// One watch a directory, because a recursive one would take those that are no source as well.
    fn add(&mut self, dir: &Path, depth: usize) -> Result<(), Problem> {
        if depth > DEPTH_MAX || (dir != self.filter.root && !self.filter.is_source(dir, true)) {
            return Ok(());
        }
        if self.watched >= DIRECTORIES_MAX {
            return Err(Problem::failed(
                "up/watch",
                format!("the project has more than {DIRECTORIES_MAX} directories"),
                "name those that are no source in .fairwayignore, or run `fairway up --no-watch`",
            ));
        }
        self.watcher.watch(dir, RecursiveMode::NonRecursive).map_err(|error| failed(&error))?;
        self.watched += 1;
        // One that cannot be read, or is gone again, has nothing to watch.
        let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&entry.path(), depth + 1)?;
            }
        }
        Ok(())
    }
}

fn failed(error: &notify::Error) -> Problem {
    Problem::failed(
        "up/watch",
        format!("changes cannot be watched: {error}"),
        "raise the limit: sysctl fs.inotify.max_user_watches=524288; or run `fairway up --no-watch`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> Project {
        Project::parse("fairway.toml", text).unwrap()
    }

    const BUILT: &str = "version = 1\nproject = \"shop\"\n[service.web]\nbuild = { run = [\"make\"], artifact = \"dist\" }\nstatic = { dir = \"dist\" }\nroute = \"/\"\n[env.dev]\n";

    #[test]
    fn history_state_output_and_what_is_ignored_are_no_source() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join(".fairwayignore"), "*.tmp\n/data\n").unwrap();
        fs::write(root.join(".gitignore"), "gen\n").unwrap();
        let filter = Filter::new(root, &project(BUILT), "dev");
        let is_source = |path: &str| filter.is_source(&root.join(path), false);
        for source in ["src/a.rs", "fairway.toml", "gen/x", ".fairwayignore", ".env"] {
            assert!(is_source(source), "{source}");
        }
        for other in [".git/HEAD", ".fairway/blobs/x", "dist/app.js", "a.tmp", "data/x", "web/node_modules/y"]
        {
            assert!(!is_source(other), "{other}");
        }
        assert!(!filter.is_source(Path::new("/etc/passwd"), false), "outside");
        assert!(filter.is_of_git(&root.join("gen/x")) && !filter.is_of_git(&root.join("src/a.rs")));
    }

    #[test]
    fn what_every_build_writes_does_not_start_builds_for_ever() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::write(root.join(".gitignore"), "/gen\n").unwrap();
        let mut changes = Changes::watch(&root, &project(BUILT), "dev").unwrap();
        let told = std::cell::RefCell::new(Vec::new());
        runtime.block_on(async {
            let mut builds = 0;
            while builds < 10 {
                fs::write(root.join("gen"), "output that git ignores").unwrap();
                fs::write(root.join("stamp"), builds.to_string()).unwrap();
                builds += 1;
                if changes.settle(|path| told.borrow_mut().push(path.to_owned())).await.is_none() {
                    break;
                }
            }
            assert_eq!(builds, 4);
            assert_eq!(*told.borrow(), [root.join("stamp")]);
            fs::write(root.join("stamp"), "again").unwrap();
            fs::write(root.join("source"), "a person").unwrap();
            assert_eq!(changes.settle(|_| panic!("told once")).await, Some(root.join("source")));
        });
    }

    #[test]
    fn of_an_editor_that_renames_the_file_is_told_not_its_working_copy() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let mut changes = Changes::watch(&root, &project(BUILT), "dev").unwrap();
        runtime.block_on(async {
            fs::write(root.join("sedX1yZ2"), "1").unwrap();
            fs::rename(root.join("sedX1yZ2"), root.join("api.py")).unwrap();
            assert_eq!(changes.next().await, Some(root.join("api.py")));
            fs::remove_file(root.join("api.py")).unwrap();
            assert_eq!(changes.next().await, Some(root.join("api.py")), "gone is a change too");
        });
    }

    #[test]
    fn a_change_is_told_once_also_in_a_new_directory_and_noise_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("src")).unwrap();
        fs::create_dir(root.join("dist")).unwrap();
        let mut changes = Changes::watch(&root, &project(BUILT), "dev").unwrap();
        runtime.block_on(async {
            fs::write(root.join("dist/app.js"), "noise").unwrap();
            fs::write(root.join("src/a"), "1").unwrap();
            fs::write(root.join("src/b"), "1").unwrap();
            assert_eq!(changes.next().await, Some(root.join("src/a")));
            fs::create_dir(root.join("src/deep")).unwrap();
            assert_eq!(changes.next().await, Some(root.join("src/deep")));
            fs::write(root.join("src/deep/c"), "1").unwrap();
            assert_eq!(changes.next().await, Some(root.join("src/deep/c")));
            fs::write(root.join("dist/app.js"), "noise").unwrap();
            let quiet = tokio::time::timeout(Duration::from_millis(50), changes.next()).await;
            assert!(quiet.is_err(), "output is no change");
        });
    }
}
