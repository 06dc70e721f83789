//! What answers are kept under.

use std::sync::Arc;

/// The version that answered and the address that was asked, as bytes.
pub(crate) type Key = Arc<[u8]>;

/// A version as long as it stays in the table. One that leaves and comes back is another one: what was kept of it is
/// not found any more, whatever is still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Space(pub u64);

/// What a request asked for, as far as its answer depends on it: none of these holds a line end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    pub listener: &'a [u8],
    pub scheme: &'a [u8],
    /// As the service learns it.
    pub host: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
}

impl Address<'_> {
    pub(crate) fn key(&self, space: Space) -> Key {
        let mut bytes = Vec::with_capacity(64 + self.host.len() + self.target.len());
        bytes.extend_from_slice(&space.0.to_be_bytes());
        for part in [self.listener, self.scheme] {
            bytes.extend_from_slice(part);
            bytes.push(b'\n');
        }
        bytes.extend(self.host.iter().map(u8::to_ascii_lowercase));
        bytes.push(b'\n');
        bytes.extend_from_slice(self.target);
        bytes.into()
    }
}

pub(super) fn space_of(key: &Key) -> Space {
    let bytes = key.first_chunk().copied().unwrap_or_default();
    Space(u64::from_be_bytes(bytes))
}

/// Path and query.
pub(super) fn target_of(key: &Key) -> &[u8] {
    key.get(8..).and_then(|rest| rest.splitn(4, |byte| *byte == b'\n').nth(3)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_version_and_address_have_the_same_key() {
        let address = Address { listener: b"1", scheme: b"https", host: b"a.example", target: b"/x?y" };
        let key = address.key(Space(7));
        assert_eq!(space_of(&key), Space(7));
        assert_eq!(target_of(&key), b"/x?y");
        assert_eq!(target_of(&address.key(Space(0x0a0a_0a0a_0a0a_0a0a))), b"/x?y", "line ends in the number");
        assert_eq!(Address { host: b"A.Example", ..address }.key(Space(7)), key);
        for other in [
            Address { listener: b"2", ..address },
            Address { scheme: b"http", ..address },
            Address { host: b"a.exampl", target: b"e/x?y", ..address },
            Address { target: b"/X?y", ..address },
        ] {
            assert_ne!(other.key(Space(7)), key, "{other:?}");
        }
        assert_ne!(address.key(Space(8)), key);
    }
}
