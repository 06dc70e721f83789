//! The header by which a load balancer says whose connection it passes on (PROXY protocol, versions 1 and 2).

use std::io;
use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, ProxyHeader};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Version 1 has 107 bytes at most; version 2 with the fields that balancers add has a few hundred.
const HEADER_BYTES_MAX: usize = 4 * 1024;

/// Who is passed on, and how long the header is.
pub(super) fn parse(seen: &[u8]) -> Result<(Option<SocketAddr>, usize), Error> {
    let (header, length) = ProxyHeader::parse(seen, ParseConfig::default())?;
    Ok((header.proxied_address().map(|proxied| proxied.source), length))
}

/// Takes the header off the connection. `None`: the balancer speaks for itself, as in a health check.
///
/// # Errors
/// When there is no such header: a connection that came past the balancer.
pub(super) async fn source(tcp: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut seen = [0; HEADER_BYTES_MAX];
    let look = || {
        let (peeked, _) = rustix::net::recv(tcp, &mut seen[..], RecvFlags::PEEK)?;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(&seen[..peeked]) {
            Ok(header) => Ok(header),
            // Says "not ready" to the runtime, which then waits for more.
            Err(Error::BufferTooShort) if peeked < HEADER_BYTES_MAX => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    };
    let (source, length) = tcp.async_io(Interest::READABLE, look).await?;
    let mut header = [0; HEADER_BYTES_MAX];
    // All of it has arrived, so this takes it at once.
    rustix::net::recv(tcp, &mut header[..length], RecvFlags::empty())?;
    Ok(source)
}
