//! What a good client notices while others do their worst, and what it costs the proxy in memory.
//!
//! Proxy, origin and good client run as in the fair run (`bench proxy`): one core for the proxy, one for all others,
//! requests at a fixed rate, latencies counted from when each was due. Each attack is measured against a quiet time just
//! before it, so that what else the machine does is in both.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::figure::{Figure, median, percentile};
use super::proxy::raise_descriptor_limit;
use super::proxy::side::{Kind, Side};
use super::proxy::world::{Body, World};
use crate::fault::{Context, Done};

/// Far below what a core carries: a good client is to be served, not the proxy saturated.
const RATE_PER_S: f64 = 500.0;
const CONNECTIONS: usize = 16;
/// A thousand requests, of which ten are slower than the figure.
const TIMES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];
const ROUNDS: usize = 5;

/// As the issue has it: an attack may cost a good client as much again.
const RATIO_MAX: f64 = 2.0;
/// Below this a ratio says more about the machine than about the proxy: a tick of its scheduler.
const QUIET_P99_MIN: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    Idle,
    SlowHeads,
    SlowBodies,
    UnreadAnswers,
    HeaderBombs,
    HugeUrls,
    ComeAndGo,
    RapidReset,
}

impl Attack {
    const ALL: [Attack; 8] = [
        Attack::Idle,
        Attack::SlowHeads,
        Attack::SlowBodies,
        Attack::UnreadAnswers,
        Attack::HeaderBombs,
        Attack::HugeUrls,
        Attack::ComeAndGo,
        Attack::RapidReset,
    ];

    fn name(self) -> &'static str {
        match self {
            Attack::Idle => "10,000 idle connections",
            Attack::SlowHeads => "2,000 heads, a byte a second",
            Attack::SlowBodies => "500 bodies, a byte a second",
            Attack::UnreadAnswers => "200 connections, 200 requests each, no answer read",
            Attack::HeaderBombs => "heads of 40 KiB, 200 a second",
            Attack::HugeUrls => "targets of 40 KiB, 200 a second",
            Attack::ComeAndGo => "1,000 connections a second that ask nothing",
            Attack::RapidReset => "HTTP/2 streams opened and reset, 50 connections a second",
        }
    }

    fn connections(self) -> usize {
        match self {
            Attack::Idle => 10_000,
            Attack::SlowHeads => 2_000,
            Attack::SlowBodies => 500,
            Attack::UnreadAnswers => 200,
            Attack::HeaderBombs | Attack::HugeUrls => 200,
            Attack::ComeAndGo => 1_000,
            Attack::RapidReset => 50,
        }
    }

    /// What each may take: of a request one buffer of 64 KiB, of an answer one of 128 KiB, and what goes with them. Of
    /// those that come and go no more than are there at once.
    fn bound_kib(self) -> usize {
        let each = match self {
            Attack::Idle => 8,
            Attack::SlowHeads | Attack::HeaderBombs | Attack::HugeUrls => 72,
            Attack::SlowBodies => 96,
            Attack::UnreadAnswers => 256,
            Attack::ComeAndGo => 8,
            Attack::RapidReset => 512,
        };
        self.connections() * each
    }

    fn first_bytes(self) -> Vec<u8> {
        let get = b"GET /s HTTP/1.1\r\nHost: www.example.com\r\n".to_vec();
        match self {
            Attack::Idle => [&get[..], b"\r\n"].concat(),
            Attack::SlowHeads => [&get[..], b"X: "].concat(),
            Attack::SlowBodies => {
                b"POST /s HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 100000\r\n\r\n".to_vec()
            }
            Attack::UnreadAnswers => b"GET /l HTTP/1.1\r\nHost: www.example.com\r\n\r\n".repeat(200),
            Attack::HeaderBombs => {
                [&get[..], &b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1_000)].concat()
            }
            Attack::HugeUrls => [b"GET /".as_slice(), &[b'a'; 40_000]].concat(),
            Attack::ComeAndGo => Vec::new(),
            Attack::RapidReset => rapid_reset(),
        }
    }

    /// From its begin to when it is as it stays. Answers that nobody reads first fill what the kernel holds for each
    /// connection on both sides, some MiB, and all of that comes from the one origin that the good client asks too.
    fn settles_in(self) -> Duration {
        match self {
            Attack::UnreadAnswers => Duration::from_secs(6),
            Attack::Idle
            | Attack::SlowHeads
            | Attack::SlowBodies
            | Attack::HeaderBombs
            | Attack::HugeUrls
            | Attack::ComeAndGo
            | Attack::RapidReset => Duration::from_millis(500),
        }
    }

    /// What is sent each second on a connection that stays.
    fn each_second(self) -> Option<&'static [u8]> {
        match self {
            Attack::SlowHeads | Attack::SlowBodies => Some(b"x"),
            Attack::Idle | Attack::UnreadAnswers => Some(b""),
            Attack::HeaderBombs | Attack::HugeUrls | Attack::ComeAndGo | Attack::RapidReset => None,
        }
    }
}

