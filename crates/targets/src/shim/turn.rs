//! The shim's loop: wait for whatever comes first, then see to everything that is due.

use std::time::{Duration, Instant};

use fairway_engine::service::ReadyProbe;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::group::{Intent, StopWhy};
use super::probe::Failure;
use super::{Activity, LINGER_MAX, SAVE_AGAIN, Shim, UNSAVED_END_MAX};
use crate::logs::stamp;
use crate::spec::Role;
use crate::wire::{Command, Health, Message, Phase, State, with_given};

/// Buffers of 16 KiB read from one stream in a turn: a flood must not keep the shim from its other duties.
const READS_A_TURN_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Listener,
    Client,
    Output,
    Notify,
    Readiness,
    Liveness,
}

impl Shim {
    pub(super) fn work(mut self) {
        let now = Instant::now();
        self.first_start = now;
        self.start(now);
        loop {
            let ready = self.wait();
            let now = Instant::now();
            if ready.contains(&Source::Output) {
                self.read_output(READS_A_TURN_MAX);
                // Before anything is told that these lines led to: whoever hears of it looks into the log.
                self.log.flush(stamp::now());
            }
            if ready.contains(&Source::Signals) {
                let received = self.signals.read();
                if received.child {
                    self.collect(now);
                }
                if received.end {
                    self.stop(StopWhy::Asked, self.launch.stop.timeout, now);
                }
            }
            // In this order, so that a place that was just given up is free for whoever comes.
            if ready.contains(&Source::Client) {
                self.serve(now);
            }
            if ready.contains(&Source::Listener) {
                self.control.accept();
            }
            for (source, is_readiness) in [(Source::Readiness, true), (Source::Liveness, false)] {
                let watch = if is_readiness { &mut self.readiness } else { &mut self.liveness };
                if ready.contains(&source)
                    && let Some(verdict) = watch.as_mut().and_then(|watch| watch.probe.on_ready(now))
                {
                    self.on_verdict(is_readiness, verdict, now);
                }
            }
            if ready.contains(&Source::Notify) && self.notify.as_ref().is_some_and(|notify| notify.read()) {
                self.text_seen = true;
            }
            self.on_time(now);
            if self.is_done(now) {
                return self.leave();
            }
        }
    }

