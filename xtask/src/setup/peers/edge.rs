//! The proxies that ours is held against. With every library that they need, the C library included, so that they run
//! on machines that are older than they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::apt::{Apt, With};
use super::cache;
use crate::fault::{Context, Done, Fault};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    Nginx,
    Haproxy,
    Caddy,
}

/// A program that can be run.
#[derive(Debug, Clone)]
pub struct Program {
    pub edge: Edge,
    pub version: String,
    path: PathBuf,
    /// The dynamic loader and the directory of the libraries, where they are not the machine's own.
    loader: Option<(PathBuf, PathBuf)>,
}

impl Edge {
    pub const ALL: [Edge; 3] = [Edge::Nginx, Edge::Haproxy, Edge::Caddy];

    /// Also that of its package.
    pub fn name(self) -> &'static str {
        match self {
            Edge::Nginx => "nginx",
            Edge::Haproxy => "haproxy",
            Edge::Caddy => "caddy",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Edge::Nginx => "usr/sbin/nginx",
            Edge::Haproxy => "usr/sbin/haproxy",
            Edge::Caddy => "usr/bin/caddy",
        }
    }

    /// Names a program that is to be taken instead of Debian's.
    fn variable(self) -> &'static str {
        match self {
            Edge::Nginx => "FAIRWAY_NGINX",
            Edge::Haproxy => "FAIRWAY_HAPROXY",
            Edge::Caddy => "FAIRWAY_CADDY",
        }
    }

    /// The program that a variable names, that of Debian testing, or the one that is installed.
    pub fn find(self, unpacked: &Done<PathBuf>) -> Done<Program> {
        if let Some(path) = std::env::var_os(self.variable()) {
            return self.checked(PathBuf::from(path), None);
        }
        let fault = match unpacked.as_ref().map(|root| self.checked(root.join(self.program()), loader(root)))
        {
            Ok(Ok(program)) => return Ok(program),
            Ok(Err(fault)) => fault,
            Err(fault) => fault.again(),
        };
        let installed = Path::new("/").join(self.program());
        if !installed.is_file() {
            return Err(fault);
        }
        let program = self.checked(installed, None)?;
        eprint!(
            "note: {} {} is the one installed here, not the newest: {fault}",
            self.name(),
            program.version
        );
        Ok(program)
    }

    fn checked(self, path: PathBuf, loader: Option<(PathBuf, PathBuf)>) -> Done<Program> {
        let mut program = Program { edge: self, version: String::new(), path, loader };
        let mut command = program.command();
        command.arg(if self == Edge::Caddy { "version" } else { "-v" }).stdin(Stdio::null());
        let output = command.output().context(program.path.display())?;
        let text = [output.stdout, output.stderr].concat();
        let version = version(&String::from_utf8_lossy(&text));
        program.version =
            version.ok_or_else(|| Fault::new(format!("{} says no version", program.path.display())))?;
        Ok(program)
    }
}

impl Program {
    /// One path that starts it, with its own loader where it needs that.
    fn launcher(&self) -> Done<PathBuf> {
        let Some((loader, libraries)) = &self.loader else { return Ok(self.path.clone()) };
        let path = cache().join("edge").join(format!("start-{}", self.edge.name()));
        let (loader, libraries) = (loader.display(), libraries.display());
        let program = self.path.display();
        let text = format!("#!/bin/sh\nexec '{loader}' --library-path '{libraries}' '{program}' \"$@\"\n");
        std::fs::write(&path, text).context(path.display())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).context(path.display())?;
        Ok(path)
    }

    pub fn command(&self) -> Command {
        match &self.loader {
            None => Command::new(&self.path),
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(libraries).arg(&self.path);
                command
            }
        }
    }
}

/// The variables by which tests find proxies to be held against, and what they name.
pub fn variables() -> Vec<(&'static str, PathBuf)> {
    let wanted =
        [Edge::Nginx, Edge::Haproxy].into_iter().filter(|edge| std::env::var_os(edge.variable()).is_none());
    let wanted: Vec<Edge> = wanted.collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let unpacked = unpack();
    let found =
        wanted.into_iter().filter_map(|edge| match edge.find(&unpacked).and_then(|it| it.launcher()) {
            Ok(path) => Some((edge.variable(), path)),
            Err(fault) => {
                eprint!("note: nothing is compared with {}: {fault}", edge.name());
                None
            }
        });
    found.collect()
}

/// The first word that begins with two numbers: `nginx/1.30.6`, `HAProxy version 3.2.26-1 2026/10/14`, `v2.11.4 h1:…`.
fn version(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '/').map(|word| word.trim_start_matches('v'));
    let mut versions = words.filter(|word| {
        let mut parts = word.split('.');
        let mut is_number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok());
        is_number() && is_number()
    });
    versions.next().map(|word| word.split('-').next().unwrap_or(word).to_owned())
}

fn loader(root: &Path) -> Option<(PathBuf, PathBuf)> {
    let directories = std::fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
    directories.map(|directory| directory.path()).find_map(|directory| {
        let mut files = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        let loader = files.find(|file| file.file_name().to_string_lossy().starts_with("ld-linux-"))?;
        Some((loader.path(), directory))
    })
}

/// The directory that all of them were unpacked into.
pub fn unpack() -> Done<PathBuf> {
    let root = cache().join("edge");
    if Edge::ALL.iter().all(|edge| root.join(edge.program()).is_file()) {
        return Ok(root);
    }
    let packages = Edge::ALL.map(Edge::name);
    Apt::new(&root)?.unpack(&packages, With::Dependencies, &root)?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say_of_themselves() {
        let check = |text: &str, expect: &str| assert_eq!(version(text).as_deref(), Some(expect), "{text}");
        check("nginx version: nginx/1.30.6\n", "1.30.6");
        check("HAProxy version 3.2.26-1 2026/10/14 - https://haproxy.org/\n", "3.2.26");
        check("v2.11.4 h1:Z1x=\n", "2.11.4");
        check("2.11.4\n", "2.11.4");
        assert_eq!(version("no such option: -v"), None);
    }
}
