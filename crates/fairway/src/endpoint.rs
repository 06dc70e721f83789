//! Where the server is: said, or found.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use fairway_api::client::Endpoint;
use fairway_server::SOCKET_NAME;

use crate::problem::Problem;

/// The state directory of a project's private server.
pub const PRIVATE_DIR: &str = ".fairway";

/// `said` is `--server`, `state` is `--state`; without them a live private server of the project, then the
/// machine's own.
///
/// # Errors
/// When what was said is neither an address nor a path.
pub fn resolve(
    said: Option<&str>,
    state: Option<&Path>,
    project: Option<&Path>,
) -> Result<Endpoint, Problem> {
    if let Some(said) = said {
        return parse(said);
    }
    if let Some(state) = state {
        return Ok(Endpoint::Unix(state.join(SOCKET_NAME)));
    }
    let private = project.map(|root| root.join(PRIVATE_DIR).join(SOCKET_NAME));
    if let Some(private) = private
        && is_live(&private)
    {
        return Ok(Endpoint::Unix(private));
    }
    Ok(Endpoint::Unix(default_state_dir().join(SOCKET_NAME)))
}

fn parse(said: &str) -> Result<Endpoint, Problem> {
    let wrong = |why: &str| {
        Problem::usage(
            "usage/server",
            format!("{said:?} is not a server: {why}"),
            "http://127.0.0.1:7480, or the path of a socket such as /var/lib/fairway/fairway.sock",
        )
    };
    if said.starts_with("https://") {
        return Err(wrong("the API speaks HTTP on loopback; reach another machine through ssh -L"));
    }
    let Some(address) = said.strip_prefix("http://") else {
        let path = said.strip_prefix("unix:").unwrap_or(said);
        return if path.contains('/') || path.ends_with(".sock") {
            Ok(Endpoint::Unix(PathBuf::from(path)))
        } else {
            Err(wrong("it is neither http://HOST:PORT nor a path"))
        };
    };
    let address = address.trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            let token = std::env::var("FAIRWAY_TOKEN").ok().filter(|token| !token.is_empty());
            Ok(Endpoint::Tcp { address: address.to_owned(), token })
        }
        Some(_) | None => Err(wrong("it needs a host and a port")),
    }
}

/// The machine's own server for root, a person's own for everybody else.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/fairway");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(home)
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("fairway")
}

/// Whether somebody accepts connections at a socket; a file left over by a dead server does not.
#[must_use]
pub fn is_live(socket: &Path) -> bool {
    if UnixStream::connect(socket).is_ok() {
        return true;
    }
    // An address holds 107 bytes; a longer path goes through a descriptor of its directory.
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else { return false };
    let Ok(directory) = std::fs::File::open(directory) else { return false };
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_server_is_an_address_or_a_path() {
        assert_eq!(parse("/run/f.sock").unwrap(), Endpoint::Unix("/run/f.sock".into()));
        assert_eq!(parse("unix:/run/f").unwrap(), Endpoint::Unix("/run/f".into()));
        assert!(matches!(parse("http://127.0.0.1:7480/").unwrap(),
            Endpoint::Tcp { address, .. } if address == "127.0.0.1:7480"));
        for bad in ["production", "http://host", "http://:80", "https://a:1", "http://a:99999", ""] {
            let problem = parse(bad).unwrap_err();
            assert_eq!(problem.exit().code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn what_is_said_goes_before_what_is_found() {
        let endpoint = resolve(None, Some(Path::new("/s")), Some(Path::new("/p"))).unwrap();
        assert_eq!(endpoint, Endpoint::Unix("/s/fairway.sock".into()));
        let endpoint = resolve(Some("/x/y"), Some(Path::new("/s")), None).unwrap();
        assert_eq!(endpoint, Endpoint::Unix("/x/y".into()));
    }

    #[test]
    fn a_private_server_is_used_only_while_it_lives() {
        let project = tempfile::tempdir().unwrap();
        // Longer than the 107 bytes of an address.
        let root = project.path().join("x".repeat(120));
        let state = root.join(PRIVATE_DIR);
        std::fs::create_dir_all(&state).unwrap();
        let socket = state.join(SOCKET_NAME);
        let directory = std::fs::File::open(&state).unwrap();
        let short = format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd());
        let listener = UnixListener::bind(short).unwrap();
        assert_eq!(resolve(None, None, Some(&root)).unwrap(), Endpoint::Unix(socket.clone()));
        drop(listener);
        assert_ne!(resolve(None, None, Some(&root)).unwrap(), Endpoint::Unix(socket), "nobody listens");
    }
}
