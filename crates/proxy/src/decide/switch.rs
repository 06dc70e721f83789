//! From one snapshot to the next: bind, make durable, switch.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Draining, OpenListener, Proxy, Stage};
use crate::control::{Event, RejectReason};
use crate::entrance::{Unusable, entrances};
use crate::persist::{self};
use crate::run::RunError;
use crate::snapshot::{Invalid, Listener, Snapshot};
use crate::table::Table;
use crate::worker::{NewListener, Tell};

/// How often an address that this process is just giving up is tried again.
const BIND_AGAIN: Duration = Duration::from_millis(10);

/// The cores let go of a socket when its handshakes have had their time, and a little later on a busy machine.
const LINGER_MARGIN: Duration = Duration::from_millis(500);

/// Why a snapshot is not taken over: a reason to tell, or the end of the process.
pub(super) enum NotApplied {
    Rejected(RejectReason),
    Fatal(RunError),
}

/// Whether a snapshot has to be made durable before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// It was read from there. To write it again could fail on a full disk, and would put a successor's words in the
    /// place of its predecessor's, who may yet have to go on.
    HasIt,
    Needs,
}

impl Proxy {
    pub(super) async fn apply(&mut self, snapshot: Snapshot) -> Result<(), NotApplied> {
        let reject = |reason| Err(NotApplied::Rejected(reason));
        match self.stage {
            Stage::Serving => {}
            Stage::StandingBy | Stage::Offering => return reject(RejectReason::HandingOver),
            Stage::Draining { .. } => return reject(RejectReason::Draining),
        }
        if snapshot.generation < self.current.generation {
            return reject(RejectReason::OlderGeneration);
        }
        if snapshot.generation == self.current.generation && self.current.generation > 0 {
            return match snapshot == self.current {
                true => Ok(()),
                false => reject(RejectReason::SameGenerationDifferent),
            };
        }
        if let Err(problems) = snapshot.validate() {
            return reject(RejectReason::Invalid { problems });
        }
        self.take_over(snapshot, Disk::Needs).await
    }

