//! The rest of an answer whose beginning is here.
//!
//! The kernel brings what a service writes at once in segments, the first of which has 64 KiB on loopback, and many
//! services write head and body one after the other. A core that was just looking for it gets the first piece before the
//! last is there: without a moment's patience it would read, write and wake the client for the one, and again for a rest
//! of a few bytes. Of bodies of 64 KiB, asked for one at a time, that took a sixth of the time.

use super::response::COPY_BYTES_MAX;
use crate::buffer::Buffer;
use crate::stream::Stream;

/// Looks for each piece. One takes a quarter of a microsecond, and all of them less than the write that they may save.
const LOOKS_MAX: usize = 8;

/// Pieces that are looked for: 128 KiB, which is what a buffer holds, come in two segments behind a head. A service that
/// writes in smaller ones is not waited for.
const PIECES_MAX: usize = 4;

/// Reads on until the body, of `length` bytes in all, is whole in `buffer`, if it fits and comes at once.
pub(super) fn gather(stream: &Stream, buffer: &mut Buffer, length: u64) {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    for _ in 0..PIECES_MAX {
        let missing = length.saturating_sub(buffer.filled().len());
        // Behind a head that came by itself a long body is still being written, and is passed on meanwhile.
        let most = if buffer.is_empty() { COPY_BYTES_MAX } else { buffer.space().len() };
        if missing == 0 || missing > most {
            return;
        }
        // All of it, also what comes behind the body: left in the socket it would be the answer to somebody else's request.
        let space = buffer.space();
        let Some(bytes) = (0..LOOKS_MAX).map(|_| stream.read_now(space)).find(|bytes| *bytes > 0) else {
            return;
        };
        buffer.add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::buffer::Kind;

    /// What is in the buffer, `here` of a body of `length` having come with the head, when `there` is in the socket.
    async fn gathered(here: usize, there: usize, length: u64) -> usize {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Stream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(&vec![b'x'; there]).unwrap();
        if there > 0 {
            std::future::poll_fn(|cx| stream.poll_read_ready(cx)).await.unwrap();
        }
        let mut buffer = Buffer::take(Kind::Response);
        buffer.add(here);
        gather(&stream, &mut buffer, length);
        buffer.filled().len()
    }

    #[tokio::test]
    async fn a_rest_that_is_there_is_taken_and_none_is_waited_for() {
        assert_eq!(gathered(60_000, 5_000, 65_000).await, 65_000);
        assert_eq!(gathered(60_000, 3_000, 65_000).await, 63_000, "the rest comes later");
        assert_eq!(gathered(60_000, 0, 65_000).await, 60_000);
        assert_eq!(gathered(0, 1_000, 1_000).await, 1_000, "the head came by itself");
    }

    #[tokio::test]
    async fn what_comes_behind_a_body_is_not_left_for_the_next_request() {
        assert_eq!(gathered(100, 50, 120).await, 150);
        assert_eq!(gathered(0, 50, 20).await, 50);
    }

    #[tokio::test]
    async fn nothing_is_taken_for_a_body_that_is_complete_or_does_not_fit() {
        assert_eq!(gathered(100, 50, 100).await, 100);
        assert_eq!(gathered(100, 50, u64::MAX).await, 100);
        assert_eq!(gathered(0, 50, 100_000).await, 0, "a long body goes on in pieces");
    }
}
