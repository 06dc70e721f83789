//! One core: its listeners, its routing state, its idle upstream connections, its deadlines.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::accesslog;
use crate::balance::Routing;
use crate::clients::Clients;
use crate::conn;
use crate::conn::mirror::Copies;
use crate::deadline::Deadlines;
use crate::h2::client::Upstreams;
use crate::limits::{CAREFUL_REUSE, Limits};
use crate::listen::Origin;
use crate::policy::cache::Cache;
use crate::stream::Stream;
use crate::table::Table;
use crate::trace::Random;

/// What all cores share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub limits: Limits,
    pub access_log: accesslog::Switch,
    /// Routes or health changed: held requests look again.
    pub changed: Notify,
    pub accepted: AtomicU64,
    /// Open client connections per core.
    pub open: Box<[AtomicU64]>,
    /// Requests refused before a route was found, by status. One counter for all cores: refusals are rare.
    pub refused: std::sync::Mutex<BTreeMap<u16, u64>>,
    /// Who has how many connections, as far as that is limited.
    pub clients: Clients,
    /// Connections that ended before they spoke TLS.
    pub failed_handshakes: AtomicU64,
    pub cache: Arc<Cache>,
}

impl Shared {
    pub(crate) fn count_failed_handshake(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }
}

/// A listening socket on its way to a core.
#[derive(Debug)]
pub(crate) struct NewListener {
    pub uid: u64,
    pub addr: SocketAddr,
    pub origin: Origin,
    pub socket: std::net::TcpListener,
}

/// What a core is told.
#[derive(Debug)]
pub(crate) enum Tell {
    /// Route by this table; open and close listeners. `done` when no request is routed by the old one any more.
    Install { table: Arc<Table>, open: Vec<NewListener>, close: Vec<u64>, done: oneshot::Sender<()> },
    /// Stop accepting and drain; `done` when no connection is left. `queue`: whose the sockets' queues are now.
    Drain { queue: Origin, done: oneshot::Sender<()> },
}

/// An unused connection to an instance.
#[derive(Debug)]
struct Idle {
    stream: Stream,
    /// Bytes written over its life; needed to prove that a later request was not received.
    written: u64,
    since_ms: u64,
    expires_ms: u64,
}

/// How sure a request must be that its connection is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// It can be repeated.
    Freely,
    /// It cannot: only a connection that was used a moment ago and that the kernel says is open.
    Carefully,
}

/// A connection to an instance, in use.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub stream: Stream,
    pub written: u64,
    pub reused: bool,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub core: usize,
    pub shared: Arc<Shared>,
    pub deadlines: Rc<Deadlines>,
    pub random: Random,
    pub copies: Copies,
    routing: RefCell<Rc<Routing>>,
    /// Unused connections by endpoint; exactly the endpoints of the current table have an entry.
    pools: RefCell<BTreeMap<u64, Vec<Idle>>>,
    /// Connections to instances that speak HTTP/2.
    pub upstreams: Upstreams,
    /// Streams of HTTP/2 clients, each of which has a deadline like a connection.
    streams: Cell<usize>,
    listeners: RefCell<HashMap<u64, Rc<Accepting>>>,
    state: Cell<State>,
    /// Accepting tasks that have not ended.
    accepting: Cell<usize>,
    /// A connection or an accepting task ended.
    closed: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    Draining,
}

/// A listener on this core.
#[derive(Debug)]
pub(crate) struct Accepting {
    pub uid: u64,
    pub addr: SocketAddr,
    origin: Cell<Origin>,
    state: Cell<State>,
    stop: Notify,
}

