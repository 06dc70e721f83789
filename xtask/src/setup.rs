//! What the tests and the demo need besides Rust, and how it gets here.

pub mod peers;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fault::{Done, Fault};
use crate::shell;

/// A program that the examples or tests start.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    name: &'static str,
    /// What it tells its version by.
    asked: &'static str,
    /// Oldest version that works, major and minor.
    version_min: (u32, u32),
    /// Debian and Ubuntu.
    packages: &'static [&'static str],
    why: &'static str,
}

/// 18 and 3.11 are what Debian 12 has, and what the example shop is tested with or above.
pub const NODE: Tool = Tool {
    name: "node",
    asked: "--version",
    version_min: (18, 0),
    packages: &["nodejs"],
    why: "the web front of examples/shop",
};
pub const PYTHON: Tool = Tool {
    name: "python3",
    asked: "--version",
    version_min: (3, 11),
    packages: &["python3"],
    why: "the API and the worker of examples/shop",
};
pub const POSTGRES: Tool = Tool {
    name: "postgres",
    asked: "--version",
    version_min: (13, 0),
    packages: &["postgresql"],
    why: "the test of `uses = \"postgres\"`",
};

/// 3.0 is what Debian 12 has.
pub const OPENSSL: Tool = Tool {
    name: "openssl",
    asked: "version",
    version_min: (3, 0),
    packages: &["openssl"],
    why: "the test that TLS is spoken with another implementation",
};

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Good,
    Old(String),
    Missing,
}

impl Tool {
    /// On the search path, or where Debian puts the servers that it does not put there.
    fn program(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        std::env::split_paths(&path)
            .chain(versions.map(|version| version.path().join("bin")))
            .map(|directory| directory.join(self.name))
            .find(|program| program.is_file())
    }

    fn look(&self) -> Found {
        let Some(program) = self.program() else { return Found::Missing };
        let output = Command::new(program).arg(self.asked).stdin(Stdio::null()).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        match text {
            Ok(text) if version(&text).is_some_and(|version| version >= self.version_min) => Found::Good,
            Ok(text) => Found::Old(text),
            Err(_) => Found::Missing,
        }
    }
}

/// The same for a tool without which a test checks less: when it cannot be had, that is said and no failure.
pub fn wish(tool: Tool) {
    if let Err(fault) = ensure(&[tool]) {
        eprint!("note: {} is not run: {fault}", tool.why);
    }
}

/// Makes sure that the tools are there: installs Debian's packages as root, otherwise says what to install.
pub fn ensure(tools: &[Tool]) -> Done {
    let wanting: Vec<&Tool> = tools.iter().filter(|tool| tool.look() != Found::Good).collect();
    if wanting.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = wanting.iter().flat_map(|tool| tool.packages).copied().collect();
    if is_root() && Path::new("/usr/bin/apt-get").is_file() {
        eprintln!("installing {}", packages.join(", "));
        install(&packages)?;
    }
    let still: Vec<String> = wanting
        .iter()
        .filter_map(|tool| {
            let needs = format!(
                "{} {}.{} or newer for {}",
                tool.name, tool.version_min.0, tool.version_min.1, tool.why
            );
            match tool.look() {
                Found::Good => None,
                Found::Missing => Some(format!("{needs}; there is none")),
                Found::Old(version) => Some(format!("{needs}; this is {version:?}")),
            }
        })
        .collect();
    if still.is_empty() {
        return Ok(());
    }
    Err(Fault::new(format!("needed and not here:\n  {}", still.join("\n  ")))
        .hint(format!("on Debian or Ubuntu: apt-get install {}", packages.join(" "))))
}

fn install(packages: &[&str]) -> Done {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        shell::aside(&mut command)
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    // The list of packages may be old or absent; only then is it fetched.
    if apt(&arguments).is_err() {
        apt(&["update"])?;
        apt(&arguments)?;
    }
    Ok(())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// The first `12.3` or `v20.1.0` in a program's answer to `--version`.
fn version(text: &str) -> Option<(u32, u32)> {
    let word = text.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches('v');
        word.starts_with(|c: char| c.is_ascii_digit()).then_some(word)
    })?;
    let mut numbers = word.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    Some((numbers.next()?, numbers.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_tools_tell_them() {
        assert_eq!(version("v20.20.2"), Some((20, 20)));
        assert_eq!(version("Python 3.11.7"), Some((3, 11)));
        assert_eq!(version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some((15, 14)));
        assert_eq!(version("OpenSSL 3.0.19 27 Jan 2026 (Library: OpenSSL 3.0.19 27 Jan 2026)"), Some((3, 0)));
        assert_eq!(version("no number"), None);
    }

    #[test]
    fn a_tool_that_is_nowhere_is_missing() {
        let tool = Tool {
            name: "no-such-tool-at-all",
            asked: "--version",
            version_min: (1, 0),
            packages: &[],
            why: "a test",
        };
        assert_eq!(tool.look(), Found::Missing);
        let old =
            Tool { name: "sh", asked: "--version", version_min: (u32::MAX, 0), packages: &[], why: "a test" };
        assert_ne!(old.look(), Found::Good);
    }
}
