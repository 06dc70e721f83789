//! What frames of the log hold: records of one kind after another.

use super::super::bits::{put_text, put_varint, take_text, take_varint, unzigzag, zigzag};
use super::super::chunk::{BYTES_MAX, Chunk};
use crate::labels::Labels;
use crate::sample::{Sample, TimestampMs};

/// The first byte of a frame's content.
const SERIES: u8 = 1;
const SAMPLES: u8 = 2;
const CHUNKS: u8 = 3;
const CHECKPOINT: u8 = 4;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Record {
    Series {
        id: u64,
        labels: Labels,
    },
    Sample {
        id: u64,
        at_ms: TimestampMs,
        bits: u64,
    },
    Chunk {
        id: u64,
        chunk: Chunk,
        last: (TimestampMs, u64),
    },
    /// The first one of a checkpoint.
    Checkpoint {
        min_valid_ms: TimestampMs,
        next_id: u64,
    },
}

pub(in super::super) fn put_series(out: &mut Vec<u8>, id: u64, labels: &Labels) {
    if out.is_empty() {
        out.push(SERIES);
    }
    put_varint(out, id);
    put_varint(out, labels.len() as u64);
    for (name, value) in labels.iter() {
        put_text(out, name);
        put_text(out, value);
    }
}

pub(in super::super) fn put_chunk(out: &mut Vec<u8>, id: u64, chunk: &Chunk, last: (TimestampMs, u64)) {
    if out.is_empty() {
        out.push(CHUNKS);
    }
    for number in [id, zigzag(last.0), last.1, zigzag(chunk.min_ms), zigzag(chunk.max_ms), chunk.count.into()]
    {
        put_varint(out, number);
    }
    put_varint(out, chunk.bytes.len() as u64);
    out.extend_from_slice(&chunk.bytes);
}

pub(in super::super) fn checkpoint(min_valid_ms: TimestampMs, next_id: u64) -> Vec<u8> {
    let mut out = vec![CHECKPOINT];
    put_varint(&mut out, zigzag(min_valid_ms));
    put_varint(&mut out, next_id);
    out
}

/// Samples as they are collected: about ten bytes each, because neighbours have close ids and the same time.
#[derive(Debug, Default)]
pub(super) struct Samples {
    out: Vec<u8>,
    last_id: u64,
    last_ms: TimestampMs,
}

impl Samples {
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn put(&mut self, id: u64, sample: Sample) {
        if self.out.is_empty() {
            self.out.push(SAMPLES);
        }
        put_varint(&mut self.out, zigzag(id.wrapping_sub(self.last_id) as i64));
        put_varint(&mut self.out, zigzag(sample.at_ms.wrapping_sub(self.last_ms)));
        self.out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        (self.last_id, self.last_ms) = (id, sample.at_ms);
    }

    /// The content of a frame, if there is any.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let taken = std::mem::take(self);
        (!taken.out.is_empty()).then_some(taken.out)
    }
}

/// Hands each record of a frame to `each`. `None` when the content is none.
pub(in super::super) fn read(content: &[u8], mut each: impl FnMut(Record)) -> Option<()> {
    let (kind, mut rest) = content.split_first()?;
    let rest = &mut rest;
    let (mut last_id, mut last_ms) = (0_u64, 0_i64);
    while !rest.is_empty() {
        each(match *kind {
            SERIES => read_series(rest)?,
            CHUNKS => read_chunk(rest)?,
            CHECKPOINT => {
                Record::Checkpoint { min_valid_ms: unzigzag(take_varint(rest)?), next_id: take_varint(rest)? }
            }
            SAMPLES => {
                last_id = last_id.wrapping_add(unzigzag(take_varint(rest)?) as u64);
                last_ms = last_ms.wrapping_add(unzigzag(take_varint(rest)?));
                let (bits, after) = rest.split_first_chunk()?;
                *rest = after;
                Record::Sample { id: last_id, at_ms: last_ms, bits: u64::from_le_bytes(*bits) }
            }
            _ => return None,
        });
    }
    Some(())
}

fn read_series(rest: &mut &[u8]) -> Option<Record> {
    let id = take_varint(rest)?;
    let count = take_varint(rest)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((take_text(rest)?, take_text(rest)?));
    }
    Some(Record::Series { id, labels: Labels::new(pairs) })
}

fn read_chunk(rest: &mut &[u8]) -> Option<Record> {
    let id = take_varint(rest)?;
    let last = (unzigzag(take_varint(rest)?), take_varint(rest)?);
    let (min_ms, max_ms) = (unzigzag(take_varint(rest)?), unzigzag(take_varint(rest)?));
    let count = u16::try_from(take_varint(rest)?).ok()?;
    let length = usize::try_from(take_varint(rest)?).ok().filter(|length| *length <= BYTES_MAX)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(Record::Chunk { id, chunk: Chunk { min_ms, max_ms, count, bytes: bytes.into() }, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::chunk::pack;

    fn read_all(content: &[u8]) -> Option<Vec<Record>> {
        let mut all = Vec::new();
        read(content, |record| all.push(record)).map(|()| all)
    }

    #[test]
    fn records_come_back() {
        let labels = Labels::new([("__name__", "up"), ("job", "ä")]);
        let mut series = Vec::new();
        put_series(&mut series, 7, &labels);
        put_series(&mut series, u64::MAX, &Labels::default());
        assert_eq!(
            read_all(&series).unwrap(),
            [Record::Series { id: 7, labels }, Record::Series { id: u64::MAX, labels: Labels::default() }]
        );

        let mut samples = Samples::default();
        let list = [(9, i64::MIN, f64::NAN), (u64::MAX, i64::MAX, -0.0), (0, -5, 1.5)];
        list.iter().for_each(|(id, at_ms, value)| samples.put(*id, Sample { at_ms: *at_ms, value: *value }));
        let expected = list.map(|(id, at_ms, value)| Record::Sample { id, at_ms, bits: value.to_bits() });
        assert_eq!(read_all(&samples.take().unwrap()).unwrap(), expected);
        assert_eq!(samples.take(), None);

        let chunk = pack(&[Sample { at_ms: -3, value: 2.0 }]).swap_remove(0);
        let mut chunks = Vec::new();
        put_chunk(&mut chunks, 3, &chunk, (-3, 9));
        assert_eq!(read_all(&chunks).unwrap(), [Record::Chunk { id: 3, chunk, last: (-3, 9) }]);

        let start = Record::Checkpoint { min_valid_ms: -1, next_id: 12 };
        assert_eq!(read_all(&checkpoint(-1, 12)).unwrap(), [start]);
    }

    #[test]
    fn what_is_no_record_is_refused_and_never_panics() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect();
            if let Some(first) = bytes.first_mut() {
                *first = rng.u8(0..6);
            }
            let _ = read_all(&bytes);
        }
        assert_eq!(read_all(&[]), None);
        assert_eq!(read_all(&[9, 1]), None);
        assert_eq!(read_all(&[SERIES, 1, 200]), None);
    }
}