impl Worker {
    pub(crate) fn new(core: usize, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            core,
            shared,
            deadlines: Deadlines::new(),
            random: Random::new(),
            copies: Copies::default(),
            routing: RefCell::new(Rc::new(Routing::new(Arc::new(Table::default()), None))),
            pools: RefCell::default(),
            upstreams: Upstreams::default(),
            streams: Cell::new(0),
            listeners: RefCell::default(),
            state: Cell::new(State::Serving),
            accepting: Cell::new(0),
            closed: Notify::new(),
        })
    }

    /// Runs until the sender of `tell` is gone.
    pub(crate) async fn run(self: Rc<Self>, mut tell: mpsc::Receiver<Tell>) {
        let mut next_ms = 0;
        loop {
            tokio::select! {
                told = tell.recv() => match told {
                    Some(Tell::Install { table, open, close, done }) => {
                        self.install(table, open, &close);
                        // The control side may have gone; then nobody waits.
                        let _ = done.send(());
                    }
                    Some(Tell::Drain { queue, done }) => {
                        self.drain(queue);
                        let worker = Rc::clone(&self);
                        tokio::task::spawn_local(async move {
                            worker.drained().await;
                            let _ = done.send(());
                        });
                    }
                    None => return,
                },
                () = self.deadlines.until_look(next_ms) => {
                    let look = self.deadlines.look();
                    next_ms = look.next_ms.min(self.expire_idle(look.now_ms));
                    let connections = self.deadlines.len().saturating_sub(self.streams.get());
                    self.shared.open[self.core].store(connections as u64, Ordering::Relaxed);
                }
            }
        }
    }

    pub(crate) fn routing(&self) -> Rc<Routing> {
        Rc::clone(&self.routing.borrow())
    }

    pub(crate) fn is_current(&self, routing: &Rc<Routing>) -> bool {
        Rc::ptr_eq(&self.routing.borrow(), routing)
    }

    fn install(self: &Rc<Self>, table: Arc<Table>, open: Vec<NewListener>, close: &[u64]) {
        let routing = Routing::new(table, Some(&self.routing.borrow()));
        {
            let mut pools = self.pools.borrow_mut();
            // Rule 5: connections to a removed instance are closed before its drain is reported.
            pools.retain(|uid, _| routing.table.endpoints.contains_key(uid));
            self.upstreams.retain(|uid| routing.table.endpoints.contains_key(&uid));
            for uid in routing.table.endpoints.keys() {
                pools.entry(*uid).or_default();
            }
        }
        let before = self.routing.replace(Rc::new(routing));
        self.deadlines.drain_streams(|endpoint| !self.has_endpoint(endpoint));
        self.copies.look();
        for uid in close {
            if let Some(listener) = self.listeners.borrow_mut().remove(uid) {
                listener.state.set(State::Draining);
                listener.stop.notify_one();
                self.deadlines.drain(idle_drain(&before, listener.addr), Some(*uid));
            }
        }
        for new in open {
            self.listen(new);
        }
    }

    fn listen(self: &Rc<Self>, new: NewListener) {
        // Binding succeeded and the socket is non-blocking: registering it can only fail for want of memory.
        let socket = match TcpListener::from_std(new.socket) {
            Ok(socket) => socket,
            Err(error) => {
                eprintln!("fairway proxy: core {} cannot accept on {}: {error}", self.core, new.addr);
                return;
            }
        };
        let state = Cell::new(State::Serving);
        let listener = Rc::new(Accepting {
            uid: new.uid,
            addr: new.addr,
            origin: Cell::new(new.origin),
            state,
            stop: Notify::new(),
        });
        self.listeners.borrow_mut().insert(new.uid, Rc::clone(&listener));
        self.accepting.set(self.accepting.get() + 1);
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            accept(&worker, &listener, socket).await;
            worker.accepting.set(worker.accepting.get() - 1);
            worker.closed.notify_one();
        });
    }

    fn drain(&self, queue: Origin) {
        self.state.set(State::Draining);
        let routing = self.routing();
        for (uid, listener) in self.listeners.borrow_mut().drain() {
            if queue == Origin::Inherited {
                listener.origin.set(queue);
            }
            listener.state.set(State::Draining);
            listener.stop.notify_one();
            self.deadlines.drain(idle_drain(&routing, listener.addr), Some(uid));
        }
    }

    async fn drained(&self) {
        while self.deadlines.len() > 0 || self.accepting.get() > 0 {
            self.closed.notified().await;
        }
    }

    /// Whether responses on connections of this listener must announce the end of the connection.
    pub(crate) fn is_draining(&self, listener: &Accepting) -> bool {
        self.state.get() == State::Draining || listener.state.get() == State::Draining
    }

    /// Whether the current table still has the endpoint.
    pub(crate) fn has_endpoint(&self, uid: u64) -> bool {
        self.pools.borrow().contains_key(&uid)
    }

    /// The most recently used idle connection that nothing arrived on.
    pub(crate) fn take_idle(&self, uid: u64, reuse: Reuse) -> Option<Upstream> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&uid)?;
        let now = self.deadlines.now_ms();
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        let careful_ms = u64::try_from(CAREFUL_REUSE.as_millis()).unwrap_or(0);
        while let Some(idle) = pool.pop() {
            if reuse == Reuse::Carefully && idle.since_ms + careful_ms < now {
                // It still serves requests that can be repeated; those below it are older.
                pool.push(idle);
                return None;
            }
            // Readable means closed, or answered unasked. The readiness was cached: this asks no system call.
            let quiet = idle.expires_ms > now && idle.stream.poll_read_ready(&mut nobody).is_pending();
            if quiet && (reuse == Reuse::Freely || idle.stream.is_quiet()) {
                return Some(Upstream { stream: idle.stream, written: idle.written, reused: true });
            }
        }
        None
    }

    pub(crate) fn put_idle(&self, uid: u64, upstream: Upstream, idle_ms: u64, most: u32) {
        if let Some(pool) = self.pools.borrow_mut().get_mut(&uid)
            && pool.len() < most as usize
        {
            let since_ms = self.deadlines.now_ms();
            let expires_ms = since_ms + idle_ms;
            pool.push(Idle { stream: upstream.stream, written: upstream.written, since_ms, expires_ms });
        }
    }

    /// Closes what is too old or was closed by its instance. Returns when the next one is too old.
    fn expire_idle(&self, now_ms: u64) -> u64 {
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        let mut next_ms = self.upstreams.expire(now_ms);
        for pool in self.pools.borrow_mut().values_mut() {
            pool.retain(|idle| {
                let is_good =
                    idle.expires_ms > now_ms && idle.stream.poll_read_ready(&mut nobody).is_pending();
                if is_good {
                    next_ms = next_ms.min(idle.expires_ms);
                }
                is_good
            });
        }
        next_ms
    }

    fn connections_max(&self) -> usize {
        self.routing.borrow().table.limits.connections_per_core
    }

    /// Whether another connection, or stream of one, can be served.
    pub(crate) fn has_room(&self) -> bool {
        self.deadlines.len() < self.connections_max()
    }

    /// See [`ROOM_SHARE`].
    fn keep_room(&self) {
        let all = self.connections_max();
        let room = (all / ROOM_SHARE).max(1);
        if self.deadlines.len() + room > all {
            self.deadlines.make_room(room, all);
        }
    }

    pub(crate) fn begin_stream(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    pub(crate) fn end_stream(&self) {
        self.streams.set(self.streams.get() - 1);
        self.closed.notify_one();
    }

    pub(crate) fn count_refusal(&self, status: u16) {
        let mut refused = self.shared.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *refused.entry(status).or_default() += 1;
    }
}

