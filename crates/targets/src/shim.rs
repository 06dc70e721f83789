//! The hidden role `fairway shim --dir DIR`: one process beside every instance and every job. It starts it, collects
//! it, keeps its output, asks after its health and restarts it as the release says, whether or not a control plane
//! is there. One thread, one loop, a few megabytes.
//!
//! When a shim itself is killed, its application is killed by the kernel (`PR_SET_PDEATHSIG`): without the shim its
//! output pipes have no reader and its health no witness, so it would block or fail unseen, and a later server could
//! not tell its exit. What the application had put into the background is found by the supervisor, through the
//! cgroup or the mark in the environment.

mod control;
mod group;
mod health;
mod limits;
mod notify;
mod probe;
mod signals;
mod turn;
mod watch;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fairway_engine::service::{Argument, ReadyProbe, StopSignal};
use rustix::process::Signal;
use thiserror::Error;

use self::control::Control;
use self::group::{Collected, Group, Intent, StopWhy};
use self::notify::NotifySocket;
use self::signals::Signals;
use self::watch::Watch;
use crate::cgroup::Cgroup;
use crate::command::{self, Prepared};
use crate::event::GiveUpCause;
use crate::exit::Exit;
use crate::logs::line::Stream;
use crate::logs::stamp;
use crate::logs::writer::LogWriter;
use crate::ports::PortClaim;
use crate::process::{self, ProcessId};
use crate::spawn_error::SpawnError;
use crate::spec::{Launch, Role};
use crate::user::User;
use crate::wire::{
    EXIT_FILE, End, Health, LOG_DIR, MESSAGE_BYTES_MAX, Message, Phase, RECORD_FILE, SOCKET_FILE, STATE_FILE,
    State,
};
use crate::{lock, record, sockets};

/// What the shim writes to its standard output once it answers on its control socket.
pub(crate) const READY_LINE: &str = "ready\n";

/// How long the end of a run may wait for a disk that takes no record, before the shim leaves all the same.
const UNSAVED_END_MAX: Duration = Duration::from_secs(30);

