use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::Kind;

/// A good part of any timeout on the way.
const STANDSTILL_MAX: Duration = Duration::from_secs(1);

/// How far a request had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Connect,
    /// Writing the request.
    Send,
    /// The request is written; no complete response head yet.
    Head,
    /// The response head is complete, the body is not.
    Body,
}

/// Why a request failed. Nothing here was retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// No connection could be opened (refused, unreachable, reset during the handshake).
    Connect { error: String },
    /// The peer reset the connection. `reused` tells the idle keep-alive race (a pooled
    /// connection closed under the request) from a reset of a new connection.
    Reset { phase: Phase, reused: bool },
    /// The peer closed in order, before the first byte of an answer.
    Closed { reused: bool },
    /// The server said twice that it has not processed the request (RFC 9113, section 8.7).
    Refused,
    /// The answer ended before its framing said so.
    Truncated { phase: Phase, body_bytes: u64, expected_bytes: Option<u64> },
    /// The answer is not valid HTTP, or is ambiguous about where it ends.
    Malformed { what: String },
    /// The answer carries another request's id: a proxy mixed two requests up.
    WrongAnswer { expected: String, got: Option<String> },
    /// A complete answer, 500 to 599.
    ServerError { status: u16 },
    /// A complete answer, 400 to 499.
    ClientError { status: u16 },
    /// No complete answer within the plan's timeout, counted from the planned start.
    Timeout { phase: Phase },
    /// Never sent: every connection the plan allows was busy until the timeout.
    NotSent,
    /// This machine had no port, descriptor or memory left for the client.
    Local { error: String },
}

impl Cause {
    pub fn class(&self) -> FailureClass {
        match self {
            Cause::Connect { .. } => FailureClass::Connect,
            Cause::Reset { .. } => FailureClass::Reset,
            Cause::Closed { .. } => FailureClass::Closed,
            Cause::Refused => FailureClass::Refused,
            Cause::Truncated { .. } => FailureClass::Truncated,
            Cause::Malformed { .. } => FailureClass::Malformed,
            Cause::WrongAnswer { .. } => FailureClass::WrongAnswer,
            Cause::ServerError { .. } => FailureClass::ServerError,
            Cause::ClientError { .. } => FailureClass::ClientError,
            Cause::Timeout { .. } => FailureClass::Timeout,
            Cause::NotSent => FailureClass::NotSent,
            Cause::Local { .. } => FailureClass::Local,
        }
    }

    pub(crate) fn from_io(error: &io::Error, phase: Phase, reused: bool) -> Cause {
        use rustix::io::Errno;
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let of_this_machine = matches!(
            errno,
            Some(
                Errno::ADDRNOTAVAIL
                    | Errno::ADDRINUSE
                    | Errno::MFILE
                    | Errno::NFILE
                    | Errno::NOBUFS
                    | Errno::NOMEM
            )
        );
        if of_this_machine {
            return Cause::Local { error: error.to_string() };
        }
        match phase {
            Phase::Connect => Cause::Connect { error: error.to_string() },
            Phase::Send | Phase::Head | Phase::Body => match errno {
                // The kernel gives up on a silent peer with ETIMEDOUT.
                Some(Errno::TIMEDOUT) => Cause::Timeout { phase },
                // ECONNRESET, EPIPE, ECONNABORTED, EHOSTUNREACH, …: the connection is gone
                // and whether the request was carried out is unknown.
                _ => Cause::Reset { phase, reused },
            },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = |reused: &bool| if *reused { "kept-alive" } else { "new" };
        match self {
            Cause::Connect { error } => write!(f, "cannot connect: {error}"),
            Cause::Reset { phase, reused } => {
                write!(f, "{} connection reset {phase}", connection(reused))
            }
            Cause::Closed { reused } => {
                write!(f, "{} connection closed without an answer", connection(reused))
            }
            Cause::Refused => f.write_str("refused unprocessed, twice"),
            Cause::Truncated { phase: _, body_bytes, expected_bytes: Some(expected) } => {
                write!(f, "answer cut off after {body_bytes} of {expected} body bytes")
            }
            Cause::Truncated { phase, body_bytes, expected_bytes: None } => {
                write!(f, "answer cut off {phase}, {body_bytes} body bytes received")
            }
            Cause::Malformed { what } => write!(f, "not a valid answer: {what}"),
            Cause::WrongAnswer { expected, got: Some(got) } => {
                write!(f, "answer to another request: sent {expected}, got {got}")
            }
            Cause::WrongAnswer { expected, got: None } => {
                write!(f, "answer without the request's id {expected}")
            }
            Cause::ServerError { status } | Cause::ClientError { status } => write!(f, "status {status}"),
            Cause::Timeout { phase } => write!(f, "timed out {phase}"),
            Cause::NotSent => f.write_str("not sent: no connection free before the timeout"),
            Cause::Local { error } => write!(f, "the client's machine: {error}"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "while connecting",
            Phase::Send => "while sending",
            Phase::Head => "before the answer's head was complete",
            Phase::Body => "within the answer's body",
        })
    }
}

/// The key under which failures are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    Connect,
    Reset,
    Closed,
    Refused,
    Truncated,
    Malformed,
    WrongAnswer,
    ServerError,
    ClientError,
    Timeout,
    NotSent,
    Local,
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureClass::Connect => "could not connect",
            FailureClass::Reset => "reset",
            FailureClass::Closed => "closed unanswered",
            FailureClass::Refused => "refused",
            FailureClass::Truncated => "truncated",
            FailureClass::Malformed => "malformed",
            FailureClass::WrongAnswer => "answered wrongly",
            FailureClass::ServerError => "answered 5xx",
            FailureClass::ClientError => "answered 4xx",
            FailureClass::Timeout => "timed out",
            FailureClass::NotSent => "not sent",
            FailureClass::Local => "short of local resources",
        })
    }
}

/// One failed request.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Name of the act in which the request was planned.
    pub act: String,
    pub kind: Kind,
    pub path: String,
    pub id: String,
    #[serde(flatten)]
    pub cause: Cause,
    /// Offsets from the start of the run.
    pub planned_us: u64,
    /// From the planned start until the client took it up: its own delay, not the service's.
    pub late_us: u64,
    /// From the planned start until it failed: for how long the client's own thread did not run when it was due.
    pub stood_still_us: u64,
    pub failed_us: u64,
    /// What had arrived of the answer's head, at most 4 KiB, invalid UTF-8 replaced.
    pub response_head: Option<String>,
}

impl Failure {
    /// The client stood still itself for so long that a timeout, its own or one behind it, says nothing of the service.
    pub fn is_of_this_machine(&self) -> bool {
        Duration::from_micros(self.late_us.max(self.stood_still_us)) > STANDSTILL_MAX
    }

    /// A header of the answer, where one came as far as that. `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response_head.as_deref()?.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = if self.kind.is_post() { "POST" } else { "GET" };
        let (s, ms) = (self.failed_us / 1_000_000, self.failed_us / 1000 % 1000);
        write!(f, "+{s}.{ms:03}s {} [{}] {method} {}: {}", self.act, self.id, self.path, self.cause)?;
        let still = self.late_us.max(self.stood_still_us) as f64 / 1e6;
        match self.is_of_this_machine() {
            true => write!(f, " (for {still:.1} s of that the client itself stood still)"),
            false => Ok(()),
        }
    }
}
