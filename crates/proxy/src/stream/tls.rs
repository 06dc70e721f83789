//! TLS over a TCP connection: rustls does the protocol, the calls to the kernel are ours, so that "written" means that
//! the kernel has it, as it does without TLS.

use std::cell::RefCell;
use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustix::net::RecvFlags;
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Peeked;

/// Plain bytes that one write hands to the session at most. A whole response buffer, so that it leaves in one call.
const WRITE_BYTES_MAX: usize = 128 * 1024;

#[derive(Debug)]
pub(crate) struct Tls {
    tcp: TcpStream,
    session: RefCell<Session>,
}

#[derive(Debug)]
struct Session {
    tls: ServerConnection,
    /// Bytes of the writer's that are encrypted and not all with the kernel: they are told as written when they are.
    accepted: usize,
    ending: Ending,
}

/// Our side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Open,
    /// The last record is made, and not all of it is with the kernel: nothing may end the connection before it, or the
    /// client could not tell the end from a cut.
    Said,
    Over,
}

impl Tls {
    /// # Errors
    /// When the configuration cannot be used at all.
    pub(crate) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        // Beyond what one write hands over; the tickets of the handshake are buffered as well.
        tls.set_buffer_limit(Some(2 * WRITE_BYTES_MAX));
        Ok(Self { tcp, session: RefCell::new(Session { tls, accepted: 0, ending: Ending::Open }) })
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What was agreed on, once the handshake is over.
    pub(crate) fn alpn(&self) -> Option<Vec<u8>> {
        self.session.borrow().tls.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// As it is usually written, once the handshake is over.
    pub(crate) fn version(&self) -> Option<&'static str> {
        let version = self.session.borrow().tls.protocol_version()?;
        // No other is agreed on.
        let known = [(ProtocolVersion::TLSv1_3, "TLSv1.3"), (ProtocolVersion::TLSv1_2, "TLSv1.2")];
        known.into_iter().find(|(known, _)| *known == version).map(|(_, name)| name)
    }

    pub(crate) fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.borrow_mut();
        loop {
            ready!(session.poll_flush(&self.tcp, cx))?;
            if !session.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(session.poll_fill(&self.tcp, cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut session = self.session.borrow_mut();
        session.poll_end(&self.tcp, cx);
        loop {
            match session.tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Many clients close without a word. Where a request ends is said by its own framing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                read => return Poll::Ready(read),
            }
            ready!(session.poll_fill(&self.tcp, cx))?;
            // A client that asks for new keys gets its answer; when there is no room, the next write takes it along.
            let _ = session.poll_flush(&self.tcp, cx)?;
        }
    }

    /// What has arrived may be no more than a part of a record, or news for the session alone: that is taken in here,
    /// or a connection that waits for its next request would look as if it had begun one.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.borrow_mut();
        session.poll_end(&self.tcp, cx);
        loop {
            match session.tls.reader().fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Poll::Ready(Ok(())),
            }
            ready!(session.poll_fill(&self.tcp, cx))?;
            let _ = session.poll_flush(&self.tcp, cx)?;
        }
    }

    /// Ciphertext is taken in, which the kernel cannot tell from more plain bytes; what it says stays to be read.
    pub(super) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<Peeked> {
        if ready!(self.poll_read_ready(cx)).is_err() {
            return Poll::Ready(Peeked::Broken);
        }
        let mut session = self.session.borrow_mut();
        let peeked = match session.tls.reader().fill_buf() {
            Ok([]) => Peeked::End,
            Ok(_) => Peeked::Bytes,
            // Many clients close without a word.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Peeked::End,
            Err(_) => Peeked::Broken,
        };
        Poll::Ready(peeked)
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut session = self.session.borrow_mut();
        if session.accepted == 0 {
            ready!(session.poll_flush(&self.tcp, cx))?;
            let mut left = WRITE_BYTES_MAX;
            for slice in slices {
                let part = &slice[..slice.len().min(left)];
                let taken = session.tls.writer().write(part)?;
                session.accepted += taken;
                left -= taken;
                if taken < slice.len() {
                    break;
                }
            }
        }
        ready!(session.poll_flush(&self.tcp, cx))?;
        Poll::Ready(Ok(std::mem::take(&mut session.accepted)))
    }

    /// Says that no more will come, and ends our side when that is said: now, or while the connection is read from.
    pub(super) fn half_close(&self) {
        let mut session = self.session.borrow_mut();
        if session.ending == Ending::Open {
            session.tls.send_close_notify();
            session.ending = Ending::Said;
        }
        session.poll_end(&self.tcp, &mut Context::from_waker(Waker::noop()));
    }

    pub(super) fn is_quiet(&self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.poll_read_ready(&mut nobody).is_pending() && super::tcp::is_quiet(&self.tcp)
    }
}

impl Session {
    /// Ready when everything that was encrypted is with the kernel.
    fn poll_flush(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            match tcp.try_io(Interest::WRITABLE, || self.tls.write_tls(&mut Socket(tcp))) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Goes on with an end for which the kernel had no room.
    fn poll_end(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) {
        if self.ending == Ending::Said && self.poll_flush(tcp, cx).is_ready() {
            super::tcp::half_close(tcp);
            self.ending = Ending::Over;
        }
    }

    /// Takes in what has arrived; ready with 0 when the other side ended.
    fn poll_fill(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = loop {
            ready!(tcp.poll_read_ready(cx))?;
            match tcp.try_io(Interest::READABLE, || self.tls.read_tls(&mut Socket(tcp))) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break read?,
            }
        };
        if let Err(error) = self.tls.process_new_packets() {
            // The alert tells the client what it did.
            let mut nobody = Context::from_waker(Waker::noop());
            let _ = self.poll_flush(tcp, &mut nobody);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(read))
    }
}

/// Bare calls, to be made under `try_io`.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (read, _) = rustix::net::recv(self.0, buf, RecvFlags::empty())?;
        Ok(read)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, buf, rustix::net::SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self.0, slices)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read as _;

    use super::*;

    /// A server's session and a client's connection, past the handshake.
    async fn pair() -> (Tls, rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>) {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            let tcp = std::net::TcpStream::connect(addr).unwrap();
            let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
            let session = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
            let mut client = rustls::StreamOwned::new(session, tcp);
            while client.conn.is_handshaking() {
                client.conn.complete_io(&mut client.sock).unwrap();
            }
            client
        });
        let (tcp, _) = listener.accept().await.unwrap();
        let tls = Tls::new(tcp, Arc::new(server)).unwrap();
        poll_fn(|cx| tls.poll_handshake(cx)).await.unwrap();
        (tls, client.join().unwrap())
    }

    /// Without the last record a client cannot tell an end from a cut (RFC 8446, 6.1).
    #[tokio::test]
    async fn an_end_is_said_even_where_the_kernel_had_no_room_for_it() {
        let (tls, mut client) = pair().await;
        let data = vec![7; WRITE_BYTES_MAX];
        let mut nobody = Context::from_waker(Waker::noop());
        while tls.poll_write(&mut nobody, &[IoSlice::new(&data)]).is_ready() {}
        tls.half_close();
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all)
        });
        let mut buf = [0; 16];
        assert_eq!(poll_fn(|cx| tls.poll_read(cx, &mut buf)).await.unwrap(), 0);
        let bytes = reading.join().unwrap().expect("a clean end");
        assert_eq!(bytes % data.len(), 0, "all that was taken, and no half of it");
    }
}
