//! One call as gRPC makes it: messages both ways on a stream of HTTP/2, and a status at its end. What is said comes
//! back.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::{HeaderMap, Request};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Ending, GOODBYE, Record, StreamKind, StreamPlan, lock};
use crate::channel::{Channel, Opened, is_refusal};

/// The status that ended calls carry: what was asked for is done, and come again (an instance or a proxy that goes).
const STATUS_OK: &str = "0";
const STATUS_UNAVAILABLE: &str = "14";

/// Ours are a few bytes; a server that sends more has mixed something up.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// What the other side says, as far as it has come.
enum Answer {
    Head(ResponseFuture),
    Body(RecvStream),
}

enum Heard {
    Head,
    Data(Bytes),
    End(Option<HeaderMap>),
}

pub(super) async fn hold(
    channel: &Channel,
    plan: &StreamPlan,
    record: &Mutex<Record>,
    stopped: &mut watch::Receiver<bool>,
) -> Ending {
    let broken = |what: String| Ending::Broken { what };
    let request = Request::post(format!("{}://{}{}", channel.scheme(), plan.host, plan.call_path))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(());
    let request = match request {
        Ok(request) => request,
        Err(error) => return broken(error.to_string()),
    };
    let mut connections = 0;
    let opening = channel.open(&request, false, &mut connections);
    let Opened { response, body: mut send, .. } = match tokio::time::timeout(plan.quiet_max, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(cause)) => return broken(cause.to_string()),
        Err(_) => return broken(format!("no connection in {:?}", plan.quiet_max)),
    };
    let mut answer = Answer::Head(response);
    let mut bytes: Vec<u8> = Vec::new();
    let mut number = 0u64;
    let mut unanswered: VecDeque<String> = VecDeque::new();
    let mut send_at = Instant::now();
    let mut quiet_at = Instant::now() + plan.quiet_max;
    loop {
        tokio::select! {
            heard = answer.next() => match heard {
                Ok(Heard::Head) => {
                    lock(record).tally(StreamKind::Call).opened += 1;
                    quiet_at = Instant::now() + plan.quiet_max;
                }
                Ok(Heard::Data(data)) => {
                    bytes.extend_from_slice(&data);
                    quiet_at = Instant::now() + plan.quiet_max;
                    loop {
                        match take_message(&mut bytes) {
                            Ok(Some(message)) => {
                                let expected = unanswered.pop_front();
                                if expected.as_deref().map(str::as_bytes) != Some(&message) {
                                    let got = String::from_utf8_lossy(&message).into_owned();
                                    return broken(format!("{got:?} came back for {expected:?}"));
                                }
                                lock(record).tally(StreamKind::Call).messages += 1;
                            }
                            Ok(None) => break,
                            Err(what) => return broken(what),
                        }
                    }
                }
                Ok(Heard::End(trailers)) => return ended(trailers, &bytes, unanswered.len() as u64),
                Err(Unheard::Refused) => return Ending::Refused,
                Err(Unheard::Broken(what)) => return broken(what),
            },
            () = tokio::time::sleep_until(send_at) => {
                let text = format!("message {number}");
                number += 1;
                send_at += plan.message_every;
                // Fails when the call has ended: what it ended with is read before that is judged.
                if send.send_data(message(text.as_bytes()), false).is_ok() {
                    unanswered.push_back(text);
                }
            }
            () = tokio::time::sleep_until(quiet_at) => {
                return broken(format!("nothing came for {:?}, {} unanswered", plan.quiet_max, unanswered.len()));
            }
            _ = stopped.changed() => {
                let goodbye = async {
                    let _ = send.send_data(Bytes::new(), true);
                    while matches!(answer.next().await, Ok(Heard::Head | Heard::Data(_))) {}
                };
                let _ = tokio::time::timeout(GOODBYE, goodbye).await;
                return Ending::Stopped;
            }
        }
    }
}

fn ended(trailers: Option<HeaderMap>, rest: &[u8], unanswered: u64) -> Ending {
    let trailers = trailers.unwrap_or_default();
    let header = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    let what = match header("grpc-status") {
        Some(STATUS_OK | STATUS_UNAVAILABLE) if rest.is_empty() => return Ending::InOrder { unanswered },
        Some(STATUS_OK | STATUS_UNAVAILABLE) => "it ended within a message".to_owned(),
        Some(other) => format!("ended with status {other}: {:?}", header("grpc-message")),
        None => "ended without a status".to_owned(),
    };
    Ending::Broken { what }
}

/// Why there is nothing more to hear.
#[derive(Debug)]
enum Unheard {
    /// The call was not processed.
    Refused,
    Broken(String),
}

impl Answer {
    /// Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Result<Heard, Unheard> {
        let broken = |error: h2::Error| Unheard::Broken(error.to_string());
        match self {
            Answer::Head(response) => {
                let refused = |error| if is_refusal(&error) { Unheard::Refused } else { broken(error) };
                let (head, body) = response.await.map_err(refused)?.into_parts();
                if head.status != 200 {
                    return Err(Unheard::Broken(format!("answered {}", head.status)));
                }
                // A call that ends as it begins says its status in the head.
                if head.headers.contains_key("grpc-status") {
                    return Ok(Heard::End(Some(head.headers)));
                }
                *self = Answer::Body(body);
                Ok(Heard::Head)
            }
            Answer::Body(body) => match body.data().await {
                Some(data) => {
                    let data = data.map_err(broken)?;
                    body.flow_control().release_capacity(data.len()).map_err(broken)?;
                    Ok(Heard::Data(data))
                }
                None => Ok(Heard::End(body.trailers().await.map_err(broken)?)),
            },
        }
    }
}

fn message(payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &length, payload].concat().into()
}

/// The first message, once it is whole.
fn take_message(bytes: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let Some((compressed, length)) = bytes.first_chunk().map(|[flag, a, b, c, d]| (*flag, [*a, *b, *c, *d]))
    else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length > MESSAGE_BYTES_MAX {
        return Err(format!("a message that begins with {:?}", &bytes[..PREFIX_BYTES]));
    }
    let end = PREFIX_BYTES + length;
    if bytes.len() < end {
        return Ok(None);
    }
    let payload = bytes[PREFIX_BYTES..end].to_vec();
    bytes.drain(..end);
    Ok(Some(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_and_one_by_one() {
        let text = [message(b"one"), message(b""), message(b"three")].concat();
        for at in 0..text.len() {
            let (mut bytes, mut taken) = (Vec::new(), Vec::new());
            for part in [&text[..at], &text[at..]] {
                bytes.extend_from_slice(part);
                while let Some(message) = take_message(&mut bytes).unwrap() {
                    taken.push(message);
                }
            }
            assert_eq!(taken, [&b"one"[..], b"", b"three"], "{at}");
            assert!(bytes.is_empty());
        }
        assert!(take_message(&mut vec![1, 0, 0, 0, 0]).is_err());
        assert!(take_message(&mut vec![0, 1, 0, 0, 0]).is_err());
    }

    #[test]
    fn only_a_status_that_says_that_it_went_well_or_to_come_again_is_an_end() {
        let with = |status: &str| {
            Some(HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]))
        };
        for status in ["0", "14"] {
            assert!(matches!(ended(with(status), b"", 2), Ending::InOrder { unanswered: 2 }), "{status}");
            assert!(matches!(ended(with(status), b"x", 0), Ending::Broken { .. }), "{status}");
        }
        for trailers in [None, Some(HeaderMap::new()), with("13"), with("1")] {
            assert!(matches!(ended(trailers, b"", 0), Ending::Broken { .. }));
        }
    }
}
