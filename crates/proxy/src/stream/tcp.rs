//! Reads and writes for hand-written poll functions.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Peeked;

/// As [`poll_read`], for a stream that is ready as far as anybody knows: asks no more than that.
pub(super) fn poll_read_known(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    match try_read(stream, buf) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => poll_read(stream, cx, buf),
        result => Poll::Ready(result),
    }
}

pub(super) fn poll_read(stream: &TcpStream, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match try_read(stream, buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// As `TcpStream::try_read`, but a read that did not fill `buf` leaves the stream not ready: the kernel has no
/// more, and its next event will say so. Otherwise an idle connection looks readable for ever, every wait begins
/// with a read in vain, and a pooled connection looks closed.
fn try_read(stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let result = stream.try_io(Interest::READABLE, || {
        match rustix::net::recv(stream, &mut *buf, RecvFlags::empty()) {
            Ok((bytes, _)) if (1..buf.len()).contains(&bytes) => {
                short = Some(bytes);
                // Says "not ready" to the runtime, and to nobody else.
                Err(io::ErrorKind::WouldBlock.into())
            }
            Ok((bytes, _)) => Ok(bytes),
            Err(error) => Err(error.into()),
        }
    });
    short.map_or(result, Ok)
}

pub(super) fn read_now(stream: &TcpStream, buf: &mut [u8]) -> usize {
    rustix::net::recv(stream, buf, RecvFlags::DONTWAIT).map_or(0, |(bytes, _)| bytes)
}

/// Tries before it asks whether it may: a socket that takes the bytes, which is nearly always, costs one call.
pub(super) fn poll_write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    loop {
        match try_write(stream, slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            result => return Poll::Ready(result),
        }
        ready!(stream.poll_write_ready(cx))?;
    }
}

/// One piece goes out by `send`, which takes the kernel a shorter way than `writev`.
fn try_write(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut pieces = slices.iter().filter(|slice| !slice.is_empty());
    match (pieces.next(), pieces.next()) {
        (Some(only), None) => stream.try_io(Interest::WRITABLE, || {
            rustix::net::send(stream, only, SendFlags::NOSIGNAL).map_err(io::Error::from)
        }),
        (_, _) => stream.try_write_vectored(slices),
    }
}

/// Ends our side of the connection; the other side may still send.
pub(super) fn half_close(stream: &TcpStream) {
    // Fails when the connection is gone already, which is as good.
    let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
}

/// Makes the close that follows a reset, for when a clean end would look like a complete answer.
pub(super) fn reset_on_close(stream: &TcpStream) {
    // Fails when the connection is gone already, which is as good.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO));
}

/// Bytes that the other side's kernel has acknowledged over the life of the connection; `None` when the system
/// does not say.
///
/// A request of which no byte was acknowledged, on a connection that the other side closed, was not received:
/// it can be repeated even when it is a POST. (Linux counts the SYN as one byte.)
pub(super) fn acknowledged(stream: &TcpStream) -> Option<u64> {
    use std::os::fd::AsRawFd as _;

    /// Offset of `tcpi_bytes_acked` in `struct tcp_info`: 8 bytes of flags, 24 words of 32 bits, two pacing
    /// rates. The layout is kernel ABI and only ever grows at its end.
    const BYTES_ACKED: usize = 8 + 24 * 4 + 2 * 8;
    let mut info = [0u8; BYTES_ACKED + 8];
    let mut len = libc::socklen_t::try_from(info.len()).ok()?;
    // SAFETY: `info` is writable for `len` bytes and outlives the call; the descriptor is open because `stream`
    // is borrowed.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 || (len as usize) < info.len() {
        return None;
    }
    let bytes = info[BYTES_ACKED..].first_chunk::<8>()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Asks the kernel, which knows of a close before the runtime does.
pub(super) fn is_quiet(stream: &TcpStream) -> bool {
    matches!(peek(stream), Err(rustix::io::Errno::AGAIN))
}

/// Whatever it finds leaves the stream ready, for whoever reads next.
pub(super) fn poll_peek(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Peeked> {
    loop {
        if ready!(stream.poll_read_ready(cx)).is_err() {
            return Poll::Ready(Peeked::Broken);
        }
        match stream.try_io(Interest::READABLE, || Ok(peek(stream)?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Poll::Ready(Peeked::Broken),
            Ok(0) => return Poll::Ready(Peeked::End),
            Ok(_) => return Poll::Ready(Peeked::Bytes),
        }
    }
}

fn peek(stream: &TcpStream) -> rustix::io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    rustix::net::recv(stream, &mut [0u8; 1][..], flags).map(|(bytes, _)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn what_the_other_side_closed_before_it_arrived_is_proven_not_to_be_received() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            stream.writable().await.unwrap();
            assert_eq!(stream.try_write(b"first").unwrap(), 5);
            peer.read_exact(&mut [0; 5]).unwrap();
            peer.write_all(b"ok").unwrap();
            stream.readable().await.unwrap();
            assert_eq!(stream.try_read(&mut [0; 9]).unwrap(), 2);
            assert_eq!(acknowledged(&stream), Some(1 + 5));
            drop(peer);
            assert_eq!(stream.try_write(b"second").unwrap(), 6);
            stream.readable().await.unwrap();
            assert_eq!(stream.try_read(&mut [0; 9]).unwrap(), 0, "the close came in good order");
            assert_eq!(acknowledged(&stream), Some(1 + 5), "nothing of the second was received");
        });
    }

    #[test]
    fn a_peek_tells_an_end_from_bytes_and_from_a_reset_and_takes_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            for (said, is_reset, expect) in
                [(&b""[..], false, Peeked::End), (b"more", false, Peeked::Bytes), (b"", true, Peeked::Broken)]
            {
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut peer, _) = listener.accept().unwrap();
                let mut nobody = Context::from_waker(std::task::Waker::noop());
                assert!(poll_peek(&stream, &mut nobody).is_pending());
                peer.write_all(said).unwrap();
                if is_reset {
                    rustix::net::sockopt::set_socket_linger(&peer, Some(std::time::Duration::ZERO)).unwrap();
                }
                drop(peer);
                assert_eq!(std::future::poll_fn(|cx| poll_peek(&stream, cx)).await, expect);
                if !is_reset {
                    let mut buf = [0; 64];
                    let read = std::future::poll_fn(|cx| poll_read(&stream, cx, &mut buf)).await.unwrap();
                    assert_eq!(&buf[..read], said);
                }
            }
        });
    }

    #[test]
    fn a_stream_that_was_read_empty_does_not_look_readable() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(b"some").unwrap();
            let mut buf = [0; 64];
            assert_eq!(std::future::poll_fn(|cx| poll_read(&stream, cx, &mut buf)).await.unwrap(), 4);
            let mut nobody = Context::from_waker(std::task::Waker::noop());
            assert!(stream.poll_read_ready(&mut nobody).is_pending());
            drop(peer);
            assert_eq!(std::future::poll_fn(|cx| poll_read(&stream, cx, &mut buf)).await.unwrap(), 0);
        });
    }
}
