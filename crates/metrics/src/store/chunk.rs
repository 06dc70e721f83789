//! Samples of one series in a row, packed.
//!
//! A chunk that still grows is a Gorilla stream ("Gorilla: A Fast, Scalable, In-Memory Time Series Database", Pelkonen
//! et al., VLDB 2015): times as changes of the distance, values as what changed of their bits. That packs repeated
//! values and whole numbers well, and fractions such as 0.37 badly, because their bits have nothing in common.
//!
//! A chunk that is full is packed once more, when all its values are decimals of few digits: as whole numbers over a
//! power of ten, of which the differences are stored. Whatever does not come back bit by bit stays as it is.

use std::fmt;

use super::bits::{BitReader, BitWriter, unzigzag, width, zigzag};
use crate::sample::{Sample, TimestampMs};

/// A chunk is full at this many samples: half an hour at one every 15 s. More would pack better, and a query of one
/// moment would have to unpack more.
pub(super) const SAMPLES_MAX: u16 = 120;

/// No sample packs larger: 68 bits of time, 77 of value. What claims more bytes is damaged.
pub(super) const BYTES_MAX: usize = 1 + 16 + SAMPLES_MAX as usize * 19;

/// The first byte of a chunk.
const GORILLA: u8 = 1;
const DECIMAL: u8 = 2;

/// More digits after the point than this are no decimals that somebody wrote, but the rest of a division.
const EXPONENT_MAX: u32 = 15;

/// All powers are exact as `f64`, and so one division rounds once: as reading the decimal did.
const POWERS: [f64; EXPONENT_MAX as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Whole numbers up to here are exact as `f64`.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A full or cut chunk. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub min_ms: TimestampMs,
    pub max_ms: TimestampMs,
    pub count: u16,
    pub bytes: Box<[u8]>,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min_ms, max_ms, count, bytes } = self;
        write!(f, "Chunk({count} samples in {min_ms}..={max_ms}, {} bytes)", bytes.len())
    }
}

/// The bytes are not those of a chunk with that many samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl Chunk {
    pub fn overlaps(&self, from_ms: TimestampMs, to_ms: TimestampMs) -> bool {
        self.min_ms <= to_ms && from_ms <= self.max_ms
    }

    pub fn decode(&self, out: &mut Vec<Sample>) -> Result<(), Garbled> {
        decode(&self.bytes, self.count, out)
    }
}

/// Packs samples that are in order and at most [`SAMPLES_MAX`] a chunk.
pub(super) fn pack(samples: &[Sample]) -> Vec<Chunk> {
    samples
        .chunks(SAMPLES_MAX.into())
        .filter_map(|part| {
            let (first, rest) = part.split_first()?;
            let mut open = Open::new(*first);
            rest.iter().for_each(|sample| open.push(*sample));
            Some(open.seal())
        })
        .collect()
}

/// Adds `count` samples to `out`; on an error, some of them.
pub(super) fn decode(bytes: &[u8], count: u16, out: &mut Vec<Sample>) -> Result<(), Garbled> {
    let (kind, rest) = bytes.split_first().ok_or(Garbled)?;
    let reader = BitReader::new(rest);
    match *kind {
        GORILLA => read_gorilla(reader, count, out),
        DECIMAL => read_decimal(reader, count, out),
        _ => None,
    }
    .ok_or(Garbled)
}

/// A chunk that grows.
#[derive(Clone, Debug)]
pub(super) struct Open {
    out: BitWriter,
    count: u16,
    min_ms: TimestampMs,
    last_ms: TimestampMs,
    delta: i64,
    value: u64,
    /// The window of bits that changed last, unless `significant` is 0.
    leading: u8,
    significant: u8,
}

impl Open {
    pub fn new(first: Sample) -> Self {
        let mut out = BitWriter::after(vec![GORILLA]);
        out.put(first.at_ms as u64, 64);
        out.put(first.value.to_bits(), 64);
        Self {
            out,
            count: 1,
            min_ms: first.at_ms,
            last_ms: first.at_ms,
            delta: 0,
            value: first.value.to_bits(),
            leading: 0,
            significant: 0,
        }
    }

    pub fn is_full(&self) -> bool {
        self.count >= SAMPLES_MAX
    }

    pub fn min_ms(&self) -> TimestampMs {
        self.min_ms
    }

    pub fn count(&self) -> u16 {
        self.count
    }

    pub fn bytes_len(&self) -> usize {
        self.out.bytes().len()
    }

    /// The caller keeps times rising. Distances wrap, so that every pair of times has one.
    pub fn push(&mut self, sample: Sample) {
        let delta = sample.at_ms.wrapping_sub(self.last_ms);
        put_time_change(&mut self.out, zigzag(delta.wrapping_sub(self.delta)));
        self.delta = delta;
        self.last_ms = sample.at_ms;
        self.put_value(sample.value.to_bits());
        self.count += 1;
    }

