//! Request id and W3C trace context.

use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Fast and unpredictable enough for ids and for choosing instances (SplitMix64); not for secrets.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new() -> Self {
        // The standard library seeds this from the system's random numbers.
        Self(Cell::new(RandomState::new().build_hasher().finish()))
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

pub(crate) fn hex(value: u64) -> [u8; 16] {
    // All digits at once: spread to one a byte, then '0' to '9' and 'a' to 'f' by adding.
    let spread = |half: u64| {
        let quarters = (half | half << 16) & 0x0000_ffff_0000_ffff;
        let bytes = (quarters | quarters << 8) & 0x00ff_00ff_00ff_00ff;
        let digits = (bytes | bytes << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
        (digits + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
    };
    let mut text = [0; 16];
    text[..8].copy_from_slice(&spread(value >> 32));
    text[8..].copy_from_slice(&spread(value & 0xffff_ffff));
    text
}

/// Longest request id that is passed on; UUIDs have 36 characters, and logs must not be filled by clients.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 64;

/// Whether a client's request id is safe to repeat in headers and logs.
pub(crate) fn is_request_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:=+/".contains(b))
}

/// `00-<trace id>-<parent id>-<flags>`, ids not all zero (W3C Trace Context, section 3.2).
pub(crate) fn is_traceparent(value: &[u8]) -> bool {
    let part = |range: std::ops::Range<usize>| value.get(range).unwrap_or_default();
    let lower_hex =
        |part: &[u8]| !part.is_empty() && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let nonzero = |part: &[u8]| part.iter().any(|b| *b != b'0');
    let dashes = [2, 35, 52].iter().all(|at| value.get(*at) == Some(&b'-'));
    // Later versions may be longer; version ff is forbidden.
    let length = match part(0..2) {
        b"00" => value.len() == 55,
        b"ff" => false,
        _ => value.len() == 55 || value.get(55) == Some(&b'-'),
    };
    dashes
        && length
        && lower_hex(part(0..2))
        && lower_hex(part(3..35))
        && nonzero(part(3..35))
        && lower_hex(part(36..52))
        && nonzero(part(36..52))
        && lower_hex(part(53..55))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents() {
        let check =
            |value: &str, expect: bool| assert_eq!(is_traceparent(value.as_bytes()), expect, "{value}");
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true);
        check("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", true);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", false);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false);
        check("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false);
        check("", false);
    }

    #[test]
    fn request_ids_cannot_carry_anything_else() {
        assert!(is_request_id(b"7f0c-42"));
        assert!(!is_request_id(b""));
        assert!(!is_request_id(b"a b"));
        assert!(!is_request_id(b"\"x\""));
        assert!(!is_request_id(&[b'a'; 65]));
        assert_eq!(&hex(0x0123_4567_89ab_cdef), b"0123456789abcdef");
        assert_eq!(&hex(0xfedc_ba98_7654_3210), b"fedcba9876543210");
        assert_eq!(&hex(u64::MAX), b"ffffffffffffffff");
        assert_eq!(&hex(0), b"0000000000000000");
    }
}
