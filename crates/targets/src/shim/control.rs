//! The shim's end of the control socket.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::sockopt;

use crate::wire::{Command, MESSAGE_BYTES_MAX, Message, SOCKET_FILE};

/// Supervisors and people with questions. One server holds one connection an instance; the rest is for the moment
/// in which one server follows another.
const CLIENTS_MAX: usize = 16;

/// A command is one short line.
const COMMAND_BYTES_MAX: usize = 4 << 10;

/// What a client may leave unread before it is dropped; it can connect again and gets the state as it is then.
const UNREAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) listener: UnixListener,
    pub(crate) clients: Vec<Client>,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
    subscribed: bool,
    open: bool,
}

impl Control {
    /// Binds through the directory's descriptor: a socket's path may have 107 bytes at most, a state directory more.
    pub(crate) fn bind(dir: &Path) -> io::Result<Self> {
        let _ = fs::remove_file(dir.join(SOCKET_FILE));
        let directory = File::open(dir)?;
        let listener =
            UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_fd().as_raw_fd()))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: Vec::new() })
    }

    pub(crate) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let own = rustix::process::geteuid();
            let welcome =
                sockopt::socket_peercred(&stream).is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
            if !welcome || stream.set_nonblocking(true).is_err() || !self.make_room() {
                continue;
            }
            let (input, output) = (Vec::new(), VecDeque::new());
            self.clients.push(Client { stream, input, output, subscribed: false, open: true });
        }
    }

    /// A newcomer has a question now; the one that came first and subscribed to nothing had its time to ask.
    fn make_room(&mut self) -> bool {
        if self.clients.len() < CLIENTS_MAX {
            return true;
        }
        match self.clients.iter().position(|client| !client.subscribed) {
            Some(idle) => {
                self.clients.remove(idle);
                true
            }
            None => false,
        }
    }

    pub(crate) fn broadcast(&mut self, message: &Message) {
        for client in self.clients.iter_mut().filter(|client| client.subscribed) {
            client.send(message);
        }
    }

    pub(crate) fn sweep(&mut self) {
        self.clients.retain(|client| client.open);
    }
}

impl Client {
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    pub(crate) fn subscribe(&mut self) {
        self.subscribed = true;
    }

    pub(crate) fn send(&mut self, message: &Message) {
        let text = serde_json::to_vec(message).unwrap_or_default();
        if self.output.len() + text.len() > UNREAD_BYTES_MAX {
            self.open = false;
            return;
        }
        self.output.extend(text);
        self.output.push_back(b'\n');
        self.write();
    }

    pub(crate) fn write(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(self.output.as_slices().0) {
                Ok(0) => break,
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.open = false;
                    return;
                }
            }
        }
        self.output.shrink_to(4096);
    }

    /// The whole commands that have come in. A line that is no command gets its answer here.
    pub(crate) fn read(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut chunk = [0; 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.open = false;
                    break;
                }
                Ok(len) => self.input.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.open = false;
                    break;
                }
            }
            while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(command) => commands.push(command),
                    Err(error) => self.send(&Message::Refused(format!("not a command: {error}"))),
                }
            }
            if self.input.len() > COMMAND_BYTES_MAX {
                self.open = false;
                break;
            }
        }
        commands
    }
}
