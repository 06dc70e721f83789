//! The pump: the one place where state changes. Inputs in, decisions made durable, effects out.
//!
//! It runs on a thread of its own because every decision waits for an fsync.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fairway_engine::time::Timestamp;
use fairway_engine::{Decision, Effect, Event, Input, State, decide, next_deadline};
use fairway_store::{Head, Log, NewRecord, Snapshots};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::clock::Clock;
use crate::error::Refused;
use crate::record::{STATE_FORMAT, replay, to_record};

/// Inputs that may wait. Outcomes come from as many drivers as there are instances (hundreds); a full queue makes
/// the senders wait, which they can.
const INPUTS_MAX: usize = 1024;

/// Decisions that share one fsync. Past this the first of them would wait for the last for longer than an fsync takes.
const BATCH_MAX: usize = 128;

/// Events kept for a slow follower; one that falls further behind reads the log instead.
const FOLLOW_MAX: usize = 1024;

/// A snapshot each so many events bounds replay at the next start to some ten milliseconds.
const SNAPSHOT_EVERY: u64 = 5_000;

/// After a start, what drivers report comes before what the clock says: an instance that became ready while no server
/// was there must not be failed for being late. Shims answer in milliseconds, on a loaded machine in a second.
const RECOVERY: Duration = Duration::from_secs(2);

/// After a failed write, outcomes wait this long before they are tried again: a full disk does not clear in less.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// An event with its number in the log.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub seq: u64,
    pub event: Event,
}

type Reply = oneshot::Sender<Result<Vec<Recorded>, Refused>>;

enum Message {
    Input { input: Input, reply: Option<Reply> },
    Stop,
}

/// What everybody may read.
#[derive(Debug)]
pub struct Shared {
    state: RwLock<State>,
    seq: std::sync::atomic::AtomicU64,
    pub clock: Clock,
}

impl Shared {
    /// Looks at the state. Keep it short: the pump waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Number of the last event on the record.
    pub fn seq(&self) -> u64 {
        self.seq.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// Gives inputs to the pump.
#[derive(Clone, Debug)]
pub struct Pump {
    inputs: mpsc::Sender<Message>,
    pub shared: Arc<Shared>,
    follow: broadcast::Sender<Arc<Recorded>>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Message::Input { input, .. } => write!(f, "{input:?}"),
            Message::Stop => f.write_str("Stop"),
        }
    }
}

impl Pump {
    /// Carries out a command; the answer comes when it is durable.
    ///
    /// # Errors
    /// The engine's refusal, or that it could not be recorded.
    pub async fn command(&self, input: Input) -> Result<Vec<Recorded>, Refused> {
        let (reply, answer) = oneshot::channel();
        self.inputs
            .send(Message::Input { input, reply: Some(reply) })
            .await
            .map_err(|_| Refused::Stopping)?;
        answer.await.map_err(|_| Refused::Stopping)?
    }

    /// Hands over an outcome. It is kept until it is on the record.
    pub async fn outcome(&self, input: Input) {
        // Only a server that stops has no pump; the next one asks the drivers again.
        drop(self.inputs.send(Message::Input { input, reply: None }).await);
    }

    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.follow.subscribe()
    }

    /// Ends the pump after what it has before it.
    pub async fn stop(&self) {
        drop(self.inputs.send(Message::Stop).await);
    }
}

/// Starts the pump on its thread. `effects` is unbounded because its length is bounded by what the engine decides:
/// an instance, a job and a route table each have at most one effect under way.
///
/// # Errors
/// When no thread can be started.
pub fn start(
    log: Log,
    snapshots: Snapshots,
    state: State,
    seq: u64,
    clock: Clock,
    effects: mpsc::UnboundedSender<Effect>,
) -> std::io::Result<(Pump, std::thread::JoinHandle<()>)> {
    let (inputs, queue) = mpsc::channel(INPUTS_MAX);
    let (follow, _) = broadcast::channel(FOLLOW_MAX);
    let shared = Arc::new(Shared { state: RwLock::new(state), seq: seq.into(), clock });
    let pump = Pump { inputs, shared: Arc::clone(&shared), follow: follow.clone() };
    let runtime = tokio::runtime::Handle::current();
    let mut worker = Worker {
        log,
        snapshots,
        shared,
        effects,
        follow,
        since_snapshot: 0,
        waiting: Vec::new(),
        disk: Disk::Writes,
    };
    let thread =
        std::thread::Builder::new().name("pump".to_owned()).spawn(move || worker.run(&runtime, queue))?;
    Ok((pump, thread))
}

struct Worker {
    log: Log,
    snapshots: Snapshots,
    shared: Arc<Shared>,
    effects: mpsc::UnboundedSender<Effect>,
    follow: broadcast::Sender<Arc<Recorded>>,
    since_snapshot: u64,
    /// Outcomes that could not be recorded yet.
    waiting: Vec<Input>,
    disk: Disk,
}

/// What came of the last append.
enum Disk {
    Writes,
    Refuses,
}

