//! See [`crate::fuzzing`].

use super::proxy_protocol;
use super::websocket::Frames;

pub(crate) fn frames(whole: &[u8], first: &[u8], second: &[u8]) {
    let mut at_once = Frames::new();
    at_once.follow(whole);
    let mut in_parts = Frames::new();
    in_parts.follow(first);
    in_parts.follow(second);
    assert_eq!(at_once, in_parts);
    let mut one_by_one = Frames::new();
    for byte in whole {
        one_by_one.follow(&[*byte]);
    }
    assert_eq!(at_once, one_by_one);
}

/// Its length, when it is one.
pub(crate) fn proxy_header(bytes: &[u8]) -> Option<usize> {
    proxy_protocol::parse(bytes).ok().map(|(_, length)| length)
}
