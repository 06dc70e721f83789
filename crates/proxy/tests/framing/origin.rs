//! A service that keeps every byte it is sent, and answers as it is told.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::reader::{self, Kind, Read};

/// The answer to what a case asks. Whatever comes behind it is answered 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// 200, with the target as body.
    Usual,
    /// These bytes, then a close in good order.
    Bytes(Vec<u8>),
    /// The first bytes, and the others when the client has them.
    Parts(Vec<u8>, Vec<u8>),
    /// As `Bytes`, then a reset.
    Reset(Vec<u8>),
}

#[derive(Debug)]
struct State {
    script: Script,
    /// What came, by connection.
    received: Vec<Vec<u8>>,
    /// Where those of the current case begin.
    first: usize,
    open: usize,
    /// The client has got something of the answer.
    is_seen: bool,
}

#[derive(Debug)]
pub struct Origin {
    pub addr: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// What asks whether all connections before it were seen: they are accepted in the order in which they were made.
const SYNC: &[u8] = b"SYNC";

/// Proxies that gather an answer before they pass it on show nothing of it until it ends.
const SEEN_MAX: Duration = Duration::from_secs(1);

/// A proxy that does not close what it was told is closed is not waited for.
const QUIET_MAX: Duration = Duration::from_secs(5);

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = State { script: Script::Usual, received: Vec::new(), first: 0, open: 0, is_seen: false };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&of_thread);
                let index = {
                    let mut state = shared.0.lock().unwrap();
                    state.open += 1;
                    state.received.push(Vec::new());
                    state.received.len() - 1
                };
                std::thread::spawn(move || {
                    serve(stream, &shared, index);
                    shared.0.lock().unwrap().open -= 1;
                    shared.1.notify_all();
                });
            }
        });
        Self { addr, shared }
    }

    /// What is answered from now on.
    pub fn follow(&self, script: &Script) {
        let mut state = self.shared.0.lock().unwrap();
        state.script = script.clone();
        state.first = state.received.len();
        state.is_seen = false;
    }

    /// The client has got something: now a reset takes nothing away from it that was on its way.
    pub fn was_seen(&self) {
        self.shared.0.lock().unwrap().is_seen = true;
        self.shared.1.notify_all();
    }

    /// All that came since, by connection.
    pub fn received(&self) -> Vec<Vec<u8>> {
        let mut sync = TcpStream::connect(self.addr).unwrap();
        sync.write_all(SYNC).unwrap();
        sync.read_to_end(&mut Vec::new()).unwrap();
        let state = self.shared.0.lock().unwrap();
        let waited = self.shared.1.wait_timeout_while(state, QUIET_MAX, |state| state.open > 0).unwrap();
        let mut received = waited.0.received[waited.0.first..].to_vec();
        received.retain(|bytes| !bytes.is_empty() && bytes != SYNC);
        received
    }
}

fn serve(mut stream: TcpStream, shared: &(Mutex<State>, Condvar), index: usize) {
    let (state, changed) = shared;
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(QUIET_MAX)).unwrap();
    let (mut buf, mut is_answered, mut is_urged) = ([0; 16 * 1024], false, false);
    while let Ok(count @ 1..) = stream.read(&mut buf) {
        let (bytes, script) = {
            let mut state = state.lock().unwrap();
            let script = state.script.clone();
            if is_answered && script != Script::Usual {
                // It closes; whoever was faster sends it again elsewhere.
                continue;
            }
            state.received[index].extend_from_slice(&buf[..count]);
            (state.received[index].clone(), script)
        };
        if bytes == SYNC {
            return;
        }
        if is_answered {
            continue;
        }
        let target = match reader::read(&bytes, Kind::Request, false) {
            Ok(Read::Nothing) => continue,
            Ok(Read::Part(message)) => {
                let is_asked = message.all("expect").count() > 0;
                if script == Script::Usual && is_asked && !is_urged {
                    is_urged = true;
                    let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                if script == Script::Usual || !is_asked {
                    continue;
                }
                "/unread".to_owned()
            }
            Ok(Read::Whole(message, _)) => {
                message.first_line.split(' ').nth(1).unwrap_or_default().to_owned()
            }
            Err(_) => "/ambiguous".to_owned(),
        };
        is_answered = true;
        let usual = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{target}",
            target.len()
        );
        match &script {
            Script::Bytes(bytes) if target != "/end" => {
                let _ = stream.write_all(bytes);
            }
            Script::Reset(bytes) if target != "/end" => {
                let _ = stream.write_all(bytes);
                let state = state.lock().unwrap();
                drop(changed.wait_timeout_while(state, SEEN_MAX, |state| !state.is_seen).unwrap());
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                return;
            }
            Script::Parts(first, second) if target != "/end" => {
                let _ = stream.write_all(first);
                let state = state.lock().unwrap();
                drop(changed.wait_timeout_while(state, SEEN_MAX, |state| !state.is_seen).unwrap());
                let _ = stream.write_all(second);
            }
            Script::Usual | Script::Bytes(_) | Script::Parts(..) | Script::Reset(_) => {
                let _ = stream.write_all(usual.as_bytes());
            }
        }
        // What comes behind an answered request is what this is about.
        let _ = stream.shutdown(Shutdown::Write);
    }
}
