//! Who asks.

use std::net::IpAddr;

use super::Relay;
use crate::codec::{Field, RequestHead, header_storage};
use crate::conn::request_buffer::RequestBuffer;

impl Relay<'_> {
    /// The client's address: the peer's, unless a trusted proxy names another. Reads the head again, so it is for
    /// requests of which something must be said.
    pub(super) fn client(&self, request: &RequestBuffer) -> IpAddr {
        if !self.conn.client.trusted {
            return self.conn.client.address;
        }
        let mut storage = header_storage();
        match RequestHead::parse(request.head(), &mut storage) {
            Ok(head) => self.client_of(&head),
            Err(_) => self.conn.client.address,
        }
    }

    /// As [`Self::client`], for a head that is at hand.
    pub(super) fn client_of(&self, head: &RequestHead<'_, '_>) -> IpAddr {
        let client = &self.conn.client;
        match client.entrance.as_deref().filter(|_| client.trusted) {
            Some(entrance) => claimed(head, client.address, |address| entrance.trusts(*address)),
            None => client.address,
        }
    }
}

/// Each hop appended whom it heard: read from the right, every entry is as trustworthy as the hop that wrote it, and
/// the first that is none of ours is the client. What stands left of it the client may have made up.
fn claimed(head: &RequestHead<'_, '_>, peer: IpAddr, is_trusted: impl Fn(&IpAddr) -> bool) -> IpAddr {
    let lines = head.headers.iter().rev().filter(|header| Field::of(header.name) == Field::ForwardedFor);
    let entries = lines.flat_map(|header| header.value.rsplit(|b| *b == b','));
    let mut client = peer;
    for entry in entries {
        let address =
            std::str::from_utf8(entry.trim_ascii()).ok().and_then(|text| text.parse::<IpAddr>().ok());
        let Some(address) = address else { return client };
        client = address.to_canonical();
        if !is_trusted(&client) {
            return client;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_address_that_is_no_proxy_of_ours_is_the_client() {
        let check = |fields: &str, expect: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let mut storage = header_storage();
            let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap();
            let found = claimed(
                &head,
                [10, 0, 0, 1].into(),
                |address| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10),
            );
            assert_eq!(found.to_string(), expect, "{fields}");
        };
        check("", "10.0.0.1");
        check("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7");
        check("X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.2\r\n", "203.0.113.7");
        check("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7");
        check("X-Forwarded-For: 10.0.0.3,10.0.0.2\r\n", "10.0.0.3");
        check("X-Forwarded-For: ::ffff:203.0.113.7\r\n", "203.0.113.7");
        check("X-Forwarded-For: 203.0.113.7, unknown\r\n", "10.0.0.1");
        check("X-Forwarded-For: ,\r\n", "10.0.0.1");
    }
}