impl Worker {
    fn run(&mut self, runtime: &tokio::runtime::Handle, mut queue: mpsc::Receiver<Message>) {
        loop {
            let mut batch: Vec<(Input, Option<Reply>)> =
                self.waiting.drain(..).map(|input| (input, None)).collect();
            let wait = match self.disk {
                // Without the pause a deadline that is due would be decided and refused without end.
                Disk::Refuses => Some(RETRY_AFTER),
                Disk::Writes => self.until_deadline(),
            };
            let first = runtime.block_on(async {
                match wait {
                    Some(wait) => tokio::time::timeout(wait, queue.recv()).await,
                    None => Ok(queue.recv().await),
                }
            });
            let mut stop = false;
            match first {
                Ok(Some(Message::Input { input, reply })) => batch.push((input, reply)),
                Ok(Some(Message::Stop) | None) => stop = true,
                Err(_) => {}
            }
            while !stop && batch.len() < BATCH_MAX {
                match queue.try_recv() {
                    Ok(Message::Input { input, reply }) => batch.push((input, reply)),
                    Ok(Message::Stop) => stop = true,
                    Err(_) => break,
                }
            }
            let due =
                self.shared.read(next_deadline).is_some_and(|deadline| deadline <= self.shared.clock.now());
            if due {
                batch.push((Input::Tick, None));
            }
            if !batch.is_empty() {
                self.carry_out(batch);
            }
            if stop {
                self.snapshot();
                return;
            }
        }
    }

    fn until_deadline(&self) -> Option<Duration> {
        let now = self.shared.clock.now();
        self.deadline().map(|deadline| deadline.since(now))
    }

    fn deadline(&self) -> Option<Timestamp> {
        let not_before = self.shared.clock.started_at() + RECOVERY;
        self.shared.read(next_deadline).map(|deadline| deadline.max(not_before))
    }

    /// Decides a batch, makes it durable with one fsync, and only then lets anything of it out.
    fn carry_out(&mut self, batch: Vec<(Input, Option<Reply>)>) {
        let now = self.shared.clock.now();
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut events: Vec<Event> = Vec::new();
        let mut effects: Vec<Effect> = Vec::new();
        let mut decided: Vec<(Input, Option<Reply>, std::ops::Range<usize>)> = Vec::new();
        for (input, reply) in batch {
            match decide(&state, now, &input) {
                Ok(Decision { events: new, effects: todo, .. }) => {
                    let from = events.len();
                    for event in new {
                        if let Err(illegal) = state.apply(&event) {
                            // `decide` applied it to its copy a moment ago: the two are the same code.
                            unreachable!("an event that was legal is not: {illegal}");
                        }
                        events.push(event);
                    }
                    effects.extend(todo);
                    decided.push((input, reply, from..events.len()));
                }
                Err(refusal) => match reply {
                    Some(reply) => drop(reply.send(Err(refusal.into()))),
                    None => eprintln!("fairway: refused {input:?}: {refusal}"),
                },
            }
        }
        let first = self.shared.seq() + 1;
        let records: Result<Vec<NewRecord>, _> = events.iter().map(to_record).collect();
        let recorded = records.map_err(|e| Refused::NotRecorded(e.to_string())).and_then(|records| {
            if records.is_empty() {
                Ok(())
            } else {
                self.log.append(first, &records).map(drop).map_err(Refused::from)
            }
        });
        self.disk = if recorded.is_ok() { Disk::Writes } else { Disk::Refuses };
        if let Err(error) = recorded {
            self.take_back(&mut state);
            drop(state);
            eprintln!("fairway: {error}");
            for (input, reply, _) in decided {
                match reply {
                    Some(reply) => drop(reply.send(Err(Refused::NotRecorded(error.to_string())))),
                    // What has happened has happened: it is told again until it is on the record.
                    None => match input {
                        Input::Outcome { .. } => self.waiting.push(input),
                        Input::Command { .. } | Input::Tick => {}
                    },
                }
            }
            return;
        }
        let last = first + events.len() as u64 - 1;
        self.shared.seq.store(last, std::sync::atomic::Ordering::Release);
        drop(state);

        for effect in effects {
            // Drivers live as long as the server.
            drop(self.effects.send(effect));
        }
        let recorded: Vec<Recorded> =
            events.into_iter().zip(first..).map(|(event, seq)| Recorded { seq, event }).collect();
        for one in &recorded {
            // Nobody following is no error.
            drop(self.follow.send(Arc::new(one.clone())));
        }
        for (_, reply, range) in decided {
            if let Some(reply) = reply {
                drop(reply.send(Ok(recorded[range].to_vec())));
            }
        }
        self.since_snapshot += recorded.len() as u64;
        if self.since_snapshot >= SNAPSHOT_EVERY {
            self.snapshot();
        }
    }

    /// Memory ran ahead of the disk; the disk is right.
    fn take_back(&self, state: &mut State) {
        match self
            .log
            .reader()
            .map_err(crate::error::StartError::from)
            .and_then(|log| replay(&log, &self.snapshots))
        {
            Ok((read, _)) => *state = read,
            Err(error) => {
                // Going on with a state that is not on the record would be a lie; the next start reads what is there.
                eprintln!("fairway: the log cannot be read back, stopping: {error}");
                std::process::exit(1);
            }
        }
    }

    /// Failing to write one costs replay time at the next start, nothing else.
    fn snapshot(&mut self) {
        self.since_snapshot = 0;
        let written = self.log.head().map_err(|e| e.to_string()).and_then(|head: Head| {
            let bytes = self.shared.read(serde_json::to_vec).map_err(|e| e.to_string())?;
            self.snapshots.put(STATE_FORMAT, head, &bytes).map_err(|e| e.to_string())
        });
        if let Err(error) = written {
            eprintln!("fairway: no snapshot: {error}");
        }
    }
}
