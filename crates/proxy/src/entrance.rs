//! A listener made ready for connections: who they are, and what is spoken before the first request.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::certificates::{self, CertificateError};
use crate::limits::Limits;
use crate::snapshot::{Listener, Purpose, Snapshot};
use crate::tickets::Tickets;

#[derive(Debug)]
pub(crate) struct Entrance {
    pub purpose: Purpose,
    pub tls: Option<Arc<ServerConfig>>,
    pub proxy_protocol: bool,
    pub limits: Limits,
    /// Connections of one client.
    pub per_client_max: Option<u32>,
    /// HTTP/2 is neither offered nor taken.
    pub http1_only: bool,
    trusted: Vec<Network>,
}

/// By address: a listener that is given another name stays the same.
pub(crate) type Entrances = BTreeMap<SocketAddr, Arc<Entrance>>;

impl Entrance {
    /// Whether what this peer forwards about its clients is believed.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }

    /// Whether this peer may say whose connection it passes on. Without a list, whoever reaches a listener with PROXY
    /// protocol is a balancer.
    pub(crate) fn may_introduce(&self, peer: IpAddr) -> bool {
        self.trusted.is_empty() || self.trusts(peer)
    }
}

/// What to do about certificates that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    Refuse,
    /// The others are served: a saved snapshot has no one who could be told.
    LeaveOut,
}

/// The listeners of a snapshot that is valid.
///
/// # Errors
/// The name of a listener whose certificates cannot be used, and why.
pub(crate) fn entrances(
    snapshot: &Snapshot,
    tickets: &Tickets,
    unusable: Unusable,
    usual: &Limits,
) -> Result<Entrances, (String, CertificateError)> {
    let mut entrances = Entrances::new();
    for listener in &snapshot.listeners {
        let tls = match &listener.tls {
            None => None,
            Some(tls) => {
                let mut tls = tls.clone();
                if unusable == Unusable::LeaveOut {
                    tls.certificates.retain(|certificate| match certificates::check(certificate) {
                        Ok(()) => true,
                        Err(error) => {
                            eprintln!(
                                "fairway proxy: listener {:?} goes on without a certificate: {error}",
                                listener.name
                            );
                            false
                        }
                    });
                }
                let config = certificates::server_config(&tls, listener.limits.http1_only, tickets);
                Some(Arc::new(config.map_err(|error| (listener.name.clone(), error))?))
            }
        };
        entrances.insert(listener.addr, Arc::new(Entrance::of(listener, tls, usual)));
    }
    Ok(entrances)
}

impl Entrance {
    fn of(listener: &Listener, tls: Option<Arc<ServerConfig>>, usual: &Limits) -> Self {
        Self {
            purpose: listener.purpose,
            tls,
            proxy_protocol: listener.proxy_protocol,
            limits: usual.of_listener(&listener.limits),
            per_client_max: listener.limits.per_client_max,
            http1_only: listener.limits.http1_only,
            trusted: listener.trusted_proxies.iter().filter_map(|text| text.parse().ok()).collect(),
        }
    }
}

/// Addresses that share their first bits: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let shared =
            |own: u128, other: u128, width: u8| self.bits == 0 || (own ^ other) >> (width - self.bits) == 0;
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => shared(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => shared(own.to_bits(), other.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        if bits > width { Err(()) } else { Ok(Self { address, bits }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_shares_their_bits() {
        let check = |network: &str, address: &str, expect: bool| {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expect, "{network:?} {address}");
        };
        check("10.0.0.0/8", "10.255.1.2", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.6", false);
        check("2001:db8::/32", "2001:db8:ffff::1", true);
        check("::/0", "2001:db8::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "host", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
