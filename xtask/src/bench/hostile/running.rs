use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::attack::{Attack, Manner, Reads};
use super::yield_to_others;

/// An attack. Goes on until it is dropped.
pub struct Running {
    shared: Arc<Shared>,
    needs_proof: bool,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    opened: AtomicU64,
    proven: AtomicBool,
}

impl Running {
    pub fn start(attack: &Attack, proxy: SocketAddr) -> Running {
        let shared = Arc::new(Shared::default());
        let (attack, here) = (*attack, Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            yield_to_others();
            let attacker = Attacker { attack, proxy, first: (attack.first)(), shared: here };
            match attack.manner {
                Manner::Stay { drip, reads } => attacker.stay(&drip(), reads),
                Manner::Come => attacker.come(),
            }
        });
        Running { shared, needs_proof: !attack.proof.is_empty(), thread: Some(thread) }
    }

    pub fn opened(&self) -> u64 {
        self.shared.opened.load(Ordering::Relaxed)
    }

    /// Whether what came back was what comes back to this.
    pub fn is_proven(&self) -> bool {
        !self.needs_proof || self.shared.proven.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whatever became of it, the figures tell.
            let _ = thread.join();
        }
    }
}

struct Attacker {
    attack: Attack,
    proxy: SocketAddr,
    first: Vec<u8>,
    shared: Arc<Shared>,
}

/// What a write waits for at most; a proxy that reads nothing must not end the attack.
const WRITE_MAX: Duration = Duration::from_millis(200);

/// As many as are open at once of those that come and go.
const AT_ONCE: usize = 16;

struct Held {
    stream: TcpStream,
    /// What was not written of the last round.
    rest: Vec<u8>,
    is_proven: bool,
}

impl Attacker {
    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Non-blocking from here on.
    fn open(&self) -> Option<Held> {
        let mut stream = TcpStream::connect(self.proxy).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_write_timeout(Some(WRITE_MAX)).ok()?;
        let mut rest = &self.first[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It was told that this is enough: what was said can still be read.
                Err(_) if matches!(self.attack.manner, Manner::Come) => break,
                Err(_) => return None,
            }
        }
        stream.set_nonblocking(true).ok()?;
        self.shared.opened.fetch_add(1, Ordering::Relaxed);
        Some(Held { stream, rest: rest.to_vec(), is_proven: false })
    }

    fn look(&self, answer: &[u8]) {
        let proof = self.attack.proof;
        if !proof.is_empty() && answer.windows(proof.len()).any(|window| window == proof) {
            self.shared.proven.store(true, Ordering::Relaxed);
        }
    }

    /// Keeps so many connections open; those that the proxy closed are opened again.
    fn stay(&self, drip: &[u8], reads: Reads) {
        let mut held: Vec<Option<Held>> = Vec::new();
        held.resize_with(self.attack.connections, || None);
        while !self.is_over() {
            let round = Instant::now();
            for slot in &mut held {
                if self.is_over() {
                    return;
                }
                let is_open = slot.as_mut().is_some_and(|held| self.goes_on(held, drip, reads));
                if !is_open {
                    *slot = self.open();
                }
            }
            while round.elapsed() < Duration::from_secs(1) && !self.is_over() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn goes_on(&self, held: &mut Held, drip: &[u8], reads: Reads) -> bool {
        if !held.is_proven {
            held.is_proven = true;
            let mut answer = [0; 64];
            match held.stream.read(&mut answer) {
                Ok(0) => return false,
                Ok(length) => self.look(&answer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        let mut piece = match reads {
            Reads::Nothing => Vec::new(),
            Reads::AByte => vec![0; 1],
            Reads::Everything => vec![0; 64 * 1024],
        };
        let mut wants = !piece.is_empty();
        while wants {
            wants = reads == Reads::Everything;
            match held.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        if held.rest.is_empty() {
            held.rest.extend_from_slice(drip);
        }
        while !held.rest.is_empty() {
            match held.stream.write(&held.rest) {
                Ok(written) => drop(held.rest.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        true
    }

    /// So many each second, evenly; each is closed when some others have come.
    fn come(&self) {
        let distance = Duration::from_secs(1) / u32::try_from(self.attack.connections).unwrap_or(1);
        let begun = Instant::now();
        let mut recent = VecDeque::new();
        let mut due = Duration::ZERO;
        let mut answer = vec![0; 64 * 1024];
        while !self.is_over() {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            due += distance;
            recent.extend(self.open());
            if recent.len() > AT_ONCE
                && let Some(mut old) = recent.pop_front()
                && let Ok(length @ 1..) = old.stream.read(&mut answer)
            {
                self.look(&answer[..length]);
            }
        }
    }
}
