//! Which requests are copied for the version that mirrors.

use std::rc::Rc;

use super::Relay;
use super::plan::Plan;
use crate::balance::Routing;
use crate::codec::{BodyLength, RequestHead};
use crate::conn::mirror::{self, Copy};
use crate::conn::request_buffer::RequestBuffer;

/// Whether a request can be copied at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copyable {
    Yes,
    /// What it does would be done twice.
    IfUnsafe,
    /// Its body is a stream or may not come at all, or it becomes something else than a request.
    Never,
}

impl Copyable {
    pub(super) fn of(head: &RequestHead<'_, '_>) -> Self {
        if head.upgrade.is_some() || head.expects_continue || head.length == BodyLength::Chunked {
            return Self::Never;
        }
        // RFC 9110, section 9.2.1, without TRACE, which no service needs to be tried with.
        if matches!(head.method, "GET" | "HEAD" | "OPTIONS") { Self::Yes } else { Self::IfUnsafe }
    }
}

/// A copy that waits for the rest of its body, which the original is still reading.
#[derive(Debug)]
pub(super) struct Waiting {
    routing: Rc<Routing>,
    route: usize,
    head: Vec<u8>,
}

impl Relay<'_> {
    /// Sends a copy if it is the mirroring version's turn. With the body still to come, [`Self::copy_late`] does.
    pub(super) fn copy(&mut self, request: &RequestBuffer, plan: &Plan) {
        if plan.route().mirrored.is_none() {
            return;
        }
        let Some(mirror) = &plan.service().mirror else { return };
        let is_copied = match self.known.copyable {
            Copyable::Yes => true,
            Copyable::IfUnsafe => mirror.unsafe_methods,
            Copyable::Never => false,
        };
        if !is_copied || plan.choice.version == mirror.version {
            return;
        }
        if !request.body_is_complete() {
            let routing = Rc::clone(&plan.routing);
            self.waiting = Some(Waiting { routing, route: plan.route, head: plan.head.to_vec() });
        } else if plan.routing.take_copy(plan.service) {
            self.send_copy(request, &plan.routing, plan.route, &plan.head);
        }
    }

    /// After the request: sends the copy that waited, if its body was small enough to be all here still.
    pub(super) fn copy_late(&mut self, request: &RequestBuffer) {
        let Some(Waiting { routing, route, head }) = self.waiting.take() else { return };
        let is_whole = request.can_replay() && request.body_is_complete();
        if is_whole && routing.take_copy(routing.table.routes[route].service) {
            self.send_copy(request, &routing, route, &head);
        }
    }

    fn send_copy(&self, request: &RequestBuffer, routing: &Routing, route: usize, head: &[u8]) {
        let mut copy = Copy::new(head, request.body(), self.client(request));
        copy.is_head = self.known.facts.is_head;
        copy.is_safe = self.known.copyable == Copyable::Yes;
        mirror::send(&self.conn.worker, routing, route, copy);
    }
}
