//! What a proxy stands between: its origin and its clients, in one loop on one core.
//!
//! Both are as cheap as they can be, so that the proxy is the bottleneck: four system calls a request, answers that
//! were made beforehand, no switch between threads. Every answer is checked for its status and its length.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;

use super::cores;
use crate::fault::{Context, Done, Fault};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Small,
    Large,
}

impl Body {
    pub fn name(self) -> &'static str {
        match self {
            Body::Small => "1 KiB",
            Body::Large => "64 KiB",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Body::Small => 1024,
            Body::Large => 64 * 1024,
        }
    }

    /// What a small client sends. The origin looks at the one letter that tells the two apart.
    fn request(self) -> &'static [u8] {
        match self {
            Body::Small => {
                b"GET /s HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: load/1\r\nAccept: */*\r\n\r\n"
            }
            Body::Large => {
                b"GET /l HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: load/1\r\nAccept: */*\r\n\r\n"
            }
        }
    }

    fn of_request(request: &[u8]) -> Body {
        if request.get(5) == Some(&b'l') { Body::Large } else { Body::Small }
    }

    fn answer(self) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            self.bytes()
        );
        let mut answer = head.into_bytes();
        answer.resize(answer.len() + self.bytes(), b'x');
        answer
    }
}

/// Requests answered in a window of time.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    pub requests: u64,
    pub wall: Duration,
    /// What the proxy's processor time grew by, in seconds.
    pub processor: f64,
}

/// How long is counted: until the proxy took so much processor time, which is as long as a busy machine makes it.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub warm: Duration,
    /// In seconds.
    pub processor_min: f64,
    pub wall_max: Duration,
}

/// The thread with the loop.
#[derive(Debug)]
pub struct World {
    origin: SocketAddr,
    work: Sender<Work>,
}

type Work = Box<dyn FnOnce(&mut Loop) + Send>;

impl World {
    pub fn start() -> Done<World> {
        let (work, queue) = channel();
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("the origin")?;
        let origin = listener.local_addr().context("the origin")?;
        let (ready, is_ready) = channel();
        std::thread::Builder::new()
            .name("world".to_owned())
            .spawn(move || {
                // On one core there is nothing to compare, and whoever compares has looked.
                let _ = cores::pin(cores::Part::World);
                match Loop::new(listener).context("the origin") {
                    Ok(mut inner) => {
                        drop(ready.send(Ok(())));
                        inner.serve(&queue);
                    }
                    Err(fault) => drop(ready.send(Err(fault))),
                }
            })
            .context("a thread")?;
        is_ready.recv().context("the load's thread ended")??;
        Ok(World { origin, work })
    }

    /// Where the origin listens.
    pub fn origin(&self) -> SocketAddr {
        self.origin
    }

    /// Does this in the loop; the origin answers meanwhile and afterwards.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Loop) -> Done<T> + Send + 'static,
    ) -> Done<T> {
        let (done, result) = channel();
        let work: Work = Box::new(move |inner| drop(done.send(work(inner))));
        self.work.send(work).ok().context("the load's thread ended")?;
        result.recv().context("the load's thread ended")?
    }
}

/// One end of a connection from a proxy.
#[derive(Debug)]
struct Asked {
    stream: TcpStream,
    /// A request that has not come to its end.
    part: Vec<u8>,
    sending: Option<(Body, usize)>,
}

/// One end of a connection to a proxy.
#[derive(Debug)]
struct Asking {
    stream: TcpStream,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    /// `since`: when the request was due.
    Head {
        since: Instant,
        part: Vec<u8>,
    },
    Rest {
        since: Instant,
        left: usize,
    },
}

/// What a client does when it has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Asks again.
    Closed,
    /// Waits for its next turn.
    Open,
}

pub struct Loop {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    listener: TcpListener,
    asked: Vec<Option<Asked>>,
    free: Vec<usize>,
    asking: Vec<Asking>,
    buffer: Box<[u8]>,
    answers: [Vec<u8>; 2],
    body: Body,
    pace: Pace,
    done: u64,
    /// Clients without a request, and latencies; with an open loop only.
    idle: Vec<usize>,
    latencies: Vec<Duration>,
}

