//! Asks an instance whether it can work, without ever waiting: a probe is a small machine that the shim's loop
//! moves on when its socket or its deadline says so.

mod h2;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use fairway_engine::edge::Protocol;
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::exit::Exit;

/// What is asked, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Http { port: u16, path: String, protocol: Protocol },
    Tcp { port: u16 },
    Exec { command: Vec<String> },
}

/// One answer. A failure says what an operator needs to see.
pub(crate) type Verdict = Result<(), Failure>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) why: String,
    /// Nothing accepts connections on the port: worth a look at where it listens instead.
    pub(crate) refused: bool,
}

impl Failure {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), refused: false }
    }
}

/// An answer's head beyond this is no health endpoint's; only its first line matters.
const HEAD_BYTES_MAX: usize = 1024;

/// How much of a body is read and thrown away, so that the application sees no broken connection.
const BODY_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Probe {
    check: Check,
    timeout: Duration,
    state: Attempt,
}

#[derive(Debug)]
enum Attempt {
    Idle,
    Connecting {
        socket: TcpStream,
        deadline: Instant,
    },
    Reading {
        socket: TcpStream,
        deadline: Instant,
        head: Vec<u8>,
    },
    /// The verdict is given; the rest of the answer is read so that the application can finish sending it.
    Lingering {
        socket: TcpStream,
        deadline: Instant,
        read: usize,
    },
    Command {
        pid: i32,
        deadline: Instant,
    },
}

/// How a command is started beside the instance: its pid, or why not.
pub(crate) type StartCommand<'a> = dyn FnMut(&[String]) -> Result<i32, String> + 'a;

impl Probe {
    pub(crate) fn new(check: Check, timeout: Duration) -> Self {
        Self { check, timeout, state: Attempt::Idle }
    }

    pub(crate) fn is_command(&self) -> bool {
        match self.check {
            Check::Exec { .. } => true,
            Check::Http { .. } | Check::Tcp { .. } => false,
        }
    }

    /// Whether an answer is being waited for.
    pub(crate) fn in_flight(&self) -> bool {
        match self.state {
            Attempt::Idle | Attempt::Lingering { .. } => false,
            Attempt::Connecting { .. } | Attempt::Reading { .. } | Attempt::Command { .. } => true,
        }
    }

    pub(crate) fn begin(&mut self, now: Instant, start_command: &mut StartCommand<'_>) -> Option<Verdict> {
        let deadline = now + self.timeout;
        match &self.check {
            Check::Http { port, .. } | Check::Tcp { port } => match connect_to(*port) {
                Ok(socket) => {
                    self.state = Attempt::Connecting { socket, deadline };
                    // A loopback connection is usually there at once.
                    self.on_ready(now)
                }
                Err(error) => {
                    self.state = Attempt::Idle;
                    Some(Err(connect_failure(*port, &error)))
                }
            },
            Check::Exec { command } => match start_command(command) {
                Ok(pid) => {
                    self.state = Attempt::Command { pid, deadline };
                    None
                }
                Err(why) => {
                    self.state = Attempt::Idle;
                    Some(Err(Failure::new(why)))
                }
            },
        }
    }

