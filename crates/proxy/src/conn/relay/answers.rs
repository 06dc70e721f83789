//! Answers to requests that no instance answers.

use std::rc::Rc;
use std::sync::Arc;

use super::Relay;
use super::plan::Unplanned;
use crate::balance::Routing;
use crate::codec::Refusal;
use crate::conn::After;
use crate::conn::answer::{self, Answer};
use crate::conn::request_buffer::{BodyRefusal, RequestBuffer};
use crate::control::Cause;
use crate::policy::headers;

/// Seconds after which a client may ask again: about what an instance needs to start.
const RETRY_AFTER_S: u32 = 2;

impl Relay<'_> {
    pub(super) async fn unplanned(&mut self, unplanned: Unplanned, request: &mut RequestBuffer) -> After {
        match &unplanned {
            Unplanned::NoRoute | Unplanned::Challenge(_) => {}
            Unplanned::ToHttps(routing, route, _)
            | Unplanned::Refused(routing, route, _)
            | Unplanned::NoVersion(routing, route)
            | Unplanned::Maintenance(routing, route) => self.dress(routing, *route),
        }
        match unplanned {
            Unplanned::NoRoute => {
                self.conn.worker.count_refusal(404);
                self.answer(request, 404, "no route leads anywhere from here", None).await
            }
            Unplanned::Challenge(body) => {
                let answer =
                    Answer { content_type: "application/octet-stream", ..Answer::plain(200, &body, b"") };
                self.send(request, &answer).await
            }
            Unplanned::Refused(routing, route, refused) => {
                self.conn.worker.count_refusal(refused.status());
                self.report.series = Some(Arc::clone(&routing.table.routes[route].unserved));
                self.answer(request, refused.status(), refused.why(), refused.retry_after_s()).await
            }
            Unplanned::ToHttps(routing, route, location) => {
                self.report.series = Some(Arc::clone(&routing.table.routes[route].unserved));
                let added = format!("location: {location}\r\nx-request-id: {}\r\n", self.id_text());
                let body = format!("this is at {location}\n");
                self.send(request, &Answer::plain(308, &body, added.as_bytes())).await
            }
            Unplanned::NoVersion(routing, route) => {
                self.report.series = Some(Arc::clone(&routing.table.routes[route].unserved));
                self.unavailable(request, Cause::NoInstance).await
            }
            Unplanned::Maintenance(routing, route) => {
                let route = &routing.table.routes[route];
                self.report.series = Some(Arc::clone(&route.unserved));
                let Some(page) = &route.maintenance else { return After::Close };
                let added = format!("x-request-id: {}\r\n", self.id_text());
                let answer = Answer {
                    status: page.status,
                    content_type: &page.content_type,
                    body: &page.body,
                    retry_after_s: page.retry_after_s,
                    added: added.as_bytes(),
                };
                self.send(request, &answer).await
            }
        }
    }

    pub(super) async fn unavailable(&mut self, request: &mut RequestBuffer, cause: Cause) -> After {
        self.report.cause = Some(cause);
        if self.caching.is_some()
            && let Some(after) = Box::pin(self.stand_in(request, Some(503))).await
        {
            return after;
        }
        let why = if cause == Cause::HoldFull {
            "too many requests wait for an instance"
        } else if cause == Cause::Breaker {
            "as many requests are under way as may be"
        } else {
            "no instance is available"
        };
        self.answer(request, 503, why, Some(RETRY_AFTER_S)).await
    }

    pub(super) async fn refuse_body(&mut self, request: &mut RequestBuffer, refusal: BodyRefusal) -> After {
        match refusal {
            BodyRefusal::TooLarge => {
                self.fail(request, 413, Cause::BodyTooLarge, &Refusal::BodyTooLarge.to_string()).await
            }
            BodyRefusal::Malformed(error) => {
                self.fail(request, 400, Cause::BadBody, &error.to_string()).await
            }
        }
    }

    pub(super) async fn fail(
        &mut self,
        request: &mut RequestBuffer,
        status: u16,
        cause: Cause,
        why: &str,
    ) -> After {
        self.report.cause = Some(cause);
        if self.caching.is_some()
            && matches!(status, 502 | 504)
            && let Some(after) = Box::pin(self.stand_in(request, Some(status))).await
        {
            return after;
        }
        self.answer(request, status, why, None).await
    }

    pub(super) async fn answer(
        &mut self,
        request: &mut RequestBuffer,
        status: u16,
        why: &str,
        retry_after_s: Option<u32>,
    ) -> After {
        let id = self.id_text();
        let body = format!("{status} {}: {why}\nrequest {id}\n", answer::reason(status));
        let added = format!("x-request-id: {id}\r\n");
        let mut answer = Answer::plain(status, &body, added.as_bytes());
        answer.retry_after_s = retry_after_s;
        self.send(request, &answer).await
    }

    pub(super) fn dress(&mut self, routing: &Rc<Routing>, route: usize) {
        if !routing.table.routes[route].policy.changes.is_empty() {
            self.dressed_by = Some((Rc::clone(routing), route));
        }
    }

    pub(super) async fn send(&mut self, request: &mut RequestBuffer, answer: &Answer<'_>) -> After {
        // After a malformed body nobody knows where the next request begins. Otherwise, whether the body is here
        // must be known before the answer says that the connection stays open.
        let keep_alive = answer.status != 400
            && self.known.facts.wants_keep_alive
            && !self.conn.worker.is_draining(&self.conn.listener)
            && request.absorb(u64::MAX).is_ok()
            && request.body_is_complete();
        let dressed = self.dressed_by.as_ref().map(|(routing, route)| {
            headers::lines(answer.added, &routing.table.routes[*route].policy.changes)
        });
        let answer = &Answer { added: dressed.as_deref().unwrap_or(answer.added), ..*answer };
        let deadline = &self.conn.deadline;
        deadline.arm(self.conn.limits().head);
        self.report.status = answer.status;
        let is_head = self.known.facts.is_head;
        match (answer.send(&self.conn.stream, deadline, keep_alive, is_head).await, keep_alive) {
            (true, true) => After::KeepAlive,
            (true, false) => After::Close,
            (false, _) => After::Gone,
        }
    }

    pub(super) fn id_text(&self) -> String {
        String::from_utf8_lossy(self.known.id.as_bytes()).into_owned()
    }
}
