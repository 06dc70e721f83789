//! The supervisor's end of the control socket, and the start of a shim.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::attach::{Found, clear_up, inspect};
use crate::shim::READY_LINE;
use crate::spec::Launch;
use crate::wire::{Command, MESSAGE_BYTES_MAX, Message, Phase, SOCKET_FILE, State};

/// A shim answers within a turn of its loop, which may hold one sync of a slow disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// From the start of a shim until it answers; it writes and syncs one small file in between.
const SHIM_WITHIN: Duration = Duration::from_secs(20);

/// Between two attempts to reach a shim that lives and does not take the connection.
const CONNECT_AGAIN: Duration = Duration::from_millis(50);

/// After so many attempts (five seconds) the silence is reported.
const SILENT_ATTEMPTS: u32 = 100;

#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error("its shim does not answer: {0}")]
    NoAnswer(io::Error),
    #[error("{0}")]
    Refused(String),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::NoAnswer(error)
    }
}

/// By way of the directory's descriptor, because a socket's own path may not be longer than 107 bytes.
async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let directory = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd())).await
}

async fn send(stream: &mut (impl AsyncWriteExt + Unpin), command: &Command) -> io::Result<()> {
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// None at the end of the stream.
async fn receive(stream: &mut BufReader<UnixStream>) -> io::Result<Option<Message>> {
    let mut line = Vec::new();
    let read = stream.take(MESSAGE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::other("its shim broke off in the middle of a message"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// One question, one answer.
pub(crate) async fn request(dir: &Path, command: &Command) -> Result<Message, ClientError> {
    let answer = timeout(ANSWER_WITHIN, async {
        let mut stream = BufReader::new(connect(dir).await?);
        send(&mut stream, command).await?;
        receive(&mut stream).await
    });
    match answer.await {
        Ok(Ok(Some(Message::Refused(why)))) => Err(ClientError::Refused(why)),
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// Starts a shim and waits until it answers. The launch goes through a pipe: it holds the values of secrets, and
/// neither a command line nor a file is a place for those.
///
/// # Errors
/// What the shim, or the attempt to start it, said. A shim that was started and failed has started nothing else.
pub(crate) async fn launch(dir: &Path, shim_command: &[OsString], launch: &Launch) -> io::Result<()> {
    let (program, words) =
        shim_command.split_first().ok_or_else(|| io::Error::other("there is no command for the shim"))?;
    let complaints = File::options().create(true).append(true).open(dir.join("shim.log"))?;
    let mut shim = tokio::process::Command::new(program)
        .args(words)
        .arg("--dir")
        .arg(dir)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(complaints)
        .spawn()?;
    let text = serde_json::to_vec(launch)?;
    let (stdin, stdout) = (shim.stdin.take(), shim.stdout.take());
    let greeting = timeout(SHIM_WITHIN, async {
        if let Some(mut stdin) = stdin {
            // A shim that refuses early closes the pipe; its answer says why.
            let _ = stdin.write_all(&text).await;
            let _ = stdin.shutdown().await;
        }
        let mut greeting = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).take(4096).read_line(&mut greeting).await?;
        }
        io::Result::Ok(greeting)
    });
    let greeting = match greeting.await {
        Ok(greeting) => greeting?,
        Err(_) => {
            // It is this process's own child, and what it may have started ends with it.
            let _ = shim.kill().await;
            return Err(io::Error::other(format!("the shim did not answer within {SHIM_WITHIN:?}")));
        }
    };
    if greeting == READY_LINE {
        tokio::spawn(async move { shim.wait().await });
        return Ok(());
    }
    let status = shim.wait().await?;
    let said = fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
    let why = match (greeting.trim(), said.trim().lines().last()) {
        ("", Some(line)) => line.to_owned(),
        ("", None) => format!("the shim ended with {status}"),
        (greeting, _) => greeting.to_owned(),
    };
    Err(io::Error::other(why))
}

/// What comes to be known of one directory, in order, across lost connections.
#[derive(Debug)]
pub(crate) struct Follower {
    dir: std::path::PathBuf,
    at: Position,
}

#[derive(Debug)]
enum Position {
    Outside { attempts: u32 },
    Connected(BufReader<UnixStream>),
    Over,
}

#[derive(Debug)]
pub(crate) enum News {
    State(Box<State>),
    /// Its shim lives and is silent; or it cannot be told whose process that is, and then nothing more will come.
    Unverifiable {
        why: String,
    },
}

impl Follower {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), at: Position::Outside { attempts: 0 } }
    }

    /// None once there is nothing more to come.
    pub(crate) async fn next(&mut self) -> Option<News> {
        loop {
            match &mut self.at {
                Position::Over => return None,
                Position::Connected(stream) => match receive(stream).await {
                    Ok(Some(Message::State(state))) => {
                        if let Phase::Ended { .. } = state.phase {
                            self.at = Position::Over;
                        }
                        return Some(News::State(state));
                    }
                    Ok(Some(Message::Done | Message::Refused(_) | Message::Surroundings { .. })) => {}
                    Ok(None) | Err(_) => self.at = Position::Outside { attempts: 0 },
                },
                Position::Outside { attempts } => {
                    let attempts = *attempts;
                    if let Some(news) = self.look(attempts).await {
                        return Some(news);
                    }
                }
            }
        }
    }

    async fn look(&mut self, attempts: u32) -> Option<News> {
        match inspect(&self.dir).await {
            Found::Alive(_) => {
                let subscribed = async {
                    let mut stream = BufReader::new(connect(&self.dir).await?);
                    send(&mut stream, &Command::Subscribe).await?;
                    io::Result::Ok(stream)
                };
                match subscribed.await {
                    Ok(stream) => {
                        self.at = Position::Connected(stream);
                        None
                    }
                    Err(error) => {
                        self.at = Position::Outside { attempts: attempts.saturating_add(1) };
                        tokio::time::sleep(CONNECT_AGAIN).await;
                        (attempts == SILENT_ATTEMPTS).then(|| News::Unverifiable {
                            why: format!("its shim lives and does not answer: {error}"),
                        })
                    }
                }
            }
            Found::Ended(state) => {
                self.at = Position::Over;
                Some(News::State(state))
            }
            Found::Gone { state, why } => {
                self.at = Position::Over;
                match clear_up(&self.dir, state, &why).await {
                    Ok(state) => Some(News::State(state)),
                    Err(why) => Some(News::Unverifiable { why }),
                }
            }
            Found::Unused => {
                self.at = Position::Over;
                Some(News::Unverifiable { why: "nothing was started in its directory".into() })
            }
            Found::Unverifiable { why } => {
                self.at = Position::Over;
                Some(News::Unverifiable { why })
            }
        }
    }
}