    pub(crate) fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            Attempt::Connecting { socket, .. } => Some((socket.as_fd(), PollFlags::OUT)),
            Attempt::Reading { socket, .. } | Attempt::Lingering { socket, .. } => {
                Some((socket.as_fd(), PollFlags::IN))
            }
            Attempt::Idle | Attempt::Command { .. } => None,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            Attempt::Idle => None,
            Attempt::Connecting { deadline, .. }
            | Attempt::Reading { deadline, .. }
            | Attempt::Lingering { deadline, .. }
            | Attempt::Command { deadline, .. } => Some(*deadline),
        }
    }

    /// The socket has something to say.
    pub(crate) fn on_ready(&mut self, now: Instant) -> Option<Verdict> {
        match std::mem::replace(&mut self.state, Attempt::Idle) {
            Attempt::Connecting { socket, deadline } => self.on_connected(socket, deadline, now),
            Attempt::Reading { socket, deadline, head } => self.read_head(socket, deadline, head),
            Attempt::Lingering { mut socket, deadline, mut read } => {
                let mut rest = [0; 4096];
                loop {
                    match socket.read(&mut rest) {
                        Ok(0) => return None,
                        Ok(_) if read >= BODY_BYTES_MAX => return None,
                        Ok(more) => read += more,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            self.state = Attempt::Lingering { socket, deadline, read };
                            return None;
                        }
                        Err(_) => return None,
                    }
                }
            }
            other @ (Attempt::Idle | Attempt::Command { .. }) => {
                self.state = other;
                None
            }
        }
    }

    fn on_connected(&mut self, socket: TcpStream, deadline: Instant, _now: Instant) -> Option<Verdict> {
        match sockopt::socket_error(&socket) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(Err(connect_failure(self.port(), &error.into()))),
            Err(error) => return Some(Err(Failure::new(error.to_string()))),
        }
        if socket.peer_addr().is_err() {
            // Not yet: a full backlog answers later.
            self.state = Attempt::Connecting { socket, deadline };
            return None;
        }
        let Check::Http { path, port, protocol } = &self.check else { return Some(Ok(())) };
        let request = match protocol {
            Protocol::H2c => h2::question(*port, path),
            Protocol::Http1 => format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: fairway-probe\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        ).into_bytes(),
        };
        let mut socket = socket;
        // A fresh connection's send buffer is far larger than a request line.
        match socket.write_all(&request) {
            Ok(()) => self.read_head(socket, deadline, Vec::new()),
            Err(error) => Some(Err(Failure::new(format!("GET {path}: {error}")))),
        }
    }

    fn read_head(&mut self, mut socket: TcpStream, deadline: Instant, mut head: Vec<u8>) -> Option<Verdict> {
        let mut chunk = [0; HEAD_BYTES_MAX];
        loop {
            if let Some(verdict) = self.judge(&head) {
                if self.speaks_h2() {
                    // A courtesy: a server that does not hear it sees the connection end.
                    let _ = socket.write_all(&h2::goodbye());
                }
                self.state = Attempt::Lingering { socket, deadline, read: head.len() };
                return Some(verdict);
            }
            match socket.read(&mut chunk) {
                Ok(0) => return Some(Err(self.http_failure("the connection was closed without an answer"))),
                Ok(len) => head.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.state = Attempt::Reading { socket, deadline, head };
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(self.http_failure(&error.to_string()))),
            }
        }
    }

    fn speaks_h2(&self) -> bool {
        matches!(self.check, Check::Http { protocol: Protocol::H2c, .. })
    }

    /// `None` when more must come.
    fn judge(&self, head: &[u8]) -> Option<Verdict> {
        if let Check::Http { path, protocol: Protocol::H2c, .. } = &self.check {
            return match h2::verdict(head, path) {
                Some(verdict) => Some(verdict.map_err(|why| self.http_failure(&why))),
                None if head.len() < h2::ANSWER_BYTES_MAX => None,
                None => Some(Err(self.http_failure("the answer is too long"))),
            };
        }
        match head.iter().position(|byte| *byte == b'\n') {
            Some(end) => Some(self.judge_line(&head[..end])),
            None if head.len() < HEAD_BYTES_MAX => None,
            None => Some(Err(self.http_failure("the answer is not HTTP"))),
        }
    }

    fn judge_line(&self, line: &[u8]) -> Verdict {
        let line = String::from_utf8_lossy(line);
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
        match status {
            Some(200..=399) => Ok(()),
            Some(_) => Err(self.http_failure(&format!("answers {}", line.trim_end().get(9..).unwrap_or("")))),
            None => Err(self.http_failure("the answer is not HTTP")),
        }
    }

    fn http_failure(&self, why: &str) -> Failure {
        match &self.check {
            Check::Http { path, port, .. } => Failure::new(format!("GET {path} on port {port}: {why}")),
            Check::Tcp { .. } | Check::Exec { .. } => Failure::new(why),
        }
    }

    fn port(&self) -> u16 {
        match self.check {
            Check::Http { port, .. } | Check::Tcp { port } => port,
            Check::Exec { .. } => 0,
        }
    }

    /// The deadline has come. A command that is still running is named, to be killed.
    pub(crate) fn on_deadline(&mut self, now: Instant) -> (Option<Verdict>, Option<i32>) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return (None, None);
        }
        let timeout = self.timeout;
        match std::mem::replace(&mut self.state, Attempt::Idle) {
            Attempt::Idle | Attempt::Lingering { .. } => (None, None),
            Attempt::Connecting { .. } => {
                let port = self.port();
                (
                    Some(Err(Failure::new(format!("port {port} accepts no connection within {timeout:?}")))),
                    None,
                )
            }
            Attempt::Reading { .. } => {
                (Some(Err(self.http_failure(&format!("no answer within {timeout:?}")))), None)
            }
            Attempt::Command { pid, .. } => {
                (Some(Err(Failure::new(format!("the command did not end within {timeout:?}")))), Some(pid))
            }
        }
    }

    /// A child of the shim ended; was it this probe's command?
    pub(crate) fn on_exit(&mut self, ended: i32, exit: &Exit) -> Option<Verdict> {
        let Attempt::Command { pid, .. } = self.state else { return None };
        if pid != ended {
            return None;
        }
        self.state = Attempt::Idle;
        Some(match exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(_) | Exit::Signal(_) | Exit::OutOfMemory | Exit::Unknown { .. } => {
                Err(Failure::new(format!("the command ended with {exit}")))
            }
        })
    }

    /// Drops what is under way; a command's pid is handed back, to be killed.
    pub(crate) fn cancel(&mut self) -> Option<i32> {
        match std::mem::replace(&mut self.state, Attempt::Idle) {
            Attempt::Command { pid, .. } => Some(pid),
            Attempt::Idle
            | Attempt::Connecting { .. }
            | Attempt::Reading { .. }
            | Attempt::Lingering { .. } => None,
        }
    }
}