    /// Sleeps until something can be read or is due.
    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.signals.fd(), PollFlags::IN),
            PollFd::new(&self.control.listener, PollFlags::IN),
        ];
        for client in &self.control.clients {
            let flags = if client.has_output() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            sources.push(Source::Client);
            fds.push(PollFd::new(&client.stream, flags));
        }
        if let Activity::Up(group) = &self.activity {
            for pipe in [&group.stdout, &group.stderr].into_iter().flatten() {
                sources.push(Source::Output);
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        if let Some(notify) = &self.notify {
            sources.push(Source::Notify);
            fds.push(PollFd::from_borrowed_fd(notify.fd(), PollFlags::IN));
        }
        for (source, watch) in [(Source::Readiness, &self.readiness), (Source::Liveness, &self.liveness)] {
            if let Some((fd, flags)) = watch.as_ref().and_then(|watch| watch.probe.waits_for()) {
                sources.push(source);
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let timeout = self.next_deadline().map(|at| {
            // Rounded up: waking a moment early would spin until the deadline.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(200);
            Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 })
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let ready = fds.iter().zip(sources).filter(|(fd, _)| !fd.revents().is_empty());
                ready.map(|(_, source)| source).collect()
            }
            Err(_) => Vec::new(),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let mut next: Vec<Instant> = self.save_again_at.into_iter().collect();
        match &self.activity {
            Activity::Up(group) => {
                match &group.intent {
                    Intent::Run => next.extend(self.run_deadline().map(|(at, _)| at)),
                    Intent::Stop { kill_at, .. } => next.push(*kill_at),
                    Intent::Kill { again_at, .. } => next.push(*again_at),
                }
                next.extend(self.readiness.iter().map(|watch| watch.next()));
                // Until the instance is ready its liveness is not asked after, however long that is due.
                next.extend(self.liveness.iter().filter(|_| self.is_ready()).map(|watch| watch.next()));
            }
            Activity::Down { restart_at, .. } => {
                next.push(*restart_at);
                next.extend(self.down_deadline());
            }
            Activity::Ended { since } => {
                if self.save_again_at.is_none() {
                    next.push(*since + LINGER_MAX);
                }
            }
        }
        next.into_iter().min()
    }

    /// What a run that goes on by itself will come to, and when.
    fn run_deadline(&self) -> Option<(Instant, Due)> {
        let Activity::Up(group) = &self.activity else { return None };
        match (&self.launch.role, &self.state.phase) {
            (Role::Job { timeout }, _) => Some((group.started + *timeout, Due::TimedOut)),
            (Role::Instance { ready, .. }, Phase::Running { health: Health::Waiting { .. }, .. }) => {
                let since = if self.ever_ready { group.started } else { self.first_start };
                let not_ready = (since + ready.within, Due::NotReady(ready.within));
                match ready.probe {
                    ReadyProbe::Alive { for_at_least } if group.started + for_at_least <= not_ready.0 => {
                        Some((group.started + for_at_least, Due::Ready))
                    }
                    ReadyProbe::Alive { .. }
                    | ReadyProbe::Http { .. }
                    | ReadyProbe::Tcp
                    | ReadyProbe::Exec { .. }
                    | ReadyProbe::Notify
                    | ReadyProbe::LogLine { .. } => Some(not_ready),
                }
            }
            (Role::Instance { .. }, _) => None,
        }
    }

    /// An instance that was never ready does not get more time by ending.
    fn down_deadline(&self) -> Option<Instant> {
        match &self.launch.role {
            Role::Instance { ready, .. } if !self.ever_ready => Some(self.first_start + ready.within),
            Role::Instance { .. } | Role::Job { .. } => None,
        }
    }

    fn on_time(&mut self, now: Instant) {
        if self.save_again_at.is_some_and(|at| now >= at) {
            self.save_again_at = self.save().err().map(|_| now + SAVE_AGAIN);
        }
        let grace = self.launch.stop.timeout;
        match &mut self.activity {
            Activity::Up(group) => match &group.intent {
                Intent::Run => {
                    if std::mem::take(&mut self.text_seen)
                        && let Phase::Running { process, health: Health::Waiting { .. } } = self.state.phase
                    {
                        self.become_ready(process);
                    }
                    self.probe(now);
                    match self.run_deadline() {
                        Some((at, due)) if now >= at => match due {
                            Due::Ready => {
                                if let Phase::Running { process, .. } = self.state.phase {
                                    self.become_ready(process);
                                }
                            }
                            Due::TimedOut => self.stop(StopWhy::TimedOut, grace, now),
                            Due::NotReady(within) => {
                                let cause = self.not_ready(within);
                                let why = match self.ever_ready {
                                    true => StopWhy::NotReadyAgain { why: cause.to_string() },
                                    false => StopWhy::GivenUp(cause),
                                };
                                self.stop(why, grace, now);
                            }
                        },
                        _ => {}
                    }
                }
                Intent::Stop { why, kill_at } => {
                    if now >= *kill_at {
                        let why = why.clone();
                        group.kill(why, self.cgroup.as_ref(), now);
                    }
                    self.collect(now);
                }
                Intent::Kill { why, again_at, .. } => {
                    if now >= *again_at {
                        let why = why.clone();
                        group.kill(why, self.cgroup.as_ref(), now);
                    }
                    self.collect(now);
                }
            },
            Activity::Down { restart_at, .. } => {
                let restart_at = *restart_at;
                if let Some(deadline) = self.down_deadline().filter(|deadline| now >= *deadline) {
                    let within = deadline - self.first_start;
                    let (cause, last_lines) = (self.not_ready(within), self.log.last_lines());
                    self.end(crate::wire::End::GaveUp { cause, last_lines }, now);
                } else if now >= restart_at {
                    self.state.restarts += 1;
                    self.start(now);
                }
            }
            Activity::Ended { .. } => {}
        }
    }

    fn become_ready(&mut self, process: crate::process::ProcessId) {
        self.ever_ready = true;
        self.enter(Phase::Running { process, health: Health::Ready });
    }

    fn probe(&mut self, now: Instant) {
        for is_readiness in [true, false] {
            let taken = if is_readiness { self.readiness.take() } else { self.liveness.take() };
            let Some(mut watch) = taken else { continue };
            let (mut verdict, late) = watch.probe.on_deadline(now);
            if let Some(pid) = late {
                super::group::signal_group(pid, Signal::KILL);
            }
            let wanted = is_readiness || self.is_ready();
            if verdict.is_none() && wanted && watch.is_due(now) {
                verdict = watch.probe.begin(now, &mut |argv| self.start_command(argv));
            }
            *(if is_readiness { &mut self.readiness } else { &mut self.liveness }) = Some(watch);
            if let Some(verdict) = verdict {
                self.on_verdict(is_readiness, verdict, now);
            }
        }
    }

    fn is_ready(&self) -> bool {
        match &self.state.phase {
            Phase::Running { health: Health::Ready | Health::Suspect { .. }, .. } => true,
            Phase::Running { health: Health::Waiting { .. }, .. }
            | Phase::Starting
            | Phase::BackingOff { .. }
            | Phase::Stopping { .. }
            | Phase::Ended { .. } => false,
        }
    }

    fn serve(&mut self, now: Instant) {
        for index in 0..self.control.clients.len() {
            self.control.clients[index].write();
            for command in self.control.clients[index].read() {
                let answer = self.obey(command, index, now);
                self.control.clients[index].send(&answer);
            }
        }
        self.control.sweep();
    }

    fn obey(&mut self, command: Command, client: usize, now: Instant) -> Message {
        match command {
            Command::Status => Message::State(Box::new(self.status())),
            Command::Subscribe => {
                self.control.clients[client].subscribe();
                Message::State(Box::new(self.status()))
            }
            Command::Stop { grace_ms } => {
                let grace = grace_ms.map_or(self.launch.stop.timeout, Duration::from_millis);
                self.stop(StopWhy::Asked, grace, now);
                Message::Done
            }
            Command::Kill => {
                self.kill(StopWhy::Asked, now);
                Message::Done
            }
            Command::Signal { signal } => match &self.activity {
                Activity::Up(group) if group.main_exit.is_none() && (1..=64).contains(&signal) => {
                    // SAFETY: the process is a child that was not collected, so the pid is still its own.
                    unsafe { libc::kill(group.main.pid, signal) };
                    Message::Done
                }
                Activity::Up(_) | Activity::Down { .. } | Activity::Ended { .. } => {
                    Message::Refused("there is no process to send it to, or no such signal".into())
                }
            },
            Command::Port { port } => match (&mut self.activity, &mut self.launch.port) {
                (Activity::Down { restart_at, .. }, Some(given)) => {
                    *restart_at = now;
                    given.port = port;
                    self.state.port = Some(port);
                    // Whoever took the port is to blame for that exit, not the application.
                    self.exits.pop_back();
                    Message::Done
                }
                (Activity::Up(_) | Activity::Down { .. } | Activity::Ended { .. }, _) => {
                    Message::Refused("the port changes only between two runs".into())
                }
            },
            Command::Surroundings => Message::Surroundings {
                env: with_given(&self.launch.env, &self.launch.token, self.launch.port.as_ref()),
                workdir: self.launch.workdir.clone(),
                user: self.launch.user.clone(),
            },
        }
    }

    /// The state with what is only worth finding out when somebody asks.
    fn status(&self) -> State {
        let mut state = self.state.clone();
        state.log_lines_dropped = self.log.dropped();
        if let Phase::Running { health: Health::Waiting { why: Some(why) }, .. } = &mut state.phase {
            let refused = why.starts_with("nothing listens");
            *why = self.explain(Failure { why: std::mem::take(why), refused }).0;
        }
        state
    }

    /// The end is on disk and told to whoever listens, or neither will happen any more.
    fn is_done(&self, now: Instant) -> bool {
        let Activity::Ended { since } = self.activity else { return false };
        let saved = self.save_again_at.is_none() || now >= since + UNSAVED_END_MAX;
        let told =
            self.control.clients.iter().all(|client| !client.has_output()) || now >= since + LINGER_MAX;
        saved && told
    }
}

enum Due {
    Ready,
    TimedOut,
    NotReady(Duration),
}
