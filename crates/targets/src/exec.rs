//! A command beside an instance, in its environment, directory and user, with its streams handed through.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use crate::child::{Setting, above_stdio, spawn};
use crate::command::prepare;
use crate::exit::Exit;
use crate::key::InstanceKey;
use crate::spawn_error::SpawnError;
use crate::supervisor::{ControlError, Supervisor};
use crate::wire::{Command, Message};

/// Chunks that wait in one direction. The command waits when its reader is slow, as it would on a terminal.
const CHUNKS_MAX: usize = 16;
const CHUNK_BYTES_MAX: usize = 16 << 10;

#[derive(Debug, Error)]
pub enum ExecError {
    #[error(transparent)]
    Instance(#[from] ControlError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("cannot start the command: {0}")]
    Io(#[from] io::Error),
}

/// A command that runs. Dropping `output` kills it and everything in its process group; so does the end of the
/// server.
#[derive(Debug)]
pub struct ExecSession {
    pub pid: u32,
    /// Dropping it ends the command's standard input.
    pub stdin: mpsc::Sender<Vec<u8>>,
    pub output: mpsc::Receiver<ExecOutput>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The last one.
    Exited(Exit),
}

impl Supervisor {
    /// Runs a command in an instance's surroundings, secrets included. They come from its shim, so this works after
    /// a restart of the server too.
    ///
    /// # Errors
    /// When there is no such instance, or why the command does not start.
    pub async fn exec(&self, key: &InstanceKey, argv: Vec<String>) -> Result<ExecSession, ExecError> {
        match self.ask(key, &Command::Surroundings).await? {
            Message::Surroundings { env, workdir, user } => {
                let command = prepare(&argv, &env, &workdir, user.as_deref())?;
                start(command).await
            }
            Message::State(_) | Message::Done | Message::Refused(_) => {
                Err(io::Error::other("the shim gave another answer than was asked for").into())
            }
        }
    }
}

/// The process while nobody has collected it: only so long is its pid its own.
#[derive(Debug, Default)]
struct Uncollected(Mutex<Option<Pid>>);

impl Uncollected {
    fn kill_group(&self) {
        if let Some(pid) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

pub(crate) async fn start(command: crate::command::Prepared) -> Result<ExecSession, ExecError> {
    let pair = || pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
    let ((child_stdin, stdin), (stdout, child_stdout), (stderr, child_stderr)) = (pair()?, pair()?, pair()?);
    let (started, start_result) = oneshot::channel();
    let (ended, exit) = oneshot::channel();
    let process = Arc::new(Uncollected::default());
    let in_thread = Arc::clone(&process);
    // The kernel kills the command when this very thread ends: it lives exactly as long as the command does, and
    // with the server it dies.
    std::thread::Builder::new().name("fairway-exec".into()).stack_size(128 << 10).spawn(move || {
        let result = spawn_here(&command, child_stdin, child_stdout, child_stderr);
        let Ok(pid) = result else {
            let _ = started.send(result);
            return;
        };
        *in_thread.0.lock().unwrap_or_else(PoisonError::into_inner) = Pid::from_raw(pid);
        let _ = started.send(Ok(pid));
        let _ = ended.send(collect(&in_thread));
    })?;
    let pid = start_result.await.map_err(|_| io::Error::other("the thread of the command ended"))??;

    let (stdin_sender, stdin_chunks) = mpsc::channel(CHUNKS_MAX);
    let (output_sender, output) = mpsc::channel(CHUNKS_MAX);
    let (stdin, stdout, stderr) = (sender(stdin)?, receiver(stdout)?, receiver(stderr)?);
    tokio::spawn(async move {
        let feeding = tokio::spawn(feed(stdin, stdin_chunks));
        let closed = output_sender.clone();
        let streams = async {
            let (out, err) = (output_sender.clone(), output_sender.clone());
            let ((), (), exit) = tokio::join!(
                drain(stdout, out, ExecOutput::Stdout),
                drain(stderr, err, ExecOutput::Stderr),
                exit
            );
            let exit = exit.unwrap_or_else(|_| Exit::Unknown { why: "its thread ended".into() });
            let _ = output_sender.send(ExecOutput::Exited(exit)).await;
        };
        tokio::select! {
            () = streams => {}
            () = closed.closed() => {}
        }
        // What it left in the background holds the pipes, or nobody listens any more.
        process.kill_group();
        feeding.abort();
    });
    Ok(ExecSession { pid: pid.unsigned_abs(), stdin: stdin_sender, output })
}

fn spawn_here(
    command: &crate::command::Prepared,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<i32, ExecError> {
    let (stdin, stdout, stderr) = (above_stdio(stdin)?, above_stdio(stdout)?, above_stdio(stderr)?);
    let setting = Setting {
        stdin: stdin.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        cgroup: None,
        rlimits: &[],
    };
    spawn(command, &setting).map_err(|(stage, error)| command.explain(stage, &error).into())
}

fn collect(process: &Uncollected) -> Exit {
    let pid = *process.0.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(pid) = pid else { return Exit::Unknown { why: "it never ran".into() } };
    // First without collecting: until the lock is held, somebody may be about to signal the pid.
    while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        .is_err_and(|error| error == rustix::io::Errno::INTR)
    {}
    let mut uncollected = process.0.lock().unwrap_or_else(PoisonError::into_inner);
    *uncollected = None;
    match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
        Ok(Some((_, status))) => Exit::from_wait(status),
        Ok(None) => Exit::Unknown { why: "the kernel gave no status".into() },
        Err(error) => Exit::Unknown { why: error.to_string() },
    }
}

fn sender(fd: OwnedFd) -> io::Result<pipe::Sender> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    pipe::Sender::from_owned_fd(fd)
}

fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    pipe::Receiver::from_owned_fd(fd)
}

async fn feed(mut stdin: pipe::Sender, mut chunks: mpsc::Receiver<Vec<u8>>) {
    while let Some(chunk) = chunks.recv().await {
        // The command closed its input: what else comes has no reader.
        if stdin.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

async fn drain(mut from: pipe::Receiver, to: mpsc::Sender<ExecOutput>, wrap: fn(Vec<u8>) -> ExecOutput) {
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    while let Ok(len @ 1..) = from.read(&mut chunk).await {
        if to.send(wrap(chunk[..len].to_vec())).await.is_err() {
            return;
        }
    }
}
