//! A cgroup v2 group an instance, where this process may make one. It limits the instance as a whole and names
//! every process of it, however often it forked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::process::ProcessId;

/// The group into which the server moves itself: a group with processes cannot have limited groups below it.
const SERVER_GROUP: &str = "fairway-server";

/// The directory of this process's own cgroup v2 group, or why there is none.
fn own() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    find(&mounts, &groups).ok_or_else(|| "cgroup v2 is not mounted".to_owned())
}

fn find(mountinfo: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let below = Path::new("/").join(group).strip_prefix(root).ok()?.to_path_buf();
        Some(Path::new(mount).join(below))
    })
}

/// Makes room for limited groups below the server's own when systemd has delegated it (`Delegate=yes`): the server
/// moves into a leaf. Without delegation nothing is touched, because the group belongs to somebody else.
pub(crate) fn make_room() {
    let Ok(base) = own() else { return };
    let delegated = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 4];
        rustix::fs::getxattr(&base, *name, &mut value).is_ok_and(|len| value.get(..len) == Some(b"1"))
    });
    let leaf = base.join(SERVER_GROUP);
    if delegated && (fs::create_dir(&leaf).is_ok() || leaf.is_dir()) {
        let _ = fs::write(leaf.join("cgroup.procs"), "0");
    }
}

#[derive(Debug)]
pub(crate) struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes a group beside the server's.
    ///
    /// # Errors
    /// One sentence why there is none.
    pub(crate) fn create(token: &str) -> Result<Self, String> {
        let own = own()?;
        let base = if own.ends_with(SERVER_GROUP) { own.parent().unwrap_or(&own).to_path_buf() } else { own };
        let dir = base.join(format!("fairway-{token}"));
        fs::create_dir(&dir)
            .map_err(|error| format!("no cgroup can be made in {}: {error}", base.display()))?;
        if !dir.join("cgroup.procs").exists() {
            let _ = fs::remove_dir(&dir);
            return Err(format!("{} is not a cgroup", base.display()));
        }
        Ok(Self { dir })
    }

    /// The group of an earlier shim. `token` guards against a record that names somebody else's group.
    pub(crate) fn existing(dir: &str, token: &str) -> Option<Self> {
        let dir = PathBuf::from(dir);
        (dir.ends_with(format!("fairway-{token}")) && dir.join("cgroup.procs").exists())
            .then_some(Self { dir })
    }

    pub(crate) fn dir(&self) -> String {
        self.dir.to_string_lossy().into_owned()
    }

    /// The file through which a process enters.
    pub(crate) fn door(&self) -> io::Result<fs::File> {
        fs::File::options().write(true).open(self.dir.join("cgroup.procs"))
    }

    /// # Errors
    /// One sentence why the limit does not hold.
    pub(crate) fn limit(&self, controller: &str, file: &str, value: &str) -> Result<(), String> {
        if !self.dir.join(file).exists() {
            let parent = self.dir.parent().unwrap_or(&self.dir);
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        fs::write(self.dir.join(file), value).map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) {
                format!("the cgroup v2 controller {controller} is not delegated to Fairway")
            } else {
                format!("the kernel refuses {value:?} for {file}: {error}")
            }
        })
    }

    /// How often the kernel killed in this group for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn processes(&self) -> Vec<ProcessId> {
        let pids = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        pids.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?).ok()).collect()
    }

    /// Kills everything in the group at once, forks included.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.kill"), "1")
    }

    /// Fails while a process is left in it. A group that is gone already counts as removed: who clears up asks again
    /// until the last process has ended too, and a process leaves its group before that.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once a killed process had left its group but was not yet gone: the first look removed the group, and every
    /// later one took its absence for a process that does not end.
    #[test]
    fn a_group_that_is_gone_stays_removed() {
        let base = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { dir: base.path().join("fairway-t") };
        fs::create_dir_all(cgroup.dir.join("child")).unwrap();
        assert!(cgroup.remove().is_err(), "something is left in it");
        fs::remove_dir(cgroup.dir.join("child")).unwrap();
        cgroup.remove().unwrap();
        cgroup.remove().unwrap();
    }

    #[test]
    fn the_group_is_found_under_hybrid_and_unified_hierarchies_and_in_a_container() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let hybrid = "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let container = "30 23 0:26 /docker/abc /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n";
        let check = |mounts, groups, expect: Option<&str>| {
            assert_eq!(find(mounts, groups), expect.map(PathBuf::from));
        };
        check(unified, "0::/system.slice/f.service\n", Some("/sys/fs/cgroup/system.slice/f.service"));
        check(hybrid, "4:memory:/x\n0::/\n", Some("/sys/fs/cgroup/unified/"));
        check(container, "0::/docker/abc\n", Some("/sys/fs/cgroup/"));
        check(unified, "4:memory:/x\n", None);
        check("", "0::/\n", None);
    }
}
