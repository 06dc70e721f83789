//! The state directory: there, ours, private, and with room.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use fairway_api::client::Endpoint;

use super::{Finding, Level};
use crate::context::Context;
use crate::problem::Problem;
use crate::verb::gc::bytes;

/// Below this a build may not fit; the log itself needs little.
const ROOM_WANTED: u64 = 2 << 30;
/// Below this the next deploy fails, and so may the log.
const ROOM_NEEDED: u64 = 200 << 20;
const INODES_NEEDED: u64 = 10_000;

pub fn look(cx: &Context, fix: bool) -> Result<Vec<Finding>, Problem> {
    let Endpoint::Unix(socket) = cx.endpoint()? else { return Ok(Vec::new()) };
    let Some(dir) = socket.parent() else { return Ok(Vec::new()) };
    Ok(vec![directory(dir, fix), room(dir)])
}

fn directory(dir: &Path, fix: bool) -> Finding {
    let what = "state directory";
    let shown = dir.display();
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !fix {
                return Finding::new(Level::Warn, what, format!("{shown} is not there"))
                    .hint("the server makes it when it starts; so does --fix");
            }
            return match fs::DirBuilder::new().recursive(true).mode(0o711).create(dir) {
                Ok(()) => Finding::new(Level::Ok, what, format!("{shown}, made just now")),
                Err(error) => Finding::new(Level::Fail, what, format!("{shown} cannot be made: {error}")),
            };
        }
        Err(error) => return Finding::new(Level::Fail, what, format!("{shown}: {error}")),
    };
    if !metadata.is_dir() {
        return Finding::new(Level::Fail, what, format!("{shown} is not a directory"));
    }
    let own = rustix::process::geteuid().as_raw();
    if rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_err() {
        return Finding::new(
            Level::Fail,
            what,
            format!("{shown} belongs to user {} and is not writable", metadata.uid()),
        )
        .hint("run this as that user, or choose another with --state");
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 == 0 {
        return Finding::new(Level::Ok, what, format!("{shown}, mode {mode:o}"));
    }
    if fix && metadata.uid() == own {
        let tightened = fs::set_permissions(dir, fs::Permissions::from_mode(mode & !0o022));
        return match tightened {
            Ok(()) => Finding::new(Level::Ok, what, format!("{shown}, mode {:o} now", mode & !0o022)),
            Err(error) => Finding::new(Level::Fail, what, format!("{shown}: {error}")),
        };
    }
    Finding::new(Level::Fail, what, format!("others can write to {shown} (mode {mode:o})"))
        .hint("--fix takes that from them")
}

/// Of the filesystem that the directory is on, or will be on.
fn room(dir: &Path) -> Finding {
    let Some((there, stat)) = dir.ancestors().find_map(|dir| Some((dir, rustix::fs::statvfs(dir).ok()?)))
    else {
        return Finding::new(Level::Warn, "disk", "its free space is unknown");
    };
    judge(there, stat.f_bavail.saturating_mul(stat.f_frsize), (stat.f_files > 0).then_some(stat.f_favail))
}

fn judge(dir: &Path, free: u64, inodes: Option<u64>) -> Finding {
    let detail = format!("{} free at {}", bytes(free), dir.display());
    if let Some(inodes) = inodes.filter(|inodes| *inodes < INODES_NEEDED) {
        return Finding::new(
            Level::Fail,
            "disk",
            format!("only {inodes} files more fit at {}", dir.display()),
        )
        .hint("fairway gc --dry-run");
    }
    match free {
        0..ROOM_NEEDED => Finding::new(Level::Fail, "disk", detail).hint("fairway gc --dry-run"),
        ROOM_NEEDED..ROOM_WANTED => Finding::new(Level::Warn, "disk", detail).hint("fairway gc --dry-run"),
        _ => Finding::new(Level::Ok, "disk", detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_write_to_is_repaired_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(directory(dir.path(), false).level, Level::Fail);
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o777, "looking changes nothing");
        assert_eq!(directory(dir.path(), true).level, Level::Ok);
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_directory_that_is_not_there_is_made_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/state");
        assert_eq!(directory(&state, false).level, Level::Warn);
        assert!(!state.exists());
        assert_eq!(directory(&state, true).level, Level::Ok);
        assert!(state.is_dir());
    }

    #[test]
    fn little_room_is_told_before_it_is_none() {
        let level = |free, inodes| judge(Path::new("/"), free, inodes).level;
        assert_eq!(level(10 << 30, Some(1_000_000)), Level::Ok);
        assert_eq!(level(1 << 30, None), Level::Warn);
        assert_eq!(level(1 << 20, None), Level::Fail);
        assert_eq!(level(10 << 30, Some(12)), Level::Fail);
    }
}
