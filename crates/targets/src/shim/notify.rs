//! `$NOTIFY_SOCKET`, the sd_notify protocol, as far as readiness goes.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType, bind, recvmsg, socket_with, sockopt,
};

/// Datagrams read in one turn of the loop: a flood must not starve the rest.
const DATAGRAMS_A_TURN_MAX: usize = 64;

/// An abstract socket: its name does not depend on how long the instance's path is, needs no rights on the
/// directory for an application that runs as another user, and leaves nothing to clean up.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: OwnedFd,
    name: String,
    /// Whose word counts besides root's: anybody on the machine may write to an abstract socket.
    uid: u32,
}

impl NotifySocket {
    pub(crate) fn open(token: &str, uid: u32) -> std::io::Result<Self> {
        let name = format!("fairway/notify/{token}");
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Ok(Self { socket, name, uid })
    }

    /// The value of the variable; `@` stands for the abstract namespace.
    pub(crate) fn variable(&self) -> String {
        format!("@{}", self.name)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// True when `READY=1` came in.
    pub(crate) fn read(&self) -> bool {
        let mut ready = false;
        for _ in 0..DATAGRAMS_A_TURN_MAX {
            let mut text = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut text)];
            let Ok(received) = recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::DONTWAIT) else {
                break;
            };
            let trusted = ancillary.drain().any(|message| {
                matches!(message, RecvAncillaryMessage::ScmCredentials(from)
                    if [0, self.uid].contains(&from.uid.as_raw()))
            });
            let len = received.bytes.min(text.len());
            ready |= trusted && text[..len].split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    #[test]
    fn ready_is_believed_from_the_right_user_only() {
        let token = crate::process::random_token().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let socket = NotifySocket::open(&token, uid).unwrap();
        let name = socket.variable();
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        let send = |text: &str| {
            client.send_to_addr(text.as_bytes(), &address).unwrap();
            socket.read()
        };
        assert!(!send("STATUS=loading"));
        assert!(!send("READY=10"));
        assert!(send("STATUS=up\nREADY=1"));
        if uid != 0 {
            let stranger = NotifySocket { uid: uid + 1, ..socket };
            client.send_to_addr(b"READY=1", &address).unwrap();
            assert!(!stranger.read());
        }
    }
}
