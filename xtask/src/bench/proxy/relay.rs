//! The least that a proxy can do: what arrives is written to the other side, and nothing is looked at.
//!
//! Four system calls a request and one wait for many, as a proxy needs them, and no work of its own beside them. What it
//! takes is what the kernel takes, so its ratio to another proxy is about the best that any of the kind can reach on this
//! machine: a goal beyond it needs fewer system calls, not less work.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::fault::{Context, Done};

/// What `--relay` says: where it listens, where it connects to.
pub fn run(ends: &[SocketAddr]) -> Done {
    let [listen, origin] = ends else { return Ok(()) };
    let listener = TcpListener::bind(listen).context(listen)?;
    relay(&listener, *origin).context("the relay")
}

const LISTENER: u64 = u64::MAX;

/// As large as Fairway's.
const BUFFER_BYTES: usize = 128 * 1024;

/// Neighbours in the list are each other's other side.
fn relay(listener: &TcpListener, origin: SocketAddr) -> io::Result<()> {
    rustix::net::listen(listener, 4096)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut sides: Vec<Option<TcpStream>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (number, flags) = (event.data.u64(), event.flags);
            if number == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let slot = free.pop().unwrap_or_else(|| {
                        sides.extend([None, None]);
                        sides.len() - 2
                    });
                    for (at, side) in [(slot, client), (slot + 1, TcpStream::connect(origin)?)] {
                        side.set_nonblocking(true)?;
                        side.set_nodelay(true)?;
                        let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                        epoll::add(&epoll, &side, EventData::new_u64(at as u64), all)?;
                        sides[at] = Some(side);
                    }
                }
                continue;
            }
            let at = number as usize;
            let (Some(from), Some(to)) = (&sides[at], &sides[at ^ 1]) else { continue };
            let is_over = flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP)
                && pass(from, to, &mut buffer).is_err();
            if is_over {
                (sides[at], sides[at ^ 1]) = (None, None);
                free.push(at & !1);
            }
        }
    }
}

/// Passes on what there is. `Err`: the connection ends.
fn pass(from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let length = match recv(from, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((length, _)) => length,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut left = &buffer[..length];
        while !left.is_empty() {
            match send(to, left, SendFlags::NOSIGNAL) {
                Ok(sent) => left = &left[sent..],
                // Who does not take an answer is waited for: nobody else is here whom that could harm.
                Err(Errno::AGAIN) => std::thread::sleep(Duration::from_micros(10)),
                Err(error) => return Err(error.into()),
            }
        }
        if length < buffer.len() {
            return Ok(());
        }
    }
}