fn connect_to(port: u16) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

fn connect_failure(port: u16, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return Failure { why: format!("nothing listens on port {port}"), refused: true };
    }
    Failure::new(format!("port {port}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn ask(check: Check, timeout: Duration) -> Verdict {
        let mut probe = Probe::new(check, timeout);
        let mut verdict = probe.begin(Instant::now(), &mut |_| Err("no commands here".into()));
        while verdict.is_none() {
            let (fd, flags) = probe.waits_for().unwrap();
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, flags)];
            let ready = rustix::event::poll(&mut fds, Some(&wait)).unwrap();
            verdict =
                if ready > 0 { probe.on_ready(Instant::now()) } else { probe.on_deadline(Instant::now()).0 };
        }
        verdict.unwrap()
    }

    fn http(answer: &'static [u8]) -> Verdict {
        answered(Protocol::Http1, answer)
    }

    fn answered(protocol: Protocol, answer: &'static [u8]) -> Verdict {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(answer);
            if answer.is_empty() {
                std::thread::sleep(Duration::from_millis(80));
            }
        });
        let check = Check::Http { port, path: "/health".into(), protocol };
        let verdict = ask(check, Duration::from_millis(60));
        thread.join().unwrap();
        verdict.map_err(|failure| Failure { why: failure.why.replace(&port.to_string(), "N"), ..failure })
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        assert_eq!(http(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(()));
        assert_eq!(http(b"HTTP/1.0 302 Found\r\n\r\n"), Ok(()));
        let why = |answer| http(answer).unwrap_err().why;
        assert_eq!(why(b"HTTP/1.1 503 Busy\r\n\r\n"), "GET /health on port N: answers 503 Busy");
        assert_eq!(why(b"SSH-2.0\r\n"), "GET /health on port N: the answer is not HTTP");
        assert_eq!(why(&[b'x'; 5000]), "GET /health on port N: the answer is not HTTP");
        assert_eq!(why(b""), "GET /health on port N: no answer within 60ms");
    }

    #[test]
    fn a_service_that_speaks_only_http2_is_asked_in_it() {
        let h2 = |answer| answered(Protocol::H2c, answer);
        assert_eq!(h2(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88"), Ok(()));
        let why = |answer| h2(answer).unwrap_err().why;
        assert_eq!(why(b"HTTP/1.1 200 OK\r\n\r\n"), "GET /health on port N: the answer is not HTTP/2");
        assert_eq!(why(b""), "GET /health on port N: no answer within 60ms");
    }

    #[test]
    fn a_port_where_nothing_listens_says_so() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let failure = ask(Check::Tcp { port }, Duration::from_secs(1)).unwrap_err();
        assert_eq!(failure, Failure { why: format!("nothing listens on port {port}"), refused: true });
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(
            ask(Check::Tcp { port: server.local_addr().unwrap().port() }, Duration::from_secs(1)),
            Ok(())
        );
    }
}
