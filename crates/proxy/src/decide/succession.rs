//! From one process to the next: what the deciding thread of either does.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{DRAIN_LOOK, Proxy, Queue, Stage};
use crate::control::{Client, Command};
use crate::endpoint::Health;
use crate::handover::{FIRST_ACCEPT, Offer, Predecessor, Said, Step};
use crate::run::RunError;

/// How long a successor waits for the first health checks.
const FIRST_CHECKS: Duration = Duration::from_secs(10);

/// To answer itself, which takes a millisecond on an idle machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

impl Proxy {
    /// Takes the place of the predecessor. Everything that can fail comes before it lets go.
    pub(super) async fn succeed(&mut self, mut predecessor: Predecessor, own: &Path) -> Result<(), RunError> {
        self.await_first_checks().await;
        self.ask_itself(own).await?;
        let generation = self.current.generation;
        let (mut predecessor, said) = apart(move || {
            let said = predecessor.ready(generation);
            (predecessor, said)
        })
        .await?;
        match said.map_err(RunError::TakeOver)? {
            Said::Yes => {}
            // The words that follow get the same answer.
            Said::Dead => {
                predecessor.trial = true;
                self.accept_new();
            }
        }
        self.accept().await?;
        if predecessor.trial {
            self.await_first_accept().await?;
        }
        let settled = apart(move || predecessor.settled()).await?.and_then(|alone| {
            let Some(alone) = alone else {
                self.accept_new();
                return Ok(None);
            };
            alone.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(alone).map(Some)
        });
        match settled {
            Ok(alone) => {
                self.predecessor = alone;
                self.stage = Stage::Serving;
                Ok(())
            }
            Err(error) => {
                // Who came to us in between is served; all others are the predecessor's.
                self.drain(Queue::OfPredecessor);
                super::exit(&mut self.stage).await;
                Err(RunError::TakeOver(error))
            }
        }
    }

    /// Waits until every instance was checked once, but not for ever: a check that hangs must not keep a
    /// successor from serving.
    async fn await_first_checks(&self) {
        let unchecked = || self.table.endpoints.values().any(|e| e.health() == Health::Unchecked);
        let until = Instant::now() + FIRST_CHECKS;
        while unchecked() && Instant::now() < until {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// A proxy that cannot be told anything must not come into anybody's place.
    async fn ask_itself(&mut self, own: &Path) -> Result<(), RunError> {
        let own = own.to_owned();
        let asking = async move { Client::connect(&own).await?.ping().await };
        let mut asking = tokio::spawn(tokio::time::timeout(ANSWER_WITHIN, asking));
        loop {
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(Command { ask, reply }) = command else { continue };
                    // Only this process knows the name.
                    let _ = reply.send(self.answer(ask).await?);
                }
                answered = &mut asking => {
                    let fail = |why: String| RunError::TakeOver(io::Error::other(format!("it does not answer itself: {why}")));
                    return match answered {
                        Ok(Ok(Ok(()))) => Ok(()),
                        Ok(Ok(Err(error))) => Err(fail(error.to_string())),
                        Ok(Err(late)) => Err(fail(late.to_string())),
                        Err(panic) => Err(fail(panic.to_string())),
                    };
                }
            }
        }
    }

    /// A predecessor that was told to end while it handed over has said that nobody new is taken.
    fn accept_new(&self) {
        self.listeners.values().for_each(|listener| crate::listen::accept_new(&listener.socket));
    }

    /// Opens on every core what was only held so far.
    async fn accept(&mut self) -> Result<(), RunError> {
        let opened = self.open(&self.listeners, &self.current);
        let opened = opened.map_err(|reason| RunError::TakeOver(io::Error::other(reason.to_string())))?;
        self.install(&Arc::clone(&self.table), opened, &[]).await
    }

    async fn await_first_accept(&self) -> Result<(), RunError> {
        let until = Instant::now() + FIRST_ACCEPT;
        while self.shared.accepted.load(Ordering::Relaxed) == 0 && Instant::now() < until {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        match self.tell.iter().position(tokio::sync::mpsc::Sender::is_closed) {
            Some(core) => Err(RunError::Core(core)),
            None => Ok(()),
        }
    }

    /// A predecessor closes its socket when it lets go, which may be a moment later.
    pub(super) async fn bind_metrics(&self, addr: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let until = Instant::now() + FIRST_CHECKS;
        loop {
            match tokio::net::TcpListener::bind(addr).await {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && self.predecessor.is_some()
                        && Instant::now() < until =>
                {
                    tokio::time::sleep(DRAIN_LOOK).await;
                }
                result => return result,
            }
        }
    }

    /// What a successor asks of this process.
    pub(super) fn hand_over(&mut self, step: Step) {
        match step {
            Step::Offer { reply } => {
                let sockets = self.listeners.values().map(|listener| listener.socket.try_clone());
                let offer = match (&self.stage, sockets.collect::<io::Result<Vec<_>>>()) {
                    (Stage::Serving, Ok(sockets)) => {
                        self.stage = Stage::Offering;
                        let tickets = self.tickets.keys();
                        Some(Offer { generation: self.current.generation, sockets, tickets })
                    }
                    (Stage::StandingBy | Stage::Serving | Stage::Offering | Stage::Draining { .. }, _) => {
                        None
                    }
                };
                // Whoever asked is gone: so is its interest.
                let _ = reply.send(offer);
            }
            Step::Withdraw => {
                if matches!(self.stage, Stage::Offering) {
                    self.stage = Stage::Serving;
                }
            }
            Step::Ready { mut successor } => {
                if !matches!(self.stage, Stage::Offering) {
                    // Told to end meanwhile: then so is whoever would come after.
                    successor.refuse();
                    return;
                }
                if successor.let_go().is_err() {
                    // It died while it was about to serve.
                    self.stage = Stage::Serving;
                    return;
                }
                for door in self.doors.drain(..) {
                    door.abort();
                }
                // Clients see the end of the connection and find the successor at the same path.
                self.events = None;
                self.drain(Queue::OfSuccessor(successor));
            }
        }
    }
}

/// The conversation waits for the other process, which the threads that serve must not.
async fn apart<T: Send + 'static>(talk: impl FnOnce() -> T + Send + 'static) -> Result<T, RunError> {
    tokio::task::spawn_blocking(talk).await.map_err(|panic| RunError::TakeOver(io::Error::other(panic)))
}
