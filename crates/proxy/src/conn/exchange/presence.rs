//! Whether the client still waits for its answer.

use std::task::{Context, Poll};
use std::time::Duration;

use super::Exchange;
use super::request::Sending;
use super::response::Receiving;
use crate::stream::Peeked;

/// After how long a client is watched. Nearly every exchange is over by then and pays nothing for it; and who gives a
/// page up, or loads it again, has mostly waited for longer.
pub(in crate::conn) const WATCHED_AFTER: Duration = Duration::from_secs(1);

/// What is known of the client's side of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Presence {
    /// Nobody has looked.
    Assumed,
    /// The task is woken when something comes.
    Watched,
    /// Something came. It stays unread, and is not looked at again: it would be there at once and for ever.
    Known(Peeked),
}

impl Exchange<'_> {
    pub(super) fn watch_later(&self) {
        if self.client.as_pipe().is_none() {
            self.deadline.remind(WATCHED_AFTER);
        }
    }

    /// Or the reminder would wake a connection that has nothing to do.
    pub(super) fn unwatch(&self) {
        self.deadline.remind(Duration::MAX);
    }

    /// Whether what the instance still does is done for nobody. A write would show it as well; but there may be nothing to
    /// write for minutes, while the instance works and its place is taken.
    pub(super) fn is_left(&mut self, cx: &mut Context<'_>) -> bool {
        // A client of HTTP/2 says when it does not wait any more, whatever it is that takes so long.
        if let Some(pipe) = self.client.as_pipe() {
            return pipe.poll_gone(cx).is_ready();
        }
        match self.sending {
            Sending::Finished => {}
            // The body is read, or bytes of it are left: an end behind them cannot be seen.
            Sending::Active { .. } | Sending::Abandoned => return false,
        }
        if matches!(self.presence, Presence::Assumed) && self.deadline.is_reminded() {
            self.presence = Presence::Watched;
        }
        if matches!(self.presence, Presence::Watched)
            && let Poll::Ready(peeked) = self.client.poll_peek(cx)
        {
            self.presence = Presence::Known(peeked);
        }
        match self.presence {
            Presence::Assumed | Presence::Watched => false,
            Presence::Known(peeked) => self.ends_by(peeked),
        }
    }

    /// A connection that is broken is one thing. A client that has ended its side has nearly always closed it, but may as
    /// well go on reading, and only a write would tell.
    fn ends_by(&self, peeked: Peeked) -> bool {
        match (peeked, &self.receiving) {
            (Peeked::Bytes, _) => false,
            (Peeked::End | Peeked::Broken, Receiving::Head(_))
                if self.watch.as_ref().is_some_and(|watch| watch.is_for_others()) =>
            {
                false
            }
            (Peeked::Broken, _) => true,
            // The next request arrived together with this one, which is no different from bytes that were left unread.
            (Peeked::End, _) if !self.request.rest().is_empty() => false,
            // Of other methods something may be done by half, and somebody wants it whole and on record.
            (Peeked::End, Receiving::Head(_)) => self.facts.is_safe,
            // One without an end of its own would stay until it has something to say; the others are written soon.
            (Peeked::End, Receiving::Body { .. }) => self.stream_since.is_some(),
            // Its two directions end one by one.
            (Peeked::End, Receiving::Upgraded) => false,
        }
    }
}
