//! Listening sockets: bound here, or inherited.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, FromRawFd as _, RawFd};

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn` (4,096 since Linux 5.4); the
/// standard library asks for 128, which a burst after a pause of the machine overflows.
const BACKLOG: i32 = 4_096;

/// What the kernel holds of an answer beyond what is on the line: two reads of a response, so that there is one to send
/// while the next is fetched. Otherwise it takes what it has room for, which on a fast line is 4 MiB: two hundred clients
/// that ask much and read nothing would fill 800 MiB, and keep the core and the services busy with it.
const NOT_SENT_BYTES_MAX: libc::c_int = 256 * 1024;

/// First descriptor that systemd passes on (`sd_listen_fds(3)`).
const LISTEN_FDS_START: i32 = 3;

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Bound here, and closed with this process.
    Own,
    /// Somebody else holds it too, and goes on accepting.
    Inherited,
}

/// Makes the kernel drop new connection requests on a socket that is about to close, while handshakes under way
/// complete. Without it there is always one more connection between the last accept and the close, and closing
/// resets it. Clients send the SYN again after a second and are then refused, or reach whoever listens next.
pub(crate) fn refuse_new(socket: &TcpListener) -> io::Result<()> {
    /// Where TCP keeps its flags, counted from the TCP header, at which the filter of a TCP socket begins.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("classic BPF codes have 16 bits"),
        jt,
        jf,
        k,
    };
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, SYN),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: `filter` points to a program of the length that it says; the kernel copies both before it returns.
    unsafe { set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter) }
}

/// Takes [`refuse_new`] back, where it was said: whoever had the socket may have died while it was about to close it.
pub(crate) fn accept_new(socket: &TcpListener) {
    // Fails where there is no filter. SAFETY: the option takes an integer and follows no pointer.
    let _ = unsafe { set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0) };
}

/// Connections have it from the socket that they were accepted from.
fn bound_not_sent(socket: &TcpListener) -> io::Result<()> {
    // SAFETY: the option takes an integer and follows no pointer.
    unsafe { set_option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &NOT_SENT_BYTES_MAX) }
}

/// For options that rustix does not have.
///
/// # Safety
/// `value` is what the option takes; what it points to is valid until this returns.
unsafe fn set_option<T>(socket: &TcpListener, level: i32, name: i32, value: &T) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    let len = libc::socklen_t::try_from(size_of::<T>()).expect("a few bytes");
    // SAFETY: `value` is readable for `len` bytes and outlives the call; the descriptor is open because `socket` is
    // borrowed.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sockets that were open before this process, by address.
#[derive(Debug, Default)]
pub(crate) struct Inherited(HashMap<SocketAddr, (TcpListener, Origin)>);

impl Inherited {
    /// Takes over what `LISTEN_FDS` announces, if it is meant for this process.
    pub(crate) fn from_env() -> io::Result<Self> {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
        let pid = i32::try_from(std::process::id()).ok();
        match (number("LISTEN_PID"), number("LISTEN_FDS")) {
            (listen_pid, Some(count)) if listen_pid.is_some() && listen_pid == pid && count > 0 => {
                let fds = (LISTEN_FDS_START..LISTEN_FDS_START.saturating_add(count)).map(|fd| {
                    // SAFETY: the protocol says that these descriptors are open and meant for this process,
                    // and nothing else in it takes them over: this runs once, before any thread starts.
                    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }
                });
                Self::of(fds, Origin::Inherited)
            }
            (_, _) => Ok(Self::default()),
        }
    }

    /// # Errors
    /// When one of them is not a listening TCP socket.
    pub(crate) fn of(sockets: impl Iterator<Item = TcpListener>, origin: Origin) -> io::Result<Self> {
        let mut inherited = HashMap::new();
        for socket in sockets {
            let is_listening = rustix::net::sockopt::socket_acceptconn(&socket)?;
            if !is_listening {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "an inherited socket does not listen",
                ));
            }
            inherited.insert(socket.local_addr()?, (socket, origin));
        }
        Ok(Self(inherited))
    }

    /// Adds those of a predecessor, which are this process's own once it is gone.
    pub(crate) fn add(&mut self, sockets: Vec<TcpListener>) -> io::Result<()> {
        self.0.extend(Self::of(sockets.into_iter(), Origin::Own)?.0);
        Ok(())
    }

    /// Adds those that were kept for this process while there was none. What is not a listening socket is left alone: a
    /// mistake of whoever started it must not keep it from serving.
    pub(crate) fn keep(&mut self, kept: &[RawFd]) {
        for fd in kept.iter().filter(|fd| **fd >= LISTEN_FDS_START).collect::<BTreeSet<_>>() {
            // SAFETY: borrowed for one question, which says whether it is open.
            let is_listening =
                rustix::net::sockopt::socket_acceptconn(unsafe { BorrowedFd::borrow_raw(*fd) });
            if is_listening.is_ok_and(|listens| listens) {
                // SAFETY: it is open and meant for this process, and nothing else in it takes it over: this runs once,
                // before any thread starts.
                let socket = unsafe { TcpListener::from_raw_fd(*fd) };
                accept_new(&socket);
                if let Ok(addr) = socket.local_addr() {
                    self.0.insert(addr, (socket, Origin::Own));
                }
            } else {
                eprintln!("fairway proxy: descriptor {fd} is no listening socket");
            }
        }
    }

    /// Closes what nobody else holds and no listener needed.
    pub(crate) fn close_own(&mut self) {
        self.0.retain(|_, (_, origin)| *origin == Origin::Inherited);
    }

    /// An inherited socket for the address, or a new one.
    pub(crate) fn listen(&mut self, addr: SocketAddr) -> io::Result<(TcpListener, Origin)> {
        let (socket, origin) = match self.0.remove(&addr) {
            Some(inherited) => inherited,
            None => (TcpListener::bind(addr)?, Origin::Own),
        };
        // Without it everything works, and takes more memory.
        let _ = bound_not_sent(&socket);
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok((socket, origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_socket_is_used_although_its_address_is_taken() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let twin = socket.try_clone().unwrap();
        assert_eq!(Inherited::default().listen(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let mut inherited = Inherited::of([twin].into_iter(), Origin::Inherited).unwrap();
        let (found, origin) = inherited.listen(addr).unwrap();
        assert_eq!((found.local_addr().unwrap(), origin), (addr, Origin::Inherited));
    }
}