fn idle_drain(routing: &Routing, listener: SocketAddr) -> Duration {
    let table = &routing.table;
    table.entrances.get(&listener).map_or(table.limits.idle_drain, |entrance| entrance.limits.idle_drain)
}

/// Pause after an accept that failed for want of descriptors or memory; without it the core would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// So much of a core is kept free, by connections that wait making room: whoever holds connections without asking
/// anything cannot keep others out. Large enough for those who come while the displaced go.
const ROOM_SHARE: usize = 16;

async fn accept(worker: &Rc<Worker>, listener: &Rc<Accepting>, socket: TcpListener) {
    let until_stopped = accept_until(worker, listener, &socket, listener.stop.notified());
    until_stopped.await;
    match listener.origin.get() {
        // Its queue is for whoever holds the socket after us.
        Origin::Inherited => {}
        // Rule 1: who believes to be connected is served. The deciding thread made the kernel drop new SYNs, so
        // this ends.
        Origin::Own => {
            let handshake = tokio::time::sleep(worker.routing.borrow().table.limits.handshake);
            accept_until(worker, listener, &socket, handshake).await;
        }
    }
}

async fn accept_until(
    worker: &Rc<Worker>,
    listener: &Rc<Accepting>,
    socket: &TcpListener,
    end: impl Future<Output = ()>,
) {
    let mut end = std::pin::pin!(end);
    loop {
        while worker.deadlines.len() >= worker.connections_max() && listener.state.get() == State::Serving {
            worker.keep_room();
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        tokio::select! {
            biased;
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => serve(worker, listener, stream, peer),
                Err(error) if is_about_one_connection(&error) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            () = &mut end => return,
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn serve(worker: &Rc<Worker>, listener: &Rc<Accepting>, stream: TcpStream, peer: SocketAddr) {
    worker.shared.accepted.fetch_add(1, Ordering::Relaxed);
    // Fails only on a connection that is gone already; reading from it will tell.
    let _ = stream.set_nodelay(true);
    worker.keep_room();
    let deadline = worker.deadlines.register(listener.uid);
    let (worker, listener) = (Rc::clone(worker), Rc::clone(listener));
    tokio::task::spawn_local(async move {
        conn::welcome(Rc::clone(&worker), listener, stream, peer, deadline).await;
        worker.closed.notify_one();
    });
}
