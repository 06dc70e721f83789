//! Handing the listening sockets to a successor (rule 2).
//!
//! Over `upgrade.sock` in the state directory, between two processes of which both may be another version:
//!
//! 1. The successor connects. The predecessor answers with one JSON line and then its listening sockets, one
//!    message each ([`passing`]).
//! 2. The successor loads the saved snapshot, checks health, opens its own sockets under names that nobody knows, asks
//!    itself there, and says `READY <generation> TRIAL`. It accepts nothing yet.
//! 3. The predecessor says `GO`, and goes on accepting.
//! 4. The successor accepts too. When that holds it says `SETTLED`.
//! 5. The predecessor says `YOURS`, stops accepting, and drains. The connection stays open until it exits, so that the
//!    successor knows. The successor puts its sockets in their places.
//!
//! Until `YOURS` the state directory is the predecessor's, and so is the last word: whatever goes wrong before (a
//! crash, silence, another generation) leaves it serving as if nothing had happened, and it says `BACK` to whoever can
//! still hear it. A successor that heard neither looks whether the predecessor is dead: then it goes on alone, and ends
//! otherwise. So at every instant one of the two accepts, and never two take snapshots. There are no pauses of a fixed
//! length.
//!
//! A predecessor from before the trial (no `trial` in its line) is done with `GO`, and its successor says `READY
//! <generation>` alone.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::accept::accept;
use crate::passing;
use crate::tickets::TicketKey;

/// How long a successor may take from the sockets to `READY`. Most of it is for the first health checks of many
/// instances; meanwhile no snapshot is taken over, so it must not be long.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// From `GO` to `SETTLED`: the cores begin to accept and wait for a first connection, for [`FIRST_ACCEPT`] at most. The
/// rest is for a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// How long a successor waits for a first connection before it says that it is settled. A program that dies of its first
/// one is to die while the predecessor still accepts; where nobody comes, this much longer nothing happens.
pub(crate) const FIRST_ACCEPT: Duration = Duration::from_millis(100);

/// From the end of the connection to the end of the process that had it: the kernel closes the one on the way to the
/// other.
const DEAD_WITHIN: Duration = Duration::from_secs(1);

/// Lines are a few dozen bytes, and the first one with two keys some 500.
const LINE_BYTES_MAX: usize = 1_024;

pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("upgrade.sock")
}

/// What goes before the sockets.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    pid: u32,
    generation: u64,
    sockets: usize,
    /// Newest first; a predecessor of an earlier version hands out none.
    #[serde(default)]
    tickets: Vec<TicketKey>,
    /// Whether it goes on until the successor is settled.
    #[serde(default)]
    trial: bool,
}

/// What the deciding thread hands out.
#[derive(Debug)]
pub(crate) struct Offer {
    pub generation: u64,
    pub sockets: Vec<TcpListener>,
    pub tickets: Vec<TicketKey>,
}

/// What the conversation with a successor asks the deciding thread.
#[derive(Debug)]
pub(crate) enum Step {
    /// `None` when it drains already.
    Offer { reply: oneshot::Sender<Option<Offer>> },
    /// The successor serves: let it go on alone, stop accepting, keep the connection.
    Ready { successor: Successor },
    /// It came to nothing.
    Withdraw,
}

/// Talks to one successor after the other until the receiver of `steps` is gone.
pub(crate) async fn serve(listener: UnixListener, steps: mpsc::Sender<Step>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        // Fails only where the runtime is on its way out; a successor that hears nothing asks again.
        let Ok(stream) = accept(&listener).await.into_std() else { continue };
        let (reply, offer) = oneshot::channel();
        if steps.send(Step::Offer { reply }).await.is_err() {
            return Ok(());
        }
        let Ok(Some(offer)) = offer.await else { continue };
        let talk = tokio::task::spawn_blocking(move || hand_out(stream, &offer));
        let step = match talk.await {
            Ok(Ok(successor)) => Step::Ready { successor },
            Ok(Err(_)) | Err(_) => Step::Withdraw,
        };
        if steps.send(step).await.is_err() {
            return Ok(());
        }
    }
}

/// A successor that serves.
#[derive(Debug)]
pub(crate) struct Successor {
    stream: UnixStream,
    last_word: &'static str,
}

impl Successor {
    /// Tells it that it is alone now.
    ///
    /// # Errors
    /// When it is gone: it will never serve.
    pub(crate) fn let_go(&mut self) -> io::Result<()> {
        say(&mut self.stream, self.last_word)
    }

    /// Tells it that it will not be alone. Where it is gone it needs no telling.
    pub(crate) fn refuse(mut self) {
        let _ = say(&mut self.stream, BACK);
    }
}

const GO: &str = "GO";
const SETTLED: &str = "SETTLED";
const YOURS: &str = "YOURS";
const BACK: &str = "BACK";

/// Returns once the successor serves.
fn hand_out(mut stream: UnixStream, offer: &Offer) -> io::Result<Successor> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(READY_WITHIN))?;
    match converse(&mut stream, offer) {
        Ok(last_word) => Ok(Successor { stream, last_word }),
        Err(error) => {
            // It may be alive and on its way: without this it would have to find out whether we are.
            let _ = say(&mut stream, BACK);
            Err(error)
        }
    }
}