const LISTENER: u64 = u64::MAX;
/// Above the number of any connection; tells a client's events from an origin's.
const CLIENT: u64 = 1 << 32;

/// A whole answer in one read.
const BUFFER_BYTES: usize = 256 * 1024;

/// While there is no work the origin still answers health checks; new work waits this long at most.
const REST: Duration = Duration::from_millis(5);

/// How often it is looked whether a window was long enough.
const LOOK: Duration = Duration::from_millis(50);

/// A proxy that is asked and says nothing for so long is broken.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Clients that connect before each has had an answer: less than the shortest accept queue among the proxies.
const BURST: usize = 256;

impl Loop {
    fn new(listener: TcpListener) -> io::Result<Loop> {
        rustix::net::listen(&listener, 4096)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Loop {
            epoll,
            events: Vec::with_capacity(512),
            listener,
            asked: Vec::new(),
            free: Vec::new(),
            asking: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            answers: [Body::Small, Body::Large].map(Body::answer),
            body: Body::Small,
            pace: Pace::Open,
            done: 0,
            idle: Vec::new(),
            latencies: Vec::new(),
        })
    }

    fn serve(&mut self, queue: &Receiver<Work>) {
        loop {
            match queue.try_recv() {
                Ok(work) => work(self),
                Err(TryRecvError::Disconnected) => return,
                // What went wrong with a connection that nobody asks about shows in the next measurement.
                Err(TryRecvError::Empty) => drop(self.turn(REST)),
            }
        }
    }

    /// How many requests `connections` clients get answers to, each asking again at once. `processor` reads the proxy's
    /// processor time in seconds.
    pub fn closed(
        &mut self,
        proxy: SocketAddr,
        body: Body,
        connections: usize,
        window: Window,
        processor: impl Fn() -> Done<f64>,
    ) -> Done<Counted> {
        self.connect(proxy, body, connections)?;
        self.pace = Pace::Closed;
        for client in 0..connections {
            self.ask(client, Instant::now())?;
        }
        self.until(Instant::now() + window.warm)?;
        let (begun, before, done) = (Instant::now(), processor()?, self.done);
        let counted = loop {
            self.until(Instant::now() + LOOK)?;
            let (wall, processor) = (begun.elapsed(), processor()? - before);
            if processor >= window.processor_min || wall >= window.wall_max {
                break Counted { requests: self.done - done, wall, processor };
            }
        };
        self.disconnect();
        Ok(counted)
    }

    /// One request after the other at a fixed rate, whether or not the last was answered. Latencies count from when a
    /// request was due, so that a proxy that stalls cannot make the clients ask less.
    pub fn open(
        &mut self,
        proxy: SocketAddr,
        body: Body,
        connections: usize,
        rate_per_s: f64,
        [warm, window]: [Duration; 2],
    ) -> Done<Vec<Duration>> {
        self.connect(proxy, body, connections)?;
        let begun = Instant::now();
        let distance = Duration::from_secs_f64(1.0 / rate_per_s);
        let total = ((warm + window).as_secs_f64() * rate_per_s) as u32;
        let warming = (warm.as_secs_f64() * rate_per_s) as u32;
        let mut next = 0;
        while (self.latencies.len() as u32) < total {
            let now = Instant::now();
            while next < total && begun + distance * next <= now {
                let Some(client) = self.idle.pop() else { break };
                self.ask(client, begun + distance * next)?;
                next += 1;
            }
            if now > begun + warm + window + SILENCE_MAX {
                return Err(Fault::new(format!(
                    "of {total} requests {} were answered",
                    self.latencies.len()
                )));
            }
            // Without a pause: a sleep is as long as what is measured.
            self.turn(Duration::ZERO)?;
        }
        let latencies = self.latencies.split_off(warming as usize);
        self.disconnect();
        Ok(latencies)
    }

    /// Connections that stay, each of which had an answer.
    pub fn connect(&mut self, proxy: SocketAddr, body: Body, connections: usize) -> Done {
        self.disconnect();
        self.body = body;
        while self.asking.len() < connections {
            let from = self.asking.len();
            for index in from..connections.min(from + BURST) {
                let stream = TcpStream::connect(proxy).context(proxy)?;
                self.watch(&stream, CLIENT + index as u64).context("a client")?;
                self.asking.push(Asking { stream, state: State::Idle });
            }
            for index in from..self.asking.len() {
                self.ask(index, Instant::now())?;
            }
            let begun = Instant::now();
            while self.idle.len() < self.asking.len() {
                self.turn(REST)?;
                if begun.elapsed() > SILENCE_MAX {
                    let waiting = self.asking.len() - self.idle.len();
                    return Err(Fault::new(format!(
                        "{waiting} of {} clients get no answer",
                        self.asking.len()
                    )));
                }
            }
        }
        self.latencies.clear();
        Ok(())
    }

    pub fn disconnect(&mut self) {
        self.asking.clear();
        self.idle.clear();
        self.latencies.clear();
        self.pace = Pace::Open;
    }

    fn until(&mut self, end: Instant) -> Done {
        let mut last = (self.done, Instant::now());
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if self.done != last.0 {
                last = (self.done, now);
            } else if now - last.1 > SILENCE_MAX {
                return Err(Fault::new("the proxy stopped answering"));
            }
            // Without a pause: to wake this core would be the proxy's work, and takes as much time as its own.
            self.turn(Duration::ZERO)?;
        }
    }

    fn watch(&self, stream: &TcpStream, number: u64) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, stream.as_fd(), EventData::new_u64(number), flags)?)
    }

    /// Waits for events, at most so long, and handles them.
    fn turn(&mut self, at_most: Duration) -> Done {
        let mut events = std::mem::take(&mut self.events);
        let timeout = Timespec::try_from(at_most.min(REST)).context("a timeout")?;
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Fault::new(format!("epoll: {error}"))),
        }
        let mut result = Ok(());
        for event in &events {
            let (number, flags) = (event.data.u64(), event.flags);
            let handled = match number {
                LISTENER => self.accept().context("the origin"),
                CLIENT.. => self.answered((number - CLIENT) as usize, flags),
                _ => {
                    // The proxy may close as it likes; a request that is lost by that is missed by its client.
                    if self.asked_for(number as usize, flags).is_err() {
                        self.asked[number as usize] = None;
                        self.free.push(number as usize);
                    }
                    Ok(())
                }
            };
            result = result.and(handled);
        }
        self.events = events;
        result
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.asked.push(None);
                self.asked.len() - 1
            });
            self.watch(&stream, slot as u64)?;
            self.asked[slot] = Some(Asked { stream, part: Vec::new(), sending: None });
        }
    }

    /// The origin: one request at a time on a connection, as proxies send them. `Err`: the connection ends.
    fn asked_for(&mut self, slot: usize, flags: EventFlags) -> io::Result<()> {
        let Some(asked) = &mut self.asked[slot] else { return Ok(()) };
        if flags.contains(EventFlags::IN) {
            let length = match asked.stream.read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut request = &self.buffer[..length];
            if !asked.part.is_empty() || !request.ends_with(b"\r\n\r\n") {
                asked.part.extend_from_slice(request);
                request = &asked.part;
            }
            if request.ends_with(b"\r\n\r\n") {
                asked.sending = Some((Body::of_request(request), 0));
                asked.part.clear();
            }
        }
        while let Some((body, sent)) = &mut asked.sending {
            let answer = &self.answers[*body as usize];
            match asked.stream.write(&answer[*sent..]) {
                Ok(length) => *sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if *sent == answer.len() {
                asked.sending = None;
            }
        }
        Ok(())
    }

    fn ask(&mut self, client: usize, since: Instant) -> Done {
        let asking = &mut self.asking[client];
        let request = self.body.request();
        match asking.stream.write(request) {
            Ok(length) if length == request.len() => {
                asking.state = State::Head { since, part: Vec::new() };
                Ok(())
            }
            Ok(_) => Err(Fault::new("a request did not go out as one piece")),
            Err(error) => Err(Fault::new(format!("a request could not be sent: {error}"))),
        }
    }

    /// A client's connection has something to read, or ended.
    fn answered(&mut self, client: usize, flags: EventFlags) -> Done {
        // Left over from before the clients went.
        let Some(asking) = self.asking.get_mut(client) else { return Ok(()) };
        if !flags.contains(EventFlags::IN) {
            return Ok(());
        }
        loop {
            let length = match asking.stream.read(&mut self.buffer) {
                Ok(0) => return Err(Fault::new("the proxy closed a connection")),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Fault::new(format!("an answer could not be read: {error}"))),
            };
            let piece = &self.buffer[..length];
            let left = match &mut asking.state {
                State::Idle => return Err(Fault::new("an answer that nobody asked for")),
                State::Rest { left, .. } => left.checked_sub(length),
                State::Head { since, part } => {
                    let so_far = if part.is_empty() {
                        piece
                    } else {
                        part.extend_from_slice(piece);
                        part.as_slice()
                    };
                    match left_behind_head(so_far, self.body)? {
                        Some(left) => {
                            asking.state = State::Rest { since: *since, left: 0 };
                            Some(left)
                        }
                        None => {
                            if part.is_empty() {
                                part.extend_from_slice(piece);
                            }
                            continue;
                        }
                    }
                }
            };
            let State::Rest { since, left: expected } = &mut asking.state else { continue };
            match left {
                None => return Err(Fault::new("an answer is longer than it should be")),
                Some(0) => {
                    let since = *since;
                    asking.state = State::Idle;
                    self.done += 1;
                    return match self.pace {
                        Pace::Closed => self.ask(client, since),
                        Pace::Open => {
                            self.latencies.push(since.elapsed());
                            self.idle.push(client);
                            Ok(())
                        }
                    };
                }
                Some(left) => *expected = left,
            }
            if length < self.buffer.len() {
                return Ok(());
            }
        }
    }
}

