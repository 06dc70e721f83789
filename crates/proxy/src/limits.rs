use std::time::Duration;

use crate::snapshot::{ListenerLimits, ProcessLimits};

/// Bounds on what clients may do to one proxy process. The values are defaults; each carries its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From a request's first byte to the end of its head. A head fits into a few packets: who needs longer
    /// is on a broken line or holds connections on purpose (slowloris).
    pub head: Duration,
    /// A connection without a request. Longer than the pauses of a person reading pages, and the value that
    /// nginx ships with.
    pub idle: Duration,
    /// As `idle`, once the process or the listener drains. Long enough for a client in the middle of a series
    /// of requests to send the next one and learn from its answer that the connection ends.
    pub idle_drain: Duration,
    /// How long a draining process waits for requests in flight before it exits anyway. Below the 90 s after
    /// which systemd kills.
    pub drain: Duration,
    /// How long a closing connection is read from, so that the last answer is not lost to a reset.
    pub linger: Duration,
    /// How long a socket that is about to close still accepts. Whoever got our SYN-ACK believes to be
    /// connected; this is enough for the rest of the handshake over any line. New SYNs are dropped meanwhile.
    pub handshake: Duration,
    /// Open client connections per core. Each needs a few KiB while idle; with this many a core is far past
    /// the load that it can answer.
    pub connections_per_core: usize,
    /// Streams that one HTTP/2 connection may have open: requests in flight, and WebSockets. RFC 9113 advises no fewer
    /// than 100, and browsers ask for no more.
    pub h2_streams_max: u32,
    /// After how long without a byte in either direction an HTTP/2 client with open streams is asked whether it is
    /// there. Its streams wait for slow answers, which is no reason to cut it, but a machine that is gone says nothing.
    pub h2_ping: Duration,
    /// How long it has to answer that.
    pub h2_pong: Duration,
    /// How long an HTTP/2 client may take for the last piece of an answer, which the relay is done with.
    pub h2_tail: Duration,
    /// What a client may send on one HTTP/2 stream before the relay takes it. 256 KiB carry 5 MB/s over a line of 50 ms.
    pub h2_window_bytes: u32,
    /// Answers that are kept for routes that ask for it, with all that keeping them needs. Small beside any machine, and
    /// room for some thousand pages. 0: none are kept.
    pub cache_bytes: usize,
}

impl Limits {
    /// With what is said for the whole process.
    #[must_use]
    pub fn of_process(&self, said: &ProcessLimits) -> Self {
        // A field that is added has to be read here.
        let ProcessLimits { drain_ms, handshake_ms, connections_per_core, cache_bytes } = *said;
        let usual = self.clone();
        Self {
            drain: time(drain_ms, usual.drain),
            handshake: time(handshake_ms, usual.handshake),
            connections_per_core: connections_per_core.map_or(usual.connections_per_core, size),
            cache_bytes: cache_bytes.map_or(usual.cache_bytes, size),
            ..usual
        }
    }

    /// With what is said for one listener.
    #[must_use]
    pub fn of_listener(&self, said: &ListenerLimits) -> Self {
        // A field that is added has to be read here. Connections are counted by client, and what is
        // spoken is agreed on at the entrance, not by this.
        let ListenerLimits {
            head_ms,
            idle_ms,
            idle_drain_ms,
            linger_ms,
            ping_ms,
            pong_ms,
            tail_ms,
            window_bytes,
            streams_max,
            per_client_max: _,
            http1_only: _,
        } = *said;
        let usual = self.clone();
        Self {
            head: time(head_ms, usual.head),
            idle: time(idle_ms, usual.idle),
            idle_drain: time(idle_drain_ms, usual.idle_drain),
            linger: time(linger_ms, usual.linger),
            h2_ping: time(ping_ms, usual.h2_ping),
            h2_pong: time(pong_ms, usual.h2_pong),
            h2_tail: time(tail_ms, usual.h2_tail),
            h2_window_bytes: window_bytes.unwrap_or(usual.h2_window_bytes),
            h2_streams_max: streams_max.unwrap_or(usual.h2_streams_max),
            ..usual
        }
    }
}

fn time(said_ms: Option<u64>, usual: Duration) -> Duration {
    said_ms.map_or(usual, Duration::from_millis)
}

