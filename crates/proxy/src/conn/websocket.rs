//! Where WebSocket frames end (RFC 6455, section 5.2), so that a close frame can be put between two of them.

/// Follows the frames of one direction. Payloads are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// So many bytes of a frame's header are here.
    Header {
        bytes: [u8; 14],
        len: usize,
    },
    Payload {
        left: u64,
    },
}

/// 1001, going away, as a server says it.
pub(super) const GOING_AWAY: &[u8] = &[0x88, 0x02, 0x03, 0xe9];

/// The same as a client says it: masked, with a mask of zeros.
pub(super) const GOING_AWAY_MASKED: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

impl Frames {
    pub(super) fn new() -> Self {
        Self::Header { bytes: [0; 14], len: 0 }
    }

    /// Whether another frame may begin here.
    pub(super) fn is_between(&self) -> bool {
        matches!(self, Self::Header { len: 0, .. })
    }

    pub(super) fn follow(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            match self {
                Self::Payload { left } => {
                    let here = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                    *left -= here as u64;
                    data = &data[here..];
                    if *left == 0 {
                        *self = Self::new();
                    }
                }
                Self::Header { bytes, len } => {
                    bytes[*len] = data[0];
                    *len += 1;
                    data = &data[1..];
                    if let Some(left) = payload(&bytes[..*len]) {
                        *self = if left == 0 { Self::new() } else { Self::Payload { left } };
                    }
                }
            }
        }
    }
}

/// Payload length that a complete header announces; `None` while the header is incomplete.
fn payload(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    if header.len() < 2 + extended + mask {
        return None;
    }
    let length = header[2..2 + extended].iter().fold(0u64, |sum, b| (sum << 8) | u64::from(*b));
    Some(if extended == 0 { u64::from(second & 0x7f) } else { length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match payload {
            0..=125 => frame.push(mask | payload as u8),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[7; 4][..if masked { 4 } else { 0 }]);
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    #[test]
    fn ends_of_frames_are_found_wherever_the_bytes_are_split() {
        for masked in [false, true] {
            for payload in [0, 1, 125, 126, 127, 65_535, 65_536] {
                let one = frame(masked, payload);
                let mut frames = Frames::new();
                for at in [1, 2, 3, one.len() / 2, one.len() - 1] {
                    let mut frames = Frames::new();
                    let (a, b) = one.split_at(at.min(one.len() - 1));
                    frames.follow(a);
                    assert!(!frames.is_between() || a.is_empty(), "{masked} {payload} {at}");
                    frames.follow(b);
                    assert!(frames.is_between(), "{masked} {payload} {at}");
                }
                frames.follow(&[one.clone(), one.clone(), one].concat());
                assert!(frames.is_between());
            }
        }
        let mut frames = Frames::new();
        frames.follow(GOING_AWAY);
        assert!(frames.is_between());
        frames.follow(GOING_AWAY_MASKED);
        assert!(frames.is_between());
    }
}
