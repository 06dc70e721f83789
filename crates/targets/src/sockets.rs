//! Who listens where, out of `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// TCP sockets on which one of these processes listens. What may not be read is left out.
pub(crate) fn listening(pids: impl IntoIterator<Item = i32>) -> Vec<SocketAddr> {
    let inodes: BTreeSet<u64> = pids.into_iter().flat_map(socket_inodes).collect();
    let mut found: BTreeSet<SocketAddr> = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(table) = fs::File::open(table) else { continue };
        found.extend(
            listeners(BufReader::new(table)).filter(|(_, inode)| inodes.contains(inode)).map(|(at, _)| at),
        );
    }
    found.into_iter().collect()
}

fn socket_inodes(pid: i32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Listeners come first in the table. What follows is not read: a machine with a busy proxy has ten thousands of connections
/// that ended within the last minute, and for those the kernel takes a tenth of a second.
fn listeners(table: impl BufRead) -> impl Iterator<Item = (SocketAddr, u64)> {
    table.lines().skip(1).map_while(|line| listener(&line.ok()?))
}

/// A line of `/proc/net/tcp` in state LISTEN (0A): local address and inode.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    // Groups of four bytes in the machine's own order.
    let words: Vec<u8> = address
        .as_bytes()
        .chunks(8)
        .map(|word| Some(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<Vec<_>>>()?
        .concat();
    let ip = match words.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(words).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?)),
    };
    Some((SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?), fields.get(9)?.parse().ok()?))
}

/// Whether a server could listen on this port of the loopback address now. The standard library sets
/// `SO_REUSEADDR`, so connections in TIME_WAIT do not count.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_behind_the_listeners_is_read() {
        struct Connections;
        impl std::io::Read for Connections {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("it went on reading");
            }
        }
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0\n\
             1: 0100007F:1F90 0100007F:C350 06 00000000:00000000 03:00000F1E 00000000     0        0 0 3 0\n";
        let found: Vec<_> =
            listeners(BufReader::new(std::io::Read::chain(table.as_bytes(), Connections))).collect();
        assert_eq!(found, [(SocketAddr::from(([127, 0, 0, 1], 8080)), 77)]);
    }

    #[test]
    fn this_process_is_found_on_the_ports_it_listens_on() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let (a, b) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").ok());
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let found = listening([own]);
        assert!(found.contains(&a.local_addr().unwrap()), "{found:?}");
        assert!(b.is_none_or(|b| found.contains(&b.local_addr().unwrap())), "{found:?}");
        assert!(!is_free(a.local_addr().unwrap().port()));
        assert!(v4.is_ok());
    }
}
