use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::message::{Ask, Asked, Event, Hello, Said, Say};
use crate::accept::accept;

/// A question on its way to the thread that decides.
#[derive(Debug)]
pub(crate) struct Command {
    pub ask: Ask,
    pub reply: oneshot::Sender<Say>,
}

/// Longest line from a client. A snapshot of 10,000 instances has about 2 MiB.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What every client is told first.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub source: u64,
    /// Generation that is being served.
    pub generation: Arc<AtomicU64>,
}

/// Accepts clients until the receiver of `commands` is gone.
pub(crate) async fn serve(
    listener: StdUnixListener,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    known: Known,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    loop {
        let stream = accept(&listener).await;
        let hello = Hello {
            pid: std::process::id(),
            source: known.source,
            generation: known.generation.load(Ordering::Acquire),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        // Subscribed before the greeting: whoever was greeted misses nothing.
        let events = events.subscribe();
        let commands = commands.clone();
        tokio::spawn(async move {
            // A client that goes away in mid-sentence is nobody's problem.
            let _ = converse(stream, hello, commands, events).await;
        });
    }
}

async fn converse(
    stream: UnixStream,
    hello: Hello,
    commands: mpsc::Sender<Command>,
    mut events: broadcast::Receiver<Event>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    say(&mut write, None, Say::Hello(hello)).await?;
    loop {
        tokio::select! {
            chunk = read.fill_buf() => {
                let chunk = chunk?;
                if chunk.is_empty() {
                    return Ok(());
                }
                let newline = chunk.iter().position(|b| *b == b'\n');
                let taken = newline.map_or(chunk.len(), |at| at + 1);
                line.extend_from_slice(&chunk[..taken]);
                read.consume(taken);
                if line.len() > LINE_BYTES_MAX {
                    let problem = format!("a line is longer than {LINE_BYTES_MAX} bytes");
                    return say(&mut write, None, Say::BadRequest { problem }).await;
                }
                if newline.is_some() {
                    let (seq, answer) = answer(&line, &commands).await;
                    line.clear();
                    say(&mut write, seq, answer).await?;
                }
            }
            event = events.recv() => match event {
                Ok(event) => say(&mut write, None, Say::Event(event)).await?,
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    say(&mut write, None, Say::Event(Event::Missed { count })).await?;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
        }
    }
}

async fn answer(line: &[u8], commands: &mpsc::Sender<Command>) -> (Option<u64>, Say) {
    let asked: Asked = match serde_json::from_slice(line) {
        Ok(asked) => asked,
        Err(error) => return (seq_of(line), Say::BadRequest { problem: error.to_string() }),
    };
    let (reply, said) = oneshot::channel();
    let gone = || Say::BadRequest { problem: "the proxy is going down".to_owned() };
    if commands.send(Command { ask: asked.ask, reply }).await.is_err() {
        return (Some(asked.seq), gone());
    }
    (Some(asked.seq), said.await.unwrap_or_else(|_| gone()))
}

/// The number of a question that is not understood otherwise, so that its asker does not wait for ever.
fn seq_of(line: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Seq {
        seq: u64,
    }
    serde_json::from_slice::<Seq>(line).ok().map(|found| found.seq)
}

async fn say(write: &mut tokio::net::unix::OwnedWriteHalf, seq: Option<u64>, say: Say) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Said { seq, say })?;
    line.push(b'\n');
    write.write_all(&line).await
}
