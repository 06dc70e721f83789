//! The pump: the one place where state changes. Inputs in, decisions made durable, effects out.
//!
//! It runs on a thread of its own because every decision waits for an fsync.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fairway_engine::time::Timestamp;
use fairway_engine::{Decision, Effect, Event, Input, State, UpgradeStep, decide, next_deadline};
use fairway_store::{AppendError, Head, Log, NewRecord, Snapshots};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::clock::Clock;
use crate::error::Refused;
use crate::record::{STATE_FORMAT, to_record};
use crate::warn::warn;

/// Outcomes that may wait. They come from as many drivers as there are instances (hundreds); a full queue makes
/// the senders wait, which they can.
const OUTCOMES_MAX: usize = 1024;

/// Commands that may wait. People give them: more than this at a time is a script that can wait as well.
const COMMANDS_MAX: usize = 64;

/// Outcomes held while the disk refuses them. Past this the drivers hold theirs back: what an instance came to is in
/// its directory until somebody reads it.
const WAITING_MAX: usize = 1024;

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

/// The engine refuses the passing of time only by a defect. Asked again without a pause it would burn a core and fill
/// the log of the server with the same line.
const TICK_AGAIN: Duration = Duration::from_secs(5);

/// Enough to see which input it was, and of what.
const BRIEF_CHARS_MAX: usize = 300;

/// An event with its number in the log.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub seq: u64,
    pub event: Event,
}

type Answer = Result<Vec<Recorded>, Refused>;

/// An input and who waits for what comes of it.
#[derive(Debug)]
struct Asked {
    input: Input,
    reply: Option<oneshot::Sender<Answer>>,
}

#[derive(Debug)]
enum Order {
    Command(Asked),
    Stop,
}

/// What everybody may read: nothing that is not on the record.
#[derive(Debug)]
pub struct Shared {
    state: RwLock<State>,
    seq: std::sync::atomic::AtomicU64,
    pub clock: Clock,
}

impl Shared {
    /// Looks at the state. Never waits for the disk; keep it short all the same, the pump waits meanwhile.
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
    orders: mpsc::Sender<Order>,
    outcomes: mpsc::Sender<Asked>,
    pub shared: Arc<Shared>,
    follow: broadcast::Sender<Arc<Recorded>>,
}

impl Pump {
    /// Carries out a command; the answer comes when it is durable.
    ///
    /// # Errors
    /// The engine's refusal, or that it could not be recorded.
    pub async fn command(&self, input: Input) -> Answer {
        let (reply, answer) = oneshot::channel();
        let order = Order::Command(Asked { input, reply: Some(reply) });
        self.orders.send(order).await.map_err(|_| Refused::Stopping)?;
        answer.await.map_err(|_| Refused::Stopping)?
    }

    /// Hands over an outcome. It is kept until it is on the record.
    pub async fn outcome(&self, input: Input) {
        // Only a server that stops has no pump; the next one asks the drivers again.
        drop(self.outcomes.send(Asked { input, reply: None }).await);
    }

    /// Hands over an outcome and waits, for as long as the disk is full if need be, until it is on the record.
    ///
    /// # Errors
    /// The engine's refusal, or that the server stops; never that it could not be recorded yet.
    pub async fn recorded_outcome(&self, input: Input) -> Answer {
        let (reply, answer) = oneshot::channel();
        let asked = Asked { input, reply: Some(reply) };
        self.outcomes.send(asked).await.map_err(|_| Refused::Stopping)?;
        answer.await.map_err(|_| Refused::Stopping)?
    }

    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.follow.subscribe()
    }

    /// Ends the pump after what it has before it.
    pub async fn stop(&self) {
        drop(self.orders.send(Order::Stop).await);
    }

    /// Returns when the pump is no more, for whatever reason. A server without one only looks alive.
    pub async fn ended(&self) {
        self.orders.closed().await;
    }
}

