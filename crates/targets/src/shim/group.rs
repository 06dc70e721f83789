//! One run of the application: its first process, everything that came out of it, and its output.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};

use crate::cgroup::Cgroup;
use crate::child::{Setting, above_stdio, spawn};
use crate::command::{Prepared, Stage};
use crate::event::GiveUpCause;
use crate::exit::Exit;
use crate::logs::line::Stream;
use crate::process::{ProcessId, descendants};
use crate::spawn_error::SpawnError;

/// Between two attempts to kill what is left; doubled each time, because a process that survives `SIGKILL` hangs
/// in the kernel and asking faster does not help.
const KILL_AGAIN: Duration = Duration::from_millis(20);
const KILL_AGAIN_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) main: ProcessId,
    /// Set once the first process has been collected; the others may live on.
    pub(crate) main_exit: Option<Exit>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) started: Instant,
    pub(crate) intent: Intent,
    oom_kills_before: u64,
}

#[derive(Debug)]
pub(crate) enum Intent {
    Run,
    /// Asked to end; killed when `kill_at` comes.
    Stop {
        why: StopWhy,
        kill_at: Instant,
    },
    Kill {
        why: StopWhy,
        again_at: Instant,
        pause: Duration,
    },
}

/// Why a run ends, which decides what comes after it.
#[derive(Clone, Debug)]
pub(crate) enum StopWhy {
    Asked,
    /// The first process ended on its own.
    ByItself,
    NotLive {
        why: String,
    },
    /// It was ready in an earlier run and does not get there again: one more exit for the restart policy.
    NotReadyAgain {
        why: String,
    },
    GivenUp(GiveUpCause),
    TimedOut,
}

/// What `wait` has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    Child {
        pid: i32,
        exit: Exit,
    },
    /// Some live, none has ended.
    NothingNow,
    /// There is no descendant left.
    NoneLeft,
}

pub(crate) fn collect() -> Collected {
    match wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            Collected::Child { pid: pid.as_raw_nonzero().get(), exit: Exit::from_wait(status) }
        }
        Ok(None) => Collected::NothingNow,
        Err(_) => Collected::NoneLeft,
    }
}

/// Kills a process group by the pid of its first process, which must be a child that was not collected yet.
pub(crate) fn signal_group(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process_group(pid, signal);
    }
}

impl Group {
    pub(crate) fn start(
        command: &Prepared,
        null: &OwnedFd,
        cgroup: Option<&Cgroup>,
        rlimits: &[(u32, u64)],
        now: Instant,
    ) -> Result<Self, SpawnError> {
        let system = |error: io::Error| command.explain(Stage::Fork, &error);
        let (stdout, child_stdout) = output_pipe().map_err(system)?;
        let (stderr, child_stderr) = output_pipe().map_err(system)?;
        let door = cgroup.and_then(|cgroup| cgroup.door().ok());
        let mut setting = Setting {
            stdin: null.as_fd(),
            stdout: child_stdout.as_fd(),
            stderr: child_stderr.as_fd(),
            cgroup: door.as_ref().map(File::as_fd),
            rlimits,
        };
        let started = match spawn(command, &setting) {
            Err((Stage::Cgroup, _)) => {
                // The group exists and takes nobody in: running outside of it is what "not enforced" means.
                setting.cgroup = None;
                spawn(command, &setting)
            }
            result => result,
        };
        let pid = started.map_err(|(stage, error)| command.explain(stage, &error))?;
        let main = ProcessId::of(pid).map_err(system)?;
        Ok(Self {
            main,
            main_exit: None,
            stdout: Some(stdout),
            stderr: Some(stderr),
            started: now,
            intent: Intent::Run,
            oom_kills_before: cgroup.map_or(0, Cgroup::oom_kills),
        })
    }

    /// Starts a command beside the run, without output and in a process group of its own.
    pub(crate) fn start_silent(
        command: &Prepared,
        null: &OwnedFd,
        cgroup: Option<&Cgroup>,
        rlimits: &[(u32, u64)],
    ) -> Result<i32, SpawnError> {
        let door = cgroup.and_then(|cgroup| cgroup.door().ok());
        let cgroup = door.as_ref().map(File::as_fd);
        let setting =
            Setting { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd(), cgroup, rlimits };
        spawn(command, &setting).map_err(|(stage, error)| command.explain(stage, &error))
    }

    /// Sends the stop signal to the process group, as a terminal does: a shell in front does not pass it on.
    pub(crate) fn ask_to_stop(&self, signal: Signal) {
        if self.main_exit.is_none() {
            signal_group(self.main.pid, signal);
            // One that was suspended would not see the signal before its time is up.
            signal_group(self.main.pid, Signal::CONT);
        }
    }

    /// Those that outlive the first process, wherever they moved to.
    pub(crate) fn ask_the_rest(&self, signal: Signal) {
        for process in own_descendants() {
            let _ = process.signal(signal);
        }
    }

    pub(crate) fn kill(&mut self, why: StopWhy, cgroup: Option<&Cgroup>, now: Instant) {
        if let Some(cgroup) = cgroup {
            let _ = cgroup.kill();
        }
        for process in own_descendants() {
            let _ = process.signal(Signal::KILL);
        }
        let pause = match &self.intent {
            Intent::Kill { pause, .. } => (*pause * 2).min(KILL_AGAIN_MAX),
            Intent::Run | Intent::Stop { .. } => KILL_AGAIN,
        };
        self.intent = Intent::Kill { why, again_at: now + pause, pause };
    }

    pub(crate) fn exit(&self, cgroup: Option<&Cgroup>) -> Exit {
        let oom_kills = cgroup.map_or(0, Cgroup::oom_kills);
        match &self.main_exit {
            Some(Exit::Signal(libc::SIGKILL)) if oom_kills > self.oom_kills_before => Exit::OutOfMemory,
            Some(exit) => exit.clone(),
            None => Exit::Unknown { why: "it has not been collected yet".into() },
        }
    }

    /// Reads what is there from one stream, at most `turns` buffers full.
    pub(crate) fn read(
        &mut self,
        stream: Stream,
        buffer: &mut [u8],
        turns: usize,
        mut take: impl FnMut(&[u8]),
    ) {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr | Stream::Fairway => &mut self.stderr,
        };
        for _ in 0..turns {
            let Some(fd) = slot else { return };
            match rustix::io::read(&*fd, &mut *buffer) {
                Ok(0) => *slot = None,
                Ok(len) => take(&buffer[..len]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => *slot = None,
            }
        }
    }
}

fn own_descendants() -> Vec<ProcessId> {
    descendants(rustix::process::getpid().as_raw_nonzero().get()).unwrap_or_default()
}

/// The reading end does not block, the writing end does: the application must see an ordinary pipe.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, above_stdio(write)?))
}

/// `/dev/null`, above the standard descriptors.
pub(crate) fn null() -> io::Result<OwnedFd> {
    above_stdio(File::options().read(true).write(true).open("/dev/null")?)
}

/// Everything on standard input, which holds the launch and nothing else.
pub(crate) fn read_stdin(bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::stdin().lock().take(bytes_max + 1).read_to_end(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::other("the launch is larger than any command the kernel would take"));
    }
    Ok(text)
}
