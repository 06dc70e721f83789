//! The way to the instance: the head, then the body as the client sends it.

use std::io::IoSlice;
use std::task::{Context, Poll};

use super::response::Receiving;
use super::{End, Exchange, Progress, Step};

#[derive(Debug)]
pub(super) enum Sending {
    /// Up to here head and buffered body were sent.
    Active {
        head: usize,
        body: usize,
    },
    Finished,
    /// The instance takes no more; it may have answered already.
    Abandoned,
}

impl Exchange<'_> {
    pub(super) fn step_request(&mut self, cx: &mut Context<'_>) -> Step {
        let mut progress = Progress::Blocked;
        while let Sending::Active { head, body } = &mut self.sending {
            let slices = [IoSlice::new(&self.head[*head..]), IoSlice::new(&self.request.body()[*body..])];
            if slices.iter().any(|slice| !slice.is_empty()) {
                match self.upstream.stream.poll_write(cx, &slices) {
                    Poll::Pending => return Ok(progress),
                    Poll::Ready(Err(_)) => self.sending = Sending::Abandoned,
                    Poll::Ready(Ok(bytes)) => {
                        let of_head = bytes.min(self.head.len() - *head);
                        *head += of_head;
                        *body += bytes - of_head;
                        self.sent += bytes as u64;
                        self.upstream.written += bytes as u64;
                        self.deadline.arm_ms(self.idle_ms);
                    }
                }
                progress = Progress::Made;
                continue;
            }
            if self.request.body_is_complete() {
                self.sending = Sending::Finished;
                if matches!(self.receiving, Receiving::Head(_)) {
                    self.deadline.arm_ms(self.timeouts.response_head_ms);
                }
                return Ok(Progress::Made);
            }
            if self.request.make_room() {
                *body = 0;
            }
            match self.client.poll_read(cx, self.request.space()) {
                Poll::Pending => {
                    // An instance that has begun to answer does not wait.
                    if matches!(self.receiving, Receiving::Head(_))
                        && let Some(left_ms) = self.patience.wait(self.worker.deadlines.now_ms())
                    {
                        self.deadline.arm_ms(left_ms);
                    }
                    return Ok(progress);
                }
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::ClientGone),
                Poll::Ready(Ok(bytes)) => {
                    self.request.add(bytes);
                    self.patience.got(bytes, self.worker.deadlines.now_ms());
                    self.request.absorb(self.body_bytes_max).map_err(End::Body)?;
                    self.deadline.arm_ms(self.idle_ms);
                    if self.yields(cx, bytes) {
                        return Ok(Progress::Blocked);
                    }
                    progress = Progress::Made;
                }
            }
        }
        Ok(progress)
    }
}
