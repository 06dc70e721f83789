//! A connection of HTTP/2, over TLS or begun without asking (RFC 9113, section 3.3), that many streams share. Another
//! one takes its place only when the server has said goodbye.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use tokio::sync::Mutex;

use crate::failure::{Cause, Phase};
use crate::wire::{Protocol, Tls, Wire};

/// A server that says goodbye as soon as it is greeted serves nobody.
const OPENS_MAX: u32 = 5;

#[derive(Debug)]
pub(crate) struct Channel {
    target: SocketAddr,
    tls: Option<Tls>,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    send: Option<SendRequest<Bytes>>,
    /// Rises with every connection, so that nobody throws away another one than the one that failed.
    serial: u64,
}

/// A stream on its way.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) response: ResponseFuture,
    pub(crate) body: SendStream<Bytes>,
    /// The connection was there before.
    pub(crate) reused: bool,
}

impl Channel {
    pub(crate) fn new(target: SocketAddr, tls: Option<Tls>) -> Channel {
        Channel { target, tls, current: Mutex::default() }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Sends a request's head. `connections`: counts those that are opened for it.
    ///
    /// # Errors
    /// When no connection can be opened, or the one that was there has ended without a goodbye: a server owes one before
    /// it closes (RFC 9113, section 6.8), or nobody can know what it has processed.
    pub(crate) async fn open(
        &self,
        request: &Request<()>,
        is_whole: bool,
        connections: &mut u64,
    ) -> Result<Opened, Cause> {
        for _ in 0..OPENS_MAX {
            let (send, serial, reused) = self.connection(connections).await?;
            let sent = match send.ready().await {
                Ok(mut send) => send.send_request(request.clone(), is_whole),
                Err(error) => Err(error),
            };
            match sent {
                Ok((response, body)) => return Ok(Opened { response, body, reused }),
                Err(error) => {
                    let mut current = self.current.lock().await;
                    if current.serial == serial {
                        current.send = None;
                    }
                    // Nothing was sent, so this is not a request that was refused.
                    if !is_goodbye(&error) {
                        return Err(cause(&error, Phase::Send, reused, 0));
                    }
                }
            }
        }
        Err(Cause::Closed { reused: false })
    }

    async fn connection(&self, connections: &mut u64) -> Result<(SendRequest<Bytes>, u64, bool), Cause> {
        let mut current = self.current.lock().await;
        if let Some(send) = &current.send {
            return Ok((send.clone(), current.serial, true));
        }
        *connections += 1;
        let wire = Wire::open(self.target, self.tls.as_ref(), Protocol::H2).await;
        let wire = wire.map_err(|error| Cause::from_io(&error, Phase::Connect, false))?;
        let (send, connection) =
            h2::client::handshake(wire).await.map_err(|error| cause(&error, Phase::Send, false, 0))?;
        // What it ends with reaches every stream on it, and whoever wants to open one.
        tokio::spawn(async move { drop(connection.await) });
        current.send = Some(send.clone());
        current.serial += 1;
        Ok((send, current.serial, false))
    }
}

/// The server has said that the connection ends, and not that something was wrong.
pub(crate) fn is_goodbye(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR)
}

/// A stream that ended so was not processed, and may be sent again (RFC 9113, section 8.7): it lies above the last one
/// of a goodbye, or was refused.
pub(crate) fn is_refusal(error: &h2::Error) -> bool {
    is_goodbye(error)
        || (error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM))
}

pub(crate) fn cause(error: &h2::Error, phase: Phase, reused: bool, body_bytes: u64) -> Cause {
    match error.get_io() {
        // The library's own word for an end without a goodbye; the system's errors carry its number.
        Some(ended) if ended.raw_os_error().is_none() => match phase {
            Phase::Body => Cause::Truncated { phase, body_bytes, expected_bytes: None },
            Phase::Connect | Phase::Send | Phase::Head => Cause::Closed { reused },
        },
        Some(error) => Cause::from_io(error, phase, reused),
        None if error.is_remote() => Cause::Reset { phase, reused },
        None => Cause::Malformed { what: error.to_string() },
    }
}
