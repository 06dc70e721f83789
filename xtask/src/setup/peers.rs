//! Programs of others that ours are held against: Prometheus and Alertmanager, as Debian's testing has them. Unpacked
//! beside the build output and never installed: the machine's own packages stay as they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fault::{Context, Done, Fault};
use crate::shell;

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

/// The suite with current versions: semantics are those of Prometheus 3, and Debian 12 has 2.42.
const SUITE: &str = "testing";

/// The variables that name the programs. Where one cannot be had, its tests say that they did not run.
pub fn variables() -> Vec<(&'static str, PathBuf)> {
    let peers = [PROMETHEUS, PROMTOOL, ALERTMANAGER, AMTOOL];
    let directory = directory();
    if let Err(fault) = provide(&peers, &directory) {
        eprint!("note: nothing is compared with Prometheus and Alertmanager: {fault}");
    }
    let found = peers.into_iter().map(|peer| (peer.variable, directory.join(peer.program)));
    found.filter(|(_, program)| program.is_file()).collect()
}

fn directory() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_else(std::env::temp_dir).join("fairway-ci").join("peers")
}

fn provide(peers: &[Peer], directory: &Path) -> Done {
    let mut packages: Vec<&str> = peers
        .iter()
        .filter(|peer| std::env::var_os(peer.variable).is_none())
        .filter(|peer| !directory.join(peer.program).is_file())
        .map(|peer| peer.package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let mirror = mirror()?;
    let apt = directory.join("apt");
    for one in ["lists/partial", "cache/archives/partial"] {
        let path = apt.join(one);
        std::fs::create_dir_all(&path).context(path.display())?;
    }
    let sources = apt.join("sources.list");
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    std::fs::write(&sources, format!("deb [signed-by={keyring}] {mirror} {SUITE} main\n"))
        .context(sources.display())?;
    eprintln!("fetching {} of Debian {SUITE} into {}", packages.join(", "), directory.display());
    let run = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // Lists, archives and sources of its own: what the machine knows of its packages stays untouched.
        for (option, value) in [
            ("Dir::State::Lists", apt.join("lists")),
            ("Dir::Cache", apt.join("cache")),
            ("Dir::Etc::SourceList", sources.clone()),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Acquire::Languages", PathBuf::from("none")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        shell::run(command.arg("--quiet").args(arguments).current_dir(&apt))
    };
    run(&["update"])?;
    let mut download = vec!["download"];
    download.extend(&packages);
    run(&download)?;
    for archive in std::fs::read_dir(&apt).context(apt.display())?.flatten().map(|entry| entry.path()) {
        if archive.extension().is_some_and(|extension| extension == "deb") {
            shell::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(directory))?;
            std::fs::remove_file(&archive).context(archive.display())?;
        }
    }
    Ok(())
}

/// Where this machine gets Debian's packages from.
fn mirror() -> Done<String> {
    let asked = Command::new("apt-get")
        .args(["indextargets", "--format", "$(ORIGIN)|$(CREATED_BY)|$(REPO_URI)"])
        .stdin(Stdio::null())
        .output()
        .context("apt-get")?;
    let text = String::from_utf8_lossy(&asked.stdout).into_owned();
    let mut mirrors = text.lines().filter_map(|line| line.strip_prefix("Debian|Packages|"));
    mirrors
        .find(|mirror| !mirror.contains("security"))
        .map(str::to_owned)
        .ok_or_else(|| Fault::new("apt-get knows no mirror of Debian").hint("apt-get update"))
}
