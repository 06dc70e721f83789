//! Debian's packages, downloaded and unpacked and never installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fault::{Context, Done, Fault};
use crate::shell;

/// The suite with current versions: semantics are those of Prometheus 3, and Debian 12 has 2.42.
const SUITE: &str = "testing";

/// Lists, archives, sources and a state of its own: what the machine knows of its packages stays untouched, and
/// nothing of it is taken to be there.
#[derive(Debug)]
pub struct Apt {
    directory: PathBuf,
}

/// What is fetched beside the packages that were named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    Nothing,
    /// All that they depend on, down to the C library: for programs that the machine's own libraries are too old for.
    Dependencies,
}

impl Apt {
    /// Keeps its files in this directory.
    pub fn new(directory: &Path) -> Done<Apt> {
        let apt = Apt { directory: directory.join("apt") };
        for one in ["lists/partial", "cache/archives/partial", "state"] {
            let path = apt.path(one);
            std::fs::create_dir_all(&path).context(path.display())?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let source = format!("deb [signed-by={keyring}] {} {SUITE} main\n", mirror()?);
        for (name, text) in [("sources.list", source.as_str()), ("state/status", "")] {
            let path = apt.path(name);
            std::fs::write(&path, text).context(path.display())?;
        }
        Ok(apt)
    }

    /// Downloads the packages and unpacks them into `into`.
    pub fn unpack(&self, packages: &[&str], with: With, into: &Path) -> Done {
        eprintln!("fetching {} of Debian {SUITE} into {}", packages.join(", "), into.display());
        shell::aside(self.command().arg("update"))?;
        let archives = match with {
            With::Nothing => {
                shell::aside(self.command().arg("download").args(packages))?;
                self.directory.clone()
            }
            With::Dependencies => {
                let mut command = self.command();
                shell::aside(command.args(["--yes", "--download-only", "install"]).args(packages))?;
                self.path("cache/archives")
            }
        };
        std::fs::create_dir_all(into).context(into.display())?;
        for archive in std::fs::read_dir(&archives).context(archives.display())?.flatten() {
            let archive = archive.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                let unpacked = Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(into).status();
                if !unpacked.context("dpkg-deb")?.success() {
                    return Err(Fault::new(format!("{} cannot be unpacked", archive.display())));
                }
                std::fs::remove_file(&archive).context(archive.display())?;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        for (option, value) in [
            ("Dir::State", self.path("state")),
            ("Dir::State::status", self.path("state/status")),
            ("Dir::State::Lists", self.path("lists")),
            ("Dir::Cache", self.path("cache")),
            ("Dir::Etc::SourceList", self.path("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::Etc::Preferences", PathBuf::from("/dev/null")),
            ("Dir::Etc::PreferencesParts", PathBuf::from("/dev/null")),
            ("Acquire::Languages", PathBuf::from("none")),
            ("APT::Install-Recommends", PathBuf::from("false")),
            // The lock that it would take is the machine's, and needs root.
            ("Debug::NoLocking", PathBuf::from("true")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        // What a program may read of ours on stdout are figures.
        command.arg("--quiet").current_dir(&self.directory).stdout(std::io::stderr());
        command
    }
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
