//! Handing the listening sockets to a successor (rule 2).
//!
//! Over `upgrade.sock` in the state directory, between two processes of which both may be another version:
//!
//! 1. The successor connects. The predecessor answers with one JSON line and then its listening sockets, one
//!    `SCM_RIGHTS` message each.
//! 2. The successor loads the saved snapshot, checks health, accepts, and says `READY <generation>`.
//! 3. The predecessor stops accepting and says `GO`. The sockets' queues never were without an owner.
//! 4. The predecessor drains. The connection stays open until it exits, so that the successor knows.
//!
//! Whatever goes wrong before `GO` (a crash, silence, another generation) leaves the predecessor serving as if
//! nothing had happened. There are no pauses of a fixed length.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::tickets::TicketKey;

/// How long a successor may take from the sockets to `READY`. Most of it is for the first health checks of many
/// instances; meanwhile no snapshot is taken over, so it must not be long.
const READY_WITHIN: Duration = Duration::from_secs(30);

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
    /// The successor serves: stop accepting, say `GO`, keep the connection.
    Ready { successor: UnixStream },
    /// It came to nothing.
    Withdraw,
}

/// Talks to one successor after the other until the receiver of `steps` is gone.
pub(crate) async fn serve(listener: UnixListener, steps: mpsc::Sender<Step>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let stream = stream.into_std()?;
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

/// Returns the connection once the successor is ready.
fn hand_out(mut stream: UnixStream, offer: &Offer) -> io::Result<UnixStream> {
    let until = Instant::now() + READY_WITHIN;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(READY_WITHIN))?;
    let header = Header {
        pid: std::process::id(),
        generation: offer.generation,
        sockets: offer.sockets.len(),
        tickets: offer.tickets.clone(),
    };
    let mut line = serde_json::to_vec(&header)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    for socket in &offer.sockets {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sockets = [socket.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&sockets));
        rustix::net::sendmsg(&stream, &[IoSlice::new(b"s")], &mut control, SendFlags::NOSIGNAL)?;
    }
    let ready = read_line(&mut stream, until)?;
    if ready != format!("READY {}", offer.generation) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the successor serves something else"));
    }
    Ok(stream)
}

/// Tells the successor that it is alone now.
pub(crate) fn say_go(successor: &mut UnixStream) -> io::Result<()> {
    successor.write_all(b"GO\n")
}

/// The successor's side, between the sockets and `GO`.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    generation: u64,
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
    let mut sockets = Vec::new();
    while sockets.len() < header.sockets {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0u8; 1];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                sockets.extend(received.map(|socket: OwnedFd| TcpListener::from(socket)));
            }
        }
    }
    let predecessor = Predecessor { stream, generation: header.generation };
    Ok(Some(Handed { predecessor, sockets, tickets: header.tickets }))
}

impl Predecessor {
    /// Says that this process serves `generation`, and waits until the predecessor stopped accepting. The
    /// connection that is returned ends when the predecessor does.
    pub(crate) fn relieve(mut self, generation: u64) -> io::Result<UnixStream> {
        if generation != self.generation {
            let problem = format!("it serves generation {}, the saved one is {generation}", self.generation);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        self.stream.write_all(format!("READY {generation}\n").as_bytes())?;
        match read_line(&mut self.stream, Instant::now() + READY_WITHIN)?.as_str() {
            "GO" => Ok(self.stream),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it did not let go")),
        }
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
