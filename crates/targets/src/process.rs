//! Who a process is: a pid alone is not enough, because the kernel gives it out again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The environment variable by which everything that an instance starts is recognised.
pub(crate) const MARK: &str = "FAIRWAY_INSTANCE";

/// A pid with the time it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`): unique for as long
/// as the machine is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
}

/// What `/proc` says of a pid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) id: ProcessId,
    pub(crate) parent: i32,
    /// It has ended and waits for its parent to collect it.
    pub(crate) zombie: bool,
}

impl ProcessId {
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(stat(pid)?.id)
    }

    pub(crate) fn own() -> io::Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// A handle on exactly this process; none when it has ended or the pid belongs to somebody else by now. The
    /// start time is read again after the handle is open: before, the pid could have changed hands in between.
    pub(crate) fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match stat(self.pid) {
            Ok(stat) if stat.id == self && !stat.zombie => Ok(Some(handle)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to exactly this process; does nothing when it is gone.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        match self.open()? {
            Some(handle) => match pidfd_send_signal(&handle, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(error) => Err(error.into()),
            },
            None => Ok(()),
        }
    }
}

/// # Errors
/// When there is no such process, or `/proc` has another form than the kernel documents.
pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    let text = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        // A process that ends while it is being read gives ESRCH instead of ENOENT.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            return Err(io::ErrorKind::NotFound.into());
        }
        Err(error) => return Err(error),
    };
    parse_stat(pid, &String::from_utf8_lossy(&text))
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has an unknown form")))
}

fn parse_stat(pid: i32, text: &str) -> Option<Stat> {
    // The command name is in parentheses and may itself hold spaces and parentheses: the last one counts.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    let parent = fields.get(1)?.parse().ok()?;
    let start_ticks = fields.get(19)?.parse().ok()?;
    Some(Stat { id: ProcessId { pid, start_ticks }, parent, zombie: matches!(state, "Z" | "X") })
}

/// Changes with every start of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// Everything that descends from `ancestor`, without itself and without zombies.
pub(crate) fn descendants(ancestor: i32) -> io::Result<Vec<ProcessId>> {
    let mut children: BTreeMap<i32, Vec<Stat>> = BTreeMap::new();
    for pid in pids()? {
        if let Ok(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(stat);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![ancestor];
    while let Some(parent) = open.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            open.push(child.id.pid);
            if !child.zombie {
                found.push(child.id);
            }
        }
    }
    Ok(found)
}

/// Everything whose environment carries this instance's mark. Processes of other users are visible to root only;
/// what cannot be read is not taken for ours.
pub(crate) fn marked(token: &str) -> io::Result<Vec<ProcessId>> {
    let wanted = format!("{MARK}={token}");
    let mut found = Vec::new();
    for pid in pids()? {
        // The start time comes first: when the pid changes hands afterwards, the pair names nobody.
        let Ok(stat) = stat(pid) else { continue };
        let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        if environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()) {
            found.push(stat.id);
        }
    }
    Ok(found)
}

/// 128 random bits as 32 hex digits.
pub(crate) fn random_token() -> io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        let stat = parse_stat(7, line).unwrap();
        assert_eq!(stat.id, ProcessId { pid: 7, start_ticks: 4242 });
        assert_eq!(stat.parent, 3);
        assert!(!stat.zombie);
    }

    #[test]
    fn a_pid_that_was_given_out_again_opens_nothing() {
        let own = ProcessId::own().unwrap();
        assert!(own.open().unwrap().is_some());
        let earlier = ProcessId { start_ticks: own.start_ticks - 1, ..own };
        assert!(earlier.open().unwrap().is_none());
    }

    #[test]
    fn a_child_is_found_by_descent_and_by_its_mark() {
        let token = random_token().unwrap();
        let mut child = std::process::Command::new("sleep").arg("30").env(MARK, &token).spawn().unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap();
        let own = ProcessId::own().unwrap();
        assert!(descendants(own.pid).unwrap().contains(&id));
        // Between fork and exec the child still shows this process's environment.
        let seen = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            marked(&token).unwrap() == [id]
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen);
        assert!(id.open().unwrap().is_none());
    }
}