/// Starts the pump on its thread, which ends with the reason why it could not go on, or without one when it was told
/// to stop. `effects` is unbounded because its length is bounded by what the engine decides: an instance, a job and a
/// route table each have at most one effect under way.
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
) -> std::io::Result<(Pump, std::thread::JoinHandle<Result<(), Broken>>)> {
    let (orders, order_queue) = mpsc::channel(COMMANDS_MAX);
    let (outcomes, outcome_queue) = mpsc::channel(OUTCOMES_MAX);
    let (follow, _) = broadcast::channel(FOLLOW_MAX);
    let ahead = state.clone();
    let shared = Arc::new(Shared { state: RwLock::new(state), seq: seq.into(), clock });
    let pump = Pump { orders, outcomes, shared: Arc::clone(&shared), follow: follow.clone() };
    let runtime = tokio::runtime::Handle::current();
    let mut worker = Worker {
        log,
        snapshots,
        shared,
        ahead,
        effects,
        follow,
        since_snapshot: 0,
        waiting: VecDeque::new(),
        disk: Disk::Writes,
        no_tick_before: clock.started_at() + RECOVERY,
    };
    let thread = std::thread::Builder::new()
        .name("pump".to_owned())
        .spawn(move || worker.run(&runtime, order_queue, outcome_queue))?;
    Ok((pump, thread))
}

/// Why a pump cannot go on. The next server reads what is really on the record.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Broken(AppendError);

struct Worker {
    log: Log,
    snapshots: Snapshots,
    shared: Arc<Shared>,
    /// What decisions are made on: what everybody may read and, while it is being written, what comes after it.
    ahead: State,
    effects: mpsc::UnboundedSender<Effect>,
    follow: broadcast::Sender<Arc<Recorded>>,
    since_snapshot: u64,
    /// Outcomes that are not on the record yet, oldest first.
    waiting: VecDeque<Asked>,
    disk: Disk,
    no_tick_before: Timestamp,
}

/// What came of the last append.
#[derive(PartialEq, Eq)]
enum Disk {
    Writes,
    Refuses { why: String },
}

/// What an input has led to, while it is not on the record.
struct Decided {
    asked: Asked,
    events: std::ops::Range<usize>,
}

/// What came of writing a batch down.
enum Written {
    Durable,
    /// One of the inputs leads to a record that the log can never take.
    Impossible {
        index: usize,
        why: AppendError,
    },
    /// Why, for people.
    NotNow(String),
}

