//! Signals as something to read, so that the shim's one loop waits for everything in one place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
}

/// What came in since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) child: bool,
    /// Somebody asks the shim itself to end: the machine is going down.
    pub(crate) end: bool,
}

const ENDING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

impl Signals {
    /// Blocks them for this thread. `SIGHUP` and `SIGPIPE` are ignored: a closed terminal or a vanished client is no
    /// reason to leave an application alone.
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: plain calls on a set that lives on this stack.
        unsafe {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in ENDING.into_iter().chain([libc::SIGCHLD]) {
                libc::sigaddset(&raw mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { fd: OwnedFd::from_raw_fd(fd) })
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn read(&self) -> Received {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut received = Received::default();
        let mut buffer = [0u8; SIZE];
        while rustix::io::read(&self.fd, &mut buffer) == Ok(SIZE) {
            let number = u32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
            let number = i32::try_from(number).unwrap_or(0);
            received.child |= number == libc::SIGCHLD;
            received.end |= ENDING.contains(&number);
        }
        received
    }
}
