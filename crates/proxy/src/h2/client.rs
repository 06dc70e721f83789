//! HTTP/2 to instances that speak it without TLS (gRPC, mostly): a few connections each, shared by all requests of the
//! core. The relay gets a pipe for each request, and does not see the difference.

pub(crate) mod check;
mod drive;
mod request;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::sync::Notify;

use super::wire::{Role, Watch, Wire};
use crate::codec::RESPONSE_HEAD_BYTES_MAX;
use crate::limits::{
    H2_CONNECTION_WINDOWS, H2_SEND_BUFFER_BYTES_MAX, H2_UPSTREAM_STREAMS_MAX, H2_UPSTREAMS_MAX, Limits,
};
use crate::pipe::Pipe;
use crate::stream::Stream;
use request::Requesting;

/// The connections of one core.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    /// By endpoint.
    instances: RefCell<HashMap<u64, Rc<Instance>>>,
}

#[derive(Debug, Default)]
struct Instance {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// One at a time: whoever else needs a connection gets this one as well.
    connecting: Cell<bool>,
    connected: Notify,
    next_serial: Cell<u64>,
}

#[derive(Debug)]
struct Connection {
    /// In the order in which they were established.
    serial: u64,
    send: SendRequest<Bytes>,
    state: Rc<State>,
    idle_ms: u64,
}

/// What its requests, its driver and the pool share.
#[derive(Debug)]
struct State {
    watch: Rc<Watch>,
    open: Cell<usize>,
    /// When the last request on it ended.
    used: Cell<Instant>,
    closed: Cell<bool>,
    /// The instance has said what it allows, or the connection is closed.
    ready: Notify,
}

impl State {
    fn end_request(&self) {
        self.open.set(self.open.get() - 1);
        self.used.set(Instant::now());
    }
}

/// A way to an instance for one request.
#[derive(Debug)]
pub(crate) struct Opened {
    pub pipe: Pipe,
    /// The connection was there before.
    pub reused: bool,
}

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub addr: SocketAddr,
    pub idle_ms: u64,
    pub limits: &'a Limits,
}

impl Connection {
    /// Whether another request may go this way.
    fn has_room(&self) -> bool {
        let allowed = self.send.current_max_send_streams().min(H2_UPSTREAM_STREAMS_MAX);
        self.is_open() && self.state.open.get() < allowed
    }

    fn is_open(&self) -> bool {
        !self.state.closed.get() && !self.state.watch.is_going()
    }

    fn request(&self, reused: bool) -> Opened {
        let (near, far) = Pipe::pair();
        let requesting = Requesting::new(far, self.send.clone(), Rc::clone(&self.state));
        tokio::task::spawn_local(requesting.run());
        Opened { pipe: near, reused }
    }
}

/// Lets the next one connect, however the attempt ended.
struct Attempt<'a>(&'a Instance);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.connected.notify_waiters();
    }
}

impl Upstreams {
    /// A pipe to the instance, over a connection that is there or over a new one. `fresh`: the connections that are
    /// there have just failed. `is_current`: the endpoint is in the table, so that the connection is worth keeping.
    ///
    /// # Errors
    /// When the instance does not accept, does not speak HTTP/2, or is busy on all connections that it may have.
    pub(crate) async fn open(
        &self,
        uid: u64,
        is_current: bool,
        fresh: bool,
        target: Target<'_>,
    ) -> io::Result<Opened> {
        let instance = match is_current {
            true => Rc::clone(self.instances.borrow_mut().entry(uid).or_default()),
            false => Rc::default(),
        };
        let newer_than = if fresh { instance.next_serial.get() } else { 0 };
        loop {
            let connected = instance.connected.notified();
            {
                let mut connections = instance.connections.borrow_mut();
                connections.retain(|connection| connection.is_open());
                let usable =
                    |connection: &&Rc<Connection>| connection.serial >= newer_than && connection.has_room();
                if let Some(connection) = connections.iter().find(usable) {
                    return Ok(connection.request(true));
                }
                if connections.len() >= H2_UPSTREAMS_MAX {
                    return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "all connections are busy"));
                }
            }
            if instance.connecting.get() {
                connected.await;
                continue;
            }
            instance.connecting.set(true);
            let attempt = Attempt(&instance);
            let mut connection = connect(target).await?;
            // Given when it is there: whoever found the others failing meanwhile may use it.
            connection.serial = instance.next_serial.get();
            instance.next_serial.set(connection.serial + 1);
            let connection = Rc::new(connection);
            let opened = connection.request(false);
            instance.connections.borrow_mut().push(connection);
            drop(attempt);
            return Ok(opened);
        }
    }

    /// Rule 5: keeps only the connections to these endpoints. Requests that are on the others go on; the connections end
    /// with them.
    pub(crate) fn retain(&self, is_kept: impl Fn(u64) -> bool) {
        self.instances.borrow_mut().retain(|uid, _| is_kept(*uid));
    }

    /// Closes what is unused for too long. Returns when the next one is.
    pub(crate) fn expire(&self, now_ms: u64) -> u64 {
        let mut next_ms = u64::MAX;
        for instance in self.instances.borrow().values() {
            instance.connections.borrow_mut().retain(|connection| {
                let unused = connection.state.used.get().elapsed().as_millis();
                let left_ms = match connection.state.open.get() {
                    0 => connection.idle_ms.saturating_sub(u64::try_from(unused).unwrap_or(u64::MAX)),
                    // Nothing else makes sure that somebody looks again when the last request has ended.
                    _ => connection.idle_ms,
                };
                let is_kept = connection.is_open() && left_ms > 0;
                if is_kept {
                    next_ms = next_ms.min(now_ms.saturating_add(left_ms));
                }
                is_kept
            });
        }
        next_ms
    }
}

/// Connects, and waits for the first word: whoever says nothing does not speak HTTP/2, and no request is lost to it.
async fn connect(target: Target<'_>) -> io::Result<Connection> {
    let stream = Stream::connect(target.addr).await?;
    let (wire, watch) = Wire::new(Rc::new(stream), Bytes::new(), Role::Client);
    let window_bytes = target.limits.h2_window_bytes;
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .max_header_list_size(RESPONSE_HEAD_BYTES_MAX as u32)
        .initial_window_size(window_bytes)
        .initial_connection_window_size(window_bytes * H2_CONNECTION_WINDOWS)
        .max_send_buffer_size(H2_SEND_BUFFER_BYTES_MAX);
    let (send, connection) = builder.handshake::<_, Bytes>(wire).await.map_err(io::Error::other)?;
    let state = Rc::new(State {
        watch,
        open: Cell::new(0),
        used: Cell::new(Instant::now()),
        closed: Cell::new(false),
        ready: Notify::new(),
    });
    tokio::task::spawn_local(drive::drive(
        connection,
        Rc::clone(&state),
        target.limits.h2_ping,
        target.limits.h2_pong,
    ));
    while !state.watch.settings_seen() {
        if state.closed.get() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the instance does not speak HTTP/2"));
        }
        state.ready.notified().await;
    }
    Ok(Connection { serial: 0, send, state, idle_ms: target.idle_ms })
}