    fn put_value(&mut self, value: u64) {
        let changed = value ^ self.value;
        self.value = value;
        if changed == 0 {
            return self.out.put(0, 1);
        }
        // Five bits hold the zeros in front.
        let leading = changed.leading_zeros().min(31) as u8;
        let trailing = changed.trailing_zeros() as u8;
        let kept_trailing = 64 - self.leading - self.significant;
        if self.significant > 0 && leading >= self.leading && trailing >= kept_trailing {
            self.out.put(0b10, 2);
            return self.out.put(changed >> kept_trailing, self.significant.into());
        }
        self.leading = leading;
        self.significant = 64 - leading - trailing;
        self.out.put(0b11, 2);
        self.out.put(leading.into(), 5);
        self.out.put(u64::from(self.significant) - 1, 6);
        self.out.put(changed >> trailing, self.significant.into());
    }

    /// What there is so far, while the chunk goes on growing.
    pub fn snapshot(&self) -> Chunk {
        Chunk { min_ms: self.min_ms, max_ms: self.last_ms, count: self.count, bytes: self.out.bytes().into() }
    }

    /// Packs it for good.
    pub fn seal(self) -> Chunk {
        let mut samples = Vec::with_capacity(self.count.into());
        let plain = Chunk {
            min_ms: self.min_ms,
            max_ms: self.last_ms,
            count: self.count,
            bytes: self.out.into_bytes().into(),
        };
        if plain.decode(&mut samples).is_err() {
            return plain;
        }
        match decimal(&samples) {
            Some(bytes) if bytes.len() < plain.bytes.len() => Chunk { bytes: bytes.into(), ..plain },
            Some(_) | None => plain,
        }
    }
}

/// Widths for jitter of some milliseconds, of some hundred, and for distances up to minutes.
const TIME_WIDTHS: [u32; 5] = [0, 6, 12, 20, 64];

fn put_time_change(out: &mut BitWriter, change: u64) {
    let needed = width(change);
    let bucket = TIME_WIDTHS.iter().position(|width| *width >= needed).unwrap_or(TIME_WIDTHS.len() - 1);
    put_ones(out, bucket as u32, TIME_WIDTHS.len() as u32 - 1);
    out.put(change, TIME_WIDTHS[bucket]);
}

fn put_ones(out: &mut BitWriter, ones: u32, max: u32) {
    if ones == max {
        out.put((1 << ones) - 1, ones);
    } else {
        out.put((1 << (ones + 1)) - 2, ones + 1);
    }
}

fn read_gorilla(mut reader: BitReader<'_>, count: u16, out: &mut Vec<Sample>) -> Option<()> {
    let mut at_ms = reader.take(64)? as i64;
    let mut value = reader.take(64)?;
    let (mut delta, mut leading, mut significant) = (0_i64, 0, 0);
    out.push(Sample { at_ms, value: f64::from_bits(value) });
    for _ in 1..count {
        let bits = TIME_WIDTHS[reader.ones(4)? as usize];
        if bits > 0 {
            delta = delta.wrapping_add(unzigzag(reader.take(bits)?));
        }
        at_ms = at_ms.wrapping_add(delta);
        match reader.ones(2)? {
            0 => {}
            ones => {
                if ones == 2 {
                    leading = reader.take(5)? as u32;
                    significant = reader.take(6)? as u32 + 1;
                }
                let trailing = 64_u32.checked_sub(leading + significant)?;
                // A window that was never set.
                if significant == 0 {
                    return None;
                }
                value ^= reader.take(significant)? << trailing;
            }
        }
        out.push(Sample { at_ms, value: f64::from_bits(value) });
    }
    Some(())
}

/// Whole numbers in a row, as the changes between them, or the changes of those.
///
/// `ends` are where the first one and the first change stand, with their own width each; the rest share two widths that
/// fit them best. A row in which nothing changes takes no bits at all.
mod row {
    use super::{BitReader, BitWriter, put_ones, unzigzag, width, zigzag};

    /// Six bits.
    const WIDTH_MAX: usize = 63;

    fn put_number(out: &mut BitWriter, number: i64) {
        let number = zigzag(number);
        out.put(width(number).into(), 7);
        out.put(number, width(number));
    }

    fn take_number(reader: &mut BitReader<'_>) -> Option<i64> {
        let bits = reader.take(7)? as u32;
        (bits <= 64).then(|| reader.take(bits))?.map(unzigzag)
    }

    /// The two widths that need the fewest bits, and those bits.
    fn widths(numbers: &[u64]) -> (u32, u32, usize) {
        let mut counts = [0_usize; 65];
        for number in numbers {
            counts[width(*number) as usize] += 1;
        }
        // How many need at most so many bits, not counting zeros, which have a code of their own.
        let mut within = [0_usize; 65];
        for bits in 1..=64 {
            within[bits] = within[bits - 1] + counts[bits];
        }
        let mut best = (0, 0, usize::MAX);
        let used = (1..=WIDTH_MAX).filter(|bits| counts[*bits] > 0);
        for large in used.clone().chain([0]) {
            for small in used.clone().take_while(|small| *small <= large).chain([0]) {
                let (few, many) = (within[small], within[large] - within[small]);
                let bits = counts[0]
                    + few * (2 + small)
                    + many * (3 + large)
                    + (within[64] - within[large]) * (3 + 64);
                if bits < best.2 {
                    best = (small as u32, large as u32, bits);
                }
            }
        }
        best
    }