/// The preface, no settings, and a hundred streams that end before anybody could look.
fn rapid_reset() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..200_u32).step_by(2) {
        // GET, http, / by their places in the table of HPACK, and a literal for the authority.
        bytes.extend_from_slice(b"\0\0\x06\x01\x05");
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(b"\x82\x86\x84\x01\x01a");
        bytes.extend_from_slice(b"\0\0\x04\x03\0");
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 8]);
    }
    bytes
}

/// Goes on until it is dropped.
struct Running {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(attack: Attack, proxy: SocketAddr) -> Running {
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&opened));
        let thread = std::thread::spawn(move || match attack.each_second() {
            Some(drip) => hold(attack, proxy, drip, &stopped, &count),
            None => come_and_go(attack, proxy, &stopped, &count),
        });
        Running { stop, opened, thread: Some(thread) }
    }

    fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whatever became of it, the figures tell.
            let _ = thread.join();
        }
    }
}

fn open(proxy: SocketAddr, first: &[u8], count: &AtomicU64) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(proxy).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.write_all(first).ok()?;
    count.fetch_add(1, Ordering::Relaxed);
    Some(stream)
}

/// Keeps so many connections open; those that the proxy closed are opened again.
fn hold(attack: Attack, proxy: SocketAddr, drip: &[u8], stop: &AtomicBool, count: &AtomicU64) {
    let first = attack.first_bytes();
    let mut held: Vec<Option<TcpStream>> = Vec::new();
    held.resize_with(attack.connections(), || None);
    while !stop.load(Ordering::Relaxed) {
        let round = Instant::now();
        for slot in &mut held {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let is_open = match slot {
                Some(stream) => drip.is_empty() || stream.write_all(drip).is_ok(),
                None => false,
            };
            if !is_open {
                *slot = open(proxy, &first, count);
            }
        }
        while round.elapsed() < Duration::from_secs(1) && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// So many each second, evenly; each is closed when the next but a few have come.
fn come_and_go(attack: Attack, proxy: SocketAddr, stop: &AtomicBool, count: &AtomicU64) {
    const AT_ONCE: usize = 16;
    let first = attack.first_bytes();
    let distance = Duration::from_secs(1) / u32::try_from(attack.connections()).unwrap_or(1);
    let begun = Instant::now();
    let mut recent = std::collections::VecDeque::new();
    let mut due = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        due += distance;
        recent.extend(open(proxy, &first, count));
        if recent.len() > AT_ONCE
            && let Some(mut old) = recent.pop_front()
        {
            // Whatever it was told; it need not wait for more.
            let _ = old.set_nonblocking(true);
            let _ = old.read(&mut [0; 4096]);
        }
    }
}

/// One after the other: a quiet time, then the attack.
pub fn measure(fairway: &Path, quick: bool) -> Done<Vec<Figure>> {
    raise_descriptor_limit();
    let world = World::start()?;
    let mut figures = Vec::new();
    for attack in Attack::ALL {
        // Each with a proxy of its own: what one attack left behind is not counted for the next.
        let side = Side::start(&Kind::Fairway(fairway.to_owned()), world.origin(), false, Body::Small)?;
        let proxy = side.address;
        let good = || -> Done<f64> {
            let latencies =
                world.run(move |inner| inner.open(proxy, Body::Small, CONNECTIONS, RATE_PER_S, TIMES))?;
            Ok(percentile(latencies.iter().map(Duration::as_secs_f64).collect(), 99))
        };
        good()?;
        let before = side.memory()?.resident;
        let (mut ratios, mut quiets, mut attackeds) = (Vec::new(), Vec::new(), Vec::new());
        let mut highest = before;
        let mut opened = 0;
        for _ in 0..if quick { 1 } else { ROUNDS } {
            let quiet = good()?;
            let running = Running::start(attack, proxy);
            let begun = Instant::now();
            while (attack.each_second().is_some() && running.opened() < attack.connections() as u64)
                && begun.elapsed() < Duration::from_secs(20)
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            std::thread::sleep(attack.settles_in());
            let attacked = good().context(attack.name())?;
            highest = highest.max(side.memory()?.resident);
            opened += running.opened();
            drop(running);
            quiets.push(quiet * 1000.0);
            attackeds.push(attacked * 1000.0);
            ratios.push(attacked / quiet.max(QUIET_P99_MIN.as_secs_f64()));
        }
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let name = attack.name();
        figures.push(
            Figure::new(format!("hostile: p99 beside {name}"), median(ratios), "x", RATIO_MAX).detail(format!(
                "{:.2} ms quiet, {:.2} ms during it (a quiet p99 below {} ms counts as that); {opened} connections",
                median(quiets),
                median(attackeds),
                QUIET_P99_MIN.as_millis()
            )),
        );
        figures.push(
            Figure::new(
                format!("hostile: memory for {name}"),
                mib(highest.saturating_sub(before)),
                "MiB",
                attack.bound_kib() as f64 / 1024.0,
            )
            .detail(format!("{:.1} MiB before", mib(before)))
            .valid(opened >= attack.connections() as u64),
        );
    }
    Ok(figures)
}
