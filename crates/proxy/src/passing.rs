//! Sockets on their way from one process to another: messages of one byte that carry descriptors (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// The kernel carries 253 in one message (`SCM_MAX_FD`). Those beyond are not passed.
pub(crate) const SOCKETS_MAX: usize = 253;

/// # Errors
/// When the other side is gone, or does not read.
pub(crate) fn send<'s>(
    stream: impl AsFd,
    sockets: impl IntoIterator<Item = &'s TcpListener>,
) -> io::Result<()> {
    let sockets: Vec<_> = sockets.into_iter().take(SOCKETS_MAX).map(|socket| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(b"s")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes one message, and nothing of what follows it.
///
/// # Errors
/// When the other side is gone.
pub(crate) fn receive(stream: impl AsFd) -> io::Result<Vec<TcpListener>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            sockets.extend(received.map(|socket: OwnedFd| TcpListener::from(socket)));
        }
    }
    Ok(sockets)
}
