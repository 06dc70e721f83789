//! One batch on its way to a receiver.

use std::ops::Range;

use bytes::Bytes;
use fairway_metrics::labels::Labels;
use fairway_metrics::remote::{Batch, Message, Outcome, encode};
use fairway_metrics::sample::Sample;
use hyper::header::HeaderName;

use super::{ANSWER_BYTES_MAX, SEND_WITHIN};
use crate::outgoing::{Answer, Outgoing, OutgoingError, Request};

/// Requests for one batch of which a part is refused. It takes about ten to find one sample among two thousand; a
/// receiver that takes nothing must not get every sample by itself.
const REQUESTS_MAX: usize = 64;

/// Of a receiver's words.
const WHY_CHARS_MAX: usize = 200;

/// What came of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Of the batch, but for what was refused singly.
    pub outcome: Outcome,
    /// Samples that the receiver does not want, while it took others.
    pub refused: u64,
    /// Its words for the first of them, or for the batch.
    pub why: Option<String>,
}

/// A Prometheus refuses a whole request for one sample that it cannot take, as of a series of which it has a newer one.
/// Then the request is halved until that sample is alone.
pub async fn send(outgoing: &Outgoing, url: &str, batch: &Batch) -> Sent {
    let mut halving = Halving::new(batch.samples.len());
    while let Some(part) = halving.next() {
        let samples = batch.samples.get(part.clone()).unwrap_or_default();
        halving.answered(part, post(outgoing, url, samples).await);
    }
    halving.sent()
}

/// What of a batch is still to be sent, and what came of the rest.
#[derive(Debug)]
struct Halving {
    /// The next one is the last. Earlier samples before later ones: those of a series are to arrive in order.
    parts: Vec<Range<usize>>,
    requests: usize,
    taken: usize,
    refused: u64,
    why: Option<String>,
    last: Outcome,
}

impl Halving {
    fn new(count: usize) -> Self {
        let (requests, taken, refused) = (0, 0, 0);
        Self {
            parts: std::iter::once(0..count).collect(),
            requests,
            taken,
            refused,
            why: None,
            last: Outcome::NoAnswer,
        }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        self.parts.pop()
    }

    fn answered(&mut self, part: Range<usize>, answer: Result<Answer, OutgoingError>) {
        self.requests += 1;
        let Ok(answer) = answer else {
            // What was taken of it is sent once more, as it is after any answer that is lost.
            self.give_up(Outcome::NoAnswer);
            return;
        };
        self.last = Outcome::Answered { status: answer.status, retry_after: answer.retry_after() };
        match answer.status {
            200..=299 => self.taken += part.len(),
            400 | 413 => {
                self.why.get_or_insert_with(|| words(&answer.body));
                let middle = part.start + part.len() / 2;
                if part.len() > 1 && self.requests + self.parts.len() + 2 <= REQUESTS_MAX {
                    self.parts.extend([middle..part.end, part.start..middle]);
                } else {
                    self.refused += part.len() as u64;
                }
            }
            status => {
                self.why.get_or_insert_with(|| format!("status {status}: {}", words(&answer.body)));
                self.give_up(self.last);
            }
        }
    }

    fn give_up(&mut self, outcome: Outcome) {
        self.parts.clear();
        (self.taken, self.refused, self.last) = (0, 0, outcome);
    }

    fn sent(self) -> Sent {
        let Self { taken, refused, why, last, .. } = self;
        if taken == 0 {
            return Sent { outcome: last, refused: 0, why };
        }
        Sent { outcome: Outcome::Answered { status: 204, retry_after: None }, refused, why }
    }
}

fn words(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim().chars().filter(|c| !c.is_control()).take(WHY_CHARS_MAX).collect()
}

async fn post(outgoing: &Outgoing, url: &str, samples: &[(Labels, Sample)]) -> Result<Answer, OutgoingError> {
    let encoded = encode(samples, Message::V1);
    let headers = encoded.headers.iter().map(|(name, value)| {
        (
            HeaderName::from_bytes(name.as_bytes()).expect("they are constants of letters and dashes"),
            (*value).to_owned(),
        )
    });
    let request = Request {
        headers: headers.collect(),
        within: SEND_WITHIN,
        answer_bytes_max: ANSWER_BYTES_MAX,
        ..Request::post(url, "application/x-protobuf", encoded.body)
    };
    outgoing.send(request).await
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderMap;

    use super::*;

    fn answer(status: u16) -> Result<Answer, OutgoingError> {
        let body = Bytes::from_static(b"out of order sample\n");
        Ok(Answer { status, headers: HeaderMap::new(), body })
    }

    const TAKEN: Outcome = Outcome::Answered { status: 204, retry_after: None };

    /// What came of it, and how many requests it took.
    fn sent(count: usize, mut status: impl FnMut(&Range<usize>) -> u16) -> (Sent, usize) {
        let mut halving = Halving::new(count);
        while let Some(part) = halving.next() {
            let status = status(&part);
            halving.answered(part, answer(status));
        }
        let requests = halving.requests;
        (halving.sent(), requests)
    }

    #[test]
    fn of_a_batch_that_is_refused_only_the_bad_samples_are_lost() {
        let bad = [3, 4, 1_200, 1_999];
        let mut taken = Vec::new();
        let (sent, _) = sent(2_000, |part| {
            if bad.iter().any(|bad| part.contains(bad)) {
                return 400;
            }
            taken.extend(part.clone());
            204
        });
        let why = Some("out of order sample".to_owned());
        assert_eq!(sent, Sent { outcome: TAKEN, refused: 4, why });
        assert_eq!(taken.len(), 1_996);
        assert!(taken.is_sorted(), "in the order in which they were measured");
    }

    #[test]
    fn a_receiver_that_takes_nothing_is_not_asked_for_every_sample() {
        let (sent, requests) = sent(2_000, |_| 400);
        assert!(requests <= REQUESTS_MAX, "{requests}");
        assert_eq!(sent.outcome, Outcome::Answered { status: 400, retry_after: None });
        assert_eq!(sent.refused, 0, "the whole batch is");
    }

    #[test]
    fn a_receiver_that_goes_away_or_lets_nobody_in_gets_the_batch_as_it_was() {
        let mut requests = 0;
        let (gone, _) = sent(10, |_| {
            requests += 1;
            match requests {
                2 => 204,
                4 => 503,
                _ => 400,
            }
        });
        assert_eq!(gone.outcome, Outcome::Answered { status: 503, retry_after: None });
        assert_eq!(gone.refused, 0, "what was refused before is asked again");
        let (refused, requests) = sent(10, |_| 401);
        assert_eq!(refused.outcome, Outcome::Answered { status: 401, retry_after: None });
        assert!(requests == 1 && refused.why.unwrap().starts_with("status 401"));
    }
}