impl Worker {
    fn run(
        &mut self,
        runtime: &tokio::runtime::Handle,
        mut orders: mpsc::Receiver<Order>,
        mut outcomes: mpsc::Receiver<Asked>,
    ) -> Result<(), Broken> {
        loop {
            let wait = match self.disk {
                // Without the pause a deadline that is due would be decided and refused without end.
                Disk::Refuses { .. } => Some(RETRY_AFTER),
                Disk::Writes if !self.waiting.is_empty() => Some(Duration::ZERO),
                Disk::Writes => self.until_deadline(),
            };
            let has_room = self.waiting.len() < WAITING_MAX;
            let first = runtime.block_on(async {
                let pause = async {
                    match wait {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    order = orders.recv() => First::Order(order),
                    Some(outcome) = outcomes.recv(), if has_room => First::Outcome(outcome),
                    () = pause => First::Nothing,
                }
            });
            let mut stop = false;
            let mut commands = Vec::new();
            let mut order = match first {
                First::Order(order) => Some(order.unwrap_or(Order::Stop)),
                First::Outcome(outcome) => {
                    self.waiting.push_back(outcome);
                    None
                }
                First::Nothing => None,
            };
            while let Some(one) = order.take().or_else(|| orders.try_recv().ok()) {
                match one {
                    Order::Command(asked) => commands.push(asked),
                    Order::Stop => stop = true,
                }
                if stop || commands.len() >= BATCH_MAX {
                    break;
                }
            }
            while self.waiting.len() < BATCH_MAX
                && let Ok(outcome) = outcomes.try_recv()
            {
                self.waiting.push_back(outcome);
            }
            // What has happened comes before what is wanted, and both before what the clock says.
            let of_waiting = self.waiting.len().min(BATCH_MAX);
            let mut batch: Vec<Asked> = self.waiting.drain(..of_waiting).collect();
            batch.append(&mut commands);
            if self.deadline().is_some_and(|deadline| deadline <= self.shared.clock.now()) {
                batch.push(Asked { input: Input::Tick, reply: None });
            }
            if !batch.is_empty() {
                self.carry_out(batch)?;
            }
            if stop {
                self.snapshot();
                return Ok(());
            }
        }
    }

    fn until_deadline(&self) -> Option<Duration> {
        let now = self.shared.clock.now();
        self.deadline().map(|deadline| deadline.since(now))
    }

    fn deadline(&self) -> Option<Timestamp> {
        next_deadline(&self.ahead).map(|deadline| deadline.max(self.no_tick_before))
    }

    /// Decides a batch, makes it durable with one fsync, and only then lets anything of it out.
    fn carry_out(&mut self, mut batch: Vec<Asked>) -> Result<(), Broken> {
        // Each further round is without one input more.
        loop {
            let (decided, events, effects) = self.decide_all(batch);
            match self.write(&events)? {
                Written::Durable => {
                    // That nothing had to be written says nothing about the disk.
                    if !events.is_empty() {
                        self.set(Disk::Writes);
                    }
                    self.let_out(decided, events, effects);
                    return Ok(());
                }
                Written::NotNow(why) => {
                    self.set(Disk::Refuses { why: why.clone() });
                    self.ahead = self.shared.read(State::clone);
                    self.keep_outcomes(decided, &why);
                    return Ok(());
                }
                Written::Impossible { index, why } => {
                    self.ahead = self.shared.read(State::clone);
                    batch = Vec::new();
                    for Decided { asked, events } in decided {
                        if events.contains(&index) {
                            warn(format_args!(
                                "given up, it can never be recorded: {}: {why}",
                                brief(&asked.input)
                            ));
                            answer(asked.reply, Err(Refused::NotRecorded(why.to_string())));
                        } else {
                            batch.push(asked);
                        }
                    }
                }
            }
        }
    }

    /// Said once, not with every attempt: those come twice a second.
    fn set(&mut self, disk: Disk) {
        match (&self.disk, &disk) {
            (Disk::Writes, Disk::Refuses { why }) => {
                warn(format_args!("nothing can be recorded, outcomes wait and commands are refused: {why}"));
            }
            (Disk::Refuses { .. }, Disk::Writes) => warn(format_args!("recording again")),
            (Disk::Writes, Disk::Writes) | (Disk::Refuses { .. }, Disk::Refuses { .. }) => {}
        }
        self.disk = disk;
    }

    fn decide_all(&mut self, batch: Vec<Asked>) -> (Vec<Decided>, Vec<Event>, Vec<Effect>) {
        let now = self.shared.clock.now();
        let mut events: Vec<Event> = Vec::new();
        let mut effects: Vec<Effect> = Vec::new();
        let mut decided: Vec<Decided> = Vec::new();
        for asked in batch {
            match decide(&self.ahead, now, &asked.input) {
                Ok(Decision { events: new, effects: todo, .. }) => {
                    let from = events.len();
                    for event in new {
                        if let Err(illegal) = self.ahead.apply(&event) {
                            // `decide` applied it to its copy a moment ago: the two are the same code.
                            unreachable!("an event that was legal is not: {illegal}");
                        }
                        events.push(event);
                    }
                    effects.extend(todo);
                    decided.push(Decided { asked, events: from..events.len() });
                }
                Err(refusal) => {
                    if asked.input == Input::Tick {
                        self.no_tick_before = now + TICK_AGAIN;
                    }
                    if asked.reply.is_none() {
                        warn(format_args!("refused {}: {refusal}", brief(&asked.input)));
                    }
                    answer(asked.reply, Err(refusal.into()));
                }
            }
        }
        (decided, events, effects)
    }

    fn write(&mut self, events: &[Event]) -> Result<Written, Broken> {
        if events.is_empty() {
            return Ok(Written::Durable);
        }
        let records: Vec<NewRecord> = match events.iter().map(to_record).collect() {
            Ok(records) => records,
            Err(error) => return Ok(Written::NotNow(error.to_string())),
        };
        match self.log.append(self.shared.seq() + 1, &records) {
            Ok(_) => Ok(Written::Durable),
            Err(AppendError::Invalid { index, source }) => {
                Ok(Written::Impossible { index, why: AppendError::Invalid { index, source } })
            }
            // Memory is no longer what the record says, or nobody knows what it says: only reading it helps.
            Err(error @ (AppendError::Conflict { .. } | AppendError::NotDurable { .. })) => {
                Err(Broken(error))
            }
            Err(error @ (AppendError::BatchTooLarge { .. } | AppendError::Database(_))) => {
                Ok(Written::NotNow(error.to_string()))
            }
        }
    }

    /// What has happened has happened: it is told again until it is on the record. What was only wanted is refused.
    fn keep_outcomes(&mut self, decided: Vec<Decided>, why: &str) {
        for Decided { asked, .. } in decided.into_iter().rev() {
            match asked.input {
                Input::Upgrade { step: UpgradeStep::Begun { .. }, .. } => {
                    answer(asked.reply, Err(Refused::NotRecorded(why.to_owned())));
                }
                Input::Outcome { .. }
                | Input::Alert { .. }
                | Input::Certificate { .. }
                | Input::Upgrade { .. } => {
                    self.waiting.push_front(asked);
                }
                // Of readings the next one says as much, and more.
                Input::Command { .. }
                | Input::Tick
                | Input::Observed { .. }
                | Input::Measured { .. }
                | Input::Sized { .. } => {
                    answer(asked.reply, Err(Refused::NotRecorded(why.to_owned())));
                }
            }
        }
    }

    fn let_out(&mut self, decided: Vec<Decided>, events: Vec<Event>, effects: Vec<Effect>) {
        let first = self.shared.seq() + 1;
        {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            if events.iter().any(|event| state.apply(event).is_err()) {
                // They were applied to `ahead` a moment ago, which began as the same state.
                *state = self.ahead.clone();
            }
            let last = first + events.len() as u64 - 1;
            self.shared.seq.store(last, std::sync::atomic::Ordering::Release);
        }
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
        for Decided { asked, events } in decided {
            answer(asked.reply, Ok(recorded[events].to_vec()));
        }
        self.since_snapshot += recorded.len() as u64;
        if self.since_snapshot >= SNAPSHOT_EVERY {
            self.snapshot();
        }
    }

    /// Failing to write one costs replay time at the next start, nothing else.
    fn snapshot(&mut self) {
        self.since_snapshot = 0;
        let written = self.log.head().map_err(|e| e.to_string()).and_then(|head: Head| {
            let seq = self.shared.seq();
            if head.seq != seq {
                // A state under another record's number would be believed by the next start.
                return Err(format!("the state is of record {seq}, the log ends at {}", head.seq));
            }
            let bytes = self.shared.read(serde_json::to_vec).map_err(|e| e.to_string())?;
            self.snapshots.put(STATE_FORMAT, head, &bytes).map_err(|e| e.to_string())
        });
        if let Err(error) = written {
            warn(format_args!("no snapshot: {error}"));
        }
    }
}

/// For the server's own log: an input holds whole releases, or the last lines of a process.
fn brief(input: &Input) -> String {
    let text = format!("{input:?}");
    match text.char_indices().nth(BRIEF_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What the pump heard first.
enum First {
    Order(Option<Order>),
    Outcome(Asked),
    Nothing,
}

fn answer(reply: Option<oneshot::Sender<Answer>>, said: Answer) {
    if let Some(reply) = reply {
        // Who asked may have gone.
        drop(reply.send(said));
    }
}

#[cfg(test)]
mod tests;
