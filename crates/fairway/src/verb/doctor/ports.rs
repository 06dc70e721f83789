//! An address: free, ours, or somebody else's.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::{Finding, Level};

/// `ours` is whether our own proxy listens there.
#[must_use]
pub fn look(environment: &str, address: &str, ours: bool) -> Finding {
    let what = format!("{environment}: {address}");
    let Ok(socket) = address.parse::<SocketAddr>() else {
        return Finding::new(Level::Fail, what, "is not an address").hint("listen = \"0.0.0.0:80\"");
    };
    if ours {
        return Finding::new(Level::Ok, what, "the proxy listens");
    }
    match TcpListener::bind(socket) {
        Ok(_) => Finding::new(Level::Ok, what, "free"),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let by = holder(socket.port()).map(|by| format!(" by {by}")).unwrap_or_default();
            Finding::new(Level::Fail, what, format!("taken{by}"))
                .hint("end it, or choose another with listen = …")
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::new(Level::Fail, what, "ports below 1024 are for root here")
                .hint("sysctl net.ipv4.ip_unprivileged_port_start=80, or `sudo fairway server install`")
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            Finding::new(Level::Fail, what, "this machine has no such address")
                .hint("listen = \"0.0.0.0:80\"")
        }
        Err(error) => Finding::new(Level::Fail, what, error.to_string()),
    }
}

/// Who listens on a port, as far as this user may know.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listeners(&table, port))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = descriptors
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == format!("socket:[{inode}]").as_str()));
        if has {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// Inodes of the sockets of `/proc/net/tcp` that listen (state 0A) on a port.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let local = fields.nth(1)?;
            let state = fields.nth(1)?;
            let inode = fields.nth(5)?;
            (local.ends_with(&suffix) && state == "0A").then(|| inode.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_who_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let finding = look("dev", &address.to_string(), false);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.detail.contains(&format!("pid {}", std::process::id())), "{}", finding.detail);
        assert_eq!(look("dev", &address.to_string(), true).level, Level::Ok, "our own proxy");
        drop(listener);
        assert_eq!(look("dev", &address.to_string(), false).level, Level::Ok);
    }

    #[test]
    fn what_is_no_address_fails() {
        assert_eq!(look("dev", "localhost", false).level, Level::Fail);
        assert_eq!(look("dev", "192.0.2.1:8080", false).level, Level::Fail, "not of this machine");
    }
}
