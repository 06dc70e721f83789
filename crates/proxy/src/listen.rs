//! Listening sockets: bound here, or inherited.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn` (4,096 since Linux 5.4); the
/// standard library asks for 128, which a burst after a pause of the machine overflows.
const BACKLOG: i32 = 4_096;

/// First descriptor that systemd passes on (`sd_listen_fds(3)`).
const LISTEN_FDS_START: i32 = 3;

/// Sockets that were open before this process, by address.
#[derive(Debug, Default)]
pub(crate) struct Inherited(HashMap<SocketAddr, TcpListener>);

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
                Self::of(fds)
            }
            (_, _) => Ok(Self::default()),
        }
    }

    /// # Errors
    /// When one of them is not a listening TCP socket.
    pub(crate) fn of(sockets: impl Iterator<Item = TcpListener>) -> io::Result<Self> {
        let mut inherited = HashMap::new();
        for socket in sockets {
            let is_listening = rustix::net::sockopt::socket_acceptconn(&socket)?;
            if !is_listening {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "an inherited socket does not listen",
                ));
            }
            inherited.insert(socket.local_addr()?, socket);
        }
        Ok(Self(inherited))
    }

    /// An inherited socket for the address, or a new one.
    pub(crate) fn listen(&mut self, addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = match self.0.remove(&addr) {
            Some(socket) => socket,
            None => TcpListener::bind(addr)?,
        };
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
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
        let mut inherited = Inherited::of([twin].into_iter()).unwrap();
        assert_eq!(inherited.listen(addr).unwrap().local_addr().unwrap(), addr);
    }
}
