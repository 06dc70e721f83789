use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::channel::Channel;
use crate::connection::{Connection, Exchange, Outcome, Request};
use crate::multiplexed::Multiplexed;
use crate::plan::{Plan, PlanError, Until};
use crate::record::{Answer, Planned, Record, version_label};
use crate::report::{Report, VersionSeen};
use crate::response::Wanted;
use crate::timer::Timer;
use crate::{Cause, Failure, FailureClass};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No thread, timer or event queue to be had from the system.
    #[error("cannot start the load generator: {0}")]
    Io(#[from] io::Error),
}

/// Starts the load on a thread of its own and returns at once.
pub fn start(plan: Plan) -> Result<Running, StartError> {
    plan.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let timer = {
        let _entered = runtime.enter();
        Timer::new()?
    };
    let started = Instant::now();
    let shared = Arc::new(Mutex::new(Shared {
        record: Record::new(plan.rate_per_s, started),
        in_flight: 0,
        waiting: 0,
    }));
    let (order, orders) = watch::channel(Order::Run);
    let generator = Generator::new(plan, started, Arc::clone(&shared), timer);
    let thread = std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || runtime.block_on(generator.run(orders)))?;
    Ok(Running { shared, order, thread: Some(thread) })
}

/// A run under way. Dropping it cuts the requests in flight; [`Running::stop`] lets them end.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Mutex<Shared>>,
    order: watch::Sender<Order>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    /// Plan no more; let what is planned end, at most for the plan's timeout.
    Finish,
    /// End now.
    Abandon,
}

#[derive(Debug)]
struct Shared {
    record: Record,
    in_flight: u64,
    waiting: u64,
}

/// The run so far.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    pub elapsed_us: u64,
    pub act: String,
    pub planned: u64,
    pub completed: u64,
    pub failed: u64,
    pub failed_by: BTreeMap<FailureClass, u64>,
    pub in_flight: u64,
    /// Due, but no connection was free.
    pub waiting: u64,
    pub p99_us: u64,
    /// Versions that answered in the current act.
    pub versions: Vec<VersionSeen>,
    pub last_failure: Option<Failure>,
}

impl Running {
    /// Time since the start of the run, on the clock of the report's offsets.
    pub fn elapsed(&self) -> Duration {
        lock(&self.shared).record.started().elapsed()
    }

    pub fn snapshot(&self) -> Snapshot {
        let shared = lock(&self.shared);
        let total = shared.record.total(Instant::now());
        let (act, versions) = shared.record.current_act();
        Snapshot {
            elapsed_us: u64::try_from(shared.record.started().elapsed().as_micros()).unwrap_or(u64::MAX),
            act: act.to_owned(),
            planned: total.planned,
            completed: total.completed,
            failed: total.failed,
            failed_by: total.failed_by,
            in_flight: shared.in_flight,
            waiting: shared.waiting,
            p99_us: total.latency.p99_us,
            versions: versions.to_vec(),
            last_failure: shared.record.last_failure().cloned(),
        }
    }

    /// Ends the current act and begins another. The first act is called `start`.
    pub fn mark(&self, act: &str) {
        lock(&self.shared).record.mark(act, Instant::now());
    }

    /// True once nothing is planned or in flight any more.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Plans no more, waits for what is in flight (at most the plan's timeout), reports.
    pub fn stop(mut self) -> Report {
        self.order.send_replace(Order::Finish);
        self.join()
    }

    /// Waits until the plan's own end. With [`Until::Stopped`] that is never.
    pub fn wait(mut self) -> Report {
        self.join()
    }

