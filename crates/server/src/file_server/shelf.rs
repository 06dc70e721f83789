//! The releases of one site side by side. A page that was loaded before a deploy asks for scripts that the new release
//! lacks, and during a canary a page of the one version asks the other. A name that says its content may be answered
//! from whichever release has it.
//!
//! `sites/<environment>/<service>/` holds one document a release; the newest was started last. Nothing in there decides
//! how long a tree stays: a document whose tree is gone answers nothing, and is removed by the next start.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::site::{Document, Site};

/// Pages that are older than this many deploys have been loaded again, or are not looked at any more.
const SITES_MAX: usize = 16;

/// Entries beyond are not ours; a directory that was filled up must not be read for every missing file.
const ENTRIES_MAX: usize = 4096;

/// Two changes within one tick of the slowest kernel clock (100 Hz) have one time: what was changed just now is looked
/// at again.
const SETTLED: Duration = Duration::from_millis(100);

/// Writes the document of a site that is about to start, and says where.
///
/// # Errors
/// When the disk is full or refuses.
pub(crate) fn put(shelf: &Path, name: &str, document: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(shelf)?;
    // A server may run as its own user; whether it may get here is decided by the state directory above.
    for directory in shelf.ancestors().take(3) {
        fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let path = shelf.join(name);
    let (unfinished, mut file) = create(shelf)?;
    // After a power cut the next start writes it again: none of the processes that read it outlives one.
    let written = file.write_all(document).and_then(|()| fs::rename(&unfinished, &path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    remove_dead(shelf, &path);
    Ok(path)
}

/// A file that nobody takes for a document.
fn create(shelf: &Path) -> io::Result<(PathBuf, fs::File)> {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let path = shelf.join(format!(".new-{}-{nanos}", std::process::id()));
    let file = fs::File::create_new(&path)?;
    // As for the directories, and whatever this server's umask is.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok((path, file))
}

/// Documents of trees that are no more. A tree in which a process runs is not removed, so that none that serves loses
/// what it starts again from.
fn remove_dead(shelf: &Path, but: &Path) {
    let Ok(entries) = fs::read_dir(shelf) else { return };
    for path in entries.take(ENTRIES_MAX).flatten().map(|entry| entry.path()).filter(|path| path != but) {
        if Document::root_of(&path).is_ok_and(|root| !root.is_dir()) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The other releases, read when they are first needed.
#[derive(Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
    own: PathBuf,
    /// By file name and the time at which it was written.
    known: BTreeMap<(PathBuf, SystemTime), Arc<Site>>,
    /// Newest first.
    order: Vec<Arc<Site>>,
    read_at: Option<SystemTime>,
}

impl Shelf {
    /// Of the document that a server was started with.
    pub(super) fn beside(own: &Path) -> Option<Self> {
        let directory = own.parent()?.to_owned();
        Some(Self {
            directory,
            own: own.to_owned(),
            known: BTreeMap::new(),
            order: Vec::new(),
            read_at: None,
        })
    }

    /// The other releases of the site, newest first. Reads the directory when it has changed.
    pub(super) fn sites(&mut self) -> Vec<Arc<Site>> {
        let changed = fs::metadata(&self.directory).and_then(|metadata| metadata.modified()).ok();
        let is_settled = changed.zip(self.read_at).is_some_and(|(changed, read_at)| {
            read_at.duration_since(changed).is_ok_and(|since| since > SETTLED)
        });
        if !is_settled {
            self.read_at = Some(SystemTime::now());
            self.read();
        }
        self.order.clone()
    }

    fn read(&mut self) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().take(ENTRIES_MAX).flatten();
        let mut found: Vec<(SystemTime, PathBuf)> = entries
            .map(|entry| entry.path())
            .filter(|path| *path != self.own && !is_unfinished(path))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(SITES_MAX);
        let mut known = BTreeMap::new();
        self.order.clear();
        for (written, path) in found {
            let key = (path, written);
            let site = match self.known.remove(&key) {
                Some(site) => site,
                None => match Document::read(&key.0) {
                    Ok(document) => Arc::new(Site::new(document).hashed_only()),
                    Err(_) => continue,
                },
            };
            self.order.push(Arc::clone(&site));
            known.insert(key, site);
        }
        self.known = known;
    }
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World(tempfile::TempDir);

    impl World {
        fn shelf(&self) -> PathBuf {
            self.0.path().join("sites/shop.dev/web")
        }

        fn put(&self, name: &str, asset: &str) -> PathBuf {
            let root = self.0.path().join(name);
            fs::create_dir_all(&root).unwrap();
            fs::write(root.join(asset), asset).unwrap();
            fs::write(root.join("plain.txt"), name).unwrap();
            let document = Document::of_directory(&root, false).unwrap();
            put(&self.shelf(), name, &document.encode().unwrap()).unwrap()
        }
    }

    fn with(shelf: &mut Shelf, asset: &str) -> usize {
        shelf.sites().iter().filter(|site| site.get(asset).is_some()).count()
    }

    #[test]
    fn releases_that_come_after_the_start_are_found_and_only_by_hashed_names() {
        let world = World(tempfile::tempdir().unwrap());
        let own = world.put("one", "app.1a2b3c4d.js");
        let mut shelf = Shelf::beside(&own).unwrap();
        assert_eq!(with(&mut shelf, "app.5a6b7c8d.js"), 0);
        world.put("two", "app.5a6b7c8d.js");
        assert_eq!(with(&mut shelf, "app.5a6b7c8d.js"), 1);
        assert_eq!(with(&mut shelf, "plain.txt"), 0);
        assert_eq!(with(&mut shelf, "app.1a2b3c4d.js"), 0, "its own is not on the shelf");
        world.put("two", "app.9a0b1c2d.js");
        assert_eq!(with(&mut shelf, "app.9a0b1c2d.js"), 1, "started again with other files");
    }

    #[test]
    fn documents_of_trees_that_are_gone_are_removed_by_the_next_start() {
        let world = World(tempfile::tempdir().unwrap());
        let own = world.put("one", "app.1a2b3c4d.js");
        let two = world.put("two", "app.5a6b7c8d.js");
        fs::remove_dir_all(world.0.path().join("one")).unwrap();
        world.put("three", "app.9a0b1c2d.js");
        assert!(!own.exists() && two.exists());
    }

    #[test]
    fn garbage_on_the_shelf_hides_no_release() {
        let world = World(tempfile::tempdir().unwrap());
        let own = world.put("one", "app.1a2b3c4d.js");
        world.put("two", "app.5a6b7c8d.js");
        fs::write(world.shelf().join("garbage"), "{").unwrap();
        fs::create_dir(world.shelf().join("directory")).unwrap();
        fs::write(world.shelf().join(".new-1-1"), "half").unwrap();
        let mut shelf = Shelf::beside(&own).unwrap();
        assert_eq!(with(&mut shelf, "app.5a6b7c8d.js"), 1);
        fs::remove_dir_all(world.shelf()).unwrap();
        assert_eq!(with(&mut shelf, "app.5a6b7c8d.js"), 0);
    }

    #[test]
    fn only_the_newest_are_read() {
        let world = World(tempfile::tempdir().unwrap());
        let own = world.put("own", "app.1a2b3c4d.js");
        for number in 0..SITES_MAX + 3 {
            world.put(&format!("r{number}"), "app.5a6b7c8d.js");
        }
        assert_eq!(Shelf::beside(&own).unwrap().sites().len(), SITES_MAX);
    }
}
