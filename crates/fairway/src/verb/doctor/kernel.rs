//! What the kernel and the limits of this process allow.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{Finding, Level};

/// `pidfd_open` (5.3) is how a process is told from a stranger with the same number; `close_range` and cgroup kill
/// came by 5.14, and everything in between is past its life.
const KERNEL_MIN: (u32, u32) = (5, 4);
/// A connection takes two descriptors in the proxy.
const FILES_WANTED: u64 = 4096;

#[must_use]
pub fn look() -> Vec<Finding> {
    vec![kernel(&rustix::system::uname().release().to_string_lossy()), cgroups(), files()]
}

fn kernel(release: &str) -> Finding {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_MIN {
        Finding::new(Level::Ok, "kernel", format!("Linux {release}"))
    } else {
        Finding::new(Level::Fail, "kernel", format!("Linux {release} is older than 5.4"))
            .hint("processes cannot be found again safely after a restart of the server")
    }
}

/// Whether limits of memory and CPU can be enforced for the instances of a server that runs like this command.
fn cgroups() -> Finding {
    let warn = |detail: &str| {
        Finding::new(
            Level::Warn,
            "cgroup v2",
            format!("{detail}: limits of memory and CPU fall back to rlimits"),
        )
        .hint("`fairway server install` makes a unit with Delegate=yes")
    };
    let Ok(groups) = fs::read_to_string("/proc/self/cgroup") else { return warn("cannot be read") };
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::")) else {
        return warn("is not mounted");
    };
    let dir = format!("/sys/fs/cgroup{own}");
    let Ok(controllers) = fs::read_to_string(format!("{dir}/cgroup.controllers")) else {
        return warn("is not visible here");
    };
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| !controllers.split_whitespace().any(|c| c == *name))
        .collect();
    let is_writable = rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).is_ok();
    match (is_writable, missing.is_empty()) {
        (true, true) => {
            Finding::new(Level::Ok, "cgroup v2", format!("writable, with {}", controllers.trim()))
        }
        (true, false) => warn(&format!("does not offer {}", missing.join(" and "))),
        (false, _) => warn("is not delegated to this user"),
    }
}

fn files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let detail = format!("{} open files (at most {})", shown(limit.current), shown(limit.maximum));
    if limit.maximum.is_none_or(|maximum| maximum >= FILES_WANTED) {
        Finding::new(Level::Ok, "descriptors", detail)
    } else {
        Finding::new(Level::Warn, "descriptors", detail)
            .hint("a connection takes two of them; raise `ulimit -Hn`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert_eq!(kernel("6.8.0-45-generic").level, Level::Ok);
        assert_eq!(kernel("5.10.0").level, Level::Ok);
        assert_eq!(kernel("4.19.0").level, Level::Fail);
        assert_eq!(kernel("garbage").level, Level::Fail);
    }
}
