//! Reads and writes for hand-written poll functions.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

pub(super) fn poll_read(stream: &TcpStream, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match stream.try_read(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Tries before it asks whether it may: a socket that takes the bytes, which is nearly always, costs one call.
pub(super) fn poll_write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    loop {
        match stream.try_write_vectored(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            result => return Poll::Ready(result),
        }
        ready!(stream.poll_write_ready(cx))?;
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
