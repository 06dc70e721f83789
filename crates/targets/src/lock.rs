//! The lock by which a shim shows that it lives, and which of two that want the same directory may run in it.
//!
//! It is a POSIX record lock because its holder can be *asked for* without taking it: the kernel names the pid. It
//! is not inherited by children and goes when its holder ends, however it ends. It also goes when the holder closes
//! any other descriptor of the file, so the shim opens the file exactly once.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::wire::LOCK_FILE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    /// 0 when it lives in another pid namespace.
    Pid(i32),
}

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: `flock` is plain data for which all zeros is a value: the whole file from its start.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).expect("the lock types are 0, 1 and 2");
    lock
}

/// Takes the lock for as long as the file stays open; none when somebody else holds it.
pub(crate) fn take(dir: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).append(true).open(dir.join(LOCK_FILE))?;
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open and `lock` is valid for the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) } {
        0 => Ok(Some(file)),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EAGAIN)) => Ok(None),
            error => Err(error),
        },
    }
}

/// Who holds it. To be asked by other processes than the holder only.
pub(crate) fn holder(dir: &Path) -> io::Result<Holder> {
    let file = match File::options().append(true).open(dir.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
    };
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open and `lock` is valid for the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(if i32::from(lock.l_type) == libc::F_UNLCK { Holder::Nobody } else { Holder::Pid(lock.l_pid) })
}
