//! Ports for instances, out of a range that the kernel does not use for outgoing connections.

use std::collections::BTreeSet;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::sockets::is_free;

/// First and last port, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl Default for PortRange {
    /// Below 32768, where Linux begins to hand out ports by itself: a port of that range could be taken by somebody's
    /// outgoing connection between the choice and the start.
    fn default() -> Self {
        Self { first: 20_000, last: 29_999 }
    }
}

#[derive(Debug)]
pub(crate) struct Ports {
    range: PortRange,
    reserved: BTreeSet<u16>,
    next: u16,
}

impl Ports {
    /// Starts at `seed` within the range, so that two servers on one machine rarely try the same port first.
    pub(crate) fn new(range: PortRange, reserved: BTreeSet<u16>, seed: u32) -> Self {
        let last = range.last.max(range.first);
        let size = u32::from(last - range.first) + 1;
        let offset = u16::try_from(seed % size).unwrap_or(0);
        Self { range: PortRange { last, ..range }, reserved, next: range.first + offset }
    }

    /// The next port that nobody of ours has and on which nobody listens. A port is not used again before the whole
    /// range has been, so that a late request to a stopped instance does not reach another one.
    pub(crate) fn take(&mut self) -> Option<u16> {
        let size = u32::from(self.range.last - self.range.first) + 1;
        for _ in 0..size {
            let port = self.next;
            self.next = if port >= self.range.last { self.range.first } else { port + 1 };
            if !self.reserved.contains(&port) && is_free(port) {
                self.reserved.insert(port);
                return Some(port);
            }
        }
        None
    }

    pub(crate) fn reserve(&mut self, port: u16) {
        self.reserved.insert(port);
    }

    pub(crate) fn release(&mut self, port: u16) {
        self.reserved.remove(&port);
    }
}

/// Says to every other shim on the machine, of whichever server, that this port is being used. Between the choice of
/// a port and the moment in which the application listens two of them would both find it free, and the one that
/// came second would be found ready by the answers of the first.
///
/// An abstract socket: its names are shared by exactly those who share ports (a network namespace), only one can
/// have each, and the kernel takes it back however its holder ends.
#[derive(Debug)]
pub(crate) struct PortClaim {
    pub(crate) port: u16,
    _socket: UnixDatagram,
}

impl PortClaim {
    /// None when somebody else has it.
    pub(crate) fn take(port: u16) -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("fairway/port/{port}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => Ok(Some(Self { port, _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_are_passed_over_and_the_end_of_the_range_is_an_answer() {
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = stranger.local_addr().unwrap().port();
        let range = PortRange { first: busy, last: busy };
        assert_eq!(Ports::new(range, BTreeSet::new(), 7).take(), None);
        drop(stranger);
        let mut ports = Ports::new(range, BTreeSet::new(), 7);
        assert_eq!((ports.take(), ports.take()), (Some(busy), None));
        ports.release(busy);
        assert_eq!(ports.take(), Some(busy));
        assert_eq!(Ports::new(range, [busy].into(), 0).take(), None);
    }

    #[test]
    fn a_claim_is_had_by_one_and_comes_back() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let claim = PortClaim::take(port).unwrap();
        assert!(claim.is_some());
        assert!(PortClaim::take(port).unwrap().is_none());
        drop(claim);
        assert!(PortClaim::take(port).unwrap().is_some());
    }
}
