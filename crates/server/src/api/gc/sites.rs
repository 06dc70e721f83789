//! Documents of static sites that no release needs: `sites/PROJECT.ENVIRONMENT/SERVICE/`, one file a release.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::file_server::site::Document;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unneeded {
    /// A document, or the directory of a service.
    pub(super) path: PathBuf,
    pub(super) why: &'static str,
    pub(super) bytes: u64,
}

impl Unneeded {
    /// # Errors
    /// When it is still there.
    pub(super) fn remove(&self) -> io::Result<()> {
        let removed =
            if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        removed.or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })?;
        // The last service of an environment takes its directory along; one that is not empty stays.
        if let Some(above) = self.path.parent() {
            let _ = fs::remove_dir(above);
        }
        Ok(())
    }
}

/// `kept`: by `PROJECT.ENVIRONMENT` and service. What is younger than `grace` may belong to a start under way.
pub(super) fn unneeded(
    state_dir: &Path,
    kept: &BTreeSet<(String, String)>,
    grace: Duration,
    now: SystemTime,
) -> Vec<Unneeded> {
    let mut found = Vec::new();
    let is_old = |path: &Path| {
        let changed = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= grace))
    };
    for (environment, path) in entries(&state_dir.join("sites")) {
        for (service, path) in entries(&path) {
            let documents = entries(&path);
            if !kept.contains(&(environment.clone(), service)) {
                if is_old(&path) && documents.iter().all(|(_, document)| is_old(document)) {
                    let bytes = documents.iter().map(|(_, document)| length(document)).sum();
                    found.push(Unneeded { path, why: "no release that is kept has this site", bytes });
                }
                continue;
            }
            let dead = documents
                .into_iter()
                .filter(|(_, path)| is_old(path) && Document::root_of(path).is_ok_and(|root| !root.is_dir()));
            found.extend(dead.map(|(_, path)| {
                let bytes = length(&path);
                Unneeded { path, why: "the files of this release of a site are gone", bytes }
            }));
        }
    }
    found
}

fn length(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}

fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = entries.flatten().map(|entry| (entry.file_name().into_string(), entry.path()));
    named.filter_map(|(name, path)| Some((name.ok()?, path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_of_nobody_go_and_those_of_a_kept_release_stay() {
        let dir = tempfile::tempdir().unwrap();
        let put = |at: &str, root: &Path| {
            let path = dir.path().join("sites").join(at);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, serde_json::json!({ "root": root }).to_string()).unwrap();
            path
        };
        let (live, gone) = (dir.path().to_owned(), dir.path().join("gone"));
        let alive = put("shop.dev/web/alive", &live);
        let dead = put("shop.dev/web/dead", &gone);
        let removed = put("shop.old/web/alive", &live);
        let kept = BTreeSet::from([("shop.dev".to_owned(), "web".to_owned())]);
        let later = SystemTime::now() + Duration::from_secs(10);
        let young = unneeded(dir.path(), &kept, Duration::from_secs(3600), later);
        assert_eq!(young, []);
        let found = unneeded(dir.path(), &kept, Duration::from_secs(5), later);
        let paths: BTreeSet<_> = found.iter().map(|one| one.path.as_path()).collect();
        assert_eq!(paths, BTreeSet::from([dead.as_path(), removed.parent().unwrap()]));
        assert!(found.iter().all(|one| one.bytes > 0));
        for one in &found {
            one.remove().unwrap();
            one.remove().unwrap();
        }
        assert!(alive.is_file() && !dead.exists());
        assert!(!dir.path().join("sites/shop.old").exists());
        assert_eq!(unneeded(dir.path(), &kept, Duration::ZERO, later), []);
    }
}
