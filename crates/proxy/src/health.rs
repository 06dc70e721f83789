//! Active health checks: one task per instance, on the control thread.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::codec::{HeadScan, RESPONSE_HEAD_BYTES_MAX, ResponseHead, header_storage};
use crate::endpoint::{Endpoint, Health};
use crate::snapshot::{ActiveHealth, Protocol, Snapshot};
use crate::table::Table;

/// An instance's health changed.
#[derive(Debug)]
pub(crate) struct Change {
    pub endpoint: Arc<Endpoint>,
    pub healthy: bool,
    pub reason: String,
}

/// Counts checks in a row; the only place where a checked instance changes its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streak {
    /// The first check decides alone.
    First,
    Healthy {
        failed: u32,
    },
    Unhealthy {
        passed: u32,
    },
}

impl Streak {
    /// The next state, and whether the health changed with it.
    fn next(self, passed: bool, rise: u32, fall: u32) -> (Self, bool) {
        match (self, passed) {
            (Self::First, true) => (Self::Healthy { failed: 0 }, true),
            (Self::First, false) => (Self::Unhealthy { passed: 0 }, true),
            (Self::Healthy { .. }, true) => (Self::Healthy { failed: 0 }, false),
            (Self::Healthy { failed }, false) if failed + 1 >= fall => (Self::Unhealthy { passed: 0 }, true),
            (Self::Healthy { failed }, false) => (Self::Healthy { failed: failed + 1 }, false),
            (Self::Unhealthy { .. }, false) => (Self::Unhealthy { passed: 0 }, false),
            (Self::Unhealthy { passed }, true) if passed + 1 >= rise => (Self::Healthy { failed: 0 }, true),
            (Self::Unhealthy { passed }, true) => (Self::Unhealthy { passed: passed + 1 }, false),
        }
    }

    fn of(health: Health) -> Self {
        match health {
            Health::Unchecked => Self::First,
            Health::Healthy => Self::Healthy { failed: 0 },
            Health::Unhealthy => Self::Unhealthy { passed: 0 },
        }
    }
}

/// The running checks.
#[derive(Debug)]
pub(crate) struct Checks {
    /// By endpoint.
    running: HashMap<u64, (ActiveHealth, Protocol, AbortHandle)>,
    changes: mpsc::Sender<Change>,
}

impl Checks {
    pub(crate) fn new(changes: mpsc::Sender<Change>) -> Self {
        Self { running: HashMap::new(), changes }
    }

    /// Starts and stops checks so that they fit the table; unchanged ones keep their count.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, table: &Table) {
        let mut wanted = HashMap::new();
        for service in &table.services {
            let health = snapshot.services.get(&service.key).and_then(|service| service.health.as_ref());
            for endpoint in service.versions.iter().flat_map(|version| &version.endpoints) {
                if let Some(health) = health {
                    wanted.insert(endpoint.uid, (health, service.protocol, endpoint));
                }
            }
        }
        self.running.retain(|uid, (health, protocol, task)| {
            let stays =
                wanted.get(uid).is_some_and(|(wanted, spoken, _)| *wanted == health && spoken == protocol);
            if !stays {
                task.abort();
            }
            stays
        });
        for (uid, (health, protocol, endpoint)) in wanted {
            self.running.entry(uid).or_insert_with(|| {
                let task = watch(Arc::clone(endpoint), health.clone(), protocol, self.changes.clone());
                (health.clone(), protocol, tokio::spawn(task).abort_handle())
            });
        }
    }
}

async fn watch(
    endpoint: Arc<Endpoint>,
    health: ActiveHealth,
    protocol: Protocol,
    changes: mpsc::Sender<Change>,
) {
    let mut streak = Streak::of(endpoint.health());
    loop {
        let timeout = Duration::from_millis(health.timeout_ms);
        let checking = async {
            match protocol {
                Protocol::Http1 => check(endpoint.addr, &health.path).await,
                Protocol::H2c => crate::h2::client::check::check(endpoint.addr, &health.path).await,
            }
        };
        let result = match tokio::time::timeout(timeout, checking).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} ms", health.timeout_ms)),
        };
        let (next, changed) = streak.next(result.is_ok(), health.rise, health.fall);
        streak = next;
        if changed {
            let healthy = matches!(streak, Streak::Healthy { .. });
            endpoint.set_health(if healthy { Health::Healthy } else { Health::Unhealthy });
            let reason = result.unwrap_or_else(|problem| problem);
            let change = Change { endpoint: Arc::clone(&endpoint), healthy, reason };
            if changes.send(change).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(health.interval_ms)).await;
    }
}

/// One check: what it found, or what is wrong.
async fn check(addr: SocketAddr, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(addr).await.map_err(|error| format!("cannot connect: {error}"))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {addr}\r\nuser-agent: fairway-health\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("cannot send: {error}"))?;
    let mut buf = Vec::new();
    let mut scan = HeadScan::default();
    let end = loop {
        match scan.response(&buf) {
            Ok(Some((_, end))) => break end,
            Ok(None) if buf.len() < RESPONSE_HEAD_BYTES_MAX => {}
            Ok(None) | Err(_) => return Err("the answer is not HTTP".to_owned()),
        }
        match stream.read_buf(&mut buf).await {
            Ok(0) => return Err("the connection was closed without an answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("cannot read: {error}")),
        }
    };
    let mut storage = header_storage();
    let head = ResponseHead::parse(&buf[..end], &mut storage, "GET").map_err(|error| error.to_string())?;
    match head.status {
        200..=399 => Ok(format!("status {}", head.status)),
        status => Err(format!("status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_and_fall_keep_health_from_flapping() {
        let run = |results: &str| {
            let mut streak = Streak::First;
            let mut text = String::new();
            for result in results.chars() {
                streak = streak.next(result == '+', 2, 3).0;
                text.push(if matches!(streak, Streak::Healthy { .. }) { 'H' } else { 'u' });
            }
            text
        };
        assert_eq!(run("+"), "H");
        assert_eq!(run("-"), "u");
        assert_eq!(run("+--+--+---"), "HHHHHHHHHu");
        assert_eq!(run("-+-+-++-"), "uuuuuuHH");
    }
}