    /// Bind, make durable, switch; in this order, so that whatever fails leaves the old state whole.
    pub(super) async fn take_over(&mut self, snapshot: Snapshot, disk: Disk) -> Result<(), NotApplied> {
        let unusable = match disk {
            Disk::Needs => Unusable::Refuse,
            Disk::HasIt => Unusable::LeaveOut,
        };
        let limits = self.shared.limits.of_process(&snapshot.process);
        let entrances = entrances(&snapshot, &self.tickets, unusable, &limits).map_err(|(name, error)| {
            let problems = vec![Invalid::Listener { name, problem: error.to_string() }];
            NotApplied::Rejected(RejectReason::Invalid { problems })
        })?;
        let mut bound = self.bind(&snapshot).await.map_err(NotApplied::Rejected)?;
        let opened = match self.stage {
            // The cores get them when the predecessor lets them.
            Stage::StandingBy => self.tell.iter().map(|_| Vec::new()).collect(),
            Stage::Serving | Stage::Offering | Stage::Draining { .. } => {
                self.open(&bound, &snapshot).map_err(NotApplied::Rejected)?
            }
        };
        let snapshot = match disk {
            Disk::Needs => self.persist(snapshot).await.map_err(NotApplied::Rejected)?,
            Disk::HasIt => snapshot,
        };
        let mut table = self.maker.make(&snapshot, entrances);
        table.limits = limits;
        let table = Arc::new(table);
        let stays = |addr: &SocketAddr| snapshot.listeners.iter().any(|listener| listener.addr == *addr);
        let gone = self.listeners.iter().filter(|(addr, _)| !stays(addr));
        let close: Vec<u64> = gone
            .map(|(_, listener)| {
                listener.about_to_close();
                listener.uid
            })
            .collect();
        self.install(&table, opened, &close).await.map_err(NotApplied::Fatal)?;
        let closed = self.listeners.extract_if(.., |_, listener| close.contains(&listener.uid));
        self.closing.extend(closed.map(|(addr, _)| (addr, Instant::now())));
        self.listeners.append(&mut bound);
        self.inherited.close_own();
        self.show_sockets();
        let before = std::mem::replace(&mut self.table, table);
        for endpoint in before.endpoints.values() {
            if !self.table.endpoints.contains_key(&endpoint.uid) {
                self.draining.push(Draining { endpoint: Arc::clone(endpoint) });
            }
        }
        if before.spaces().any(|space| !self.table.has_space(space)) {
            self.shared.cache.retain(|space| self.table.has_space(space));
        }
        self.shared.cache.resize(self.table.limits.cache_bytes);
        self.shared.access_log.switch(snapshot.access_log);
        self.checks.follow(&snapshot, &self.table);
        self.generation.store(snapshot.generation, Ordering::Release);
        self.current = snapshot;
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Sockets for the addresses that are new.
    async fn bind(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<BTreeMap<SocketAddr, OpenListener>, RejectReason> {
        let mut bound = BTreeMap::new();
        let lingers = self.table.limits.handshake + LINGER_MARGIN;
        self.closing.retain(|_, since| since.elapsed() < lingers);
        for wanted in &snapshot.listeners {
            if self.listeners.contains_key(&wanted.addr) {
                continue;
            }
            let (socket, origin) = loop {
                match self.inherited.listen(wanted.addr) {
                    Ok(opened) => break opened,
                    // Our own socket of a moment ago still lets its last handshakes end: it is not somebody else.
                    Err(error)
                        if error.kind() == io::ErrorKind::AddrInUse
                            && self
                                .closing
                                .get(&wanted.addr)
                                .is_some_and(|since| since.elapsed() < lingers) =>
                    {
                        tokio::time::sleep(BIND_AGAIN).await;
                    }
                    Err(error) => return Err(cannot_listen(wanted, &error)),
                }
            };
            self.closing.remove(&wanted.addr);
            bound.insert(wanted.addr, OpenListener { uid: self.next_listener, socket, origin });
            self.next_listener += 1;
        }
        Ok(bound)
    }

    /// One descriptor of each new socket for every core.
    pub(super) fn open(
        &self,
        bound: &BTreeMap<SocketAddr, OpenListener>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Vec<NewListener>>, RejectReason> {
        let mut opened: Vec<Vec<NewListener>> = self.tell.iter().map(|_| Vec::new()).collect();
        for wanted in &snapshot.listeners {
            let Some(listener) = bound.get(&wanted.addr) else { continue };
            for of_core in &mut opened {
                let socket = listener.socket.try_clone().map_err(|error| cannot_listen(wanted, &error))?;
                let (uid, origin) = (listener.uid, listener.origin);
                of_core.push(NewListener { uid, addr: wanted.addr, origin, socket });
            }
        }
        Ok(opened)
    }

    async fn persist(&self, snapshot: Snapshot) -> Result<Snapshot, RejectReason> {
        let state_dir = self.state_dir.clone();
        let saving =
            tokio::task::spawn_blocking(move || persist::save(&state_dir, &snapshot).map(|()| snapshot));
        let failed = |errno, message| RejectReason::Persist { errno, message };
        match saving.await {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(error)) => Err(failed(error.raw_os_error(), error.to_string())),
            Err(error) => Err(failed(None, error.to_string())),
        }
    }

    /// Returns when every core routes by the table.
    pub(super) async fn install(
        &self,
        table: &Arc<Table>,
        opened: Vec<Vec<NewListener>>,
        close: &[u64],
    ) -> Result<(), RunError> {
        let mut waiting = Vec::new();
        for (core, (tell, open)) in self.tell.iter().zip(opened).enumerate() {
            let (done, acknowledged) = oneshot::channel();
            let told = Tell::Install { table: Arc::clone(table), open, close: close.to_vec(), done };
            tell.send(told).await.map_err(|_| RunError::Core(core))?;
            waiting.push(acknowledged);
        }
        for (core, acknowledged) in waiting.into_iter().enumerate() {
            acknowledged.await.map_err(|_| RunError::Core(core))?;
        }
        Ok(())
    }

    pub(super) fn report_drained(&mut self) {
        if self.predecessor.is_some() {
            // It drains with an older table and may still use what was removed since.
            return;
        }
        let (idle, busy): (Vec<_>, _) = std::mem::take(&mut self.draining)
            .into_iter()
            .partition(|draining: &Draining| draining.endpoint.in_flight() == 0);
        self.draining = busy;
        let idle: BTreeSet<String> =
            idle.into_iter().map(|Draining { endpoint }| endpoint.id.clone()).collect();
        for instance in idle {
            // It may have come back, or moved: then it is not drained before it is removed again, and then only
            // when nothing is left of its earlier lives either.
            let serves = self.table.endpoints.values().any(|serving| serving.id == instance);
            let still_busy = self.draining.iter().any(|draining| draining.endpoint.id == instance);
            if !serves && !still_busy {
                self.say(Event::Drained { instance });
            }
        }
    }
}

fn cannot_listen(listener: &Listener, error: &io::Error) -> RejectReason {
    RejectReason::Bind {
        listener: listener.name.clone(),
        addr: listener.addr,
        errno: error.raw_os_error(),
        message: error.to_string(),
    }
}
