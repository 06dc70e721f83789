//! Programs of others that ours are held against: Prometheus and Alertmanager, an authority for certificates, and
//! proxies, as Debian's testing has them. Unpacked beside the build output and never installed: the machine's own
//! packages stay as they are.

mod apt;
pub mod edge;

use std::path::{Path, PathBuf};

use crate::fault::Done;
use apt::{Apt, With};

#[derive(Debug, Clone, Copy)]
pub struct Peer {
    package: &'static str,
    /// Below the directory in which the package was unpacked.
    program: &'static str,
    /// Tests find the program by this variable.
    variable: &'static str,
}

pub const PROMETHEUS: Peer =
    Peer { package: "prometheus", program: "usr/bin/prometheus", variable: "FAIRWAY_PROMETHEUS" };
pub const PROMTOOL: Peer =
    Peer { package: "promtool", program: "usr/bin/promtool", variable: "FAIRWAY_PROMTOOL" };
pub const ALERTMANAGER: Peer = Peer {
    package: "prometheus-alertmanager",
    program: "usr/bin/prometheus-alertmanager",
    variable: "FAIRWAY_ALERTMANAGER",
};
pub const AMTOOL: Peer =
    Peer { package: "prometheus-alertmanager", program: "usr/bin/amtool", variable: "FAIRWAY_AMTOOL" };
/// An authority for certificates.
pub const PEBBLE: Peer = Peer { package: "pebble", program: "usr/bin/pebble", variable: "FAIRWAY_PEBBLE" };

/// The variables that name the programs. Where one cannot be had, its tests say that they did not run.
pub fn variables() -> Vec<(&'static str, PathBuf)> {
    let peers = [PROMETHEUS, PROMTOOL, ALERTMANAGER, AMTOOL, PEBBLE];
    let directory = directory();
    if let Err(fault) = provide(&peers, &directory) {
        eprint!("note: nothing is compared with programs of others: {fault}");
    }
    let found = peers.into_iter().map(|peer| (peer.variable, directory.join(peer.program)));
    found.filter(|(_, program)| program.is_file()).collect()
}

fn directory() -> PathBuf {
    cache().join("peers")
}

/// What was fetched stays for later runs.
fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_else(std::env::temp_dir).join("fairway-ci")
}

fn provide(peers: &[Peer], directory: &Path) -> Done {
    let mut packages: Vec<&str> = peers
        .iter()
        .filter(|peer| std::env::var_os(peer.variable).is_none())
        .filter(|peer| !directory.join(peer.program).is_file())
        .map(|peer| peer.package)
        .collect();
    packages.dedup();
    match packages.is_empty() {
        true => Ok(()),
        false => Apt::new(directory)?.unpack(&packages, With::Nothing, directory),
    }
}
