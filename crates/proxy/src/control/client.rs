use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::figures::{Arms, Stats};
use super::message::{Applied, Ask, Asked, Event, Hello, Rejected, Said, Say};
use crate::snapshot::Snapshot;

/// Events kept for a slow reader. A rollout of a hundred instances makes a few hundred; whoever is further
/// behind gets [`Event::Missed`] and asks again.
const EVENTS_MAX: usize = 1_024;

/// How long the greeting may take; the proxy sends it without being asked.
const GREETING: Duration = Duration::from_secs(5);

/// Questions on their way to the socket. More than a handful at a time means that the proxy does not read;
/// askers then wait.
const LINES_MAX: usize = 16;

/// A connection to a running proxy. Cheap to clone; questions from several tasks may overlap.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hello: Hello,
    /// Whole lines to the writing task: a caller that stops waiting half-way must not leave half a line behind.
    lines: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Debug)]
enum Waiting {
    Open { next_seq: u64, answers: HashMap<u64, oneshot::Sender<Say>>, events: broadcast::Sender<Event> },
    Closed,
}

/// What went wrong between client and proxy.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot talk to the proxy: {0}")]
    Io(#[from] io::Error),
    #[error("the proxy closed the connection")]
    Closed,
    #[error("the proxy did not understand: {0}")]
    BadRequest(String),
    #[error("the proxy answered something else than was asked: {0}")]
    Unexpected(String),
}

/// Why a snapshot is not being served.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("generation {} rejected (serving {}): {}", .0.generation, .0.current, .0.reason)]
    Rejected(Rejected),
    /// The proxy may or may not have taken it over: connect again and apply the same snapshot again.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Events of one proxy, from the moment of the call to [`Client::events`].
#[derive(Debug)]
pub struct Events(Option<broadcast::Receiver<Event>>);

impl Events {
    /// `None` once the connection is gone.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Event::Missed { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Client {
    /// Connects and waits for the greeting. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When nobody answers at `path`, or not with a greeting.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let stream = super::path::connect(path.as_ref())?;
        stream.set_nonblocking(true)?;
        let (read, mut write) = UnixStream::from_std(stream)?.into_split();
        let mut reader = BufReader::new(read);
        let mut line = String::new();
        // Somebody may have the socket and not answer: a process that is dying, or that is stopped.
        let greeting = tokio::time::timeout(GREETING, reader.read_line(&mut line)).await;
        if greeting.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? == 0 {
            return Err(ClientError::Closed);
        }
        let Say::Hello(hello) = parse(&line)?.say else {
            return Err(ClientError::Unexpected(line));
        };
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let waiting = Arc::new(Mutex::new(Waiting::Open { next_seq: 1, answers: HashMap::new(), events }));
        let background = Arc::clone(&waiting);
        let reader = tokio::spawn(async move {
            loop {
                line.clear();
                match reader.read_line(&mut line).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                let Ok(said) = parse(&line) else { break };
                let mut waiting = background.lock().unwrap_or_else(PoisonError::into_inner);
                let Waiting::Open { answers, events, .. } = &mut *waiting else { break };
                match (said.seq, said.say) {
                    // Nobody listening is no error: events are for whoever wants them.
                    (_, Say::Event(event)) => drop(events.send(event)),
                    (Some(seq), say) => {
                        if let Some(answer) = answers.remove(&seq) {
                            // The asker may have stopped waiting.
                            drop(answer.send(say));
                        }
                    }
                    (None, _) => {}
                }
            }
            *background.lock().unwrap_or_else(PoisonError::into_inner) = Waiting::Closed;
        });
        let (lines, mut queue) = mpsc::channel::<Vec<u8>>(LINES_MAX);
        tokio::spawn(async move {
            while let Some(line) = queue.recv().await {
                if write.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self { shared: Arc::new(Shared { hello, lines, waiting, reader }) })
    }

    /// The greeting. Its generation is that of the moment of connecting.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.shared.hello
    }