/// How much of the body is still to come, once the head is here.
fn left_behind_head(answer: &[u8], body: Body) -> Done<Option<usize>> {
    // Usually all of it is here, and then it is known where the head ends.
    let usual =
        answer.len().checked_sub(body.bytes() + 4).filter(|at| answer[*at..].starts_with(b"\r\n\r\n"));
    let head = usual.or_else(|| answer.windows(4).position(|window| window == b"\r\n\r\n"));
    let Some(head) = head else { return Ok(None) };
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(Fault::new(format!("the proxy answered {}", String::from_utf8_lossy(line))));
    }
    let here = answer.len() - head - 4;
    body.bytes().checked_sub(here).map(Some).context("an answer is longer than it should be")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_is_its_own_proxy() {
        let world = World::start().unwrap();
        let origin = world.origin();
        for body in [Body::Small, Body::Large] {
            let times = [Duration::from_millis(5), Duration::from_millis(50)];
            let window = Window { warm: times[0], processor_min: 1.0, wall_max: times[1] };
            let counted = world.run(move |inner| inner.closed(origin, body, 8, window, || Ok(0.0))).unwrap();
            assert!(counted.requests > 8, "{counted:?}");
            let latencies = world.run(move |inner| inner.open(origin, body, 4, 1000.0, times)).unwrap();
            assert_eq!(latencies.len(), 50);
        }
    }

    #[test]
    fn an_answer_that_is_not_what_was_asked_for_is_a_fault() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n";
        assert_eq!(left_behind_head(head.as_bytes(), Body::Small).unwrap(), Some(1024));
        assert_eq!(left_behind_head(&head.as_bytes()[..20], Body::Small).unwrap(), None);
        assert!(left_behind_head(b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Body::Small).is_err());
        let long = [head.as_bytes(), &[b'x'; 1025]].concat();
        assert!(left_behind_head(&long, Body::Small).is_err());
    }
}
