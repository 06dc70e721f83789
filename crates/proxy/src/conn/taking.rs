//! How fast a client takes an answer that waits for it.

use crate::stream::Stream;

/// The kernel asks for more of an answer only when much of what it holds is gone, which on a slow line takes minutes. So
/// whether a client takes what it is sent is not seen by that, but asked when its time is over: by what it has
/// acknowledged.
#[derive(Debug)]
pub(super) struct Taking {
    bytes_per_s_min: u64,
    /// What had reached the client when the wait began.
    delivered: Option<u64>,
}

impl Taking {
    pub(super) fn new(bytes_per_s_min: u64) -> Self {
        Self { bytes_per_s_min, delivered: None }
    }

    /// The client takes no more for now. Says whether that begins here.
    pub(super) fn waits(&mut self, client: &Stream) -> bool {
        let begins = self.delivered.is_none();
        if begins {
            self.delivered = Some(client.delivered());
        }
        begins
    }

    pub(super) fn moved(&mut self) {
        self.delivered = None;
    }

    /// Whether it took what it must have taken in this time, from when this was asked last or the wait began.
    pub(super) fn is_enough(&mut self, client: &Stream, over_ms: u64) -> bool {
        let Some(then) = self.delivered else { return false };
        let now = client.delivered();
        self.delivered = Some(now);
        let wanted = self.bytes_per_s_min.saturating_mul(over_ms) / 1_000;
        now.saturating_sub(then) >= wanted.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::Pipe;

    #[test]
    fn a_client_has_to_take_the_rate_over_and_over_again() {
        let (near, far) = Pipe::pair();
        let client = Stream::Pipe(near);
        let mut taking = Taking::new(64);
        far.pass_on(1_000_000);
        assert!(!taking.is_enough(&client, 1_000), "nothing waits");
        assert!(taking.waits(&client));
        assert!(!taking.waits(&client), "a wait that goes on does not begin again");
        far.pass_on(64);
        assert!(taking.is_enough(&client, 1_000));
        far.pass_on(63);
        assert!(!taking.is_enough(&client, 1_000), "a byte less than the rate");
        taking.moved();
        assert!(taking.waits(&client));
    }

    #[test]
    fn without_a_rate_a_byte_is_enough_and_none_is_not() {
        let (near, far) = Pipe::pair();
        let client = Stream::Pipe(near);
        let mut taking = Taking::new(0);
        assert!(taking.waits(&client));
        assert!(!taking.is_enough(&client, 60_000));
        far.pass_on(1);
        assert!(taking.is_enough(&client, 60_000));
    }
}