/// How often a record that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// How long the shim stays for a supervisor that does not read the end; the record holds it too.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// Why no shim runs. Nothing was started.
#[derive(Debug, Error)]
enum Refusal {
    #[error("the launch cannot be read: {0}")]
    Launch(String),
    #[error("another shim runs in this directory")]
    Locked,
    #[error("something has run in this directory before")]
    Used,
    #[error("{what}: {error}")]
    Io { what: &'static str, error: io::Error },
}

/// Runs one instance or job until it has ended for good. The launch comes on standard input.
#[must_use]
pub fn run(dir: &Path) -> ExitCode {
    match Shim::open(dir) {
        Ok(shim) => {
            shim.work();
            ExitCode::SUCCESS
        }
        Err(refusal) => {
            // The supervisor reads the one, a person who tries the role by hand the other.
            let _ = writeln!(io::stdout(), "{refusal}");
            let _ = writeln!(io::stderr(), "fairway shim: {refusal}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shim {
    dir: PathBuf,
    /// Held for as long as this process lives.
    _lock: File,
    launch: Launch,
    state: State,
    port_claim: Option<PortClaim>,
    /// Set while the disk holds an older state than `state`.
    save_again_at: Option<Instant>,
    log: LogWriter,
    control: Control,
    signals: Signals,
    notify: Option<NotifySocket>,
    cgroup: Option<Cgroup>,
    rlimits: Vec<(u32, u64)>,
    null: OwnedFd,
    activity: Activity,
    readiness: Option<Watch>,
    liveness: Option<Watch>,
    /// When the exits happened that the restart policy still counts.
    exits: VecDeque<Instant>,
    first_start: Instant,
    ever_ready: bool,
    /// The readiness probe's text was seen in the output since the last look.
    text_seen: bool,
}

#[derive(Debug)]
enum Activity {
    Up(Box<Group>),
    /// Nothing runs until then.
    Down {
        restart_at: Instant,
        last_exit: Exit,
    },
    Ended {
        since: Instant,
    },
}

impl Shim {
    fn open(dir: &Path) -> Result<Self, Refusal> {
        let failed = |what: &'static str| move |error: io::Error| Refusal::Io { what, error };
        // Fails when it leads a session already, which is as good.
        let _ = rustix::process::setsid();
        let signals = Signals::open().map_err(failed("waiting for signals"))?;
        let launch = group::read_stdin(MESSAGE_BYTES_MAX as u64).map_err(failed("reading the launch"))?;
        // A server that died while it wrote leaves half a text, which is no JSON object.
        let launch: Launch =
            serde_json::from_slice(&launch).map_err(|error| Refusal::Launch(error.to_string()))?;
        let null = group::null().map_err(failed("opening /dev/null"))?;
        rustix::stdio::dup2_stdin(&null).map_err(|error| failed("closing standard input")(error.into()))?;

        let lock = lock::take(dir).map_err(failed("locking the directory"))?.ok_or(Refusal::Locked)?;
        if dir.join(STATE_FILE).exists() || dir.join(EXIT_FILE).exists() {
            return Err(Refusal::Used);
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| failed("becoming a subreaper")(error.into()))?;
        let (cgroup, no_cgroup) = match Cgroup::create(&launch.token) {
            Ok(cgroup) => (Some(cgroup), String::new()),
            Err(why) => (None, why),
        };
        let plan = limits::plan(&launch.limits, cgroup.as_ref().ok_or(no_cgroup.as_str()));
        let notify = match &launch.role {
            Role::Instance { ready, .. } if ready.probe == ReadyProbe::Notify => {
                let user = launch.user.as_deref().and_then(|name| User::find(name).ok().flatten());
                let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
                Some(NotifySocket::open(&launch.token, uid).map_err(failed("opening the notify socket"))?)
            }
            Role::Instance { .. } | Role::Job { .. } => None,
        };
        record::reserve(dir);
        let now = Instant::now();
        let mut shim = Self {
            state: State {
                sequence: 0,
                boot_id: process::boot_id().map_err(failed("reading the boot id"))?,
                shim: ProcessId::own().map_err(failed("reading /proc/self/stat"))?,
                token: launch.token.clone(),
                cgroup: cgroup.as_ref().map(Cgroup::dir),
                port: launch.port.as_ref().map(|given| given.port),
                phase: Phase::Starting,
                restarts: 0,
                limits: plan.reports,
                log_lines_dropped: 0,
                changed_at: stamp::now(),
            },
            dir: dir.to_path_buf(),
            _lock: lock,
            port_claim: None,
            save_again_at: None,
            log: LogWriter::open(&dir.join(LOG_DIR), launch.log),
            control: Control::bind(dir).map_err(failed("binding the control socket"))?,
            signals,
            notify,
            cgroup,
            rlimits: plan.rlimits,
            null,
            activity: Activity::Down { restart_at: now, last_exit: Exit::Code(0) },
            readiness: None,
            liveness: None,
            exits: VecDeque::new(),
            first_start: now,
            ever_ready: false,
            text_seen: false,
            launch,
        };
        // What cannot be recorded is not started: nobody could find it again.
        record::write(dir, RECORD_FILE, &shim.launch.record()).map_err(failed("writing what is run"))?;
        shim.save().map_err(failed("writing the state"))?;
        let said = io::stdout().write_all(READY_LINE.as_bytes()).and_then(|()| io::stdout().flush());
        // The server may be gone by now; the next one finds the socket.
        drop(said);
        rustix::stdio::dup2_stdout(&shim.null)
            .map_err(|error| failed("closing standard output")(error.into()))?;
        Ok(shim)
    }

    fn save(&mut self) -> io::Result<()> {
        let file = match self.state.phase {
            Phase::Ended { .. } => EXIT_FILE,
            Phase::Starting | Phase::Running { .. } | Phase::BackingOff { .. } | Phase::Stopping { .. } => {
                STATE_FILE
            }
        };
        record::write(&self.dir, file, &self.state)
    }

    /// The record first, then the news: a supervisor never knows more than the next one will find.
    fn enter(&mut self, phase: Phase) {
        self.state.sequence += 1;
        self.state.phase = phase;
        self.state.log_lines_dropped = self.log.dropped();
        self.state.changed_at = stamp::now();
        self.save_again_at = self.save().err().map(|_| Instant::now() + SAVE_AGAIN);
        self.control.broadcast(&Message::State(Box::new(self.state.clone())));
    }

    fn end(&mut self, end: End, now: Instant) {
        self.log.flush(stamp::now());
        self.activity = Activity::Ended { since: now };
        self.enter(Phase::Ended { end });
    }

    fn prepare(&self, argv: &[String]) -> Result<Prepared, SpawnError> {
        let mut env =
            crate::wire::with_given(&self.launch.env, &self.launch.token, self.launch.port.as_ref());
        if let Some(notify) = &self.notify {
            env.0.insert("NOTIFY_SOCKET".into(), notify.variable());
        }
        command::prepare(argv, &env, &self.launch.workdir, self.launch.user.as_deref())
    }

    fn argv(&self) -> Vec<String> {
        let port = self.state.port.map(|port| port.to_string()).unwrap_or_default();
        let word = |word: &Argument| match word {
            Argument::Literal(text) => text.clone(),
            Argument::Port => port.clone(),
        };
        self.launch.argv.iter().map(word).collect()
    }

    fn start(&mut self, now: Instant) {
        if let Some(port) = self.state.port
            && !self.claim(port)
        {
            let why = format!("port {port} is taken by another process");
            return self.after_exit(Exit::Unknown { why: "not started".into() }, Some(why), true, now);
        }
        self.log.forget_last_lines();
        self.text_seen = false;
        let started = self
            .prepare(&self.argv())
            .and_then(|command| Group::start(&command, &self.null, self.cgroup.as_ref(), &self.rlimits, now));
        match started {
            Ok(group) => {
                let process = group.main;
                self.activity = Activity::Up(Box::new(group));
                self.watch(now);
                self.enter(Phase::Running { process, health: Health::Waiting { why: None } });
            }
            // The kernel's refusals pass; the others would be the same next time.
            Err(cause @ SpawnError::System { .. }) if self.is_instance() => {
                let exit = Exit::Unknown { why: "not started".into() };
                self.after_exit(exit, Some(cause.to_string()), false, now);
            }
            Err(cause) => {
                self.log.remark(stamp::now(), &cause.to_string());
                self.end(End::SpawnFailed { cause }, now);
            }
        }
    }

    /// Makes sure of the port, as far as that can be done for a process that has yet to listen on it.
    fn claim(&mut self, port: u16) -> bool {
        if self.port_claim.as_ref().is_none_or(|claim| claim.port != port) {
            self.port_claim = PortClaim::take(port).unwrap_or_default();
        }
        self.port_claim.is_some() && sockets::is_free(port)
    }

    fn is_instance(&self) -> bool {
        match self.launch.role {
            Role::Instance { .. } => true,
            Role::Job { .. } => false,
        }
    }

    /// Starts a command beside the instance, in its environment and its cgroup.
    fn start_command(&self, argv: &[String]) -> Result<i32, String> {
        let command = self.prepare(argv).map_err(|cause| cause.to_string())?;
        Group::start_silent(&command, &self.null, self.cgroup.as_ref(), &self.rlimits)
            .map_err(|cause| cause.to_string())
    }

    fn stop_signal(&self) -> Signal {
        match self.launch.stop.signal {
            StopSignal::Term => Signal::TERM,
            StopSignal::Int => Signal::INT,
            StopSignal::Quit => Signal::QUIT,
            StopSignal::Hup => Signal::HUP,
            StopSignal::Usr1 => Signal::USR1,
            StopSignal::Usr2 => Signal::USR2,
        }
    }

    /// Ends the run: the stop signal now, `SIGKILL` for whatever is left after `grace`.
    fn stop(&mut self, why: StopWhy, grace: Duration, now: Instant) {
        let signal = self.stop_signal();
        match &mut self.activity {
            Activity::Up(group) => match &mut group.intent {
                Intent::Run => {
                    group.ask_to_stop(signal);
                    group.intent = Intent::Stop { why, kill_at: now + grace };
                    let process = group.main;
                    self.cancel_probes();
                    self.enter(Phase::Stopping { process });
                }
                // Being asked outranks every other reason: nothing may start again afterwards.
                Intent::Stop { why: before, kill_at } => {
                    *before = why;
                    *kill_at = (*kill_at).min(now + grace);
                }
                Intent::Kill { why: before, .. } => *before = why,
            },
            Activity::Down { last_exit, .. } => {
                let exit = last_exit.clone();
                self.end(End::Stopped { exit }, now);
            }
            Activity::Ended { .. } => {}
        }
    }

    fn kill(&mut self, why: StopWhy, now: Instant) {
        self.stop(why.clone(), Duration::ZERO, now);
        if let Activity::Up(group) = &mut self.activity {
            group.kill(why, self.cgroup.as_ref(), now);
        }
    }

    fn cancel_probes(&mut self) {
        for mut watch in [self.readiness.take(), self.liveness.take()].into_iter().flatten() {
            if let Some(pid) = watch.probe.cancel() {
                group::signal_group(pid, Signal::KILL);
            }
        }
    }

    fn collect(&mut self, now: Instant) {
        loop {
            match group::collect() {
                Collected::Child { pid, exit } => self.on_child(pid, exit, now),
                Collected::NothingNow => return,
                Collected::NoneLeft => {
                    if let Activity::Up(group) = &self.activity
                        && group.main_exit.is_some()
                    {
                        self.finish(now);
                    }
                    return;
                }
            }
        }
    }

    fn on_child(&mut self, pid: i32, exit: Exit, now: Instant) {
        let signal = self.stop_signal();
        if let Activity::Up(group) = &mut self.activity
            && group.main.pid == pid
        {
            group.main_exit = Some(exit);
            match group.intent {
                Intent::Run => {
                    self.cancel_probes();
                    if let Activity::Up(group) = &mut self.activity {
                        group.kill(StopWhy::ByItself, self.cgroup.as_ref(), now);
                    }
                }
                // Those that left the process group have not heard of it yet.
                Intent::Stop { .. } => group.ask_the_rest(signal),
                Intent::Kill { .. } => {}
            }
            return;
        }
        for is_readiness in [true, false] {
            let watch = if is_readiness { &mut self.readiness } else { &mut self.liveness };
            if let Some(verdict) = watch.as_mut().and_then(|watch| watch.probe.on_exit(pid, &exit)) {
                self.on_verdict(is_readiness, verdict, now);
            }
        }
    }

    /// Nothing of the run is left: its last output, then what comes next.
    fn finish(&mut self, now: Instant) {
        self.read_output(usize::MAX);
        let text = self.awaited_text();
        self.log.end_of_streams(stamp::now(), |line| {
            self.text_seen |= text.as_ref().is_some_and(|text| contains(line, text.as_bytes()));
        });
        let Activity::Up(group) = &self.activity else { return };
        let exit = group.exit(self.cgroup.as_ref());
        let why = match &group.intent {
            Intent::Run => StopWhy::ByItself,
            Intent::Stop { why, .. } | Intent::Kill { why, .. } => why.clone(),
        };
        let last_lines = self.log.last_lines();
        match (&self.launch.role, why) {
            (_, StopWhy::Asked) => self.end(End::Stopped { exit }, now),
            (_, StopWhy::GivenUp(cause)) => self.end(End::GaveUp { cause, last_lines }, now),
            (Role::Job { timeout }, StopWhy::TimedOut) => {
                let after = *timeout;
                self.end(End::TimedOut { after, last_lines }, now);
            }
            (Role::Job { .. }, _) => self.end(End::Finished { exit, last_lines }, now),
            (Role::Instance { .. }, StopWhy::NotLive { why } | StopWhy::NotReadyAgain { why }) => {
                self.after_exit(exit, Some(why), false, now);
            }
            (Role::Instance { .. }, StopWhy::ByItself | StopWhy::TimedOut) => {
                let ready = match &self.state.phase {
                    Phase::Running { health: Health::Waiting { .. }, .. } => false,
                    Phase::Running { .. }
                    | Phase::Starting
                    | Phase::BackingOff { .. }
                    | Phase::Stopping { .. }
                    | Phase::Ended { .. } => true,
                };
                // It ended before it was ready and somebody else has the port: that is why.
                let taken_port = self.state.port.filter(|port| !ready && !sockets::is_free(*port));
                let why = taken_port.map(|port| format!("port {port} is taken by another process"));
                self.after_exit(exit, why, taken_port.is_some(), now);
            }
        }
    }

    /// What the restart policy says after an exit that nobody asked for.
    fn after_exit(&mut self, exit: Exit, why: Option<String>, port_taken: bool, now: Instant) {
        let Role::Instance { restart, .. } = &self.launch.role else {
            let last_lines = why.into_iter().collect();
            return self.end(End::Finished { exit, last_lines }, now);
        };
        self.exits.push_back(now);
        while self.exits.front().is_some_and(|at| now - *at > restart.burst_window) {
            self.exits.pop_front();
        }
        let exits = u32::try_from(self.exits.len()).unwrap_or(u32::MAX);
        let last_lines = self.log.last_lines();
        if exits > restart.burst {
            let cause = GiveUpCause::CrashLoop { exits, window: restart.burst_window, exit, why };
            return self.end(End::GaveUp { cause, last_lines }, now);
        }
        let doubled = restart.backoff_min.saturating_mul(1u32.checked_shl(exits - 1).unwrap_or(u32::MAX));
        let restart_in = doubled.clamp(restart.backoff_min, restart.backoff_max.max(restart.backoff_min));
        let remark = match &why {
            Some(why) => format!("{exit} ({why}); starting again in {restart_in:?}"),
            None => format!("{exit}; starting again in {restart_in:?}"),
        };
        self.log.remark(stamp::now(), &remark);
        self.activity = Activity::Down { restart_at: now + restart_in, last_exit: exit.clone() };
        self.enter(Phase::BackingOff { exit, why, port_taken, restart_in, last_lines });
    }

    fn read_output(&mut self, turns: usize) {
        let text = self.awaited_text();
        let now = stamp::now();
        let Activity::Up(group) = &mut self.activity else { return };
        let mut buffer = [0; 16 << 10];
        for stream in [Stream::Stdout, Stream::Stderr] {
            group.read(stream, &mut buffer, turns, |chunk| {
                self.log.push(now, stream, chunk, |line| {
                    self.text_seen |= text.as_ref().is_some_and(|text| contains(line, text.as_bytes()));
                });
            });
        }
    }

    fn leave(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.remove();
        }
        record::release_reserve(&self.dir);
        let _ = std::fs::remove_file(self.dir.join(SOCKET_FILE));
    }
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    text.is_empty() || line.windows(text.len()).any(|window| window == text)
}
