//! One WebSocket that says something now and then, and wants it back.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Ending, GOODBYE, READ_BYTES, Record, StreamKind, StreamPlan, lock, open};
use crate::wire::Wire;

/// The key and its answer of RFC 6455, 1.3: what matters here is the stream, not who speaks.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "HTTP/1.1 101";

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

/// Ours are a few bytes; a server that sends more has mixed something up.
const PAYLOAD_BYTES_MAX: u64 = 64 * 1024;

/// A whole frame from the other side.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    opcode: u8,
    payload: Vec<u8>,
}

pub(super) async fn hold(
    plan: &StreamPlan,
    record: &Mutex<Record>,
    stopped: &mut watch::Receiver<bool>,
) -> Ending {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\r\n",
        plan.websocket_path, plan.host
    );
    let (mut stream, mut bytes) = match open(plan, &request, ACCEPT).await {
        Ok(opened) => opened,
        Err(what) => return Ending::Broken { what },
    };
    lock(record).tally(StreamKind::WebSocket).opened += 1;
    let broken = |what: String| Ending::Broken { what };
    let mut number = 0u64;
    let mut unanswered: VecDeque<String> = VecDeque::new();
    let mut send_at = Instant::now();
    let mut quiet_at = Instant::now() + plan.quiet_max;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        loop {
            let frame = match take_frame(&mut bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(what) => return broken(what),
            };
            quiet_at = Instant::now() + plan.quiet_max;
            match frame.opcode {
                1 | 2 => {
                    let expected = unanswered.pop_front();
                    if expected.as_deref().map(str::as_bytes) != Some(&frame.payload) {
                        let got = String::from_utf8_lossy(&frame.payload).into_owned();
                        return broken(format!("{got:?} came back for {expected:?}"));
                    }
                    lock(record).tally(StreamKind::WebSocket).messages += 1;
                }
                8 => {
                    // The answer to a goodbye, and nothing more.
                    let _ = send(&mut stream, CLOSE, &frame.payload).await;
                    return match &frame.payload[..] {
                        [3, 0xe8 | 0xe9, ..] => Ending::InOrder { unanswered: unanswered.len() as u64 },
                        other => broken(format!("a close frame that says {other:?}")),
                    };
                }
                9 => {
                    if let Err(error) = send(&mut stream, PONG, &frame.payload).await {
                        return broken(format!("at a pong: {error}"));
                    }
                }
                10 => {}
                other => return broken(format!("a frame of kind {other}")),
            }
        }
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) if bytes.is_empty() => return broken("closed without a close frame".to_owned()),
                Ok(0) => return broken("closed within a frame".to_owned()),
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                Err(error) => return broken(error.to_string()),
            },
            () = tokio::time::sleep_until(send_at) => {
                let text = format!("message {number}");
                number += 1;
                send_at += plan.message_every;
                // A peer that has just said goodbye may have closed: what it said is read before that is judged.
                if send(&mut stream, TEXT, text.as_bytes()).await.is_ok() {
                    unanswered.push_back(text);
                }
            }
            () = tokio::time::sleep_until(quiet_at) => {
                return broken(format!("nothing came for {:?}, {} unanswered", plan.quiet_max, unanswered.len()));
            }
            _ = stopped.changed() => {
                let goodbye = async {
                    // A peer that is gone needs none.
                    let _ = send(&mut stream, CLOSE, &[3, 0xe8]).await;
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                };
                let _ = tokio::time::timeout(GOODBYE, goodbye).await;
                return Ending::Stopped;
            }
        }
    }
}

async fn send(stream: &mut Wire, first: u8, payload: &[u8]) -> io::Result<()> {
    stream.write_all(&masked(first, payload)).await?;
    stream.flush().await
}

/// As a client sends it; a mask of zeros is a mask.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(125).min(125);
    let mut frame = vec![first, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(&payload[..usize::from(length)]);
    frame
}

/// The first frame, once it is whole.
fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<Frame>, String> {
    let (Some(first), Some(second)) = (bytes.first().copied(), bytes.get(1).copied()) else {
        return Ok(None);
    };
    if first & 0x70 != 0 || first & 0x80 == 0 || second & 0x80 != 0 {
        return Err(format!("a frame that begins with {first:#04x} {second:#04x}"));
    }
    let (header, length) = match second {
        126 => (4, bytes.get(2..4).map(|two| two.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))),
        127 => (10, bytes.get(2..10).map(|eight| eight.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))),
        short => (2, Some(u64::from(short))),
    };
    let Some(length) = length else { return Ok(None) };
    if length > PAYLOAD_BYTES_MAX {
        return Err(format!("a frame of {length} bytes"));
    }
    let end = header + usize::try_from(length).map_err(|error| error.to_string())?;
    if bytes.len() < end {
        return Ok(None);
    }
    let payload = bytes[header..end].to_vec();
    bytes.drain(..end);
    Ok(Some(Frame { opcode: first & 0x0f, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_and_one_by_one() {
        let mut bytes = vec![0x81, 2, b'h'];
        assert_eq!(take_frame(&mut bytes), Ok(None));
        bytes.extend_from_slice(b"i\x88\x02\x03\xe9");
        assert_eq!(take_frame(&mut bytes).unwrap().unwrap(), Frame { opcode: 1, payload: b"hi".to_vec() });
        assert_eq!(take_frame(&mut bytes).unwrap().unwrap(), Frame { opcode: 8, payload: vec![3, 0xe9] });
        assert_eq!(take_frame(&mut bytes), Ok(None));
        let mut long = [vec![0x82, 126, 1, 0], vec![7; 256]].concat();
        assert_eq!(take_frame(&mut long).unwrap().unwrap().payload.len(), 256);
    }

    #[test]
    fn what_no_server_may_send_is_a_break() {
        for bad in [vec![0x01, 0], vec![0x81, 0x80], vec![0xc1, 0], vec![0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(take_frame(&mut bad.clone()).is_err(), "{bad:?}");
        }
    }
}
