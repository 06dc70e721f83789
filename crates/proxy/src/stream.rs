//! A connection, whatever it runs over: what the rest of the proxy reads from and writes to.
//!
//! Everything takes `&self`, because both directions of an exchange are polled by one task, one after the other.

mod tcp;
mod tls;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::pipe::Pipe;
pub(crate) use tls::Tls;

/// What the kernel takes of an answer before we do: two reads. By itself it takes up to 6 MiB of one that comes faster
/// than its client reads it, for each such client.
const UPSTREAM_RECEIVE_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<Tls>),
    /// A stream of HTTP/2, as a connection with one request.
    Pipe(Pipe),
}

/// What is there to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peeked {
    /// What comes behind them cannot be seen.
    Bytes,
    /// The other side has ended in good order. It may still read.
    End,
    /// Nothing reaches the other side any more.
    Broken,
}

impl Stream {
    /// # Errors
    /// When the other side does not accept.
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        // If it cannot be set everything works, and takes more memory.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&stream, UPSTREAM_RECEIVE_BYTES);
        // Fails only on a connection that is gone already; using it will tell.
        let _ = stream.set_nodelay(true);
        Ok(Self::Tcp(stream))
    }

    /// Ready with 0 when the other side has ended in good order. A read that did not fill `buf` leaves the stream not
    /// ready.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => tcp::poll_read(stream, cx, buf),
            Self::Tls(stream) => stream.poll_read(cx, buf),
            Self::Pipe(pipe) => pipe.poll_read(cx, buf),
        }
    }

    /// As [`Self::poll_read`], right after [`Self::poll_read_ready`] said that there is something. It is no turn of its
    /// own: a connection that always has something to read gives way to others where it asks whether it has.
    pub(crate) fn poll_read_known(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => tcp::poll_read_known(stream, cx, buf),
            Self::Tls(stream) => stream.poll_read(cx, buf),
            Self::Pipe(pipe) => pipe.poll_read(cx, buf),
        }
    }

    /// Ready when a read may give something, an end or an error; nothing is taken.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_read_ready(cx),
            Self::Pipe(pipe) => pipe.poll_read_ready(cx),
        }
    }

    /// Ready when a read would give something, an end or an error, and takes none of it: whoever asks again without
    /// reading is told the same at once.
    pub(crate) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<Peeked> {
        match self {
            Self::Tcp(stream) => tcp::poll_peek(stream, cx),
            Self::Tls(stream) => stream.poll_peek(cx),
            Self::Pipe(pipe) => pipe.poll_gone(cx).map(|()| Peeked::Broken),
        }
    }

    /// What is there at this moment, without asking the runtime, which knows of it only later. 0 also at an end, and at an
    /// error, which whoever reads next finds as an end: for bytes of which it is known that they are to come.
    pub(crate) fn read_now(&self, buf: &mut [u8]) -> usize {
        match self {
            Self::Tcp(stream) => tcp::read_now(stream, buf),
            Self::Tls(_) | Self::Pipe(_) => 0,
        }
    }

    /// Ready with as many bytes as the kernel took. After `Pending` the same bytes are offered again.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => tcp::poll_write(stream, cx, slices),
            Self::Tls(stream) => stream.poll_write(cx, slices),
            Self::Pipe(pipe) => pipe.poll_write(cx, slices),
        }
    }

    /// Ready with how many bytes a write would take, as far as that is known; whoever reads no more has nothing left to
    /// hold. A socket is found out about by writing.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<usize> {
        match self {
            Self::Tcp(_) | Self::Tls(_) => Poll::Ready(usize::MAX),
            Self::Pipe(pipe) => pipe.poll_room(cx),
        }
    }

    /// Whether a write would have to wait, as far as that is known.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(_) => false,
            Self::Pipe(pipe) => pipe.is_full(),
        }
    }

    /// Bytes that have reached the other side over the life of the connection, framing and encryption included; stands
    /// still when nobody can say.
    pub(crate) fn delivered(&self) -> u64 {
        match self {
            Self::Tcp(stream) => tcp::acknowledged(stream).unwrap_or(0),
            Self::Tls(stream) => tcp::acknowledged(stream.tcp()).unwrap_or(0),
            Self::Pipe(pipe) => pipe.passed_on(),
        }
    }

    /// Writes what can be written at once: a few last words before an end.
    pub(crate) fn write_now(&self, bytes: &[u8]) {
        let mut nobody = Context::from_waker(Waker::noop());
        // If there is no room the other side does not read anyway.
        let _ = self.poll_write(&mut nobody, &[IoSlice::new(bytes)]);
    }

    /// Ends our side of the connection; the other side may still send.
    pub(crate) fn half_close(&self) {
        match self {
            Self::Tcp(stream) => tcp::half_close(stream),
            Self::Tls(stream) => stream.half_close(),
            Self::Pipe(pipe) => pipe.half_close(),
        }
    }

    /// Makes the close that follows a reset, for when a clean end would look like a complete answer.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Self::Tcp(stream) => tcp::reset_on_close(stream),
            Self::Tls(stream) => tcp::reset_on_close(stream.tcp()),
            Self::Pipe(pipe) => pipe.reset(),
        }
    }

    /// Whether the other side has taken nothing beyond the first `written` bytes; false when nobody can say.
    pub(crate) fn is_unreceived_beyond(&self, written: u64) -> bool {
        match self {
            // Linux counts the SYN as one byte.
            Self::Tcp(stream) => tcp::acknowledged(stream).is_some_and(|bytes| bytes <= written + 1),
            // What the kernel counts is encrypted.
            Self::Tls(_) => false,
            Self::Pipe(pipe) => pipe.is_refused(),
        }
    }

    /// Bytes that the other side's kernel has acknowledged; `None` when nobody can say. (Linux counts the SYN as one.)
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        match self {
            Self::Tcp(stream) => tcp::acknowledged(stream),
            Self::Tls(_) | Self::Pipe(_) => None,
        }
    }

    /// The pipe, if it is a stream of HTTP/2.
    pub(crate) fn as_pipe(&self) -> Option<&Pipe> {
        match self {
            Self::Tcp(_) | Self::Tls(_) => None,
            Self::Pipe(pipe) => Some(pipe),
        }
    }

    /// Whether nothing waits to be read, not even an end, as whoever knows first says.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::Tcp(stream) => tcp::is_quiet(stream),
            Self::Tls(stream) => stream.is_quiet(),
            Self::Pipe(pipe) => pipe.is_quiet(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Self::poll_read(&self, cx, buf.initialize_unfilled()))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(&self, cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(&self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is the kernel's.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half_close();
        Poll::Ready(Ok(()))
    }
}
