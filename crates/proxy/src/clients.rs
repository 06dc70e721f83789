//! How many connections each client has, over all cores.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many locks share the addresses, so that cores that accept at the same time rarely meet.
const SHARDS: usize = 32;

/// Only clients of listeners with a limit are in it, and each of them has a connection: it cannot outgrow those.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clients(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Chosen by a key of this process: nobody can pick addresses that all fall on one lock.
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// One connection of one client, for as long as it is open.
#[derive(Debug)]
pub(crate) struct Seat {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    /// `None`: the client has `max` already.
    pub(crate) fn sit(&self, address: IpAddr, max: u32) -> Option<Seat> {
        let client = party(address);
        let mut shard = self.shard(client);
        if shard.get(&client).is_some_and(|taken| *taken >= max) || max == 0 {
            return None;
        }
        *shard.entry(client).or_default() += 1;
        Some(Seat { clients: self.clone(), client })
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let number = self.0.hasher.hash_one(client) as usize % SHARDS;
        self.0.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.client);
        if let Some(taken) = shard.get_mut(&self.client) {
            *taken -= 1;
            if *taken == 0 {
                shard.remove(&self.client);
            }
        }
    }
}

/// Who counts as one: with IPv6 a single machine is given 2^64 addresses.
fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_and_given_back() {
        let clients = Clients::default();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let first = clients.sit(one, 2).unwrap();
        let _second = clients.sit("::ffff:192.0.2.1".parse().unwrap(), 2).unwrap();
        assert!(clients.sit(one, 2).is_none());
        assert!(clients.sit("192.0.2.2".parse().unwrap(), 2).is_some());
        drop(first);
        assert!(clients.sit(one, 2).is_some());
        assert!(clients.sit(one, 0).is_none());
    }

    #[test]
    fn all_addresses_of_one_network_of_ipv6_are_one_client() {
        let clients = Clients::default();
        let _seat = clients.sit("2001:db8::1".parse().unwrap(), 1).unwrap();
        assert!(clients.sit("2001:db8::ffff:1".parse().unwrap(), 1).is_none());
        assert!(clients.sit("2001:db8:0:1::1".parse().unwrap(), 1).is_some());
    }

    #[test]
    fn nobody_is_remembered_who_is_gone() {
        let clients = Clients::default();
        for number in 0..10_000_u32 {
            drop(clients.sit(IpAddr::from(number.to_be_bytes()), 1));
            assert!(clients.sit(IpAddr::from(number.to_be_bytes()), 0).is_none());
        }
        let left: usize = clients.0.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(left, 0, "a refused client is remembered");
    }
}
