//! One stream of events, whose numbers must follow each other.

use std::sync::Mutex;

use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Ending, READ_BYTES, Record, StreamKind, StreamPlan, lock, open};

const OK: &str = "HTTP/1.1 200";

/// An event is a few bytes.
const EVENT_BYTES_MAX: usize = 4096;

pub(super) async fn hold(
    plan: &StreamPlan,
    record: &Mutex<Record>,
    stopped: &mut watch::Receiver<bool>,
) -> Ending {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
        plan.event_path, plan.host
    );
    let broken = |what: String| Ending::Broken { what };
    let (mut stream, rest) = match open(plan, &request, OK).await {
        Ok(opened) => opened,
        Err(what) => return broken(what),
    };
    lock(record).tally(StreamKind::Events).opened += 1;
    let mut body = Body::new();
    let mut numbers = Numbers::default();
    let mut bytes = rest;
    let mut buffer = vec![0; READ_BYTES];
    let mut quiet_at = Instant::now() + plan.quiet_max;
    loop {
        if !bytes.is_empty() {
            let data = match body.take(&bytes) {
                Ok(data) => data,
                Err(what) => return broken(what),
            };
            match numbers.take(&data) {
                Ok(events) => lock(record).tally(StreamKind::Events).messages += events,
                Err(what) => return broken(what),
            }
            if body.is_done() {
                return match numbers.is_between_events() {
                    true => Ending::InOrder { unanswered: 0 },
                    false => broken("it ended within an event".to_owned()),
                };
            }
            quiet_at = Instant::now() + plan.quiet_max;
        }
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) => return broken("closed without the last chunk".to_owned()),
                Ok(read) => {
                    bytes.clear();
                    bytes.extend_from_slice(&buffer[..read]);
                }
                Err(error) => return broken(error.to_string()),
            },
            () = tokio::time::sleep_until(quiet_at) => {
                return broken(format!("nothing came for {:?}", plan.quiet_max));
            }
            _ = stopped.changed() => return Ending::Stopped,
        }
    }
}

/// Data between the frames of a chunked body.
#[derive(Debug)]
struct Body {
    state: Chunk,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Chunk {
    Size(Vec<u8>),
    Data { left: u64 },
    End,
    Trailers(Vec<u8>),
    Done,
}

impl Body {
    fn new() -> Body {
        Body { state: Chunk::Size(Vec::new()) }
    }

    fn is_done(&self) -> bool {
        self.state == Chunk::Done
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut data = Vec::new();
        while let Some((byte, rest)) = bytes.split_first() {
            match &mut self.state {
                Chunk::Size(line) if *byte == b'\n' => {
                    let text = String::from_utf8_lossy(line).into_owned();
                    let size = text.trim_end().split(';').next().unwrap_or_default();
                    let size =
                        u64::from_str_radix(size, 16).map_err(|_| format!("a chunk of size {text:?}"))?;
                    self.state =
                        if size == 0 { Chunk::Trailers(Vec::new()) } else { Chunk::Data { left: size } };
                }
                Chunk::Size(line) | Chunk::Trailers(line) if line.len() > EVENT_BYTES_MAX => {
                    return Err("a line without an end".to_owned());
                }
                Chunk::Size(line) => line.push(*byte),
                Chunk::Data { left } => {
                    let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    data.extend_from_slice(&bytes[..here]);
                    *left -= here as u64;
                    if *left == 0 {
                        self.state = Chunk::End;
                    }
                    bytes = &bytes[here..];
                    continue;
                }
                Chunk::End if *byte == b'\n' => self.state = Chunk::Size(Vec::new()),
                Chunk::End if *byte == b'\r' => {}
                Chunk::End => return Err("a chunk that is longer than it says".to_owned()),
                Chunk::Trailers(line) if *byte == b'\n' => match line.is_empty() {
                    true => self.state = Chunk::Done,
                    false => line.clear(),
                },
                Chunk::Trailers(line) => {
                    if *byte != b'\r' {
                        line.push(*byte);
                    }
                }
                Chunk::Done => return Err("something came after the last chunk".to_owned()),
            }
            bytes = rest;
        }
        Ok(data)
    }
}

#[derive(Debug, Default)]
struct Numbers {
    line: Vec<u8>,
    last: Option<u64>,
}

impl Numbers {
    /// How many events were in the data.
    fn take(&mut self, data: &[u8]) -> Result<u64, String> {
        let mut events = 0;
        for byte in data {
            if *byte != b'\n' {
                if self.line.len() > EVENT_BYTES_MAX {
                    return Err("an event without an end".to_owned());
                }
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            let Some(number) = line.strip_prefix("data: ") else { continue };
            let number: u64 = number.trim().parse().map_err(|_| format!("the event {line:?}"))?;
            if self.last.is_some_and(|last| number != last + 1) {
                return Err(format!("event {number} after {:?}", self.last));
            }
            self.last = Some(number);
            events += 1;
        }
        Ok(events)
    }

    fn is_between_events(&self) -> bool {
        self.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_wherever_their_bytes_are_split() {
        let text = b"9\r\ndata: 7\n\n\r\n5;x\r\ndata:\r\n4\r\n 8\n\n\r\n0\r\nx: y\r\n\r\n";
        for at in 0..text.len() {
            let (mut body, mut numbers) = (Body::new(), Numbers::default());
            let mut events = 0;
            for part in [&text[..at], &text[at..]] {
                events += numbers.take(&body.take(part).unwrap()).unwrap();
            }
            assert_eq!((events, body.is_done(), numbers.is_between_events()), (2, true, true), "{at}");
        }
    }

    #[test]
    fn a_number_that_is_left_out_is_a_break() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.take(b"data: 3\n\n: comment\n\ndata: 4\n\n"), Ok(2));
        assert!(numbers.take(b"data: 6\n\n").is_err());
        assert!(Body::new().take(b"zz\r\n").is_err());
        assert!(Body::new().take(b"1\r\nab").is_err());
    }
}