    /// `None` of an empty row.
    pub fn put(out: &mut BitWriter, numbers: &[i64], times: bool) -> Option<()> {
        let (first, _) = numbers.split_first()?;
        put_number(out, *first);
        let changes: Vec<i64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        let Some(first) = changes.first() else { return Some(()) };
        let plain: Vec<u64> = changes.iter().map(|change| zigzag(*change)).collect();
        let second: Vec<u64> = changes.windows(2).map(|pair| zigzag(pair[1].wrapping_sub(pair[0]))).collect();
        let (by_plain, by_second) = (widths(&plain), widths(&second));
        // What the first change costs more than a place in the row is not worth a comparison.
        let twice = times || by_second.2 < by_plain.2;
        if !times {
            out.put(twice.into(), 1);
        }
        let (rest, (small, large, _)) = if twice {
            put_number(out, *first);
            (second, by_second)
        } else {
            (plain, by_plain)
        };
        let moves = rest.iter().any(|number| *number != 0);
        out.put(moves.into(), 1);
        if !moves {
            return Some(());
        }
        out.put(small.into(), 6);
        out.put(large.into(), 6);
        for number in rest {
            let (ones, bits) = match width(number) {
                0 => (0, 0),
                needed if needed <= small => (1, small),
                needed if needed <= large => (2, large),
                _ => (3, 64),
            };
            put_ones(out, ones, 3);
            out.put(number, bits);
        }
        Some(())
    }

    /// Hands `count` numbers to `each`.
    #[inline]
    pub fn take(
        reader: &mut BitReader<'_>,
        count: u16,
        times: bool,
        mut each: impl FnMut(i64),
    ) -> Option<()> {
        let mut number = take_number(reader)?;
        each(number);
        if count < 2 {
            return Some(());
        }
        let twice = times || reader.take(1)? == 1;
        let mut left = count - 1;
        let mut change = 0;
        if twice {
            change = take_number(reader)?;
            number = number.wrapping_add(change);
            each(number);
            left -= 1;
        }
        if reader.take(1)? == 0 {
            for _ in 0..left {
                number = number.wrapping_add(change);
                each(number);
            }
            return Some(());
        }
        let widths = [0, reader.take(6)? as u32, reader.take(6)? as u32, 64];
        for _ in 0..left {
            let bits = widths[reader.ones(3)? as usize];
            let step = unzigzag(reader.take(bits)?);
            change = if twice { change.wrapping_add(step) } else { step };
            number = number.wrapping_add(change);
            each(number);
        }
        Some(())
    }
}

/// `None` when a value is no decimal of few digits, among them all that are not finite and the negative zero.
fn decimal(samples: &[Sample]) -> Option<Vec<u8>> {
    let mut exponent = 0;
    for sample in samples {
        while whole(sample.value, exponent).is_none() {
            exponent += 1;
            if exponent > EXPONENT_MAX {
                return None;
            }
        }
    }
    // A later value may have raised it beyond what an earlier one bears.
    let numbers: Vec<i64> =
        samples.iter().map(|sample| whole(sample.value, exponent)).collect::<Option<_>>()?;
    let times: Vec<i64> = samples.iter().map(|sample| sample.at_ms).collect();
    let mut out = BitWriter::after(vec![DECIMAL]);
    row::put(&mut out, &times, true)?;
    out.put(exponent.into(), 4);
    row::put(&mut out, &numbers, false)?;
    Some(out.into_bytes())
}

/// `value` times a power of ten, if that is whole and gives back the very same bits.
fn whole(value: f64, exponent: u32) -> Option<i64> {
    let power = POWERS[exponent as usize];
    let number = (value * power).round();
    // Also false for what is not a number.
    if number.abs() < WHOLE_MAX && (number as i64 as f64 / power).to_bits() == value.to_bits() {
        Some(number as i64)
    } else {
        None
    }
}

fn read_decimal(mut reader: BitReader<'_>, count: u16, out: &mut Vec<Sample>) -> Option<()> {
    let start = out.len();
    out.reserve(count.into());
    row::take(&mut reader, count, true, |at_ms| out.push(Sample { at_ms, value: 0.0 }))?;
    let power = POWERS[reader.take(4)? as usize];
    let mut places = out[start..].iter_mut();
    row::take(&mut reader, count, false, |number| {
        if let Some(place) = places.next() {
            place.value = number as f64 / power;
        }
    })
}

#[cfg(test)]
mod tests;