    fn join(&mut self) -> Report {
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => panic!("the system took the load generator's timer away: {error}"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        lock(&self.shared).record.report(Instant::now())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.order.send_replace(Order::Abandon);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; a second one here would abort the process.
            drop(thread.join());
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Counters stay usable after a panic elsewhere: no update leaves them half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lives on the load thread and owns all that moves there.
struct Generator {
    plan: Arc<Plan>,
    wanted: Arc<Wanted>,
    started: Instant,
    shared: Arc<Mutex<Shared>>,
    timer: Timer,
    /// For each share, smooth weighted round-robin's running value, and the next path.
    turns: Vec<(i64, usize)>,
    next_number: u64,
    /// Set when planning is over.
    planned_until: Option<Instant>,
    waiting: VecDeque<Planned>,
    in_flight: JoinSet<(Planned, Outcome)>,
    /// Oldest first: connections are used in turn.
    idle: VecDeque<Connection>,
    /// Keep-alive connections that exist, idle or carrying a request.
    pooled: usize,
    /// Used in turn.
    channels: Vec<Arc<Channel>>,
    next_channel: usize,
}

impl Generator {
    fn new(plan: Plan, started: Instant, shared: Arc<Mutex<Shared>>, timer: Timer) -> Generator {
        let wanted =
            Wanted { version_header: plan.version_header.clone(), id_header: plan.id_header.clone() };
        Generator {
            turns: vec![(0, 0); plan.mix.len()],
            channels: (0..plan.h2_connections)
                .map(|_| Arc::new(Channel::new(plan.target, plan.tls.clone())))
                .collect(),
            plan: Arc::new(plan),
            wanted: Arc::new(wanted),
            started,
            shared,
            timer,
            next_number: 0,
            planned_until: None,
            waiting: VecDeque::new(),
            in_flight: JoinSet::new(),
            idle: VecDeque::new(),
            pooled: 0,
            next_channel: 0,
        }
    }

    async fn run(mut self, mut orders: watch::Receiver<Order>) -> io::Result<()> {
        let mut due = Instant::now();
        loop {
            lock(&self.shared).record.woke(due, Instant::now());
            self.plan_what_is_due();
            self.start_what_has_room();
            if self.planned_until.is_some() && self.waiting.is_empty() && self.in_flight.is_empty() {
                return Ok(());
            }
            due = self.next_wake();
            tokio::select! {
                Some(ended) = self.in_flight.join_next() => {
                    self.ended(ended);
                    while let Some(ended) = self.in_flight.try_join_next() {
                        self.ended(ended);
                    }
                }
                rung = self.timer.wait_until(due) => rung?,
                // An error means that the sender is gone, and with it whoever wanted a report.
                changed = orders.changed() => match (changed, *orders.borrow_and_update()) {
                    (Ok(()), Order::Run) => {}
                    (Ok(()), Order::Finish) => self.end_planning(Instant::now()),
                    (Ok(()), Order::Abandon) | (Err(_), _) => return Ok(()),
                },
            }
        }
    }

    fn plan_what_is_due(&mut self) {
        let now = Instant::now();
        while self.planned_until.is_none() {
            let at = self.planned_at(self.next_number);
            if let Until::Elapsed(duration) = self.plan.until
                && at >= self.started + duration
            {
                if now >= self.started + duration {
                    self.end_planning(self.started + duration);
                }
                return;
            }
            if at > now {
                return;
            }
            let planned = self.next_request(at);
            let mut shared = lock(&self.shared);
            shared.record.planned(&planned);
            drop(shared);
            self.waiting.push_back(planned);
        }
    }

    fn planned_at(&self, number: u64) -> Instant {
        self.started + Duration::from_secs_f64(number as f64 / self.plan.rate_per_s)
    }

    fn next_request(&mut self, at: Instant) -> Planned {
        let number = self.next_number;
        self.next_number += 1;
        let weights: i64 = self.plan.mix.iter().map(|share| i64::from(share.weight)).sum();
        let mut chosen = 0;
        for (place, share) in self.plan.mix.iter().enumerate() {
            self.turns[place].0 += i64::from(share.weight);
            if self.turns[place].0 > self.turns[chosen].0 {
                chosen = place;
            }
        }
        let share = &self.plan.mix[chosen];
        let (turn, path) = &mut self.turns[chosen];
        *turn -= weights;
        let planned = Planned {
            kind: share.kind,
            path: share.paths[*path].clone(),
            id: format!("{}-{number}-{}", self.plan.id_prefix, share.kind.name()),
            at,
        };
        *path = (*path + 1) % share.paths.len();
        planned
    }

    fn start_what_has_room(&mut self) {
        while let Some(first) = self.waiting.front() {
            let deadline = first.at + self.plan.timeout;
            let now = Instant::now();
            let expired = now >= deadline;
            if !expired && self.in_flight.len() >= self.plan.in_flight_max {
                break;
            }
            let Some(planned) = self.waiting.pop_front() else { break };
            if expired {
                lock(&self.shared).record.failed(&planned, now, Cause::NotSent, b"", now);
                continue;
            }
            self.start_request(planned, deadline);
        }
        let mut shared = lock(&self.shared);
        shared.in_flight = self.in_flight.len() as u64;
        shared.waiting = self.waiting.len() as u64;
    }

    fn start_request(&mut self, planned: Planned, deadline: Instant) {
        let (plan, wanted) = (Arc::clone(&self.plan), Arc::clone(&self.wanted));
        if planned.kind.is_h2() {
            let turn = self.next_channel % self.channels.len();
            self.next_channel = turn + 1;
            let channel = Arc::clone(&self.channels[turn]);
            self.in_flight.spawn(async move {
                let outcome = Multiplexed::run(&channel, &plan, &planned, deadline, &wanted).await;
                (planned, outcome)
            });
            return;
        }
        let pooled = if planned.kind.keeps_alive() { self.take_idle() } else { None };
        self.in_flight.spawn(async move {
            let request = request_of(&plan, &planned);
            let outcome =
                Exchange::run(plan.target, plan.tls.as_ref(), pooled, &request, deadline, &wanted).await;
            (planned, outcome)
        });
    }

    /// The connection that has been idle longest, once the pool has its full size.
    fn take_idle(&mut self) -> Option<Connection> {
        if self.pooled < self.plan.keep_alive_connections {
            self.pooled += 1;
            return None;
        }
        while let Some(connection) = self.idle.pop_front() {
            if connection.is_open_and_silent() {
                return Some(connection);
            }
            self.pooled -= 1;
            lock(&self.shared).record.idle_closed += 1;
        }
        self.pooled += 1;
        None
    }

    fn ended(&mut self, ended: Result<(Planned, Outcome), tokio::task::JoinError>) {
        let (planned, mut outcome) = match ended {
            Ok(ended) => ended,
            // Only a panic of the body builder gets here: tasks are never cancelled.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        if planned.kind.keeps_alive() {
            match outcome.connection.take() {
                Some(connection) if self.pooled <= self.plan.keep_alive_connections => {
                    self.idle.push_back(connection);
                }
                _ => self.pooled -= 1,
            }
        }
        let mut shared = lock(&self.shared);
        let record = &mut shared.record;
        record.connections_opened += outcome.opened_connections;
        record.refused += outcome.refused;
        record.began(&planned, outcome.began);
        let head = outcome.head.as_ref();
        if let (Some(head), Some(sent), Some(answered)) = (head, outcome.sent, outcome.answered)
            && let Some(version) = &head.version
        {
            record.answered(&planned, &Answer { version: version_label(version), sent, answered });
        }
        let echoed = head.and_then(|head| head.id.as_deref());
        let status = head.map_or(0, |head| head.status);
        let result = outcome.result.and_then(|()| match status {
            500.. => Err(Cause::ServerError { status }),
            400..500 => Err(Cause::ClientError { status }),
            _ if self.plan.echo && echoed != Some(&planned.id) => {
                Err(Cause::WrongAnswer { expected: planned.id.clone(), got: echoed.map(str::to_owned) })
            }
            _ => Ok(()),
        });
        match result {
            Ok(()) => record.completed(&planned, outcome.began, outcome.finished),
            Err(cause) => {
                record.failed(&planned, outcome.began, cause, &outcome.raw_head, outcome.finished);
            }
        }
    }

    fn end_planning(&mut self, at: Instant) {
        self.planned_until.get_or_insert(at);
        lock(&self.shared).record.end_planning(at);
    }

    /// The next instant at which something is to be done that no request's end announces.
    fn next_wake(&self) -> Instant {
        // Requests in flight end by their own deadline, so this is only a bound.
        let expiry = self.waiting.front().map(|first| first.at + self.plan.timeout);
        let due = self.planned_until.is_none().then(|| {
            let at = self.planned_at(self.next_number);
            match self.plan.until {
                Until::Elapsed(duration) => at.min(self.started + duration),
                Until::Stopped => at,
            }
        });
        expiry.into_iter().chain(due).min().unwrap_or_else(|| Instant::now() + self.plan.timeout)
    }
}

fn request_of(plan: &Plan, planned: &Planned) -> Request {
    use std::io::Write;
    let mut bytes = Vec::with_capacity(512);
    let method = if planned.kind.is_post() { "POST" } else { "GET" };
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    put(&[method, " ", &planned.path, " HTTP/1.1\r\nHost: ", &plan.host, "\r\n"]);
    put(&[&plan.id_header, ": ", &planned.id, "\r\n"]);
    for (name, value) in &plan.headers {
        put(&[name, ": ", value, "\r\n"]);
    }
    if !planned.kind.keeps_alive() {
        put(&["Connection: close\r\n"]);
    }
    if !planned.kind.is_post() {
        bytes.extend_from_slice(b"\r\n");
        return Request { bytes, slow: None };
    }
    let body = plan.body.build(&planned.id);
    write!(bytes, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())
        .expect("a Vec takes every write");
    let slow = planned.kind.is_slow().then_some((bytes.len(), plan.slow_post));
    bytes.extend_from_slice(&body);
    Request { bytes, slow }
}

#[cfg(test)]
mod tests;