fn size(said: u64) -> usize {
    usize::try_from(said).unwrap_or(usize::MAX)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            idle_drain: Duration::from_secs(5),
            drain: Duration::from_secs(60),
            linger: Duration::from_secs(2),
            handshake: Duration::from_secs(1),
            connections_per_core: 16_384,
            h2_streams_max: 100,
            h2_ping: Duration::from_secs(30),
            h2_pong: Duration::from_secs(10),
            h2_tail: Duration::from_secs(60),
            h2_window_bytes: 256 * 1024,
            cache_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Bytes that a closing connection is read at most (rule 4: a reset with unread data destroys the answer).
pub(crate) const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Unused connections kept per instance and core, where the service does not say otherwise. More than a core can use at
/// once for answers of a millisecond.
pub(crate) const IDLE_UPSTREAMS_MAX: u32 = 256;

/// How long a connection to an instance may have been idle to carry a request that cannot be repeated. No server
/// gives up idle connections within a second, so that such a request never meets a close that is under way.
pub(crate) const CAREFUL_REUSE: Duration = Duration::from_millis(500);

/// How often a core looks for deadlines that passed: the accuracy of every timeout, which are all of seconds.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Retries that a service has in reserve before its budget counts, so that a service with little traffic can
/// repeat at all (Finagle's minimum is 10 per second).
pub(crate) const RETRY_RESERVE: f64 = 10.0;

/// How often a held request looks again by itself; changes of routes and health wake it at once.
pub(crate) const HOLD_LOOK: Duration = Duration::from_millis(50);

/// The window of all streams of a connection, in windows of one, and the most that one connection can make us hold of
/// request bodies. Sixteen streams that are held up by slow services leave room for the seventeenth.
pub(crate) const H2_CONNECTION_WINDOWS: u32 = 16;

/// What is handed over of one stream's body before the kernel takes it: some frames, so that there is one to send while
/// the next are fetched. A hundred streams of a client that opens every window and reads nothing come to 6 MiB.
pub(crate) const H2_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What the answers on one HTTP/2 connection may come to that its client has opened no window for, shared by its streams:
/// a client that asks for a hundred large answers and takes none gets a few MiB of our memory, not tens.
pub(crate) const H2_ANSWERS_BYTES: usize = 1024 * 1024;

/// What each of them has at least: a frame.
pub(crate) const H2_ANSWER_BYTES_MIN: usize = 16 * 1024;

/// Streams that are remembered after we reset them, so that frames on their way are no error; and streams that the client
/// may have opened and reset before anybody looked: beyond it the connection ends. As many as may be open at once.
pub(crate) const H2_REMEMBERED_RESETS_MAX: usize = 100;

/// Streams of one connection that may end by an error of the client's, or be refused because it opened more than it may,
/// as long as the connection lives: each makes room for the next while an instance may still work for it ("made you
/// reset", CVE-2025-8671). A client that opens 300 at once before it has read what it may is still served.
pub(crate) const H2_FAULTY_STREAMS_MAX: usize = 400;

/// Connections to an instance that speaks HTTP/2, per core. One carries a hundred requests and more with most servers;
/// those that allow fewer need more of them.
pub(crate) const H2_UPSTREAMS_MAX: usize = 16;

/// Streams on one connection to an instance, whatever it allows: beyond it another connection spreads the work better.
pub(crate) const H2_UPSTREAM_STREAMS_MAX: usize = 250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_said_for_the_process_or_for_a_listener() {
        let process = ProcessLimits {
            drain_ms: Some(1),
            handshake_ms: Some(2),
            connections_per_core: Some(3),
            cache_bytes: Some(4),
        };
        let listener = ListenerLimits {
            head_ms: Some(5),
            idle_ms: Some(6),
            idle_drain_ms: Some(7),
            linger_ms: Some(8),
            ping_ms: Some(9),
            pong_ms: Some(10),
            tail_ms: Some(11),
            window_bytes: Some(12),
            streams_max: Some(13),
            per_client_max: None,
            http1_only: false,
        };
        // Without `..`: a bound that nobody can change does not compile here.
        let Limits {
            head,
            idle,
            idle_drain,
            drain,
            linger,
            handshake,
            connections_per_core,
            h2_streams_max,
            h2_ping,
            h2_pong,
            h2_tail,
            h2_window_bytes,
            cache_bytes,
        } = Limits::default().of_process(&process).of_listener(&listener);
        let times = [drain, handshake, head, idle, idle_drain, linger, h2_ping, h2_pong, h2_tail];
        assert_eq!(times.map(|time| time.as_millis()), [1, 2, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!((connections_per_core, cache_bytes, h2_window_bytes, h2_streams_max), (3, 4, 12, 13));
        let usual = Limits::default();
        let unsaid = usual.of_process(&ProcessLimits::default()).of_listener(&ListenerLimits::default());
        assert_eq!(unsaid, usual);
    }
}
