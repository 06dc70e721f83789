use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::failure::{Cause, Phase};
use crate::response::{Head, ResponseReader, Wanted};
use crate::wire::{Protocol, Tls, Wire};

/// One read takes a usual page or API answer whole.
const READ_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: Wire,
    buffer: Box<[u8]>,
    reused: bool,
}

impl Connection {
    async fn open(target: SocketAddr, tls: Option<&Tls>) -> io::Result<Connection> {
        let stream = Wire::open(target, tls, Protocol::Http1).await?;
        Ok(Connection { stream, buffer: vec![0; READ_BYTES].into_boxed_slice(), reused: false })
    }

    pub(crate) fn is_open_and_silent(&self) -> bool {
        self.stream.is_open_and_silent()
    }
}

/// In so many pieces a slow body is sent at most: each arrives in a packet of its own.
const PIECES_MAX: usize = 10;

/// How long each piece of a slow body is, and how long to wait before each.
pub(crate) fn pieces(body_bytes: usize, over: Duration) -> (usize, Duration) {
    let piece_bytes = body_bytes.div_ceil(PIECES_MAX).max(1);
    let pieces = u32::try_from(body_bytes.div_ceil(piece_bytes)).unwrap_or(u32::MAX);
    (piece_bytes, over / pieces.max(1))
}

/// What is sent, and how fast.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// From which byte on it is sent in pieces, and over what time.
    pub(crate) slow: Option<(usize, Duration)>,
}

impl Request {
    async fn send(&self, stream: &mut Wire) -> io::Result<()> {
        let Some((at, over)) = self.slow else {
            stream.write_all(&self.bytes).await?;
            return stream.flush().await;
        };
        let (head, body) = self.bytes.split_at(at);
        stream.write_all(head).await?;
        stream.flush().await?;
        let (piece_bytes, pause) = pieces(body.len(), over);
        for piece in body.chunks(piece_bytes) {
            tokio::time::sleep(pause).await;
            stream.write_all(piece).await?;
            stream.flush().await?;
        }
        Ok(())
    }
}

/// What came of one request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) began: Instant,
    /// When the first byte of the request was about to be written.
    pub(crate) sent: Option<Instant>,
    /// When the response's head was complete.
    pub(crate) answered: Option<Instant>,
    pub(crate) finished: Instant,
    pub(crate) opened_connections: u64,
    /// How often it was sent to be told that it was not processed.
    pub(crate) refused: u64,
    /// Still good for another request.
    pub(crate) connection: Option<Connection>,
    pub(crate) head: Option<Head>,
    /// The head as it came, complete or not; empty when nothing has come.
    pub(crate) raw_head: Vec<u8>,
    pub(crate) result: Result<(), Cause>,
}

/// One request on one connection, and how far it came. Everything that a timeout must still
/// be able to tell is kept here, outside the future that the timeout drops.
#[derive(Debug)]
pub(crate) struct Exchange {
    phase: Phase,
    reader: ResponseReader,
    sent: Option<Instant>,
    answered: Option<Instant>,
    opened_connection: bool,
    connection: Option<Connection>,
}

impl Exchange {
    /// Runs to its end or to the deadline, and never fails: the result is inside.
    pub(crate) async fn run(
        target: SocketAddr,
        tls: Option<&Tls>,
        pooled: Option<Connection>,
        request: &Request,
        deadline: Instant,
        wanted: &Wanted,
    ) -> Outcome {
        let began = Instant::now();
        let mut exchange = Exchange {
            phase: Phase::Connect,
            reader: ResponseReader::new(),
            sent: None,
            answered: None,
            opened_connection: false,
            connection: None,
        };
        let drive = exchange.drive(target, tls, pooled, request, wanted);
        let result = match tokio::time::timeout_at(deadline.into(), drive).await {
            Ok(result) => result,
            Err(_) => Err(Cause::Timeout { phase: exchange.phase }),
        };
        Outcome {
            began,
            sent: exchange.sent,
            answered: exchange.answered,
            finished: Instant::now(),
            opened_connections: u64::from(exchange.opened_connection),
            refused: 0,
            connection: exchange.connection,
            head: exchange.reader.head().cloned(),
            raw_head: exchange.reader.raw_head().to_vec(),
            result,
        }
    }

    async fn drive(
        &mut self,
        target: SocketAddr,
        tls: Option<&Tls>,
        pooled: Option<Connection>,
        request: &Request,
        wanted: &Wanted,
    ) -> Result<(), Cause> {
        let mut connection = match pooled {
            Some(connection) => connection,
            None => {
                self.opened_connection = true;
                Connection::open(target, tls)
                    .await
                    .map_err(|error| Cause::from_io(&error, Phase::Connect, false))?
            }
        };
        let reused = connection.reused;
        self.phase = Phase::Send;
        self.sent = Some(Instant::now());
        request
            .send(&mut connection.stream)
            .await
            .map_err(|error| Cause::from_io(&error, Phase::Send, reused))?;

        self.phase = Phase::Head;
        while !self.reader.is_done() {
            let read = connection
                .stream
                .read(&mut connection.buffer)
                .await
                .map_err(|error| Cause::from_io(&error, self.reader.phase(), reused))?;
            if read == 0 {
                self.reader.end(reused)?;
                return Ok(());
            }
            self.reader.feed(&connection.buffer[..read], wanted)?;
            if self.answered.is_none() && self.reader.head().is_some() {
                self.answered = Some(Instant::now());
                self.phase = Phase::Body;
            }
        }
        if self.reader.keeps_alive() {
            connection.reused = true;
            self.connection = Some(connection);
        }
        Ok(())
    }
}
