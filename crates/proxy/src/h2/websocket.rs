//! The handshake of WebSockets (RFC 6455, section 4.2.2), where only one side speaks HTTP/1.1 and the other knows none.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::trace::Random;

/// A key for an instance. It only keeps caches from answering; nobody checks it on our side.
pub(super) fn key() -> String {
    let random = Random::new();
    base64(&[random.next().to_be_bytes(), random.next().to_be_bytes()].concat())
}

/// What a client with this key wants to hear.
pub(super) fn accept(key: &[u8]) -> String {
    const PROTOCOL: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, PROTOCOL].concat()).as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            text.push(match digit <= three.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standards() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        // RFC 4648, section 10.
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_ne!(key(), key());
    }
}