    /// Subscribes to events from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        match &*self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Waiting::Open { events, .. } => Events(Some(events.subscribe())),
            Waiting::Closed => Events(None),
        }
    }

    /// Returns once the snapshot is durable and every core routes by it.
    ///
    /// # Errors
    /// [`ApplyError::Rejected`] with the typed reason; the previous snapshot still serves.
    pub async fn apply(&self, snapshot: &Snapshot) -> Result<Applied, ApplyError> {
        let say = self.ask(Ask::Apply { snapshot: Box::new(snapshot.clone()) }).await?;
        if let Say::Applied(applied) = say {
            Ok(applied)
        } else if let Say::Rejected(rejected) = say {
            Err(ApplyError::Rejected(rejected))
        } else {
            Err(unexpected(say).into())
        }
    }

    /// # Errors
    /// When the connection fails.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        let say = self.ask(Ask::Stats).await?;
        if let Say::Stats(stats) = say { Ok(*stats) } else { Err(unexpected(say)) }
    }

    /// What versions are judged by. `services`: their keys; empty asks for all.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn arms(&self, services: &[String]) -> Result<Arms, ClientError> {
        let say = self.ask(Ask::Arms { services: services.to_vec() }).await?;
        if let Say::Arms(arms) = say { Ok(arms) } else { Err(unexpected(say)) }
    }

    /// Prometheus text.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let say = self.ask(Ask::Metrics).await?;
        if let Say::Metrics { text } = say { Ok(text) } else { Err(unexpected(say)) }
    }

    /// Requests in flight on an instance; 0 when the proxy does not know it.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn in_flight(&self, instance: &str) -> Result<u64, ClientError> {
        let say = self.ask(Ask::InFlight { instance: instance.to_owned() }).await?;
        if let Say::InFlight { count, .. } = say { Ok(count) } else { Err(unexpected(say)) }
    }

    /// Empties the cache of some services, below `paths` or altogether; how many answers that were.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn purge(&self, services: &[String], paths: &[String]) -> Result<u64, ClientError> {
        let say = self.ask(Ask::Purge { services: services.to_vec(), paths: paths.to_vec() }).await?;
        if let Say::Purged { count } = say { Ok(count) } else { Err(unexpected(say)) }
    }

    /// # Errors
    /// When the connection fails.
    pub async fn ping(&self) -> Result<(), ClientError> {
        let say = self.ask(Ask::Ping).await?;
        if let Say::Pong = say { Ok(()) } else { Err(unexpected(say)) }
    }

    /// Asks the proxy to drain and exit; returns when it began to.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        let say = self.ask(Ask::Shutdown).await?;
        if let Say::ShuttingDown = say { Ok(()) } else { Err(unexpected(say)) }
    }

    async fn ask(&self, ask: Ask) -> Result<Say, ClientError> {
        let (sender, answer) = oneshot::channel();
        let seq = {
            let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let Waiting::Open { next_seq, answers, .. } = &mut *waiting else {
                return Err(ClientError::Closed);
            };
            let seq = *next_seq;
            *next_seq += 1;
            answers.insert(seq, sender);
            seq
        };
        let line = encode(&Asked { seq, ask })?;
        self.shared.lines.send(line).await.map_err(|_| ClientError::Closed)?;
        answer.await.map_err(|_| ClientError::Closed)
    }
}

fn unexpected(say: Say) -> ClientError {
    if let Say::BadRequest { problem } = say {
        ClientError::BadRequest(problem)
    } else {
        ClientError::Unexpected(format!("{say:?}"))
    }
}

fn parse(line: &str) -> Result<Said, ClientError> {
    serde_json::from_str(line).map_err(|e| ClientError::Unexpected(e.to_string()))
}

fn encode(asked: &Asked) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(asked)?;
    line.push(b'\n');
    Ok(line)
}
