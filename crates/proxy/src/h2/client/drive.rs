use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

use super::State;
use crate::h2::wire::{PING_BYTES, Wire};

/// Keeps a connection to an instance going until it ends: no request is left and none can come, or it broke.
///
/// With requests on it and nothing moving, the instance's machine is asked whether it is there: one that vanished would
/// otherwise take every further request with it until the kernel gives up.
pub(super) async fn drive(
    mut connection: Connection<Wire, Bytes>,
    state: Rc<State>,
    ping_after: Duration,
    pong_within: Duration,
) {
    let mut ping = connection.ping_pong();
    let mut timer = pin!(tokio::time::sleep(ping_after));
    let mut alive = Alive { ping_after, pong_within, moved: 0, asked: false };
    poll_fn(|cx| {
        let ended = Future::poll(pin!(&mut connection), cx).is_ready();
        if state.watch.settings_seen() {
            state.ready.notify_one();
        }
        if ended {
            return Poll::Ready(());
        }
        match &mut ping {
            Some(ping) => alive.poll(cx, timer.as_mut(), ping, &state),
            None => Poll::Pending,
        }
    })
    .await;
    state.closed.set(true);
    state.ready.notify_one();
}

struct Alive {
    ping_after: Duration,
    pong_within: Duration,
    moved: u64,
    asked: bool,
}

impl Alive {
    /// Ready when the instance did not answer.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: std::pin::Pin<&mut Sleep>,
        ping: &mut PingPong,
        state: &State,
    ) -> Poll<()> {
        let _ = ping.poll_pong(cx);
        while timer.as_mut().poll(cx).is_ready() {
            let moved = state.watch.moved();
            let is_quiet = moved <= self.moved && state.open.get() > 0;
            if is_quiet && self.asked {
                return Poll::Ready(());
            }
            self.asked = is_quiet && ping.send_ping(Ping::opaque()).is_ok();
            self.moved = moved + if self.asked { PING_BYTES } else { 0 };
            let wait = if self.asked { self.pong_within } else { self.ping_after };
            timer.as_mut().reset(Instant::now() + wait);
        }
        Poll::Pending
    }
}
