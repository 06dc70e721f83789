//! Bits in a row, the first one highest.

#[derive(Clone, Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not used yet.
    free: u32,
}

impl BitWriter {
    /// Begins after bytes that are there already.
    pub fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, free: 0 }
    }

    /// The lowest `bits` (0..=64) of `value`.
    pub fn put(&mut self, value: u64, mut bits: u32) {
        while bits > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = bits.min(self.free);
            let piece = (value >> (bits - taken)) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (piece << (self.free - taken)) as u8;
            }
            self.free -= taken;
            bits -= taken;
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads through a window of 64 bits, so that most reads touch no memory.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    /// The next bits, highest first. Bits below the first `have` may be set already, to what the next refill sets.
    window: u64,
    have: u32,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, window: 0, have: 0 }
    }

    #[inline]
    fn refill(&mut self) {
        if let Some((next, _)) = self.rest.split_first_chunk::<8>() {
            self.window |= u64::from_be_bytes(*next) >> self.have;
            let bytes = (64 - self.have) / 8;
            self.rest = &self.rest[bytes as usize..];
            self.have += bytes * 8;
            return;
        }
        while self.have <= 56
            && let Some((next, rest)) = self.rest.split_first()
        {
            self.window |= u64::from(*next) << (56 - self.have);
            self.have += 8;
            self.rest = rest;
        }
    }

    /// `None` past the end. At most 64 bits.
    #[inline]
    pub fn take(&mut self, bits: u32) -> Option<u64> {
        if bits > 32 {
            let high = self.take_few(bits - 32)?;
            return Some(high << 32 | self.take_few(32)?);
        }
        self.take_few(bits)
    }

    /// At most 32 bits, which one refill always gives.
    #[inline]
    fn take_few(&mut self, bits: u32) -> Option<u64> {
        if bits == 0 {
            return Some(0);
        }
        if self.have < bits {
            self.refill();
            if self.have < bits {
                return None;
            }
        }
        let value = self.window >> (64 - bits);
        self.window <<= bits;
        self.have -= bits;
        Some(value)
    }

    /// How many ones come next, at most `max` (1..=8); the zero that ends them is taken too.
    #[inline]
    pub fn ones(&mut self, max: u32) -> Option<u32> {
        if self.have < max {
            self.refill();
        }
        let ones = self.window.leading_ones().min(max);
        let taken = (ones + 1).min(max);
        if self.have < taken {
            return None;
        }
        self.window <<= taken;
        self.have -= taken;
        Some(ones)
    }
}

/// Small numbers of either sign become small numbers without one.
#[inline]
pub(super) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline]
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// How many bits a number has.
#[inline]
pub(super) fn width(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Seven bits a byte, lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads from the front of `rest`; `None` when it ends early or the number has more than 64 bits.
#[inline]
pub(super) fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A length and that many bytes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_in_every_width_and_nothing_after_the_end() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let pieces: Vec<(u64, u32)> = (0..rng.usize(0..60))
                .map(|_| {
                    let bits = rng.u32(0..=64);
                    (if bits == 0 { 0 } else { rng.u64(..) >> (64 - bits) }, bits)
                })
                .collect();
            let mut writer = BitWriter::default();
            pieces.iter().for_each(|(value, bits)| writer.put(*value, *bits));
            let total: u32 = pieces.iter().map(|(_, bits)| bits).sum();
            assert_eq!(writer.bytes().len(), total.div_ceil(8) as usize);
            let mut reader = BitReader::new(writer.bytes());
            for (value, bits) in &pieces {
                assert_eq!(reader.take(*bits), Some(*value));
            }
            assert_eq!(reader.take(8), None);
        }
    }

    #[test]
    fn ones_are_counted_up_to_their_bound() {
        let mut writer = BitWriter::default();
        for (value, bits) in [(0, 1), (0b10, 2), (0b110, 3), (0b111, 3), (0b111, 3)] {
            writer.put(value, bits);
        }
        let mut reader = BitReader::new(writer.bytes());
        let counted: Vec<_> = (0..5).map(|_| reader.ones(3)).collect();
        assert_eq!(counted, [Some(0), Some(1), Some(2), Some(3), Some(3)]);
    }

    #[test]
    fn numbers_come_back() {
        let mut out = Vec::new();
        let numbers = [0, 1, 127, 128, 1 << 35, u64::MAX - 1, u64::MAX];
        numbers.iter().for_each(|number| put_varint(&mut out, *number));
        let mut rest = &out[..];
        assert_eq!(numbers.map(|_| take_varint(&mut rest)), numbers.map(Some));
        assert_eq!(take_varint(&mut rest), None);
        assert_eq!(take_varint(&mut &[0xff; 10][..]), None);
        for number in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
    }
}
