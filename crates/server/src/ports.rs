//! Loopback ports that Fairway itself listens on: one for each service that others call, one for each preview.
//! Remembered in a file, because a port that changed with every start would change the environment of the services.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Outside the kernel's ephemeral range (32768 on), beside the range that instances get theirs from (20000 on).
const RANGE: std::ops::Range<u16> = 12_000..20_000;

#[derive(Debug)]
pub struct Ports {
    path: PathBuf,
    /// Where the search starts. A port is only held once the proxy listens on it, so two servers on one machine that
    /// search at the same moment must start at different places.
    first: u16,
    given: Mutex<BTreeMap<String, u16>>,
    /// Where environments want to listen themselves, which may be in our range.
    wanted: Mutex<BTreeSet<u16>>,
}

impl Ports {
    /// A file that cannot be read is made anew: the ports are only a convenience.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let given = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let first = u16::try_from(hasher.finish() % u64::from(RANGE.end - RANGE.start)).unwrap_or(0);
        Self { path, first, given: Mutex::new(given.unwrap_or_default()), wanted: Mutex::default() }
    }

    /// Gives back the ports of what is no longer there. Forgetting to costs a port, doing it too early would move one:
    /// so it is written down with the next port that is given, not before.
    pub fn retain(&self, is_needed: impl Fn(&str) -> bool) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).retain(|what, _| is_needed(what));
    }

    /// Somebody else holds the port of `what`: the next call gives another.
    pub fn forget(&self, what: &str) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// An environment wants to listen there: the port is given to nobody, and taken from whoever has it.
    pub fn leave(&self, port: u16) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        self.given.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, given| *given != port);
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
        let offset = self.first;
        let port = (0..RANGE.end - RANGE.start)
            .map(|step| RANGE.start + (offset + step) % (RANGE.end - RANGE.start))
            .filter(|port| !given.values().any(|other| other == port))
            .filter(|port| !self.wanted.lock().unwrap_or_else(PoisonError::into_inner).contains(port))
            .find(|port| TcpListener::bind(at(*port)).is_ok())
            .ok_or_else(|| std::io::Error::other("no port between 12000 and 20000 is free"))?;
        given.insert(what.to_owned(), port);
        if let Err(error) = self.save(&given) {
            // One that the next server does not know of would move under the services that were told it.
            given.remove(what);
            return Err(error);
        }
        Ok(at(port))
    }

    fn save(&self, given: &BTreeMap<String, u16>) -> std::io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(given)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_cannot_be_written_down_is_not_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone").join("ports.json");
        let ports = Ports::open(path.clone());
        ports.address("shop/dev/api").unwrap_err();
        ports.address("shop/dev/api").expect_err("not from memory either: the next server would not know it");
        std::fs::create_dir(dir.path().join("gone")).unwrap();
        let given = ports.address("shop/dev/api").unwrap();
        assert_eq!(Ports::open(path).address("shop/dev/api").unwrap(), given);
    }

    #[test]
    fn a_port_that_an_environment_wants_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::open(dir.path().join("ports.json"));
        let first = ports.address("shop/dev/api").unwrap();
        ports.leave(first.port());
        let second = ports.address("shop/dev/api").unwrap();
        assert_ne!(first, second);
        assert_ne!(ports.address("shop/dev/web").unwrap(), first);
        assert_eq!(ports.address("shop/dev/api").unwrap(), second);
    }

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