/// The answer is what the successor waits for.
fn converse(stream: &mut UnixStream, offer: &Offer) -> io::Result<&'static str> {
    let until = Instant::now() + READY_WITHIN;
    let sockets = offer.sockets.len();
    let (pid, generation, tickets) = (std::process::id(), offer.generation, offer.tickets.clone());
    let header = Header { pid, generation, sockets, tickets, trial: true };
    say(stream, &serde_json::to_string(&header)?)?;
    for socket in &offer.sockets {
        passing::send(&mut *stream, [socket])?;
    }
    let said = read_line(stream, until)?;
    if said == ready(offer.generation, false) {
        return Ok(GO);
    }
    if said != ready(offer.generation, true) {
        return Err(invalid("the successor serves something else"));
    }
    say(stream, GO)?;
    match read_line(stream, Instant::now() + SETTLED_WITHIN)?.as_str() {
        SETTLED => Ok(YOURS),
        _ => Err(invalid("the successor is not settled")),
    }
}

fn ready(generation: u64, trial: bool) -> String {
    format!("READY {generation}{}", if trial { " TRIAL" } else { "" })
}

fn say(stream: &mut UnixStream, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// The successor's side, between the sockets and the last word.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    generation: u64,
    /// Whether it goes on until this process is settled.
    pub trial: bool,
    /// The process, so that its number can be nobody else's; none where it is another thread of this one.
    process: Option<OwnedFd>,
}

/// What a predecessor came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// What was waited for.
    Yes,
    /// It died: nobody else has the sockets.
    Dead,
}

/// What the running proxy hands over.
#[derive(Debug)]
pub(crate) struct Handed {
    pub predecessor: Predecessor,
    pub sockets: Vec<TcpListener>,
    pub tickets: Vec<TicketKey>,
}

/// `None` when no proxy runs there.
pub(crate) fn receive(state_dir: &Path) -> io::Result<Option<Handed>> {
    let mut stream = match crate::control::connect_path(&path(state_dir)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(READY_WITHIN))?;
    let header: Header = serde_json::from_str(&read_line(&mut stream, Instant::now() + READY_WITHIN)?)?;
    let process = match header.pid == std::process::id() {
        true => None,
        false => process_of(header.pid)?,
    };
    let mut sockets = Vec::new();
    while sockets.len() < header.sockets {
        sockets.extend(passing::receive(&stream)?);
    }
    let Header { generation, trial, tickets, .. } = header;
    let predecessor = Predecessor { stream, generation, trial, process };
    Ok(Some(Handed { predecessor, sockets, tickets }))
}

fn process_of(pid: u32) -> io::Result<Option<OwnedFd>> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| invalid("no process has this number"))?;
    Ok(Some(pidfd_open(pid, PidfdFlags::empty())?))
}

impl Predecessor {
    /// Says that this process can serve `generation`, and waits to be let.
    ///
    /// # Errors
    /// When it is not let.
    pub(crate) fn ready(&mut self, generation: u64) -> io::Result<Said> {
        if generation != self.generation {
            let problem = format!("it serves generation {}, the saved one is {generation}", self.generation);
            return Err(invalid(problem));
        }
        let line = ready(generation, self.trial);
        self.ask(&line, GO)
    }

    /// Says that this process serves, and waits to be alone. The connection that is returned ends when the predecessor
    /// does; none when it has.
    ///
    /// # Errors
    /// When the predecessor goes on instead.
    pub(crate) fn settled(mut self) -> io::Result<Option<UnixStream>> {
        if self.trial && self.ask(SETTLED, YOURS)? == Said::Dead {
            return Ok(None);
        }
        Ok(Some(self.stream))
    }

    fn ask(&mut self, line: &str, wanted: &str) -> io::Result<Said> {
        let said = say(&mut self.stream, line)
            .and_then(|()| read_line(&mut self.stream, Instant::now() + READY_WITHIN));
        match said {
            Ok(said) if said == wanted => Ok(Said::Yes),
            Ok(_) => Err(invalid("it goes on itself")),
            Err(_) if self.is_dead() => Ok(Said::Dead),
            Err(error) => Err(error),
        }
    }

    /// One from before the trial closes the connection while it lives, and says nothing.
    fn is_dead(&self) -> bool {
        let Some(process) = &self.process else { return false };
        let mut wanted = [PollFd::new(process, PollFlags::IN)];
        let within = Timespec::try_from(DEAD_WITHIN).ok();
        matches!(poll(&mut wanted, within.as_ref()), Ok(1..))
    }
}

/// Byte by byte: what follows a line may carry sockets, which a larger read would lose. The time is for the whole
/// line: a peer that says a byte now and then must not hold snapshots up for ever.
fn read_line(stream: &mut UnixStream, until: Instant) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0u8; 1];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into()),
            b if line.len() < LINE_BYTES_MAX => line.push(b),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_one_deadline_however_slowly_it_comes() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let trickle = std::thread::spawn(move || {
            while theirs.write_all(b"R").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let error = read_line(&mut ours, Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        drop(ours);
        trickle.join().unwrap();
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[b'R'; LINE_BYTES_MAX + 1]).unwrap();
        let error = read_line(&mut ours, Instant::now() + READY_WITHIN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
