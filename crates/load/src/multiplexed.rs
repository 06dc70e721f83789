//! One request over HTTP/2.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use http::{Method, Request};

use crate::channel::{Channel, Opened, cause, is_refusal};
use crate::connection::{Outcome, pieces};
use crate::failure::{Cause, Phase};
use crate::plan::Plan;
use crate::record::Planned;
use crate::response::{Head, Wanted};

#[cfg(test)]
mod tests;

/// How far a request came; kept outside the future that a timeout drops.
#[derive(Debug)]
pub(crate) struct Multiplexed {
    phase: Phase,
    outcome: Outcome,
}

/// Why one sending brought no whole answer.
enum Fault {
    /// It was not processed.
    Refused,
    Failed(Cause),
}

impl Multiplexed {
    /// Runs to its end or to the deadline, and never fails: the result is inside.
    pub(crate) async fn run(
        channel: &Channel,
        plan: &Plan,
        planned: &Planned,
        deadline: Instant,
        wanted: &Wanted,
    ) -> Outcome {
        let began = Instant::now();
        let outcome = Outcome {
            began,
            sent: None,
            answered: None,
            finished: began,
            opened_connections: 0,
            refused: 0,
            connection: None,
            head: None,
            raw_head: Vec::new(),
            result: Ok(()),
        };
        let mut this = Multiplexed { phase: Phase::Connect, outcome };
        let drive = this.drive(channel, plan, planned, wanted);
        let result = match tokio::time::timeout_at(deadline.into(), drive).await {
            Ok(result) => result,
            Err(_) => Err(Cause::Timeout { phase: this.phase }),
        };
        Outcome { finished: Instant::now(), result, ..this.outcome }
    }

    async fn drive(
        &mut self,
        channel: &Channel,
        plan: &Plan,
        planned: &Planned,
        wanted: &Wanted,
    ) -> Result<(), Cause> {
        let body = planned.kind.is_post().then(|| Bytes::from(plan.body.build(&planned.id)));
        let request = request(channel.scheme(), plan, planned, body.as_ref())?;
        let slow = planned.kind.is_slow().then_some(plan.slow_post);
        loop {
            self.phase = Phase::Connect;
            let is_whole = body.is_none();
            let opened = channel.open(&request, is_whole, &mut self.outcome.opened_connections).await?;
            match self.ask(opened, body.clone(), slow, wanted).await {
                Ok(()) => return Ok(()),
                Err(Fault::Failed(cause)) => return Err(cause),
                Err(Fault::Refused) => {
                    self.outcome.refused += 1;
                    if self.outcome.refused > 1 {
                        return Err(Cause::Refused);
                    }
                }
            }
        }
    }

    async fn ask(
        &mut self,
        opened: Opened,
        body: Option<Bytes>,
        slow: Option<Duration>,
        wanted: &Wanted,
    ) -> Result<(), Fault> {
        let Opened { response, body: mut upload, reused } = opened;
        self.phase = Phase::Send;
        self.outcome.sent = Some(Instant::now());
        if let Some(body) = body {
            // Fails when the stream has ended already; the answer says how.
            let _ = send(&mut upload, body, slow).await;
        }
        self.phase = Phase::Head;
        let refused = |error: h2::Error| match is_refusal(&error) {
            true => Fault::Refused,
            false => Fault::Failed(cause(&error, Phase::Head, reused, 0)),
        };
        let (head, mut body) = response.await.map_err(refused)?.into_parts();
        self.phase = Phase::Body;
        self.outcome.answered = Some(Instant::now());
        self.outcome.head = Some(Head::of_h2(&head, wanted));
        self.outcome.raw_head = raw(&head);
        let mut body_bytes = 0;
        let cut = |error: h2::Error, body_bytes| {
            Fault::Failed(match error.is_reset() {
                true => Cause::Truncated { phase: Phase::Body, body_bytes, expected_bytes: None },
                false => cause(&error, Phase::Body, reused, body_bytes),
            })
        };
        while let Some(data) = body.data().await {
            let data = data.map_err(|error| cut(error, body_bytes))?;
            body_bytes += data.len() as u64;
            body.flow_control().release_capacity(data.len()).map_err(|error| cut(error, body_bytes))?;
        }
        body.trailers().await.map_err(|error| cut(error, body_bytes))?;
        Ok(())
    }
}

/// `slow`: over what time.
async fn send(
    upload: &mut SendStream<Bytes>,
    mut body: Bytes,
    slow: Option<Duration>,
) -> Result<(), h2::Error> {
    let Some(over) = slow else { return upload.send_data(body, true) };
    let (piece_bytes, pause) = pieces(body.len(), over);
    while body.len() > piece_bytes {
        tokio::time::sleep(pause).await;
        upload.send_data(body.split_to(piece_bytes), false)?;
    }
    tokio::time::sleep(pause).await;
    upload.send_data(body, true)
}

fn request(scheme: &str, plan: &Plan, planned: &Planned, body: Option<&Bytes>) -> Result<Request<()>, Cause> {
    let mut request = Request::builder()
        .method(if body.is_some() { Method::POST } else { Method::GET })
        .uri(format!("{scheme}://{}{}", plan.host, planned.path))
        .header(&plan.id_header, &planned.id);
    for (name, value) in &plan.headers {
        request = request.header(name, value);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").header("content-length", body.len());
    }
    request.body(()).map_err(|error| Cause::Local { error: error.to_string() })
}

/// As HTTP/1.1 would write it, for people to read.
fn raw(head: &http::response::Parts) -> Vec<u8> {
    let mut bytes = format!("HTTP/2 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        write!(bytes, "{name}: ").expect("a Vec takes every write");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}
