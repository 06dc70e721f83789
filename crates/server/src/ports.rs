//! Loopback ports that Fairway itself listens on: one for each service that others call, one for each preview.
//! Remembered in a file, because a port that changed with every start would change the environment of the services.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Outside the kernel's ephemeral range (32768 on), beside the range that instances get theirs from (20000 on).
const RANGE: std::ops::Range<u16> = 18_000..20_000;

#[derive(Debug)]
pub struct Ports {
    path: PathBuf,
    given: Mutex<BTreeMap<String, u16>>,
}

impl Ports {
    /// A file that cannot be read is made anew: the ports are only a convenience.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let given = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path, given: Mutex::new(given.unwrap_or_default()) }
    }

    /// Gives back the ports of what is no longer there. Forgetting to costs a port, doing it too early would move one:
    /// so it is written down with the next port that is given, not before.
    pub fn retain(&self, is_needed: impl Fn(&str) -> bool) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).retain(|what, _| is_needed(what));
    }

    /// The address of `what`, the same on every call.
    ///
    /// # Errors
    /// When no port is free, or the choice cannot be written down.
    pub fn address(&self, what: &str) -> std::io::Result<SocketAddr> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Some(port) = given.get(what) {
            return Ok(at(*port));
        }
        // Two servers on one machine start their search at different places, so that they rarely meet.
        let offset = u16::try_from(std::process::id() % u32::from(RANGE.end - RANGE.start)).unwrap_or(0);
        let port = (0..RANGE.end - RANGE.start)
            .map(|step| RANGE.start + (offset + step) % (RANGE.end - RANGE.start))
            .filter(|port| !given.values().any(|other| other == port))
            .find(|port| TcpListener::bind(at(*port)).is_ok())
            .ok_or_else(|| std::io::Error::other("no port between 18000 and 20000 is free"))?;
        given.insert(what.to_owned(), port);
        let temporary = self.path.with_extension("new");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&*given)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)?;
        Ok(at(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stays_the_same_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        let first = Ports::open(path.clone()).address("shop/dev/api").unwrap();
        let other = Ports::open(path.clone()).address("shop/dev/web").unwrap();
        assert_ne!(first, other);
        assert_eq!(Ports::open(path).address("shop/dev/api").unwrap(), first);
    }
}
