//! Accepting on the proxy's own Unix sockets: control, hand-over, safekeeping.

use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// Between two attempts while the machine has no descriptor to give; who asks waits in the kernel's queue meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// The next caller, however long the machine is short of what a connection takes.
pub(crate) async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

    use super::*;

    /// A socket that does not listen yet refuses as one without descriptors does: at once, and not for ever.
    #[tokio::test]
    async fn a_failed_accept_is_not_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)
                .unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let later = socket.try_clone().unwrap();
        let listener = UnixListener::from_std(socket.into()).unwrap();
        let accepted = tokio::spawn(async move { accept(&listener).await });
        tokio::time::sleep(2 * PAUSE).await;
        assert!(!accepted.is_finished());
        rustix::net::listen(&later, 1).unwrap();
        let _caller = UnixStream::connect(&path).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), accepted).await.unwrap().unwrap();
    }
}
